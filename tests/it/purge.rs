//! A purge takes everything that waits, and gives it back as it was.

use redis::Commands;
use serde_json::{Value, json};

use crate::bench::{Daemon, Home, Jobs, Redis, get, post, push};

const JOBS: usize = 1000;
const MESSAGES: usize = 20;

const CONFIG: &str = "[queues.work]\nwires = [\"celery\", \"rq\"]\nconcurrency = 20\n\
    [tasks.quick]\nnames = [\"app.quick\"]\nqueue = \"work\"\nprobe = \"noop\"\n";

fn purges(daemon: &Daemon) -> Value {
    get(daemon.admin, "/api/v1/queues/work").json()["purges"].clone()
}

#[test]
fn a_thousand_jobs_and_the_messages_come_back_in_order() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    let (mut client, mut jobs) = (redis.client(), Jobs::of(&redis, "work"));
    home.type_to(&daemon, &["pause", "work"]).well();
    let many: Vec<Value> =
        (0..JOBS).map(|n| json!({"task": "quick", "id": format!("j{n:04}"), "priority": n % 3})).collect();
    assert_eq!(post(daemon.admin, "/api/v1/jobs", &json!(many)).status, 201);
    let later = home.enqueue(&daemon, &["quick", "--in", "1h"]);
    for _ in 0..MESSAGES {
        push(&mut client, "work", "app.quick", &json!({}));
    }
    let pending = jobs.ids("pending");
    let messages: Vec<String> = client.lrange("work", 0, -1).expect("Redis answers");
    assert_eq!((pending.len(), messages.len()), (JOBS, MESSAGES));

    let asked = home.type_to(&daemon, &["purge", "work"]);
    assert_eq!(asked.code, 2, "nobody can be asked: {asked:?}");
    assert_eq!(jobs.count("pending"), JOBS);
    let said = home.type_to(&daemon, &["purge", "work", "--yes"]).well();
    assert!(said.out.starts_with("1001 jobs and 20 messages taken out of work\n"), "{said:?}");
    assert_eq!((jobs.count("pending"), jobs.count("scheduled")), (0, 0));
    assert_eq!(client.llen::<_, usize>("work").expect("Redis answers"), 0);
    assert_eq!(purges(&daemon)[0]["jobs"], 1001);
    let shown = home.type_to(&daemon, &["job", "j0007"]).well().out;
    assert!(shown.contains("jobsd undo work "), "{shown}");
    // What comes meanwhile stays, behind what was there before.
    let meanwhile = home.enqueue(&daemon, &["quick"]);
    let message = push(&mut client, "work", "app.quick", &json!({}));

    let said = home.type_to(&daemon, &["undo", "work"]).well();
    assert_eq!(said.out, "1021 jobs and messages are back in work\n");
    let back = jobs.ids("pending");
    assert_eq!(back.iter().filter(|id| **id != meanwhile).collect::<Vec<_>>(), pending.iter().collect::<Vec<_>>());
    assert_eq!(jobs.ids("scheduled"), [later]);
    let again: Vec<String> = client.lrange("work", 0, -1).expect("Redis answers");
    // Celery serves from the right.
    assert_eq!(again[1..], messages[..], "the messages are where they were");
    assert!(again[0].contains(&message), "and the new one is served last");
    assert_eq!(purges(&daemon), json!([]));
    let twice = home.type_to(&daemon, &["undo", "work"]);
    assert_eq!((twice.code, twice.err.as_str()), (1, "jobsd: work has no purge that can be taken back\n"));

    home.type_to(&daemon, &["resume", "work"]).well();
    jobs.until("completed", JOBS + MESSAGES + 2);
}
