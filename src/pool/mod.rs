//! One pool for each queue: claims as many jobs as it has free slots, runs them, settles them.
//!
//! The loop owns every claim of the queue from the moment it is made until its settle is answered. Attempts run as
//! tasks that get a copy of what they need and give back an outcome, so neither a panic nor an abort can lose a claim.

mod attempt;
mod keeper;
mod supervisor;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use keeper::Keeper;
pub(crate) use supervisor::Supervisor;

use crate::broker::{Broker, Claim, Demand, Settled, Settlement, Swept};
use crate::clock;
use crate::config::{Config, Queue};
use crate::handler::{Handlers, Steps};
use crate::job::{AttemptFacts, Outcome, Timestamp, decide};
use crate::metrics::{AttemptLabels, Ending, Metrics, QueueLabels, TaskLabels};

/// Claims in one round trip: bounds the size of a reply.
const CLAIM_BATCH: usize = 500;
/// Settles in one round trip.
const SETTLE_BATCH: usize = 500;
/// Pause after a round trip that failed; it doubles up to the second one.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How often a busy pool promotes what has become due.
const PROMOTE_EVERY: Duration = Duration::from_secs(1);

/// What all pools of a node share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub broker: Arc<Broker>,
    pub live: ArcSwap<Live>,
    pub metrics: Arc<Metrics>,
}

/// The configuration in force and the handlers built from it: replaced together by a reload.
#[derive(Debug)]
pub(crate) struct Live {
    pub config: Arc<Config>,
    pub handlers: Arc<Handlers>,
}

/// How a pool is told to end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    /// No new claims; what runs may finish.
    pub drain: CancellationToken,
    /// What still runs is interrupted and handed back.
    pub abort: CancellationToken,
}

/// A running queue.
struct Pool {
    shared: Arc<Shared>,
    queue: watch::Receiver<Arc<Queue>>,
    /// Claims that the keeper came by; they are settled here like any other.
    swept: mpsc::Receiver<Swept>,
    stop: Stop,
    running: JoinSet<Outcome>,
    /// The claims of the running attempts, and what each has finished so far.
    claims: HashMap<Id, (Claim, Steps)>,
    settlements: Vec<Settlement>,
    changed: Arc<Notify>,
    demand: Demand,
    /// There may be something to claim.
    look: bool,
    /// When the next job becomes due, as of the last time the queue was found empty.
    due: Option<Timestamp>,
    /// A busy pool never finds its queue empty: it promotes what is due at this pace.
    promoted: Instant,
    pause: Duration,
}

impl Pool {
    fn new(shared: Arc<Shared>, queue: watch::Receiver<Arc<Queue>>, swept: mpsc::Receiver<Swept>, stop: Stop) -> Self {
        let demand = shared.broker.demand(&queue.borrow().name);
        Self {
            shared,
            queue,
            swept,
            stop,
            running: JoinSet::new(),
            claims: HashMap::new(),
            settlements: Vec::new(),
            changed: Arc::new(Notify::new()),
            demand,
            look: true,
            due: None,
            promoted: Instant::now(),
            pause: RETRY_PAUSE.0,
        }
    }

    /// Runs until it is told to drain and nothing is left to settle.
    async fn run(mut self) {
        while !self.finished() {
            self.gather();
            let (want, promote) = self.appetite();
            if self.settlements.is_empty() && want == 0 {
                self.wait().await;
            } else {
                self.exchange(want, promote).await;
            }
        }
        self.shared.broker.watch.forget(&self.changed);
    }

    fn finished(&self) -> bool {
        self.stop.drain.is_cancelled()
            && self.running.is_empty()
            && self.settlements.is_empty()
            && self.swept.is_empty()
    }

    /// Collects what has ended meanwhile, without waiting.
    fn gather(&mut self) {
        while self.settlements.len() < SETTLE_BATCH
            && let Some(joined) = self.running.try_join_next_with_id()
        {
            self.finish(joined);
        }
        while self.settlements.len() < SETTLE_BATCH
            && let Ok(swept) = self.swept.try_recv()
        {
            self.take_over(swept);
        }
    }

    /// How many jobs to claim now, and whether some of them must be promoted before.
    fn appetite(&self) -> (usize, bool) {
        let due = self.due.is_some_and(|due| due <= clock::now());
        let want = if self.look || due { self.free().min(CLAIM_BATCH) } else { 0 };
        (want, want > 0 && (due || self.promoted.elapsed() >= PROMOTE_EVERY))
    }

    fn free(&self) -> usize {
        if self.stop.drain.is_cancelled() {
            return 0;
        }
        self.queue.borrow().concurrency.saturating_sub(self.running.len())
    }

    async fn exchange(&mut self, want: usize, promote: bool) {
        let queue = Arc::clone(&self.queue.borrow_and_update());
        let settlements = std::mem::take(&mut self.settlements);
        if promote {
            self.promoted = Instant::now();
        }
        let result = self.shared.broker.exchange(&queue, settlements, promote, want, clock::now()).await;
        let mut failed = None;
        match result.settled {
            Ok(settled) => self.count_refused(&settled),
            Err((error, back)) => {
                self.settlements = back;
                failed = Some(error);
            }
        }
        match result.claims {
            Ok(claims) => {
                let came = claims.len();
                for claim in claims {
                    self.start(claim);
                }
                if want > 0 && came < want {
                    self.arm().await;
                }
            }
            Err(error) => failed = Some(error),
        }
        failed = failed.or(result.promoted.err());
        self.tell_demand();
        match failed {
            None => self.pause = RETRY_PAUSE.0,
            Some(error) => {
                tracing::debug!(queue = %queue.name, "the round trip to Redis failed, trying again: {error}");
                self.rest().await;
            }
        }
    }

    /// The queue gave less than was asked for: asks to be told of the next change.
    async fn arm(&mut self) {
        let keys = self.shared.broker.store.keys.queue(&self.queue.borrow().name);
        match self.shared.broker.watch.arm(&self.changed, &[keys.pending], &[keys.scheduled, keys.retry]).await {
            Ok(armed) => {
                self.look = armed.ready;
                self.due = armed.due;
            }
            // Nobody will tell us: keep looking, at the pace of the pause.
            Err(error) => {
                tracing::debug!("arming the watch failed: {error}");
                self.rest().await;
            }
        }
    }

    /// Waits until something has ended, something can be claimed, or the rules have changed.
    async fn wait(&mut self) {
        self.tell_demand();
        let due = self.due.map_or(Duration::MAX, |due| due.since(clock::now()));
        let free = self.free();
        let draining = self.stop.drain.is_cancelled();
        tokio::select! {
            Some(joined) = self.running.join_next_with_id() => self.finish(joined),
            Some(swept) = self.swept.recv() => self.take_over(swept),
            () = self.changed.notified(), if free > 0 => self.look = true,
            () = tokio::time::sleep(due.min(MAX_SLEEP)), if free > 0 && self.due.is_some() => {}
            Ok(()) = self.queue.changed() => self.look = true,
            () = self.stop.drain.cancelled(), if !draining => {}
        }
    }

    async fn rest(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(RETRY_PAUSE.1);
    }

    fn start(&mut self, claim: Claim) {
        let live = self.shared.live.load_full();
        let queue = Arc::clone(&self.queue.borrow());
        self.observe_wait(&claim);
        let (abort, steps) = (self.stop.abort.clone(), Steps::new(claim.history.steps.clone()));
        let (job, number) = (Arc::clone(&claim.job), claim.history.next_attempt());
        let task = self.running.spawn(attempt::run(live, queue, job, number, steps.clone(), abort));
        self.claims.insert(task.id(), (claim, steps));
        self.running_gauge();
    }

    fn finish(&mut self, joined: Result<(Id, Outcome), tokio::task::JoinError>) {
        let (id, outcome) = match joined {
            Ok(ended) => ended,
            Err(error) => (error.id(), attempt::panicked(error)),
        };
        let (mut claim, steps) = self.claims.remove(&id).expect("every running attempt has its claim");
        claim.history.steps = steps.results();
        self.running_gauge();
        self.settle(claim, outcome);
    }

    fn take_over(&mut self, swept: Swept) {
        let Swept { claim, reason, crashed } = swept;
        let queue = self.queue.borrow().name.clone();
        tracing::warn!(%queue, job = %claim.job.id, "taken over: {reason}");
        self.shared.metrics.taken_over.get_or_create(&QueueLabels { queue: queue.to_string() }).inc();
        let outcome = if crashed { Outcome::Crashed { reason } } else { Outcome::Interrupted { reason } };
        self.settle(claim, outcome);
        self.look = true;
    }

    /// Decides what follows from the outcome; the next round trip carries it.
    fn settle(&mut self, claim: Claim, outcome: Outcome) {
        let now = clock::now();
        self.observe_ending(&claim, &outcome, now);
        let queue = self.queue.borrow();
        let live = self.shared.live.load();
        let task = live.config.tasks.get(&claim.job.task);
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

    /// A draining pool says nothing: a new pool of the same queue may be speaking already.
    fn tell_demand(&self) {
        if !self.stop.drain.is_cancelled() {
            self.demand.tell(self.free());
        }
    }

    fn count_refused(&self, settled: &[Settled]) {
        let refused = settled.iter().filter(|&&settled| settled == Settled::Refused).count();
        if refused > 0 {
            let queue = self.queue.borrow().name.to_string();
            tracing::warn!(%queue, refused, "late results were refused: their lease was lost and others have the jobs");
            self.shared.metrics.refused.get_or_create(&QueueLabels { queue }).inc_by(refused as u64);
        }
    }

    fn running_gauge(&self) {
        let queue = self.queue.borrow();
        let labels = QueueLabels { queue: queue.name.to_string() };
        let metrics = &self.shared.metrics;
        metrics.running.get_or_create(&labels).set(i64::try_from(self.running.len()).unwrap_or(i64::MAX));
        metrics.slots.get_or_create(&labels).set(i64::try_from(queue.concurrency).unwrap_or(i64::MAX));
    }

    fn observe_wait(&self, claim: &Claim) {
        let since = claim.job.due.unwrap_or(claim.job.enqueued_at);
        if claim.history.next_attempt() == 1 {
            let labels = QueueLabels { queue: claim.job.queue.to_string() };
            self.shared.metrics.wait_seconds.get_or_create(&labels).observe(claim.started.since(since).as_secs_f64());
        }
    }

    fn observe_ending(&self, claim: &Claim, outcome: &Outcome, now: Timestamp) {
        let (queue, task) = (claim.job.queue.to_string(), claim.job.task.to_string());
        let ending = match outcome {
            Outcome::Success(_) => Ending::Completed,
            Outcome::Failure(_) => Ending::Failed,
            Outcome::TimedOut(_) => Ending::TimedOut,
            Outcome::Snoozed { .. } => Ending::Snoozed,
            Outcome::Expired(_) => Ending::Expired,
            Outcome::Crashed { .. } | Outcome::Interrupted { .. } => Ending::Interrupted,
        };
        let seconds = now.since(claim.started).as_secs_f64();
        let labels = TaskLabels { queue: queue.clone(), task: task.clone() };
        self.shared.metrics.attempt_seconds.get_or_create(&labels).observe(seconds);
        self.shared.metrics.attempts.get_or_create(&AttemptLabels { queue, task, ending }).inc();
    }
}

/// Long sleeps are cut: the wall clock may be set meanwhile.
const MAX_SLEEP: Duration = Duration::from_secs(60);
