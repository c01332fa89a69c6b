//! What is told to the operator: one diagnostic for each problem, with its place, the line as it was written, and the
//! remedy. Secrets in a shown line are masked here; messages never hold one.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::source::{Place, Source};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    Error,
    Warning,
}

/// One problem of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Diagnostic {
    pub severity: Severity,
    /// The file, as it was named to us.
    pub path: String,
    /// From 1. 0 when the problem has no place, as with a file that cannot be read.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// One line: what is wrong.
    pub message: String,
    /// One line: what to do about it.
    pub help: String,
    /// The source line, with secrets as `***` and control characters made visible.
    pub source: Option<Excerpt>,
}

/// A line of the file and the part of it that is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Excerpt {
    pub text: String,
    /// Characters before the meant part.
    pub start: usize,
    /// Characters of the meant part, at least 1.
    pub width: usize,
}

/// Why a file is not a configuration: every problem of it, in the order of their places. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problems {
    pub path: String,
    pub diagnostics: Vec<Diagnostic>,
}

/// A problem before it has a line and a column.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) help: String,
}

impl Problems {
    /// A problem that no place in the text can be given for: the file cannot be read, or what it names does not work.
    pub(crate) fn without_place(path: &Path, message: String, help: &str) -> Self {
        let path = path.display().to_string();
        let diagnostic = Diagnostic {
            severity: Severity::Error,
            path: path.clone(),
            line: 0,
            column: 0,
            message,
            help: help.to_owned(),
            source: None,
        };
        Self { path, diagnostics: vec![diagnostic] }
    }
}

impl Finding {
    pub(super) fn located(self, path: &Path, source: &Source<'_>) -> Diagnostic {
        let (line, column) = source.position(self.place.start);
        Diagnostic {
            severity: self.severity,
            path: path.display().to_string(),
            line,
            column,
            message: visible(&source.redacted(&self.place, &self.message)),
            help: visible(&self.help),
            source: Some(source.excerpt(&self.place)),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        if self.line == 0 {
            writeln!(f, "{}: {severity}: {}", self.path, self.message)?;
        } else {
            writeln!(f, "{}:{}:{}: {severity}: {}", self.path, self.line, self.column, self.message)?;
        }
        if let Some(Excerpt { text, start, width }) = &self.source {
            let number = self.line.to_string();
            writeln!(f, "  {number} | {text}")?;
            let gutter = " ".repeat(number.len());
            writeln!(f, "  {gutter} | {}{}", " ".repeat(*start), "^".repeat(*width))?;
        }
        writeln!(f, "  help: {}", self.help)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.diagnostics {
            writeln!(f, "{diagnostic}")?;
        }
        let count = self.diagnostics.len();
        write!(f, "{count} {} in {}", if count == 1 { "problem" } else { "problems" }, self.path)
    }
}

impl std::error::Error for Problems {}

/// A text of the file inside a message: short, and unable to move the cursor of a terminal.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("\"{}\"", visible(&shown))
}

/// Control characters as a replacement character, line ends as spaces.
pub(super) fn visible(text: &str) -> String {
    text.chars().map(shown).collect()
}

pub(super) fn shown(character: char) -> char {
    match character {
        '\n' | '\r' | '\t' => ' ',
        control if control.is_control() => '\u{fffd}',
        other => other,
    }
}

/// The nearest of `known` to a mistyped `word`, when one is near enough to be meant.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = word.to_lowercase();
    // Distance is quadratic in the length; nobody mistypes a name of this length.
    if word.len() > 200 {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| distance * 3 <= candidate.len().max(word.len()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// "did you mean …?" when a name is near, else the names there are.
pub(super) fn hint<'k>(word: &str, what: &str, known: impl IntoIterator<Item = &'k str> + Clone) -> String {
    if let Some(near) = nearest(word, known.clone()) {
        return format!("did you mean `{near}`?");
    }
    let names: Vec<&str> = known.into_iter().collect();
    match names.len() {
        0 => format!("there is no {what} in this file yet"),
        1..=16 => format!("there are: {}", names.join(", ")),
        many => format!("there are {many}: {}, …", names[..8].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_near_name_is_suggested() {
        let keys = ["concurrency", "timeout", "retry", "cron"];
        assert_eq!(nearest("concurency", keys), Some("concurrency"));
        assert_eq!(nearest("Timeout", keys), Some("timeout"));
        assert_eq!(nearest("banana", keys), None);
    }

    #[test]
    fn a_terminal_escape_does_not_reach_the_terminal() {
        assert_eq!(quoted("\u{1b}[2Jx"), "\"\u{fffd}[2Jx\"");
    }
}
