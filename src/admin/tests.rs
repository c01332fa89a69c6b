//! The admin port over real TCP, with a real Redis behind it.

mod access;
mod bulk;
mod jobs;
mod limits;
mod openmetrics;
mod outage;
mod pages;
mod queues;
mod status;
mod verbs;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::broker::{Claim, Settled, Settlement, scripts};
use crate::config::{NamePattern, Param, ParamType, Queue, Retention, Secret, Task};
use crate::control::{Order, Phase};
use crate::job::{AttemptFacts, Backoff, NodeId, Outcome, QueueName, RetryPolicy, TaskName, Wire, decide};
use crate::store::Store;
use crate::testing::fixture;
use crate::testing::redis::RedisServer;

/// Longest wait for anything that must happen.
const DEADLINE: Duration = Duration::from_secs(20);

/// A task of the queue `emails`.
const MAIL: &str = "send_welcome_email";
/// A task of the queue `notifications`.
const CLEANUP: &str = "cleanup_old_notifications";

/// A served admin port with everything behind it.
struct Port {
    redis: RedisServer,
    addr: SocketAddr,
    broker: Arc<Broker>,
    control: Control,
    orders: mpsc::Receiver<Order>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

/// One answer.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Port {
    async fn open() -> Self {
        Self::with(|_, _| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config, &mut Limits)) -> Self {
        let redis = RedisServer::start();
        let mut config = config();
        let mut limits = Limits::default();
        change(&mut config, &mut limits);
        // Longer than anyone waits for a status: its own bound is what counts there.
        let store = Store::new(&redis.url(), "jobsd", Duration::from_secs(6), scripts()).expect("a store");
        let node = NodeId::parse("vps-1-test").expect("a node id");
        let (broker, _owed) = Broker::new(Arc::new(store), node, Duration::from_secs(15));
        let (broker, (control, orders)) = (Arc::new(broker), Control::new());
        control.enter(Phase::Running);
        let parts = AdminParts {
            config: Arc::new(ArcSwap::from_pointee(config)),
            broker: Arc::clone(&broker),
            metrics: Arc::default(),
            control: control.clone(),
            version: "0.1.0",
        };
        let mut admin = Admin::bind("127.0.0.1:0".parse().expect("an address"), parts).await.expect("a free port");
        admin.limits = limits;
        let (addr, stop) = (admin.local_addr(), CancellationToken::new());
        let serving = tokio::spawn(admin.serve(stop.clone()));
        Self { redis, addr, broker, control, orders, stop, serving }
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], "").await
    }

    async fn get_as(&self, path: &str, accept: &str) -> Reply {
        self.ask("GET", path, &[("Accept", accept)], "").await
    }

    async fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask("POST", path, &[], &body.to_string()).await
    }

    /// Puts a job in, under this id.
    async fn put(&self, task: &str, id: &str) {
        let job = serde_json::json!({"task": task, "id": id, "args": if task == MAIL { vec!["a@b.c", "Ann"] } else { vec![] }});
        assert_eq!(self.post("/api/v1/jobs", &job).await.status, 201);
    }

    async fn state(&self, id: &str) -> String {
        let shown = self.get(&format!("/api/v1/jobs/{id}")).await;
        if shown.status == 404 {
            "none".to_owned()
        } else {
            shown.json()["state"].as_str().expect("a state").to_owned()
        }
    }

    /// One request on a connection of its own; `Host` is added unless it is given.
    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "Host") {
            request += &format!("Host: {}\r\n", self.addr);
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        self.raw(&format!("{request}\r\n{body}")).await
    }

    /// Sends the bytes and reads one answer, up to the end of the connection.
    async fn raw(&self, request: &str) -> Reply {
        let mut stream = TcpStream::connect(self.addr).await.expect("the port is open");
        stream.write_all(request.as_bytes()).await.expect("it is read");
        Reply::parse(&read_all(&mut stream).await)
    }
}

impl Reply {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not an answer: {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": "));
        Self {
            status: status.expect("a status line"),
            headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
            body: body.to_owned(),
        }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// The body of a problem, whose status and media type must fit.
    fn problem(&self, status: u16) -> Value {
        assert_eq!((self.status, self.header("content-type")), (status, "application/problem+json"), "{}", self.body);
        let problem = self.json();
        assert_eq!(problem["status"], status);
        for member in ["type", "title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {problem}");
        }
        problem
    }
}

/// Everything until the connection ends, which it must. A reset after the answer is an end too.
async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        let mut chunk = [0; 16 * 1024];
        while let Ok(n @ 1..) = stream.read(&mut chunk).await {
            bytes.extend_from_slice(&chunk[..n]);
        }
    };
    tokio::time::timeout(DEADLINE, reading).await.expect("the connection ends");
    String::from_utf8(bytes).expect("text")
}

/// Claims up to `most` jobs of the queue, some minutes from now.
async fn claim_many(port: &Port, queue: &Queue, most: usize, minutes: u64) -> Vec<Claim> {
    let now = clock::now().after(Duration::from_secs(60 * minutes));
    let exchange = port.broker.exchange(queue, vec![], true, most, now).await;
    exchange.claims.expect("Redis is up").0
}

/// Claims the one job of the queue that waits, some minutes from now.
async fn claim(port: &Port, queue: &Queue, minutes: u64) -> Claim {
    claim_many(port, queue, 1, minutes).await.pop().expect("a job is pending")
}

/// Settles an attempt of this outcome.
async fn settle(port: &Port, queue: &Queue, claim: Claim, outcome: Outcome, limit: u32) {
    let backoff = Backoff::Fixed { delay: Duration::ZERO };
    let retry = RetryPolicy { limit, backoff, max_delay: Duration::ZERO, jitter: 0.0, span: None, never: Vec::new() };
    let facts = AttemptFacts {
        node: &port.broker.node,
        attempt: claim.history.next_attempt(),
        started: claim.started,
        now: claim.started.after(Duration::from_millis(1500)),
        retry: &retry,
        crash_limit: 3,
        random: 0.5,
    };
    let decision = decide(&facts, claim.history.clone(), outcome);
    let exchange = port.broker.exchange(queue, vec![Settlement { claim, decision }], false, 0, clock::now()).await;
    assert_eq!(exchange.settled.expect("Redis is up"), [Settled::Applied]);
}

fn name(text: &str) -> QueueName {
    QueueName::parse(text).expect("a queue name")
}

fn queue(text: &str, lists: Vec<(Wire, String)>) -> (QueueName, Arc<Queue>) {
    let keep = Retention { age: Duration::from_secs(3600), count: 1000, bytes: u64::MAX };
    let queue = Queue {
        name: name(text),
        lists,
        concurrency: crate::config::Concurrency::fixed(4),
        timeout: Duration::from_secs(300),
        retry: RetryPolicy {
            limit: 0,
            backoff: Backoff::Fixed { delay: Duration::ZERO },
            max_delay: Duration::ZERO,
            jitter: 0.0,
            span: None,
            never: Vec::new(),
        },
        crash_limit: 3,
        keep_completed: keep,
        keep_dead: keep,
        batch: None,
        weight: 1,
        ageing: Queue::AGEING,
        limits: crate::config::Limits::default(),
    };
    (name(text), Arc::new(queue))
}

fn param(name: &str, secret: bool) -> Param {
    Param { kind: ParamType::String, secret, ..fixture::param(name) }
}

fn task(text: &str, queue: &str, params: Vec<Param>) -> (TaskName, Arc<Task>) {
    let task_name = TaskName::parse(text).expect("a task name");
    let names = vec![NamePattern(format!("backend_app.core.celery_tasks.{text}"))];
    let task = Task { name: task_name.clone(), names, queue: name(queue), params, ..fixture::task(vec![]) };
    (task_name, Arc::new(task))
}

/// Two queues, and tasks as the app has them.
fn config() -> Config {
    Config {
        queues: BTreeMap::from([
            queue("emails", vec![(Wire::Celery, "emails".into()), (Wire::Celery, "celery".into())]),
            queue("notifications", vec![(Wire::Rq, "notifications".into())]),
        ]),
        tasks: BTreeMap::from([
            task("send_welcome_email", "emails", vec![param("user_email", false), param("user_name", false)]),
            task("send_password_reset_email", "emails", vec![param("user_email", false), param("reset_token", true)]),
            task("cleanup_old_notifications", "notifications", vec![]),
        ]),
        // Nothing here touches a file.
        ..fixture::config(std::path::Path::new("/nonexistent"))
    }
}

fn secret(text: &str) -> Option<Secret> {
    Some(Secret::new(text))
}
