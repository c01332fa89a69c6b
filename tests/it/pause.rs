//! Pauses hold back what waits, drains empty what is held back, and both end when somebody says so.

use redis::Commands;
use serde_json::{Value, json};

use crate::bench::{Daemon, Home, Jobs, Redis, get, push, until};

/// `gated` runs until the file `open` is there.
const CONFIG: &str = "[queues.work]\nwires = [\"celery\"]\nconcurrency = 2\n[queues.other]\n\
    [tasks.gated]\nqueue = \"work\"\n\
    exec = { program = \"/bin/sh\", args = [\"-c\", 'while ! [ -e open ]; do sleep 0.05; done'] }\n\
    [tasks.quick]\nnames = [\"app.quick\"]\nqueue = \"work\"\nprobe = \"noop\"\n\
    [tasks.echo]\nqueue = \"work\"\nparams = { n = \"int\" }\nprobe = \"echo\"\n\
    [tasks.aside]\nqueue = \"other\"\nprobe = \"noop\"\n";

fn queue(daemon: &Daemon, name: &str) -> Value {
    get(daemon.admin, &format!("/api/v1/queues/{name}")).json()["queue"].clone()
}

fn open(home: &Home) {
    std::fs::write(home.path("open"), "").expect("it can be written");
}

#[test]
fn a_paused_queue_keeps_its_jobs_and_its_messages_and_lets_run_what_runs() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    let (mut client, mut jobs) = (redis.client(), Jobs::of(&redis, "work"));
    let running = home.enqueue(&daemon, &["gated"]);
    jobs.until("active", 1);
    home.type_to(&daemon, &["pause", "work", "--reason", "SMTP is down"]).well();
    let waiting = home.enqueue(&daemon, &["quick"]);
    let messages: Vec<String> = (0..3).map(|_| push(&mut client, "work", "app.quick", &json!({}))).collect();

    // One slot was free all the time, and the other becomes free: nothing moves into either.
    open(&home);
    jobs.ended(&running, "completed");
    for _ in 0..20 {
        home.enqueue(&daemon, &["aside", "--wait"]);
    }
    assert_eq!((jobs.count("pending"), jobs.count("active"), jobs.count("inflight")), (1, 0, 0));
    assert_eq!(
        client.llen::<_, usize>("work").expect("Redis answers"),
        3,
        "messages stay where their senders see them"
    );
    let shown = queue(&daemon, "work");
    assert_eq!((&shown["paused"]["by"], &shown["paused"]["reason"]), (&json!("ann"), &json!("SMTP is down")));
    let listed = home.type_to(&daemon, &["queues"]).well().out;
    assert!(listed.contains("by ann: SMTP is down"), "{listed}");

    // It outlives the daemon.
    assert!(daemon.stop().success());
    let daemon = home.start();
    assert_eq!(queue(&daemon, "work")["paused"]["by"], "ann");
    home.type_to(&daemon, &["resume", "work"]).well();
    for id in messages.iter().chain([&waiting]) {
        jobs.ended(id, "completed");
    }
    assert_eq!(queue(&daemon, "work").get("paused"), None);
}

#[test]
fn a_paused_task_waits_while_the_others_of_its_queue_run() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    let (mut client, mut jobs) = (redis.client(), Jobs::of(&redis, "work"));
    home.type_to(&daemon, &["pause", "--task", "quick"]).well();
    let mut held: Vec<String> = (0..5).map(|_| home.enqueue(&daemon, &["quick"])).collect();
    held.push(push(&mut client, "work", "app.quick", &json!({})));
    for n in 0..5 {
        let said = home.type_to(&daemon, &["enqueue", "echo", &format!("n={n}"), "--wait", "--json"]).well();
        assert_eq!(said.json()["end"]["result"], json!({"args": {"n": n}}), "others go on");
    }
    until("all of them to be pending", || (queue(&daemon, "work")["jobs"]["pending"] == 6).then_some(()));
    let tasks = home.type_to(&daemon, &["tasks"]).well().out;
    assert!(tasks.lines().any(|line| line.starts_with("quick") && line.contains("paused")), "{tasks}");
    // One of them is cancelled where it is held.
    let cancelled = held.remove(0);
    home.type_to(&daemon, &["cancel", &cancelled]).well();
    home.type_to(&daemon, &["resume", "--task", "quick"]).well();
    for id in &held {
        jobs.ended(id, "completed");
    }
    jobs.ended(&cancelled, "cancelled");
}

#[test]
fn a_drained_queue_is_empty_when_the_command_ends() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    let running = home.enqueue(&daemon, &["gated"]);
    jobs.until("active", 1);
    let late = home.type_to(&daemon, &["drain", "work", "--wait", "--timeout", "1s"]);
    assert_eq!((late.code, late.err.contains("1 jobs of work still run")), (1, true), "{late:?}");
    open(&home);
    home.type_to(&daemon, &["drain", "work", "--wait"]).well();
    jobs.ended(&running, "completed");
    assert!(queue(&daemon, "work")["paused"].is_object(), "and it stays paused");
}

#[test]
fn a_drained_node_leaves_the_work_to_the_others() {
    let redis = Redis::start();
    let (home, other) = (Home::new(&redis, CONFIG), Home::new(&redis, CONFIG));
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    let node = |daemon: &Daemon| {
        let nodes = get(daemon.admin, "/api/v1/nodes").json();
        let this = nodes["nodes"].as_array()?.iter().find(|node| node["this"] == true)?.clone();
        this["node"].as_str().map(str::to_owned)
    };
    let first = until("the node to be on the list", || node(&daemon));
    let running = home.enqueue(&daemon, &["gated"]);
    jobs.until("active", 1);
    let elsewhere = other.start();
    let second = until("the other node to be on the list", || node(&elsewhere));
    // Told through the other one, so that it hears with its next heartbeat.
    let told = other.type_to(&elsewhere, &["drain", "--node", &first]).well();
    assert_eq!(told.out, format!("{first} claims nothing more\n"));
    until("it to have heard", || {
        let nodes = other.type_to(&elsewhere, &["nodes"]).well().out;
        nodes.lines().any(|line| line.starts_with(&first) && line.contains("draining")).then_some(())
    });
    for _ in 0..10 {
        let id = other.enqueue(&elsewhere, &["quick"]);
        let history = jobs.ended(&id, "completed");
        assert_eq!(history["end"]["node"], json!(second), "a drained node has claimed");
    }
    open(&home);
    other.type_to(&elsewhere, &["drain", "--node", &first, "--wait"]).well();
    assert_eq!(jobs.ended(&running, "completed")["end"]["node"], json!(first), "what it ran it has ended");

    home.type_to(&daemon, &["resume", "--node", &first]).well();
    assert!(elsewhere.stop().success());
    let id = home.enqueue(&daemon, &["quick"]);
    assert_eq!(jobs.ended(&id, "completed")["end"]["node"], json!(first));
    let unknown = home.type_to(&daemon, &["drain", "--node", "nobody"]);
    assert_eq!((unknown.code, unknown.err.contains("no node is called")), (1, true), "{unknown:?}");
}
