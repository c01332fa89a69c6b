//! This daemon as a worker of Celery, seen by Celery's own command line and by a program that uses its control API.

use std::process::Stdio;

use redis::Commands;
use serde_json::{Value, json};

use crate::bench::{Child, Home, Python, Redis, get, one, push, until};

/// Two lists in one queue, a task with a secret.
pub(crate) const CONFIG: &str = r#"
node.name = "vps-1"
[celery]
track_started = true
[queues.mails]
wires = ["celery"]
lists = ["mails", "celery"]
concurrency = 4
retry = false
[tasks.sleep]
names = ["conf.sleep"]
queue = "mails"
params = { seconds = "number" }
probe = "sleep"
[tasks.fail]
names = ["conf.fail", "conf.break"]
queue = "mails"
params = { kind = "string", message = "string" }
probe = "fail"
[tasks.echo]
names = ["conf.echo"]
queue = "mails"
params = { n = "int", token = { type = "string", secret = true, default = "" } }
probe = "echo"
"#;

const CLIENT: &str = r#"
import gc, json, os, time, uuid
from celery import Celery
from celery.exceptions import TaskRevokedError
# The collector may end a result while Celery's client holds its lock, which that end takes too: it would wait for ever.
gc.disable()
url = os.environ["REDIS_URL"]
app = Celery(broker=url, backend=url)
app.conf.task_default_queue = "mails"

def said(**what):
    print(json.dumps(what), flush=True)

def raised(result):
    try:
        return repr(result.get(timeout=30))
    except Exception as error:
        return repr(error)

def state(result, wanted):
    deadline = time.monotonic() + 30
    while result.state != wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    return result.state

def inspect(method, *args, **kwargs):
    # A busy machine may answer late: then ask once more.
    for _ in range(20):
        answer = getattr(app.control.inspect(timeout=2, limit=1), method)(*args, **kwargs)
        if answer:
            [(worker, value)] = answer.items()
            return value
    raise SystemExit(f"nobody answers {method}")

def control(method, **arguments):
    for _ in range(20):
        answer = app.control.broadcast(method, arguments=arguments, reply=True, timeout=2, limit=1)
        if answer:
            [value] = answer[0].values()
            return value
    raise SystemExit(f"nobody answers {method}")
"#;

fn client(redis: &Redis, program: &str) -> Value {
    one(Python::on(&redis.url()).run(&format!("{CLIENT}{program}")))
}

/// What `celery …` prints.
pub(crate) fn celery(redis: &Redis, arguments: &[&str]) -> (bool, String) {
    let mut command = Child::command(Python::interpreter());
    command.args(["-W", "ignore", "-m", "celery", "-b", &redis.url(), "--result-backend", &redis.url()]);
    let output = command.args(arguments).output().expect("Python starts");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits until the worker is there and says its name.
pub(crate) fn worker(redis: &Redis) -> String {
    until("a worker", || {
        let (_, answer) = celery(redis, &["inspect", "ping", "-t", "2", "-j"]);
        let answer: Value = serde_json::from_str(answer.trim()).ok()?;
        answer.as_object()?.keys().next().cloned()
    })
}

#[test]
fn celerys_command_line_sees_one_worker_and_its_commands_act() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let mut daemon = home.start();
    let worker = worker(&redis);
    assert!(worker.starts_with("celery@vps-1"), "{worker}");
    let ask = |arguments: &[&str], expected: &str| {
        // The command line waits a second for all workers; a busy machine may need another one.
        until(format_args!("{arguments:?} to say {expected:?}"), || {
            let (_, said) = celery(&redis, arguments);
            said.contains(expected).then_some(())
        });
    };
    ask(&["status", "-d", &worker], "1 node online.");
    for (method, expected) in [
        ("active", "[]"),
        ("reserved", "[]"),
        ("scheduled", "[]"),
        ("revoked", "[]"),
        ("registered", r#"["conf.break", "conf.echo", "conf.fail", "conf.sleep"]"#),
        ("stats", r#""max-concurrency": 4"#),
        ("active_queues", r#""routing_key": "celery""#),
        ("conf", r#""task_track_started": true"#),
        ("report", "software -> jobsd:"),
        ("clock", "\"clock\": "),
    ] {
        ask(&["inspect", method, "-d", &worker, "-j"], expected);
    }
    ask(&["inspect", "ping", "-d", &worker], "pong");
    ask(&["control", "-d", &worker, "enable_events"], "task events");
    ask(&["control", "-d", &worker, "disable_events"], "task events");
    ask(&["control", "-d", &worker, "time_limit", "conf.sleep", "0.5"], "time limits set successfully");
    ask(&["control", "-d", &worker, "time_limit", "no.such", "1"], "unknown task");
    ask(&["control", "-d", &worker, "rate_limit", "conf.sleep", "10/m"], "new rate limit set successfully");
    ask(&["control", "-d", &worker, "cancel_consumer", "celery"], "no longer consuming from celery");
    ask(&["control", "-d", &worker, "add_consumer", "elsewhere"], "add it to `lists` of a queue in jobsd.toml");
    ask(&["control", "-d", &worker, "pool_grow", "2"], "pool will grow: mails has 6");
    ask(&["control", "-d", &worker, "pool_shrink", "5"], "pool will shrink: mails has 1");
    ask(&["control", "-d", &worker, "autoscale", "8", "2"], "autoscale: mails has 2 to 8");
    ask(&["control", "-d", &worker, "revoke", "x1"], "flagged as revoked");
    ask(&["inspect", "revoked", "-d", &worker, "-j"], r#"["x1"]"#);
    let mut redis_client = redis.client();
    let elsewhere: bool = redis_client.exists("elsewhere").expect("Redis answers");
    assert!(!elsewhere);

    // A list that is left alone is not touched; purge then deletes what stands in it.
    push(&mut redis_client, "celery", "conf.echo", &json!({"n": 1}));
    let (purged, said) = celery(&redis, &["purge", "-f", "-Q", "celery"]);
    assert!(purged && said.contains("1 message"), "{said}");

    ask(&["control", "shutdown", "-d", &worker], "");
    assert!(daemon.wait().success());
    let bound: Vec<String> = redis_client.smembers("_kombu.binding.celery.pidbox").expect("a set");
    assert!(bound.iter().all(|member| !member.contains(&worker)), "{bound:?}");
}

#[test]
fn a_program_that_controls_workers_is_answered() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let _daemon = home.start();
    worker(&redis);
    let seen = client(
        &redis,
        r#"
running = app.send_task("conf.sleep", (60,))
started = state(running, "STARTED")
waiting = app.send_task("conf.echo", (1,), {"token": "hunter2"}, countdown=3600)
scheduled = []
while not scheduled:
    scheduled = inspect("scheduled")
said(
    started=started, info=running.info, active=inspect("active"), safe=inspect("active", safe=True),
    scheduled=scheduled, query=inspect("query_task", running.id, waiting.id, "no-such"),
    hello=control("hello", from_node="other@host", revoked={}), nothing=control("no_such_thing"),
    missing=control("revoke"), many=control("revoke", task_id=[str(n) for n in range(10001)]),
    signal=control("revoke", task_id="x", terminate=True, signal="SIGNONSENSE"),
    unknown=control("terminate", task_id="x", signal="KILL"), restart=control("pool_restart"),
)
"#,
    );
    assert_eq!((&seen["started"], &seen["info"]["pid"].is_u64()), (&"STARTED".into(), &true), "{seen:#}");
    let active = &seen["active"][0];
    assert_eq!((&active["name"], &active["args"]), (&"conf.sleep".into(), &json!([60])), "{seen:#}");
    assert_eq!((&active["delivery_info"]["routing_key"], active["time_start"].is_f64()), (&"mails".into(), true));
    assert_eq!((&seen["safe"][0]["args"], &seen["safe"][0]["kwargs"]), (&"(60,)".into(), &"{}".into()), "{seen:#}");
    let scheduled = &seen["scheduled"][0];
    assert_eq!(scheduled["request"]["kwargs"], json!({"token": "***"}), "{seen:#}");
    assert!(scheduled["eta"].is_string() && !seen.to_string().contains("hunter2"), "{seen:#}");
    let states: Vec<&Value> = seen["query"].as_object().expect("an object").values().map(|found| &found[0]).collect();
    assert!(
        states.len() == 2 && states.contains(&&"active".into()) && states.contains(&&"reserved".into()),
        "{seen:#}"
    );
    assert_eq!(seen["hello"]["revoked"], json!({}));
    assert_eq!(seen["nothing"]["error"], "KeyError('no_such_thing')");
    for (name, words) in [
        ("missing", "missing 1 required positional argument: 'task_id'"),
        ("many", "no more than 10000"),
        ("signal", "no such signal: SIGNONSENSE"),
        ("restart", "not enabled"),
    ] {
        assert!(seen[name]["error"].as_str().is_some_and(|said| said.contains(words)), "{name}: {:#}", seen[name]);
    }
    assert_eq!(seen["unknown"]["ok"], "terminate: tasks unknown");
}

#[test]
fn a_rate_that_a_client_sets_holds_until_it_ends_it() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    worker(&redis);
    let seen = client(
        &redis,
        r#"
nonsense, unknown = control("rate_limit", task_name="conf.echo", rate_limit="2/w"), control("rate_limit", task_name="no.such", rate_limit="2/h")
limited = control("rate_limit", task_name="conf.echo", rate_limit="2/h")
while "conf.echo [rate_limit=2/h]" not in inspect("registered"):
    time.sleep(0.02)
results = [app.send_task("conf.echo", (n,)) for n in range(5)]
while sum(result.state == "SUCCESS" for result in results) < 2:
    time.sleep(0.02)
said(nonsense=nonsense, unknown=unknown, limited=limited, ids=[result.id for result in results])
"#,
    );
    assert!(seen["nonsense"]["error"].as_str().is_some_and(|said| said.starts_with("Invalid rate limit")), "{seen:#}");
    assert_eq!(seen["unknown"]["error"], "unknown task");
    assert_eq!(seen["limited"]["ok"], "new rate limit set successfully");
    let ids: Vec<&str> = seen["ids"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let causes = || {
        let why = |id: &&str| get(daemon.admin, &format!("/api/v1/jobs/{id}/why")).json()["cause"].clone();
        ids.iter().map(why).map(|cause| cause.as_str().expect("a word").to_owned()).collect::<Vec<_>>()
    };
    until("the others to be held by it", || {
        let causes = causes();
        let count = |wanted: &str| causes.iter().filter(|cause| *cause == wanted).count();
        assert!(count("completed") <= 2, "{causes:?}");
        (count("limited") == 3).then_some(())
    });
    let done = client(
        &redis,
        r#"
ended = control("rate_limit", task_name="conf.echo", rate_limit="0")
while "conf.echo" not in inspect("registered"):
    time.sleep(0.02)
said(ended=ended)
"#,
    );
    assert_eq!(done["ended"]["ok"], "rate limit disabled successfully");
    until("the others to go on", || causes().iter().all(|cause| cause == "completed").then_some(()));
}

#[test]
fn what_a_client_revokes_does_not_run() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    worker(&redis);
    let seen = client(
        &redis,
        r#"
running = app.send_task("conf.sleep", (3600,))
state(running, "STARTED")
running.revoke()
harmless = inspect("active")
running.revoke(terminate=True, signal="SIGKILL")
ended = raised(running)
waiting = app.send_task("conf.echo", (1,), countdown=3600)
while not inspect("scheduled"):
    pass
waiting.revoke()
before = str(uuid.uuid4())
control("revoke", task_id=[before])
said(
    harmless=len(harmless), ended=ended, state=running.state, waiting=raised(waiting),
    before=raised(app.send_task("conf.echo", (1,), task_id=before)), good=raised(app.send_task("conf.echo", (7,))),
)
"#,
    );
    assert_eq!(seen["harmless"], 1, "without terminate a task that runs goes on: {seen:#}");
    assert_eq!((&seen["ended"], &seen["state"]), (&"TaskRevokedError('terminated')".into(), &"REVOKED".into()));
    assert_eq!(
        (&seen["waiting"], &seen["before"]),
        (&"TaskRevokedError('revoked')".into(), &seen["waiting"]),
        "{seen:#}"
    );
    assert!(seen["good"].as_str().is_some_and(|said| said.contains('7')), "others go on: {seen:#}");

    // What is revoked while nobody takes messages is refused by whoever starts then.
    let later = client(&redis, "said(id=str(uuid.uuid4()), told=control('revoke', task_id=[str(uuid.uuid4())]))");
    let id = later["id"].as_str().expect("an id").to_owned();
    client(&redis, &format!("said(told=control('revoke', task_id=['{id}']))"));
    assert!(daemon.stop().success());
    let _daemon = home.start();
    let seen = client(&redis, &format!("said(after=raised(app.send_task('conf.echo', (1,), task_id='{id}')))"));
    assert_eq!(seen["after"], "TaskRevokedError('revoked')", "a restart forgets nothing");
}

#[test]
fn a_daemon_without_lists_of_celery_is_no_worker_of_it() {
    let redis = Redis::start();
    let config = "[queues.mails]\nconcurrency = 1\n[tasks.echo]\nqueue = \"mails\"\nparams = { n = \"int\" }\nprobe = \"echo\"\n";
    let home = Home::new(&redis, config);
    let daemon = home.start();
    assert_eq!(celery(&redis, &["inspect", "ping", "-t", "1"]).1.trim(), "", "nobody answers");
    assert!(daemon.stop().success());
    let keys: Vec<String> = redis.client().keys("_kombu*").expect("Redis answers");
    assert!(keys.iter().all(|key| key == "_kombu.binding.reply.celery.pidbox"), "{keys:?}");
}

/// The channel is open to everyone who can publish.
#[test]
fn nonsense_on_the_channel_is_ignored() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let mut daemon = home.start();
    worker(&redis);
    let mut publish = redis.client();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for message in [
        &b"\xff\xfe"[..],
        b"",
        b"null",
        b"[]",
        b"{}",
        br#"{"body": 3}"#,
        br#"{"body": "{\"method\": 1}"}"#,
        deep.as_bytes(),
    ] {
        let _: i64 =
            redis::cmd("PUBLISH").arg("/0.celery.pidbox").arg(message).query(&mut publish).expect("it is heard");
    }
    daemon.wait_for_log("not a command of a Celery client");
    worker(&redis);
}

#[test]
fn events_say_what_happens_and_hide_what_is_secret() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    worker(&redis);
    let log = home.path("events");
    let mut dump = Child::command(Python::interpreter());
    dump.args(["-u", "-W", "ignore", "-m", "celery", "-b", &redis.url(), "events", "--dump"]);
    let file = std::fs::File::create(&log).expect("a file");
    let _dump = Child::spawn(dump.stdin(Stdio::null()).stdout(file).stderr(Stdio::null()));
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    let said = |words: &str| until(format_args!("{words:?} in\n{}", read()), || read().contains(words).then_some(()));
    said("heartbeat");
    let seen = client(
        &redis,
        r#"
quiet = raised(app.send_task("conf.echo", (5,), {"token": "hunter2"}))
control("enable_events")
good = raised(app.send_task("conf.echo", (7,), {"token": "hunter2"}))
bad = raised(app.send_task("conf.break", kwargs={"kind": "ValueError", "message": "no such thing"}))
unknown = raised(app.send_task("conf.nothing"))
running = app.send_task("conf.sleep", (3600,))
state(running, "STARTED")
running.revoke(terminate=True)
said(quiet=quiet, good=good, bad=bad, unknown=unknown, ended=raised(running))
"#,
    );
    assert_eq!(seen["ended"], "TaskRevokedError('terminated')", "{seen:#}");
    for words in [
        "task received: conf.echo",
        "args=(7,) kwargs={'token': '***'}",
        "task started: conf.echo",
        "task succeeded: conf.echo",
        "task failed: conf.break",
        "exception=ValueError('no such thing')",
        "exception=NotRegistered('conf.nothing')",
        "task revoked: conf.sleep",
        "signum=15, terminated=True",
    ] {
        said(words);
    }
    assert!(!read().contains("hunter2") && !read().contains("args=(5,)"), "{}", read());
    assert!(daemon.stop().success());
    said("shutdown: active=0");
}
