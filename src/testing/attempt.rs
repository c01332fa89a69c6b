//! One attempt at a job, without a node around it, and what is expected of its outcome.

use std::time::Duration;

use serde_json::Value;

use super::fixture;
use crate::config::Task;
use crate::handler::{Attempt, Handlers, Notepad, Steps};
use crate::job::{Failure, Job, Outcome};

/// The first attempt, of which nobody keeps or watches anything.
pub(crate) fn first<'a>(job: &'a Job, task: &'a Task) -> Attempt<'a> {
    Attempt { job, task, attempt: 1, steps: Steps::default(), notepad: Notepad::default() }
}

/// The first attempt at the fixture's job with these arguments.
pub(crate) async fn perform(handlers: &Handlers, task: &Task, args: Value) -> Outcome {
    handlers.perform(&first(&fixture::job(args), task)).await
}

#[track_caller]
pub(crate) fn success(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Success(result) => result,
        other => panic!("expected success, got {other:?}"),
    }
}

#[track_caller]
pub(crate) fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failure(failure) => failure,
        other => panic!("expected a failure, got {other:?}"),
    }
}

/// Why nobody can be served, and for how long, where that was said.
#[track_caller]
pub(crate) fn outage(outcome: Outcome) -> (Failure, Option<Duration>) {
    match outcome {
        Outcome::Unavailable { error, retry_after } => (error, retry_after),
        other => panic!("expected an outage, got {other:?}"),
    }
}
