//! What a person asks of jobs and queues, with who asked and why: kept with what came of it.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// A request of a person: to cancel, to pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub at: Timestamp,
    /// Who asked, as far as it is known: a name that the client gave, or how it came (`api`, `cli`).
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Request {
    /// `by ann: wrong recipient`.
    pub(crate) fn words(&self) -> String {
        match &self.reason {
            Some(reason) => format!("by {}: {reason}", self.by),
            None => format!("by {}", self.by),
        }
    }
}
