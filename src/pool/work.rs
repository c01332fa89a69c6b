//! What runs in a pool: attempts, each in a slot, with the claims they work on.
//!
//! Attempts run as tasks that get a copy of what they need and give back outcomes; the claims stay here, so neither a
//! panic nor an abort can lose one.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::{Id, JoinError, JoinSet};

use super::attempt;
use super::shared::{Live, Stop};
use crate::broker::Claim;
use crate::config::Queue;
use crate::handler::Steps;
use crate::job::{JobId, Outcome, Request};

#[derive(Debug, Default)]
pub(super) struct Work {
    running: JoinSet<Outcome>,
    claims: HashMap<Id, Running>,
}

/// A claim whose attempt runs.
#[derive(Debug)]
struct Running {
    claim: Claim,
    /// What the attempt has finished so far.
    steps: Steps,
    /// Ends the attempt; taken when it is used.
    cancel: Option<oneshot::Sender<Request>>,
    /// By it the breaker learns whether the service is back.
    probe: bool,
}

/// An attempt that is over.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) claim: Claim,
    pub(super) outcome: Outcome,
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
        self.claims.values().any(|running| running.probe)
    }

    pub(super) fn start(&mut self, live: Arc<Live>, queue: Arc<Queue>, claim: Claim, stop: &Stop, probe: bool) {
        let (cancel, cancelled) = oneshot::channel();
        let ends = attempt::Ends { abort: stop.abort.clone(), cancelled };
        let steps = Steps::new(claim.history.steps.clone());
        let (job, number) = (Arc::clone(&claim.job), claim.history.next_attempt());
        let task = self.running.spawn(attempt::run(live, queue, job, number, steps.clone(), ends));
        self.claims.insert(task.id(), Running { claim, steps, cancel: Some(cancel), probe });
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

    fn over(&mut self, joined: Result<(Id, Outcome), JoinError>) -> Over {
        let (id, outcome) = match joined {
            Ok(ended) => ended,
            Err(error) => (error.id(), attempt::panicked(error)),
        };
        let Running { mut claim, steps, cancel: _, probe } =
            self.claims.remove(&id).expect("every running attempt has its claim");
        claim.history.steps = steps.results();
        Over { claim, outcome, probe }
    }

    /// Ends the attempt of this job, if it runs here; says whether it does.
    pub(super) fn cancel(&mut self, id: &JobId, request: &Request) -> bool {
        let running = self.claims.values_mut().find(|running| running.claim.job.id == *id);
        let Some(running) = running else { return false };
        if let Some(cancel) = running.cancel.take() {
            // It may have ended by itself just now.
            let _ = cancel.send(request.clone());
        }
        true
    }
}
