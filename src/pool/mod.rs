//! One pool for each queue: claims as many jobs as it has free slots, runs them, settles them.
//!
//! The loop owns every claim of the queue from the moment it is made until its settle is answered.

mod arbiter;
mod attempt;
mod breaker;
mod course;
mod gate;
mod gather;
mod keeper;
mod lateness;
mod observe;
mod pressure;
mod scale;
mod scribe;
mod shared;
mod size;
mod slots;
mod supervisor;
mod trips;
mod work;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

pub(crate) use keeper::Keeper;
pub(crate) use shared::{Live, Shared};
pub(crate) use supervisor::Supervisor;

use crate::broker::{BrokerError, Demand, Exchange, Override, Settled, Settlement, Swept};
use crate::clock;
use crate::config::Queue;
use crate::job::{Outcome, QueueName, Request, Timestamp};
use arbiter::Need;
use breaker::Allowed;
use gate::Gate;
use gather::Gather;
use lateness::Lateness;
use observe::Observed;
use pressure::Pressure;
use shared::Stop;
use size::Size;
use slots::Seat;
use trips::{Returned, Trips, Want};
use work::Work;

/// Claims in one round trip: bounds the size of a reply.
const CLAIM_BATCH: usize = 500;
/// Settles in one round trip.
const SETTLE_BATCH: usize = 500;
/// Pause after a round trip that failed; it doubles up to the second one.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How often a busy pool promotes what has become due.
const PROMOTE_EVERY: Duration = Duration::from_secs(1);

/// A running queue.
struct Pool {
    shared: Arc<Shared>,
    queue: watch::Receiver<Arc<Queue>>,
    /// What somebody has set by hand instead.
    overrides: watch::Receiver<HashMap<QueueName, Override>>,
    /// Claims that the keeper came by; they are settled here like any other.
    swept: mpsc::Receiver<Swept>,
    stop: Stop,
    work: Work,
    gather: Gather,
    /// Jobs that a claim may bring beyond the free slots: grows while all of them go into batches.
    appetite: usize,
    settlements: Vec<Settlement>,
    trips: Trips,
    gate: Gate,
    size: Size,
    /// Our part of what all pools share. After `work`: what runs ends before its slots are given back.
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
    /// A limit of the whole queue had no room at the last claim: what ends here may make some.
    limited: bool,
    /// When the next job becomes due, as of the last time the queue was found empty.
    due: Option<Timestamp>,
    /// Something has become due since the last claim.
    promote: bool,
    /// A busy pool never finds its queue empty: it promotes what is due at this pace.
    promoted: Instant,
    lateness: Lateness,
    /// After a failure no round trip leaves before this.
    rest_until: Option<Instant>,
    pause: Duration,
}

impl Pool {
    fn new(
        shared: Arc<Shared>,
        seat: Seat,
        pressure: Arc<Pressure>,
        queue: watch::Receiver<Arc<Queue>>,
        swept: mpsc::Receiver<Swept>,
        stop: Stop,
    ) -> Self {
        let (name, concurrency) = (queue.borrow().name.clone(), queue.borrow().concurrency);
        Self {
            size: Size::new(&name, concurrency, Arc::clone(&shared.broker), pressure, &shared.metrics),
            demand: shared.broker.demand(&name),
            draining: shared.broker.draining.subscribe(),
            overrides: shared.broker.overrides.changes(),
            trips: Trips::new(Arc::clone(&shared.broker)),
            lateness: Lateness::default(),
            gate: Gate::new(&name, Arc::clone(&shared.broker), &shared.metrics),
            observed: Observed::new(Arc::clone(&shared.metrics), &name),
            shared,
            queue,
            swept,
            stop,
            work: Work::default(),
            gather: Gather::default(),
            appetite: 0,
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
            limited: false,
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
            && self.work.is_empty()
            && self.gather.slots() == 0
            && self.settlements.is_empty()
            && self.trips.are_empty()
            && self.swept.is_empty()
    }

    /// Collects what has ended meanwhile, without waiting.
    fn gather(&mut self) {
        while self.settlements.len() < SETTLE_BATCH
            && let Some(over) = self.work.try_next()
        {
            self.finish(over);
        }
        while self.settlements.len() < SETTLE_BATCH
            && let Ok(swept) = self.swept.try_recv()
        {
            self.take_over(swept);
        }
    }

    /// Sends a round trip off, if there is anything to settle or to claim and one may leave.
    fn depart(&mut self) {
        self.configure();
        self.notice_due();
        self.rest_until = self.rest_until.filter(|until| Instant::now() < *until);
        self.look |= self.limited && !self.settlements.is_empty();
        let resting = self.rest_until.is_some();
        self.start_batches();
        let want = self.claimable(resting);
        if resting || !self.trips.has_room() || self.settlements.is_empty() && want.jobs == 0 {
            return;
        }
        let promote = want.jobs > 0 && (self.promote || self.promoted.elapsed() >= PROMOTE_EVERY);
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

    /// The number of slots, or its bounds, may be another one.
    fn configure(&mut self) {
        let queue = self.queue.borrow();
        let changed = match self.overrides.borrow().get(&queue.name) {
            Some(Override { concurrency, request }) => self.size.configure(*concurrency, Some(request)),
            None => self.size.configure(queue.concurrency, None),
        };
        drop(queue);
        if changed {
            self.look = true;
            self.show_sizes();
        }
    }

    /// What has become due can be claimed as soon as it is promoted.
    fn notice_due(&mut self) {
        if self.due.is_some_and(|due| due <= clock::now()) {
            self.due = None;
            self.promote = true;
            self.look = true;
        }
    }

    /// What to claim now: as many jobs as there are slots for, of the queue and of the node, and what fills batches.
    fn claimable(&mut self, resting: bool) -> Want {
        let more = if self.look && !resting { self.free().min(CLAIM_BATCH) } else { 0 };
        let grant = self.seat.ask(&Need {
            weight: self.queue.borrow().weight,
            busy: self.busy() + self.trips.wanted(),
            more,
            unused: std::mem::take(&mut self.unused),
            came: self.came,
            collect: self.trips.has_room(),
        });
        self.size.saw(self.busy(), self.seat.is_bounded() && grant.start < more && self.trips.has_room());
        self.tell_demand(grant.ahead);
        let joins = if self.look && !resting && self.trips.has_room() { self.joins(grant.start) } else { 0 };
        Want { slots: grant.start, jobs: grant.start.max(joins) }
    }

    /// Slots in use, also by jobs that wait for others of their batch.
    fn busy(&self) -> usize {
        self.work.slots() + self.gather.slots()
    }

    /// Jobs that could go into batches, by what the last claims brought, where so many slots are free.
    fn joins(&self, free: usize) -> usize {
        let room = if free > 0 { CLAIM_BATCH } else { self.gather.room() };
        if self.may_claim() && self.gate.allowed() == Allowed::All { self.appetite.min(room) } else { 0 }
    }

    fn may_claim(&self) -> bool {
        !(self.stop.drain.is_cancelled() || self.paused || *self.draining.borrow())
    }

    /// Slots that nothing runs in and no claim is on its way to.
    fn free(&self) -> usize {
        if !self.may_claim() {
            return 0;
        }
        let free = self.size.slots().saturating_sub(self.busy() + self.trips.wanted());
        match self.gate.allowed() {
            Allowed::All => free,
            Allowed::Probe if self.trips.wanted() == 0 && !self.work.probes() => free.min(1),
            Allowed::Probe | Allowed::Nothing => 0,
        }
    }

    /// Waits until something has ended or come back, something can be claimed, or the rules have changed.
    async fn wait(&mut self) {
        let due = self.due.map_or(Duration::MAX, |due| due.since(clock::now()));
        let free = self.free().max(self.joins(0));
        let draining = self.stop.drain.is_cancelled();
        let (rest, shut) = (self.rest_until, self.gate.until().map(Instant::from_std));
        let (tick, batch) = (self.size.due(self.busy()), self.gather.due());
        let tick = tick.filter(|_| !draining);
        tokio::select! {
            over = self.work.next() => self.finish(over),
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
            () = tokio::time::sleep_until(shut.unwrap_or_else(Instant::now)), if shut.is_some() && !draining => {
                self.look |= self.gate.tick();
            }
            () = tokio::time::sleep_until(tick.unwrap_or_else(Instant::now)), if tick.is_some() => self.measure(),
            () = tokio::time::sleep_until(batch.unwrap_or_else(Instant::now)), if batch.is_some() => {}
            Ok(()) = self.queue.changed() => self.look = true,
            Ok(()) = self.draining.changed() => self.look = true,
            // Taken up on the next way round.
            Ok(()) = self.overrides.changed() => {}
            () = self.stop.drain.cancelled(), if !draining => {}
        }
    }

    fn receive(&mut self, returned: Returned) {
        match returned {
            Returned::Exchange { want, sent, exchange } => self.exchanged(want, sent, *exchange),
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
            Returned::Backlog(backlog) => self.resize(backlog.unwrap_or_default()),
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

    /// Looks whether the queue should have another number of slots.
    fn measure(&mut self) {
        if self.size.asks_for_backlog(self.busy()) {
            self.trips.count_backlog(Arc::clone(&self.queue.borrow()));
        } else {
            self.resize(0);
        }
    }

    fn resize(&mut self, backlog: u64) {
        if self.size.tick(backlog) {
            self.look = true;
            self.show_sizes();
        }
    }

    fn exchanged(&mut self, want: Want, sent: Instant, exchange: Exchange) {
        let late = self.lateness.of(sent.elapsed());
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
            Ok((claims, line)) => self.claimed(want, late, claims, line),
            Err(error) => {
                self.unused += want.slots;
                failed = Some(error);
            }
        }
        match failed {
            None => self.pause = RETRY_PAUSE.0,
            Some(error) => self.rest(&error),
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

    /// A claim that was filled by jobs that go into batches lets the next one ask for twice as many.
    fn grow_appetite(&mut self, wanted: usize, gathered: usize, back: usize) {
        if back > 0 {
            self.appetite = 0;
        } else if gathered >= wanted {
            self.appetite = (wanted * 2).min(CLAIM_BATCH);
        }
    }

    /// Where the node has a bound, messages are drawn only as far ahead as it allows, and the same number is said again
    /// only after a claim: without one the intake would look for what it cannot take.
    ///
    /// A draining pool says nothing: a new pool of the same queue may be speaking already.
    fn tell_demand(&mut self, ahead: usize) {
        if self.stop.drain.is_cancelled() {
            return;
        }
        if self.paused || *self.draining.borrow() || self.gate.allowed() == Allowed::Nothing {
            self.demand.close();
            self.told.1 = true;
            return;
        }
        let free = self.free();
        let free = free.max(self.joins(free)).min(ahead);
        if !self.seat.is_bounded() {
            self.demand.tell(free, self.ended, self.size.slots());
        } else if self.told != (free, false) {
            // Nothing ends as far as the intake knows: `ahead` is what may wait.
            self.demand.tell(free, 0, self.size.slots());
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
        self.size.saw(self.busy(), false);
        self.observed.sizes(self.busy(), self.size.slots());
    }
}

/// Long sleeps are cut: the wall clock may be set meanwhile.
const MAX_SLEEP: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
