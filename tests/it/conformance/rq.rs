//! RQ 2.0, and with `JOBSD_CLIENTS=newest` 3.0: its client, its command line, its worker.

use std::process::Stdio;

use super::{Row, compare};
use crate::bench::{Child, Home, Python, Redis, until};

/// The tasks of tests/python/conformance_tasks.py, done by probes.
pub(crate) const TASKS: &str = r#"
[http]
allow_private = ["127.0.0.1"]

[queues.conf]
wires = ["rq"]
concurrency = 2
lists = ["conf", "other"]
retry = false

[tasks.echo]
names = ["conformance_tasks.echo"]
queue = "conf"
params = { a = "any?", b = "any?", c = "any?", k = "any?" }
probe = "echo"
[tasks.add]
names = ["conformance_tasks.add"]
queue = "conf"
params = { x = "int", y = "int" }
probe = "add"
[tasks.total]
names = ["conformance_tasks.total"]
queue = "conf"
params = { numbers = "array" }
probe = "sum"
[tasks.nothing]
names = ["conformance_tasks.nothing"]
queue = "conf"
probe = "noop"
[tasks.sleep]
names = ["conformance_tasks.sleep"]
queue = "conf"
params = { seconds = "number" }
probe = "sleep"
[tasks.fail]
names = ["conformance_tasks.fail"]
queue = "conf"
params = { kind = "string", message = "string" }
probe = "fail"
[tasks.flaky]
names = ["conformance_tasks.flaky"]
queue = "conf"
params = { failures = "int" }
probe = "flaky"
[tasks.on_end]
names = ["conformance_tasks.on_end"]
queue = "callbacks"
params = { job_id = "string" }
exec = { program = "/usr/bin/env", args = ["redis-cli", "-u", "REDIS", "rpush", "conformance:callbacks", "{{ job_id }}"], env = ["PATH"] }
[queues.callbacks]
"#;

/// Rows that differ, and why.
const DIFFERENCES: &[(&str, &str)] = &[
    ("json instead of pickle", "a worker of RQ's has one serializer, jobsd answers each job in its own"),
    ("cancel while it runs", "RQ's worker overwrites the cancellation at the end of the job, jobsd keeps it"),
    ("delete while it runs", "RQ's worker brings the deleted job back at its end, jobsd does not"),
];

/// Those that differ with RQ 2.0 alone.
const OLDER: &[(&str, &str)] =
    &[("the dependents of a stopped job", "RQ 2.0 lets them run, jobsd keeps them deferred as RQ 3.0 does")];

/// Those that differ with RQ 3.0 alone.
const NEWEST: &[(&str, &str)] = &[(
    "a rate limit and a retry that waits",
    "RQ's worker gives the job's place away meanwhile, jobsd keeps it: it begins by itself, and no more run than may",
)];

#[test]
fn rq_clients_see_the_same_of_jobsd_and_of_rqs_own_workers() {
    let (real, ours) = std::thread::scope(|scope| {
        let real = scope.spawn(real);
        (real.join().expect("the real column"), ours())
    });
    let (name, theirs) = if Python::is_newest() { ("RQ 3.0", NEWEST) } else { ("RQ 2.0", OLDER) };
    compare(name, &real, &ours, &[DIFFERENCES, theirs].concat());
}

fn suite(redis: &Redis) -> Vec<Row> {
    let rq = Python::interpreter().with_file_name("rq");
    let only = std::env::var("JOBSD_CONFORMANCE").unwrap_or_default();
    let rq = rq.to_str().expect("a path of ASCII").to_owned();
    let url = redis.url();
    Row::read(Python::on(&url).script("conformance_rq.py", &["--redis", &url, "--rq", &rq, "--only", &only]))
}

fn real() -> Vec<Row> {
    let redis = Redis::start();
    let _workers = [worker(&redis, &["conf", "other"]), worker(&redis, &["conf", "other"])];
    until("RQ's workers to be there", || {
        let mut client = redis.client();
        let count: usize = redis::cmd("SCARD").arg("rq:workers").query(&mut client).expect("Redis answers");
        (count == 2).then_some(())
    });
    suite(&redis)
}

/// One of RQ's own workers on these queues.
pub(crate) fn worker(redis: &Redis, queues: &[&str]) -> Child {
    let mut command = Child::command(Python::interpreter().with_file_name("rq"));
    command.args(["worker", "--with-scheduler", "--url", &redis.url()]).args(queues);
    command.env("PYTHONPATH", Python::folder()).env("PYTHONDONTWRITEBYTECODE", "1");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Child::spawn(&mut command)
}

fn ours() -> Vec<Row> {
    let redis = Redis::start();
    let home = Home::new(&redis, &TASKS.replace("REDIS", &redis.url()));
    let _daemon = home.start();
    suite(&redis)
}
