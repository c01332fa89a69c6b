//! Unique keys against a sequential oracle: short random walks of three nodes over a handful of keys, with crashes and lost
//! answers between any two steps, and with nodes that race for a key.
//!
//! `JOBSD_UNIQUE_CASES` sets the number of walks (default: a short form) and `JOBSD_UNIQUE_SEED` the seed of the first; a
//! failure prints the seed of its walk, which comes first when that is given.

mod oracle;
mod scenes;

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::model::Random;
use super::*;
use crate::broker::{
    Admission, Admitted, Altered, Change, Enqueued, Fired, Paused, Restored, Taken, Verdict, Withdrawn,
};
use crate::job::{Failure, Hold, Request, Unique, UniqueKey, UniqueRule, Until, Wire};
use oracle::{Oracle, Place};

const SHORT: u64 = 150;
const STEPS: usize = 40;
const NODES: usize = 3;
/// Ended jobs are kept for so long.
const KEEP: Duration = Duration::from_secs(4);

/// Three nodes on a Redis, and what all walks came to.
struct World {
    redis: RedisServer,
    queue: Queue,
    nodes: Vec<Broker>,
    started: usize,
    now: Timestamp,
    seen: HashMap<&'static str, usize>,
}

/// One walk.
struct Walk<'w> {
    world: &'w mut World,
    random: Random,
    oracle: Oracle,
    names: usize,
    held: Vec<Vec<Claim>>,
    purges: Vec<(String, Vec<String>)>,
    paused: bool,
    context: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn unique_keys_are_held_as_the_oracle_says() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (cases, seed) = (number("JOBSD_UNIQUE_CASES", SHORT), number("JOBSD_UNIQUE_SEED", 20_261_123));
    let mut world = World::new();
    for case in 0..cases {
        Walk::new(&mut world, seed.wrapping_add(case)).run().await;
    }
    println!("{cases} walks of {STEPS} steps from seed {seed}: {:?}", world.seen);
    for what in [
        "added",
        "replaced",
        "refused",
        "put off no longer",
        "retry refused",
        "duplicate of a message",
        "fire left out",
        "raced",
        "crash",
        "taken over",
        "an answer that is lost",
        "holder is deleted",
        "parked holder",
        "purge taken back",
        "keys that nobody holds",
    ] {
        assert!(world.seen.contains_key(what), "the walks never came to: {what}");
    }
}

impl World {
    fn new() -> Self {
        let redis = RedisServer::start();
        let mut queue = queue();
        (queue.keep_completed.age, queue.keep_dead.age) = (KEEP, KEEP);
        let nodes = (0..NODES).map(|n| node(&redis, &format!("n{n}"))).collect();
        Self { redis, queue, nodes, started: NODES, now: at(0), seen: HashMap::new() }
    }

    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }
}

impl<'w> Walk<'w> {
    fn new(world: &'w mut World, seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        (0..5).for_each(|_| {
            random.below(2);
        });
        let held = (0..NODES).map(|_| Vec::new()).collect();
        let (oracle, purges, context) = (Oracle::default(), Vec::new(), format!("JOBSD_UNIQUE_SEED={seed}"));
        Self { world, random, oracle, names: 0, held, purges, paused: false, context }
    }

    async fn run(mut self) {
        raw(&self.world.nodes[0], &["FLUSHDB"]).await;
        let context = self.context.clone();
        for step in 0..STEPS {
            self.world.now = self.world.now.after(Duration::from_millis(self.random.below(4_000)));
            self.context = format!("{context}, step {step}");
            let what = self.step().await;
            self.context = format!("{context}, step {step}, after {what}");
            self.compare().await;
        }
    }

    async fn step(&mut self) -> &'static str {
        let n = self.random.index(NODES);
        match self.random.below(100) {
            0..30 => self.enqueue(n).await,
            30..36 => self.admit(n).await,
            36..40 => self.fire(n).await,
            40..45 => self.race().await,
            45..62 => self.claim(n).await,
            62..75 => self.settle(n).await,
            75..78 => self.crash(n),
            78..82 => self.sweep(n).await,
            82..90 => self.alter(n).await,
            90..92 => self.purge(n).await,
            92..93 => self.pause(n).await,
            _ => self.prune(n).await,
        }
    }

    /// A job that is most likely unique, by any rule.
    fn job(&mut self) -> Job {
        let job = job(&format!("j{:04}", self.names), self.world.now);
        self.names += 1;
        self.dressed(job)
    }

    fn dressed(&mut self, mut job: Job) -> Job {
        let now = self.world.now;
        if self.random.below(3) == 0 {
            job.task = TaskName::parse("other").expect("a valid name");
        }
        if self.random.below(4) == 0 {
            job.due = Some(now.after(Duration::from_millis(1 + self.random.below(10_000))));
        }
        if self.random.below(4) == 0 {
            let steps = i64::try_from(self.random.below(19)).expect("a small number") - 9;
            job.priority = Priority::new(steps).expect("in range");
        }
        // A decoy: the scripts look for keys in the text of records.
        let decoy = json!({"unique": {"key": "a"}, "due": 5, "end": {"state": "x", "at": 1, "started": 2}});
        job.args.insert("decoy".to_owned(), decoy);
        if self.random.below(12) > 0 {
            let key = [r"a", r#"b "{holder}\ %1 ü"#][self.random.index(2)];
            let rule = self.rule();
            job.due = rule.wait().map(|wait| now.after(wait)).or(job.due);
            job.unique = Some(Unique { key: UniqueKey::new(key), rule });
        }
        job
    }

    fn rule(&mut self) -> UniqueRule {
        let span = Duration::from_millis(500 + self.random.below(60_000));
        let until = [Until::Started, Until::Completed, Until::Ended][self.random.index(3)];
        let hold = match self.random.below(4) {
            0 => Hold::For(span),
            1 => Hold::Either(until, span),
            _ => Hold::Until(until),
        };
        match self.random.below(6) {
            0 | 1 => UniqueRule::Reject(hold),
            2 | 3 => UniqueRule::Replace(hold),
            4 => {
                let wait = Duration::from_millis(500 + self.random.below(8_000));
                UniqueRule::Debounce { wait, longest: (self.random.below(2) == 0).then_some(wait * 2) }
            }
            _ => UniqueRule::Throttle { span },
        }
    }

    async fn enqueue(&mut self, n: usize) -> &'static str {
        let job = if self.names > 0 && self.random.below(12) == 0 {
            let id = format!("j{:04}", self.random.index(self.names));
            let again = super::job(&id, self.world.now);
            self.dressed(again)
        } else {
            self.job()
        };
        let answer = self.world.nodes[n].enqueue(std::slice::from_ref(&job)).await.expect("Redis answers").remove(0);
        let expected = self.oracle.enqueue(job.clone(), self.world.now);
        self.saw_enqueued(&expected, &job);
        assert_eq!(answer, expected, "{}: enqueue of {job:?}", self.context);
        if self.random.below(8) > 0 {
            return "enqueue";
        }
        // The answer is lost, and whoever asked asks another node.
        let again = self.world.nodes[(n + 1) % NODES].enqueue(std::slice::from_ref(&job)).await;
        let expected = self.oracle.enqueue(job, self.world.now);
        assert_eq!(again.expect("Redis answers"), [expected], "{}: the second time", self.context);
        self.world.saw("an answer that is lost");
        "enqueue, twice"
    }

    fn saw_enqueued(&mut self, outcome: &Enqueued, job: &Job) {
        match outcome {
            Enqueued::Added => self.world.saw("added"),
            Enqueued::Replaced { due, .. } => {
                self.world.saw("replaced");
                if *due != job.due {
                    self.world.saw("put off no longer");
                }
            }
            Enqueued::Held(holder) => {
                self.world.saw("refused");
                if holder.state.is_none() {
                    self.world.saw("holder is deleted");
                }
            }
            Enqueued::Exists | Enqueued::NotReady => {}
        }
    }

    /// Messages of a foreign producer, two at a time: what is in their way ends them, and their producer is owed word.
    async fn admit(&mut self, n: usize) -> &'static str {
        let origin = Origin::Wire { wire: Wire::Celery, list: "mails".into(), reply: Value::Null };
        let jobs: Vec<Job> = (0..2).map(|_| Job { origin: origin.clone(), ..self.job() }).collect();
        let mut admissions = Vec::new();
        for job in &jobs {
            let field = format!("gone/{}\0mails", job.id);
            raw(&self.world.nodes[n], &["HSET", &self.keys().inflight, &field, "x"]).await;
            let taken = Taken { field, list: "mails".into(), element: b"x".to_vec() };
            admissions.push(Admission { taken, verdict: Verdict::Job(Box::new(job.clone())), hash: None });
        }
        let queue = self.world.queue.name.clone();
        let answers = self.world.nodes[n].admit(&queue, &admissions, Withdrawn::default(), self.world.now).await;
        for (job, answer) in jobs.into_iter().zip(answers.expect("Redis answers")) {
            match self.oracle.enqueue(job.clone(), self.world.now) {
                Enqueued::Held(holder) => {
                    assert_eq!(answer, Admitted::Duplicate(holder), "{}: admission of {job:?}", self.context);
                    self.oracle.leave_out(job, self.world.now);
                    self.world.saw("duplicate of a message");
                }
                _ => assert_eq!(answer, Admitted::Yes, "{}: admission of {job:?}", self.context),
            }
        }
        let again = self.world.nodes[n].admit(&queue, &admissions, Withdrawn::default(), self.world.now).await;
        assert_eq!(again.expect("Redis answers"), [Admitted::DoneBefore, Admitted::DoneBefore]);
        "admission"
    }

    async fn fire(&mut self, n: usize) -> &'static str {
        let (job, now) = (self.job(), self.world.now);
        let schedule = format!("s{}", self.names);
        let answer = self.world.nodes[n].fire(&schedule, now, &job, false).await.expect("Redis answers");
        match self.oracle.enqueue(job.clone(), now) {
            Enqueued::Held(holder) => {
                assert_eq!(answer, Fired::Held(holder), "{}: fire of {job:?}", self.context);
                self.world.saw("fire left out");
            }
            _ => assert_eq!(answer, Fired::Enqueued, "{}: fire of {job:?}", self.context),
        }
        let again = self.world.nodes[(n + 1) % NODES].fire(&schedule, now, &job, false).await;
        assert_eq!(again.expect("Redis answers"), Fired::DoneBefore);
        "fire"
    }

    /// All nodes at once, each with a job of its own: there is an order in which it happened.
    async fn race(&mut self) -> &'static str {
        let jobs: Vec<Job> = (0..NODES).map(|_| self.job()).collect();
        let calls = self.world.nodes.iter().zip(&jobs).map(|(node, job)| node.enqueue(std::slice::from_ref(job)));
        let [a, b, c] = <[_; NODES]>::try_from(calls.collect::<Vec<_>>()).ok().expect("as many as nodes");
        let (a, b, c) = tokio::join!(a, b, c);
        let answers: Vec<Enqueued> = [a, b, c].into_iter().map(|one| one.expect("Redis answers").remove(0)).collect();
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut oracle = self.oracle.clone();
            if order.iter().all(|&one| oracle.enqueue(jobs[one].clone(), self.world.now) == answers[one]) {
                self.oracle = oracle;
                self.world.saw("raced");
                return "race";
            }
        }
        panic!("{}: no order explains {answers:#?} of {jobs:#?}", self.context);
    }

    async fn claim(&mut self, n: usize) -> &'static str {
        let (want, now) = (1 + self.random.index(2), self.world.now);
        let claims = claim(&self.world.nodes[n], &self.world.queue, want, now).await;
        self.oracle.promote(now);
        for claim in &claims {
            self.oracle.claim(claim.job.id.as_str(), claim.token, now);
        }
        if self.random.below(12) == 0 {
            return "a claim whose answer is lost";
        }
        self.held[n].extend(claims);
        "claim"
    }

    async fn settle(&mut self, n: usize) -> &'static str {
        for _ in 0..3 {
            if let Some(claim) = self.held[n].pop() {
                let outcome = self.outcome();
                self.settle_as(n, claim, outcome).await;
            }
        }
        "settle"
    }

    async fn settle_as(&mut self, n: usize, claim: Claim, outcome: Outcome) {
        let (now, id, token) = (self.world.now, claim.job.id.to_string(), claim.token);
        let holds = self.oracle.jobs.get(&id).is_some_and(|known| known.place == Place::Active(token));
        let (node, queue) = (&self.world.nodes[n], &self.world.queue);
        let settlement = settlement(node, queue, claim, outcome.clone(), now);
        let next = settlement.decision.next;
        let mut exchange = node.exchange(queue, vec![settlement], false, 0, now).await;
        match exchange.settled.expect("Redis answers")[0] {
            Settled::Applied => self.oracle.settle(&id, &outcome, &next, now),
            Settled::ToBeCancelled => {
                assert!(self.oracle.jobs[&id].to_cancel, "{}: nobody cancelled {id}", self.context);
                let (claim, outcome) = (exchange.to_cancel.remove(0), Outcome::Cancelled(request(now)));
                let ends = super::settlement(node, queue, claim, outcome.clone(), now);
                let next = ends.decision.next;
                let settled = node.exchange(queue, vec![ends], false, 0, now).await.settled;
                assert_eq!(settled.expect("Redis answers"), [Settled::Applied]);
                self.oracle.settle(&id, &outcome, &next, now);
            }
            _ => assert!(!holds, "{}: a settle of {id} was refused", self.context),
        }
    }

    fn outcome(&mut self) -> Outcome {
        match self.random.below(8) {
            0..3 => Outcome::Success(Value::Null),
            3 => Failure::new("E", "no").into(),
            4 => Failure::never("E", "never").into(),
            5 => Outcome::Snoozed { delay: Some(Duration::from_secs(5)), reason: "not now".into() },
            6 => Outcome::Expired(self.world.now),
            _ => Outcome::Interrupted { reason: "stopping".into() },
        }
    }

    /// The process is gone with everything it held.
    fn crash(&mut self, n: usize) -> &'static str {
        self.world.started += 1;
        self.world.nodes[n] = node(&self.world.redis, &format!("n{}", self.world.started));
        self.held[n].clear();
        self.world.saw("crash");
        "crash"
    }

    async fn sweep(&mut self, n: usize) -> &'static str {
        let (queue, now) = (self.world.queue.name.clone(), self.world.now);
        let swept = self.world.nodes[n].sweep(&queue, now, now, 100).await.expect("Redis answers");
        for swept in swept {
            let outcome = if swept.crashed {
                Outcome::Crashed { reason: swept.reason }
            } else {
                Outcome::Interrupted { reason: swept.reason }
            };
            let known = self.oracle.jobs.get_mut(swept.claim.job.id.as_str()).expect("the oracle knows every job");
            assert!(matches!(known.place, Place::Active(_)));
            known.place = Place::Active(swept.claim.token);
            self.settle_as(n, swept.claim, outcome).await;
            self.world.saw("taken over");
        }
        "sweep"
    }

    async fn alter(&mut self, n: usize) -> &'static str {
        if self.oracle.jobs.is_empty() {
            return "nothing to alter";
        }
        let index = self.random.index(self.oracle.jobs.len());
        let id = self.oracle.jobs.keys().nth(index).cloned().expect("it is below the length");
        let now = self.world.now;
        let (change, expected) = match self.random.below(8) {
            0 | 1 => (Change::Cancel(request(now)), self.oracle.cancel(&id, now)),
            2..6 => (Change::Retry(None), self.oracle.retry(&id, now)),
            6 => (Change::Promote, self.oracle.promote_one(&id)),
            _ => (Change::Delete, self.oracle.delete(&id)),
        };
        let (queue, job) = (self.world.queue.name.clone(), JobId::parse(&id).expect("an id"));
        let answer = self.world.nodes[n].alter(&queue, &[job], &change, now).await.expect("Redis answers");
        assert_eq!(answer, std::slice::from_ref(&expected), "{}: {change:?} of {id}", self.context);
        if matches!(expected, Altered::Held(_)) {
            self.world.saw("retry refused");
        }
        "a person's step"
    }

    async fn purge(&mut self, n: usize) -> &'static str {
        let (node, queue) = (&self.world.nodes[n], &self.world.queue.name);
        if let Some((purge, taken)) = self.purges.pop() {
            let back = node.restore(queue, &purge).await.expect("Redis answers");
            self.oracle.restore(&taken);
            let whole = if taken.is_empty() { Restored::Gone } else { Restored::All(taken.len() as u64) };
            assert_eq!(back, whole);
            self.world.saw("purge taken back");
            return "purge taken back";
        }
        let purge = node.purge(queue, &[], self.world.now).await.expect("Redis answers");
        self.purges.push((purge.id, self.oracle.purge()));
        "purge"
    }

    /// A claim puts the jobs of a paused task aside: they wait all the same.
    async fn pause(&mut self, n: usize) -> &'static str {
        let task = Paused::Task(TaskName::parse("other").expect("a valid name"));
        let (node, queue) = (&self.world.nodes[n], &self.world.queue.name);
        self.paused = !self.paused;
        if !self.paused {
            node.resume(queue, &task).await.expect("Redis answers");
        } else {
            node.pause(queue, &task, &request(self.world.now)).await.expect("Redis answers");
        }
        "pause or resume"
    }

    /// Retention, and the walk through the keys: what is left in their hash is held.
    async fn prune(&mut self, n: usize) -> &'static str {
        let now = self.world.now;
        let before = self.entries().await.len();
        // The walk comes before the retention, so that what is deleted now is found by the second one.
        for _ in 0..2 {
            self.world.nodes[n].prune(&self.world.queue, now).await.expect("Redis answers");
        }
        self.oracle.forget(KEEP, now);
        let left = self.entries().await;
        for (task, key) in self.oracle.keys() {
            let field = format!("{task} {}", Value::from(key.as_str()));
            let held = self.oracle.holder(&task, &key, now).is_some();
            let story = || format!("{}: the key {field}; {:#?}", self.context, self.oracle);
            assert!(left.contains(&field) || !held, "it is held and was deleted; {}", story());
            let kept = held || self.oracle.may_return(&task, &key);
            assert!(!left.contains(&field) || kept, "nobody holds it and it was left; {}", story());
        }
        if left.len() < before {
            self.world.saw("keys that nobody holds");
        }
        "prune"
    }

    async fn entries(&self) -> BTreeSet<String> {
        let keys = raw(&self.world.nodes[0], &["HKEYS", &self.keys().unique]).await;
        redis::FromRedisValue::from_redis_value(keys).expect("texts")
    }

    fn keys(&self) -> crate::store::QueueKeys {
        self.world.nodes[0].keys(&self.world.queue.name)
    }

    /// Every job is where the oracle has it, and the producer of every foreign one that has ended is owed word of it.
    async fn compare(&mut self) {
        let debts = raw(&self.world.nodes[0], &["HKEYS", &self.keys().outbox]).await;
        let debts: BTreeSet<String> = redis::FromRedisValue::from_redis_value(debts).expect("texts");
        let queue = &self.world.queue.name;
        let jobs: Vec<_> = self.oracle.jobs.values().filter(|known| known.place != Place::Forgotten).collect();
        let wanted: Vec<_> = jobs.iter().map(|known| (queue, &known.job.id)).collect();
        let standings = self.world.nodes[0].store.standings(&wanted).await.expect("Redis answers");
        let mut parked = false;
        for (known, standing) in jobs.iter().zip(standings) {
            let id = &known.job.id;
            let standing = standing.unwrap_or_else(|| panic!("{}: {id} is lost", self.context));
            assert_eq!(Some(standing.state()), known.place.state(), "{}: {id}", self.context);
            if let Place::Scheduled(due) = known.place {
                assert_eq!((standing.due, standing.job.due), (Some(due), Some(due)), "{}: {id}", self.context);
            }
            assert_eq!(standing.job.unique, known.job.unique, "{}: {id}", self.context);
            let ended = standing.history.end.as_ref().map(|end| end.state);
            let expected = match known.place {
                Place::Ended(state, _) => Some(state),
                _ => None,
            };
            assert_eq!(ended, expected, "{}: {id} says how it ended", self.context);
            if ended.is_some() && matches!(known.job.origin, Origin::Wire { .. }) {
                assert!(debts.contains(id.as_str()), "{}: the producer of {id} is not told", self.context);
            }
            parked |= standing.place == crate::store::Place::Held && known.job.unique.is_some();
        }
        if parked {
            self.world.saw("parked holder");
        }
    }
}

fn request(now: Timestamp) -> Request {
    Request { at: now, by: "ann".to_owned(), reason: None }
}
