//! The nodes' HTTP ports, as any client sees them.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::load::{self, Load, Number};

#[derive(Debug, Clone)]
pub(super) struct Client(reqwest::Client);

/// A job's record, so far as it is compared.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Record {
    pub(super) state: String,
    pub(super) history: Counted,
    #[serde(default)]
    pub(super) end: Option<End>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Counted {
    pub(super) failures: usize,
    pub(super) crashes: usize,
    pub(super) interruptions: usize,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct End {
    pub(super) result: Value,
}

/// The numbers of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Numbers {
    pub(super) jobs: ByState,
    pub(super) totals: Totals,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct ByState {
    pending: u64,
    active: u64,
    scheduled: u64,
    retry: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Totals {
    pub(super) completed: u64,
    pub(super) dead: u64,
    pub(super) cancelled: u64,
    pub(super) refused_results: u64,
}

impl ByState {
    /// Jobs that have not ended.
    pub(super) fn open(&self) -> u64 {
        self.pending + self.active + self.scheduled + self.retry
    }
}

/// A node that does not answer in this time is left for another.
const PATIENCE: Duration = Duration::from_secs(3);

impl Client {
    pub(super) fn new() -> Self {
        let built = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
        Self(built.expect("a client without settings of the user's can be built"))
    }

    /// Puts jobs in; says whether jobsd has said that it has them. A repetition is safe: the ids are ours.
    pub(super) async fn enqueue(&self, node: SocketAddr, load: &Load, first: Number, count: u32) -> bool {
        let job = |number: Number| {
            let delay = load.of(number).delay;
            let mut job = json!({"id": load::id(number), "task": "work", "args": {"n": number}});
            if !delay.is_zero() {
                job["in"] = json!(format!("{}ms", delay.as_millis()));
            }
            job
        };
        // Every tenth alone: one job goes another way than several.
        let alone = count == 1;
        let body = if alone { job(first) } else { (first..first + count).map(job).collect() };
        let sent = self.0.post(format!("http://{node}/api/v1/jobs")).json(&body).send().await;
        match sent.map(|answer| answer.status().as_u16()) {
            Ok(200 | 201) => true,
            // Of several, those that are there already are told in the answer; of one, by its status.
            Ok(409) => alone,
            _ => false,
        }
    }

    pub(super) async fn lives(&self, node: SocketAddr) -> bool {
        let sent = self.0.get(format!("http://{node}/livez")).send().await;
        sent.is_ok_and(|answer| answer.status().is_success())
    }

    /// `None`: the node did not answer.
    pub(super) async fn numbers(&self, node: SocketAddr) -> Option<Numbers> {
        #[derive(Deserialize)]
        struct Queues {
            queues: Vec<Numbers>,
        }
        let answer = self.0.get(format!("http://{node}/api/v1/queues")).send().await.ok()?;
        answer.json::<Queues>().await.ok()?.queues.first().copied()
    }

    /// `None`: the node did not answer. `Some(None)`: it says that there is no such job.
    pub(super) async fn record(&self, node: SocketAddr, job: Number) -> Option<Option<Record>> {
        let answer = self.0.get(format!("http://{node}/api/v1/jobs/{}", load::id(job))).send().await.ok()?;
        match answer.status().as_u16() {
            404 => Some(None),
            200 => answer.json().await.ok().map(Some),
            _ => None,
        }
    }
}
