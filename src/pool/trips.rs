//! A pool's round trips to Redis: each is a task of its own, so that the pool goes on while they travel.
//!
//! Two exchanges may travel at a time: while Redis works on one, this process works on the other. More would only make
//! their batches smaller.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::broker::{Armed, Broker, BrokerError, Claim, Exchange, Settlement};
use crate::clock;
use crate::config::Queue;
use crate::job::{JobId, QueueName, Request};
use crate::store::{ForeignList, LinkError};

/// Exchanges on their way at the same time.
const EXCHANGES: usize = 2;

/// What came back.
#[derive(Debug)]
pub(super) enum Returned {
    Exchange {
        want: Want,
        /// When the time was taken by which it claims.
        sent: Instant,
        exchange: Box<Exchange>,
    },
    /// Whether there is something to claim now, and when the next job becomes due.
    Armed(Result<Armed, LinkError>),
    /// How many jobs and foreign messages wait.
    Backlog(Result<u64, LinkError>),
    /// Whether the queue is still paused.
    Paused(Result<bool, BrokerError>),
    /// Who asks for which jobs to be cancelled.
    Cancels(Result<Vec<(JobId, Request)>, BrokerError>),
    /// Why this job, whose attempt is over, is to end as cancelled.
    ToCancel(Box<Claim>, Result<Option<Request>, BrokerError>),
}

/// What an exchange asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Want {
    /// Slots that stay free for what comes.
    pub(super) slots: usize,
    /// Jobs; more than slots, where batches are made of them.
    pub(super) jobs: usize,
}

#[derive(Debug)]
pub(super) struct Trips {
    broker: Arc<Broker>,
    travelling: JoinSet<Returned>,
    exchanges: usize,
    /// Slots for what exchanges on their way have asked for.
    wanted: usize,
    /// Claims that must be settled as cancelled once it is known why.
    held: usize,
}

impl Trips {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Self { broker, travelling: JoinSet::new(), exchanges: 0, wanted: 0, held: 0 }
    }

    /// Whether another exchange may leave.
    pub(super) fn has_room(&self) -> bool {
        self.exchanges < EXCHANGES
    }

    /// Slots that must stay free for claims that are on their way.
    pub(super) fn wanted(&self) -> usize {
        self.wanted
    }

    /// Whether none of them carries a claim, in either direction.
    pub(super) fn are_empty(&self) -> bool {
        self.exchanges == 0 && self.held == 0
    }

    pub(super) fn exchange(&mut self, queue: Arc<Queue>, settlements: Vec<Settlement>, promote: bool, want: Want) {
        self.exchanges += 1;
        self.wanted += want.slots;
        let broker = Arc::clone(&self.broker);
        self.travelling.spawn(async move {
            if want.jobs > 0 {
                broker.prepare(&queue).await;
            }
            let (sent, now) = (Instant::now(), clock::now());
            let exchange = broker.exchange(&queue, settlements, promote, want.jobs, now).await;
            Returned::Exchange { want, sent, exchange: Box::new(exchange) }
        });
    }

    /// Asks to be told, by `changed`, when there is something to claim.
    pub(super) fn arm(&mut self, queue: &QueueName, changed: &Arc<Notify>) {
        let (broker, changed, keys) =
            (Arc::clone(&self.broker), Arc::clone(changed), self.broker.store.keys.queue(queue));
        self.travelling.spawn(async move {
            let (filled, timed) = ([keys.pending, keys.turns], [keys.scheduled, keys.retry, keys.lines]);
            Returned::Armed(broker.watch.arm(&changed, &filled, &timed, &keys.pauses).await)
        });
    }

    /// The same while the whole queue has no room: what waits in it is no reason to look.
    pub(super) fn arm_limited(&mut self, queue: &QueueName, changed: &Arc<Notify>) {
        let (broker, changed, keys) =
            (Arc::clone(&self.broker), Arc::clone(changed), self.broker.store.keys.queue(queue));
        self.travelling
            .spawn(async move { Returned::Armed(broker.watch.arm(&changed, &[], &[keys.lines], &keys.pauses).await) });
    }

    /// Counts what waits in the queue.
    pub(super) fn count_backlog(&mut self, queue: Arc<Queue>) {
        let broker = Arc::clone(&self.broker);
        self.travelling.spawn(async move {
            let lists: Vec<_> = queue.lists.iter().map(|(wire, name)| ForeignList::new(*wire, name)).collect();
            Returned::Backlog(broker.store.backlog(&queue.name, &lists).await)
        });
    }

    /// Asks to be told, by `changed`, when the queue is not paused any more.
    pub(super) fn arm_paused(&mut self, queue: &QueueName, changed: &Arc<Notify>) {
        let (broker, changed, queue) = (Arc::clone(&self.broker), Arc::clone(changed), queue.clone());
        self.travelling.spawn(async move { Returned::Paused(broker.is_paused(&queue, &changed).await) });
    }

    /// Reads the requests to cancel, and asks to be told, by `heard`, of the next one.
    pub(super) fn hear_cancels(&mut self, queue: &QueueName, heard: &Arc<Notify>) {
        let (broker, heard, queue) = (Arc::clone(&self.broker), Arc::clone(heard), queue.clone());
        self.travelling.spawn(async move { Returned::Cancels(broker.cancels(&queue, &heard).await) });
    }

    /// Finds out why a job is to be cancelled.
    pub(super) fn ask_why(&mut self, claim: Claim) {
        self.held += 1;
        let broker = Arc::clone(&self.broker);
        self.travelling.spawn(async move {
            let why = broker.cancel_of(&claim.job.queue, &claim.job.id).await;
            Returned::ToCancel(Box::new(claim), why)
        });
    }

    /// The next one that comes back; waits for ever when none is on its way.
    ///
    /// # Panics
    /// If a trip panicked, by a bug: the pool goes with it, and what it held is given back by the next sweep.
    pub(super) async fn next(&mut self) -> Returned {
        let Some(returned) = self.travelling.join_next().await else { return std::future::pending().await };
        let returned = returned.expect("a round trip does not panic and is not aborted");
        match &returned {
            Returned::Exchange { want, .. } => {
                self.exchanges -= 1;
                self.wanted -= want.slots;
            }
            Returned::ToCancel(..) => self.held -= 1,
            _ => {}
        }
        returned
    }
}
