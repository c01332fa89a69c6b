//! Sentinels name the master: it dies, it hangs, or it is another while the old one still answers. Jobs are consumed
//! again on the new one by themselves; what is lost is what Redis itself had acknowledged and not yet replicated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::Commands;
use serde_json::json;

use crate::bench::{Daemon, Home, Jobs, Redis, Sentinels, celery_message, get, push, random_id, until};

const CONFIG: &str = "redis.timeout = \"3s\"\n[queues.work]\nwires = [\"celery\"]\n[tasks.note]\nnames = [\"app.note\"]\n\
    queue = \"work\"\nparams = { n = \"int\" }\n\
    sql = \"INSERT INTO user_events (user_id, event_type, created_at) VALUES (:n, 'note', 'now')\"\n";

fn replica_of(master: &Redis) -> Redis {
    let port = master.port().to_string();
    Redis::with_settings(&["--replicaof", &format!("127.0.0.1 {port}"), "--repl-diskless-sync-delay", "0"])
}

/// The server that the Sentinels call the master, when it says so too.
fn try_master(sentinels: &Sentinels) -> Option<redis::Connection> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", sentinels.master_port()?)).expect("a valid URL");
    let mut connection = client.get_connection_with_timeout(Duration::from_secs(1)).ok()?;
    connection.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    (role(&mut connection)? == "master").then_some(connection)
}

fn role(connection: &mut redis::Connection) -> Option<String> {
    let role: Vec<redis::Value> = redis::cmd("ROLE").query(connection).ok()?;
    redis::from_redis_value(role.into_iter().next()?).ok()
}

/// Jobs go in all the time, at whichever server is the master; what it has acknowledged is remembered, with its id.
fn produce(sentinels: &Sentinels, stop: &AtomicBool, accepted: &Mutex<BTreeMap<i64, String>>) {
    let mut connection = None;
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if connection.is_none() {
            connection = try_master(sentinels);
        }
        let Some(master) = connection.as_mut() else { continue };
        let id = random_id();
        match master.lpush::<_, _, ()>("work", celery_message("app.note", &id, &json!({ "n": n }))) {
            Ok(()) => drop(accepted.lock().expect("nobody panics with it").insert(n, id)),
            Err(_) => connection = None,
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lets the master fail under load, by `fail`; tells how long nothing was consumed, and what Redis lost.
fn failover(what: &str, fail: impl FnOnce(&mut Redis), after: impl FnOnce(&mut Redis, &Daemon)) {
    let mut master = Redis::start();
    let replicas = [replica_of(&master), replica_of(&master)];
    let sentinels = Sentinels::watch(&master, replicas.len());
    let home = Home::on(&sentinels.url(), CONFIG);
    let daemon = home.start();
    let rows = rusqlite::Connection::open(home.path("state/app.sqlite")).expect("the SQLite file");
    let seen = || -> BTreeSet<i64> {
        // The first job makes the table.
        let Ok(mut select) = rows.prepare("SELECT user_id FROM user_events") else { return BTreeSet::new() };
        select.query_map([], |row| row.get(0)).expect("it can be read").map(|n| n.expect("a number")).collect()
    };
    let (stop, accepted) = (AtomicBool::new(false), Mutex::new(BTreeMap::new()));
    let last = || accepted.lock().expect("nobody panics with it").last_key_value().map(|(n, _)| *n);
    let accepted_now = || accepted.lock().expect("nobody panics with it").clone();
    let before = std::thread::scope(|scope| {
        let _end = SetOnDrop(&stop);
        scope.spawn(|| produce(&sentinels, &stop, &accepted));
        until("jobs to run", || (seen().len() >= 50).then_some(()));
        let failed = Instant::now();
        fail(&mut master);
        let before = last();
        until("jobs of after the failure to be accepted", || (last() > before.map(|n| n + 1)).then_some(()));
        let promoted = failed.elapsed();
        until("jobs of after the failure to run", || (seen().last().copied() > before.map(|n| n + 1)).then_some(()));
        println!("{what}: a new master after {promoted:?}, jobs consumed again after {:?}", failed.elapsed());
        assert!(failed.elapsed() < Duration::from_secs(15), "the failover was followed after {:?}", failed.elapsed());
        after(&mut master, &daemon);
        let so_far = accepted_now().len();
        until("the producer to go on", || (accepted_now().len() >= so_far + 50).then_some(()));
        before
    });
    let accepted = accepted_now();
    let count = accepted.len();
    let mut client = try_master(&sentinels).expect("there is a master");
    let mut jobs = Jobs::over(try_master(&sentinels).expect("there is a master"), "work");
    until("everything that Redis still has to be done", || {
        let left: usize = client.llen("work").expect("Redis answers");
        let open = ["pending", "active", "inflight", "retry"].iter().map(|state| jobs.count(state)).sum::<usize>();
        (left + open == 0).then_some(())
    });
    let seen = seen();
    let lost: Vec<(i64, String)> = accepted.into_iter().filter(|(n, _)| !seen.contains(n)).collect();
    println!("{what}: {count} jobs acknowledged, {} of them lost by Redis itself", lost.len());
    for (n, id) in &lost {
        let known: bool = client.hexists(jobs.key("jobs"), id).expect("Redis answers");
        assert!(!known, "the new master has the job {id}, and it was not run");
        // Replication lags by a blink: what the old master acknowledged in its last one is all that may be lost.
        assert!(Some(*n) <= before, "the new master has acknowledged the job {n}");
    }
    assert_eq!(jobs.count("dead"), 0);
    assert!(daemon.stop().success());
}

#[test]
fn a_dead_master_is_left() {
    failover("kill -9 of the master", Redis::kill, |master, _| master.start_again());
}

/// No connection is refused and none is reset: nothing answers any more.
#[test]
fn a_master_that_hangs_is_left_and_does_not_matter_when_it_comes_back() {
    failover(
        "SIGSTOP of the master",
        |master| master.freeze(),
        |master, daemon| {
            master.thaw();
            let mut client = master.client();
            until("the old master to be a replica", || {
                let role = role(&mut client).or_else(|| {
                    // It ends its clients' connections when it is made one.
                    client = master.client();
                    role(&mut client)
                });
                (role.as_deref() == Some("slave")).then_some(())
            });
            let shown = get(daemon.admin, "/api/v1/redis").json();
            assert_ne!(shown["master"], format!("127.0.0.1:{}", master.port()), "{shown:#}");
        },
    );
}

/// As after a partition: the old master answers and takes itself for the master; only the Sentinels know better.
#[test]
fn a_master_that_only_the_sentinels_have_left_is_left_too() {
    let (old, new) = (Redis::start(), Redis::start());
    let sentinels = Sentinels::watch(&old, 0);
    let home = Home::on(&sentinels.url(), CONFIG);
    let daemon = home.start();
    let id = push(&mut old.client(), "work", "app.note", &json!({"n": 1}));
    Jobs::of(&old, "work").ended(&id, "completed");
    let port = new.port().to_string();
    sentinels.tell(&["REMOVE", "mymaster"]);
    sentinels.tell(&["MONITOR", "mymaster", "127.0.0.1", &port, "2"]);
    let told = Instant::now();
    let id = push(&mut new.client(), "work", "app.note", &json!({"n": 2}));
    Jobs::of(&new, "work").ended(&id, "completed");
    println!("the Sentinels' word was followed after {:?}", told.elapsed());
    let shown = get(daemon.admin, "/api/v1/redis").json();
    assert_eq!((&shown["master"], &shown["up"]), (&json!(format!("127.0.0.1:{port}")), &json!(true)), "{shown:#}");
    assert_eq!(get(daemon.admin, "/readyz").status, 200);
    let clients: String = redis::cmd("CLIENT").arg("LIST").query(&mut old.client()).expect("Redis answers");
    assert!(!clients.contains("cmd=evalsha"), "somebody still works with the old master:\n{clients}");
    assert!(daemon.stop().success());
}

#[test]
fn sentinels_that_know_no_master_are_named() {
    let redis = Redis::start();
    let sentinels = Sentinels::watch(&redis, 0);
    let home = Home::on(&sentinels.url().replace("mymaster", "other"), CONFIG);
    let daemon = home.start();
    let why = until("/readyz to say 503", || {
        let answer = get(daemon.admin, "/readyz");
        (answer.status == 503).then_some(answer.body)
    });
    assert!(why.contains("\"other\"") && why.contains("No such master with that name"), "{why}");
    assert!(daemon.stop().success());
}
