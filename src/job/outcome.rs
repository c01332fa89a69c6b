//! What one attempt said. A failing job is a value, not an error of ours.

use std::time::Duration;

use serde_json::Value;

use super::{Request, Timestamp};

/// The end of one attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// The task's result.
    Success(Value),
    Failure(Failure),
    /// The attempt was stopped at the job's timeout.
    TimedOut(Duration),
    /// Not now, later: it costs the job no attempt.
    Snoozed {
        /// `None`: as long as the retry policy would wait.
        delay: Option<Duration>,
        /// One sentence for a person.
        reason: String,
    },
    /// The service behind the handler is down: nothing is wrong with the job, and it costs no attempt.
    Unavailable {
        error: Failure,
        /// When the service has said so.
        retry_after: Option<Duration>,
    },
    /// The attempt did not start: the job had expired at this instant.
    Expired(Timestamp),
    /// The process that ran the attempt died or lost its lease; `reason` says which, in words.
    Crashed {
        reason: String,
    },
    /// We stopped the attempt for reasons of our own (shutdown): it costs the job nothing.
    Interrupted {
        reason: String,
    },
    /// Somebody asked for the job's end.
    Cancelled(Request),
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    /// A name a producer can match on, in the form of an exception class: `SmtpRejected`, `SqlError`; with its module
    /// before a dot where it has one in Python.
    pub kind: String,
    /// One sentence for a person.
    pub message: String,
    /// What an exception of Python's is made of, where that is not just the message.
    pub args: Option<Box<[Value]>>,
    pub retry: Retryable,
    /// More for the one who looks closer: output of a program, a response body. Bounded by who makes it.
    pub detail: Option<String>,
}

/// Whether another attempt makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retryable {
    /// As the retry policy says.
    ByPolicy,
    /// As the policy says, but not before this span has passed (`Retry-After`).
    After(Duration),
    /// Another attempt would fail in the same way.
    Never,
}

impl Failure {
    /// A failure that another attempt may cure.
    pub(crate) fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), args: None, retry: Retryable::ByPolicy, detail: None }
    }

    /// A failure that no further attempt can cure.
    pub(crate) fn never(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { retry: Retryable::Never, ..Self::new(kind, message) }
    }

    /// The same failure, with another attempt no sooner than after `span`.
    #[must_use]
    pub(crate) fn after(self, span: Duration) -> Self {
        Self { retry: Retryable::After(span), ..self }
    }

    #[must_use]
    pub(crate) fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}
