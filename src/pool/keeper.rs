//! The node's signs of life, and its rounds: taking over what dead nodes left, pruning what is past its retention.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError, NodeCard, NodeOrder, NodeQueue, Survey, Swept};
use crate::clock;
use crate::config::Queue;
use crate::job::{NodeId, QueueName, Timestamp};

/// Claims taken over in one pass of one queue; the rest follows in the next pass, at once.
const REAP: usize = 500;
/// Pause after a round that did not get through.
const RETRY: Duration = Duration::from_millis(500);
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
    started: Timestamp,
    /// When the last round ended.
    alive: watch::Sender<Instant>,
}

impl Keeper {
    pub(crate) fn new(broker: Arc<Broker>, predecessor: Option<NodeId>) -> Self {
        Self {
            broker,
            predecessor: Mutex::new(predecessor),
            queues: Mutex::default(),
            started: clock::now(),
            alive: watch::Sender::new(Instant::now()),
        }
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

    /// Beats and prunes until it is told to stop. Heartbeats go on while jobs drain: the leases must hold as long as
    /// anything runs. Pruning may take longer than a lease, so it goes beside them; each of its steps stands for itself.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        tokio::select! {
            () = self.beat(&stop) => {}
            () = self.prune() => {}
        }
        if let Err(error) = self.broker.leave(&self.broker.node).await {
            tracing::debug!("this node stays on the list, as not seen any more: {error}");
        }
    }

    async fn beat(&self, stop: &CancellationToken) {
        let mut rounds = Rounds::new();
        let mut overrides = self.broker.overrides.changes();
        let beat = self.broker.lease() / 3;
        loop {
            let next = match self.round(&mut rounds).await {
                Ok(next) => next.min(beat),
                Err(error) => {
                    tracing::debug!("no sign of life could be given to Redis: {error}");
                    RETRY
                }
            };
            self.alive.send_replace(Instant::now());
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(next) => {}
                // The other nodes hear of it now.
                Ok(()) = overrides.changed() => {}
            }
        }
    }

    /// Prunes every so often, for ever; not before a heartbeat has got through.
    async fn prune(&self) {
        let mut surveys = self.broker.surveys.subscribe();
        while surveys.changed().await.is_ok() {
            let queues: Vec<Kept> = self.queues().values().cloned().collect();
            for Kept { queue, .. } in queues {
                if let Err(error) = self.broker.prune(&queue, clock::now()).await {
                    tracing::warn!(queue = %queue.name, "deleting old jobs failed: {error}");
                }
            }
            tokio::time::sleep(PRUNE_EVERY).await;
            surveys.mark_unchanged();
        }
    }

    /// How long ago a round ended, whatever came of it: what a watchdog asks.
    pub(crate) fn since_last_round(&self) -> Duration {
        self.alive.borrow().elapsed()
    }

    /// One round; says after what time the next one has something to do. A queue whose sweep fails does not keep the
    /// others from theirs.
    async fn round(&self, rounds: &mut Rounds) -> Result<Duration, BrokerError> {
        let queues: Vec<Kept> = self.queues().values().cloned().collect();
        let names: Vec<QueueName> = queues.iter().map(|kept| kept.queue.name.clone()).collect();
        let lease = self.broker.lease();
        let jumped = self.broker.set_clock().await?;
        self.retire_predecessor(&names).await?;
        let now = clock::now();
        let surveys = self.broker.heartbeat(&names, now).await?;
        self.present(&queues, now).await;
        rounds.beat(jumped, lease);
        let sweep_all = rounds.sweep_is_due(lease);
        for (kept, survey) in queues.iter().zip(&surveys) {
            let expired_before = survey.expired_before(lease, now);
            if sweep_is_due(survey, sweep_all, expired_before)
                && let Err(error) = self.sweep(kept, expired_before, now).await
            {
                tracing::warn!(queue = %kept.queue.name, "taking over what dead nodes left failed: {error}");
            }
        }
        // Just after the end of a lease is early enough, and surely after it.
        let ends = surveys.iter().filter_map(|survey| survey.next_end(lease, now));
        Ok(ends.min().map_or(Duration::MAX, |next| next.max(MARGIN) + MARGIN))
    }

    /// Puts this node on the list of nodes, and does what it was told.
    async fn present(&self, queues: &[Kept], now: Timestamp) {
        let card = NodeCard {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            pid: std::process::id(),
            started: self.started,
            seen: now,
            lease_until: now.after(self.broker.lease()),
            queues: queues.iter().map(|kept| self.served(&kept.queue)).collect(),
            slots: *self.broker.slots.borrow(),
            draining: *self.broker.draining.borrow(),
        };
        match self.broker.present(&card).await {
            Ok(order) => self.obey(order),
            // Nothing depends on the list.
            Err(error) => tracing::debug!("putting this node on the list failed: {error}"),
        }
    }

    fn served(&self, queue: &Queue) -> NodeQueue {
        let (name, stance) = (queue.name.clone(), self.broker.stances.of(&queue.name));
        let concurrency = stance.scaled.as_ref().map_or(self.broker.concurrency(queue).max, |scaled| scaled.size);
        let (outage, set) = (stance.outage, self.broker.overrides.of(&name));
        NodeQueue { running: self.broker.holds(&name), queue: name, concurrency, outage, set, scaled: stance.scaled }
    }

    fn obey(&self, order: Option<NodeOrder>) {
        let drain = order == Some(NodeOrder::Drain);
        let changed = self.broker.draining.send_if_modified(|draining| std::mem::replace(draining, drain) != drain);
        if changed {
            tracing::info!("{}", if drain { "told to drain: claiming nothing more" } else { "claiming again" });
        }
    }

    async fn retire_predecessor(&self, queues: &[QueueName]) -> Result<(), BrokerError> {
        let predecessor = self.predecessor.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(node) = predecessor {
            self.broker.retire(&node, queues).await?;
            self.broker.leave(&node).await?;
            *self.predecessor.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Ok(())
    }

    async fn sweep(&self, kept: &Kept, expired_before: Timestamp, now: Timestamp) -> Result<(), BrokerError> {
        loop {
            let swept = self.broker.sweep(&kept.queue.name, expired_before, now, REAP).await?;
            let more = swept.len() >= REAP;
            for claim in swept {
                // The pool may have ended with its queue: the claim is dropped, and found again by a later sweep.
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

/// Regularly where something runs, for lost answers; at once where a lease has ended.
fn sweep_is_due(survey: &Survey, regular: bool, expired_before: Timestamp) -> bool {
    survey.earliest_lease.is_some_and(|end| end <= expired_before) || regular && survey.active > 0
}

/// What the keeper remembers from round to round. Reckoned by the monotonic clock: the wall clock may be set.
#[derive(Debug)]
struct Rounds {
    last_beat: Option<Instant>,
    next_sweep: Instant,
}

impl Rounds {
    fn new() -> Self {
        let now = Instant::now();
        Self { last_beat: None, next_sweep: now }
    }

    /// A heartbeat got through. After a silence of our own or a jump of the clock, an answer may have been lost: the sweep
    /// comes at once.
    fn beat(&mut self, jumped: bool, lease: Duration) {
        let now = Instant::now();
        if jumped || self.last_beat.is_none_or(|last| now - last > lease / 2 + lease / 3) {
            self.next_sweep = now;
        }
        self.last_beat = Some(now);
    }

    /// Whether the time has come; if so, it is set to come again.
    fn sweep_is_due(&mut self, lease: Duration) -> bool {
        let now = Instant::now();
        let due = now >= self.next_sweep;
        if due {
            self.next_sweep = now + lease;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::scripts;
    use crate::store::Store;
    use crate::testing::fixture;
    use crate::testing::redis::RedisServer;

    const LEASE: Duration = Duration::from_secs(15);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    fn survey(earliest_lease: Option<Timestamp>, unbroken_since: Timestamp) -> Survey {
        let queue = QueueName::parse("emails").expect("a valid name");
        Survey { queue, earliest_lease, active: 1, inflight: 0, owed: 0, unbroken_since }
    }

    fn is_due(survey: &Survey, now: Timestamp) -> bool {
        sweep_is_due(survey, false, survey.expired_before(LEASE, now))
    }

    #[test]
    fn a_living_node_is_not_reaped_because_redis_was_away() {
        // Redis was away from 5 to 25; the other's lease ran out meanwhile.
        let other = survey(Some(at(20)), at(25));
        assert!(!is_due(&other, at(26)), "it has had no chance to renew");
        assert_eq!(other.next_end(LEASE, at(26)), Some(Duration::from_secs(14)), "looked at again when it has had one");
        assert!(is_due(&other, at(40)), "it is really dead");
    }

    #[test]
    fn a_node_that_has_just_started_reaps_where_others_were_heard_all_the_time() {
        assert!(is_due(&survey(Some(at(20)), at(0)), at(21)));
    }

    #[test]
    fn a_lease_that_was_ended_on_purpose_is_taken_over_at_once() {
        assert!(is_due(&survey(Some(Timestamp::from_millis(0)), at(0)), at(0)));
    }

    #[test]
    fn the_next_round_waits_for_the_end_of_the_earliest_lease() {
        assert_eq!(survey(Some(at(20)), at(0)).next_end(LEASE, at(10)), Some(Duration::from_secs(10)));
        assert_eq!(survey(None, at(0)).next_end(LEASE, at(10)), None);
    }

    /// While it prunes more than it could in the time of a lease, nobody may take over what it runs.
    #[tokio::test]
    async fn leases_hold_however_long_pruning_takes() {
        const LEASE: Duration = Duration::from_secs(1);
        const FILL: &str = "local n = redis.call('ZCARD', KEYS[1])
            for i = n + 1, math.min(n + 20000, 200000) do redis.call('ZADD', KEYS[1], i, i) end
            redis.call('HSET', KEYS[2], KEYS[1], '-' .. KEYS[3]) redis.call('ZADD', KEYS[4], 0, 'p')
            return { redis.call('ZSCORE', KEYS[5], 'a') or '', redis.call('TIME') }";
        let redis = RedisServer::start();
        let store =
            Arc::new(Store::new(&redis.url(), "jobsd", Duration::from_secs(5), scripts()).expect("a valid URL"));
        let node = NodeId::parse("a").expect("a valid name");
        let keeper = Keeper::new(Arc::new(Broker::new(Arc::clone(&store), node, LEASE).0), None);
        let queue = Arc::new(fixture::queue());
        let keys = store.keys.queue(&queue.name);
        let (swept, _taken) = mpsc::channel(1);
        keeper.keep(Kept { queue, swept });
        // Somebody's purges are over, and there is always more of them than a step deletes.
        let look = async || {
            let (trash, manifest) = (keys.trash_of("p", "pending"), keys.trash_of("p", "manifest"));
            let mut fill = redis::Pipeline::new();
            fill.cmd("EVAL").arg(FILL).arg(5).arg(trash).arg(manifest).arg(&keys.pending).arg(&keys.trash);
            fill.arg(&keys.leases);
            let reply = store.link.send(&fill).await.expect("Redis answers").remove(0);
            let (lease, (seconds, micros)): (String, (u64, u64)) = redis::from_redis_value(reply).expect("two times");
            (lease.parse::<u64>().ok(), seconds * 1000 + micros / 1000)
        };
        for _ in 0..10 {
            look().await;
        }
        let stop = CancellationToken::new();
        let looking = async {
            let begun = Instant::now();
            while begun.elapsed() < LEASE * 3 {
                if let (Some(lease), now) = look().await {
                    assert!(lease > now, "it ended {} ms ago", now - lease);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(look().await.0.is_some(), "the node has beaten");
            stop.cancel();
        };
        tokio::join!(looking, keeper.run(stop.clone()));
    }
}
