//! What a pool does with a claim, from when it has come until it is settled.

use std::sync::Arc;
use std::time::Duration;

use super::breaker::Allowed;
use super::trips::Want;
use super::work::Over;
use super::{Pool, attempt};
use crate::broker::{Claim, Line, Settlement, Swept};
use crate::clock;
use crate::job::{AttemptFacts, Decision, JobId, Next, Outcome, Request, decide};

impl Pool {
    /// Takes up what a claim has brought, which came so much later than usual.
    pub(super) fn claimed(&mut self, want: Want, late: Duration, claims: Vec<Claim>, line: Line) {
        let (came, before) = (claims.len(), self.busy());
        let is_late = came > 0 && self.queue.borrow().limits.patience().is_some_and(|patience| late > patience);
        let (mut back, mut gathered) = (0, 0);
        for claim in claims {
            if is_late {
                back += 1;
                self.hand_back(claim);
            } else {
                gathered += self.begin(claim, &mut back);
            }
        }
        if want.jobs > 0 {
            let used = self.busy().saturating_sub(before);
            self.unused += want.slots.saturating_sub(used);
            self.came = used;
            self.told.1 = true;
            self.grow_appetite(want.jobs, gathered, back);
        }
        if came > 0 {
            self.show_sizes();
        }
        self.limited = false;
        let name = self.queue.borrow().name.clone();
        if came > 0 && std::mem::take(&mut self.unheard) {
            self.trips.hear_cancels(&name, &self.heard);
        }
        match line {
            Line::Paused => {
                self.paused = true;
                self.trips.arm_paused(&name, &self.changed);
            }
            Line::Limited => {
                (self.look, self.limited) = (false, true);
                self.trips.arm_limited(&name, &self.changed);
            }
            // The queue gave less than was asked for: asks to be told of the next change.
            Line::Open if came < want.jobs => {
                self.look = false;
                self.trips.arm(&name, &self.changed);
            }
            Line::Open | Line::More => {}
        }
        self.look |= is_late;
    }

    /// Takes a claim up: into a batch, or on its own; says how many went into batches. One for which there is no slot
    /// goes back: what the jobs are is known only once they are claimed.
    fn begin(&mut self, claim: Claim, back: &mut usize) -> usize {
        let live = self.shared.live.load_full();
        let queue = Arc::clone(&self.queue.borrow());
        let free = self.size.slots() > self.busy() + self.trips.wanted();
        // A failed job goes on alone: whatever is wrong with it then touches no other.
        let batched = claim.history.next_attempt() == 1 && self.gate.allowed() == Allowed::All;
        let task = live.config.task(&claim.job.task);
        let batch = task.filter(|_| batched).and_then(|task| Some((task.batch_in(&queue)?, task)));
        if let Some((batch, task)) = batch {
            let timeout = attempt::timeout(&claim.job, task, &queue);
            let Some(claim) = self.gather.add(claim, timeout, batch, free) else { return 1 };
            *back += 1;
            self.hand_back(claim);
            return 0;
        }
        if self.appetite > 0 && !free {
            *back += 1;
            self.hand_back(claim);
        } else {
            self.observed.claimed(&claim);
            self.shared.broker.beginnings.tell(&claim);
            self.work.start(live, queue, claim, &self.shared.broker, &self.stop, self.gate.allowed() == Allowed::Probe);
        }
        0
    }

    /// As if it had not been claimed.
    fn hand_back(&mut self, claim: Claim) {
        let decision = Decision { next: Next::Release, history: claim.history.clone() };
        self.settlements.push(Settlement { claim, decision });
    }

    /// Starts the batches that are full or have waited long enough.
    pub(super) fn start_batches(&mut self) {
        while let Some((claims, timeout)) = self.gather.ready(self.stop.drain.is_cancelled()) {
            let live = self.shared.live.load_full();
            for claim in &claims {
                self.observed.claimed(claim);
                self.shared.broker.beginnings.tell(claim);
            }
            self.work.start_batch(live, claims, timeout, &self.stop);
        }
    }

    pub(super) fn cancel(&mut self, id: &JobId, request: &Request) -> bool {
        if let Some(claim) = self.gather.remove(id) {
            self.settle(claim, Outcome::Cancelled(request.clone()));
            return true;
        }
        self.work.cancel(id, request)
    }

    pub(super) fn finish(&mut self, over: Over) {
        let Over { ended, probe } = over;
        // A pool that ends claims nothing more, and another one may be speaking for the queue already.
        if !self.stop.drain.is_cancelled() {
            let outcomes = || ended.iter().map(|(_, outcome)| outcome);
            self.look |= self.gate.ended(outcomes(), probe);
            outcomes().for_each(|outcome| self.size.ended(outcome));
        }
        self.show_sizes();
        ended.into_iter().for_each(|(claim, outcome)| self.settle(claim, outcome));
    }

    pub(super) fn take_over(&mut self, swept: Swept) {
        let Swept { claim, reason, crashed } = swept;
        tracing::warn!(queue = %claim.job.queue, job = %claim.job.id, "taken over: {reason}");
        self.observed.taken_over.inc();
        let outcome = if crashed { Outcome::Crashed { reason } } else { Outcome::Interrupted { reason } };
        self.settle(claim, outcome);
        self.look = true;
    }

    /// Decides what follows from the outcome; the next round trip carries it.
    pub(super) fn settle(&mut self, claim: Claim, outcome: Outcome) {
        let now = clock::now();
        self.ended += 1;
        self.observed.ended(&claim, &outcome, now);
        let queue = self.queue.borrow();
        let live = self.shared.live.load();
        let task = live.config.task(&claim.job.task);
        let retry = claim.job.retry.as_ref().or(task.and_then(|task| task.retry.as_ref())).unwrap_or(&queue.retry);
        let facts = AttemptFacts {
            node: &self.shared.broker.node,
            attempt: claim.history.next_attempt(),
            started: claim.started,
            now,
            retry,
            crash_limit: queue.crash_limit,
            random: attempt::random(),
        };
        let decision = decide(&facts, claim.history.clone(), outcome);
        attempt::log(&claim, &decision);
        drop(queue);
        self.settlements.push(Settlement { claim, decision });
    }
}
