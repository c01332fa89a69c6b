//! Celery's canvas: chains, groups, chords, callbacks, as Celery's own client sees them, whoever does the tasks: its own
//! worker, jobsd, or both together; and a daemon that is killed in between.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redis::Commands;
use serde_json::{Value, json};

use crate::bench::{Child, Home, Jobs, Python, Redis, until};

/// The tasks of tests/python/canvas_tasks.py, done by probes.
const TASKS: &str = r#"
[queues.canvas]
wires = ["celery"]
concurrency = 4
retry = false

[tasks.add]
names = ["canvas_tasks.add"]
queue = "canvas"
params = { x = "int", y = "int" }
probe = "add"
[tasks.total]
names = ["canvas_tasks.total"]
queue = "canvas"
params = { numbers = "array" }
probe = "sum"
[tasks.echo]
names = ["canvas_tasks.echo"]
queue = "canvas"
params = { a = "any?", b = "any?" }
probe = "echo"
[tasks.fail]
names = ["canvas_tasks.fail"]
queue = "canvas"
params = { kind = "string", message = "string" }
probe = "fail"
[tasks.told]
names = ["canvas_tasks.told"]
queue = "canvas"
params = { task_id = "string" }
probe = "echo"
[tasks.flaky]
names = ["canvas_tasks.flaky"]
queue = "canvas"
params = { failures = "int" }
retry = { limit = 3, backoff = "fixed", delay = "50ms" }
probe = "flaky"
[tasks.sleep]
names = ["canvas_tasks.sleep"]
queue = "canvas"
params = { seconds = "number" }
probe = "sleep"
"#;

/// Checks that come out otherwise, and why.
const DIFFERENCES: &[(&str, &str)] = &[(
    "an unknown step",
    "a real worker that does not know a task fails it alone, and who waits for a later step waits for ever",
)];

/// With both at work a task may be retried by the one that has not run it before, and each counts for itself.
const BESIDE: &[&str] = &["a part that is retried", "an unknown step"];

#[test]
fn canvas_comes_out_the_same_whoever_does_the_tasks() {
    let (real, ours, both) = std::thread::scope(|scope| {
        let real = scope.spawn(|| column(true, false));
        let ours = scope.spawn(|| column(false, true));
        let both = scope.spawn(|| column(true, true));
        (real.join().expect("the real column"), ours.join().expect("our column"), both.join().expect("the third"))
    });
    assert!(real.len() > 40, "the checks have run: {real:#?}");
    let mut wrong = Vec::new();
    for ((real, ours), both) in real.iter().zip(&ours).zip(&both) {
        let name = real["row"].as_str().expect("a name");
        let reason = DIFFERENCES.iter().find(|(row, _)| *row == name);
        let beside = real == both || BESIDE.contains(&name);
        println!("{name}\n    real   {}\n    jobsd  {}\n    beside {}", real["seen"], ours["seen"], both["seen"]);
        if (real == ours) != reason.is_none() || !beside {
            wrong.push(name.to_owned());
        }
    }
    assert_eq!((real.len(), ours.len()), (both.len(), both.len()), "all have the same rows");
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// What the checks see when these do the tasks.
fn column(is_real: bool, is_ours: bool) -> Vec<Value> {
    let redis = Redis::start();
    let home = Home::new(&redis, TASKS);
    let _daemon = is_ours.then(|| home.start());
    let _worker = is_real.then(|| worker(&redis, "canvas"));
    Python::on(&redis.url()).script("canvas_checks.py", &[])
}

/// One of Celery's own workers.
fn worker(redis: &Redis, queue: &str) -> Child {
    let mut command = Child::command(Python::interpreter().with_file_name("celery"));
    command.args(["-A", "canvas_tasks", "worker", "-c", "2", "-Q", queue, "--without-mingle", "--without-gossip"]);
    command.env("PYTHONPATH", Python::folder()).env("PYTHONDONTWRITEBYTECODE", "1").env("REDIS_URL", redis.url());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let worker = Child::spawn(&mut command);
    until("Celery's worker to be there", || {
        let there: bool = redis.client().exists("_kombu.binding.celery.pidbox").expect("Redis answers");
        there.then_some(())
    });
    worker
}

const ACROSS: &str = r#"
import json
from celery import chain, chord
from canvas_tasks import add, echo, fail, told, total
here = lambda sig: sig.set(queue="canvas")
there = lambda sig: sig.set(queue="python")
steps = chain(here(add.s(1, 1)), there(add.s(2)), here(add.s(3)), there(add.s(4)))()
parts = [side(add.s(n, n)) for n in range(6) for side in (here, there)]
mixed = chord(parts, there(total.s()))()
other = chord(parts, here(total.s()))()
nested = (there(add.s(1, 1)) | chord([here(add.s(1)), there(add.s(2))], here(total.s())) | there(add.s(10)))()
failing = chord([here(add.s(1, 1)), there(fail.s("ValueError", "there"))], here(total.s()))()
failing2 = chord([there(add.s(1, 1)), here(fail.s("ValueError", "here"))], there(total.s()))()
def got(result):
    try:
        return result.get(timeout=30)
    except Exception as error:
        return str(error).split(" raised ")[-1]
print(json.dumps([got(result) for result in (steps, mixed, other, nested, failing, failing2)]))
"#;

/// Each side has tasks that the other one follows: messages, counts and entries of chords must fit byte for byte.
#[test]
fn steps_and_parts_cross_between_jobsd_and_a_real_worker() {
    let redis = Redis::start();
    let home = Home::new(&redis, TASKS);
    let _daemon = home.start();
    let _worker = worker(&redis, "python");
    let seen = Python::on(&redis.url()).run(ACROSS).remove(0);
    assert_eq!(seen, json!([11, 60, 60, 17, "there", "here"]));
}

const CHORDS: usize = 40;

const MANY: &str = r#"
from celery import chain, chord
from canvas_tasks import add, echo, sleep, total
for n in range(CHORDS):
    chord([chain(sleep.s(0.02), add.si(n, 1)) for _ in range(4)], total.s().set(queue="collect"))()
    chain(add.s(n, 1), sleep.si(0.02), add.si(n, n), echo.s().set(queue="collect"))()
"#;

/// The last steps go to a list that nobody reads, so whatever is published twice stands there twice.
#[test]
fn a_daemon_that_is_killed_publishes_what_follows_once() {
    let redis = Redis::start();
    let home = Home::new(&redis, &TASKS.replace("retry = false", "retry = false\ncrash_limit = 100"));
    Python::on(&redis.url()).run(&MANY.replace("CHORDS", &CHORDS.to_string()));
    let mut client = redis.client();
    let started = Instant::now();
    let mut kills = 0;
    loop {
        let daemon = home.start();
        std::thread::sleep(Duration::from_millis(150 + 90 * (kills % 4)));
        daemon.kill();
        kills += 1;
        let collected: usize = client.llen("collect").expect("Redis answers");
        if collected >= 2 * CHORDS || kills > 40 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(240), "{collected} collected after {kills} kills");
    }
    // What was published twice may still be on its way: a daemon that is left alone works everything off.
    let _daemon = home.start();
    until("everything to be worked off", || {
        let collected: usize = client.llen("collect").expect("Redis answers");
        let waiting: usize = client.llen("canvas").expect("Redis answers");
        let keys = ["pending", "active", "retry", "scheduled", "outbox", "inflight"];
        let open: usize = keys.iter().map(|key| size(&redis, key)).sum();
        (collected >= 2 * CHORDS && waiting + open == 0).then_some(())
    });
    let elements: Vec<String> = client.lrange("collect", 0, -1).expect("Redis answers");
    let ids: BTreeSet<String> = elements.iter().map(|element| parse(element)["headers"]["id"].to_string()).collect();
    println!("{} chords and chains, {kills} kills, {} messages collected", 2 * CHORDS, elements.len());
    assert_eq!((elements.len(), ids.len()), (2 * CHORDS, 2 * CHORDS), "each of them once");
    let mut results: Vec<Value> = elements.iter().map(|element| body(element)[0][0].clone()).collect();
    results.sort_by_key(|result| (result.is_array(), result.to_string().len(), result.to_string()));
    let mut expected: Vec<Value> =
        (0..CHORDS).map(|n| json!(2 * n)).chain((0..CHORDS).map(|n| json!(vec![n + 1; 4]))).collect();
    expected.sort_by_key(|result| (result.is_array(), result.to_string().len(), result.to_string()));
    assert_eq!(results, expected);
    let left: Vec<String> = client.keys("celery-taskset-meta-*").expect("Redis answers");
    assert_eq!(left, Vec::<String>::new(), "nothing of a complete chord is left");
}

/// A message of Celery's with what is to follow it.
fn message(id: &str, embed: &Value) -> String {
    let body = STANDARD.encode(json!([[1, 1], {}, embed]).to_string());
    json!({
        "body": body, "content-encoding": "utf-8", "content-type": "application/json",
        "headers": {"lang": "py", "task": "canvas_tasks.add", "id": id, "group": "g", "group_index": 0},
        "properties": {"body_encoding": "base64", "delivery_info": {"exchange": "", "routing_key": "canvas"}},
    })
    .to_string()
}

#[test]
fn what_cannot_follow_is_refused_and_nothing_of_it_is_published() {
    let redis = Redis::start();
    let home = Home::new(&redis, TASKS);
    let mut daemon = home.start();
    let mut client = redis.client();
    let good = json!({"task": "canvas_tasks.add", "args": [1], "options": {"queue": "collect"}});
    let chord = |header: Vec<Value>, body: Value| json!({"task": "celery.chord", "subtask_type": "chord", "kwargs": {"header": header, "body": body}});
    let large = json!({"task": "t", "args": ["x".repeat(100_000)]});
    let mut deep = good.clone();
    for _ in 0..60 {
        deep = json!({"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": [deep]}});
    }
    let cases = [
        ("text", json!({"callbacks": [good, "not an object"]}), "a signature is not an object"),
        ("nameless", json!({"callbacks": [good], "chain": [{}]}), "a signature names no task"),
        ("number", json!({"chord": 7}), "a signature is not an object"),
        ("deep", json!({"chain": [deep]}), "nests deeper than 100 levels"),
        ("many", json!({"chain": vec![json!({"task": "t"}); 100_000]}), "more than 50000 signatures"),
        ("wide", json!({"chain": [chord(vec![good.clone(); 1000], large)]}), "would unfold to more than"),
    ];
    for (id, embed, _) in &cases {
        client.lpush::<_, _, ()>("canvas", message(id, embed)).expect("Redis answers");
    }
    for (id, _, words) in &cases {
        let key = format!("celery-task-meta-{id}");
        let told = until("its producer to be told", || client.get::<_, String>(&key).ok());
        assert!(told.contains("FAILURE") && told.contains("InvalidTaskError") && told.contains(words), "{id}: {told}");
    }
    let collected: usize = client.llen("collect").expect("Redis answers");
    assert_eq!((collected, client.exists::<_, bool>("t").expect("Redis answers")), (0, false));
    // A queue that cannot take it: nothing is written until it can, and then all of it once.
    client.set::<_, _, ()>("collect", "of another type").expect("Redis answers");
    let two = json!({"callbacks": [{"task": "canvas_tasks.add", "args": [5], "options": {"task_id": "first"}}, good]});
    client.lpush::<_, _, ()>("canvas", message("late", &two)).expect("Redis answers");
    daemon.wait_for_log("its producer cannot be answered now");
    assert!(!client.exists::<_, bool>("celery-task-meta-late").expect("Redis answers"));
    assert!(!client.exists::<_, bool>("celery-task-meta-first").expect("Redis answers"));
    client.del::<_, ()>("collect").expect("Redis answers");
    until("it to be told", || client.get::<_, String>("celery-task-meta-first").ok());
    assert_eq!(client.llen::<_, usize>("collect").expect("Redis answers"), 1);
}

/// How much stands in a key of the queue, whatever its type.
fn size(redis: &Redis, what: &str) -> usize {
    let key = Jobs::of(redis, "canvas").key(what);
    let mut client = redis.client();
    let kind: String = redis::cmd("TYPE").arg(&key).query(&mut client).expect("Redis answers");
    match kind.as_str() {
        "hash" => client.hlen(&key).expect("Redis answers"),
        "zset" => client.zcard(&key).expect("Redis answers"),
        _ => 0,
    }
}

fn parse(element: &str) -> Value {
    serde_json::from_str(element).expect("JSON")
}

fn body(element: &str) -> Value {
    let body = STANDARD.decode(parse(element)["body"].as_str().expect("a text")).expect("base64");
    serde_json::from_slice(&body).expect("JSON")
}
