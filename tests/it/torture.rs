//! `jobsd torture` keeps its word on this build, for each kind of fault, on a private Redis and on one that is given; and
//! finds what is broken on purpose. These are the short forms; the long ones are commands in the README.

use std::process::{Command, Output, Stdio};

use redis::Commands;
use rustix::process::Signal;
use serde_json::Value;

use crate::bench::{Child, Redis, until};

/// Few jobs, so that several runs fit on a small machine; one seed, so that a failure can be had again.
const SIZE: &str = "--json --seconds 6 --rate 60 --concurrency 20";

fn torture(options: &str) -> Output {
    let mut command = Child::command(env!("CARGO_BIN_EXE_jobsd"));
    command.arg("torture").args(SIZE.split(' ')).args(options.split(' '));
    command.output().expect("it starts")
}

/// Runs to a good end, and gives the findings.
#[track_caller]
fn kept(options: &str) -> Value {
    let output = torture(options);
    let (words, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{options}: {words}{errors}");
    let report: Value = serde_json::from_str(&words).expect("a report");
    assert_eq!(report["kept"], true);
    let found = &report["findings"];
    assert!(found["accepted"].as_u64() > Some(200), "too few jobs to show anything: {found:#}");
    assert_eq!((&found["accepted"], &found["lost"]), (&found["completed"], &0.into()), "{found:#}");
    println!("{options}: {found}");
    report["findings"].clone()
}

/// What came of the faults of one kind.
#[track_caller]
fn of<'f>(findings: &'f Value, fault: &str) -> &'f Value {
    let faults = findings["faults"].as_array().expect("a list");
    faults.iter().find(|of| of["fault"] == fault).unwrap_or_else(|| panic!("no {fault} was made: {findings:#}"))
}

#[test]
fn killed_and_stopped_nodes_lose_nothing_and_come_late_in_vain() {
    let found = kept("--kills 6 --stops 2");
    assert_eq!((&of(&found, "kill")["count"], &of(&found, "stop")["count"]), (&6.into(), &2.into()));
    assert!(found["in_flight"].as_u64() > Some(0), "nothing was running at the kills: {found:#}");
    assert!(found["recovery"]["count"].as_u64() > Some(0), "nothing was run again: {found:#}");
    assert!(found["late_refused"].as_u64() > Some(0), "no late result was there to be refused: {found:#}");
    assert_eq!((&found["late_applied"], &found["overlapping"]), (&0.into(), &0.into()));
}

#[test]
fn nodes_that_are_told_to_end_hand_everything_back() {
    let found = kept("--terms 3 --concurrency 100 --work 1s --rate 150");
    assert!(of(&found, "term")["held"].as_u64() > Some(50), "few jobs were running: {found:#}");
    assert_eq!((&of(&found, "term")["left_active"], &found["attempts_spent"]), (&0.into(), &0.into()));
}

#[test]
fn a_redis_that_is_killed_loses_nothing_that_was_accepted() {
    let found = kept("--appendfsync always --redis-kills 8 --redis-restarts 2 --script-flushes 3");
    assert_eq!(of(&found, "redis-kill")["count"], 8);
    assert!(of(&found, "redis-kill")["resumption"]["count"].as_u64() > Some(0), "{found:#}");
}

#[test]
fn broken_connections_are_made_anew() {
    let found = kept("--resets 20 --blackholes 3");
    for fault in ["reset", "blackhole"] {
        let of = of(&found, fault);
        assert!(of["resumption"]["count"].as_u64() >= of["count"].as_u64(), "{found:#}");
    }
}

/// What stands on the user's Redis beside the run stays, and nothing of the run does.
#[test]
fn a_redis_that_is_given_is_left_as_it_was() {
    let redis = Redis::start();
    let mut client = redis.client();
    client.set::<_, _, ()>("somebody-elses", "kept").expect("Redis answers");
    let url = redis.url();
    let found = kept(&format!("--redis {url} --kills 2 --resets 4"));
    assert_eq!(of(&found, "reset")["count"], 4);
    let left: Vec<String> = client.keys("*").expect("Redis answers");
    assert_eq!(left, ["somebody-elses"]);

    let mut command = Child::command(env!("CARGO_BIN_EXE_jobsd"));
    let interrupted =
        Child::spawn(command.args(["torture", "--redis", &url, "--seconds", "600"]).stdout(Stdio::null()));
    until("the run to write something", || {
        (client.keys::<_, Vec<String>>("*").expect("Redis answers").len() > 1).then_some(())
    });
    interrupted.signal(Signal::INT);
    let mut interrupted = interrupted;
    let status = interrupted.wait(std::time::Duration::from_secs(60)).expect("it ends");
    assert_eq!(status.code(), Some(1));
    let left: Vec<String> = client.keys("*").expect("Redis answers");
    assert_eq!(left, ["somebody-elses"]);
}

#[test]
fn what_cannot_be_done_is_refused_with_a_remedy() {
    for (options, code, words) in [
        ("--redis redis://127.0.0.1:1/0 --redis-kills 1", 2, "--redis own"),
        ("--redis rediss://127.0.0.1:1/0 --resets 1", 2, "TLS"),
        ("--redis redis://127.0.0.1:1/0 --kills 1", 69, "refused"),
        ("--nodes 2 --steady 2", 2, "none is left"),
        ("--lease 1s", 2, "3s to 10m"),
    ] {
        let output = torture(options);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{options}: {errors}");
        assert!(errors.contains(words), "{options}: {errors}");
    }
}

/// A suite that has never failed proves nothing.
#[test]
fn builds_that_are_broken_on_purpose_are_found() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sabotage");
    let output = Command::new(script).arg(env!("CARGO_BIN_EXE_jobsd")).output().expect("it starts");
    let words = String::from_utf8_lossy(&output.stdout);
    println!("{words}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
