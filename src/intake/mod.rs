//! The foreign edge: Celery and RQ messages become jobs, and what became of the jobs becomes the answers that their
//! producers wait for.
//!
//! `celery` and `rq` turn bytes into values and back, without Redis, runtime or clock. `pump` takes messages as the
//! pools have room and admits them; `reply` writes the answers that the broker's outbox owes.

pub(crate) mod celery;
mod pump;
mod refused;
mod reply;
pub(crate) mod rq;

mod bigint;
mod inflate;
pub(crate) mod iso;
pub(crate) mod limits;
mod pickle;
mod pyjson;
pub(crate) mod pyrepr;
pub(crate) mod tagged;

#[cfg(test)]
mod python;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, OwedReceiver};
use crate::config::{Config, Queue};
use crate::job::QueueName;
use crate::metrics::Metrics;
use pump::Pump;

/// The intake of one node: a pump for each queue that reads foreign lists, and one writer of answers.
#[derive(Debug)]
pub(crate) struct Intake {
    broker: Arc<Broker>,
    config: Arc<ArcSwap<Config>>,
    metrics: Arc<Metrics>,
    pumps: HashMap<QueueName, Running>,
    reply: Running,
}

#[derive(Debug)]
struct Running {
    /// The lists it reads, to see whether a reload changed them.
    queue: Option<Arc<Queue>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Intake {
    /// Starts the writer of answers; pumps start with [`Intake::apply`].
    pub(crate) fn start(
        broker: Arc<Broker>,
        config: Arc<ArcSwap<Config>>,
        metrics: Arc<Metrics>,
        owed: OwedReceiver,
    ) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(reply::run(Arc::clone(&broker), owed, stop.clone()));
        let reply = Running { queue: None, stop, task };
        Self { broker, config, metrics, pumps: HashMap::new(), reply }
    }

    /// Makes the pumps equal to the queues: those whose lists changed are started anew.
    pub(crate) async fn apply(&mut self, queues: &BTreeMap<QueueName, Arc<Queue>>) {
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
        for (name, queue) in queues {
            if !queue.lists.is_empty() && !self.pumps.contains_key(name) {
                let stop = CancellationToken::new();
                let (broker, config) = (Arc::clone(&self.broker), Arc::clone(&self.config));
                let pump = Pump::new(broker, config, Arc::clone(&self.metrics), queue);
                let task = tokio::spawn(pump.run(stop.clone()));
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
