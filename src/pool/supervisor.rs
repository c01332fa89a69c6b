//! Starts, resizes and ends pools as the configuration says, and ends them all in order. What somebody sets by hand goes
//! past it, from [`Broker::scale`](crate::broker::Broker::scale) to the pool itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::keeper::Kept;
use super::pressure::Pressure;
use super::shared::{Shared, Stop};
use super::slots::Slots;
use super::{Keeper, Pool, SETTLE_BATCH};
use crate::broker::{Settlement, Swept};
use crate::clock;
use crate::config::{Config, Queue};
use crate::job::{AttemptFacts, Outcome, QueueName, Timestamp, decide};

/// After the jobs were interrupted, their settles get this long to reach Redis; what does not is taken over by others.
const HAND_BACK: Duration = Duration::from_secs(5);
/// Pause before a pool that panicked starts again: a bug must not become a busy loop.
const AFTER_PANIC: Duration = Duration::from_secs(1);
/// Claims of dead nodes on their way from the keeper to a pool.
const SWEPT: usize = 500;

/// The pools of one node.
#[derive(Debug)]
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    keeper: Arc<Keeper>,
    slots: Arc<Slots>,
    pressure: Arc<Pressure>,
    pools: HashMap<QueueName, Running>,
    /// Pools whose queue has left the configuration and whose last jobs still run.
    leaving: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    queue: watch::Sender<Arc<Queue>>,
    stop: Stop,
    task: JoinHandle<()>,
}

impl Supervisor {
    pub(crate) fn new(shared: Arc<Shared>, keeper: Arc<Keeper>) -> Self {
        let (slots, pressure) = (Arc::new(Slots::new()), Arc::new(Pressure::new()));
        Self { shared, keeper, slots, pressure, pools: HashMap::new(), leaving: Vec::new() }
    }

    /// Makes the pools equal to the queues of `config`: new ones start, changed ones are told (running jobs are not
    /// touched), those that are gone drain. They share the slots of the node as it says.
    pub(crate) fn apply(&mut self, config: &Config) {
        let queues = &config.queues;
        self.slots.configure(config.node.slots);
        self.shared.broker.slots.send_replace(config.node.slots.bound);
        self.leaving.retain(|pool| !pool.task.is_finished());
        let gone: Vec<QueueName> = self.pools.keys().filter(|name| !queues.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(pool) = self.pools.remove(&name) {
                pool.stop.drain.cancel();
                self.shared.broker.demand(&name).close();
                self.leaving.push(pool);
            }
        }
        for (name, queue) in queues {
            self.shared.broker.learn(queue);
            match self.pools.get(name) {
                Some(pool) => {
                    self.keeper.update(queue);
                    pool.queue.send_if_modified(|current| {
                        let changed = *current != *queue;
                        current.clone_from(queue);
                        changed
                    });
                }
                None => self.start(queue),
            }
        }
    }

    fn start(&mut self, queue: &Arc<Queue>) {
        let (sender, receiver) = watch::channel(Arc::clone(queue));
        let stop = Stop::default();
        let (shared, keeper) = (Arc::clone(&self.shared), Arc::clone(&self.keeper));
        let (slots, pressure) = (Arc::clone(&self.slots), Arc::clone(&self.pressure));
        // Now, not when the task first runs: the keeper's first round must know the queue.
        let swept = keep(&keeper, queue);
        let task = tokio::spawn(supervise(shared, keeper, slots, pressure, receiver, swept, stop.clone()));
        self.pools.insert(queue.name.clone(), Running { queue: sender, stop, task });
    }

    /// Ends all pools: no new claims, running jobs may finish until `deadline` has passed, the rest is handed back.
    /// Dropping the future loses nothing: another call goes on with what is left.
    pub(crate) async fn drain(&mut self, deadline: Duration) {
        self.leaving.extend(self.pools.drain().map(|(_, pool)| pool));
        for pool in &self.leaving {
            pool.stop.for_good.cancel();
            pool.stop.drain.cancel();
        }
        if !joined(&mut self.leaving, deadline).await {
            tracing::info!("the drain deadline of {deadline:?} has passed: handing the rest back");
            for pool in &self.leaving {
                pool.stop.abort.cancel();
            }
            if !joined(&mut self.leaving, HAND_BACK).await {
                tracing::warn!("Redis does not answer: the rest is taken over by others when the leases end");
            }
        }
        for pool in self.leaving.drain(..) {
            pool.task.abort();
        }
    }
}

/// Puts the queue into the keeper's care; the claims that it comes by arrive at the receiver.
fn keep(keeper: &Keeper, queue: &Arc<Queue>) -> mpsc::Receiver<Swept> {
    let (swept, taken_over) = mpsc::channel(SWEPT);
    keeper.keep(Kept { queue: Arc::clone(queue), swept });
    taken_over
}

/// Runs the pool of one queue to its end. One that panics, by a bug of ours, is started anew: its claims were dropped,
/// so the next sweep finds them.
async fn supervise(
    shared: Arc<Shared>,
    keeper: Arc<Keeper>,
    slots: Arc<Slots>,
    pressure: Arc<Pressure>,
    queue: watch::Receiver<Arc<Queue>>,
    mut swept: mpsc::Receiver<Swept>,
    stop: Stop,
) {
    let name = queue.borrow().name.clone();
    loop {
        let pool =
            Pool::new(Arc::clone(&shared), slots.seat(), Arc::clone(&pressure), queue.clone(), swept, stop.clone());
        // If this task is aborted, the pool goes with it.
        match AbortOnDropHandle::new(tokio::spawn(pool.run())).await {
            Ok(()) => break,
            Err(error) => tracing::error!(queue = %name, "its pool ended with a panic and starts again: {error}"),
        }
        tokio::time::sleep(AFTER_PANIC).await;
        swept = keep(&keeper, &queue.borrow());
    }
    // Another pool of the queue might wait for the answer to a claim just now: then the sweep does this in time.
    if stop.for_good.is_cancelled() {
        let queue = Arc::clone(&queue.borrow());
        give_back(&shared, &queue).await;
    }
    // Nothing of ours is left in this queue: its lease may end, unless a new pool for it has started meanwhile.
    if keeper.release(&name)
        && let Err(error) = shared.broker.retire(&shared.broker.node, std::slice::from_ref(&name)).await
    {
        tracing::debug!(queue = %name, "the lease ends by itself: {error}");
    }
}

/// Gives back what Redis claimed for this node without its ever hearing of it. No answer is on its way any more, so
/// nothing is too young: after an orderly stop no job must be taken for the victim of a crash.
async fn give_back(shared: &Shared, queue: &Queue) {
    let now = clock::now();
    let mut leftovers = match shared.broker.leftovers(&queue.name, now).await {
        Ok(leftovers) => leftovers,
        Err(error) => return tracing::debug!(queue = %queue.name, "others take over what may be left: {error}"),
    };
    if leftovers.is_empty() {
        return;
    }
    tracing::info!(queue = %queue.name, jobs = leftovers.len(), "giving back claims whose answer was lost");
    while !leftovers.is_empty() {
        let some = leftovers.drain(..leftovers.len().min(SETTLE_BATCH));
        let settlements = some.map(|swept| interrupted(shared, queue, swept, now)).collect();
        let exchange = shared.broker.exchange(queue, settlements, false, 0, now).await;
        if let Err((error, _)) = exchange.settled {
            return tracing::debug!(queue = %queue.name, "others take over what is left: {error}");
        }
    }
}

fn interrupted(shared: &Shared, queue: &Queue, swept: Swept, now: Timestamp) -> Settlement {
    let Swept { claim, reason, crashed: _ } = swept;
    let facts = AttemptFacts {
        node: &shared.broker.node,
        attempt: claim.history.next_attempt(),
        started: claim.started,
        now,
        retry: &queue.retry,
        crash_limit: queue.crash_limit,
        random: 0.0,
    };
    let decision = decide(&facts, claim.history.clone(), Outcome::Interrupted { reason });
    Settlement { claim, decision }
}

/// Waits for the pools to end; says whether all did in time. Those that did are gone from the list.
async fn joined(pools: &mut Vec<Running>, limit: Duration) -> bool {
    let end = tokio::time::Instant::now() + limit;
    while let Some(pool) = pools.last_mut() {
        match tokio::time::timeout_at(end, &mut pool.task).await {
            Err(_) => return false,
            Ok(result) => {
                if let Err(error) = result {
                    tracing::error!("a pool ended with a panic: {error}");
                }
                pools.pop();
            }
        }
    }
    true
}
