//! rq-dashboard 0.9, on RQ 2.0 and with `JOBSD_CLIENTS=newest` on RQ 3.0: what it serves of jobsd's workers and jobs, and that
//! its buttons work.

use std::process::Stdio;

use redis::Commands;
use serde_json::Value;

use crate::bench::{Child, Home, Python, Redis, free_port, get, post, until};

const CONFIG: &str = r#"
[queues.mails]
wires = ["rq"]
concurrency = 3
retry = false
[tasks.sleep]
names = ["conformance_tasks.sleep"]
queue = "mails"
params = { seconds = "number" }
probe = "sleep"
[tasks.fail]
names = ["conformance_tasks.fail"]
queue = "mails"
params = { kind = "string", message = "string" }
probe = "fail"
[tasks.add]
names = ["conformance_tasks.add"]
queue = "mails"
params = { x = "int", y = "int" }
probe = "add"
"#;

const ENQUEUE: &str = r#"
import json, os
import conformance_tasks as tasks
from redis import Redis
from rq import Queue
queue = Queue("mails", connection=Redis.from_url(os.environ["REDIS_URL"]))
print(json.dumps([job.id for job in (
    queue.enqueue(tasks.add, 2, 3), queue.enqueue(tasks.fail, "ValueError", "no such thing"), queue.enqueue(tasks.sleep, 60)
)]))
"#;

struct Dashboard {
    address: std::net::SocketAddr,
    _process: Child,
}

impl Dashboard {
    fn start(redis: &Redis) -> Self {
        let port = free_port();
        let mut command = Child::command(Python::interpreter().with_file_name("rq-dashboard"));
        command.args(["-b", "127.0.0.1", "-p", &port.to_string(), "-u", &redis.url(), "--extra-path"]);
        command.arg(Python::folder()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Child::spawn(&mut command);
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        until("rq-dashboard to answer", || std::net::TcpStream::connect(address).ok());
        Self { address, _process: process }
    }

    #[track_caller]
    fn data(&self, path: &str) -> Value {
        let answer = get(self.address, &format!("/0/data/{path}"));
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }
}

#[test]
fn rq_dashboard_shows_workers_and_jobs_and_its_buttons_work() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let _daemon = home.start();
    let ids: Vec<String> = serde_json::from_value(Python::on(&redis.url()).run(ENQUEUE).remove(0)).expect("ids");
    let [good, bad, running] = <[String; 3]>::try_from(ids).expect("three");
    let mut client = redis.client();
    let mut status = |id: &str| client.hget::<_, _, String>(format!("rq:job:{id}"), "status").ok();
    until("the job to run", || status(&running).filter(|status| status == "started"));
    until("the job to fail", || status(&bad).filter(|status| status == "failed"));
    until("the job to finish", || status(&good).filter(|status| status == "finished"));

    let dashboard = Dashboard::start(&redis);
    let queues = dashboard.data("queues.json");
    let queue = &queues["queues"][0];
    assert_eq!(queue["name"], "mails", "{queues:#}");
    let count = |registry: &str| queue[format!("{registry}_job_registry_count")].as_u64();
    assert_eq!((count("started"), count("failed"), count("finished")), (Some(1), Some(1), Some(1)), "{queues:#}");

    let workers = dashboard.data("workers.json");
    let workers = workers["workers"].as_array().expect("a list");
    let states: Vec<&str> = workers.iter().filter_map(|worker| worker["state"].as_str()).collect();
    assert_eq!(states.iter().filter(|state| **state == "idle").count(), 2, "{workers:#?}");
    let busy = workers.iter().find(|worker| worker["state"] == "busy").expect("one is busy");
    assert!(busy["current_job"]["call_string"].as_str().is_some_and(|call| call.contains("sleep")), "{busy:#}");
    assert!(busy["name"].as_str().is_some_and(|name| name.contains(".mails.")), "{busy:#}");

    let job = dashboard.data(&format!("job/{good}.json"));
    assert_eq!((&job["status"], &job["result"]), (&"finished".into(), &5.into()), "{job:#}");
    let failed = dashboard.data(&format!("job/{bad}.json"));
    assert!(failed["exc_info"].as_str().is_some_and(|text| text.contains("ValueError: no such thing")), "{failed:#}");
    let listed = dashboard.data("jobs/mails/failed/10/asc/1.json");
    assert_eq!(listed["jobs"][0]["id"], bad.as_str(), "{listed:#}");
    let started = dashboard.data("jobs/mails/started/10/asc/1.json");
    assert!(started["jobs"][0]["id"].as_str().is_some_and(|id| id.starts_with(&running)), "{started:#}");

    let requeued = post(dashboard.address, &format!("/job/{bad}/requeue"), &Value::Null);
    assert_eq!(requeued.status, 200, "{}", requeued.body);
    until("it to fail once more", || {
        (client.xlen::<_, usize>(format!("rq:results:{bad}")).ok() == Some(2)).then_some(())
    });
    screenshot(&dashboard, &["queues", "workers", "jobs", &format!("job/{good}"), &format!("job/{bad}")]);
}

/// With `JOBSD_SCREENSHOTS=FOLDER` the pages are drawn by Chromium, to be looked at.
fn screenshot(dashboard: &Dashboard, pages: &[&str]) {
    let Some(folder) = std::env::var_os("JOBSD_SCREENSHOTS") else { return };
    for (nth, page) in pages.iter().enumerate() {
        let kind = page.split('/').next().unwrap_or_default();
        let file = std::path::Path::new(&folder).join(format!("rq-dashboard-{}-{kind}.png", nth + 1));
        let status = std::process::Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--window-size=1400,900",
                "--virtual-time-budget=5000",
            ])
            .arg(format!("--screenshot={}", file.display()))
            .arg(format!("http://{}/0/view/{page}", dashboard.address))
            .stderr(Stdio::null())
            .status();
        assert!(status.is_ok_and(|status| status.success()), "chromium draws {page}");
    }
}
