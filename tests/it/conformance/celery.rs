//! Celery 5.4: its client and its worker.

use std::process::Stdio;

use super::{Row, compare};
use crate::bench::{Child, Home, Python, Redis, until};

/// The tasks of tests/python/conformance_celery_tasks.py, done by probes.
const TASKS: &str = r#"
[celery]
result_expires = "1h"

[queues.conf]
wires = ["celery"]
concurrency = 1
lists = ["conf", "other"]
retry = false

[tasks.echo]
names = ["conf.echo", "conf.far.*"]
queue = "conf"
params = { args = "*", kwargs = "**" }
probe = "echo"
[tasks.add]
names = ["conf.add"]
queue = "conf"
params = { x = "number", y = "number" }
probe = "add"
[tasks.total]
names = ["conf.total"]
queue = "conf"
params = { numbers = "array" }
probe = "sum"
[tasks.nothing]
names = ["conf.nothing"]
queue = "conf"
probe = "noop"
[tasks.sleep]
names = ["conf.sleep"]
queue = "conf"
params = { seconds = "number" }
probe = "sleep"
[tasks.fail]
names = ["conf.fail"]
queue = "conf"
params = { kind = "string", message = "string?", args = "array?" }
probe = "fail"
[tasks.flaky]
names = ["conf.flaky"]
queue = "conf"
params = { failures = "int", kind = { type = "string", default = "RuntimeError" } }
probe = "flaky"
retry = { limit = 2, backoff = "fixed", delay = "1s", jitter = 0.0 }
"#;

/// Rows that differ, and why.
const DIFFERENCES: &[(&str, &str)] = &[
    ("compressed in another way", "jobsd inflates zlib and refuses the others, so that their producer knows"),
    ("pickle", "Celery's worker drops it and its client waits for ever, jobsd answers with ContentDisallowed"),
    ("an eta that cannot be read", "Celery's worker drops the message, jobsd answers with InvalidTaskError"),
    ("a body that cannot be read", "Celery's worker drops the message, jobsd answers with InvalidTaskError"),
    ("an element that is not json", "Celery's worker ends, jobsd parks it and goes on"),
];

#[test]
fn celery_clients_see_the_same_of_jobsd_and_of_celerys_own_worker() {
    let (real, ours) = std::thread::scope(|scope| {
        let real = scope.spawn(real);
        (real.join().expect("the real column"), ours())
    });
    compare("Celery 5.4", &real, &ours, DIFFERENCES);
}

fn suite(redis: &Redis) -> Vec<Row> {
    let only = std::env::var("JOBSD_CONFORMANCE").unwrap_or_default();
    let url = redis.url();
    Row::read(Python::on(&url).script("conformance_celery.py", &["--redis", &url, "--only", &only]))
}

fn real() -> Vec<Row> {
    let redis = Redis::start();
    let _worker = worker(&redis);
    until("Celery's worker to be there", || {
        let mut client = redis.client();
        let there: bool = redis::cmd("EXISTS").arg("_kombu.binding.conf").query(&mut client).expect("Redis answers");
        there.then_some(())
    });
    suite(&redis)
}

/// Celery's own worker.
fn worker(redis: &Redis) -> Child {
    let mut command = Child::command(Python::interpreter().with_file_name("celery"));
    command.args(["-A", "conformance_celery_tasks", "worker", "--queues", "conf,other", "--loglevel", "ERROR"]);
    command.env("PYTHONPATH", Python::folder()).env("PYTHONDONTWRITEBYTECODE", "1").env("REDIS_URL", redis.url());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Child::spawn(&mut command)
}

fn ours() -> Vec<Row> {
    let redis = Redis::start();
    let home = Home::new(&redis, TASKS);
    let _daemon = home.start();
    suite(&redis)
}
