//! The domain: what a job is, what one attempt said, and what follows from it.
//!
//! Pure values and pure functions: no runtime, no Redis, no clock. Everything that happens to a job
//! is decided here, in [`decide()`], from values; acting on the decision is the broker's work.

mod bucket;
mod decide;
pub(crate) mod flow;
mod history;
mod name;
mod notes;
mod outcome;
mod pattern;
mod record;
mod request;
mod retry;
pub(crate) mod retry_draft;
mod time;
mod unique;
pub(crate) mod unique_draft;
pub(crate) mod why;

pub(crate) use bucket::{Bucket, plain};
pub(crate) use decide::{AttemptFacts, Decision, Next, decide};
pub(crate) use history::{Cause, End, History, Mishap, MishapKind, Snooze};
pub(crate) use name::{FlowId, InvalidName, JobId, MemberName, NodeId, QueueName, TaskName};
pub(crate) use notes::{Line, Notes, Progress, Section, Source};
pub(crate) use outcome::{Failure, Outcome, Retryable};
pub(crate) use pattern::{FailurePattern, glob};
pub(crate) use record::{Args, Job, Origin, Priority, State, Wire};
pub(crate) use request::Request;
pub(crate) use retry::{Backoff, RetryPolicy};
pub(crate) use retry_draft::{BackoffKind, RetryDraft};
pub(crate) use time::Timestamp;
pub(crate) use unique::{Hold, Unique, UniqueKey, UniqueRule, Until};
pub(crate) use unique_draft::{OnConflict, UniqueDraft};
