//! From a foreign list to jobs: takes as many messages as the pool has free slots, and what it ends within a moment
//! (see `pace`), reads them, admits them.
//!
//! A message is in the in-flight record from the moment it leaves its list until it is a job, so dying at any point
//! loses nothing: the record of a node without a lease is adopted by any other, and by its own successor.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::{FromRedisValue, Pipeline};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::desk::Desk;
use super::limits::Limits;
use super::pace::Pace;
use super::turns::Turns;
use super::{celery, rq};
use crate::broker::{Admission, Admitted, Broker, BrokerError, Demand, Survey, Taken, Told, Verdict};
use crate::clock;
use crate::config::{Config, Queue};
use crate::job::{QueueName, Wire};
use crate::metrics::{Metrics, QueueLabels};
use crate::store::{ForeignList, LinkError, accepted};

/// Messages that are adopted in one round trip.
const BATCH: usize = 250;
/// Jobs that may wait in a queue whose messages are taken ahead of their time.
const WAITING: usize = 100_000;
/// Pause after a failure; doubles up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How soon to look again when enough jobs wait already and not so many have ended as had to: not before the first, and
/// then when the pool has come round, or after the second.
const ENOUGH: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How often to look whether RQ's workers may take jobs again.
const SUSPENDED: Duration = Duration::from_secs(1);

/// The pump of one queue.
#[derive(Debug)]
pub(super) struct Pump {
    broker: Arc<Broker>,
    config: Arc<ArcSwap<Config>>,
    metrics: Arc<Metrics>,
    queue: QueueName,
    lists: Turns,
    keys: Vec<String>,
    demand: Demand,
    pace: Pace,
    /// RQ's side of this node.
    front: Arc<rq::Front>,
    changed: Arc<Notify>,
    limits: Limits,
    /// Messages may be in flight that nobody works on: ours whose answer was lost, or those of a dead node.
    adopt: bool,
    pause: Duration,
}

impl Pump {
    pub(super) fn new(
        broker: Arc<Broker>,
        config: Arc<ArcSwap<Config>>,
        metrics: Arc<Metrics>,
        front: Arc<rq::Front>,
        queue: &Queue,
    ) -> Self {
        let lists: Vec<ForeignList> = queue.lists.iter().map(|(wire, name)| ForeignList::new(*wire, name)).collect();
        let keys = lists.iter().flat_map(|list| list.keys.clone()).collect();
        let demand = broker.demand(&queue.name);
        Self {
            broker,
            config,
            metrics,
            queue: queue.name.clone(),
            lists: Turns::new(lists),
            keys,
            demand,
            pace: Pace::new(Instant::now()),
            front,
            changed: Arc::default(),
            limits: Limits::default(),
            adopt: true,
            pause: PAUSE.0,
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut surveys = self.broker.surveys.subscribe();
        let mut known = None;
        while !stop.is_cancelled() {
            let told = tokio::select! {
                () = stop.cancelled() => break,
                told = self.demand.after(known) => told,
            };
            if surveys.has_changed().unwrap_or(false) {
                self.adopt |= abandoned(&surveys.borrow_and_update(), &self.queue);
            }
            let room = self.room(told);
            if room == 0 {
                known = Some(told);
                continue;
            }
            match self.pass(room, &stop).await {
                Ok(moved) => {
                    self.pause = PAUSE.0;
                    // What became jobs changes the pool's number; it comes round and says the next one. Where jobs may be
                    // held that number says little: messages behind those that must wait may be free to start.
                    known = (moved == Moved::Jobs && !self.looks_ahead()).then_some(told);
                    match moved {
                        Moved::Jobs | Moved::Others => {}
                        Moved::Suspended => self.wait_for_resume(&stop).await,
                        Moved::Enough { surplus } => self.wait_for_room(told, surplus, &stop).await,
                        Moved::Nothing => tokio::select! {
                            () = stop.cancelled() => break,
                            () = self.changed.notified() => {}
                            () = next_abandoned(&mut surveys, &self.queue) => self.adopt = true,
                        },
                    }
                }
                Err(error) => {
                    tracing::debug!(queue = %self.queue, "taking foreign messages failed, trying again: {error}");
                    self.adopt = true;
                    known = None;
                    self.rest(&stop).await;
                }
            }
        }
        self.broker.watch.forget(&self.changed);
    }

    /// Whether messages are taken although the pool could not start them yet: one that a limit lets start, or whose
    /// tenant has his turn, may stand behind many that have to wait.
    fn looks_ahead(&self) -> bool {
        self.config.load().queues.get(&self.queue).is_some_and(|queue| queue.limits.may_hold())
    }

    /// How many jobs may be pending: what the pool could start now, and what it ends within a moment.
    fn room(&mut self, told: Told) -> usize {
        if self.looks_ahead() {
            return WAITING;
        }
        told.free + self.pace.ahead(told.ended, told.slots, Instant::now())
    }

    /// One round: what is in flight and abandoned comes first, then new messages.
    async fn pass(&mut self, room: usize, stop: &CancellationToken) -> Result<Moved, BrokerError> {
        if self.adopt {
            let adopted = self.broker.adopt(&self.queue, clock::now(), BATCH).await?;
            self.adopt = adopted.len() >= BATCH;
            if !adopted.is_empty() {
                tracing::info!(queue = %self.queue, messages = adopted.len(), "adopted messages that were in flight");
                return self.admit(adopted, stop).await;
            }
        }
        let most = self.looks_ahead().then_some(WAITING);
        let (lists, room) = self.served(room);
        let are_all = lists.len() == self.lists.lists().len();
        let haul = self.broker.take(&self.queue, &lists, room, most, clock::now()).await?;
        for message in &haul.messages {
            self.lists.gave(&message.list);
        }
        if !haul.messages.is_empty() {
            return self.admit(haul.messages, stop).await;
        }
        match haul.pending {
            // The pool says when it goes on.
            None => return Ok(Moved::Enough { surplus: usize::MAX }),
            Some(pending) if pending >= room => return Ok(Moved::Enough { surplus: pending - room + 1 }),
            Some(_) if haul.suspended || !are_all => return Ok(Moved::Suspended),
            Some(_) => {}
        }
        let pauses = self.broker.store.keys.queue(&self.queue).pauses;
        let armed = self.broker.watch.arm(&self.changed, &self.keys, &[], &pauses).await?;
        // One that came between the two looks is taken at once.
        Ok(if armed.ready { Moved::Others } else { Moved::Nothing })
    }

    /// The lists to take from, and for how many jobs there is room: clients of RQ may have told workers to stop.
    fn served(&self, room: usize) -> (Cow<'_, [ForeignList]>, usize) {
        match self.front.places(&self.queue) {
            None => (Cow::Borrowed(self.lists.lists()), room),
            Some(0) => {
                let others = self.lists.lists().iter().filter(|list| list.wire != Wire::Rq);
                (Cow::Owned(others.cloned().collect()), room)
            }
            Some(places) => (Cow::Borrowed(self.lists.lists()), room.min(places)),
        }
    }

    /// RQ's workers are suspended or have been told to stop: looks again as often as RQ's own worker does.
    async fn wait_for_resume(&self, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(SUSPENDED) => {}
        }
    }

    /// Reads the messages and admits them, and does not give up on that: they are in our hands now.
    async fn admit(&mut self, taken: Vec<Taken>, stop: &CancellationToken) -> Result<Moved, BrokerError> {
        let hashes = self.job_hashes(&taken).await?;
        let config = self.config.load_full();
        let node = self.broker.node.clone();
        let now = clock::now();
        let desk = Desk { config: &config, queue: &self.queue, node: &node, limits: &self.limits, now };
        let admissions: Vec<Admission> = taken
            .into_iter()
            .zip(hashes)
            .map(|(taken, hash)| {
                let verdict = verdict(&desk, &taken, hash.as_ref());
                let hash = match &verdict {
                    Verdict::Job(job) if hash.is_some() => Some(rq::keys::job(job.id.as_str())),
                    _ => None,
                };
                Admission { taken, verdict, hash }
            })
            .collect();
        loop {
            match self.broker.admit(&self.queue, &admissions, rq::WITHDRAWN, now).await {
                Ok(admitted) => {
                    self.count(&admissions, &admitted);
                    let is_job = |(admission, admitted): (&Admission, &Admitted)| {
                        matches!((&admission.verdict, admitted), (Verdict::Job(_), Admitted::Yes))
                    };
                    let any = admissions.iter().zip(&admitted).any(is_job);
                    return Ok(if any { Moved::Jobs } else { Moved::Others });
                }
                // Whoever stops now leaves them in flight, where the next start finds them.
                Err(error) if stop.is_cancelled() => return Err(error),
                Err(error) => {
                    tracing::debug!(queue = %self.queue, "admitting messages failed, trying again: {error}");
                    self.rest(stop).await;
                }
            }
        }
    }

    /// An element of an RQ list is only an id: reads the hashes that hold the jobs. `None` for other wires.
    async fn job_hashes(&self, taken: &[Taken]) -> Result<Vec<Option<HashMap<String, Vec<u8>>>>, BrokerError> {
        let mut pipeline = Pipeline::new();
        let mut reads = 0;
        let is_rq = |taken: &Taken| wire(self.lists.lists(), &taken.list) == Wire::Rq;
        for taken in taken.iter().filter(|taken| is_rq(taken)) {
            pipeline.hgetall(rq::keys::job(&String::from_utf8_lossy(&taken.element)));
            reads += 1;
        }
        let replies = if reads > 0 { self.broker.store.link.send(&pipeline).await? } else { Vec::new() };
        let mut replies = replies.into_iter();
        taken
            .iter()
            .map(|taken| {
                if !is_rq(taken) {
                    return Ok(None);
                }
                let reply = replies.next().ok_or(LinkError::Unexpected { what: "a job hash" })?;
                // A key of another type is nobody's job: as if there were no hash.
                let fields = accepted(reply).ok().and_then(|reply| HashMap::from_redis_value(reply).ok());
                Ok(Some(fields.unwrap_or_default()))
            })
            .collect()
    }

    fn count(&self, admissions: &[Admission], admitted: &[Admitted]) {
        for (admission, admitted) in admissions.iter().zip(admitted) {
            match (&admission.verdict, admitted) {
                (Verdict::Refused(..), Admitted::Yes) => {
                    let labels = QueueLabels { queue: self.queue.to_string() };
                    self.metrics.unreadable.get_or_create(&labels).inc();
                }
                (Verdict::Job(job) | Verdict::Refused(job, _), Admitted::LivesAlready) => {
                    tracing::info!(queue = %self.queue, job = %job.id, "a repetition of a job that lives: left out");
                }
                (Verdict::Job(job), Admitted::Duplicate(holder)) => {
                    tracing::info!(queue = %self.queue, job = %job.id, "left out: its unique key is held by {holder}");
                }
                _ => {}
            }
        }
    }

    /// Waits until the pool has worked off what is too many, or has come round in another way: it may itself have to
    /// wait for a slot of the node, and what waits may be gone without it.
    async fn wait_for_room(&self, told: Told, surplus: usize, stop: &CancellationToken) {
        let come_round = async {
            tokio::time::sleep(ENOUGH.0).await;
            let _ = tokio::time::timeout(ENOUGH.1, self.demand.after(Some(told))).await;
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.demand.ended_after(told, surplus as u64) => {}
            () = come_round => {}
        }
    }

    async fn rest(&mut self, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(self.pause) => {}
        }
        self.pause = (self.pause * 2).min(PAUSE.1);
    }
}

/// Waits for a heartbeat that saw messages of this queue in flight.
async fn next_abandoned(surveys: &mut watch::Receiver<Vec<Survey>>, queue: &QueueName) {
    while surveys.changed().await.is_ok() {
        if abandoned(&surveys.borrow_and_update(), queue) {
            return;
        }
    }
}

fn abandoned(surveys: &[Survey], queue: &QueueName) -> bool {
    surveys.iter().any(|survey| survey.queue == *queue && survey.inflight > 0)
}

/// What a round has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    /// At least one message became a job.
    Jobs,
    /// Messages that became none (refused, withdrawn, repeated), or there are new ones now.
    Others,
    Nothing,
    /// There may be messages of RQ, and its workers take none now.
    Suspended,
    /// There may be messages, but so many jobs must end before one may be taken.
    Enough {
        surplus: usize,
    },
}

/// The wire of a list. An adopted message may come from one that this configuration reads no more: its name tells then.
fn wire(lists: &[ForeignList], key: &str) -> Wire {
    let by_name = if key.starts_with(rq::keys::QUEUE) { Wire::Rq } else { Wire::Celery };
    lists.iter().find(|list| list.keys.iter().any(|own| own == key)).map_or(by_name, |list| list.wire)
}

/// `hash` is there exactly for RQ jobs.
fn verdict(desk: &Desk<'_>, taken: &Taken, hash: Option<&HashMap<String, Vec<u8>>>) -> Verdict {
    match hash {
        Some(hash) => rq::admission::verdict(desk, taken, hash),
        None => celery::admission::verdict(desk, taken),
    }
}
