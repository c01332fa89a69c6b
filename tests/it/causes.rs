//! `jobsd why` beside limits, turns, flows, unique keys and a service that is down: what is named is what has to go.
//!
//! A walk as in [`why`](crate::why), on one node. `JOBSD_CAUSES_ROUNDS` sets the number of random situations (default: a
//! short form) and `JOBSD_CAUSES_SEED` the seed, which a failure prints.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::bench::{Daemon, Home, Jobs, Redis, Smtp, free_port, get, post, until};

const ROUNDS: u64 = 8;
const STEPS: usize = 30;

const CONFIG: &str = r#"
[queues.calls]
concurrency = 3
timeout = "2h"
retry = false
limit = { key = "{{ user | default('') }}", concurrency = 1 }
[tasks.call]
queue = "calls"
params = { user = "string" }
probe = "noop"
[tasks.hold]
queue = "calls"
params = { user = "string", seconds = "number" }
probe = "sleep"
[tasks.rated]
queue = "calls"
params = { user = "string" }
limit = { rate = "1/2s" }
probe = "noop"
[tasks.heavy]
queue = "calls"
params = { size = "int", seconds = "number" }
limit = { concurrency = 4, points = "{{ size }}" }
probe = "sleep"
[tasks.burst]
queue = "calls"
params = { user = "string" }
unique = { key = "{{ user }}", on_conflict = "debounce", wait = "1h" }
probe = "noop"
[tasks.gate]
queue = "turns"
params = { n = "int" }
exec = { program = "/bin/sh", args = ["-c", 'until [ -e open-$1 ]; do sleep 0.05; done', "x", "{{ n }}"] }
[tasks.fussy]
queue = "turns"
params = { n = "int" }
exec = { program = "/bin/sh", args = ["-c", '[ -e open-$1 ]', "x", "{{ n }}"] }
[queues.turns]
concurrency = 1
timeout = "2h"
retry = false
fair_by = "{{ user | default('') }}"
[tasks.turn]
queue = "turns"
params = { user = "string", seconds = "number" }
probe = "sleep"
"#;

struct World {
    random: u64,
    redis: Redis,
    home: Home,
    daemon: Daemon,
    seen: BTreeMap<String, usize>,
}

impl World {
    fn new(seed: u64) -> Self {
        let redis = Redis::start();
        let home = Home::new(&redis, CONFIG);
        let daemon = home.start();
        Self { random: seed | 1, redis, home, daemon, seen: BTreeMap::new() }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % n
    }

    fn why(&self, id: &str) -> Value {
        let answer = get(self.daemon.admin, &format!("/api/v1/jobs/{id}/why"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    fn verb(&self, path: &str) {
        let answer = post(self.daemon.admin, &format!("/api/v1/{path}"), &json!({}));
        assert!((200..300).contains(&answer.status), "{path}: {answer:?}");
    }

    fn put(&self, task: &str, args: &Value) -> String {
        let answer = post(self.daemon.admin, "/api/v1/jobs", &json!({"task": task, "args": args}));
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// The second job of a flow whose first one waits for a file, or fails without it.
    fn follower(&mut self, round: u64) -> String {
        let first = if self.below(2) == 0 { "gate" } else { "fussy" };
        let jobs = json!([{"name": "first", "task": first, "args": {"n": round}}, {"name": "second", "task": "call", "args": {"user": "d"}}]);
        let answer =
            post(self.daemon.admin, "/api/v1/flows", &json!({"id": format!("f{round}"), "flow": {"chain": jobs}}));
        assert_eq!(answer.status, 201, "{answer:?}");
        format!("flow:f{round}:second")
    }

    /// A random situation, and the job in it.
    fn build(&mut self, round: u64) -> String {
        let user = |n: u64| ["a", "b", "c"][n as usize];
        for _ in 0..self.below(4) {
            let user = user(self.below(3));
            self.put("hold", &json!({"user": user, "seconds": 7200}));
        }
        for _ in 0..self.below(3) {
            let user = user(self.below(2));
            self.put("turn", &json!({"user": user, "seconds": 7200}));
        }
        let id = match self.below(6) {
            0 => self.put("call", &json!({"user": "a"})),
            1 => {
                self.put("rated", &json!({"user": "x"}));
                self.put("rated", &json!({"user": "y"}))
            }
            2 => {
                self.put("heavy", &json!({"size": 2, "seconds": 7200}));
                self.put("heavy", &json!({"size": 3, "seconds": 7200}))
            }
            3 => self.follower(round),
            4 => self.put("burst", &json!({"user": "a"})),
            _ => self.put("turn", &json!({"user": "b", "seconds": 7200})),
        };
        for queue in ["calls", "turns"] {
            if self.below(4) == 0 {
                self.verb(&format!("queues/{queue}/pause"));
            }
        }
        id
    }

    /// Removes exactly the cause that was told.
    fn remove(&self, why: &Value, id: &str, round: u64) {
        let details = &why["details"];
        let queue = why["queue"].as_str().expect("a queue");
        match why["cause"].as_str().expect("a word") {
            "scheduled" => {
                assert_eq!(details["debounced"], true, "{why}");
                self.verb(&format!("jobs/{id}/promote"));
            }
            "queue-paused" => self.verb(&format!("queues/{queue}/resume")),
            "limited" => match details["holders"].as_array().and_then(|holders| holders.first()) {
                Some(holder) => self.verb(&format!("jobs/{}/cancel", holder.as_str().expect("an id"))),
                None => assert!(why["expected"].is_string(), "a window says when it has room: {why}"),
            },
            "slots-busy" => {
                assert_eq!(details["busy"], details["slots"], "{why}");
                let active: Vec<String> = redis::cmd("HKEYS")
                    .arg(Jobs::of(&self.redis, queue).key("active"))
                    .query(&mut self.redis.client())
                    .expect("Redis answers");
                self.verb(&format!("jobs/{}/cancel", active.first().expect("something runs")));
            }
            "flow" => self.until_first_ends(details, round),
            "flow-blocked" => {
                let culprit = details["culprit"].as_str().expect("an id");
                assert_eq!(culprit, format!("flow:f{round}:first"), "{why}");
                self.open(round);
                self.verb(&format!("jobs/{culprit}/retry"));
            }
            "in-line" | "running" | "completed" => {}
            other => panic!("the walk makes no such cause as {other}: {why}"),
        }
    }

    fn open(&self, round: u64) {
        fs::write(self.home.path(&format!("open-{round}")), "").expect("it can be written");
    }

    /// What the flow waits for may wait itself: for what, it is asked. A job that fails without the file is let fail.
    fn until_first_ends(&self, details: &Value, round: u64) {
        let Some(first) = details["waits_for"][0].as_str() else { return };
        let task = get(self.daemon.admin, &format!("/api/v1/jobs/{first}")).json()["task"].clone();
        if task == "gate" {
            self.open(round);
        }
        for _ in 0..STEPS {
            let why = self.why(first);
            match why["cause"].as_str().expect("a word") {
                "completed" | "dead" => return,
                _ => self.remove(&why, first, round),
            }
            until("the first one to go on", || (mark(&self.why(first)) != mark(&why)).then_some(()));
        }
        panic!("{first} does not end: {}", self.why(first));
    }

    fn round(&mut self, round: u64) {
        let id = self.build(round);
        for step in 0..STEPS {
            let why = self.why(&id);
            let cause = why["cause"].as_str().expect("a word").to_owned();
            println!("round {round}, step {step}: {}", why["sentence"].as_str().expect("a sentence"));
            *self.seen.entry(cause.clone()).or_default() += 1;
            if matches!(cause.as_str(), "running" | "completed") {
                return;
            }
            self.remove(&why, &id, round);
            until(format!("{id} to run or to have another cause than {why}"), || {
                (mark(&self.why(&id)) != mark(&why)).then_some(())
            });
        }
        panic!("{id} still waits after {STEPS} causes were removed: {}", self.why(&id));
    }

    fn clear(&mut self, round: u64) {
        self.open(round);
        for queue in ["calls", "turns"] {
            self.verb(&format!("queues/{queue}/resume"));
        }
        let flow = get(self.daemon.admin, &format!("/api/v1/flows/f{round}"));
        if flow.status == 200 && flow.json()["state"] != "completed" {
            self.verb(&format!("flows/f{round}/cancel"));
        }
        for queue in ["calls", "turns"] {
            let mut jobs = Jobs::of(&self.redis, queue);
            until("nothing to be left", || {
                let body = json!({"queue": queue, "state": "scheduled,pending,active,retry"});
                post(self.daemon.admin, "/api/v1/jobs/cancel", &body);
                let sets = ["scheduled", "pending", "held", "active", "retry"];
                sets.iter().all(|set| jobs.count(set) == 0).then_some(())
            });
        }
    }
}

/// What tells one situation of the job from another.
fn mark(why: &Value) -> Value {
    json!([why["cause"], why["details"]])
}

#[test]
fn limits_turns_flows_and_keys_are_named_and_without_them_the_job_runs() {
    let number = |name: &str, usual: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    let (rounds, seed) = (number("JOBSD_CAUSES_ROUNDS", ROUNDS), number("JOBSD_CAUSES_SEED", 20_261_123));
    println!("seed {seed}");
    let mut world = World::new(seed);
    for round in 0..rounds {
        world.round(round);
        world.clear(round);
    }
    println!("{rounds} situations: {:?}", world.seen);
}

#[test]
fn a_service_that_is_down_is_named_until_it_is_back() {
    let (redis, port) = (Redis::start(), free_port());
    let config = format!(
        "email.provider = \"smtp\"\nemail.from = \"Jobs <jobs@example.com>\"\n\
         email.smtp = {{ host = \"127.0.0.1\", port = {port}, tls = \"none\" }}\n\
         [queues.mail]\nconcurrency = 1\nretry = false\n\
         [tasks.mail]\nqueue = \"mail\"\nemail = {{ to = \"ann@example.com\", subject = \"Hello\", text = \"Hello\" }}\n"
    );
    let home = Home::new(&redis, &config);
    let daemon = home.start();
    let ids: Vec<String> = (0..12).map(|_| home.enqueue(&daemon, &["mail"])).collect();
    let why = |id: &String| get(daemon.admin, &format!("/api/v1/jobs/{id}/why")).json();
    let last = ids.last().expect("twelve");
    let told = until("the queue to wait", || Some(why(last)).filter(|why| why["cause"] == "service-down"));
    let sentence = told["sentence"].as_str().expect("a sentence");
    assert!(sentence.contains("SmtpConnectError") && sentence.contains("tries it"), "{sentence}");
    let _smtp = Smtp::start(&["--port", &port.to_string()]);
    Jobs::of(&redis, "mail").until("completed", ids.len());
    assert_eq!(why(last)["cause"], "completed");
}
