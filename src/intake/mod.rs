//! The foreign edge: Celery and RQ messages become jobs, and what became of the jobs becomes the answers that their
//! producers wait for.
//!
//! `celery` and `rq` turn bytes into values and back; `rq` also shows this node as workers of RQ. `pump` takes messages as
//! the pools have room and admits them; `reply` writes the answers that the broker's outbox owes.

pub(crate) mod celery;
mod desk;
mod pace;
mod pump;
mod refused;
mod reply;
pub(crate) mod rq;
mod turns;

mod bigint;
mod inflate;
pub(crate) mod iso;
pub(crate) mod limits;
mod pickle;
mod pyjson;
pub(crate) mod pyrepr;
pub(crate) mod tagged;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod python;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::broker::{Broker, OwedReceiver};
use crate::config::{Config, Queue};
use crate::job::QueueName;
use crate::metrics::Metrics;
use pump::Pump;

/// Pause before a pump that panicked starts again: a bug must not become a busy loop.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// The intake of one node: a pump for each queue that reads foreign lists, and one writer of answers.
#[derive(Debug)]
pub(crate) struct Intake {
    broker: Arc<Broker>,
    config: Arc<ArcSwap<Config>>,
    metrics: Arc<Metrics>,
    /// RQ's side of this node.
    front: Arc<rq::Front>,
    pumps: HashMap<QueueName, Running>,
    reply: Running,
    clerk: Running,
}

#[derive(Debug)]
struct Running {
    /// The lists it reads, to see whether a reload changed them.
    queue: Option<Arc<Queue>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Intake {
    /// Starts the writer of answers and RQ's clerk; pumps start with [`Intake::start_missing`].
    pub(crate) fn start(
        broker: Arc<Broker>,
        config: Arc<ArcSwap<Config>>,
        metrics: Arc<Metrics>,
        owed: OwedReceiver,
    ) -> Self {
        let front = Arc::new(rq::Front::new(Arc::clone(&broker), Arc::clone(&config)));
        let desk = reply::Desk { broker: Arc::clone(&broker), config: Arc::clone(&config), front: Arc::clone(&front) };
        let stop = CancellationToken::new();
        let task = tokio::spawn(reply::run(Arc::new(desk), owed, stop.clone()));
        let reply = Running { queue: None, stop, task };
        let stop = CancellationToken::new();
        let task = tokio::spawn(rq::run(Arc::clone(&front), stop.clone()));
        let clerk = Running { queue: None, stop, task };
        Self { broker, config, metrics, front, pumps: HashMap::new(), reply, clerk }
    }

    /// Ends the pumps whose queue is gone or reads other lists now. Comes before the pools change, so that no message is
    /// taken into a queue that nobody serves any more.
    pub(crate) async fn end_stale(&mut self, queues: &BTreeMap<QueueName, Arc<Queue>>) {
        let same = |name: &QueueName, running: &Running| {
            running.queue.as_ref().map(|queue| &queue.lists) == queues.get(name).map(|queue| &queue.lists)
        };
        let stale: Vec<QueueName> =
            self.pumps.iter().filter(|(name, running)| !same(name, running)).map(|(name, _)| name.clone()).collect();
        for name in stale {
            if let Some(pump) = self.pumps.remove(&name) {
                pump.end().await;
            }
        }
    }

    /// Starts the pumps that are missing, and shows RQ's clients who serves them.
    pub(crate) fn start_missing(&mut self, queues: &BTreeMap<QueueName, Arc<Queue>>) {
        self.front.changed.notify_one();
        for (name, queue) in queues {
            if !queue.lists.is_empty() && !self.pumps.contains_key(name) {
                let stop = CancellationToken::new();
                let (broker, config) = (Arc::clone(&self.broker), Arc::clone(&self.config));
                let (metrics, front) = (Arc::clone(&self.metrics), Arc::clone(&self.front));
                let make = Maker { broker, config, metrics, front, queue: Arc::clone(queue) };
                let task = tokio::spawn(pump(make, stop.clone()));
                self.pumps.insert(name.clone(), Running { queue: Some(Arc::clone(queue)), stop, task });
            }
        }
    }

    /// Takes no more messages. Answers are still written.
    pub(crate) async fn stop_taking(&mut self) {
        for pump in self.pumps.values() {
            pump.stop.cancel();
        }
        for (_, pump) in self.pumps.drain() {
            pump.end().await;
        }
    }

    /// Writes the answers that are at hand and ends. What is owed beyond that stays in the outbox.
    pub(crate) async fn finish(self) {
        self.reply.end().await;
        // What is still shown as running then was handed back.
        self.clerk.end().await;
    }
}

/// What a pump is made of.
#[derive(Debug)]
struct Maker {
    broker: Arc<Broker>,
    config: Arc<ArcSwap<Config>>,
    metrics: Arc<Metrics>,
    front: Arc<rq::Front>,
    queue: Arc<Queue>,
}

/// Runs the pump of one queue to its end. One that panics, by a bug of ours, is started anew: what it had in hand is in
/// flight, and the new one adopts it.
async fn pump(make: Maker, stop: CancellationToken) {
    loop {
        let (broker, config) = (Arc::clone(&make.broker), Arc::clone(&make.config));
        let pump = Pump::new(broker, config, Arc::clone(&make.metrics), Arc::clone(&make.front), &make.queue);
        match AbortOnDropHandle::new(tokio::spawn(pump.run(stop.clone()))).await {
            Ok(()) => return,
            Err(error) => {
                tracing::error!(queue = %make.queue.name, "its intake ended with a panic and starts again: {error}");
            }
        }
        tokio::time::sleep(AFTER_PANIC).await;
    }
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!("a part of the intake ended with a panic: {error}");
        }
    }
}
