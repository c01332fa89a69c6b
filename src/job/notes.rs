//! What a job says of itself while it runs: how far it is, and its lines of log and output. Bounded, and told attempt by
//! attempt, so that what a failed one said is still there when the next one speaks.
//!
//! Lines are numbered through all attempts. Only the oldest are ever left out, so what is kept is always the end.

use std::collections::VecDeque;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{NodeId, Timestamp};

/// What a job has said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notes {
    /// One for each attempt that said something, oldest first.
    pub sections: VecDeque<Section>,
    /// The number of the line that comes next, from 1 on.
    #[serde(default)]
    said: u64,
}

/// What one attempt has said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Section {
    pub attempt: u32,
    pub node: NodeId,
    pub started: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Lines of it that are not kept; they stood before those that are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub lines: VecDeque<Line>,
}

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub at: Timestamp,
    /// 0 to 100, of the step if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Which step of how many, of a task that has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<(usize, usize)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub at: Timestamp,
    pub source: Source,
    pub text: String,
}

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// The handler itself.
    Log,
    Stdout,
    Stderr,
}

impl Notes {
    /// Lines that are kept of a job.
    pub(crate) const LINES: usize = 200;
    /// Bytes of text that are kept of a job.
    pub(crate) const BYTES: usize = 32 * 1024;
    /// Bytes of one line.
    pub(crate) const LINE: usize = 2 * 1024;
    /// Attempts of which something is kept.
    const SECTIONS: usize = 10;

    /// An attempt begins to speak.
    pub(crate) fn begin(&mut self, attempt: u32, node: NodeId, started: Timestamp) {
        let section = Section { attempt, node, started, progress: None, left_out: 0, lines: VecDeque::new() };
        self.sections.push_back(section);
        if self.sections.len() > Self::SECTIONS {
            self.sections.pop_front();
        }
    }

    /// Adds what the attempt that began last has said since; `left_out` are lines that came before these and are lost.
    pub(crate) fn add(&mut self, left_out: u64, lines: impl IntoIterator<Item = Line>) {
        if left_out > 0 {
            // Only the end is kept: what is older than the gap would stand beside it as if nothing were missing.
            while self.drop_oldest() {}
        }
        let Some(section) = self.sections.back_mut() else { return };
        self.said += left_out;
        section.left_out += left_out;
        for mut line in lines {
            cut(&mut line.text);
            section.lines.push_back(line);
            self.said += 1;
        }
        while self.count() > Self::LINES || self.bytes() > Self::BYTES {
            self.drop_oldest();
        }
    }

    /// The attempt that spoke last.
    pub(crate) fn latest(&self) -> Option<&Section> {
        self.sections.back()
    }

    pub(crate) fn latest_mut(&mut self) -> Option<&mut Section> {
        self.sections.back_mut()
    }

    /// How many lines there were, kept or not.
    pub(crate) fn said(&self) -> u64 {
        self.said
    }

    /// The lines that are kept, each with its number and its section.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (u64, &Section, &Line)> {
        let first = self.said - (self.count() as u64).min(self.said) + 1;
        let lines = self.sections.iter().flat_map(|section| section.lines.iter().map(move |line| (section, line)));
        lines.zip(first..).map(|((section, line), number)| (number, section, line))
    }

    /// All of it as a text: each attempt under a line of its own.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for section in &self.sections {
            let Section { attempt, node, started, left_out, lines, .. } = section;
            let _ = writeln!(text, "── attempt {attempt} on {node}, {started}");
            if *left_out > 0 {
                text += &left_out_words(*left_out);
                text.push('\n');
            }
            for line in lines {
                text += &line.text;
                text.push('\n');
            }
        }
        text
    }

    fn count(&self) -> usize {
        self.sections.iter().map(|section| section.lines.len()).sum()
    }

    /// How much text there is.
    pub(crate) fn bytes(&self) -> usize {
        self.sections.iter().flat_map(|section| &section.lines).map(|line| line.text.len()).sum()
    }

    /// Says whether there was one.
    fn drop_oldest(&mut self) -> bool {
        let Some(section) = self.sections.iter_mut().find(|section| !section.lines.is_empty()) else { return false };
        section.lines.pop_front();
        section.left_out += 1;
        true
    }
}

/// `… 1,234 lines left out`.
fn left_out_words(count: u64) -> String {
    let lines = if count == 1 { "line" } else { "lines" };
    format!("… {} {lines} left out", in_thousands(count))
}

/// Cuts a line to its bound, and says by how much.
fn cut(text: &mut String) {
    if text.len() <= Notes::LINE {
        return;
    }
    let mut end = Notes::LINE;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let gone = text.len() - end;
    text.truncate(end);
    let _ = write!(text, " … {} bytes left out", in_thousands(gone as u64));
}

fn in_thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    fn line(text: impl Into<String>) -> Line {
        Line { at: at(1), source: Source::Stdout, text: text.into() }
    }

    fn begun() -> Notes {
        let mut notes = Notes::default();
        notes.begin(1, NodeId::parse("vps-1").expect("a valid name"), at(0));
        notes
    }

    fn numbers(notes: &Notes) -> (u64, u64) {
        let mut numbers = notes.lines().map(|(number, ..)| number);
        let first = numbers.next().expect("a line");
        (first, numbers.last().unwrap_or(first))
    }

    #[test]
    fn only_the_end_is_kept_and_the_text_says_what_is_not() {
        let mut notes = begun();
        notes.add(0, (1..=150).map(|n| line(format!("line {n}"))));
        notes.begin(2, NodeId::parse("vps-2").expect("a valid name"), at(5));
        notes.add(0, (151..=300).map(|n| line(format!("line {n}"))));
        assert_eq!((numbers(&notes), notes.said()), ((101, 300), 300));
        let text = notes.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["── attempt 1 on vps-1, 2027-01-15T08:00:00.000Z", "… 100 lines left out", "line 101"]);
        assert_eq!(lines[52..54], ["── attempt 2 on vps-2, 2027-01-15T08:00:05.000Z", "line 151"]);
        assert_eq!(lines.len(), 203);
        // A gap takes everything before it along.
        notes.add(1_000, [line("the last words")]);
        assert_eq!((numbers(&notes), notes.said()), ((1301, 1301), 1301));
        assert!(notes.text().ends_with("… 1,150 lines left out\nthe last words\n"), "{}", notes.text());
    }

    #[test]
    fn long_lines_are_cut_between_characters_and_many_bytes_bound_the_whole() {
        let mut notes = begun();
        notes.add(0, [line("é".repeat(5_000))]);
        let (_, _, first) = notes.lines().next().expect("a line");
        assert!(first.text.ends_with("é … 7,952 bytes left out"), "{}", first.text);
        notes.add(0, (0..100).map(|_| line("x".repeat(2_000))));
        assert!(notes.bytes() <= Notes::BYTES);
        assert_eq!(numbers(&notes), (86, 101));
    }

    #[test]
    fn they_are_read_as_they_were_written() {
        let mut notes = begun();
        notes.add(3, [line("a"), line("b\u{1f980}")]);
        let progress = Progress { at: at(2), percent: Some(40), message: Some("half".to_owned()), step: Some((1, 2)) };
        notes.latest_mut().expect("a section").progress = Some(progress);
        let text = serde_json::to_string(&notes).expect("JSON");
        assert_eq!(serde_json::from_str::<Notes>(&text).expect("notes"), notes);
    }
}
