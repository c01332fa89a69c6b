//! Redis away at the start, away in the middle, killed again and again, and emptied of its scripts: the daemon stays
//! up, says what is wrong, and goes on by itself; what Redis has accepted is not lost.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::Commands;
use serde_json::json;

use crate::bench::{Daemon, Home, Jobs, Redis, celery_message, get, get_with, post, push, random_id, until};

const CONFIG: &str = "[queues.work]\nwires = [\"celery\"]\n[tasks.note]\nnames = [\"app.note\"]\nqueue = \"work\"\nparams = { n = \"int\" }\n\
    sql = \"INSERT INTO user_events (user_id, event_type, created_at) VALUES (:n, 'note', 'now')\"\n";

/// Times to get back, with the times that the servers themselves need.
const BACK: Duration = Duration::from_secs(30);

#[track_caller]
fn not_ready(daemon: &Daemon) -> String {
    until("/readyz to say 503", || {
        let answer = get(daemon.admin, "/readyz");
        (answer.status == 503).then_some(answer.body)
    })
}

#[track_caller]
fn ready(daemon: &Daemon) -> Duration {
    let start = Instant::now();
    crate::bench::until_within(BACK, "/readyz to say 200", || {
        (get(daemon.admin, "/readyz").status == 200).then_some(())
    });
    start.elapsed()
}

#[test]
fn redis_may_come_later_and_go_in_between() {
    let mut redis = Redis::not_yet_started();
    let home = Home::new(&redis, CONFIG);
    let mut daemon = home.start();
    let why = not_ready(&daemon);
    assert!(why.to_lowercase().contains("refused"), "the reason is not told: {why}");
    let json = get_with(daemon.admin, "/readyz", "Accept: application/json\r\n");
    assert_eq!((json.status, json.json()["status"].as_u64()), (503, Some(503)), "{json:?}");
    assert_eq!(get(daemon.admin, "/livez").status, 200);
    assert_eq!(get(daemon.admin, "/health/queues").json()["redis"], "disconnected");
    assert!(get(daemon.admin, "/metrics").body.contains("jobsd_redis_up 0"));
    assert_eq!(get(daemon.admin, "/").status, 200, "the overview answers without Redis");
    daemon.assert_alive();

    redis.start_again();
    println!("ready {:?} after Redis came", ready(&daemon));
    for round in 0..3 {
        let id = push(&mut redis.client(), "work", "app.note", &json!({"n": round}));
        Jobs::of(&redis, "work").ended(&id, "completed");
        redis.kill();
        not_ready(&daemon);
        redis.start_again();
        println!("ready {:?} after Redis came back", ready(&daemon));
    }
    let id = push(&mut redis.client(), "work", "app.note", &json!({"n": 3}));
    Jobs::of(&redis, "work").ended(&id, "completed");
    assert!(daemon.stop().success());
}

/// A pool that could not reach Redis pauses between its attempts; that a job had become due meanwhile once kept it awake.
#[test]
fn a_job_that_becomes_due_while_redis_is_away_costs_nothing() {
    let mut redis = Redis::durable();
    let names: Vec<String> = (0..60).map(|n| format!("q{n}")).collect();
    let queue = |name: &String| format!("[queues.{name}]\n[tasks.{name}]\nqueue = \"{name}\"\nprobe = \"noop\"\n");
    let home = Home::new(&redis, &names.iter().map(queue).collect::<String>());
    let mut daemon = home.start();
    let jobs: Vec<_> = names.iter().map(|name| json!({"task": name, "in": "2s"})).collect();
    let answer = post(daemon.admin, "/api/v1/jobs", &json!(jobs));
    assert!((200..300).contains(&answer.status), "{answer:?}");
    // The pools hear of them.
    std::thread::sleep(Duration::from_secs(1));
    redis.kill();
    not_ready(&daemon);
    // It is due now, and the pauses between attempts have grown to their full length.
    std::thread::sleep(Duration::from_secs(3));
    let before = daemon.cpu();
    std::thread::sleep(Duration::from_secs(2));
    let used = daemon.cpu() - before;
    println!("{used:?} of 2 s");
    assert!(used < Duration::from_millis(400), "it turned for {used:?} of 2 s");
    redis.start_again();
    for name in &names {
        Jobs::of(&redis, name).until("completed", 1);
    }
    daemon.assert_alive();
}

/// The producer goes on through all of it, and remembers what Redis has acknowledged.
#[test]
fn ten_times_kill_9_of_redis_lose_no_accepted_job() {
    const ROUNDS: usize = 10;
    let redis = Mutex::new(Redis::durable());
    let home = Home::new(&redis.lock().expect("nobody panics with it"), CONFIG);
    let daemon = home.start();
    let (stop, accepted) = (AtomicBool::new(false), Mutex::new(BTreeSet::new()));
    let accepted_count = || accepted.lock().expect("nobody panics with it").len();
    std::thread::scope(|scope| {
        let _end = SetOnDrop(&stop);
        scope.spawn(|| produce(&redis, &stop, &accepted));
        for round in 1..=ROUNDS {
            let so_far = accepted_count();
            until("the producer to get through", || (accepted_count() >= so_far + 20).then_some(()));
            let mut redis = redis.lock().expect("nobody panics with it");
            redis.kill();
            redis.start_again();
            println!("round {round}: {} accepted", accepted_count());
        }
    });
    let redis = redis.into_inner().expect("nobody panics with it");
    let accepted = accepted.into_inner().expect("nobody panics with it");
    let mut jobs = Jobs::of(&redis, "work");
    let rows = rusqlite::Connection::open(home.path("state/app.sqlite")).expect("the SQLite file");
    let seen = || -> BTreeSet<i64> {
        let mut select = rows.prepare("SELECT user_id FROM user_events").expect("the table is there");
        select.query_map([], |row| row.get(0)).expect("it can be read").map(|n| n.expect("a number")).collect()
    };
    let mut missing: Vec<i64> = Vec::new();
    until("every accepted job to have its effect", || {
        let seen = seen();
        missing = accepted.iter().filter(|n| !seen.contains(n)).copied().collect();
        missing.is_empty().then_some(())
    });
    let ends = ["pending", "active", "inflight", "retry"];
    until("nothing to be left over", || ends.iter().all(|state| jobs.count(state) == 0).then_some(()));
    assert_eq!(jobs.count("dead"), 0);
    println!("{} jobs accepted over {ROUNDS} kills of Redis, 0 lost", accepted.len());
    assert!(daemon.stop().success());
}

/// However the scope is left, its threads end.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn produce(redis: &Mutex<Redis>, stop: &AtomicBool, accepted: &Mutex<BTreeSet<i64>>) {
    let url = redis.lock().expect("nobody panics with it").url();
    let client = redis::Client::open(url).expect("a valid URL");
    let mut connection = None;
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let message = celery_message("app.note", &random_id(), &json!({ "n": n }));
        let taken =
            connect(&client, &mut connection).and_then(|connection| connection.lpush::<_, _, ()>("work", message));
        match taken {
            Ok(()) => drop(accepted.lock().expect("nobody panics with it").insert(n)),
            Err(_) => connection = None,
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn connect<'a>(
    client: &redis::Client,
    slot: &'a mut Option<redis::Connection>,
) -> redis::RedisResult<&'a mut redis::Connection> {
    if slot.is_none() {
        *slot = Some(client.get_connection_with_timeout(Duration::from_secs(1))?);
    }
    Ok(slot.as_mut().expect("it was just filled"))
}

#[test]
fn redis_may_forget_its_scripts() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let _daemon = home.start();
    let mut client = redis.client();
    let mut ids = Vec::new();
    for n in 0..200 {
        ids.push(push(&mut client, "work", "app.note", &json!({"n": n})));
        if n % 10 == 0 {
            redis::cmd("SCRIPT").arg("FLUSH").exec(&mut client).expect("Redis answers");
        }
    }
    let mut jobs = Jobs::of(&redis, "work");
    jobs.until("completed", ids.len());
    let rows = rusqlite::Connection::open(home.path("state/app.sqlite")).expect("the SQLite file");
    let distinct: i64 = rows
        .query_row("SELECT count(DISTINCT user_id) FROM user_events", [], |row| row.get(0))
        .expect("the table is there");
    assert_eq!(usize::try_from(distinct), Ok(ids.len()));
}
