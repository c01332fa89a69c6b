//! Unique jobs: at most one job of a task holds a key in a queue, and a newcomer finds the holder in its way.
//!
//! | rule | the key is held | a newcomer |
//! |---|---|---|
//! | `reject` | as [`Hold`] says | is refused |
//! | `replace` | as [`Hold`] says | takes the place of a holder that waits; else it is refused |
//! | `debounce` | until its first attempt begins | takes the holder's place, and starts after `wait` from now |
//! | `throttle` | until its first attempt begins, and for `span` from then on | is refused |
//!
//! How long a key is held is the holder's rule, what a conflict comes to the newcomer's. A cancelled job holds nothing.
//! Who holds what is kept by the broker; here is only what the words mean.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What makes a job unique. The first word of its record after the task: the scripts look for it there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unique {
    pub key: UniqueKey,
    pub rule: UniqueRule,
}

/// A key: any text, bounded in its length.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct UniqueKey(String);

/// What is unique, for how long, and what becomes of a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UniqueRule {
    Reject(Hold),
    Replace(Hold),
    Debounce {
        wait: Duration,
        /// Newcomers put the start off for no longer than this, counted from the first of them.
        #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
        longest: Option<Duration>,
    },
    Throttle {
        #[serde(rename = "for")]
        span: Duration,
    },
}

/// For how long a key is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Hold {
    Until(Until),
    /// For so long from when it was taken, whatever becomes of the job.
    For(Duration),
    /// Until the one or the other, whichever comes first.
    Either(Until, Duration),
}

/// The state that ends the hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Until {
    /// Its first attempt has begun.
    Started,
    /// It is completed: a dead job holds its key until somebody has retried or deleted it.
    Completed,
    /// It has ended in any way.
    Ended,
}

impl UniqueKey {
    /// Longer texts are known by their hash.
    const LONGEST: usize = 200;
    /// How much of a longer text stays readable.
    const READABLE: usize = 160;

    pub(crate) fn new(text: &str) -> Self {
        if text.len() <= Self::LONGEST {
            return Self(text.to_owned());
        }
        let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).simple().to_string();
        let end = (0..=Self::READABLE).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        // Longer than any text that is kept as it is, so that none of those can be mistaken for it.
        let (head, fill) = (&text[..end], ".".repeat(Self::LONGEST + 1 - end - hash.len()));
        Self(format!("{head}{fill}{hash}"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Until {
    pub(crate) const ALL: [(&'static str, Self); 3] =
        [("started", Self::Started), ("completed", Self::Completed), ("ended", Self::Ended)];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Completed => "completed",
            Self::Ended => "ended",
        }
    }
}

impl UniqueRule {
    /// How long a new job waits before it is due, because of its rule.
    pub(crate) fn wait(self) -> Option<Duration> {
        match self {
            Self::Debounce { wait, .. } => Some(wait),
            Self::Reject(_) | Self::Replace(_) | Self::Throttle { .. } => None,
        }
    }

    /// As it is written.
    pub(crate) fn on_conflict(self) -> &'static str {
        match self {
            Self::Reject(_) => "reject",
            Self::Replace(_) => "replace",
            Self::Debounce { .. } => "debounce",
            Self::Throttle { .. } => "throttle",
        }
    }

    pub(crate) fn until(self) -> Option<Until> {
        match self {
            Self::Reject(Hold::Until(until) | Hold::Either(until, _))
            | Self::Replace(Hold::Until(until) | Hold::Either(until, _)) => Some(until),
            Self::Reject(Hold::For(_))
            | Self::Replace(Hold::For(_))
            | Self::Debounce { .. }
            | Self::Throttle { .. } => None,
        }
    }

    /// As it is written: `for`.
    pub(crate) fn span(self) -> Option<Duration> {
        match self {
            Self::Reject(Hold::For(span) | Hold::Either(_, span))
            | Self::Replace(Hold::For(span) | Hold::Either(_, span))
            | Self::Throttle { span } => Some(span),
            Self::Debounce { longest, .. } => longest,
            Self::Reject(Hold::Until(_)) | Self::Replace(Hold::Until(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_any_text_and_never_long() {
        let held = |text: &str| UniqueKey::new(text).0;
        assert_eq!(held("user 41 \"ü\"\n"), "user 41 \"ü\"\n");
        assert_eq!(held(&"x".repeat(200)), "x".repeat(200));
        let long = ["x".repeat(201), "x".repeat(202), "ü".repeat(101), "ü".repeat(50_000), "€".repeat(100)];
        let mut seen = std::collections::HashSet::new();
        for text in &long {
            assert_eq!(held(text).len(), 201, "longer than any that is kept as it is");
            assert!(seen.insert(held(text)), "two texts with one key");
            assert!(text.starts_with(&held(text)[..120]));
        }
    }

    #[test]
    fn the_record_begins_with_the_key() {
        let rule = UniqueRule::Replace(Hold::Either(Until::Ended, Duration::from_secs(1)));
        let unique = Unique { key: UniqueKey::new("a \"b\""), rule };
        let text = serde_json::to_string(&unique).expect("JSON");
        assert!(text.starts_with(r#"{"key":"a \"b\"","#), "{text}");
        assert_eq!(serde_json::from_str::<Unique>(&text).expect("it is one"), unique);
    }
}
