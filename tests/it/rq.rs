//! An unchanged RQ 2.0 application: plain `queue.enqueue(…)`, its own `enqueue_job`, and what its client sees of jobs
//! that end well and of jobs that cannot run.

use redis::Commands;
use serde_json::{Value, json};

use crate::bench::{Home, Jobs, Python, Redis, one, push, random_id, shipped, until};

const LIKE: &str = r#"{"liker_id": 2, "liker_name": "Bo", "post_owner_id": 1, "post_id": 5}"#;

fn home(redis: &Redis) -> Home {
    Home::with_whole(shipped(&[])).with_env("REDIS_URL", redis.url())
}

#[test]
fn enqueue_comes_back_finished_with_a_return_value() {
    let redis = Redis::start();
    let home = home(&redis);
    let _daemon = home.start();
    let python = Python::on(&redis.url());

    let plain = one(python.produce(&["rq", "notifications", "send_new_like_notification_job", LIKE, "--wait", "20"]));
    assert_eq!(plain["status"], "finished", "{plain:#}");
    assert_eq!(plain["return_value"]["success"], true, "{plain:#}");

    // The application's own way: `timeout=` is left among the keyword arguments, and its connection decodes.
    let own = one(python.produce(&["app", "notifications", "send_new_like_notification_job", LIKE, "--wait", "20"]));
    assert_eq!(own["status"], "finished", "{own:#}");
    let id = own["id"].as_str().expect("an id");
    let mut client = redis.client();
    let record: String = client.hget("jobsd:{notifications}:jobs", id).expect("the record");
    let record: Value = serde_json::from_str(&record).expect("JSON");
    assert_eq!(record["timeout"], 300_000, "`timeout=300` is the job's timeout: {record:#}");

    let rows = rusqlite::Connection::open(home.path("state/app.sqlite")).expect("the SQLite file");
    let count: i64 = rows
        .query_row("SELECT count(*) FROM notifications WHERE user_id = 1 AND notification_type = 'like'", [], |row| {
            row.get(0)
        })
        .expect("the table is there");
    assert_eq!(count, 2, "one notification a job");

    let health = one(python.produce(&["health"]));
    assert_eq!(health["queues"]["notifications"], json!({"count": 0, "failed_count": 0, "started_count": 0}));
}

/// `started` is shown by one part of the daemon and `finished` by another; the later word has to stand.
#[test]
fn a_hundred_quick_jobs_are_all_finished_in_the_end() {
    let redis = Redis::start();
    let home = Home::new(
        &redis,
        "[queues.quick]\nwires = [\"rq\"]\nconcurrency = 50\n[tasks.noop]\nnames = [\"app.noop\"]\nqueue = \"quick\"\nprobe = \"noop\"\n",
    );
    let _daemon = home.start();
    let lines = Python::on(&redis.url()).produce(&["rq", "quick", "app.noop", "--count", "100", "--wait", "30"]);
    Jobs::of(&redis, "quick").until("completed", 100);
    let mut client = redis.client();
    for line in lines {
        let key = format!("rq:job:{}", line["id"].as_str().expect("an id"));
        let status: String = client.hget(&key, "status").expect("a status");
        assert_eq!(status, "finished", "{key}");
    }
}

/// A job whose argument is an object of a class of the application's own.
const CUSTOM: &str = r#"
import json, os, sys, types
from redis import Redis
from rq import Queue
from backend_app.core import rq_tasks

module = sys.modules["shop.models"] = types.ModuleType("shop.models")
sys.modules["shop"] = types.ModuleType("shop")
module.Basket = type("Basket", (), {"__module__": "shop.models"})
queue = Queue("analytics", connection=Redis.from_url(os.environ["REDIS_URL"]))
print(json.dumps(queue.enqueue(rq_tasks.track_user_event_job, 1, "page_view", module.Basket()).id))
"#;

/// What RQ's client reads of the jobs `IDS`. It goes past `Job.fetch`, which cannot read a broken pickle either.
const OUTCOMES: &str = r#"
import json, os, time
from redis import Redis
from rq.job import Job
from rq.results import Result

connection = Redis.from_url(os.environ["REDIS_URL"])
deadline = time.monotonic() + 20
for id in IDS:
    job = Job(id, connection=connection)
    while job.get_status() != "failed" and time.monotonic() < deadline:
        time.sleep(0.02)
    latest = Result.fetch_latest(job)
    print(json.dumps({"id": id, "status": job.get_status(), "exc_info": latest and latest.exc_string}))
"#;

#[test]
fn jobs_that_cannot_run_are_failed_with_a_reason() {
    let redis = Redis::start();
    let home = home(&redis);
    let _daemon = home.start();
    let python = Python::on(&redis.url());

    let custom = one(python.run(CUSTOM));
    let custom = custom.as_str().expect("an id");
    let mut client = redis.client();
    let broken = by_hand(&mut client, "analytics", b"\x80\x04 this is no pickle");
    let unknown = one(python.produce(&["rq", "analytics", "backend_app.core.rq_tasks.no_such_job", "[1]"]));
    let unknown = unknown["id"].as_str().expect("an id");
    let missing = one(python.produce(&[
        "rq",
        "analytics",
        "backend_app.core.rq_tasks.track_user_event_job",
        r#"{"user_id": 1}"#,
    ]));
    let missing = missing["id"].as_str().expect("an id");

    let ids = json!([custom, broken, unknown, missing]).to_string();
    let seen = python.run(&OUTCOMES.replace("IDS", &ids));
    let words = [
        (custom, "shop.models.Basket"),
        (broken.as_str(), "pickle"),
        (unknown, "backend_app.core.rq_tasks.no_such_job"),
        (missing, "event_type"),
    ];
    for ((id, words), line) in words.into_iter().zip(&seen) {
        assert_eq!((&line["id"], &line["status"]), (&json!(id), &json!("failed")), "{line:#}");
        let told = line["exc_info"].as_str().unwrap_or_default();
        assert!(told.contains(words), "{words:?} is not in what the producer reads:\n{told}");
    }
    let mut jobs = Jobs::of(&redis, "analytics");
    jobs.until("dead", 4);
    let good =
        one(python.produce(&["app", "analytics", "track_user_event_job", r#"[1, "page_view"]"#, "--wait", "20"]));
    assert_eq!(good["status"], "finished", "the queue goes on: {good:#}");
}

/// The hash and the list element that RQ's client would write, with this `data`.
fn by_hand(client: &mut redis::Connection, queue: &str, data: &[u8]) -> String {
    let id = random_id();
    let key = format!("rq:job:{id}");
    client.hset::<_, _, _, ()>(&key, "data", data).expect("Redis takes it");
    let fields =
        [("status", "queued"), ("origin", queue), ("timeout", "180"), ("created_at", "2026-01-01T00:00:00.000000Z")];
    client.hset_multiple::<_, _, _, ()>(&key, &fields).expect("Redis takes it");
    client.rpush::<_, _, ()>(format!("rq:queue:{queue}"), &id).expect("Redis takes it");
    id
}

/// An id whose hash is gone (its `ttl` is over, or it was deleted) is passed over, as RQ's own worker does.
#[test]
fn an_id_without_a_hash_stops_nothing() {
    let redis = Redis::start();
    let home = home(&redis);
    let _daemon = home.start();
    let mut client = redis.client();
    // More of them than the queue has slots.
    for _ in 0..20 {
        client.rpush::<_, _, ()>("rq:queue:analytics", random_id()).expect("Redis takes it");
    }
    let python = Python::on(&redis.url());
    let good =
        one(python.produce(&["app", "analytics", "track_user_event_job", r#"[1, "page_view"]"#, "--wait", "20"]));
    assert_eq!(good["status"], "finished", "{good:#}");
    let waiting = || client.llen::<_, usize>("rq:queue:analytics").ok().filter(|&waiting| waiting == 0);
    until("the list to be empty", waiting);
    assert_eq!(Jobs::of(&redis, "analytics").count("dead"), 0);
}

/// A node died with a message in flight, and the configuration no longer reads the list it came from: it is a job all
/// the same.
#[test]
fn a_message_in_flight_outlives_its_list() {
    let redis = Redis::start();
    let python = Python::on(&redis.url());
    let sent = one(python.produce(&["rq", "old", "app.noop"]));
    let id = sent["id"].as_str().expect("an id");
    let mut client = redis.client();
    client.del::<_, ()>("rq:queue:old").expect("Redis answers");
    let field = "dead-node/1\0rq:queue:old";
    client.hset::<_, _, _, ()>("jobsd:{quick}:inflight", field, id).expect("Redis takes it");
    let home = Home::new(
        &redis,
        "[queues.quick]\nwires = [\"rq\"]\n[tasks.noop]\nnames = [\"app.noop\"]\nqueue = \"quick\"\nprobe = \"noop\"\n",
    );
    let _daemon = home.start();
    Jobs::of(&redis, "quick").ended(id, "completed");
    let mut status = || client.hget::<_, _, String>(format!("rq:job:{id}"), "status").ok();
    until("its producer to be told", || status().filter(|status| status == "finished"));
}

/// Both wires into one queue, in one go.
#[test]
fn a_queue_may_read_both_wires() {
    let redis = Redis::start();
    let home = Home::new(
        &redis,
        "[queues.both]\nwires = [\"celery\", \"rq\"]\n[tasks.noop]\nnames = [\"app.noop\"]\nqueue = \"both\"\nprobe = \"noop\"\n",
    );
    let _daemon = home.start();
    let id = push(&mut redis.client(), "both", "app.noop", &json!({}));
    let line = one(Python::on(&redis.url()).produce(&["rq", "both", "app.noop", "--wait", "20"]));
    assert_eq!(line["status"], "finished", "{line:#}");
    Jobs::of(&redis, "both").ended(&id, "completed");
}

/// What RQ after 2.0 writes into a job's hash, put there by hand.
const NEWER: &str = r#"
import json, os, threading, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from redis import Redis
from rq import Queue
connection = Redis.from_url(os.environ["REDIS_URL"])
queue = Queue("quick", connection=connection)
def enqueue(**fields):
    job = queue.create_job("app.noop")
    job.save()
    connection.hset(job.key, mapping=fields)
    return queue.enqueue_job(job)
repeated = enqueue(repeats_left=2, repeat_intervals="[0, 1]")
hook = lambda port, path: json.dumps([{"url": f"http://127.0.0.1:{port}/{path}", "job_status": "finished", "method": "POST", "headers": {"Authorization": "Bearer of-the-producer"}, "timeout": 5}])
refused = enqueue(webhooks='[{"url": "http://x/"}]')
seen = []
class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        seen.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(503 if len(seen) == 1 else 200)
        self.end_headers()
    def log_message(self, *rest):
        pass
receiver = HTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=receiver.serve_forever, daemon=True).start()
told = enqueue(webhooks=hook(receiver.server_port, "told"))
deadline = time.monotonic() + 30
while time.monotonic() < deadline and (len(repeated.results()) < 3 or refused.get_status() != "failed" or len(seen) < 2):
    time.sleep(0.05)
time.sleep(0.2)
print(json.dumps({
    "runs": len(repeated.results()), "status": repeated.get_status(), "left": connection.hget(repeated.key, "repeats_left").decode(),
    "reason": refused.latest_result().exc_string, "told": told.id, "seen": [json.loads(body)["job_id"] for body in seen],
    "same": len(set(seen)) == 1,
}))
"#;

const QUICK: &str = "[queues.quick]\nwires = [\"rq\"]\nretry = { limit = 2, backoff = \"fixed\", delay = \"1s\" }\n[tasks.noop]\nnames = [\"app.noop\"]\nqueue = \"quick\"\nprobe = \"noop\"\n";

#[test]
fn what_newer_producers_ask_for_is_done_or_refused() {
    let redis = Redis::start();
    let home = Home::new(&redis, &format!("[http]\nallow_private = [\"127.0.0.1\"]\n{QUICK}"));
    let daemon = home.start();
    let seen = one(Python::on(&redis.url()).run(NEWER));
    assert_eq!(
        (&seen["runs"], &seen["status"], &seen["left"]),
        (&json!(3), &json!("finished"), &json!("0")),
        "{seen:#}"
    );
    let reason = seen["reason"].as_str().expect("a text");
    assert!(reason.contains("webhooks"), "{reason}");
    assert_eq!((&seen["seen"], &seen["same"]), (&json!([seen["told"], seen["told"]]), &json!(true)), "{seen:#}");
    // The request is a job as others are; what opens doors is not shown.
    let told = seen["told"].as_str().expect("an id");
    let mut jobs = Jobs::of(&redis, "quick");
    // With the repeated one, which is the same job each time.
    jobs.until("completed", 3);
    let id =
        jobs.ids("completed").into_iter().find(|id| id.starts_with(told) && id != told).expect("the request's job");
    let shown = home.type_to(&daemon, &["job", &id, "--json"]).well();
    assert_eq!(
        (&shown.json()["task"], &shown.json()["history"]["failures"]),
        (&json!("rq.webhook"), &json!(1)),
        "{}",
        shown.out
    );
    assert!(!shown.out.contains("of-the-producer"), "{}", shown.out);
}

/// A worker is on RQ's list for as long as its node lives.
#[test]
fn workers_come_and_go_with_their_node() {
    let redis = Redis::start();
    let home = Home::new(&redis, &format!("{QUICK}[queues.more]\nwires = [\"rq\"]\nconcurrency = 2\n"));
    let daemon = home.start();
    let mut client = redis.client();
    let mut workers = || {
        let mut names: Vec<String> = client.smembers("rq:workers").expect("Redis answers");
        names.sort();
        names
    };
    let first = until("the first node's workers", || Some(workers()).filter(|names| names.len() > 2));
    assert!(first.iter().any(|name| name.ends_with(".more.2")), "{first:?}");
    let mut other = redis.client();
    let locks = until("the first node to schedule two queues", || {
        let locks: Vec<String> = other.keys("rq:scheduler*").expect("Redis answers");
        (locks.len() == 3).then_some(locks)
    });
    daemon.kill();
    // Its locks last for up to a minute; nobody needs to wait for that here.
    other.del::<_, ()>(locks).expect("Redis answers");
    let second = home.start();
    until("the second node to schedule", || {
        other.exists::<_, bool>("rq:scheduler-lock:quick").expect("Redis answers").then_some(())
    });
    until("the dead node's workers to be gone", || {
        let now = workers();
        (now.len() == first.len() && !now.iter().any(|name| first.contains(name))).then_some(())
    });
    assert!(second.stop().success());
    assert_eq!(workers(), [""; 0]);
    let locks: Vec<String> = other.keys("rq:scheduler*").expect("Redis answers");
    assert!(locks.is_empty(), "another scheduler may begin at once: {locks:?}");
}
