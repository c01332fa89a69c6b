//! Makes the faults of the plan, each at its time, under load, and writes down what came of it.
//!
//! A fault on a node has the node to itself until the node is back at work, and there is always a node that nothing is
//! done to. Faults of Redis come one at a time, but beside those of the nodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};
use tokio::task::JoinSet;

use super::fault::{Fault, Planned};
use super::fleet::{Fleet, NodeError, Place, Process};
use super::ledger::{Ledger, Life, Strike};
use super::load::Number;
use super::options::Options;
use super::proxy::Order;
use super::random::Random;
use super::redis::{Redis, RedisError};

/// Why a fault could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum StrikeError {
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("make a fault: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// Who makes faults, and on what.
#[derive(Debug, Clone)]
pub(super) struct Striker {
    fleet: Arc<Fleet>,
    redis: Arc<Redis>,
    ledger: Arc<Ledger>,
    lease: Duration,
    /// The first so many nodes live for the whole run.
    steady: usize,
    /// As many as may have something done to them at the same time.
    nodes: Arc<Semaphore>,
    /// One fault of Redis at a time.
    servers: Arc<Mutex<()>>,
}

/// Longest that a node may take until jobs begin on it again; what takes longer counts as never.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether they have begun.
const LOOK: Duration = Duration::from_millis(2);
/// How often is looked who holds what.
const WATCH: Duration = Duration::from_millis(500);
/// Redis is silent when it takes longer than this to say so.
const SILENT: Duration = Duration::from_millis(250);
/// Longest wait for a node to have something to lose.
const WARM: Duration = Duration::from_secs(5);
/// What a process has given to the kernel when it is stopped or dies reaches Redis within this time.
const SETTLED: Duration = Duration::from_millis(50);
/// Longest wait for Redis to say what a node held when it died.
const UNSETTLED: Duration = Duration::from_secs(5);

type Held = OwnedMutexGuard<Process>;

impl Striker {
    pub(super) fn new(fleet: Arc<Fleet>, redis: Arc<Redis>, ledger: Arc<Ledger>, options: &Options) -> Self {
        let nodes = Arc::new(Semaphore::new(fleet.nodes.len().saturating_sub(1).max(1)));
        let (lease, steady) = (options.lease, usize::from(options.steady));
        Self { fleet, redis, ledger, lease, steady, nodes, servers: Arc::default() }
    }

    /// Makes all faults of the plan; returns when each is over.
    pub(super) async fn run(self, plan: Vec<Planned>) -> Result<(), StrikeError> {
        let start = Instant::now();
        let mut running = JoinSet::new();
        for planned in plan {
            tokio::time::sleep_until((start + planned.at).into()).await;
            while let Some(ended) = running.try_join_next() {
                ended??;
            }
            let mut random = planned.random;
            let node = self.node_for(planned.fault, &mut random).await;
            running.spawn(self.clone().strike(planned.fault, node, random));
        }
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Looks again and again who holds what, for as long as it is let.
    pub(super) async fn watch(&self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(WATCH).await;
            let asked = Instant::now();
            let held = self.redis.held().await;
            if asked.elapsed() > SILENT {
                self.ledger.silent_since(asked);
            }
            // While Redis is away there is nothing to be seen.
            if let Ok(held) = held {
                self.ledger.see(held);
            }
        }
    }

    /// A node to strike, for faults of nodes: one that nobody is busy with.
    async fn node_for(&self, fault: Fault, random: &mut Random) -> Option<Target> {
        if matches!(fault, Fault::RedisKill | Fault::RedisRestart | Fault::ScriptFlush) {
            return None;
        }
        let permit = Arc::clone(&self.nodes).acquire_owned().await.expect("it is never closed");
        let spared = if matches!(fault, Fault::Kill | Fault::Stop | Fault::Term) { self.steady } else { 0 };
        let mut places: Vec<&Arc<Place>> = self.fleet.nodes.iter().skip(spared).collect();
        loop {
            random.shuffle(&mut places);
            if let Some((place, process)) = places.iter().find_map(|place| Some((*place, place.take()?))) {
                return Some(Target { place: Arc::clone(place), process, _permit: permit });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn strike(self, fault: Fault, target: Option<Target>, random: Random) -> Result<(), StrikeError> {
        match (fault, target) {
            (Fault::Kill, Some(target)) => self.kill(target, random).await,
            (Fault::Stop, Some(target)) => self.stop(target, random).await,
            (Fault::Term, Some(target)) => self.term(target).await,
            (Fault::Reset, Some(target)) => self.reset(target, random).await,
            (Fault::Blackhole, Some(target)) => self.blackhole(target, random).await,
            (fault, _) => self.redis(fault, random).await,
        }
    }

    async fn kill(&self, mut target: Target, mut random: Random) -> Result<(), StrikeError> {
        let life = self.warm(&target, &mut random).await;
        target.process.signal(Signal::KILL)?;
        target.process.wait().await?;
        let mut strike = Strike::new(Fault::Kill, Some(life));
        tokio::time::sleep(SETTLED).await;
        strike.held = self.held_by(life).await;
        self.ledger.orphan(&strike.held, strike.at);
        self.ledger.note(strike);
        tokio::time::sleep(random.span(Duration::ZERO..Duration::from_millis(500))).await;
        Ok(target.process.start_again(random.chance(50)).await?)
    }

    /// Stops the node until others have taken over its jobs, and lets it come back with its results.
    async fn stop(&self, target: Target, mut random: Random) -> Result<(), StrikeError> {
        let life = self.warm(&target, &mut random).await;
        target.process.signal(Signal::STOP)?;
        let mut strike = Strike::new(Fault::Stop, Some(life));
        tokio::time::sleep(SETTLED).await;
        strike.held = self.held_by(life).await;
        tokio::time::sleep(self.lease * 4 / 3 + random.span(Duration::ZERO..self.lease / 3)).await;
        target.process.signal(Signal::CONT)?;
        strike.over = Instant::now();
        self.resumed(life, strike.over).await;
        self.ledger.note(strike);
        Ok(())
    }

    /// While it hands its jobs back it must reach Redis: what it does without is another promise's.
    async fn term(&self, mut target: Target) -> Result<(), StrikeError> {
        let _calm = self.servers.lock().await;
        let life = self.warm(&target, &mut Random::new(0)).await;
        let mut strike = Strike::new(Fault::Term, Some(life));
        strike.held = self.ledger.running(life);
        target.process.signal(Signal::TERM)?;
        target.process.wait().await?;
        strike.left_active = self.redis.held_by(life).await?.len();
        strike.over = Instant::now();
        self.ledger.note(strike);
        Ok(target.process.start_again(false).await?)
    }

    /// All connections of one node by its proxy; on a Redis of our own, half of the times everybody's by Redis itself.
    async fn reset(&self, target: Target, mut random: Random) -> Result<(), StrikeError> {
        if self.redis.fsync().is_some() && random.chance(50) {
            let calm = self.servers.lock().await;
            self.warm(&target, &mut random).await;
            let mut nodes = self.free();
            nodes.push((Arc::clone(&target.place), target.process));
            let mut strike = Strike::new(Fault::Reset, None);
            self.redis.kill_clients().await?;
            drop(calm);
            self.all_resumed(&nodes, &mut strike).await;
            self.ledger.note(strike);
            return Ok(());
        }
        self.by_proxy(target, Fault::Reset, Order::Reset, random).await
    }

    async fn blackhole(&self, target: Target, mut random: Random) -> Result<(), StrikeError> {
        let order = if random.chance(50) { Order::Swallow } else { Order::SwallowAnswers };
        self.by_proxy(target, Fault::Blackhole, order, random).await
    }

    async fn by_proxy(
        &self,
        target: Target,
        fault: Fault,
        order: Order,
        mut random: Random,
    ) -> Result<(), StrikeError> {
        let Some(proxy) = &target.place.proxy else { return Ok(()) };
        self.warm(&target, &mut random).await;
        let nodes = [(Arc::clone(&target.place), target.process)];
        let mut strike = Strike::new(fault, Some(nodes[0].1.life));
        proxy.order(order);
        self.all_resumed(&nodes, &mut strike).await;
        self.ledger.note(strike);
        Ok(())
    }

    async fn redis(&self, fault: Fault, mut random: Random) -> Result<(), StrikeError> {
        let _one = self.servers.lock().await;
        let nodes = self.free();
        let mut strike = Strike::new(fault, None);
        let pause = random.span(Duration::ZERO..Duration::from_millis(500));
        match fault {
            Fault::RedisKill => self.redis.kill(pause).await?,
            Fault::RedisRestart => self.redis.restart(pause).await?,
            _ => {
                self.redis.flush_scripts().await?;
                self.ledger.note(strike);
                return Ok(());
            }
        }
        strike.over = Instant::now();
        self.all_resumed(&nodes, &mut strike).await;
        self.ledger.note(strike);
        Ok(())
    }

    /// Waits until the node has begun something in this life, and for a random moment more.
    async fn warm(&self, target: &Target, random: &mut Random) -> Life {
        let (life, deadline) = (target.process.life, Instant::now() + WARM);
        while self.ledger.last_begin(life).is_none() && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
        tokio::time::sleep(random.span(Duration::ZERO..Duration::from_millis(100))).await;
        life
    }

    /// What Redis says that it held. Redis may be away just now; until it is back nobody else takes anything over.
    async fn held_by(&self, life: Life) -> Vec<Number> {
        let deadline = Instant::now() + UNSETTLED;
        loop {
            match self.redis.held_by(life).await {
                Ok(held) => return held,
                Err(_) if Instant::now() > deadline => return self.ledger.may_hold(life, 2 * UNSETTLED),
                Err(_) => tokio::time::sleep(SETTLED).await,
            }
        }
    }

    /// Nodes that nothing else is done to.
    fn free(&self) -> Vec<(Arc<Place>, Held)> {
        self.fleet.nodes.iter().filter_map(|place| Some((Arc::clone(place), place.take()?))).collect()
    }

    /// Waits for every one of these nodes to reach Redis anew, and to begin jobs after that.
    async fn all_resumed(&self, nodes: &[(Arc<Place>, Held)], strike: &mut Strike) {
        let since = strike.over;
        for (place, process) in nodes {
            let reached = self.reached(place, since).await;
            let begun = match reached {
                Some(reached) => self.resumed(process.life, reached).await,
                None => None,
            };
            strike.resumed.push(begun.map(|begun| begun - since));
        }
    }

    /// When a connection to Redis was made after `since`. A node that has no proxy is taken at its next begin.
    async fn reached(&self, place: &Place, since: Instant) -> Option<Instant> {
        let Some(proxy) = &place.proxy else { return Some(since) };
        first(since + PATIENCE, || proxy.connected().filter(|&connected| connected > since)).await
    }

    /// When a job next began on the node after `since`.
    async fn resumed(&self, life: Life, since: Instant) -> Option<Instant> {
        first(since + PATIENCE, || self.ledger.last_begin(life).filter(|&begun| begun > since)).await
    }
}

/// A node to which something is done, and the right to do so.
struct Target {
    place: Arc<Place>,
    process: Held,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

/// The first thing that comes before the deadline.
async fn first<T>(deadline: Instant, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        tokio::time::sleep(LOOK).await;
    }
}
