//! One run of a job, or of many in a batch: find the task, perform it under its timeout, say how each ended.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::scribe::Scribe;
use super::shared::Live;
use crate::broker::{Broker, Claim, Running, Speaker};
use crate::clock;
use crate::config::{Queue, Task};
use crate::handler::{Attempt, Done, Handlers, Keep, LeaseLost, Notepad, Steps};
use crate::job::{Cause, Decision, Failure, Job, Next, Outcome, Request, Snooze, State, Timestamp};

/// Pause before what is done is stored once more; it doubles up to the second one.
const KEEP_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

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

/// A job as an attempt at it sees it.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) job: Arc<Job>,
    /// Of the attempt, from 1.
    pub(super) number: u32,
    pub(super) steps: Steps,
}

/// Performs the job's task. Dropping the future (timeout, abort) stops everything that the handler started.
pub(super) async fn run(live: Arc<Live>, queue: Arc<Queue>, part: Part, voice: Voice, ends: Ends) -> Vec<Outcome> {
    let Part { job, number, .. } = &part;
    let span = tracing::info_span!("attempt", queue = %job.queue, job = %job.id, task = %job.task, attempt = number);
    vec![perform(&live, &queue, &part, voice, ends).instrument(span).await]
}

async fn perform(live: &Live, queue: &Queue, part: &Part, voice: Voice, ends: Ends) -> Outcome {
    let job = &part.job;
    let Some(task) = live.config.task(&job.task) else { return unknown(job) };
    if let Some(at) = expired(job) {
        return Outcome::Expired(at);
    }
    let limit = timeout(job, task, queue);
    let handlers: &Handlers = &live.handlers;
    let attempt = attempt(part, task);
    let Voice { broker, speaker } = voice;
    let config = Arc::clone(&live.config);
    let mut scribe = Scribe::new(broker, config, speaker, Arc::clone(job), part.number, attempt.notepad.clone());
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(limit, handlers.perform(&attempt)) => {
            outcome.unwrap_or(Outcome::TimedOut(limit))
        }
        Ok(request) = ends.cancelled => Outcome::Cancelled(request),
        () = ends.abort.cancelled() => stopped(),
        never = scribe.run() => match never {},
    };
    scribe.finish().await;
    outcome
}

/// Performs a task for many jobs of it at once, under one timeout.
pub(super) async fn run_batch(
    live: Arc<Live>,
    parts: Vec<Part>,
    limit: Duration,
    abort: CancellationToken,
) -> Vec<Outcome> {
    let first = &parts[0].job;
    let span = tracing::info_span!("batch", queue = %first.queue, task = %first.task, jobs = parts.len());
    perform_batch(&live, &parts, limit, abort).instrument(span).await
}

async fn perform_batch(live: &Live, parts: &[Part], limit: Duration, abort: CancellationToken) -> Vec<Outcome> {
    let first = &parts[0].job;
    let Some(task) = live.config.task(&first.task) else { return vec![unknown(first); parts.len()] };
    let late: Vec<Option<Timestamp>> = parts.iter().map(|part| expired(&part.job)).collect();
    let timely = parts.iter().zip(&late).filter(|(_, late)| late.is_none());
    let attempts: Vec<Attempt<'_>> = timely.map(|(part, _)| attempt(part, task)).collect();
    let all = |outcome: Outcome| vec![outcome; attempts.len()];
    let outcomes = tokio::select! {
        outcomes = tokio::time::timeout(limit, live.handlers.perform_batch(&attempts)) => {
            outcomes.unwrap_or_else(|_| all(Outcome::TimedOut(limit)))
        }
        () = abort.cancelled() => all(stopped()),
    };
    let mut outcomes = outcomes.into_iter();
    let outcome = |late: Option<Timestamp>| match late {
        Some(at) => Outcome::Expired(at),
        None => outcomes.next().expect("the handlers say how each of them ended"),
    };
    late.into_iter().map(outcome).collect()
}

fn attempt<'a>(part: &'a Part, task: &'a Task) -> Attempt<'a> {
    Attempt { job: &part.job, task, attempt: part.number, steps: part.steps.clone(), notepad: Notepad::default() }
}

/// Longest run of an attempt at the job.
pub(super) fn timeout(job: &Job, task: &Task, queue: &Queue) -> Duration {
    job.timeout.or(task.timeout).unwrap_or(queue.timeout)
}

fn unknown(job: &Job) -> Outcome {
    let message = format!("no task named {} is declared in the configuration of this node", job.task);
    Failure::never("NotRegistered", message).into()
}

fn expired(job: &Job) -> Option<Timestamp> {
    job.expires.filter(|&at| at < clock::now())
}

fn stopped() -> Outcome {
    Outcome::Interrupted { reason: "the daemon stopped before the job had ended".to_owned() }
}

/// Stores what an attempt has done while it goes on.
pub(super) fn keep(broker: Arc<Broker>, running: Running) -> Keep {
    let running = Arc::new(running);
    Arc::new(move |done| {
        let (broker, running) = (Arc::clone(&broker), Arc::clone(&running));
        Box::pin(async move { store(&broker, &running, done).await })
    })
}

/// Tries until Redis has answered: a step that was done must not be done again because Redis was away. The job's timeout
/// bounds it.
async fn store(broker: &Broker, running: &Running, done: Done) -> Result<(), LeaseLost> {
    let history = running.with(done.steps, done.partial);
    let mut pause = KEEP_PAUSE.0;
    loop {
        match broker.keep(running, &history).await {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(LeaseLost),
            Err(error) => tracing::debug!("storing a finished step failed, trying again: {error}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(KEEP_PAUSE.1);
    }
}

/// The outcome of an attempt whose task did not end by itself: a bug of ours, which must not cost more than this job.
pub(super) fn panicked(error: tokio::task::JoinError) -> Outcome {
    if error.is_cancelled() {
        return stopped();
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

    fn size<F>(_: impl Fn(Arc<Live>, Arc<Queue>, Part, Voice, Ends) -> F) -> usize {
        std::mem::size_of::<F>()
    }
}
