//! The transitions against a real Redis: one by one, and in random order against a sequential oracle.

mod flows;
mod foreign;
mod limits;
mod model;
mod notes;
mod rq;
mod transitions;
mod unique;
mod verbs;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{Broker, Claim, Settled, Settlement, scripts};
use crate::config::{Concurrency, Limits, Queue, Retention};
use crate::job::{
    AttemptFacts, Backoff, Job, JobId, NodeId, Origin, Outcome, Priority, QueueName, RetryPolicy, State, TaskName,
    Timestamp, decide,
};
use crate::store::{Standing, Store};
use crate::testing::redis::RedisServer;

const LEASE: Duration = Duration::from_secs(15);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
}

fn queue() -> Queue {
    let retry = RetryPolicy {
        limit: 2,
        backoff: Backoff::Fixed { delay: Duration::from_secs(60) },
        max_delay: LEASE * 100,
        jitter: 0.0,
        span: None,
        never: Vec::new(),
    };
    let keep = Retention { age: Duration::from_secs(3600), count: 1000, bytes: u64::MAX };
    Queue {
        name: QueueName::parse("emails").expect("a valid name"),
        lists: Vec::new(),
        concurrency: Concurrency::fixed(10),
        timeout: LEASE,
        retry,
        crash_limit: 3,
        keep_completed: keep,
        keep_dead: keep,
        batch: None,
        weight: 1,
        ageing: Queue::AGEING,
        limits: Limits::default(),
    }
}

/// A node of its own, as a process would be.
fn node(redis: &RedisServer, name: &str) -> Broker {
    let store = Store::new(&redis.url(), "jobsd", Duration::from_secs(5), scripts()).expect("a valid URL");
    Broker::new(Arc::new(store), NodeId::parse(name).expect("a valid name"), LEASE).0
}

fn job(id: &str, enqueued_at: Timestamp) -> Job {
    Job {
        id: JobId::parse(id).expect("a valid id"),
        queue: queue().name,
        task: TaskName::parse("echo").expect("a valid name"),
        buckets: Vec::new(),
        args: json!({"n": 1}).as_object().cloned().unwrap_or_default(),
        origin: Origin::Api,
        enqueued_at,
        due: None,
        timeout: None,
        expires: None,
        retry: None,
        priority: Priority::default(),
        args_apart: None,
        unique: None,
        flow: None,
    }
}

/// The claim with what follows from the outcome, as a pool decides it.
fn settlement(broker: &Broker, queue: &Queue, claim: Claim, outcome: Outcome, now: Timestamp) -> Settlement {
    let facts = AttemptFacts {
        node: &broker.node,
        attempt: claim.history.next_attempt(),
        started: claim.started,
        now,
        retry: &queue.retry,
        crash_limit: queue.crash_limit,
        random: 0.5,
    };
    let decision = decide(&facts, claim.history.clone(), outcome);
    Settlement { claim, decision }
}

async fn claim(broker: &Broker, queue: &Queue, want: usize, now: Timestamp) -> Vec<Claim> {
    broker.exchange(queue, Vec::new(), true, want, now).await.claims.expect("Redis answers").0
}

async fn settle(broker: &Broker, queue: &Queue, settlements: Vec<Settlement>, now: Timestamp) -> Vec<Settled> {
    broker.exchange(queue, settlements, false, 0, now).await.settled.expect("Redis answers")
}

async fn view(broker: &Broker, id: &str) -> Option<Standing> {
    broker.store.job(&JobId::parse(id).expect("a valid id"), &[queue().name]).await.expect("Redis answers")
}

async fn state(broker: &Broker, id: &str) -> Option<State> {
    view(broker, id).await.map(|view| view.state())
}

fn ids(claims: &[Claim]) -> Vec<&str> {
    claims.iter().map(|claim| claim.job.id.as_str()).collect()
}

fn ok() -> Outcome {
    Outcome::Success(json!("done"))
}

/// A command beside the broker, as a foreign program would send it.
async fn raw(broker: &Broker, command: &[&str]) -> redis::Value {
    let mut pipeline = redis::Pipeline::new();
    pipeline.cmd(command[0]).arg(&command[1..]);
    broker.store.link.send(&pipeline).await.expect("Redis answers").remove(0)
}
