//! Numbers of slots, and rates of tasks, that somebody has set by hand, in place of what the configuration says.
//!
//! Any face may set one by [`Broker::scale`]: the admin port for `PATCH queues/{q}`, a wire for its own remote control.
//! So may rates be set by [`Broker::limit_rate`]: the daemon puts them into the configuration that is in force.
//! The queue's pool hears of it at once and keeps to it as it keeps to the configuration; jobs that run are not touched.
//! It is of this process alone and ends with it, and with the next reload: the file says what is to stay.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Broker;
use crate::config::{Concurrency, Queue, Rate};
use crate::job::{QueueName, Request, TaskName};

/// A number of slots, or bounds of it, that somebody has set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Override {
    pub concurrency: Concurrency,
    pub request: Request,
}

/// What was set by hand on this node; each queue at most once.
#[derive(Debug, Default)]
pub(crate) struct Overrides(watch::Sender<HashMap<QueueName, Override>>, watch::Sender<Rates>);

/// By task; a task without any starts as often as it can.
pub(crate) type Rates = BTreeMap<TaskName, Vec<Rate>>;

impl Overrides {
    pub(crate) fn of(&self, queue: &QueueName) -> Option<Override> {
        self.0.borrow().get(queue).cloned()
    }

    /// Told of each change.
    pub(crate) fn changes(&self) -> watch::Receiver<HashMap<QueueName, Override>> {
        self.0.subscribe()
    }

    /// The rates, and each change of them.
    pub(crate) fn rates(&self) -> watch::Receiver<Rates> {
        self.1.subscribe()
    }
}

impl Broker {
    /// How much of the queue may run at once on this node: what was set by hand, else what the configuration says.
    pub(crate) fn concurrency(&self, queue: &Queue) -> Concurrency {
        self.overrides.0.borrow().get(&queue.name).map_or(queue.concurrency, |set| set.concurrency)
    }

    /// Sets the number of the queue's slots on this node, until the next reload or the end of the process.
    pub(crate) fn scale(&self, queue: &Queue, concurrency: Concurrency, request: Request) {
        let (before, words) = (self.concurrency(queue), request.words());
        let set = Override { concurrency, request };
        self.overrides.0.send_modify(|all| drop(all.insert(queue.name.clone(), set)));
        tracing::info!(queue = %queue.name, "concurrency set from {before} to {concurrency} {words}");
    }

    /// The configuration's number is in force again; says whether another one was.
    pub(crate) fn unscale(&self, queue: &Queue, request: &Request) -> bool {
        let mut set = None;
        self.overrides.0.send_if_modified(|all| {
            set = all.remove(&queue.name);
            set.is_some()
        });
        if let Some(Override { concurrency, .. }) = &set {
            let (now, words) = (queue.concurrency, request.words());
            tracing::info!(queue = %queue.name, "concurrency set back from {concurrency} to {now} {words}");
        }
        set.is_some()
    }

    /// Limits how often jobs of a task start on this node, until the next reload or the end of the process.
    pub(crate) fn limit_rate(&self, task: &TaskName, rates: Vec<Rate>) {
        self.overrides.1.send_modify(|all| drop(all.insert(task.clone(), rates)));
    }

    /// The configuration was read again: nothing is set by hand any more. Returns what was, by queue.
    pub(crate) fn end_overrides(&self) -> Vec<(QueueName, Override)> {
        self.overrides.1.send_if_modified(|rates| {
            rates.clear();
            false
        });
        let mut ended = Vec::new();
        self.overrides.0.send_if_modified(|all| {
            ended = std::mem::take(all).into_iter().collect();
            !ended.is_empty()
        });
        ended.sort_by(|a, b| a.0.cmp(&b.0));
        ended
    }
}
