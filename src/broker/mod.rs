//! How a job moves: the only writer of the native keys.
//!
//! Each transition is one Lua script in `scripts/`, atomic in Redis, with the time and all keys passed in. The faces
//! (intake, scheduler, pool, admin) meet here and nowhere else: `enqueue` and `admit` put jobs in, `exchange` trades
//! finished attempts for new ones, `sweep` takes over what the dead left behind.
//!
//! What if we die at any await point? Before a script ran: nothing has happened. After it ran: the job is in exactly
//! one set, and what is held by a node without a lease is taken over by the next sweep of any node. If only the answer
//! was lost while we live on, [`Broker::sweep`] compares what Redis says we hold with what we know of.

mod admit;
mod alter;
mod began;
mod cancel;
mod celery;
mod demand;
mod enqueue;
mod exchange;
mod fire;
mod flows;
mod held;
mod keep;
mod nodes;
mod notes;
mod outbox;
mod overrides;
mod pause;
mod place;
mod purge;
mod rq;
#[cfg(debug_assertions)]
mod sabotage;
mod script;
mod stance;
mod sweep;
#[cfg(test)]
mod tests;
mod unique;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) use admit::{Admission, Admitted, Taken, Verdict, Withdrawn};
pub(crate) use alter::{Altered, Change, Edit};
pub(crate) use began::{Beginnings, Begun};
pub(crate) use celery::CeleryAttempt;
pub(crate) use demand::{Demand, Told};
pub(crate) use enqueue::Enqueued;
pub(crate) use exchange::{Claim, Exchange, Line, Settled, Settlement};
pub(crate) use fire::Fired;
pub(crate) use flows::{FlowCancelled, FlowCreated, FlowRetried, ReadyFlow, ReadyJob};
pub(crate) use keep::Running;
pub(crate) use nodes::{NodeCard, NodeOrder, NodeQueue};
pub(crate) use notes::Speaker;
pub(crate) use outbox::{Answer, Answered, Entry, Guard, OwedJob, OwedReceiver, Tally, TallyKeys};
pub(crate) use overrides::{Override, Rates};
pub(crate) use pause::{Pause, Paused};
pub(crate) use purge::{Purge, Restored};
pub(crate) use rq::{RqAttempt, RqEnding, RqSay, RqShown, RqTidied, RqTidying, RqWorkerTally};
pub(crate) use script::scripts;
pub(crate) use stance::{Outage, Scaled, Stance};
pub(crate) use sweep::{Survey, Swept};
pub(crate) use unique::Holder;
pub(crate) use watch::{Armed, PUBLISHED, Published, Watch};

use tokio::sync::Notify;

use crate::config::{Limits, Queue};
use crate::job::{NodeId, QueueName, Timestamp};
use crate::store::{LinkError, QueueKeys, Store};
use held::Held;

/// The broker of one node.
#[derive(Debug)]
pub(crate) struct Broker {
    pub store: Arc<Store>,
    pub node: NodeId,
    pub watch: Watch,
    /// Answers owed to foreign producers, as they arise; who cannot keep up finds them in the outbox.
    pub owed: outbox::OwedSender,
    /// How the pools of this node serve their queues just now.
    pub stances: stance::Stances,
    /// Numbers of slots that somebody has set by hand.
    pub overrides: overrides::Overrides,
    /// Attempts of foreign jobs as they begin.
    pub beginnings: Beginnings,
    lease: Duration,
    held: Held,
    /// Free slots of each pool, for the intake.
    demands: Mutex<HashMap<QueueName, Demand>>,
    /// What a step of priority is worth in each queue of the configuration.
    ageing: Mutex<HashMap<QueueName, Duration>>,
    /// By which limits the lines of each queue were looked at last.
    limits: Mutex<HashMap<QueueName, Limits>>,
    /// The sets of ended jobs as they were measured last, by their keys.
    measured: Mutex<HashMap<String, sweep::Measured>>,
    /// Where the walk through the unique keys of each queue stands.
    walks: Mutex<HashMap<QueueName, String>>,
    /// Whether this node claims nothing more, because it was told to drain.
    pub draining: tokio::sync::watch::Sender<bool>,
    /// What all queues of this node together may run at a time, where it has a bound.
    pub slots: tokio::sync::watch::Sender<Option<usize>>,
    /// Told when a flow may have something to go on with: a word that this process wrote, or a new flow.
    pub flows_stir: Arc<Notify>,
    /// What the last heartbeat learned, for everyone who has something to clean up.
    pub surveys: tokio::sync::watch::Sender<Vec<Survey>>,
}

impl Broker {
    pub(crate) fn new(store: Arc<Store>, node: NodeId, lease: Duration) -> (Self, outbox::OwedReceiver) {
        let (owed, receiver) = outbox::channel();
        let watch = Watch::new(&store);
        let broker = Self {
            store,
            node,
            watch,
            owed,
            stances: stance::Stances::default(),
            overrides: overrides::Overrides::default(),
            beginnings: Beginnings::default(),
            lease,
            held: Held::default(),
            demands: Mutex::default(),
            ageing: Mutex::default(),
            limits: Mutex::default(),
            measured: Mutex::default(),
            walks: Mutex::default(),
            draining: tokio::sync::watch::Sender::default(),
            slots: tokio::sync::watch::Sender::default(),
            flows_stir: Arc::default(),
            surveys: tokio::sync::watch::Sender::default(),
        };
        (broker, receiver)
    }

    /// How many free slots the pool of this queue has, as the pool tells and the intake reads.
    pub(crate) fn demand(&self, queue: &QueueName) -> Demand {
        let mut demands = self.demands.lock().unwrap_or_else(PoisonError::into_inner);
        demands.entry(queue.clone()).or_default().clone()
    }

    /// The rules of a queue are in force: by them its jobs are placed in line.
    pub(crate) fn learn(&self, queue: &Queue) {
        self.ageings().insert(queue.name.clone(), queue.ageing);
    }

    /// What a step of priority is worth; as usual in a queue that this node's configuration does not have.
    fn ageing(&self, queue: &QueueName) -> Duration {
        self.ageings().get(queue).copied().unwrap_or(Queue::AGEING)
    }

    fn ageings(&self) -> MutexGuard<'_, HashMap<QueueName, Duration>> {
        // A panic while it was locked cannot have left it half-changed: every use is a single operation.
        self.ageing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the lines of the queue were looked at since its limits are what they are.
    fn knows_limits(&self, queue: &Queue) -> bool {
        let known = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&queue.name) == Some(&queue.limits)
    }

    fn learn_limits(&self, queue: &Queue) {
        let mut known = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(queue.name.clone(), queue.limits.clone());
    }

    /// How many claims of this queue the process holds.
    pub(crate) fn holds(&self, queue: &QueueName) -> usize {
        self.held.count(queue)
    }

    fn keys(&self, queue: &QueueName) -> QueueKeys {
        self.store.keys.queue(queue)
    }

    /// How long a claim outlives its node's last sign of life.
    pub(crate) fn lease(&self) -> Duration {
        self.lease
    }

    /// The end of a lease that is renewed now.
    fn lease_until(&self, now: Timestamp) -> Timestamp {
        now.after(self.lease)
    }
}

/// Why a transition did not happen, or is not known to have happened.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum BrokerError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("read what the script {script} answered: expected {expected}")]
    Answer { script: &'static str, expected: &'static str },
    #[error("write a job as JSON: {0}")]
    Encode(String),
}
