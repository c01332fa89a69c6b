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

/// Behind jobs that block the queue, with some to spare: what is taken is beyond the reach of RQ's client.
const CANCEL: &str = r#"
import json, os, time
from redis import Redis
from rq import Queue

queue = Queue("work", connection=Redis.from_url(os.environ["REDIS_URL"]))
jobs = [queue.enqueue("app.note", f"blocks-{n}") for n in range(6)]
cancelled, deleted, good = (queue.enqueue("app.note", name) for name in ("cancelled", "deleted", "good"))
deadline = time.monotonic() + 20
while jobs[1].get_status() != "started" and time.monotonic() < deadline:
    time.sleep(0.02)
cancelled.cancel()
deleted.delete()
print(json.dumps({"cancelled": cancelled.get_status(), "good": good.id}))
"#;

#[test]
fn a_waiting_job_that_is_cancelled_never_runs() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let _daemon = home.start();
    let python = Python::on(&redis.url());
    let seen = one(python.run(CANCEL));
    assert_eq!(seen["cancelled"], "canceled");
    std::fs::write(home.path("open"), "").expect("it can be written");
    let good = seen["good"].as_str().expect("an id");
    Jobs::of(&redis, "work").ended(good, "completed");
    Jobs::of(&redis, "work").until("completed", 7);
    let mut ran = begun(&home);
    ran.sort();
    assert_eq!(ran, ["blocks-0", "blocks-1", "blocks-2", "blocks-3", "blocks-4", "blocks-5", "good"]);
    let last = one(python.produce(&["rq", "work", "app.note", "[\"after\"]", "--wait", "20"]));
    assert_eq!(last["status"], "finished", "{last:#}");
}

/// Celery's list was served to its end before RQ's had a turn.
#[test]
fn a_busy_list_of_one_wire_starves_no_other() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    std::fs::write(home.path("open"), "").expect("it can be written");
    let mut client = redis.client();
    for n in 0..300 {
        push(&mut client, "work", "app.note", &json!({ "n": n }));
    }
    let program = "import os\nfrom redis import Redis\nfrom rq import Queue\n\
        queue = Queue('work', connection=Redis.from_url(os.environ['REDIS_URL']))\n\
        for n in range(20): queue.enqueue('app.note', f'rq-{n}')\n";
    Python::on(&redis.url()).run(program);
    let _daemon = home.start();
    let order = until("RQ's jobs to have begun", || {
        let order = begun(&home);
        (order.iter().filter(|name| name.starts_with("rq-")).count() == 20).then_some(order)
    });
    let last = order.iter().rposition(|name| name.starts_with("rq-")).expect("they are there");
    println!("RQ's 20 jobs had begun when {} of Celery's 300 had", last - 19);
    // Taken in turns, with some jobs to spare that the pool starts in its own order.
    assert!(last < 80, "the last of RQ's began as number {last}");
}
