//! A cancelled job does not run, or does not run any further, whoever was told and whoever lives.

use std::fs;
use std::path::Path;

use redis::Commands;
use serde_json::{Value, json};

use crate::bench::{Daemon, Home, Jobs, Redis, get, push, until};

/// One slot. `long` writes its pid and becomes a program that runs for ten minutes.
const CONFIG: &str = "[queues.work]\nconcurrency = 1\nretry = { limit = 5, backoff = \"fixed\", delay = \"0s\" }\n\
    [tasks.long]\nqueue = \"work\"\nexec = { program = \"/bin/sh\", args = [\"-c\", 'echo $$$$ >> pids; exec sleep 600'] }\n\
    [tasks.quick]\nqueue = \"work\"\nprobe = \"noop\"\n";

/// The programs that have begun, by pid.
fn pids(home: &Home) -> Vec<u32> {
    let text = fs::read_to_string(home.path("pids")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[track_caller]
fn begun(home: &Home, count: usize) -> Vec<u32> {
    until(format_args!("{count} programs to have begun"), || Some(pids(home)).filter(|pids| pids.len() == count))
}

fn lives(pid: u32) -> bool {
    // A zombie has ended; its parent has not asked yet.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    Path::new(&format!("/proc/{pid}")).exists() && !status.contains("State:\tZ")
}

fn shown(daemon: &Daemon, id: &str) -> Value {
    get(daemon.admin, &format!("/api/v1/jobs/{id}")).json()
}

/// A Celery producer learns of it as of its own `revoke`.
#[test]
fn a_celery_producer_is_told_that_its_job_was_revoked() {
    let redis = Redis::start();
    let wired = CONFIG.replace("[queues.work]\n", "[queues.work]\nwires = [\"celery\"]\n");
    let home = Home::new(&redis, &wired.replace("[tasks.long]\n", "[tasks.long]\nnames = [\"app.long\"]\n"));
    let daemon = home.start();
    let (mut client, mut jobs) = (redis.client(), Jobs::of(&redis, "work"));
    let id = push(&mut client, "work", "app.long", &json!({}));
    begun(&home, 1);
    home.type_to(&daemon, &["cancel", &id]).well();
    assert_eq!(why(&mut jobs, &id), "cancelled by ann");
    let told = until("the producer to be told", || {
        client.get::<_, Option<String>>(format!("celery-task-meta-{id}")).expect("Redis answers")
    });
    assert!(told.contains("REVOKED"), "{told}");
}

/// The words of the last thing that happened to a job that ended as cancelled.
#[track_caller]
fn why(jobs: &mut Jobs, id: &str) -> String {
    let history = jobs.ended(id, "cancelled");
    assert_eq!((&history["failures"], &history["crashes"]), (&Value::Null, &Value::Null), "{history:#}");
    let last = history["mishaps"].as_array().and_then(|mishaps| mishaps.last()).expect("it says why");
    assert_eq!(last["kind"], "cancelled");
    last["message"].as_str().expect("words").to_owned()
}

#[test]
fn what_waits_is_ended_at_once_and_what_runs_is_stopped() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    let running = home.enqueue(&daemon, &["long"]);
    let pid = begun(&home, 1)[0];
    let (pending, later) = (home.enqueue(&daemon, &["quick"]), home.enqueue(&daemon, &["quick", "--in", "1h"]));
    assert_eq!((jobs.count("active"), jobs.count("pending"), jobs.count("scheduled")), (1, 1, 1));

    let said = home.type_to(&daemon, &["cancel", &pending, &later, &running, "--reason", "wrong recipient"]).well();
    let expected = format!("{pending} cancelled\n{later} cancelled\n{running} runs; its node was asked to end it\n");
    assert_eq!(said.out, expected);
    assert_eq!(why(&mut jobs, &running), "cancelled by ann: wrong recipient");
    for waiting in [&pending, &later] {
        assert_eq!(why(&mut jobs, waiting), "cancelled by ann: wrong recipient before it ran");
    }
    until("the program to be gone", || (!lives(pid)).then_some(()));

    // The slot is free again, and nothing of the three comes back.
    let after = home.enqueue(&daemon, &["quick"]);
    jobs.ended(&after, "completed");
    assert_eq!((jobs.count("cancelled"), jobs.count("retry"), jobs.count("active")), (3, 0, 0));
    assert_eq!(pids(&home).len(), 1, "it ran once");
}

#[test]
fn a_job_is_stopped_through_a_node_that_does_not_run_it() {
    let redis = Redis::start();
    let (home, other) = (Home::new(&redis, CONFIG), Home::new(&redis, CONFIG));
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    let id = home.enqueue(&daemon, &["long"]);
    let pid = begun(&home, 1)[0];
    let elsewhere = other.start();
    let said = other.type_to(&elsewhere, &["cancel", &id]).well();
    assert!(said.out.contains("its node was asked"), "{said:?}");
    assert_eq!(why(&mut jobs, &id), "cancelled by ann");
    until("the program to be gone", || (!lives(pid)).then_some(()));
    assert!(pids(&other).is_empty(), "the other node never ran it");
}

#[test]
fn a_job_whose_node_was_killed_never_runs_again() {
    let redis = Redis::durable();
    // Longer than anyone waits: only the restart, which knows that its predecessor is dead, takes the job over.
    let home = Home::new(&redis, &["node.lease = \"10m\"\n", CONFIG].concat());
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    let (running, waiting) = (home.enqueue(&daemon, &["long"]), home.enqueue(&daemon, &["quick"]));
    begun(&home, 1);
    daemon.kill();
    assert_eq!((jobs.count("active"), jobs.count("pending")), (1, 1), "whoever dies takes nothing along");

    let unreachable = home.type_with(&["cancel", &running, "--url", "http://127.0.0.1:9"], &[], "");
    assert_eq!(unreachable.code, 69, "{unreachable:?}");
    assert!(unreachable.err.contains("--offline"), "{unreachable:?}");
    let said = home.type_with(&["cancel", &running, &waiting, "--offline", "--reason", "too late"], &[], "").well();
    assert_eq!(said.out, format!("{running} runs; its node was asked to end it\n{waiting} cancelled\n"));
    let gone = home.type_with(&["cancel", "nothing", "--offline"], &[], "");
    assert_eq!((gone.code, gone.err.contains("no job has this id")), (1, true), "{gone:?}");

    let daemon = home.start();
    assert_eq!(why_after_a_crash(&mut jobs, &running), "cancelled by ann: too late");
    assert_eq!(why(&mut jobs, &waiting), "cancelled by ann: too late before it ran");
    let after = home.enqueue(&daemon, &["quick"]);
    jobs.ended(&after, "completed");
    assert_eq!(pids(&home).len(), 1, "it never ran again");
    assert_eq!(shown(&daemon, &running)["cancel_requested"], Value::Null, "the request is done with");
}

/// Like [`why`], of a job whose last attempt was cut off by a crash: the request wins.
#[track_caller]
fn why_after_a_crash(jobs: &mut Jobs, id: &str) -> String {
    let history = jobs.ended(id, "cancelled");
    let last = history["mishaps"].as_array().and_then(|mishaps| mishaps.last()).expect("it says why");
    last["message"].as_str().expect("words").to_owned()
}

#[test]
fn a_request_that_its_node_never_heard_outlives_it() {
    let redis = Redis::start();
    let (home, other) = (Home::new(&redis, CONFIG), Home::new(&redis, CONFIG));
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    let id = home.enqueue(&daemon, &["long"]);
    begun(&home, 1);
    let elsewhere = other.start();
    // It stands still: it can neither hear nor renew its lease, and then it is killed.
    daemon.freeze();
    other.type_to(&elsewhere, &["cancel", &id]).well();
    daemon.kill();
    assert_eq!(why_after_a_crash(&mut jobs, &id), "cancelled by ann");
    let after = other.enqueue(&elsewhere, &["quick"]);
    jobs.ended(&after, "completed");
    assert!(pids(&other).is_empty(), "whoever took it over did not run it");
}

#[test]
fn the_private_redis_is_started_for_a_cancel_when_everything_is_down() {
    let home = Home::with_whole(
        "redis.url = \"embedded\"\nnode.state_dir = \"state\"\nadmin.listen = \"127.0.0.1:0\"\nlog.format = \"json\"\n"
            .to_owned()
            + CONFIG,
    );
    let daemon = home.start();
    let id = home.enqueue(&daemon, &["quick", "--in", "2s", "--id", "later"]);
    assert!(daemon.stop().success());
    let said = home.type_with(&["cancel", &id, "--offline", "--json"], &[], "").well();
    assert_eq!(said.json(), json!([{"id": "later", "queue": "work", "outcome": "cancelled"}]));
    let daemon = home.start();
    let job = shown(&daemon, "later");
    assert_eq!((&job["state"], &job["end"]["state"]), (&json!("cancelled"), &json!("cancelled")));
    assert!(daemon.stop().success());
}
