//! One pool for each queue: claims as many jobs as it has free slots, runs them, settles them.
//!
//! The loop owns every claim of the queue from the moment it is made until its settle is answered. Attempts run as
//! tasks that get a copy of what they need and give back an outcome, so neither a panic nor an abort can lose a claim.

mod arbiter;
mod attempt;
mod keeper;
mod observe;
mod slots;
mod supervisor;
mod trips;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use keeper::Keeper;
pub(crate) use supervisor::Supervisor;

use crate::broker::{Broker, BrokerError, Claim, Demand, Exchange, Line, Settled, Settlement, Swept};
use crate::clock;
use crate::config::{Config, Queue};
use crate::handler::{Handlers, Steps};
use crate::job::{AttemptFacts, JobId, Outcome, Request, Timestamp, decide};
use crate::metrics::Metrics;
use arbiter::Need;
use observe::Observed;
use slots::Seat;
use trips::{Returned, Trips};

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
    /// The whole node ends: no other pool of the queue follows in this process.
    pub for_good: CancellationToken,
}

/// A running queue.
struct Pool {
    shared: Arc<Shared>,
    queue: watch::Receiver<Arc<Queue>>,
    /// Claims that the keeper came by; they are settled here like any other.
    swept: mpsc::Receiver<Swept>,
    stop: Stop,
    running: JoinSet<Outcome>,
    claims: HashMap<Id, Running>,
    settlements: Vec<Settlement>,
    trips: Trips,
    /// Our part of what all pools share. After `running`: what runs ends before its slots are given back.
    seat: Seat,
    /// Slots of the node that were ours and for which the queue had no job.
    unused: usize,
    /// Jobs that the last claim brought.
    came: usize,
    observed: Observed,
    /// The queue may hold something new.
    changed: Arc<Notify>,
    /// Somebody may have asked for a job to be cancelled.
    heard: Arc<Notify>,
    demand: Demand,
    /// Attempts that have ended.
    ended: u64,
    /// What the intake was told last, and whether there is a reason to say it again.
    told: (usize, bool),
    /// Somebody asked for the end of a job that does not run here, while claims were on their way: it may be one of them.
    unheard: bool,
    /// Whether the node was told to claim nothing more.
    draining: watch::Receiver<bool>,
    /// There may be something to claim.
    look: bool,
    /// The queue is paused: there is nothing to claim until that changes.
    paused: bool,
    /// When the next job becomes due, as of the last time the queue was found empty.
    due: Option<Timestamp>,
    /// Something has become due since the last claim.
    promote: bool,
    /// A busy pool never finds its queue empty: it promotes what is due at this pace.
    promoted: Instant,
    /// After a failure no round trip leaves before this.
    rest_until: Option<Instant>,
    pause: Duration,
}

/// A claim whose attempt runs.
struct Running {
    claim: Claim,
    /// What the attempt has finished so far.
    steps: Steps,
    /// Ends the attempt; taken when it is used.
    cancel: Option<oneshot::Sender<Request>>,
}

impl Pool {
    fn new(
        shared: Arc<Shared>,
        seat: Seat,
        queue: watch::Receiver<Arc<Queue>>,
        swept: mpsc::Receiver<Swept>,
        stop: Stop,
    ) -> Self {
        let name = queue.borrow().name.clone();
        Self {
            demand: shared.broker.demand(&name),
            draining: shared.broker.draining.subscribe(),
            trips: Trips::new(Arc::clone(&shared.broker)),
            observed: Observed::new(Arc::clone(&shared.metrics), &name),
            shared,
            queue,
            swept,
            stop,
            running: JoinSet::new(),
            claims: HashMap::new(),
            settlements: Vec::new(),
            seat,
            unused: 0,
            came: 0,
            told: (0, true),
            unheard: false,
            changed: Arc::new(Notify::new()),
            heard: Arc::new(Notify::new()),
            ended: 0,
            look: true,
            paused: false,
            due: None,
            promote: false,
            promoted: Instant::now(),
            rest_until: None,
            pause: RETRY_PAUSE.0,
        }
    }

    /// Runs until it is told to drain and nothing is left to settle.
    async fn run(mut self) {
        let name = self.queue.borrow().name.clone();
        self.trips.hear_cancels(&name, &self.heard);
        while !self.finished() {
            self.gather();
            self.depart();
            self.wait().await;
            // What is about to end on this thread ends first: it goes along with the next round trip.
            tokio::task::yield_now().await;
        }
        self.shared.broker.watch.forget(&self.changed);
        self.shared.broker.watch.forget(&self.heard);
    }

    fn finished(&self) -> bool {
        self.stop.drain.is_cancelled()
            && self.running.is_empty()
            && self.settlements.is_empty()
            && self.trips.are_empty()
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

    /// Sends a round trip off, if there is anything to settle or to claim and one may leave.
    fn depart(&mut self) {
        self.notice_due();
        self.rest_until = self.rest_until.filter(|until| Instant::now() < *until);
        let resting = self.rest_until.is_some();
        let want = self.claimable(resting);
        if resting || !self.trips.has_room() || self.settlements.is_empty() && want == 0 {
            return;
        }
        let promote = want > 0 && (self.promote || self.promoted.elapsed() >= PROMOTE_EVERY);
        if promote {
            self.promote = false;
            self.promoted = Instant::now();
            // Whether anything else is due is known again when the queue is found empty.
            self.due = None;
        }
        let queue = Arc::clone(&self.queue.borrow_and_update());
        let most = self.settlements.len().min(SETTLE_BATCH);
        let settlements = self.settlements.drain(..most).collect();
        self.trips.exchange(queue, settlements, promote, want);
    }

    /// What has become due can be claimed as soon as it is promoted.
    fn notice_due(&mut self) {
        if self.due.is_some_and(|due| due <= clock::now()) {
            self.due = None;
            self.promote = true;
            self.look = true;
        }
    }

    /// How many jobs to claim now: as many as there are slots for, of the queue and of the node.
    fn claimable(&mut self, resting: bool) -> usize {
        let more = if self.look && !resting { self.free().min(CLAIM_BATCH) } else { 0 };
        let grant = self.seat.ask(&Need {
            weight: self.queue.borrow().weight,
            busy: self.running.len() + self.trips.wanted(),
            more,
            unused: std::mem::take(&mut self.unused),
            came: self.came,
            collect: self.trips.has_room(),
        });
        self.tell_demand(grant.ahead);
        grant.start
    }

    /// Slots that nothing runs in and no claim is on its way to.
    fn free(&self) -> usize {
        if self.stop.drain.is_cancelled() || self.paused || *self.draining.borrow() {
            return 0;
        }
        self.queue.borrow().concurrency.saturating_sub(self.running.len() + self.trips.wanted())
    }

    /// Waits until something has ended or come back, something can be claimed, or the rules have changed.
    async fn wait(&mut self) {
        let due = self.due.map_or(Duration::MAX, |due| due.since(clock::now()));
        let free = self.free();
        let draining = self.stop.drain.is_cancelled();
        let rest = self.rest_until;
        tokio::select! {
            Some(joined) = self.running.join_next_with_id() => self.finish(joined),
            returned = self.trips.next() => self.receive(returned),
            Some(swept) = self.swept.recv() => self.take_over(swept),
            () = self.changed.notified(), if free > 0 || self.paused => {
                self.look = true;
                self.paused = false;
            }
            // Asks for them on the next way round.
            () = self.seat.turn() => {}
            () = self.heard.notified() => {
                let name = self.queue.borrow().name.clone();
                self.trips.hear_cancels(&name, &self.heard);
            }
            () = tokio::time::sleep(due.min(MAX_SLEEP)), if free > 0 && self.due.is_some() => {}
            () = tokio::time::sleep_until(rest.unwrap_or_else(Instant::now)), if rest.is_some() => {}
            Ok(()) = self.queue.changed() => self.look = true,
            Ok(()) = self.draining.changed() => self.look = true,
            () = self.stop.drain.cancelled(), if !draining => {}
        }
    }

    fn receive(&mut self, returned: Returned) {
        match returned {
            Returned::Exchange { want, exchange } => self.exchanged(want, *exchange),
            Returned::Armed(Ok(armed)) => {
                self.look |= armed.ready;
                self.due = armed.due;
            }
            Returned::Paused(Ok(still)) => {
                self.paused = still;
                self.look |= !still;
            }
            Returned::Cancels(Ok(requests)) => {
                let unheard = requests.into_iter().filter(|(id, request)| !self.cancel(id, request)).count();
                self.unheard = unheard > 0 && self.trips.wanted() > 0;
            }
            // Nobody will tell us: keep looking, at the pace of the pause.
            Returned::Armed(Err(error)) => self.rest(&error.into()),
            Returned::Paused(Err(error)) => {
                self.paused = false;
                self.rest(&error);
            }
            // Whoever asks again, and the new connection to Redis, wakes us.
            Returned::Cancels(Err(error)) => tracing::debug!("reading who is to be cancelled failed: {error}"),
            Returned::ToCancel(claim, why) => {
                let unknown = || Request { at: clock::now(), by: "somebody".to_owned(), reason: None };
                let request = why.ok().flatten().unwrap_or_else(unknown);
                self.settle(*claim, Outcome::Cancelled(request));
            }
        }
    }

    fn exchanged(&mut self, want: usize, exchange: Exchange) {
        let Exchange { settled, to_cancel, promoted, claims } = exchange;
        let mut failed = promoted.err();
        match settled {
            Ok(settled) => self.count_refused(&settled),
            Err((error, back)) => {
                self.settlements.extend(back);
                failed = Some(error);
            }
        }
        to_cancel.into_iter().for_each(|claim| self.trips.ask_why(claim));
        match claims {
            Ok((claims, line)) => self.claimed(want, claims, line),
            Err(error) => {
                self.unused += want;
                failed = Some(error);
            }
        }
        match failed {
            None => self.pause = RETRY_PAUSE.0,
            Some(error) => self.rest(&error),
        }
    }

    fn claimed(&mut self, want: usize, claims: Vec<Claim>, line: Line) {
        let came = claims.len();
        if want > 0 {
            self.unused += want.saturating_sub(came);
            self.came = came;
            self.told.1 = true;
        }
        for claim in claims {
            self.start(claim);
        }
        if came > 0 {
            self.show_sizes();
        }
        let name = self.queue.borrow().name.clone();
        if came > 0 && std::mem::take(&mut self.unheard) {
            self.trips.hear_cancels(&name, &self.heard);
        }
        match line {
            Line::Paused => {
                self.paused = true;
                self.trips.arm_paused(&name, &self.changed);
            }
            // The queue gave less than was asked for: asks to be told of the next change.
            Line::Open if came < want => {
                self.look = false;
                self.trips.arm(&name, &self.changed);
            }
            Line::Open | Line::More => {}
        }
    }

    /// A round trip failed: the next one leaves after a pause, which grows.
    fn rest(&mut self, error: &BrokerError) {
        tracing::debug!(queue = %self.queue.borrow().name, "a round trip to Redis failed, trying again: {error}");
        self.look = true;
        self.promote = true;
        self.rest_until = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(RETRY_PAUSE.1);
    }

    fn start(&mut self, claim: Claim) {
        let live = self.shared.live.load_full();
        let queue = Arc::clone(&self.queue.borrow());
        self.observed.claimed(&claim);
        self.shared.broker.beginnings.tell(&claim);
        let (cancel, cancelled) = oneshot::channel();
        let ends = attempt::Ends { abort: self.stop.abort.clone(), cancelled };
        let steps = Steps::new(claim.history.steps.clone());
        let (job, number) = (Arc::clone(&claim.job), claim.history.next_attempt());
        let task = self.running.spawn(attempt::run(live, queue, job, number, steps.clone(), ends));
        self.claims.insert(task.id(), Running { claim, steps, cancel: Some(cancel) });
    }

    fn finish(&mut self, joined: Result<(Id, Outcome), tokio::task::JoinError>) {
        let (id, outcome) = match joined {
            Ok(ended) => ended,
            Err(error) => (error.id(), attempt::panicked(error)),
        };
        let Running { mut claim, steps, cancel: _ } =
            self.claims.remove(&id).expect("every running attempt has its claim");
        claim.history.steps = steps.results();
        self.show_sizes();
        self.settle(claim, outcome);
    }

    /// Ends the attempt of this job, if it runs here; says whether it does.
    fn cancel(&mut self, id: &JobId, request: &Request) -> bool {
        let running = self.claims.values_mut().find(|running| running.claim.job.id == *id);
        let Some(running) = running else { return false };
        if let Some(cancel) = running.cancel.take() {
            // It may have ended by itself just now.
            let _ = cancel.send(request.clone());
        }
        true
    }

    fn take_over(&mut self, swept: Swept) {
        let Swept { claim, reason, crashed } = swept;
        tracing::warn!(queue = %claim.job.queue, job = %claim.job.id, "taken over: {reason}");
        self.observed.taken_over.inc();
        let outcome = if crashed { Outcome::Crashed { reason } } else { Outcome::Interrupted { reason } };
        self.settle(claim, outcome);
        self.look = true;
    }

    /// Decides what follows from the outcome; the next round trip carries it.
    fn settle(&mut self, claim: Claim, outcome: Outcome) {
        let now = clock::now();
        self.ended += 1;
        self.observed.ended(&claim, &outcome, now);
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

    /// Where the node has a bound, messages are drawn only as far ahead as it allows, and the same number is said again
    /// only after a claim: without one the intake would look for what it cannot take.
    ///
    /// A draining pool says nothing: a new pool of the same queue may be speaking already.
    fn tell_demand(&mut self, ahead: usize) {
        if self.stop.drain.is_cancelled() {
            return;
        }
        if self.paused || *self.draining.borrow() {
            self.demand.close();
            self.told.1 = true;
            return;
        }
        let free = self.free().min(ahead);
        if !self.seat.is_bounded() {
            self.demand.tell(free, self.ended);
        } else if self.told != (free, false) {
            // Nothing ends as far as the intake knows: `ahead` is what may wait.
            self.demand.tell(free, 0);
        }
        self.told = (free, false);
    }

    fn count_refused(&self, settled: &[Settled]) {
        let refused = settled.iter().filter(|&&settled| settled == Settled::Refused).count();
        if refused > 0 {
            let queue = &self.queue.borrow().name;
            tracing::warn!(%queue, refused, "late results were refused: their lease was lost and others have the jobs");
            self.observed.refused.inc_by(refused as u64);
        }
    }

    fn show_sizes(&mut self) {
        self.observed.sizes(self.running.len(), self.queue.borrow().concurrency);
    }
}

/// Long sleeps are cut: the wall clock may be set meanwhile.
const MAX_SLEEP: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
