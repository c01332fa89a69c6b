//! What follows when a job is not done: put off at no cost, not tried again, too late.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::bench::{Daemon, Home, Jobs, Python, Redis, get, one, post, push, until};

/// Enqueues over HTTP; the id.
fn enqueue(daemon: &Daemon, job: &Value) -> String {
    let answer = post(daemon.admin, "/api/v1/jobs", job);
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

fn shown(daemon: &Daemon, id: &str) -> Value {
    get(daemon.admin, &format!("/api/v1/jobs/{id}")).json()
}

/// A program that is not ready until the file `ready` is there, and counts its runs in the file `runs`.
const FEED: &str = "[queues.work]\nwires = [\"celery\", \"rq\"]\nretry = false\n\
    [tasks.import]\nnames = [\"app.import\"]\nqueue = \"work\"\n\
    exec = { program = \"/bin/sh\", args = [\"-c\", '''\n\
    echo run >> runs\n\
    test -e ready && echo imported && exit 0\n\
    echo '{\"retry_after\": 1, \"reason\": \"the feed is not ready\"}'; exit 75'''] }\n";

#[test]
fn a_program_that_is_not_ready_is_run_later_without_an_attempt() {
    let redis = Redis::start();
    let home = Home::new(&redis, FEED);
    let daemon = home.start();
    let (mut client, mut jobs) = (redis.client(), Jobs::of(&redis, "work"));
    let id = push(&mut client, "work", "app.import", &json!({}));
    let python = Python::on(&redis.url());
    let rq = python.run(
        "import json, os\nfrom redis import Redis\nfrom rq import Queue\n\
         print(json.dumps([Queue('work', connection=Redis.from_url(os.environ['REDIS_URL'])).enqueue('app.import').id]))",
    );
    let rq = rq[0][0].as_str().expect("an id").to_owned();

    let snoozes = |history: &Value| history["snoozes"].as_u64().unwrap_or_default();
    until("both to be put off twice", || {
        let both = [&id, &rq].map(|id| jobs.history(id).map_or(0, |history| snoozes(&history)));
        both.iter().all(|&snoozes| snoozes >= 2).then_some(())
    });
    let waiting = until("a look between two runs", || Some(shown(&daemon, &id)).filter(|job| job["state"] == "retry"));
    assert_eq!(waiting["history"]["snooze"]["reason"], "the feed is not ready", "{waiting:#}");
    assert_eq!((&waiting["history"]["failures"], &waiting["history"]["mishaps"]), (&json!(0), &json!([])));
    // What the producers see meanwhile.
    let told = until("the Celery producer to be told", || {
        let text: Option<String> = redis::Commands::get(&mut client, format!("celery-task-meta-{id}")).ok();
        text.and_then(|text| serde_json::from_str::<Value>(&text).ok())
    });
    assert_eq!(told["status"], "RETRY", "{told:#}");
    let exception =
        json!({"exc_type": "Retry", "exc_message": ["the feed is not ready"], "exc_module": "celery.exceptions"});
    assert_eq!(told["result"], exception);
    until("the RQ producer to be told", || {
        let status: Option<String> = redis::Commands::hget(&mut client, format!("rq:job:{rq}"), "status").ok();
        status.filter(|status| status == "scheduled")
    });

    std::fs::write(home.path("ready"), "").expect("it can be written");
    for id in [&id, &rq] {
        let history = jobs.ended(id, "completed");
        assert_eq!(history["end"]["result"], "imported");
        assert_eq!((&history["failures"], snoozes(&history) >= 2), (&Value::Null, true), "{history:#}");
    }
    let runs = std::fs::read_to_string(home.path("runs")).expect("it ran").lines().count();
    let expected: u64 = [&id, &rq].map(|id| 1 + snoozes(&jobs.history(id).expect("it has one"))).iter().sum();
    assert_eq!(runs as u64, expected, "one run for each snooze, and the last");
}

#[test]
fn a_job_that_could_not_start_in_time_ends_without_running() {
    let redis = Redis::start();
    let config = "[queues.work]\nwires = [\"celery\"]\nconcurrency = 1\n\
        [tasks.block]\nqueue = \"work\"\n\
        exec = { program = \"/bin/sh\", args = [\"-c\", 'until [ -e open ]; do sleep 0.05; done'] }\n\
        [tasks.note]\nnames = [\"app.note\"]\nqueue = \"work\"\n\
        exec = { program = \"/bin/sh\", args = [\"-c\", 'echo ran >> runs'] }\n\
        [tasks.brief]\nqueue = \"work\"\nexpires = \"1s\"\n\
        exec = { program = \"/bin/sh\", args = [\"-c\", 'echo ran >> runs'] }\n";
    let home = Home::new(&redis, config);
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    enqueue(&daemon, &json!({"task": "block"}));
    jobs.until("active", 1);
    let late = [json!({"task": "note", "expires": "1s"}), json!({"task": "brief"})].map(|job| enqueue(&daemon, &job));
    let good = [json!({"task": "note", "expires": "1h"}), json!({"task": "brief", "expires": "1h"})]
        .map(|job| enqueue(&daemon, &job));
    let expires = chrono::DateTime::parse_from_rfc3339(shown(&daemon, &late[1])["expires"].as_str().expect("a time"));
    let expires = expires.expect("RFC 3339");
    until("the jobs to expire", || (chrono::Utc::now() > expires).then_some(()));
    std::fs::write(home.path("open"), "").expect("it can be written");
    for id in &good {
        jobs.ended(id, "completed");
    }
    for id in &late {
        let end = jobs.ended(id, "dead")["end"].take();
        assert_eq!((&end["cause"], &end["started"]), (&json!("expired"), &Value::Null), "{end:#}");
        assert!(end["reason"].as_str().is_some_and(|reason| reason.starts_with("it expired at ")), "{end:#}");
    }
    let runs = std::fs::read_to_string(home.path("runs")).expect("two ran");
    assert_eq!(runs, "ran\nran\n");
}

/// Taken in time, and expired while it waits for its second attempt: as a real worker finds it.
#[test]
fn a_celery_message_that_expires_after_it_was_taken_is_revoked() {
    let redis = Redis::start();
    let config = "[queues.work]\nwires = [\"celery\"]\n\
        retry = { limit = 5, backoff = \"fixed\", delay = \"3s\", jitter = 0 }\n\
        [tasks.fail]\nnames = [\"app.fail\"]\nqueue = \"work\"\nprobe = \"fail\"\n";
    let home = Home::new(&redis, config);
    let _daemon = home.start();
    let line = one(Python::on(&redis.url()).run(
        "import json, os\nfrom celery import Celery\nfrom celery.exceptions import TaskRevokedError\n\
         app = Celery(broker=os.environ['REDIS_URL'], backend=os.environ['REDIS_URL'])\n\
         sent = app.send_task('app.fail', queue='work', expires=2)\n\
         try:\n    sent.get(timeout=20)\n\
         except TaskRevokedError as error:\n    print(json.dumps({'id': sent.id, 'state': sent.state, 'says': str(error)}))\n",
    ));
    assert_eq!((&line["state"], &line["says"]), (&json!("REVOKED"), &json!("expired")), "{line:#}");
    let history = Jobs::of(&redis, "work").ended(line["id"].as_str().expect("an id"), "dead");
    assert_eq!((&history["end"]["cause"], &history["failures"]), (&json!("expired"), &json!(1)), "{history:#}");
}

#[test]
fn failures_that_are_named_are_not_tried_again() {
    let redis = Redis::start();
    let config = "[queues.work]\nretry = { limit = 5, delay = \"1m\", never = [\"Quota*\", \"TimeLimitExceeded\"] }\n\
        [tasks.fail]\nqueue = \"work\"\nparams = { kind = \"string\" }\nprobe = \"fail\"\n\
        [tasks.sleep]\nqueue = \"work\"\nparams = { seconds = \"number\" }\ntimeout = \"100ms\"\nprobe = \"sleep\"\n";
    let home = Home::new(&redis, config);
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    let named = enqueue(&daemon, &json!({"task": "fail", "args": ["QuotaExceeded"]}));
    let slow = enqueue(&daemon, &json!({"task": "sleep", "args": [60]}));
    let own = enqueue(&daemon, &json!({"task": "fail", "args": ["QuotaExceeded"], "retry": {"never": []}}));
    let once = enqueue(&daemon, &json!({"task": "fail", "args": ["Other"], "retry": false}));
    let other = enqueue(&daemon, &json!({"task": "fail", "args": ["Other"]}));
    let late = enqueue(&daemon, &json!({"task": "fail", "args": ["Other"], "retry": {"for": "70s", "jitter": 0}}));
    for (id, cause, reason) in [
        (&named, "not-retryable", "`retry.never` names QuotaExceeded by `Quota*`"),
        (&slow, "not-retryable", "`retry.never` names TimeLimitExceeded"),
        (&once, "retries-exhausted", "it failed once, and `retry.limit` is 0"),
    ] {
        let end = jobs.ended(id, "dead")["end"].take();
        assert_eq!((&end["cause"], &end["reason"]), (&json!(cause), &json!(reason)));
    }
    jobs.until("retry", 3);
    for id in [&own, &other, &late] {
        assert_eq!(shown(&daemon, id)["state"], "retry");
    }
}

/// A partner in maintenance, which says how long it will take.
#[test]
fn a_server_that_wants_more_time_than_there_is_ends_the_job_at_once() {
    let redis = Redis::start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/hook", listener.local_addr().expect("it is bound"));
    let server = std::thread::spawn(move || {
        for seconds in [7200, 1800] {
            let (mut stream, _) = listener.accept().expect("a caller");
            let _ = stream.read(&mut [0; 4096]);
            let answer = format!(
                "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).expect("it reads");
        }
    });
    let config = format!(
        "[queues.work]\nconcurrency = 1\nretry = {{ for = \"1h\" }}\n\
         [tasks.tell]\nqueue = \"work\"\nhttp = {{ url = \"{url}\" }}\n"
    );
    let home = Home::new(&redis, &config);
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    let hopeless = enqueue(&daemon, &json!({"task": "tell"}));
    let history = jobs.ended(&hopeless, "dead");
    let end = &history["end"];
    let reason = "it was told to wait for 2h, which is longer than `retry.for` = 1h allows";
    assert_eq!((&end["cause"], &end["reason"]), (&json!("retries-exhausted"), &json!(reason)));
    assert_eq!((&history["failures"], &history["mishaps"][0]["name"]), (&json!(1), &json!("Http503")));

    let patient = enqueue(&daemon, &json!({"task": "tell"}));
    jobs.until("retry", 1);
    let shown = shown(&daemon, &patient);
    let time = |at: &Value| chrono::DateTime::parse_from_rfc3339(at.as_str().expect("a time")).expect("RFC 3339");
    let wait = time(&shown["due"]) - time(&shown["history"]["mishaps"][0]["at"]);
    assert_eq!(wait.num_seconds(), 1800, "{shown:#}");
    server.join().expect("both calls were answered");
}
