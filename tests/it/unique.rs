//! Unique jobs: who comes second is told who was first, over HTTP, on the command line, in Celery and in RQ.

use serde_json::{Value, json};

use crate::bench::{Answer, Daemon, Home, Jobs, Python, Redis, get, one, post, until};

/// `gated` runs until the file `open` is there; `broken` fails.
const CONFIG: &str = r#"
[queues.work]
wires = ["celery", "rq"]
concurrency = 2
retry = false
[tasks.gated]
names = ["app.gated"]
queue = "work"
params = { user = "id" }
unique = "{{ user }}"
exec = { program = "/bin/sh", args = ["-c", 'while ! [ -e open ]; do sleep 0.05; done'] }
[tasks.replace]
queue = "work"
params = { user = "id", text = "string?" }
unique = { key = "{{ user }}", on_conflict = "replace" }
exec = { program = "/bin/sh", args = ["-c", 'while ! [ -e open ]; do sleep 0.05; done'] }
[tasks.debounce]
queue = "work"
params = { user = "id", text = "string?" }
unique = { key = "{{ user }}", on_conflict = "debounce", wait = "1s" }
probe = "echo"
[tasks.throttle]
queue = "work"
params = { user = "id" }
unique = { key = "{{ user }}", on_conflict = "throttle", for = "1h" }
probe = "noop"
[tasks.broken]
queue = "work"
params = { user = "id" }
unique = { key = "{{ user }}", until = "ended" }
exec = { program = "/bin/sh", args = ["-c", 'exit 65'] }
"#;

fn send(daemon: &Daemon, job: &Value) -> Answer {
    post(daemon.admin, "/api/v1/jobs", job)
}

#[track_caller]
fn accepted(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// The problem of a request that was refused because of a key.
#[track_caller]
fn conflict(answer: &Answer) -> Value {
    assert_eq!(answer.status, 409, "{answer:?}");
    let problem = answer.json();
    assert_eq!(problem["type"], "urn:jobsd:problem:key-held", "{problem:#}");
    problem
}

fn shown(daemon: &Daemon, id: &str) -> Value {
    get(daemon.admin, &format!("/api/v1/jobs/{id}")).json()
}

fn open(home: &Home) {
    std::fs::write(home.path("open"), "").expect("it can be written");
}

#[test]
fn a_second_job_is_refused_and_told_who_is_first() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    let job = json!({"task": "gated", "args": {"user": 41}});
    let first = accepted(&send(&daemon, &job));
    jobs.until("active", 1);

    let problem = conflict(&send(&daemon, &job));
    assert_eq!((&problem["holder"]["id"], &problem["holder"]["state"]), (&json!(first), &json!("active")));
    let detail = problem["detail"].as_str().expect("a sentence");
    assert!(detail.starts_with(&format!("the job was not enqueued: its unique key is held by the job {first} since ")));
    assert_eq!(problem["holder"].get("free_at"), None, "nobody knows when it ends");
    let unique = json!({"key": "41", "on_conflict": "reject", "until": "ended"});
    assert_eq!(shown(&daemon, &first)["unique"], unique);

    // Another user, a key of its own, and none at all.
    let others = json!([
        {"task": "gated", "args": {"user": 42}, "in": "1h"},
        {"task": "gated", "args": {"user": 41}, "id": "twin"},
        {"task": "gated", "args": {"user": 41}, "unique": "another", "in": "1h"},
        {"task": "gated", "args": {"user": 41}, "unique": false, "in": "1h"},
        {"task": "gated", "args": {"user": 42}, "unique": {"until": "started"}},
    ]);
    let answer = send(&daemon, &others);
    let items = answer.json();
    assert_eq!(answer.status, 201, "{items:#}");
    let added: Vec<&Value> = (0..5).map(|at| &items[at]["added"]).collect();
    assert_eq!(added, [true, false, true, true, false], "{items:#}");
    assert_eq!((&items[1]["holder"]["id"], &items[4]["holder"]["id"]), (&json!(first), &items[0]["id"]));
    assert_eq!(get(daemon.admin, "/api/v1/jobs/twin").status, 404, "nothing is left of what was refused");

    let typed = home.type_to(&daemon, &["enqueue", "gated", "user=7", "--unique", "41", "--in", "1h"]);
    assert_eq!(typed.code, 1, "{typed:?}");
    assert!(typed.err.contains(&first), "{typed:?}");
    home.type_to(&daemon, &["enqueue", "gated", "user=41", "--unique", r#"{"key": "k", "for": "1h"}"#]).well();

    open(&home);
    jobs.ended(&first, "completed");
    accepted(&send(&daemon, &job));
}

#[test]
fn a_waiting_job_gives_way_and_a_running_one_does_not() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    let old = accepted(&send(&daemon, &json!({"task": "replace", "args": {"user": 1, "text": "old"}, "in": "1h"})));
    let answer = send(&daemon, &json!({"task": "replace", "args": {"user": 1, "text": "new"}}));
    let new = accepted(&answer);
    assert_eq!(answer.json()["replaced"], old.as_str());
    let history = jobs.ended(&old, "cancelled");
    assert_eq!(history["end"]["reason"], format!("replaced by the job {new}, which has the same unique key"));
    jobs.until("active", 1);
    let problem = conflict(&send(&daemon, &json!({"task": "replace", "args": {"user": 1}})));
    assert_eq!((&problem["holder"]["id"], &problem["holder"]["state"]), (&json!(new), &json!("active")));
    open(&home);
    jobs.ended(&new, "completed");
}

#[test]
fn of_a_burst_only_the_last_one_starts_with_its_own_arguments() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    let of = |text: &str| json!({"task": "debounce", "args": {"user": 1, "text": text}});
    let answers: Vec<Answer> = ["a", "b", "c"].iter().map(|text| send(&daemon, &of(text))).collect();
    let ids: Vec<String> = answers.iter().map(accepted).collect();
    assert_eq!(answers[2].json()["state"], "scheduled");
    for (id, by) in ids.iter().zip(&ids[1..]) {
        let reason = jobs.ended(id, "cancelled")["end"]["reason"].as_str().unwrap_or_default().to_owned();
        assert!(reason.contains(by), "{id} does not say that {by} came: {reason}");
    }
    let history = jobs.ended(&ids[2], "completed");
    assert_eq!(history["end"]["result"]["args"]["text"], "c");
    let (sent, started) = (&shown(&daemon, &ids[2])["enqueued_at"], &shown(&daemon, &ids[2])["end"]["started"]);
    let at = |text: &Value| chrono::DateTime::parse_from_rfc3339(text.as_str().expect("a time")).expect("a time");
    assert!(at(started) - at(sent) >= chrono::Duration::seconds(1), "it started before its wait was over");
    accepted(&send(&daemon, &of("d")));
}

#[test]
fn in_its_time_a_throttled_task_starts_once() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    let job = json!({"task": "throttle", "args": {"user": "ann"}});
    let first = accepted(&send(&daemon, &job));
    Jobs::of(&redis, "work").ended(&first, "completed");
    let holder = conflict(&send(&daemon, &job))["holder"].clone();
    assert_eq!((&holder["id"], &holder["state"]), (&json!(first), &json!("completed")));
    let at = |text: &Value| chrono::DateTime::parse_from_rfc3339(text.as_str().expect("a time")).expect("a time");
    let started = shown(&daemon, &first)["end"]["started"].clone();
    assert_eq!(at(&holder["free_at"]) - at(&started), chrono::Duration::hours(1), "counted from the start");
    accepted(&send(&daemon, &json!({"task": "throttle", "args": {"user": "bob"}})));
}

#[test]
fn a_retry_of_an_old_job_finds_its_newer_twin() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    let dead: Vec<String> = (0..3)
        .map(|user| {
            let id = accepted(&send(&daemon, &json!({"task": "broken", "args": {"user": user}})));
            jobs.ended(&id, "dead");
            id
        })
        .collect();
    let twin = accepted(&send(&daemon, &json!({"task": "broken", "args": {"user": 0}, "in": "1h"})));
    let retry = |id: &str, body: &Value| post(daemon.admin, &format!("/api/v1/jobs/{id}/retry"), body);

    let problem = conflict(&retry(&dead[0], &json!({})));
    assert_eq!((&problem["holder"]["id"], &problem["holder"]["state"]), (&json!(twin), &json!("scheduled")));
    assert_eq!(shown(&daemon, &dead[0])["state"], "dead", "it is left as it was");
    // Under other arguments it is another job; but not under those of a twin.
    assert_eq!(retry(&dead[1], &json!({"args": {"user": 0}})).status, 409);
    assert_eq!(retry(&dead[1], &json!({"args": {"user": 10}})).status, 200);
    assert_eq!(shown(&daemon, &dead[1])["unique"]["key"], "10");
    until("it to be dead again", || (shown(&daemon, &dead[1])["state"] == "dead").then_some(()));

    let all = post(daemon.admin, "/api/v1/jobs/retry", &json!({"state": "dead", "queue": "work"})).json();
    assert_eq!((&all["changed"], &all["conflicts"]), (&json!(2), &json!(1)), "{all:#}");
    let conflicting = json!([{"id": dead[0], "holder": {"id": twin, "state": "scheduled"}}]);
    assert_eq!(all["conflicting"][0]["id"], conflicting[0]["id"]);
    assert_eq!(all["conflicting"][0]["holder"]["id"], conflicting[0]["holder"]["id"]);
    let typed = home.type_to(&daemon, &["retry", &dead[0]]);
    assert!(typed.code == 1 && (typed.err + &typed.out).contains(&twin));

    // With the twin gone, it may.
    assert_eq!(post(daemon.admin, &format!("/api/v1/jobs/{twin}/cancel"), &json!({})).status, 200);
    assert_eq!(retry(&dead[0], &json!({})).status, 200);
}

/// A job that came second is never silently dropped: its producer sees that it was revoked.
#[test]
fn producers_of_celery_and_rq_learn_that_they_came_second() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let _daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    let python = Python::on(&redis.url());
    let celery = ["celery", "app.gated", r#"{"user": 41}"#, "--queue", "work"];
    let first = one(python.produce(&celery));
    let first = first["id"].as_str().expect("an id");
    jobs.until("active", 1);

    let second = one(python.produce(&[&celery[..], &["--get", "20"]].concat()));
    assert_eq!((&second["state"], &second["error"]["type"]), (&json!("REVOKED"), &json!("TaskRevokedError")));
    let reason = format!("left out: the job {first} holds its unique key");
    let of = |line: &Value| line["id"].as_str().expect("an id").to_owned();
    assert_eq!(jobs.ended(&of(&second), "cancelled")["end"]["reason"], reason);

    let rq = "import json, os, time\nfrom redis import Redis\nfrom rq import Queue\n\
        from rq.registry import CanceledJobRegistry\n\
        queue = Queue('work', connection=Redis.from_url(os.environ['REDIS_URL']))\n\
        job = queue.enqueue('app.gated', 41)\n\
        deadline = time.monotonic() + 20\n\
        while job.get_status() != 'canceled' and time.monotonic() < deadline: time.sleep(0.02)\n\
        ids = CanceledJobRegistry(queue=queue).get_job_ids()\n\
        print(json.dumps({'id': job.id, 'status': job.get_status(), 'listed': job.id in ids}))";
    let third = one(python.run(rq));
    assert_eq!((&third["status"], &third["listed"]), (&json!("canceled"), &json!(true)), "{third:#}");
    assert_eq!(jobs.ended(&of(&third), "cancelled")["end"]["reason"], reason);

    open(&home);
    jobs.ended(first, "completed");
    let after = one(python.produce(&[&celery[..], &["--get", "20"]].concat()));
    assert_eq!(after["state"], "SUCCESS", "the key is free again: {after:#}");
}

#[test]
fn a_key_outlives_the_daemon() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    let job = json!({"task": "gated", "args": {"user": 41}});
    let first = accepted(&send(&daemon, &job));
    jobs.until("active", 1);
    daemon.kill();
    let daemon = home.start();
    assert_eq!(conflict(&send(&daemon, &job))["holder"]["id"], first.as_str());
    open(&home);
    jobs.ended(&first, "completed");
    accepted(&send(&daemon, &job));
}

#[test]
fn what_cannot_be_unique_is_named_with_its_place() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let daemon = home.start();
    let cases = [
        ("throttle", json!({"unique": 7}), "/unique", "must be a key"),
        ("throttle", json!({"unique": " "}), "/unique", "the key is empty"),
        ("throttle", json!({"unique": {"key": 7}}), "/unique/key", "must be a text"),
        ("throttle", json!({"unique": {"untill": "ended"}}), "/unique/untill", "did you mean \"until\"?"),
        ("throttle", json!({"unique": {"until": "ended"}}), "/unique/until", "has no effect with \"throttle\""),
        ("throttle", json!({"unique": {"on_conflict": "skip"}}), "/unique/on_conflict", "must be one of \"reject\""),
        ("throttle", json!({"unique": {"for": "0s"}}), "/unique/for", "is not from 100ms to"),
        ("debounce", json!({"in": "1h"}), "/in", "it starts 1s after the last one of its key"),
        ("debounce", json!({"unique": {"for": "500ms"}}), "/unique/for", "is shorter than `wait`"),
        ("gated", json!({"unique": {"on_conflict": "debounce"}}), "/unique", "without `wait`"),
    ];
    for (task, more, pointer, words) in cases {
        let mut job = json!({"task": task, "args": {"user": 1}});
        more.as_object().into_iter().flatten().for_each(|(name, value)| job[name] = value.clone());
        let answer = send(&daemon, &job);
        assert_eq!(answer.status, 422, "{job}: {answer:?}");
        let error = answer.json()["errors"][0].clone();
        let detail = error["detail"].as_str().unwrap_or_default();
        assert_eq!(error["pointer"], pointer, "{job}: {error:#}");
        assert!(detail.contains(words), "{job}: {words:?} is not in {detail:?}");
    }
    assert_eq!(Jobs::of(&redis, "work").count("jobs"), 0, "nothing of it was done");
}
