//! The node's signs of life, and its rounds: taking over what dead nodes left, pruning what is past its retention.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError, Survey, Swept};
use crate::clock;
use crate::config::Queue;
use crate::job::{NodeId, QueueName, Timestamp};

/// Claims taken over in one pass of one queue; the rest follows in the next pass, at once.
const REAP: usize = 500;
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// Just after the end of a lease is early enough, and surely after it.
const MARGIN: Duration = Duration::from_millis(50);

/// A queue that this node serves, as the keeper sees it.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) queue: Arc<Queue>,
    pub(super) swept: mpsc::Sender<Swept>,
}

#[derive(Debug)]
pub(crate) struct Keeper {
    broker: Arc<Broker>,
    /// The node that ran on this state folder before and is surely dead: its leases are ended with the first round.
    predecessor: Mutex<Option<NodeId>>,
    queues: Mutex<HashMap<QueueName, Kept>>,
}

impl Keeper {
    pub(crate) fn new(broker: Arc<Broker>, predecessor: Option<NodeId>) -> Self {
        Self { broker, predecessor: Mutex::new(predecessor), queues: Mutex::default() }
    }

    pub(super) fn keep(&self, kept: Kept) {
        self.queues().insert(kept.queue.name.clone(), kept);
    }

    /// The queue's rules have changed.
    pub(super) fn update(&self, queue: &Arc<Queue>) {
        if let Some(kept) = self.queues().get_mut(&queue.name) {
            kept.queue = Arc::clone(queue);
        }
    }

    /// The pool of this queue has ended. Says whether the queue is kept no more; a new pool for it may be running.
    pub(super) fn release(&self, queue: &QueueName) -> bool {
        let mut queues = self.queues();
        if queues.get(queue).is_some_and(|kept| kept.swept.is_closed()) {
            queues.remove(queue);
        }
        !queues.contains_key(queue)
    }

    /// Beats until it is told to stop. Heartbeats go on while jobs drain: the leases must hold as long as anything runs.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let mut rounds = Rounds::new(clock::now());
        let beat = self.broker.lease() / 3;
        loop {
            let next = match self.round(&mut rounds).await {
                Ok(next) => next.min(beat),
                Err(error) => {
                    tracing::warn!("no sign of life could be given to Redis: {error}");
                    Duration::from_millis(500)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(next) => {}
            }
        }
    }

    /// One round; says after what time the next one has something to do.
    async fn round(&self, rounds: &mut Rounds) -> Result<Duration, BrokerError> {
        let queues: Vec<Kept> = self.queues().values().cloned().collect();
        let names: Vec<QueueName> = queues.iter().map(|kept| kept.queue.name.clone()).collect();
        let now = clock::now();
        self.retire_predecessor(&names).await?;
        let surveys = self.broker.heartbeat(&names, now).await?;
        rounds.beat(now, self.broker.lease());
        for (kept, survey) in queues.iter().zip(&surveys) {
            if rounds.sweep_is_due(survey, now) {
                self.sweep(kept, rounds.expired_before(now), now).await?;
            }
        }
        rounds.swept(now, self.broker.lease());
        if rounds.prune_is_due() {
            for kept in &queues {
                self.broker.prune(&kept.queue, now).await?;
            }
        }
        Ok(rounds.next_end(&surveys, now))
    }

    async fn retire_predecessor(&self, queues: &[QueueName]) -> Result<(), BrokerError> {
        let predecessor = self.predecessor.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(node) = predecessor {
            self.broker.retire(&node, queues).await?;
            *self.predecessor.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Ok(())
    }

    async fn sweep(&self, kept: &Kept, expired_before: Timestamp, now: Timestamp) -> Result<(), BrokerError> {
        loop {
            let swept = self.broker.sweep(&kept.queue.name, expired_before, now, REAP).await?;
            let more = swept.len() >= REAP;
            for claim in swept {
                // The pool may have ended with its queue: then the claim is found again when our lease is over.
                if kept.swept.send(claim).await.is_err() {
                    return Ok(());
                }
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn queues(&self) -> std::sync::MutexGuard<'_, HashMap<QueueName, Kept>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the keeper remembers from round to round.
#[derive(Debug)]
struct Rounds {
    last_beat: Option<Timestamp>,
    /// Until then other nodes may only be silent because Redis was: their leases are not held against them.
    grace: Timestamp,
    next_sweep: Timestamp,
    next_prune: Instant,
}

impl Rounds {
    fn new(now: Timestamp) -> Self {
        Self { last_beat: None, grace: now, next_sweep: now, next_prune: Instant::now() }
    }

    /// A heartbeat got through. After a silence of our own, or at the start, every living node gets the time of one
    /// lease to show itself again before it is taken for dead.
    fn beat(&mut self, now: Timestamp, lease: Duration) {
        if self.last_beat.is_none_or(|last| now.since(last) > lease / 2 + lease / 3) {
            self.grace = now.after(lease);
            self.next_sweep = now;
        }
        self.last_beat = Some(now);
    }

    /// Regularly where something runs, for lost answers; at once where a lease has ended.
    fn sweep_is_due(&self, survey: &Survey, now: Timestamp) -> bool {
        let ended = survey.earliest_lease.is_some_and(|end| end <= self.expired_before(now));
        ended || survey.active > 0 && now >= self.next_sweep
    }

    fn swept(&mut self, now: Timestamp, lease: Duration) {
        if now >= self.next_sweep {
            self.next_sweep = now.after(lease);
        }
    }

    /// Leases that ended by this time are over. During the grace only those that were ended on purpose (at 0).
    fn expired_before(&self, now: Timestamp) -> Timestamp {
        if now < self.grace { Timestamp::from_millis(0) } else { now }
    }

    fn prune_is_due(&mut self) -> bool {
        let due = Instant::now() >= self.next_prune;
        if due {
            self.next_prune = Instant::now() + PRUNE_EVERY;
        }
        due
    }

    /// Until the earliest other lease may be over.
    fn next_end(&self, surveys: &[Survey], now: Timestamp) -> Duration {
        let earliest = surveys.iter().filter_map(|survey| survey.earliest_lease).min();
        earliest.map_or(Duration::MAX, |end| end.max(self.grace).since(now).max(MARGIN) + MARGIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    fn survey(earliest_lease: Option<Timestamp>) -> Survey {
        let queue = QueueName::parse("emails").expect("a valid name");
        Survey { queue, earliest_lease, active: 1, inflight: 0, owed: 0 }
    }

    #[test]
    fn a_living_node_is_not_reaped_because_redis_was_away() {
        let mut rounds = Rounds::new(at(0));
        rounds.beat(at(0), LEASE);
        rounds.beat(at(20), LEASE); // Redis was away from 5 to 20; the other's lease ran out meanwhile.
        rounds.swept(at(20), LEASE);
        let other = survey(Some(at(16)));
        assert!(!rounds.sweep_is_due(&other, at(21)), "it has had no chance to renew");
        rounds.beat(at(25), LEASE);
        rounds.beat(at(30), LEASE);
        rounds.beat(at(35), LEASE);
        assert!(rounds.sweep_is_due(&other, at(35)), "it is really dead");
    }

    #[test]
    fn a_lease_that_was_ended_on_purpose_is_taken_over_at_once() {
        let mut rounds = Rounds::new(at(0));
        rounds.beat(at(0), LEASE);
        assert!(rounds.sweep_is_due(&survey(Some(Timestamp::from_millis(0))), at(0)));
    }

    #[test]
    fn the_next_round_waits_for_the_end_of_the_earliest_lease() {
        let mut rounds = Rounds::new(at(0));
        rounds.beat(at(0), LEASE);
        let next = rounds.next_end(&[survey(Some(at(20))), survey(None)], at(10));
        assert_eq!(next, Duration::from_secs(10) + MARGIN);
    }
}
