//! `batch`: many jobs by one call of their handler, each with an outcome of its own.

use serde_json::{Value, json};

use crate::bench::{Daemon, Home, Jobs, Postgres, Redis, get, post, until};

/// Enqueues over HTTP, all at once; the ids.
#[track_caller]
fn enqueue(daemon: &Daemon, jobs: &[Value]) -> Vec<String> {
    let answer = post(daemon.admin, "/api/v1/jobs", &json!(jobs));
    assert_eq!(answer.status, 201, "{answer:?}");
    let jobs = answer.json().as_array().cloned().expect("an array");
    jobs.iter().map(|job| job["id"].as_str().expect("an id").to_owned()).collect()
}

fn shown(daemon: &Daemon, id: &str) -> Value {
    get(daemon.admin, &format!("/api/v1/jobs/{id}")).json()
}

const PROBES: &str = "[queues.work]\nconcurrency = 2\nretry = { limit = 2, backoff = \"fixed\", delay = \"1s\", jitter = 0 }\n\
    batch = { max = 100, wait = \"300ms\" }\n\
    [tasks.echo]\nqueue = \"work\"\nparams = { n = \"int\" }\nprobe = \"echo\"\n\
    [tasks.sleep]\nqueue = \"work\"\nparams = { seconds = \"number\" }\nprobe = \"sleep\"\n\
    [tasks.alone]\nqueue = \"work\"\nparams = { n = \"int\" }\nbatch = false\nprobe = \"echo\"\n";

#[test]
fn jobs_of_a_task_come_together_and_those_of_others_do_not_wait() {
    let redis = Redis::start();
    let home = Home::new(&redis, PROBES);
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    // One after another into the same line: echoes, and between them those that run alone.
    let mixed: Vec<Value> =
        (0..1000).map(|n| json!({"task": if n % 10 == 9 { "alone" } else { "echo" }, "args": {"n": n}})).collect();
    let ids = enqueue(&daemon, &mixed);
    jobs.until("completed", 1000);
    let (mut batches, mut largest) = (0.0, 0);
    for (n, id) in ids.iter().enumerate() {
        let history = jobs.history(id).expect("it has ended");
        let result = &history["end"]["result"];
        assert_eq!(result["args"]["n"], n, "each has the answer to its own: {history:#}");
        match result["batch"].as_u64() {
            Some(size) => {
                assert!(n % 10 != 9 && size <= 100, "{history:#}");
                #[expect(clippy::cast_precision_loss, reason = "sizes are small")]
                let share = 1.0 / size as f64;
                batches += share;
                largest = largest.max(size);
            }
            None => assert_eq!(n % 10, 9, "{history:#}"),
        }
        assert_eq!(history["interruptions"], Value::Null, "what went back untouched has no traces: {history:#}");
    }
    println!("900 jobs ran in {batches:.0} batches of up to {largest}, 100 ran alone");
    assert!(largest > 10, "the largest batch had {largest} jobs");
    // A single job does not wait for company for ever.
    let lonely = enqueue(&daemon, &[json!({"task": "echo", "args": {"n": 1}})]);
    assert_eq!(jobs.ended(&lonely[0], "completed")["end"]["result"]["batch"], 1);
}

#[test]
fn one_of_a_batch_is_cancelled_and_a_stop_costs_none_an_attempt() {
    let redis = Redis::start();
    let config = format!("node.drain = \"1s\"\n{PROBES}");
    let home = Home::new(&redis, &config);
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    let sleepers = vec![json!({"task": "sleep", "args": {"seconds": 3}}); 20];
    let ids = enqueue(&daemon, &sleepers);
    jobs.until("active", 20);
    let cancelled = post(daemon.admin, &format!("/api/v1/jobs/{}/cancel", ids[7]), &json!({"by": "ann"}));
    assert_eq!(cancelled.status, 202, "{cancelled:?}");
    for (n, id) in ids.iter().enumerate() {
        jobs.ended(id, if n == 7 { "cancelled" } else { "completed" });
    }
    let long = vec![json!({"task": "sleep", "args": {"seconds": 600}}); 20];
    let ids = enqueue(&daemon, &long);
    jobs.until("active", 20);
    assert_eq!(shown(&daemon, &ids[0])["state"], "active");
    assert!(daemon.stop().success());
    assert_eq!((jobs.count("pending"), jobs.count("active")), (20, 0));
    for id in &ids {
        assert_eq!(jobs.history(id).expect("it was stopped")["failures"], Value::Null);
    }
}

/// A process that dies in the middle of a batch: each of its jobs runs again, alone.
#[test]
fn a_batch_survives_the_death_of_its_process() {
    let redis = Redis::start();
    let home = Home::new(&redis, PROBES);
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    let ids = enqueue(&daemon, &vec![json!({"task": "sleep", "args": {"seconds": 2}}); 6]);
    jobs.until("active", 6);
    daemon.kill();
    let _daemon = home.start();
    for id in &ids {
        let history = jobs.ended(id, "completed");
        assert_eq!(history["crashes"], 1, "{history:#}");
    }
}

#[test]
fn a_bad_row_of_a_batch_fails_alone_and_goes_on_alone() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    postgres.sql("CREATE TABLE events (id bigint PRIMARY KEY, kind text NOT NULL, at timestamptz NOT NULL)");
    let config = format!(
        "database.url = \"{}\"\n[queues.work]\nconcurrency = 1\nbatch = {{ max = 500, wait = \"1s\" }}\n\
         [tasks.track]\nqueue = \"work\"\nparams = {{ id = \"any\", kind = \"string?\" }}\nresult = {{ done = true }}\n\
         sql = {{ statements = [\"INSERT INTO events VALUES (:id, :kind, :at)\"], values = {{ at = \"{{{{ now }}}}\" }} }}\n",
        postgres.url()
    );
    let home = Home::new(&redis, &config);
    let daemon = home.start();
    let mut jobs = Jobs::of(&redis, "work");
    post(daemon.admin, "/api/v1/queues/work/pause", &json!({}));
    let bad = 217;
    let rows: Vec<Value> = (0..500)
        .map(|n| json!({"task": "track", "args": if n == bad { json!({"id": n}) } else { json!({"id": n, "kind": "'); DROP TABLE events; --"}) }}))
        .collect();
    let ids = enqueue(&daemon, &rows);
    post(daemon.admin, "/api/v1/queues/work/resume", &json!({}));
    jobs.until("completed", 499);
    let history = jobs.ended(&ids[bad], "dead");
    assert_eq!(
        (&history["end"]["cause"], &history["mishaps"][0]["name"]),
        (&json!("not-retryable"), &json!("IntegrityError"))
    );
    assert_eq!(jobs.ended(&ids[0], "completed")["end"]["result"], json!({"done": true}));
    assert_eq!(
        postgres.sql("SELECT count(*), count(DISTINCT at) < 20 FROM events"),
        "499|t",
        "few statements made them"
    );
    until("the numbers to be shown", || {
        get(daemon.admin, "/metrics")
            .body
            .contains("jobsd_attempts_total{queue=\"work\",task=\"track\",ending=\"completed\"} 499")
            .then_some(())
    });
}

/// Prints rows a second of one statement for each job and of batches, on the same PostgreSQL, one after the other.
#[test]
fn rows_come_faster_in_batches() {
    const ALONE: usize = 1000;
    const BATCHED: usize = 10_000;
    let (redis, postgres) = (Redis::start(), Postgres::start());
    postgres.sql("CREATE TABLE events (id bigserial, n bigint, kind text NOT NULL, at timestamptz NOT NULL)");
    let task = |name: &str| {
        format!(
            "[tasks.{name}]\nqueue = \"{name}\"\nparams = {{ n = \"int\" }}\nsql = {{ statements = [\"INSERT INTO events \
             (n, kind, at) VALUES (:n, '{name}', :at)\"], values = {{ at = \"{{{{ now }}}}\" }} }}\n"
        )
    };
    let config = format!(
        "database.url = \"{}\"\n[queues.alone]\nconcurrency = 8\n[queues.batched]\nconcurrency = 8\n\
         batch = {{ max = 500, wait = \"200ms\" }}\n{}{}",
        postgres.url(),
        task("alone"),
        task("batched")
    );
    let home = Home::new(&redis, &config);
    let daemon = home.start();
    let measure = |name: &str, count: usize| {
        post(daemon.admin, &format!("/api/v1/queues/{name}/pause"), &json!({}));
        for some in (0..count).collect::<Vec<_>>().chunks(1000) {
            enqueue(&daemon, &some.iter().map(|n| json!({"task": name, "args": {"n": n}})).collect::<Vec<_>>());
        }
        let (mut jobs, start) = (Jobs::of(&redis, name), std::time::Instant::now());
        post(daemon.admin, &format!("/api/v1/queues/{name}/resume"), &json!({}));
        jobs.until("completed", count);
        f64::from(u32::try_from(count).expect("few")) / start.elapsed().as_secs_f64()
    };
    let (alone, batched) = (measure("alone", ALONE), measure("batched", BATCHED));
    println!("{alone:.0} rows/s alone, {batched:.0} rows/s in batches: {:.1} times", batched / alone);
    let stored = postgres.sql("SELECT kind, count(*), count(DISTINCT n) FROM events GROUP BY kind ORDER BY kind");
    assert_eq!(stored, format!("alone|{ALONE}|{ALONE}\nbatched|{BATCHED}|{BATCHED}"), "each row once");
}
