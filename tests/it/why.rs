//! `jobsd why`: every job that waits has one cause, and when that is removed the job runs or has another one.
//!
//! `JOBSD_WHY_ROUNDS` sets the number of random situations (default: a short form) and `JOBSD_WHY_SEED` the seed, which a
//! failure prints.

use std::collections::BTreeMap;

use redis::Commands;
use serde_json::{Value, json};

use crate::bench::{Daemon, Home, Jobs, Redis, get, post, until};

const ROUNDS: u64 = 10;
/// More than the causes that can lie upon each other.
const STEPS: usize = 20;

const TASKS: &str = "[tasks.quick]\nqueue = \"work\"\nprobe = \"noop\"\n\
    [tasks.flaky]\nqueue = \"work\"\nparams = { retry = \"bool\" }\nprobe = \"fail\"\nretry = { limit = 3, delay = \"1h\" }\n\
    [tasks.hold]\nqueue = \"work\"\nparams = { seconds = \"number\" }\nprobe = \"sleep\"\n";

/// A node that serves `work` beside another queue, with which it shares two slots.
fn sharing() -> String {
    format!(
        "node.concurrency = 2\n[queues.work]\nconcurrency = 1\ntimeout = \"2h\"\n[queues.other]\nconcurrency = 2\ntimeout = \"2h\"\n\
         {TASKS}[tasks.other_hold]\nqueue = \"other\"\nparams = {{ seconds = \"number\" }}\nprobe = \"sleep\"\n"
    )
}

fn plain() -> String {
    format!("[queues.work]\nconcurrency = 1\ntimeout = \"2h\"\n{TASKS}")
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        // Xorshift: the same walk for the same seed, everywhere.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A node that may be dead.
struct Node {
    home: Home,
    daemon: Option<Daemon>,
}

impl Node {
    fn start(redis: &Redis, config: &str) -> Self {
        let home = Home::new(redis, config);
        let daemon = Some(home.start());
        Self { home, daemon }
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("it lives")
    }

    fn id(&self) -> String {
        let this = until("the node to be on the list", || {
            let nodes = get(self.daemon().admin, "/api/v1/nodes").json();
            nodes["nodes"].as_array()?.iter().find(|node| node["this"] == true).cloned()
        });
        this["node"].as_str().expect("a name").to_owned()
    }

    fn revive(&mut self) {
        if self.daemon.is_none() {
            self.daemon = Some(self.home.start());
        }
    }
}

struct World {
    random: Random,
    /// Two that serve `work`.
    nodes: [Node; 2],
    /// Serves another queue: it is asked.
    desk: Node,
    work: Jobs,
    redis: Redis,
    seen: BTreeMap<String, usize>,
}

impl World {
    fn new(seed: u64) -> Self {
        let redis = Redis::start();
        let nodes = [Node::start(&redis, &sharing()), Node::start(&redis, &plain())];
        let desk = Node::start(&redis, "[queues.desk]\n");
        let work = Jobs::of(&redis, "work");
        Self { random: Random(seed | 1), nodes, desk, work, redis, seen: BTreeMap::new() }
    }

    fn alive(&self) -> &Daemon {
        self.nodes.iter().find_map(|node| node.daemon.as_ref()).expect("one of the nodes lives")
    }

    fn why(&self, id: &str) -> Value {
        let answer = get(self.desk.daemon().admin, &format!("/api/v1/jobs/{id}/why"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    fn shown(&self, id: &str) -> Option<Value> {
        let nodes = get(self.desk.daemon().admin, "/api/v1/nodes").json();
        nodes["nodes"].as_array()?.iter().find(|node| node["node"] == id).cloned()
    }

    fn put(&self, job: &Value) -> String {
        let answer = post(self.alive().admin, "/api/v1/jobs", job);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    fn verb(&self, path: &str) {
        let answer = post(self.alive().admin, &format!("/api/v1/{path}"), &json!({}));
        assert!((200..300).contains(&answer.status), "{path}: {answer:?}");
    }

    /// Fills some slots: up to one of the queue on each node, and up to two of those that the first node shares.
    fn fill(&mut self) {
        for (task, queue, most) in [("other_hold", "other", 3), ("hold", "work", 3)] {
            let count = self.random.below(most);
            let mut jobs = Jobs::of(&self.redis, queue);
            for n in 0..count {
                self.put(&json!({"task": task, "args": {"seconds": 7200}}));
                // A slot that is shared may be taken already.
                if queue == "other" {
                    jobs.until("active", n as usize + 1);
                }
            }
        }
    }

    /// The job that is asked about, in one of the ways in which a job waits.
    fn wait_in_some_way(&mut self) -> String {
        match self.random.below(4) {
            0 => self.put(&json!({"task": "quick", "in": "1h"})),
            1 => {
                let id = self.put(&json!({"task": "flaky", "args": {"retry": true}}));
                self.work.until("retry", 1);
                id
            }
            _ => String::new(),
        }
    }

    fn drain(&mut self, n: usize) {
        let id = self.nodes[n].id();
        self.verb(&format!("nodes/{id}/drain"));
        until("the node to drain", || self.shown(&id).filter(|node| node["draining"] == true));
    }

    fn kill(&mut self, n: usize) {
        let id = self.nodes[n].id();
        self.nodes[n].daemon.take().expect("it lives").kill();
        until("the node to be missed", || self.shown(&id).is_none_or(|node| node["alive"] == false).then_some(()));
    }

    /// A random situation, and the job in it.
    fn build(&mut self) -> String {
        let early = self.wait_in_some_way();
        self.fill();
        if self.random.one_in(3) {
            self.verb("queues/work/pause");
        }
        if self.random.one_in(3) {
            self.verb("tasks/quick/pause");
            self.verb("tasks/flaky/pause");
        }
        let id = if early.is_empty() { self.put(&json!({"task": "quick"})) } else { early };
        for n in 0..2 {
            if self.random.one_in(3) {
                self.drain(n);
            }
        }
        let dead = self.random.below(6);
        if dead < 2 {
            self.kill(dead as usize);
        } else if dead == 2 && get(self.alive().admin, &format!("/api/v1/jobs/{id}")).json()["state"] == "pending" {
            self.kill(0);
            self.kill(1);
        }
        id
    }

    /// Removes exactly the cause that was told.
    fn remove(&mut self, why: &Value, id: &str) {
        let details = &why["details"];
        match why["cause"].as_str().expect("a word") {
            "scheduled" | "retry" => self.verb(&format!("jobs/{id}/promote")),
            "queue-paused" => self.end_pause("queues/work/resume", "", why),
            "task-paused" => {
                let task = details["task"].as_str().expect("a task");
                self.end_pause(&format!("tasks/{task}/resume"), task, why);
            }
            "no-node" => {
                assert!(self.nodes.iter().all(|node| node.daemon.is_none()), "one lives: {why}");
                let n = self.random.below(2) as usize;
                self.nodes[n].revive();
            }
            "draining" => {
                let node = details["nodes"][0].as_str().expect("a node");
                assert_eq!(self.shown(node).expect("it is known")["draining"], true, "{why}");
                self.verb(&format!("nodes/{node}/resume"));
            }
            "slots-busy" => {
                assert_eq!(details["busy"], details["slots"], "{why}");
                let node = details["nodes"][0].as_str().expect("a node").to_owned();
                self.free("work", &node);
            }
            "shared-slots-busy" => {
                let node = details["node"].as_str().expect("a node").to_owned();
                let used = details["used"].as_object().expect("queues");
                let sum: u64 = used.values().filter_map(Value::as_u64).sum();
                assert_eq!(json!(sum), details["slots"], "{why}");
                let queue = used.keys().next().expect("a queue").clone();
                self.free(&queue, &node);
            }
            "in-line" | "running" | "recovering" | "completed" => {}
            other => panic!("the walk makes no such cause as {other}: {why}"),
        }
    }

    /// Where no node lives that knows the queue, nobody takes the verb: then the note of the pause is taken away.
    fn end_pause(&self, verb: &str, field: &str, why: &Value) {
        let pauses = self.work.key("pauses");
        let mut redis = self.redis.client();
        assert!(redis.hexists::<_, _, bool>(&pauses, field).expect("Redis answers"), "it was not paused: {why}");
        if self.nodes.iter().any(|node| node.daemon.is_some()) {
            self.verb(verb);
        } else {
            redis.hdel::<_, _, ()>(&pauses, field).expect("Redis answers");
        }
    }

    /// Ends one job of the queue that runs on the node.
    fn free(&self, queue: &str, node: &str) {
        let active: Vec<(String, String)> =
            self.redis.client().hgetall(Jobs::of(&self.redis, queue).key("active")).expect("Redis answers");
        let (id, _) = active.iter().find(|(_, holder)| holder.contains(node)).expect("it runs something");
        self.verb(&format!("jobs/{id}/cancel"));
    }

    /// What tells one situation of the job from another.
    fn mark(why: &Value) -> Value {
        json!([why["cause"], why["details"]])
    }

    fn round(&mut self, round: u64) {
        let id = self.build();
        for step in 0..STEPS {
            let why = self.why(&id);
            let cause = why["cause"].as_str().expect("a word").to_owned();
            println!("round {round}, step {step}: {}", why["sentence"].as_str().expect("a sentence"));
            *self.seen.entry(cause.clone()).or_default() += 1;
            // `flaky` fails and waits again: what there was to show has been shown.
            if cause == "completed" || (cause == "retry" && step > 0) {
                return;
            }
            self.remove(&why, &id);
            until(format!("{id} to run or to have another cause than {why}"), || {
                (Self::mark(&self.why(&id)) != Self::mark(&why)).then_some(())
            });
        }
        panic!("{id} still waits after {STEPS} causes were removed: {}", self.why(&id));
    }

    /// Ends everything, so that the next round begins with nothing.
    fn clear(&mut self) {
        self.nodes.iter_mut().for_each(Node::revive);
        let _: usize = self.redis.client().del(self.work.key("pauses")).expect("Redis answers");
        for node in &self.nodes {
            let id = node.id();
            self.verb(&format!("nodes/{id}/resume"));
            until("the node to claim again", || self.shown(&id).filter(|node| node["draining"] == false));
        }
        for queue in ["work", "other"] {
            let mut jobs = Jobs::of(&self.redis, queue);
            until("nothing to be left", || {
                let body = json!({"queue": queue, "state": "scheduled,pending,active,retry"});
                post(self.alive().admin, "/api/v1/jobs/cancel", &body);
                ["scheduled", "pending", "active", "retry"].iter().all(|state| jobs.count(state) == 0).then_some(())
            });
        }
    }
}

#[test]
fn every_job_that_waits_has_one_cause_and_without_it_runs_or_has_another() {
    let number = |name: &str, usual: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    let (rounds, seed) = (number("JOBSD_WHY_ROUNDS", ROUNDS), number("JOBSD_WHY_SEED", 20_261_123));
    println!("seed {seed}");
    let mut world = World::new(seed);
    for round in 0..rounds {
        world.round(round);
        world.clear();
    }
    println!("{rounds} situations: {:?}", world.seen);
}
