//! A Redis that answers and takes nothing new: it is full, cannot write to its disk, or was made a replica. Whoever
//! enqueues is told what it is; what can go on goes on, nothing spins, and all is well again by itself.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::{Daemon, Home, Jobs, Redis, get, post, push, until};

const CONFIG: &str = "[queues.work]\nwires = [\"celery\"]\nconcurrency = 4\n\
    [tasks.echo]\nnames = [\"app.echo\"]\nqueue = \"work\"\nparams = { n = \"int\" }\nprobe = \"echo\"\n\
    [tasks.wait]\nnames = [\"app.wait\"]\nqueue = \"work\"\n\
    [tasks.wait.exec]\nprogram = \"/bin/sh\"\nargs = [\"-c\", 'until [ -e open ]; do sleep 0.05; done']\n";

fn call(client: &mut redis::Connection, command: &[&str]) -> redis::RedisResult<redis::Value> {
    redis::cmd(command[0]).arg(&command[1..]).query(client)
}

fn enqueue(daemon: &Daemon) -> (u16, Value) {
    let answer = post(daemon.admin, "/api/v1/jobs", &json!({"task": "echo", "args": {"n": 1}}));
    (answer.status, answer.json())
}

#[track_caller]
fn is_told(problem: &(u16, Value), status: u16, words: &[&str]) {
    let (given, body) = problem;
    assert_eq!((*given, &body["status"]), (status, &json!(status)), "{body:#}");
    let detail = body["detail"].as_str().expect("a problem has a detail");
    for word in words {
        assert!(detail.contains(word), "{word:?} is not in {detail:?}");
    }
}

#[track_caller]
fn readyz(daemon: &Daemon, status: u16, words: &str) {
    until(format_args!("/readyz to say {status} and {words:?}"), || {
        let answer = get(daemon.admin, "/readyz");
        (answer.status == status && answer.body.contains(words)).then_some(())
    });
}

/// Writes until there is no room; says how many keys that took. Then takes two megabytes more away, so that what clients
/// leave behind makes no room again.
fn fill(client: &mut redis::Connection) -> usize {
    let value = "x".repeat(100_000);
    let full = |key: &usize| call(client, &["SET", &format!("filler:{key}"), &value]).is_err();
    let keys = (0..).find(full).expect("memory ends");
    call(client, &["CONFIG", "SET", "maxmemory", "18mb"]).expect("it obeys");
    keys
}

fn calls_of_scripts(client: &mut redis::Connection) -> u64 {
    let text: String = redis::cmd("INFO").arg("commandstats").query(client).expect("Redis answers");
    let line = text.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap_or_default();
    line.split(',').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[test]
fn a_full_redis_refuses_new_jobs_and_finishes_the_others() {
    let redis = Redis::with_settings(&["--maxmemory", "20mb", "--maxmemory-policy", "noeviction"]);
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    let mut client = redis.client();
    let mut ids: Vec<String> = (0..4).map(|_| push(&mut client, "work", "app.wait", &json!({}))).collect();
    let mut jobs = Jobs::of(&redis, "work");
    jobs.until("active", 4);
    // They wait in jobsd's own queue while it fills up, for the slots are taken.
    for _ in 0..20 {
        assert_eq!(enqueue(&daemon).0, 201);
    }
    // And these in the foreign list.
    ids.extend((0..10).map(|n| push(&mut client, "work", "app.echo", &json!({ "n": n }))));

    let keys = fill(&mut client);
    is_told(&enqueue(&daemon), 507, &["Redis is full", "nothing was enqueued", "maxmemory"]);
    readyz(&daemon, 200, "degraded: Redis is full, ");
    is_told(&enqueue(&daemon), 507, &[" of maxmemory 18.0 MiB"]);
    let shown = get(daemon.admin, "/api/v1/redis").json();
    assert_eq!((&shown["findings"][0]["code"], &shown["policy"]), (&json!("memory-full"), &json!("noeviction")));
    assert!(get(daemon.admin, "/").body.contains("error: Redis is full"), "the table of / tells it");

    std::fs::write(home.path("open"), "").expect("it can be written");
    jobs.until("completed", 34);
    for id in &ids[..4] {
        jobs.ended(id, "completed");
    }
    assert_eq!(enqueue(&daemon).0, 507, "it is still full");
    let before = calls_of_scripts(&mut client);
    std::thread::sleep(Duration::from_secs(3));
    let calls = calls_of_scripts(&mut client) - before;
    println!("{calls} script calls in three seconds of a full Redis");
    assert!(calls <= 30, "{calls} script calls in three seconds: something spins");

    for key in 0..keys {
        call(&mut client, &["DEL", &format!("filler:{key}")]).expect("a delete is always allowed");
    }
    until("there to be room", || (enqueue(&daemon).0 == 201).then_some(()));
    jobs.until("completed", 35);
    assert_eq!((jobs.count("dead"), jobs.count("inflight")), (0, 0));
    readyz(&daemon, 200, "ready\n");
    until("the finding to be over", || (!get(daemon.admin, "/readyz").body.contains("degraded")).then_some(()));
    assert!(daemon.stop().success());
}

#[test]
fn a_redis_that_cannot_write_to_its_disk_is_named() {
    let disk = tempfile::tempdir().expect("a temporary folder");
    let redis = Redis::with_settings(&["--save", "3600 1", "--dir", &disk.path().display().to_string()]);
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    assert_eq!(enqueue(&daemon).0, 201);
    // A snapshot cannot take the place of a folder.
    let blocker = disk.path().join("dump.rdb");
    std::fs::create_dir(&blocker).expect("a new folder");
    let mut client = redis.client();
    let saved = |client: &mut redis::Connection, status: &str| {
        call(client, &["BGSAVE"]).expect("it tries");
        until(format_args!("the snapshot to be {status}"), || {
            let text: String = redis::cmd("INFO").arg("persistence").query(client).expect("Redis answers");
            let over = text.contains("rdb_bgsave_in_progress:0");
            (over && text.contains(&format!("rdb_last_bgsave_status:{status}"))).then_some(())
        });
    };
    saved(&mut client, "err");
    is_told(&enqueue(&daemon), 503, &["cannot write to its disk", "nothing was enqueued"]);
    readyz(&daemon, 503, "the last snapshot of Redis failed");
    std::fs::remove_dir(&blocker).expect("it is empty");
    saved(&mut client, "ok");
    until("jobs to be taken again", || (enqueue(&daemon).0 == 201).then_some(()));
    readyz(&daemon, 200, "ready");
    Jobs::of(&redis, "work").until("completed", 2);
    assert!(daemon.stop().success());
}

#[test]
fn a_redis_that_was_made_a_replica_is_named() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    let mut client = redis.client();
    call(&mut client, &["REPLICAOF", "127.0.0.1", "1"]).expect("it obeys");
    is_told(&enqueue(&daemon), 503, &["is a replica", "nothing was enqueued"]);
    readyz(&daemon, 503, "this Redis is a replica of 127.0.0.1:1 and takes no changes");
    let before = calls_of_scripts(&mut client);
    std::thread::sleep(Duration::from_secs(3));
    let calls = calls_of_scripts(&mut client) - before;
    assert!(calls <= 60, "{calls} script calls in three seconds: something spins");
    call(&mut client, &["REPLICAOF", "NO", "ONE"]).expect("it obeys");
    until("jobs to be taken again", || (enqueue(&daemon).0 == 201).then_some(()));
    Jobs::of(&redis, "work").until("completed", 1);
    readyz(&daemon, 200, "ready");
    assert!(daemon.stop().success());
}

#[test]
fn a_redis_that_would_delete_jobs_is_not_used_unless_told_so() {
    let redis = Redis::with_settings(&["--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"]);
    let home = Home::new(&redis, CONFIG);
    let mut daemon = home.spawn();
    assert_eq!(daemon.wait().code(), Some(78));
    let log = daemon.log();
    assert!(log.contains("maxmemory-policy is allkeys-lru") && log.contains("redis.accept_eviction = true"), "{log}");

    let home = Home::new(&redis, &format!("redis.accept_eviction = true\n{CONFIG}"));
    let daemon = home.start();
    assert_eq!(enqueue(&daemon).0, 201);
    readyz(&daemon, 200, "ready");
    assert!(daemon.stop().success());
}
