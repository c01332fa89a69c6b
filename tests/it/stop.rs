//! SIGTERM: no new claims, short jobs finish, the rest goes back at no cost of an attempt, and another daemon goes on.

use std::time::Duration;

use redis::Commands;
use serde_json::json;

use crate::bench::{Home, Jobs, Redis, push, until_within};

const CONFIG: &str = "node.drain = \"3s\"\n[queues.work]\nwires = [\"celery\"]\n\
    [tasks.sleep]\nnames = [\"app.sleep\"]\nqueue = \"work\"\nparams = { seconds = \"number\" }\nprobe = \"sleep\"\n\
    [tasks.long]\nnames = [\"app.long\"]\nqueue = \"work\"\n\
    [tasks.long.exec]\nprogram = \"/bin/sh\"\nargs = [\"-c\", 'echo $$$$ >> pids; [ -e open ] || sleep 600']\n";

#[test]
fn short_jobs_finish_and_long_ones_go_back() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let mut client = redis.client();
    let short: Vec<String> = (0..4).map(|_| push(&mut client, "work", "app.sleep", &json!({"seconds": 1}))).collect();
    let long: Vec<String> = (0..4).map(|_| push(&mut client, "work", "app.long", &json!({}))).collect();
    let mut jobs = Jobs::of(&redis, "work");
    let daemon = home.start();
    jobs.until("active", 8);
    let pids = |count: usize| {
        until_within(Duration::from_secs(30), "the programs to run", || {
            let text = std::fs::read_to_string(home.path("pids")).unwrap_or_default();
            let pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
            (pids.len() == count).then_some(pids)
        })
    };
    let first = pids(4);

    let status = daemon.stop();
    assert_eq!(status.code(), Some(0), "{status}");
    for id in &short {
        jobs.ended(id, "completed");
    }
    assert_eq!((jobs.count("active"), jobs.count("pending"), jobs.count("completed")), (0, 4, 4));
    for id in &long {
        let history = jobs.history(id).expect("it was interrupted");
        assert_eq!(
            (&history["failures"], &history["crashes"], &history["interruptions"]),
            (&json!(null), &json!(null), &json!(1)),
            "{history:#}"
        );
    }
    for pid in first {
        let there = std::path::Path::new(&format!("/proc/{pid}")).exists();
        assert!(!there, "the program {pid} outlives its job's attempt");
    }
    let leases: usize = client.zcount(jobs.key("leases"), 1, "+inf").expect("Redis answers");
    assert_eq!(leases, 0, "who leaves holds no lease");

    std::fs::write(home.path("open"), "").expect("it can be written");
    let daemon = home.start();
    jobs.until("completed", 8);
    assert_eq!(pids(8).len(), 8, "each long job ran once more");
    assert!(daemon.stop().success());
}

#[test]
fn messages_that_come_while_it_drains_stay_where_they_are() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let mut client = redis.client();
    let running = push(&mut client, "work", "app.sleep", &json!({"seconds": 2}));
    let mut jobs = Jobs::of(&redis, "work");
    let mut daemon = home.start();
    jobs.until("active", 1);
    daemon.terminate();
    daemon.wait_for_log("stopping: running jobs");
    let late = push(&mut client, "work", "app.sleep", &json!({"seconds": 0}));
    let status = daemon.wait();
    assert!(status.success(), "{status}");
    jobs.ended(&running, "completed");
    assert_eq!(client.llen::<_, usize>("work").expect("Redis answers"), 1, "it was taken after the stop");
    let _daemon = home.start();
    jobs.ended(&late, "completed");
}
