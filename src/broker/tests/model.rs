//! Random operations of three nodes, with crashes between any two, against a sequential oracle.
//!
//! `JOBSD_MODEL_STEPS` sets the number of steps (default: a short form) and `JOBSD_MODEL_SEED` the seed, which a failure
//! prints.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::*;
use crate::broker::{Enqueued, Settled};
use crate::job::{Failure, Next, State};

const SHORT: usize = 3_000;
const NODES: usize = 3;

/// What the oracle knows of one job.
#[derive(Debug, Clone, PartialEq)]
enum Place {
    Pending(Timestamp),
    Scheduled(Timestamp),
    Retry(Timestamp),
    Active { node: usize },
    Ended(State),
}

struct World {
    random: Random,
    queue: Queue,
    now: Timestamp,
    nodes: Vec<Broker>,
    /// Claims that each node holds.
    held: Vec<Vec<Claim>>,
    /// Claims of crashed nodes, which may still speak up: zombies.
    zombies: Vec<(Broker, Claim)>,
    places: BTreeMap<String, Place>,
    leases: HashMap<String, Timestamp>,
    started: usize,
    names: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_transitions_behave_as_the_oracle_says() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let steps = number("JOBSD_MODEL_STEPS", SHORT as u64);
    let seed = number("JOBSD_MODEL_SEED", 20_261_123);
    let redis = RedisServer::start();
    let mut world = World::new(&redis, seed);
    for step in 0..steps {
        let what = world.step(&redis).await;
        if step % 10 == 0 || step + 1 == steps {
            world.compare(&format!("seed {seed}, step {step}, after {what}")).await;
        }
    }
    let ended = world.places.values().filter(|place| matches!(place, Place::Ended(_))).count();
    println!("{steps} steps, seed {seed}: {} jobs, {ended} ended", world.places.len());
    assert!(ended > 0 && world.zombies.len() + world.started > NODES, "the walk must reach its ends and its crashes");
}

impl World {
    fn new(redis: &RedisServer, seed: u64) -> Self {
        let mut queue = queue();
        // Nothing may vanish by retention: every job is accounted for.
        queue.keep_completed.count = usize::MAX >> 12;
        queue.keep_dead.count = usize::MAX >> 12;
        let nodes = (0..NODES).map(|n| node(redis, &format!("n{n}"))).collect();
        let held = (0..NODES).map(|_| Vec::new()).collect();
        Self {
            random: Random(seed | 1),
            queue,
            now: at(0),
            nodes,
            held,
            zombies: Vec::new(),
            places: BTreeMap::new(),
            leases: HashMap::new(),
            started: NODES,
            names: 0,
        }
    }

    /// One random operation by one random node; says which.
    async fn step(&mut self, redis: &RedisServer) -> &'static str {
        self.now = self.now.after(Duration::from_millis(self.random.below(3_000)));
        let n = self.random.index(NODES);
        match self.random.below(100) {
            0..25 => self.enqueue(n).await,
            25..55 => self.claim(n).await,
            55..80 => {
                // More than is claimed on average, so that the walk keeps to a size at which it can be compared often.
                for _ in 0..4 {
                    self.settle(n).await;
                }
                "settles"
            }
            80..84 => self.crash(redis, n),
            84..92 => self.sweep(n).await,
            92..96 => self.zombie_speaks().await,
            _ => self.beat(n).await,
        }
    }

    async fn enqueue(&mut self, n: usize) -> &'static str {
        let repeated = self.names > 0 && self.random.below(10) == 0;
        let number = if repeated { self.random.index(self.names) } else { self.names };
        let mut job = job(&format!("j{number:06}"), self.now);
        if self.random.below(4) == 0 {
            job.due = Some(self.now.after(Duration::from_millis(1 + self.random.below(30_000))));
        }
        let answer = self.nodes[n].enqueue(std::slice::from_ref(&job)).await.expect("Redis answers")[0];
        assert_eq!(answer == Enqueued::Exists, repeated, "an id is taken exactly when it was used");
        if !repeated {
            self.names += 1;
            let place = job.due.map_or(Place::Pending(self.now), Place::Scheduled);
            self.places.insert(job.id.to_string(), place);
        }
        "enqueue"
    }

    async fn claim(&mut self, n: usize) -> &'static str {
        let want = self.random.index(5);
        let exchange = self.nodes[n].exchange(&self.queue, Vec::new(), true, want, self.now).await;
        self.promote();
        let (claims, _) = exchange.claims.expect("Redis answers");
        if want > 0 {
            self.leases.insert(self.nodes[n].node.to_string(), self.now.after(LEASE));
        }
        let mut waiting: Vec<(Timestamp, String)> = self
            .places
            .iter()
            .filter_map(|(id, place)| match place {
                Place::Pending(since) => Some((*since, id.clone())),
                _ => None,
            })
            .collect();
        waiting.sort();
        let expected: Vec<String> = waiting.into_iter().take(want).map(|(_, id)| id).collect();
        let got: Vec<String> = claims.iter().map(|claim| claim.job.id.to_string()).collect();
        assert_eq!(got, expected, "the oldest are claimed, in order");
        for id in got {
            self.places.insert(id, Place::Active { node: n });
        }
        // Now and then the answer is lost: the node never hears of its claims.
        if self.random.below(20) == 0 {
            drop(claims);
            return "a claim whose answer is lost";
        }
        self.held[n].extend(claims);
        "claim"
    }

    fn promote(&mut self) {
        let now = self.now;
        for place in self.places.values_mut() {
            if let Place::Scheduled(due) | Place::Retry(due) = *place
                && due <= now
            {
                *place = Place::Pending(due);
            }
        }
    }

    async fn settle(&mut self, n: usize) -> &'static str {
        if self.held[n].is_empty() {
            return "nothing to settle";
        }
        let index = self.random.index(self.held[n].len());
        let claim = self.held[n].swap_remove(index);
        let outcome = self.outcome();
        let settlement = settlement(&self.nodes[n], &self.queue, claim, outcome, self.now);
        let id = settlement.claim.job.id.to_string();
        // A living node may have lost its lease to a sweep while it was silent: then its claim is not the active one.
        let holds =
            self.places.get(&id) == Some(&Place::Active { node: n }) && self.is_current(&settlement.claim).await;
        let place = place_after(&settlement);
        let exchange = self.nodes[n].exchange(&self.queue, vec![settlement], false, 0, self.now).await;
        let answer = exchange.settled.expect("Redis answers")[0];
        assert_eq!(answer == Settled::Applied, holds, "a settle applies exactly while the claim is the active one");
        if holds {
            self.places.insert(id, place);
        }
        "settle"
    }

    /// Whether Redis still names this very claim: the oracle keeps nodes, not tokens.
    async fn is_current(&self, claim: &Claim) -> bool {
        let view = self.nodes[0].store.job(&claim.job.id, std::slice::from_ref(&self.queue.name)).await;
        let view = view.expect("Redis answers").expect("no job vanishes");
        view.active.is_some_and(|active| active.token == claim.token)
    }

    fn outcome(&mut self) -> Outcome {
        match self.random.below(5) {
            0 | 1 => Outcome::Success(Value::Null),
            2 => Failure::new("E", "no").into(),
            3 => Failure::never("E", "never").into(),
            _ => Outcome::Interrupted { reason: "stopping".into() },
        }
    }

    /// The process is gone; what it held may still speak up later, with its old tokens.
    fn crash(&mut self, redis: &RedisServer, n: usize) -> &'static str {
        self.started += 1;
        let fresh = node(redis, &format!("n{}", self.started));
        let dead = std::mem::replace(&mut self.nodes[n], fresh);
        let name = dead.node.to_string();
        let mut claims = std::mem::take(&mut self.held[n]);
        if let Some(claim) = claims.pop() {
            self.zombies.push((dead, claim));
        }
        // In the oracle a dead node's claims belong to nobody of ours.
        for place in self.places.values_mut() {
            if *place == (Place::Active { node: n }) {
                *place = Place::Active { node: usize::MAX };
            }
        }
        self.leases.entry(name).or_insert(self.now);
        "crash"
    }

    async fn beat(&mut self, n: usize) -> &'static str {
        self.nodes[n].heartbeat(std::slice::from_ref(&self.queue.name), self.now).await.expect("Redis answers");
        self.leases.insert(self.nodes[n].node.to_string(), self.now.after(LEASE));
        "heartbeat"
    }

    async fn sweep(&mut self, n: usize) -> &'static str {
        self.beat(n).await;
        let before = self.actives().await;
        let swept = self.nodes[n].sweep(&self.queue.name, self.now, self.now, 100).await.expect("Redis answers");
        for swept in swept {
            let id = swept.claim.job.id.to_string();
            let (holder, started) = &before[&id];
            if swept.crashed {
                let lease = self.leases.get(holder).copied();
                assert!(lease.is_none_or(|end| end <= self.now), "{id} was taken from {holder}, whose lease holds");
            } else {
                assert_eq!(*holder, self.nodes[n].node.to_string(), "only its own lost answers are given back");
                assert!(self.now.since(*started) > Duration::from_secs(10), "{id} is too young to be given back");
            }
            let outcome = if swept.crashed {
                Outcome::Crashed { reason: swept.reason }
            } else {
                Outcome::Interrupted { reason: swept.reason }
            };
            let settlement = settlement(&self.nodes[n], &self.queue, swept.claim, outcome, self.now);
            let place = place_after(&settlement);
            let exchange = self.nodes[n].exchange(&self.queue, vec![settlement], false, 0, self.now).await;
            assert_eq!(exchange.settled.expect("Redis answers"), [Settled::Applied]);
            self.places.insert(id, place);
        }
        "sweep"
    }

    /// Who holds each active job, and since when.
    async fn actives(&self) -> HashMap<String, (String, Timestamp)> {
        let mut actives = HashMap::new();
        for (id, place) in &self.places {
            if matches!(place, Place::Active { .. }) {
                let job_id = JobId::parse(id).expect("a valid id");
                let view = self.nodes[0].store.job(&job_id, std::slice::from_ref(&self.queue.name)).await;
                let active = view.expect("Redis answers").expect("it exists").active.expect("it is active");
                actives.insert(id.clone(), (active.node.to_string(), active.started));
            }
        }
        actives
    }

    /// A process that was thought dead ends its attempt: applied only while nobody has taken its job over.
    async fn zombie_speaks(&mut self) -> &'static str {
        let Some((broker, claim)) = self.zombies.pop() else { return "no zombie" };
        let id = claim.job.id.to_string();
        let holds = self.is_current(&claim).await;
        let settlement = settlement(&broker, &self.queue, claim, Outcome::Success(Value::Null), self.now);
        let answer = broker.exchange(&self.queue, vec![settlement], false, 0, self.now).await.settled;
        assert_eq!(answer.expect("Redis answers")[0] == Settled::Applied, holds);
        if holds {
            self.places.insert(id, Place::Ended(State::Completed));
        }
        "a zombie's settle"
    }

    async fn compare(&mut self, context: &str) {
        for (id, place) in &self.places {
            let job_id = JobId::parse(id).expect("a valid id");
            let view = self.nodes[0].store.job(&job_id, std::slice::from_ref(&self.queue.name)).await;
            let view = view.expect("Redis answers").unwrap_or_else(|| panic!("{context}: {id} is lost"));
            let (state, since) = match place {
                Place::Pending(since) => (State::Pending, Some(*since)),
                Place::Scheduled(due) => (State::Scheduled, Some(*due)),
                Place::Retry(due) => (State::Retry, Some(*due)),
                Place::Active { .. } => (State::Active, None),
                Place::Ended(state) => (*state, None),
            };
            assert_eq!((view.state(), view.due), (state, since), "{context}: {id}");
        }
        let numbers =
            self.nodes[0].store.queues(&[(self.queue.name.clone(), Vec::new())]).await.expect("Redis answers");
        let count = |wanted: fn(&Place) -> bool| self.places.values().filter(|place| wanted(place)).count() as u64;
        assert_eq!(numbers[0].pending, count(|p| matches!(p, Place::Pending(_))), "{context}: pending");
        assert_eq!(numbers[0].active, count(|p| matches!(p, Place::Active { .. })), "{context}: active");
        assert_eq!(numbers[0].retry, count(|p| matches!(p, Place::Retry(_))), "{context}: retry");
        assert_eq!(numbers[0].scheduled, count(|p| matches!(p, Place::Scheduled(_))), "{context}: scheduled");
        self.forget_ended();
    }

    /// Ended jobs were compared; keeping a few is enough for repeated ids, and the comparison stays quick.
    fn forget_ended(&mut self) {
        let ended: Vec<String> = self
            .places
            .iter()
            .filter(|(_, place)| matches!(place, Place::Ended(_)))
            .map(|(id, _)| id.clone())
            .collect();
        for id in ended.iter().take(ended.len().saturating_sub(20)) {
            self.places.remove(id);
        }
    }
}

fn place_after(settlement: &Settlement) -> Place {
    match settlement.decision.next {
        Next::Release => Place::Pending(settlement.claim.job.due.unwrap_or(settlement.claim.job.enqueued_at)),
        Next::Retry { at } => Place::Retry(at),
        Next::End(state) => Place::Ended(state),
    }
}

/// xorshift64: the same walk for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("below a usize")
    }
}
