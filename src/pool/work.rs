//! What runs in a pool: attempts and batches of them, each in a slot, with the claims they work on.
//!
//! They run as tasks that get a copy of what they need and give back outcomes; the claims stay here, so neither a
//! panic nor an abort can lose one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{Id, JoinError, JoinSet};

use super::attempt::{self, Part};
use super::shared::{Live, Stop};
use crate::broker::{Broker, Claim, Speaker};
use crate::config::Queue;
use crate::handler::{Done, Keep, Steps};
use crate::job::{JobId, Outcome, Request};

#[derive(Debug, Default)]
pub(super) struct Work {
    running: JoinSet<Vec<Outcome>>,
    units: HashMap<Id, Unit>,
}

/// One attempt, or a batch of them.
#[derive(Debug)]
struct Unit {
    members: Vec<Member>,
    cancel: Cancel,
    /// By it the breaker learns whether the service is back.
    probe: bool,
}

/// What a request to cancel one of its jobs does.
#[derive(Debug)]
enum Cancel {
    /// It ends the attempt; taken when it is used.
    Attempt(Option<oneshot::Sender<Request>>),
    /// The batch goes on; what becomes of this job does not count.
    Batch,
}

/// A claim whose attempt runs.
#[derive(Debug)]
struct Member {
    claim: Claim,
    /// What the attempt has finished so far.
    steps: Steps,
    /// Somebody has asked for its end, in the middle of its batch.
    cancelled: Option<Request>,
}

/// A unit that is over.
#[derive(Debug)]
pub(super) struct Over {
    /// The claims, each with its outcome.
    pub(super) ended: Vec<(Claim, Outcome)>,
    pub(super) probe: bool,
}

impl Work {
    /// Slots in use.
    pub(super) fn slots(&self) -> usize {
        self.running.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether an attempt runs by which the service is tried.
    pub(super) fn probes(&self) -> bool {
        self.units.values().any(|unit| unit.probe)
    }

    /// Starts the attempt of a job on its own. What it finishes and says while it goes on is stored by `broker`.
    pub(super) fn start(
        &mut self,
        live: Arc<Live>,
        queue: Arc<Queue>,
        claim: Claim,
        broker: &Arc<Broker>,
        stop: &Stop,
        probe: bool,
    ) {
        let (cancel, cancelled) = oneshot::channel();
        let ends = attempt::Ends { abort: stop.abort.clone(), cancelled };
        let in_parts = live.config.task(&claim.job.task).is_some_and(|task| task.is_done_in_parts());
        let keep = in_parts.then(|| attempt::keep(Arc::clone(broker), claim.running()));
        let voice = attempt::Voice { broker: Arc::clone(broker), speaker: Speaker::of(&claim) };
        let (member, part) = member(claim, keep);
        let task = self.running.spawn(attempt::run(live, queue, part, voice, ends));
        self.units.insert(task.id(), Unit { members: vec![member], cancel: Cancel::Attempt(Some(cancel)), probe });
    }

    /// Starts the attempts of jobs of one task in a batch.
    pub(super) fn start_batch(&mut self, live: Arc<Live>, claims: Vec<Claim>, timeout: Duration, stop: &Stop) {
        let (members, parts): (Vec<_>, Vec<_>) = claims.into_iter().map(|claim| member(claim, None)).unzip();
        let task = self.running.spawn(attempt::run_batch(live, parts, timeout, stop.abort.clone()));
        self.units.insert(task.id(), Unit { members, cancel: Cancel::Batch, probe: false });
    }

    /// The next one that is over already.
    pub(super) fn try_next(&mut self) -> Option<Over> {
        let joined = self.running.try_join_next_with_id()?;
        Some(self.over(joined))
    }

    /// Waits for the next one that is over; for ever when nothing runs.
    pub(super) async fn next(&mut self) -> Over {
        match self.running.join_next_with_id().await {
            Some(joined) => self.over(joined),
            None => std::future::pending().await,
        }
    }

    fn over(&mut self, joined: Result<(Id, Vec<Outcome>), JoinError>) -> Over {
        let (id, outcomes) = match joined {
            Ok((id, outcomes)) => (id, Ok(outcomes)),
            Err(error) => (error.id(), Err(attempt::panicked(error))),
        };
        let Unit { members, probe, cancel: _ } = self.units.remove(&id).expect("every running unit has its claims");
        let outcomes = outcomes.unwrap_or_else(|panicked| vec![panicked; members.len()]);
        let ended = members.into_iter().zip(outcomes).map(|(member, outcome)| {
            let Member { mut claim, steps, cancelled } = member;
            let Done { steps, partial } = steps.take();
            (claim.history.steps, claim.history.partial) = (steps, partial);
            (claim, cancelled.map_or(outcome, Outcome::Cancelled))
        });
        Over { ended: ended.collect(), probe }
    }

    /// Ends the attempt of this job, if it runs here; says whether it does. In a batch its result will not count.
    pub(super) fn cancel(&mut self, id: &JobId, request: &Request) -> bool {
        for unit in self.units.values_mut() {
            let Some(member) = unit.members.iter_mut().find(|member| member.claim.job.id == *id) else { continue };
            match &mut unit.cancel {
                Cancel::Batch => member.cancelled = Some(request.clone()),
                // It may have ended by itself just now, or have been told before.
                Cancel::Attempt(cancel) => drop(cancel.take().map(|cancel| cancel.send(request.clone()))),
            }
            return true;
        }
        false
    }
}

fn member(claim: Claim, keep: Option<Keep>) -> (Member, Part) {
    let done = Done { steps: claim.history.steps.clone(), partial: claim.history.partial.clone() };
    let steps = Steps::new(done, keep);
    let part = Part { job: Arc::clone(&claim.job), number: claim.history.next_attempt(), steps: steps.clone() };
    (Member { claim, steps, cancelled: None }, part)
}
