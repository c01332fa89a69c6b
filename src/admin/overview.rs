//! The state of this node and its queues in one look: the answer of `GET /` in three forms, and of `/api/v1/queues`.

use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;

use super::answer::{Answer, json, page, text};
use super::problem::Problem;
use super::request::Format;
use super::{Shared, table};
use crate::clock;
use crate::config::{Config, Queue};
use crate::control::Phase;
use crate::job::Timestamp;
use crate::store::{ForeignList, LinkError, QueueView, Severity};

/// A status answer says "Redis is away" rather than wait longer than this.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why the numbers could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("wait for Redis: no answer within {PATIENCE:?}")]
    Slow,
}

/// Everything that the overview shows.
#[derive(Debug, Serialize)]
pub(super) struct Overview<'a> {
    pub(super) node: &'a str,
    pub(super) version: &'a str,
    pub(super) phase: &'static str,
    /// RFC 3339.
    pub(super) started: String,
    pub(super) uptime_seconds: u64,
    pub(super) redis: RedisState,
    pub(super) queues: Vec<QueueRow<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct RedisState {
    pub(super) up: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// What the guardian warns of; `/api/v1/redis` has the rest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) warnings: Vec<String>,
}

/// One queue: what the configuration says, and its numbers, when Redis has given them.
#[derive(Debug, Serialize)]
pub(super) struct QueueRow<'a> {
    pub(super) queue: &'a str,
    pub(super) concurrency: usize,
    pub(super) lists: Vec<ListRow<'a>>,
    pub(super) jobs: Option<Jobs>,
    /// How long the job at the head has been pending; absent when none is.
    pub(super) oldest_wait_seconds: Option<f64>,
    /// Since the queue was first used, over all nodes and restarts.
    totals: Option<Totals>,
}

/// A foreign list that the queue reads.
#[derive(Debug, Serialize)]
pub(super) struct ListRow<'a> {
    pub(super) wire: &'static str,
    list: &'a str,
    /// Messages that no node has taken yet.
    pub(super) backlog: Option<u64>,
}

/// Jobs by state.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Jobs {
    pub(super) pending: u64,
    pub(super) active: u64,
    pub(super) scheduled: u64,
    pub(super) retry: u64,
    pub(super) completed: u64,
    pub(super) dead: u64,
    cancelled: u64,
}

#[derive(Debug, Serialize)]
struct Totals {
    completed: u64,
    failed_attempts: u64,
    crashed_attempts: u64,
    dead: u64,
    cancelled: u64,
    refused_results: u64,
}

/// `GET /`. Answers in any case: without Redis it shows what is known without it.
pub(super) async fn answer(shared: &Shared, config: &Config, format: Format) -> Result<Answer, Problem> {
    let views = read(shared, config).await;
    let overview = overview(shared, config, &views);
    match format {
        Format::Json => Ok(json(StatusCode::OK, &overview)),
        Format::Text => Ok(text(StatusCode::OK, table::text(&overview))),
        Format::Html => table::html(&overview).map(page).map_err(|error| Problem::internal(error.to_string())),
    }
}

/// `GET /api/v1/queues`.
pub(super) async fn queues(shared: &Shared, config: &Config) -> Result<Answer, Problem> {
    #[derive(Serialize)]
    struct Body<'a> {
        queues: Vec<QueueRow<'a>>,
    }
    let views = read(shared, config).await.map_err(|error| Problem::unavailable(error.to_string()))?;
    Ok(json(StatusCode::OK, &Body { queues: rows(config, Some(&views)) }))
}

/// The numbers of every queue of the configuration, in its order.
pub(super) async fn read(shared: &Shared, config: &Config) -> Result<Vec<QueueView>, ReadError> {
    let lists = |queue: &Queue| queue.lists.iter().map(|(wire, name)| ForeignList::new(*wire, name)).collect();
    let queues: Vec<_> = config.queues.values().map(|queue| (queue.name.clone(), lists(queue))).collect();
    let store = &shared.parts.broker.store;
    let reading = async {
        // Where there is no queue to read, whether Redis answers is still asked.
        if queues.is_empty() { store.ping().await.map(|()| Vec::new()) } else { store.queues(&queues).await }
    };
    Ok(tokio::time::timeout(PATIENCE, reading).await.map_err(|_| ReadError::Slow)??)
}

/// Whether Redis answers, and in what words not.
pub(super) async fn ping(shared: &Shared) -> Result<(), ReadError> {
    let ping = shared.parts.broker.store.ping();
    Ok(tokio::time::timeout(PATIENCE, ping).await.map_err(|_| ReadError::Slow)??)
}

pub(super) fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Draining => "draining",
    }
}

fn overview<'a>(shared: &'a Shared, config: &'a Config, views: &'a Result<Vec<QueueView>, ReadError>) -> Overview<'a> {
    let error = views.as_ref().err().map(ToString::to_string);
    Overview {
        node: shared.parts.broker.node.as_str(),
        version: shared.parts.version,
        phase: phase_word(shared.parts.control.phase()),
        started: shared.started.to_string(),
        uptime_seconds: clock::now().since(shared.started).as_secs(),
        redis: RedisState { up: error.is_none(), error, warnings: warnings(shared) },
        queues: rows(config, views.as_deref().ok()),
    }
}

fn warnings(shared: &Shared) -> Vec<String> {
    let report = shared.parts.broker.store.report();
    let findings = report.iter().flat_map(|report| &report.findings);
    let told = findings.filter(|finding| finding.severity >= Severity::Warning);
    told.map(|finding| format!("{}: {}; {}", finding.severity.as_str(), finding.sentence, finding.remedy)).collect()
}

fn rows<'a>(config: &'a Config, views: Option<&[QueueView]>) -> Vec<QueueRow<'a>> {
    let now = clock::now();
    let view = |queue: &Queue| views.and_then(|views| views.iter().find(|view| view.queue == queue.name));
    config.queues.values().map(|queue| row(queue, view(queue), now)).collect()
}

fn row<'a>(queue: &'a Queue, view: Option<&QueueView>, now: Timestamp) -> QueueRow<'a> {
    let backlog = |at: usize| view.and_then(|view| view.foreign.get(at)).map(|(_, waiting)| *waiting);
    let lists = queue.lists.iter().enumerate();
    QueueRow {
        queue: queue.name.as_str(),
        concurrency: queue.concurrency,
        lists: lists.map(|(at, (wire, list))| ListRow { wire: wire.as_str(), list, backlog: backlog(at) }).collect(),
        jobs: view.map(jobs),
        oldest_wait_seconds: view.and_then(|view| view.oldest_pending).map(|at| now.since(at).as_secs_f64()),
        totals: view.map(totals),
    }
}

fn jobs(view: &QueueView) -> Jobs {
    Jobs {
        pending: view.pending,
        active: view.active,
        scheduled: view.scheduled,
        retry: view.retry,
        completed: view.completed,
        dead: view.dead,
        cancelled: view.cancelled,
    }
}

fn totals(view: &QueueView) -> Totals {
    Totals {
        completed: view.counters.completed,
        failed_attempts: view.counters.failed,
        crashed_attempts: view.counters.crashed,
        dead: view.counters.dead,
        cancelled: view.counters.cancelled,
        refused_results: view.counters.refused,
    }
}

impl QueueRow<'_> {
    /// Messages of all its foreign lists together; `None` when unknown.
    pub(super) fn backlog(&self) -> Option<u64> {
        self.lists.iter().map(|list| list.backlog).sum()
    }
}
