//! One run of a job: find its task, perform it under its timeout, say how it ended.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::Live;
use super::scribe::Scribe;
use crate::broker::{Broker, Claim, Speaker};
use crate::clock;
use crate::config::Queue;
use crate::handler::{Attempt, Handlers, Notepad, Steps};
use crate::job::{Cause, Decision, Failure, Job, Next, Outcome, Request, Snooze, State};

/// In whose name an attempt speaks, and to whom.
#[derive(Debug)]
pub(super) struct Voice {
    pub(super) broker: Arc<Broker>,
    pub(super) speaker: Speaker,
}

/// What ends an attempt from outside.
#[derive(Debug)]
pub(super) struct Ends {
    /// The daemon stops.
    pub(super) abort: CancellationToken,
    /// Somebody has asked for the job's end.
    pub(super) cancelled: oneshot::Receiver<Request>,
}

/// Performs the job's task. Dropping the future (timeout, abort) stops everything that the handler started.
pub(super) async fn run(
    live: Arc<Live>,
    queue: Arc<Queue>,
    job: Arc<Job>,
    number: u32,
    steps: Steps,
    voice: Voice,
    ends: Ends,
) -> Outcome {
    let span = tracing::info_span!("attempt", queue = %job.queue, job = %job.id, task = %job.task, attempt = number);
    perform(&live, &queue, &job, number, steps, voice, ends).instrument(span).await
}

async fn perform(
    live: &Live,
    queue: &Queue,
    job: &Arc<Job>,
    number: u32,
    steps: Steps,
    voice: Voice,
    ends: Ends,
) -> Outcome {
    let Some(task) = live.config.tasks.get(&job.task) else {
        let message = format!("no task named {} is declared in the configuration of this node", job.task);
        return Failure::never("NotRegistered", message).into();
    };
    if let Some(at) = job.expires.filter(|&at| at < clock::now()) {
        return Outcome::Expired(at);
    }
    let limit = job.timeout.or(task.timeout).unwrap_or(queue.timeout);
    let handlers: &Handlers = &live.handlers;
    let notepad = Notepad::default();
    let Voice { broker, speaker } = voice;
    let config = Arc::clone(&live.config);
    let mut scribe = Scribe::new(broker, config, speaker, Arc::clone(job), number, notepad.clone());
    let attempt = Attempt { job, task, attempt: number, steps, notepad };
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(limit, handlers.perform(&attempt)) => {
            outcome.unwrap_or(Outcome::TimedOut(limit))
        }
        Ok(request) = ends.cancelled => Outcome::Cancelled(request),
        () = ends.abort.cancelled() => Outcome::Interrupted { reason: "the daemon stopped before the job had ended".to_owned() },
        never = scribe.run() => match never {},
    };
    scribe.finish().await;
    outcome
}

/// The outcome of an attempt whose task did not end by itself: a bug of ours, which must not cost more than this job.
pub(super) fn panicked(error: tokio::task::JoinError) -> Outcome {
    if error.is_cancelled() {
        return Outcome::Interrupted { reason: "the daemon stopped before the job had ended".to_owned() };
    }
    let panic = error.into_panic();
    let words = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    Failure::new("InternalError", format!("the handler panicked, which is a bug in jobsd: {words}")).into()
}

/// One line for each attempt: quiet for what went well, loud for what did not.
pub(super) fn log(claim: &Claim, decision: &Decision) {
    let job = &claim.job;
    let history = &decision.history;
    let why = history.mishaps.last().map_or("", |mishap| mishap.message.as_str());
    let last = history.end.as_ref().and_then(|end| end.reason.as_deref()).unwrap_or("no further attempt");
    match decision.next {
        Next::End(State::Completed) => {
            tracing::debug!(queue = %job.queue, job = %job.id, task = %job.task, "completed");
        }
        Next::End(State::Cancelled) => tracing::info!(queue = %job.queue, job = %job.id, task = %job.task, "{why}"),
        // What its producer has foreseen: a backlog that was late would fill the log with errors.
        Next::End(_) if history.end.as_ref().is_some_and(|end| end.cause == Some(Cause::Expired)) => {
            tracing::warn!(queue = %job.queue, job = %job.id, task = %job.task, "ended: {why}");
        }
        Next::End(state) => {
            let state = state.as_str();
            tracing::error!(queue = %job.queue, job = %job.id, task = %job.task, state, "ended: {why} ({last})");
        }
        Next::Retry { at } => match history.snoozed_last() {
            Some(Snooze { reason, .. }) => {
                tracing::info!(queue = %job.queue, job = %job.id, task = %job.task, again = %at, "put off: {reason}");
            }
            None => {
                tracing::warn!(queue = %job.queue, job = %job.id, task = %job.task, again = %at, "failed: {why}");
            }
        },
        Next::Release => {
            tracing::info!(queue = %job.queue, job = %job.id, task = %job.task, "back to pending: {why}");
        }
    }
}

/// A number in 0..1 that places a retry inside its jitter. The standard library's hasher keys are random enough.
pub(super) fn random() -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a few bits more or less do not matter to a jitter")]
    let share = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_small_enough_to_be_moved() {
        let size = size(run);
        assert!(size < 2_000, "{size} bytes");
    }

    fn size<F>(_: impl Fn(Arc<Live>, Arc<Queue>, Arc<Job>, u32, Steps, Voice, Ends) -> F) -> usize {
        std::mem::size_of::<F>()
    }
}
