//! Flower 2.0: what it shows of this daemon and its tasks, and that its buttons work.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::bench::{Child, Home, Python, Redis, free_port, get, one, post, until};
use crate::celery_control::{CONFIG, worker};

const TASKS: &str = r#"
import json, os
from celery import Celery
url = os.environ["REDIS_URL"]
app = Celery(broker=url, backend=url)
app.conf.task_default_queue = "mails"
good = app.send_task("conf.echo", (7,), {"token": "hunter2"})
bad = app.send_task("conf.fail", kwargs={"kind": "ValueError", "message": "no such thing"})
running = app.send_task("conf.sleep", (3600,))
good.get(timeout=30)
print(json.dumps([good.id, bad.id, running.id]))
"#;

struct Flower {
    address: SocketAddr,
    _process: Child,
}

impl Flower {
    fn start(redis: &Redis) -> Self {
        let port = free_port();
        let mut command = Child::command(Python::interpreter());
        command.args(["-W", "ignore", "-m", "celery", "-b", &redis.url(), "--result-backend", &redis.url(), "flower"]);
        command.args(["--address=127.0.0.1", &format!("--port={port}"), "--inspect_timeout=3000"]);
        command.env("FLOWER_UNAUTHENTICATED_API", "true");
        let process = Child::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        until("Flower to answer", || std::net::TcpStream::connect(address).ok());
        Self { address, _process: process }
    }

    /// What an address of the API says once it says something that `expected` likes.
    #[track_caller]
    fn once(&self, path: &str, mut expected: impl FnMut(&Value) -> bool) -> Value {
        let mut last = String::new();
        until(format_args!("{path} of Flower"), || {
            let answer = get(self.address, path);
            last.clone_from(&answer.body);
            serde_json::from_str(&answer.body).ok().filter(|value| expected(value))
        })
    }

    /// Presses a button: Flower takes the parameters in the address.
    #[track_caller]
    fn press(&self, path: &str) -> String {
        let mut said = String::new();
        // A busy machine may answer later than Flower waits.
        until(format_args!("{path} of Flower"), || {
            let answer = post(self.address, path, &Value::Null);
            said = answer.body;
            (answer.status == 200).then_some(())
        });
        said
    }
}

#[test]
fn flower_shows_a_worker_with_its_tasks_and_its_buttons_work() {
    let redis = Redis::start();
    let home = Home::new(&redis, CONFIG);
    let mut daemon = home.start();
    let worker = worker(&redis);
    let flower = Flower::start(&redis);
    flower.once("/api/workers?status=1", |workers| workers[&worker] == true);
    // It has asked for events of tasks when it has seen the worker's answer to that.
    daemon.wait_for_log("events of tasks enabled");

    let ids: Vec<String> = serde_json::from_value(one(Python::on(&redis.url()).run(TASKS))).expect("ids");
    let [good, bad, running] = <[String; 3]>::try_from(ids).expect("three");
    let tasks = flower.once("/api/tasks", |tasks| {
        let state = |id: &str| tasks[id]["state"].as_str().unwrap_or_default().to_owned();
        (state(&good), state(&bad), state(&running)) == ("SUCCESS".into(), "FAILURE".into(), "STARTED".into())
    });
    let task = &tasks[&good];
    assert_eq!((&task["name"], &task["worker"]), (&json!("conf.echo"), &json!(worker)), "{task:#}");
    assert_eq!((&task["args"], &task["kwargs"]), (&json!("(7,)"), &json!("{'token': '***'}")), "{task:#}");
    assert!(
        task["runtime"].is_f64() && task["result"].as_str().is_some_and(|text| text.contains("'n': 7")),
        "{task:#}"
    );
    assert_eq!(tasks[&bad]["exception"], "ValueError('no such thing')", "{:#}", tasks[&bad]);
    assert!(!tasks.to_string().contains("hunter2"), "{tasks:#}");
    let result = flower.once(&format!("/api/task/result/{good}"), |result| result["state"] == "SUCCESS");
    assert_eq!(result["task-id"], json!(good), "{result:#}");

    let shown = flower.once("/api/workers?refresh=1", |workers| {
        let worker = &workers[&worker];
        ["stats", "active_queues", "registered", "scheduled", "active", "reserved", "revoked", "conf"]
            .iter()
            .all(|part| !worker[*part].is_null())
    });
    let shown = &shown[&worker];
    assert_eq!(shown["stats"]["pool"]["max-concurrency"], 4, "{shown:#}");
    assert_eq!(shown["active"][0]["id"], json!(running), "{shown:#}");
    assert_eq!(shown["active_queues"][0]["name"], "mails", "{shown:#}");
    let page = get(flower.address, &format!("/worker/{worker}"));
    assert_eq!(page.status, 200, "{}", page.body);
    screenshots(&flower, &worker, &good);

    for (path, expected) in [
        (format!("/api/worker/pool/grow/{worker}?n=2"), "Growing"),
        (format!("/api/worker/pool/shrink/{worker}?n=1"), "Shrinking"),
        (format!("/api/worker/pool/autoscale/{worker}?min=2&max=6"), "Autoscaling"),
        (format!("/api/worker/queue/cancel-consumer/{worker}?queue=celery"), "no longer consuming from celery"),
        (format!("/api/worker/queue/add-consumer/{worker}?queue=celery"), "add consumer celery"),
    ] {
        let said = flower.press(&path);
        assert!(said.contains(expected), "{path}: {said}");
    }
    daemon.wait_for_log("to 2 to 6 by a Celery client");
    flower.press(&format!("/api/task/revoke/{running}?terminate=true"));
    flower.once("/api/tasks", |tasks| tasks[&running]["state"] == "REVOKED");
    flower.press(&format!("/api/worker/shutdown/{worker}"));
    assert!(daemon.wait().success());
    flower.once("/api/workers?status=1", |workers| workers[&worker] == false);
}

/// With `JOBSD_SCREENSHOTS=FOLDER` the pages are drawn by Chromium, to be looked at.
fn screenshots(flower: &Flower, worker: &str, task: &str) {
    let Some(folder) = std::env::var_os("JOBSD_SCREENSHOTS") else { return };
    let pages = [
        ("workers", "/workers".to_owned()),
        ("worker", format!("/worker/{worker}")),
        ("tasks", "/tasks".to_owned()),
        ("task", format!("/task/{task}")),
        ("broker", "/broker".to_owned()),
    ];
    for (name, path) in pages {
        let file = std::path::Path::new(&folder).join(format!("flower-{name}.png"));
        let mut chromium = std::process::Command::new("chromium");
        chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900"]);
        chromium.args(["--virtual-time-budget=8000", &format!("--screenshot={}", file.display())]);
        let drawn = chromium.arg(format!("http://{}{path}", flower.address)).stderr(Stdio::null()).status();
        assert!(drawn.is_ok_and(|status| status.success()), "chromium draws {path}");
    }
}
