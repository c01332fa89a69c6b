//! What is printed: tables for people, JSON for programs. And the one question that is asked.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use chrono::DateTime;
use serde_json::Value;

use super::CliError;
use crate::clock;

/// Prints text that ends with a newline. A reader that has seen enough, as `head` has, is no error.
pub(super) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

pub(super) fn line(text: &str) {
    print(&format!("{}\n", printable(text)));
}

pub(super) fn json(value: &Value) {
    print(&format!("{value:#}\n"));
}

/// Columns below headings. Those that hold numbers only stand on the right.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let column = |at: usize| cells.iter().map(move |row| row[at].as_str());
    let width = |at: usize| column(at).map(|cell| cell.chars().count()).chain([headings[at].len()]).max().unwrap_or(0);
    let is_number = |cell: &str| !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit());
    let right: Vec<bool> = (0..headings.len()).map(|at| !cells.is_empty() && column(at).all(is_number)).collect();
    let mut out = String::new();
    let head: Vec<String> = headings.iter().map(|&heading| heading.to_owned()).collect();
    for row in std::iter::once(&head).chain(&cells) {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let gap = if at == 0 { "" } else { "  " };
            let width = width(at);
            line += &if right[at] { format!("{gap}{cell:>width$}") } else { format!("{gap}{cell:<width$}") };
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// The text of a value for a cell; nothing for what is absent.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// An instant as people say it: `3m 12s ago`, `in 2h`.
pub(super) fn when(value: &Value) -> String {
    let Some(at) = value.as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok()) else {
        return String::new();
    };
    let at = u64::try_from(at.timestamp_millis()).unwrap_or(0);
    let now = clock::now().as_millis();
    let words = span(at.abs_diff(now) / 1000);
    if at > now { format!("in {words}") } else { format!("{words} ago") }
}

/// How far a job is: `step 1 of 2, 40 %, resizing`.
pub(super) fn progress(value: &Value) -> String {
    let step = value["step"].as_u64().map(|step| format!("step {step} of {}", value["steps"]));
    let percent = value["percent"].as_u64().map(|percent| format!("{percent} %"));
    let parts = [step, percent, value["message"].as_str().map(str::to_owned)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Seconds in their two largest units.
pub(super) fn span(seconds: u64) -> String {
    let long = humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string();
    long.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A foreign text without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Asks before what cannot be undone by typing again. Where nobody can be asked, the answer must have been given.
pub(super) fn confirm(question: &str, yes: bool) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(CliError::Usage(format!("{question} nobody can be asked here; add --yes")));
    }
    eprint!("{} [y/N] ", printable(question));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match read {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err(CliError::Failed("nothing was done".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_on_the_right_and_nothing_steers_the_terminal() {
        let rows = [
            vec!["a\u{1b}[2J".to_owned(), "7".to_owned(), String::new()],
            vec!["bb".into(), "1200".into(), "x".into()],
        ];
        assert_eq!(table(&["NAME", "COUNT", "X"], &rows), "NAME   COUNT  X\na [2J      7\nbb      1200  x\n");
    }
}
