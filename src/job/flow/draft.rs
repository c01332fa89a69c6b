//! A job of a flow before its turn: complete, but for the times that count from when it becomes ready.

use serde::{Deserialize, Serialize};

use crate::job::{Job, Timestamp};

/// The job as if it had been ready when its flow was submitted, and which of its times move with its turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Draft {
    pub job: Job,
    /// Its delay is a span: it counts from when the job becomes ready.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delayed: bool,
    /// So does the span after which it expires, from when it is due.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expires_later: bool,
}

impl Draft {
    /// The job, ready at `now`.
    pub(crate) fn ready(&self, now: Timestamp) -> Job {
        let submitted = self.job.enqueued_at;
        let due = match self.job.due {
            Some(due) if self.delayed => Some(now.after(due.since(submitted))),
            due => due.filter(|due| *due > now),
        };
        let expires = match self.job.expires {
            Some(expires) if self.expires_later => {
                let span = expires.since(self.job.due.unwrap_or(submitted));
                Some(due.unwrap_or(now).after(span))
            }
            expires => expires,
        };
        Job { enqueued_at: now, due, expires, ..self.job.clone() }
    }
}
