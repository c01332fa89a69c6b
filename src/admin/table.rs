//! The overview for people: as a table for a terminal, and as a page for a browser. Both show the same cells.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use minijinja::{Environment, context};

use super::overview::{Overview, QueueRow};
use super::stance::ShownBreaker;

/// The cells of a line.
const COLUMNS: usize = 11;
const HEADINGS: [&str; COLUMNS] = [
    "QUEUE",
    "WIRES",
    "STATE",
    "PENDING",
    "ACTIVE",
    "SCHEDULED",
    "RETRY",
    "COMPLETED",
    "DEAD",
    "OLDEST WAIT",
    "FOREIGN BACKLOG",
];
/// The first columns hold names and stand on the left, the others numbers.
const NAMES: usize = 3;
/// What stands for a number that Redis did not give.
const UNKNOWN: &str = "?";
const PAGE: &str = include_str!("overview.html");

/// For a terminal. Ends with a newline.
pub(super) fn text(overview: &Overview<'_>) -> String {
    let rows: Vec<[String; COLUMNS]> = overview.queues.iter().map(|row| cells(row, overview.redis.up)).collect();
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([HEADINGS[column].len()]).max().unwrap_or_default()
    };
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let mut out = String::new();
    line(&mut out, &HEADINGS, &widths);
    for row in &rows {
        line(&mut out, &row.each_ref().map(String::as_str), &widths);
    }
    if rows.is_empty() {
        out.push_str("(no queues are configured)\n");
    }
    out.push('\n');
    for (name, value) in facts(overview) {
        let _ = writeln!(out, "{name:<8}{}", printable(&value));
    }
    out
}

/// For a browser.
///
/// # Errors
/// When the page's template does not fit its values, which the tests rule out.
pub(super) fn html(overview: &Overview<'_>) -> Result<String, minijinja::Error> {
    let rows: Vec<[String; COLUMNS]> = overview.queues.iter().map(|row| cells(row, overview.redis.up)).collect();
    // The name ends in .html, so everything that is filled in is escaped.
    Environment::new().render_named_str(
        "overview.html",
        PAGE,
        context! {
            node => overview.node,
            headings => HEADINGS,
            rows,
            facts => facts(overview).into_iter().map(|(name, value)| [name.to_owned(), value]).collect::<Vec<_>>(),
        },
    )
}

fn line(out: &mut String, cells: &[&str; COLUMNS], widths: &[usize; COLUMNS]) {
    let start = out.len();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let gap = if column == 0 { "" } else { "  " };
        let _ = if column < NAMES { write!(out, "{gap}{cell:<width$}") } else { write!(out, "{gap}{cell:>width$}") };
    }
    let end = out[start..].trim_end().len();
    out.truncate(start + end);
    out.push('\n');
}

fn cells(row: &QueueRow<'_>, known: bool) -> [String; COLUMNS] {
    let number = |value: Option<u64>| value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string());
    let jobs = row.jobs;
    let wires: BTreeSet<&str> = row.lists.iter().map(|list| list.wire).collect();
    let wires = if wires.is_empty() { "-".to_owned() } else { wires.into_iter().collect::<Vec<_>>().join(",") };
    let oldest = match row.oldest_wait_seconds {
        Some(seconds) => span(Duration::from_secs_f64(seconds)),
        None if known => "-".to_owned(),
        None => UNKNOWN.to_owned(),
    };
    [
        row.queue.to_owned(),
        wires,
        state(row, known),
        number(jobs.map(|jobs| jobs.pending)),
        number(jobs.map(|jobs| jobs.active)),
        number(jobs.map(|jobs| jobs.scheduled)),
        number(jobs.map(|jobs| jobs.retry)),
        number(jobs.map(|jobs| jobs.completed)),
        number(jobs.map(|jobs| jobs.dead)),
        oldest,
        if row.lists.is_empty() { "-".to_owned() } else { number(row.backlog()) },
    ]
}

/// What holds a queue back.
fn state(row: &QueueRow<'_>, known: bool) -> String {
    match (&row.paused, row.paused_tasks.len()) {
        _ if !known => UNKNOWN.to_owned(),
        (Some(_), _) => "paused".to_owned(),
        _ if row.breaker.is_some() => row.breaker.as_ref().map_or("", ShownBreaker::words).to_owned(),
        (None, 0) => "open".to_owned(),
        (None, 1) => "1 task paused".to_owned(),
        (None, tasks) => format!("{tasks} tasks paused"),
    }
}

fn facts(overview: &Overview<'_>) -> Vec<(&'static str, String)> {
    let redis = match &overview.redis.error {
        None => "connected".to_owned(),
        Some(error) => format!("disconnected: {error}"),
    };
    let mut facts = vec![("node", format!("{}  {}", overview.node, overview.phase)), ("redis", redis)];
    facts.extend(overview.redis.warnings.iter().map(|warning| ("", warning.clone())));
    for row in &overview.queues {
        let reason = row.breaker.as_ref().map(|breaker| ("waits", format!("{}: {}", row.queue, breaker.reason())));
        facts.extend(reason);
    }
    for (row, scale) in overview.queues.iter().filter_map(|row| Some((row, row.scale.as_ref()?))) {
        facts.push(("slots", format!("{}: {}", row.queue, scale.words())));
    }
    for (row, set) in overview.queues.iter().filter_map(|row| Some((row, row.set.as_ref()?))) {
        facts.push(("slots", format!("{}: {}", row.queue, set.words(row.configured.0))));
    }
    facts.push(("uptime", span(Duration::from_secs(overview.uptime_seconds))));
    facts.push(("version", overview.version.to_owned()));
    facts
}

/// A span as people say it, in its two largest units: `850ms`, `3m 12s`, `2days 4h`.
fn span(span: Duration) -> String {
    let whole = if span < Duration::from_secs(1) {
        Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or_default())
    } else {
        Duration::from_secs(span.as_secs())
    };
    let long = humantime::format_duration(whole).to_string();
    long.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A foreign text without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::overview::RedisState;

    fn overview<'a>(queues: Vec<QueueRow<'a>>, error: Option<&str>) -> Overview<'a> {
        Overview {
            node: "vps-1",
            version: "0.1.0",
            phase: "running",
            started: "2026-11-23T10:00:00.000Z".into(),
            uptime_seconds: 90_061,
            redis: RedisState { up: error.is_none(), error: error.map(Into::into), warnings: vec![] },
            queues,
        }
    }

    #[test]
    fn nothing_in_the_page_is_markup_but_the_page() {
        let hostile = "<script>alert('1')</script>";
        let page = html(&overview(vec![], Some(hostile))).expect("a page");
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;"), "{page}");
    }

    #[test]
    fn an_error_cannot_steer_the_terminal() {
        let shown = text(&overview(vec![], Some("no\u{1b}[2Jnode  forged\n")));
        assert!(shown.contains("disconnected: no\u{fffd}[2Jnode  forged\u{fffd}\n"), "{shown}");
    }

    #[test]
    fn spans_are_short() {
        for (seconds, expected) in [(0.0, "0s"), (0.85, "850ms"), (192.4, "3m 12s"), (187_261.0, "2days 4h")] {
            assert_eq!(span(Duration::from_secs_f64(seconds)), expected);
        }
    }
}
