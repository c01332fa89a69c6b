//! Random operations of three nodes, with crashes between any two, against a sequential oracle.
//!
//! `JOBSD_MODEL_STEPS` sets the number of steps (default: a short form) and `JOBSD_MODEL_SEED` the seed, which a failure
//! prints.

mod bounds;
mod oracle;

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::*;
use crate::broker::{Altered, Change, Enqueued, Line, Paused, Restored, Settled};
use crate::job::{Failure, Next, Priority, Request, State};
use oracle::{Known, Oracle, Place, Verb, place_after};

const SHORT: usize = 3_000;
const NODES: usize = 3;

struct World {
    redis: RedisServer,
    random: Random,
    queue: Queue,
    now: Timestamp,
    nodes: Vec<Broker>,
    /// Claims that each node holds.
    held: Vec<Vec<Claim>>,
    /// Claims of crashed nodes, which may still speak up: zombies.
    zombies: Vec<(Broker, Claim)>,
    oracle: Oracle,
    /// Purges that can be taken back, with the jobs that each took.
    purges: Vec<(String, Vec<String>)>,
    leases: HashMap<String, Timestamp>,
    started: usize,
    /// Jobs that were ever added, and those whose id is free again.
    names: usize,
    deleted: BTreeSet<String>,
    /// How often each kind of step was taken: the walk must reach them all.
    steps: HashMap<&'static str, usize>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_transitions_behave_as_the_oracle_says() {
    let world = walk(Limits::default()).await;
    for what in ["settled", "refused", "cancelled at its settle", "taken over", "altered", "purge taken back", "held"] {
        assert!(world.steps.contains_key(what), "the walk never came to: {what}");
    }
}

/// The same walk where jobs draw from limits: of the queue, of a task and of users, by heavy jobs too.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn limits_hold_at_every_step_and_nothing_they_held_is_forgotten() {
    for fair in [false, true] {
        let mut world = walk(bounds::limits(fair)).await;
        for what in ["settled", "taken over", "purge taken back", "held", "a full bucket"] {
            assert!(world.steps.contains_key(what), "the walk never came to: {what}");
        }
        world.work_off().await;
    }
}

async fn walk(limits: Limits) -> World {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let steps = number("JOBSD_MODEL_STEPS", SHORT as u64);
    let seed = number("JOBSD_MODEL_SEED", 20_261_123);
    let redis = RedisServer::start();
    let mut world = World::new(redis, seed, limits);
    for step in 0..steps {
        let what = world.step().await;
        world.check_bounds(&format!("seed {seed}, step {step}, after {what}")).await;
        *world.steps.entry(what).or_default() += 1;
        if step % 10 == 0 || step + 1 == steps {
            world.compare(&format!("seed {seed}, step {step}, after {what}")).await;
        }
    }
    println!("{steps} steps, seed {seed}: {} jobs; {:?}", world.names, world.steps);
    world
}

impl World {
    fn new(redis: RedisServer, seed: u64, limits: Limits) -> Self {
        let mut queue = Queue { limits, ..queue() };
        // Nothing may vanish by retention: every job is accounted for.
        queue.keep_completed.count = usize::MAX >> 12;
        queue.keep_dead.count = usize::MAX >> 12;
        let nodes = (0..NODES).map(|n| node(&redis, &format!("n{n}"))).collect();
        let held = (0..NODES).map(|_| Vec::new()).collect();
        Self {
            redis,
            random: Random(seed | 1),
            queue,
            now: at(0),
            nodes,
            held,
            zombies: Vec::new(),
            oracle: Oracle::default(),
            purges: Vec::new(),
            leases: HashMap::new(),
            started: NODES,
            names: 0,
            deleted: BTreeSet::new(),
            steps: HashMap::new(),
        }
    }

    /// One random operation by one random node; says which.
    async fn step(&mut self) -> &'static str {
        self.now = self.now.after(Duration::from_millis(self.random.below(3_000)));
        let n = self.random.index(NODES);
        // Pauses are short: what waits behind a long one makes the world too large to be compared often.
        if self.random.below(4) == 0 && self.resume_all(n).await {
            return "resume";
        }
        match self.random.below(112) {
            0..25 => self.enqueue(n).await,
            25..55 => self.claim(n).await,
            55..80 => {
                // More than is claimed on average, so that the walk keeps to a size at which it can be compared often.
                for _ in 0..4 {
                    self.settle(n).await;
                }
                "settles"
            }
            80..84 => self.crash(n),
            84..92 => self.sweep(n).await,
            92..96 => self.zombie_speaks().await,
            96..104 => self.alter(n).await,
            104..107 => self.pause(n).await,
            107..109 => self.purge(n).await,
            _ => self.beat(n).await,
        }
    }

    fn took(&mut self, what: &'static str) {
        *self.steps.entry(what).or_default() += 1;
    }

    async fn enqueue(&mut self, n: usize) -> &'static str {
        let repeated = self.names > 0 && self.random.below(10) == 0;
        let number = if repeated { self.random.index(self.names) } else { self.names };
        let id = format!("j{number:06}");
        let mut job = job(&id, self.now);
        if self.random.below(4) == 0 {
            job.due = Some(self.now.after(Duration::from_millis(1 + self.random.below(30_000))));
        }
        if self.random.below(3) == 0 {
            let steps = i64::try_from(self.random.below(19)).expect("a small number") - 9;
            job.priority = Priority::new(steps).expect("in range");
        }
        if self.random.below(3) == 0 {
            job.task = TaskName::parse("other").expect("a valid name");
        }
        self.draw(&mut job);
        let fresh = !repeated || self.deleted.remove(&id);
        let answer = self.nodes[n].enqueue(std::slice::from_ref(&job)).await.expect("Redis answers").remove(0);
        assert_eq!(answer == Enqueued::Added, fresh, "{id} is taken exactly while it is used");
        if !repeated {
            self.names += 1;
        }
        if fresh {
            self.oracle.add(job, self.now);
        }
        "enqueue"
    }

    async fn claim(&mut self, n: usize) -> &'static str {
        let want = self.random.index(5);
        let exchange = self.nodes[n].exchange(&self.queue, Vec::new(), true, want, self.now).await;
        self.oracle.promote(self.now);
        let (claims, line) = exchange.claims.expect("Redis answers");
        if want == 0 {
            return "a look without a wish";
        }
        self.leases.insert(self.nodes[n].node.to_string(), self.now.after(LEASE));
        assert_eq!(line == Line::Paused, self.oracle.paused, "a paused queue says so");
        let got: Vec<String> = claims.iter().map(|claim| claim.job.id.to_string()).collect();
        if self.queue.limits.is_empty() {
            assert_eq!(got, self.oracle.next(want, self.queue.ageing), "those are claimed whose turn it is, in order");
        } else {
            self.may_all_run(&got);
        }
        for id in got {
            self.oracle.put(&id, Place::Active { node: n });
        }
        // Now and then the answer is lost: the node never hears of its claims.
        if self.random.below(20) == 0 {
            drop(claims);
            return "a claim whose answer is lost";
        }
        self.held[n].extend(claims);
        "claim"
    }

    async fn settle(&mut self, n: usize) {
        if self.held[n].is_empty() {
            return;
        }
        let index = self.random.index(self.held[n].len());
        let claim = self.held[n].swap_remove(index);
        let outcome = self.outcome();
        // A living node may have lost its lease to a sweep while it was silent: then its claim is not the active one.
        let holds = self.is_current(&claim).await;
        self.settle_as(n, claim, outcome, holds).await;
    }

    /// Settles a claim of node `n`; it applies if the claim `holds`, unless the job would go on and is to be cancelled.
    async fn settle_as(&mut self, n: usize, claim: Claim, outcome: Outcome, holds: bool) {
        let settlement = settlement(&self.nodes[n], &self.queue, claim, outcome, self.now);
        let id = settlement.claim.job.id.to_string();
        let place = place_after(&settlement);
        let goes_on = !matches!(settlement.decision.next, Next::End(_));
        let to_cancel = holds && goes_on && self.oracle.jobs[&id].to_cancel;
        let mut exchange = self.nodes[n].exchange(&self.queue, vec![settlement], false, 0, self.now).await;
        let answer = exchange.settled.expect("Redis answers")[0];
        if to_cancel {
            assert_eq!(answer, Settled::ToBeCancelled, "{id} must not go on");
            let claim = exchange.to_cancel.remove(0);
            let cancelled =
                super::settlement(&self.nodes[n], &self.queue, claim, Outcome::Cancelled(request(self.now)), self.now);
            let exchange = self.nodes[n].exchange(&self.queue, vec![cancelled], false, 0, self.now).await;
            assert_eq!(exchange.settled.expect("Redis answers"), [Settled::Applied]);
            self.oracle.put(&id, Place::Ended(State::Cancelled));
            self.took("cancelled at its settle");
            return;
        }
        assert_eq!(
            answer == Settled::Applied,
            holds,
            "{id}: a settle applies exactly while the claim is the active one"
        );
        if holds {
            self.oracle.put(&id, place);
        }
        self.took(if holds { "settled" } else { "refused" });
    }

    /// Whether Redis still names this very claim: the oracle keeps nodes, not tokens.
    async fn is_current(&self, claim: &Claim) -> bool {
        let view = self.nodes[0].store.job(&claim.job.id, std::slice::from_ref(&self.queue.name)).await;
        let active = view.expect("Redis answers").and_then(|view| view.active);
        active.is_some_and(|active| active.token == claim.token)
    }

    fn outcome(&mut self) -> Outcome {
        match self.random.below(7) {
            0 | 1 => Outcome::Success(Value::Null),
            2 => Failure::new("E", "no").into(),
            3 => Failure::never("E", "never").into(),
            4 => Outcome::Snoozed { delay: Some(Duration::from_secs(5)), reason: "not now".into() },
            5 => Outcome::Expired(self.now),
            _ => Outcome::Interrupted { reason: "stopping".into() },
        }
    }

    /// The process is gone; what it held may still speak up later, with its old tokens.
    fn crash(&mut self, n: usize) -> &'static str {
        self.started += 1;
        let fresh = node(&self.redis, &format!("n{}", self.started));
        let dead = std::mem::replace(&mut self.nodes[n], fresh);
        let name = dead.node.to_string();
        let mut claims = std::mem::take(&mut self.held[n]);
        if let Some(claim) = claims.pop() {
            self.zombies.push((dead, claim));
        }
        // In the oracle a dead node's claims belong to nobody of ours.
        for known in self.oracle.jobs.values_mut() {
            if known.place == (Place::Active { node: n }) {
                known.place = Place::Active { node: usize::MAX };
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
            self.settle_as(n, swept.claim, outcome, true).await;
            self.took("taken over");
        }
        "sweep"
    }

    /// Who holds each active job, and since when.
    async fn actives(&self) -> HashMap<String, (String, Timestamp)> {
        let mut actives = HashMap::new();
        for (id, known) in &self.oracle.jobs {
            if matches!(known.place, Place::Active { .. }) {
                let view = self.nodes[0].store.job(&known.job.id, std::slice::from_ref(&self.queue.name)).await;
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
            self.oracle.put(&id, Place::Ended(State::Completed));
        }
        "a zombie's settle"
    }

    /// Somebody does something to a job, whatever it is doing.
    async fn alter(&mut self, n: usize) -> &'static str {
        if self.oracle.jobs.is_empty() {
            return "nothing to alter";
        }
        let index = self.random.index(self.oracle.jobs.len());
        let (id, known) = self.oracle.jobs.iter().nth(index).expect("it is below the length");
        let (id, job_id) = (id.clone(), known.job.id.clone());
        let (verb, change) = match self.random.below(4) {
            0 => (Verb::Cancel, Change::Cancel(request(self.now))),
            1 => (Verb::Retry, Change::Retry(None)),
            2 => (Verb::Promote, Change::Promote),
            _ => (Verb::Delete, Change::Delete),
        };
        let answer = self.nodes[n].alter(&self.queue.name, &[job_id], &change, self.now).await.expect("Redis answers");
        let expected = self.oracle.alter(&id, verb, self.now);
        assert_eq!(answer, [expected.clone()], "{id}: {verb:?}");
        match expected {
            Altered::Done(None) => {
                self.deleted.insert(id);
                "deleted"
            }
            Altered::Done(_) => "altered",
            _ => "asked in vain",
        }
    }

    /// Pauses what runs or resumes what is paused: the queue, or a task.
    async fn pause(&mut self, n: usize) -> &'static str {
        let task = TaskName::parse("other").expect("a valid name");
        let (what, paused) = if self.random.below(3) == 0 {
            (Paused::Queue, &mut self.oracle.paused)
        } else {
            let paused = self.oracle.paused_tasks.contains(&task);
            if paused {
                self.oracle.paused_tasks.remove(&task);
            } else {
                self.oracle.paused_tasks.insert(task.clone());
            }
            (Paused::Task(task), &mut { paused })
        };
        let (broker, queue) = (&self.nodes[n], &self.queue.name);
        if std::mem::replace(paused, !*paused) {
            assert!(broker.resume(queue, &what).await.expect("Redis answers"), "it was paused");
            "resume"
        } else {
            broker.pause(queue, &what, &request(self.now)).await.expect("Redis answers");
            "pause"
        }
    }

    /// Ends every pause; says whether there was one.
    async fn resume_all(&mut self, n: usize) -> bool {
        let mut paused: Vec<Paused> =
            std::mem::take(&mut self.oracle.paused_tasks).into_iter().map(Paused::Task).collect();
        if std::mem::take(&mut self.oracle.paused) {
            paused.push(Paused::Queue);
        }
        for what in &paused {
            assert!(self.nodes[n].resume(&self.queue.name, what).await.expect("Redis answers"), "it was paused");
        }
        !paused.is_empty()
    }

    /// Purges the queue, or takes a purge back.
    async fn purge(&mut self, n: usize) -> &'static str {
        let (broker, queue) = (&self.nodes[n], &self.queue.name);
        match self.purges.pop() {
            Some((purge, taken)) => {
                let back = broker.restore(queue, &purge).await.expect("Redis answers");
                self.oracle.restore(&taken);
                let whole = if taken.is_empty() { Restored::Gone } else { Restored::All(taken.len() as u64) };
                assert_eq!(back, whole);
                "purge taken back"
            }
            None => {
                let purge = broker.purge(queue, &[], self.now).await.expect("Redis answers");
                let taken = self.oracle.purge();
                assert_eq!(purge.jobs, taken.len() as u64);
                self.purges.push((purge.id, taken));
                "purge"
            }
        }
    }

    async fn compare(&mut self, context: &str) {
        let mut held = false;
        for (id, Known { job, place, .. }) in &self.oracle.jobs {
            let view = self.nodes[0].store.job(&job.id, std::slice::from_ref(&self.queue.name)).await;
            let view = view.expect("Redis answers").unwrap_or_else(|| panic!("{context}: {id} is lost"));
            let since = match place {
                Place::Pending(since) if job.priority == Priority::default() => Some(*since),
                Place::Pending(_) => Some(job.due.unwrap_or(job.enqueued_at)),
                Place::Scheduled(due) | Place::Retry(due) => Some(*due),
                Place::Active { .. } | Place::Ended(_) | Place::Purged(_) => None,
            };
            assert_eq!((view.state(), view.due), (place.state(), since), "{context}: {id}");
            held |= view.place == crate::store::Place::Held;
        }
        let numbers =
            self.nodes[0].store.queues(&[(self.queue.name.clone(), Vec::new())]).await.expect("Redis answers");
        assert_eq!(numbers[0].pending, self.oracle.count(State::Pending), "{context}: pending");
        assert_eq!(numbers[0].active, self.oracle.count(State::Active), "{context}: active");
        assert_eq!(numbers[0].retry, self.oracle.count(State::Retry), "{context}: retry");
        assert_eq!(numbers[0].scheduled, self.oracle.count(State::Scheduled), "{context}: scheduled");
        if held {
            self.took("held");
        }
        self.forget_ended();
    }

    /// Ended jobs were compared; keeping a few is enough for repeated ids, and the comparison stays quick.
    fn forget_ended(&mut self) {
        let ended = |known: &Known| matches!(known.place, Place::Ended(_));
        let ended: Vec<String> =
            self.oracle.jobs.iter().filter(|(_, known)| ended(known)).map(|(id, _)| id.clone()).collect();
        for id in ended.iter().take(ended.len().saturating_sub(20)) {
            self.oracle.jobs.remove(id);
        }
    }
}

fn request(now: Timestamp) -> Request {
    Request { at: now, by: "ann".to_owned(), reason: None }
}

/// xorshift64: the same walk for the same seed, everywhere.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("below a usize")
    }
}
