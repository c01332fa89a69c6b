//! Bad input is parked with a reason that a person understands; the queue goes on, and the producer sees a failure.

use std::fs;

use redis::Commands;
use serde_json::{Value, json};

use crate::bench::{Home, Jobs, Python, Redis, envelope, one, push, random_id, reason, shipped, until};

const CONFIG: &str = "[queues.work]\nwires = [\"celery\", \"rq\"]\nconcurrency = 2\nretry = { limit = 0 }\n\
    [tasks.noop]\nnames = [\"app.noop\"]\nqueue = \"work\"\nparams = { x = \"any?\" }\nprobe = \"noop\"\n\
    [tasks.broken_sql]\nnames = [\"app.broken_sql\"]\nqueue = \"work\"\nparams = { x = \"any\" }\nsql = \"INSERT INTO no_such_table VALUES (:x)\"\n\
    [tasks.broken_template]\nnames = [\"app.broken_template\"]\nqueue = \"work\"\nparams = { who = \"object\" }\n\
    email = { to = \"ann@example.bs\", subject = \"{{ who.name.first }}\", text = \"Hello\" }\n";

/// The document that `AsyncResult` reads, once it is there.
fn told(client: &mut redis::Connection, id: &str) -> Value {
    let key = format!("celery-task-meta-{id}");
    let text: String = until(format_args!("the producer of {id} to be told"), || client.get(&key).ok());
    serde_json::from_str(&text).expect("result documents are JSON")
}

/// Puts the elements into the Celery list, a good one behind each; returns the histories of the dead by their reason.
fn park(elements: Vec<Vec<u8>>) -> Vec<(String, String)> {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let mut daemon = home.start();
    let (mut client, mut jobs) = (redis.client(), Jobs::of(&redis, "work"));
    let mut reasons = Vec::new();
    for element in elements {
        client.lpush::<_, _, ()>("work", element).expect("Redis takes it");
        let good = push(&mut client, "work", "app.noop", &json!({}));
        jobs.ended(&good, "completed");
        jobs.until("dead", reasons.len() + 1);
        let newest = jobs.ids("dead").pop().expect("there is one");
        reasons.push(reason(&jobs.ended(&newest, "dead")));
    }
    assert_eq!(client.llen::<_, usize>("work").expect("Redis answers"), 0);
    assert_eq!((jobs.count("inflight"), jobs.count("active")), (0, 0));
    daemon.assert_alive();
    reasons
}

#[test]
fn what_cannot_be_read_is_parked_and_the_queue_goes_on() {
    let huge = format!("{{\"body\": \"{}\"}}", "a".repeat(20 << 20));
    let deep = "[".repeat(100_000);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"this is no JSON".to_vec(), "not a Celery message"),
        (b"\xff\xfe\x00 binary".to_vec(), "not a Celery message"),
        (b"[1, 2, 3]".to_vec(), "not an object"),
        (b"".to_vec(), "not a Celery message"),
        (huge.into_bytes(), "larger than"),
        (deep.into_bytes(), "not a Celery message"),
        (b"{\"headers\": {\"task\": \"app.noop\"}}".to_vec(), "no id"),
    ];
    let (elements, words): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    for ((cause, sentence), words) in park(elements).into_iter().zip(words) {
        assert_eq!(cause, "unreadable", "{sentence}");
        assert!(sentence.contains(words), "{words:?} is not in {sentence:?}");
        assert!(sentence.len() < 600, "nobody reads that: {sentence}");
    }
}

/// Refused messages take no slot for good: more of them in a row than the queue has slots, and nothing good in between.
#[test]
fn a_hundred_bad_messages_in_a_row_do_not_stop_a_queue_of_two_slots() {
    const BAD: usize = 100;
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let _daemon = home.start();
    let (mut client, mut jobs) = (redis.client(), Jobs::of(&redis, "work"));
    for n in 0..BAD {
        client.lpush::<_, _, ()>("work", format!("bad {n}")).expect("Redis takes it");
        // Ids without a hash: nothing to run, and nothing to park.
        client.rpush::<_, _, ()>("rq:queue:work", random_id()).expect("Redis takes it");
    }
    let good = push(&mut client, "work", "app.noop", &json!({}));
    jobs.ended(&good, "completed");
    jobs.until("dead", BAD);
    let left = || client.llen::<_, usize>("rq:queue:work").ok().filter(|&left| left == 0);
    until("the other list to be empty", left);
}

#[test]
fn bodies_that_are_refused_are_told_to_their_producer() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let _daemon = home.start();
    let (mut client, mut jobs) = (redis.client(), Jobs::of(&redis, "work"));
    let cases: [(&str, &[u8], &str, &str); 3] = [
        ("application/x-python-serialize", b"\x80\x04N.", "ContentDisallowed", "application/x-python-serialize"),
        ("application/json", b"{ this is no JSON", "", "body"),
        ("application/json", b"42", "", ""),
    ];
    for (content_type, body, class, words) in cases {
        let id = random_id();
        client.lpush::<_, _, ()>("work", envelope("app.noop", &id, content_type, body)).expect("Redis takes it");
        let (cause, sentence) = reason(&jobs.ended(&id, "dead"));
        assert_eq!(cause, "unreadable", "{sentence}");
        assert!(sentence.contains(words), "{words:?} is not in {sentence:?}");
        let told = told(&mut client, &id);
        assert_eq!(told["status"], "FAILURE", "{told:#}");
        assert!(told["result"]["exc_type"].as_str().is_some_and(|told| told.contains(class)), "{told:#}");
    }
    let good = push(&mut client, "work", "app.noop", &json!({}));
    jobs.ended(&good, "completed");
}

#[test]
fn errors_of_sql_and_of_templates_are_failures_with_their_words() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let _daemon = home.start();
    let (mut client, mut jobs) = (redis.client(), Jobs::of(&redis, "work"));

    let sql = push(&mut client, "work", "app.broken_sql", &json!({"x": 1}));
    let template = push(&mut client, "work", "app.broken_template", &json!({"who": {}}));
    let good = push(&mut client, "work", "app.noop", &json!({}));
    jobs.ended(&good, "completed");
    for (id, words, class) in [(&sql, "no_such_table", "ProgrammingError"), (&template, "who.name", "TemplateError")] {
        let (cause, sentence) = reason(&jobs.ended(id, "dead"));
        assert_eq!(cause, "not-retryable", "{sentence}");
        assert!(sentence.contains(words), "{words:?} is not in {sentence:?}");
        let told = told(&mut client, id);
        assert_eq!((&told["status"], &told["result"]["exc_type"]), (&json!("FAILURE"), &json!(class)), "{told:#}");
    }
}

#[test]
fn videos_that_cannot_be_processed_are_failed_with_a_reason() {
    let redis = Redis::start();
    let home = Home::with_whole(shipped(&[])).with_env("REDIS_URL", redis.url());
    fs::create_dir_all(home.path("state/uploads")).expect("a folder");
    fs::write(home.path("state/uploads/notes.mp4"), "these are my notes, not a video".repeat(100)).expect("a file");
    std::os::unix::fs::symlink("/etc/passwd", home.path("state/uploads/link.mp4")).expect("a link");
    let _daemon = home.start();
    let python = Python::on(&redis.url());
    let unreadable = home.path("state/uploads/notes.mp4").display().to_string();
    let link = home.path("state/uploads/link.mp4").display().to_string();
    for (path, words) in [
        ("/etc/passwd", "outside input_roots"),
        ("../../../../../../etc/passwd", "outside input_roots"),
        (link.as_str(), "outside input_roots"),
        (unreadable.as_str(), "process the video"),
    ] {
        let arguments = json!([7, path, 1]).to_string();
        let line = one(python.produce(&["app", "video_processing", "process_video_job", &arguments, "--wait", "30"]));
        assert_eq!(line["status"], "failed", "{path}: {line:#}");
        let told = line["exc_info"].as_str().unwrap_or_default();
        assert!(told.contains(words), "{path}: {words:?} is not in\n{told}");
        assert!(!told.contains("root:"), "the file's content is told");
    }
    let mut jobs = Jobs::of(&redis, "video_processing");
    jobs.until("dead", 4);
    assert_eq!((jobs.count("active"), jobs.count("retry")), (0, 0));
}

#[test]
fn an_rq_job_of_20_megabytes_is_failed_and_the_queue_goes_on() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let _daemon = home.start();
    let seen = Python::on(&redis.url()).run(
        "import json, os\nfrom redis import Redis\nfrom rq import Queue\n\
         queue = Queue('work', connection=Redis.from_url(os.environ['REDIS_URL']))\n\
         jobs = [queue.enqueue('app.noop', os.urandom(20 << 20)), queue.enqueue('app.noop', 1)]\n\
         print(json.dumps([job.id for job in jobs]))",
    );
    let id = |n: usize| seen[0][n].as_str().expect("an id");
    let mut jobs = Jobs::of(&redis, "work");
    jobs.ended(id(1), "completed");
    let (cause, sentence) = reason(&jobs.ended(id(0), "dead"));
    assert_eq!(cause, "unreadable");
    assert!(sentence.contains("larger") || sentence.contains("more than"), "{sentence}");
    let mut client = redis.client();
    let mut status = || client.hget::<_, _, String>(format!("rq:job:{}", id(0)), "status").ok();
    until("its producer to be told", || status().filter(|status| status == "failed"));
}
