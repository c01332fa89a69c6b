//! The backlog stays in the foreign lists, where its producers still see and change it.

use std::time::Duration;

use redis::Commands;
use serde_json::json;

use crate::bench::{Home, Jobs, Python, Redis, one, push, until};

const CONFIG: &str = "[queues.work]\nwires = [\"celery\", \"rq\"]\nconcurrency = 2\n\
    [tasks.note]\nnames = [\"app.note\"]\nqueue = \"work\"\nparams = { n = \"any\" }\n\
    exec = { program = \"/bin/sh\", args = [\"-c\", 'echo \"$1\" >> begun; until [ -e open ]; do sleep 0.1; done', \"note\", \"{{ n }}\"] }\n";

fn begun(home: &Home) -> Vec<String> {
    std::fs::read_to_string(home.path("begun")).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn a_backlog_that_is_purged_never_runs() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let mut client = redis.client();
    for n in 0..50 {
        push(&mut client, "work", "app.note", &json!({ "n": n }));
    }
    let _daemon = home.start();
    until("two to run", || (begun(&home).len() == 2).then_some(()));
    // Longer than any wake-up of the daemon: whoever takes too much has done so by now.
    std::thread::sleep(Duration::from_millis(1500));
    let waiting: usize = client.llen("work").expect("Redis answers");
    assert!(waiting >= 46, "only {waiting} of 48 are still where their producer can see them");
    assert_eq!(begun(&home).len(), 2, "two places, two jobs");
    println!("{waiting} of 50 messages remain in the foreign list while 2 run");

    // `celery purge`.
    client.del::<_, ()>("work").expect("Redis answers");
    let last = push(&mut client, "work", "app.note", &json!({"n": "last"}));
    std::fs::write(home.path("open"), "").expect("it can be written");
    let mut jobs = Jobs::of(&redis, "work");
    jobs.ended(&last, "completed");
    until("everything to end", || (jobs.count("active") + jobs.count("pending") == 0).then_some(()));
    let ran = begun(&home);
    assert!(ran.len() <= 50 - waiting + 1, "purged messages ran: {ran:?}");
    assert_eq!(ran.last().map(String::as_str), Some("last"));
}

const CANCEL: &str = r#"
import json, os
from redis import Redis
from rq import Queue
queue = Queue("work", connection=Redis.from_url(os.environ["REDIS_URL"]))
jobs = [queue.enqueue("app.note", n) for n in ("blocks-0", "blocks-1", "cancelled", "deleted", "good")]
print(json.dumps([job.id for job in jobs]))
import sys, time
deadline = time.monotonic() + 20
while len(queue) > 3 and time.monotonic() < deadline:
    time.sleep(0.02)
jobs[2].cancel()
jobs[3].delete()
print(json.dumps(jobs[2].get_status()))
"#;

#[test]
fn a_waiting_job_that_is_cancelled_never_runs() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let _daemon = home.start();
    let python = Python::on(&redis.url());
    let seen = python.run(CANCEL);
    assert_eq!(seen[1], "canceled");
    until("two to run", || (begun(&home).len() == 2).then_some(()));
    std::fs::write(home.path("open"), "").expect("it can be written");
    let good = seen[0][4].as_str().expect("an id");
    Jobs::of(&redis, "work").ended(good, "completed");
    let mut ran = begun(&home);
    ran.sort();
    assert_eq!(ran, ["blocks-0", "blocks-1", "good"]);
    let last = one(python.produce(&["rq", "work", "app.note", "[\"after\"]", "--wait", "20"]));
    assert_eq!(last["status"], "finished", "{last:#}");
}
