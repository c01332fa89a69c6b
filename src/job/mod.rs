//! The domain: what a job is, what one attempt said, and what follows from it.
//!
//! Pure values and pure functions: no runtime, no Redis, no clock. Everything that happens to a job
//! is decided here, in [`decide`], from values; acting on the decision is the broker's work.

mod decide;
mod history;
mod name;
mod outcome;
mod record;
mod retry;
mod time;

pub use decide::{AttemptFacts, Decision, Next, decide};
pub use history::{Cause, End, History, Mishap, MishapKind};
pub use name::{InvalidName, JobId, NodeId, QueueName, TaskName};
pub use outcome::{Failure, Outcome, Retryable};
pub use record::{Args, Job, Origin, State, Wire};
pub use retry::{Backoff, RetryPolicy};
pub use time::Timestamp;
