//! `redis.url = "embedded"`: the private server keeps what was accepted, lives and ends with its daemon, and serves one.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::bench::{Daemon, Home, Jobs, push, until};

const CONFIG: &str = "[queues.work]\nwires = [\"celery\"]\n\
    [tasks.note]\nnames = [\"app.note\"]\nqueue = \"work\"\nparams = { n = \"int\" }\n\
    exec = { program = \"/bin/sh\", args = [\"-c\", 'until [ -e open ]; do sleep 0.1; done; echo \"$1\" >> effects', \"note\", \"{{ n }}\"] }\n";

fn client(home: &Home) -> redis::Connection {
    let url = format!("redis+unix://{}", home.path("state/redis/redis.sock").display());
    let client = redis::Client::open(url).expect("a valid URL");
    until("the embedded Redis to answer", || {
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(2)).ok()?;
        redis::cmd("PING").query::<String>(&mut connection).ok()?;
        Some(connection)
    })
}

/// The process id of the server that this daemon has said it runs.
fn server(daemon: &Daemon) -> u32 {
    let said = daemon.lines().into_iter().rev().find(|line| line["fields"]["message"] == "the embedded Redis runs");
    let pid = said.and_then(|line| line["fields"]["pid"].as_u64()).and_then(|pid| u32::try_from(pid).ok());
    pid.expect("it says which process it is")
}

fn is_redis(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "redis-server")
}

fn effects(home: &Home) -> Vec<String> {
    let text = fs::read_to_string(home.path("effects")).unwrap_or_default();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines.dedup();
    lines
}

#[test]
fn jobs_outlive_kill_9_of_the_daemon_and_of_its_redis() {
    let home = Home::on("embedded", CONFIG);
    let daemon = home.start();
    let mut to = client(&home);
    let ids: Vec<String> = (0..20).map(|n| push(&mut to, "work", "app.note", &json!({ "n": n }))).collect();
    Jobs::over(client(&home), "work").until("active", 10);

    let redis = server(&daemon);
    assert!(is_redis(redis));
    daemon.kill();
    until("its Redis to end with it", || (!is_redis(redis)).then_some(()));

    let mut daemon = home.start();
    Jobs::over(client(&home), "work").until("active", 10);
    // The daemon starts its Redis again, which reads its file.
    let redis = rustix::process::Pid::from_raw(server(&daemon).cast_signed()).expect("positive");
    rustix::process::kill_process(redis, rustix::process::Signal::KILL).expect("it runs");
    daemon.wait_for_log("ended by itself");
    fs::write(home.path("open"), "").expect("it can be written");
    let mut jobs = Jobs::over(client(&home), "work");
    for id in &ids {
        jobs.ended(id, "completed");
    }
    assert_eq!(effects(&home).len(), ids.len(), "every job has had its effect");
    daemon.assert_alive();
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused_and_nothing_is_left_after_the_stop() {
    let home = Home::on("embedded", CONFIG);
    let mut first = home.start();
    let mut second = home.spawn();
    let status = second.wait();
    assert_eq!(status.code(), Some(1), "{status}");
    let told = second.log();
    assert!(told.contains("another jobsd runs on it") && told.contains("node.state_dir"), "{told}");
    first.assert_alive();

    let redis = server(&first);
    let socket = home.path("state/redis/redis.sock");
    assert!(is_redis(redis) && socket.exists());
    assert!(first.stop().success());
    assert!(!is_redis(redis), "redis-server outlives its daemon");
    assert!(!socket.exists());
}
