//! Patterns of names: `*` stands for any run of characters, also an empty one.

use serde::{Deserialize, Serialize};

/// Bytes of a pattern; no failure's name comes near.
const LONGEST: usize = 128;

/// Whether `pattern` stands for the whole of `name`.
pub(crate) fn glob(pattern: &str, name: &str) -> bool {
    let Some((first, others)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    // What follows the last star must close the name; what stands between two stars may stand anywhere, first come.
    let (between, last) = others.rsplit_once('*').unwrap_or(("", others));
    for part in between.split('*') {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Which failures are meant, by their names: `InvalidAddress`, `Http5*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct FailurePattern(String);

/// Why a text cannot name failures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidPattern {
    #[error("the name of a failure is empty")]
    Empty,
    #[error("the name of a failure has {0} bytes, at most {LONGEST} are allowed")]
    TooLong(usize),
    #[error("the name of a failure holds the character {0:?}; allowed are letters, digits, `_`, `.` and `*`")]
    Character(char),
}

impl FailurePattern {
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidPattern> {
        if text.is_empty() {
            return Err(InvalidPattern::Empty);
        }
        if text.len() > LONGEST {
            return Err(InvalidPattern::TooLong(text.len()));
        }
        match text.chars().find(|&c| !(c.is_ascii_alphanumeric() || "_.*".contains(c))) {
            Some(bad) => Err(InvalidPattern::Character(bad)),
            None => Ok(Self(text.to_owned())),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn matches(&self, failure: &str) -> bool {
        glob(&self.0, failure)
    }
}

impl TryFrom<String> for FailurePattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        Self::parse(&text)
    }
}

impl From<FailurePattern> for String {
    fn from(pattern: FailurePattern) -> Self {
        pattern.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        let cases = [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("*", "", true),
            ("app.*", "app.tasks.mail", true),
            ("app.*", "ap", false),
            ("*.mail", "app.tasks.mail", true),
            ("*.mail", "mail", false),
            ("*aba", "ababa", true),
            ("a*a", "a", false),
            ("app.*.send_*", "app.tasks.send_mail", true),
            ("app.*.send_*", "app.send_mail", false),
            ("*a*b*", "xbxa", false),
            ("Http4*", "Http404", true),
            ("Http4*", "Http503", false),
        ];
        for (pattern, name, matches) in cases {
            assert_eq!(glob(pattern, name), matches, "{pattern} on {name}");
        }
    }

    #[test]
    fn what_cannot_be_a_name_is_no_pattern() {
        assert_eq!(FailurePattern::parse(""), Err(InvalidPattern::Empty));
        assert_eq!(FailurePattern::parse("Http[45]*"), Err(InvalidPattern::Character('[')));
        assert_eq!(FailurePattern::parse(&"x".repeat(129)), Err(InvalidPattern::TooLong(129)));
        assert!(serde_json::from_str::<FailurePattern>("\"a b\"").is_err());
    }
}
