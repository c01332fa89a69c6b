//! Names that travel into Redis keys, logs and URLs, checked once where they enter.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} has {len} bytes, at most {max} are allowed")]
    TooLong { what: &'static str, len: usize, max: usize },
    #[error("{what} holds the character {bad:?}; allowed are {allowed}")]
    Character { what: &'static str, bad: char, allowed: &'static str },
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $allowed:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// # Errors
            /// [`InvalidName`] when the text is empty, too long or holds a character that is not allowed.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                let ok: fn(char) -> bool = $ok;
                if text.is_empty() {
                    return Err(InvalidName::Empty { what: $what });
                }
                if text.len() > $max {
                    return Err(InvalidName::TooLong { what: $what, len: text.len(), max: $max });
                }
                if let Some(bad) = text.chars().find(|&c| !ok(c)) {
                    return Err(InvalidName::Character { what: $what, bad, allowed: $allowed });
                }
                Ok(Self(Arc::from(text)))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name!(
    /// A queue's name. It stands in hash tags, so it holds no braces.
    QueueName, "a queue name", 64, "letters, digits, '_', '-' and '.'",
    |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
);
name!(
    /// A task's own name, as `[tasks.NAME]` declares it (not the names its producers use).
    TaskName, "a task name", 128, "letters, digits, '_', '-' and '.'",
    |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
);
name!(
    /// A job's id: ours are UUIDs (version 7, they sort by time); a foreign producer's id is kept as it is.
    JobId, "a job id", 256, "printable characters without spaces",
    |c| !c.is_whitespace() && !c.is_control()
);
name!(
    /// A flow's id. It stands in hash tags and, before a colon, in the ids of its jobs.
    FlowId, "a flow id", 64, "letters, digits, '_', '-' and '.'",
    |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
);
name!(
    /// What a job is called inside its flow: as its author says, or its number in reading order.
    MemberName, "a job's name in a flow", 64, "letters, digits, '_', '-' and '.'",
    |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
);
name!(
    /// One running process: its configured or host name and a part that is new at every start.
    NodeId, "a node id", 128, "letters, digits, '_', '-' and '.'",
    |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
);

impl JobId {
    /// A fresh id that sorts by time: UUID version 7.
    pub fn random() -> Self {
        Self(Arc::from(uuid::Uuid::now_v7().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_break_a_key_is_refused() {
        let error = QueueName::parse("emails}x").expect_err("braces close the hash tag");
        assert_eq!(
            error.to_string(),
            "a queue name holds the character '}'; allowed are letters, digits, '_', '-' and '.'"
        );
        assert!(QueueName::parse("").is_err());
        assert!(QueueName::parse(&"q".repeat(65)).is_err());
        assert!(JobId::parse("cron:cleanup-old-notifications:1795430289000").is_ok());
        assert!(JobId::parse("two words").is_err());
    }
}
