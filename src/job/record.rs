//! The job itself: everything that is known when it is enqueued, and never changes after.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::flow::Member;
use super::{Bucket, JobId, QueueName, RetryPolicy, TaskName, Timestamp, Unique};

/// Arguments by parameter name. What JSON cannot hold is tagged: `{"__type__": …, "__value__": …}`.
pub(crate) type Args = Map<String, Value>;

/// One unit of work, as it was enqueued.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub id: JobId,
    pub queue: QueueName,
    pub task: TaskName,
    /// What it draws from limits with keys, and its tenant. The claim reads it as text, right behind the task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<Bucket>,
    /// What makes it the only one. Behind the task and the buckets: there the scripts look for it in the record's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<Unique>,
    /// Its place in a flow, which is told how it ends. Before the arguments, which may look like one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<Member>,
    /// Empty in a record whose arguments stand beside it, until they are fetched.
    pub args: Args,
    /// Bytes of the arguments, when they are too large for the record and stand beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args_apart: Option<u64>,
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
    /// As with nice(1) and with Celery on Redis, less is sooner.
    #[serde(default, skip_serializing_if = "Priority::is_default")]
    pub priority: Priority,
}

impl Job {
    /// The line of its tenant, where tenants take turns.
    pub(crate) fn line(&self) -> Option<&str> {
        self.buckets.iter().find(|bucket| bucket.is_tenant()).map(Bucket::name)
    }
}

/// How urgent a job is among those of its queue: −9 comes first, 9 last, 0 when nobody says anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Priority(i8);

impl Priority {
    pub(crate) const RANGE: std::ops::RangeInclusive<i64> = -9..=9;

    /// `None` outside [`Priority::RANGE`].
    pub(crate) fn new(steps: i64) -> Option<Self> {
        if Self::RANGE.contains(&steps) { i8::try_from(steps).ok().map(Self) } else { None }
    }

    pub(crate) fn steps(self) -> i8 {
        self.0
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
    fn is_default(&self) -> bool {
        self.0 == 0
    }
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
    pub(crate) const ALL: [Self; 7] =
        [Self::Scheduled, Self::Pending, Self::Active, Self::Retry, Self::Completed, Self::Dead, Self::Cancelled];

    pub(crate) fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Dead | Self::Cancelled)
    }

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
