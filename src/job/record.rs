//! The job itself: everything that is known when it is enqueued, and never changes after.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{JobId, QueueName, RetryPolicy, TaskName, Timestamp};

/// Arguments by parameter name. What JSON cannot hold is tagged: `{"__type__": …, "__value__": …}`.
pub(crate) type Args = Map<String, Value>;

/// One unit of work, as it was enqueued.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub id: JobId,
    pub queue: QueueName,
    pub task: TaskName,
    pub args: Args,
    pub origin: Origin,
    pub enqueued_at: Timestamp,
    /// Not before this instant. `None`: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// Longest run of one attempt, when the producer asked for another than the task's or queue's.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "millis")]
    pub timeout: Option<Duration>,
    /// No attempt starts after this instant. `None`: whenever its turn comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// The producer's own retry policy, when it sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
}

/// Where a job came from, and with it who waits for the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// The HTTP port or the command line.
    Api,
    /// A fire of the named schedule.
    Schedule { name: String, fire: Timestamp },
    /// A foreign message. `reply` is the wire's own note of what its answer needs; nobody else reads it.
    Wire { wire: Wire, list: String, reply: Value },
}

/// A message protocol that producers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wire {
    Celery,
    Rq,
}

impl Wire {
    pub(crate) const ALL: [Self; 2] = [Self::Celery, Self::Rq];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Celery => "celery",
            Self::Rq => "rq",
        }
    }
}

/// Where a job stands. Derived from the sets it is in, never stored beside them.
///
/// ```text
///             ┌──────────── retry ◄──────────┐
///             ▼                              │ failed with attempts left, or snoozed
/// scheduled ─► pending ──claim──► active ────┼─► completed
///             ▲                      │       ├─► dead        no attempts left, must not be retried, crash loop, expired
///             └── released, crashed ─┘       └─► cancelled
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Scheduled,
    Pending,
    Active,
    Retry,
    Completed,
    Dead,
    Cancelled,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Retry => "retry",
            Self::Completed => "completed",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
        match span {
            Some(span) => out.serialize_u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
            None => out.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(input)?.map(Duration::from_millis))
    }
}
