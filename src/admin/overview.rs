//! The state of this node and its queues in one look: the answer of `GET /` in three forms, and of `/api/v1/queues`.

use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;

use super::alter::refusal;
use super::answer::{Answer, json, page, text};
use super::limits::{self, ShownLimit};
use super::pauses::{PausedTask, ShownRequest};
use super::problem::Problem;
use super::request::Format;
use super::stance::{ShownBreaker, ShownConcurrency, ShownOverride, ShownScale};
use super::{Shared, nodes, pauses, table};
use crate::broker::{NodeCard, NodeQueue, Override, Stance};
use crate::clock;
use crate::config::{Config, Queue};
use crate::control::Phase;
use crate::job::{NodeId, Timestamp};
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
    /// Slots on this node.
    pub(super) concurrency: usize,
    /// What the file says of them.
    pub(super) configured: ShownConcurrency,
    /// Who has set another number of them.
    #[serde(skip_serializing_if = "Option::is_none", rename = "override")]
    pub(super) set: Option<ShownOverride>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scale: Option<ShownScale>,
    /// Who has paused the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) paused: Option<ShownRequest>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) paused_tasks: Vec<PausedTask>,
    /// Why it waits on this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) breaker: Option<ShownBreaker>,
    pub(super) lists: Vec<ListRow<'a>>,
    pub(super) jobs: Option<Jobs>,
    /// How long the first in line has been waiting; absent when there is none.
    pub(super) oldest_wait_seconds: Option<f64>,
    /// Since the queue was first used, over all nodes and restarts.
    totals: Option<Totals>,
    /// What bounds it over all nodes, when that is asked for and there is something.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<ShownLimit>,
    /// Where its jobs run, when that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<ServedBy>>,
}

/// A living node that serves the queue.
#[derive(Debug, Serialize)]
struct ServedBy {
    node: String,
    running: usize,
    concurrency: usize,
    draining: bool,
    #[serde(skip_serializing_if = "Option::is_none", rename = "override")]
    set: Option<ShownOverride>,
    #[serde(skip_serializing_if = "Option::is_none")]
    breaker: Option<ShownBreaker>,
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
    /// Those of the pending ones that are out of the way of the others: their task is paused, a limit has no room for them,
    /// or it is not their tenant's turn.
    held: u64,
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
    Ok(json(StatusCode::OK, &Body { queues: queue_rows(shared, config).await? }))
}

/// The row of every queue, each with the nodes that serve it.
pub(super) async fn queue_rows<'a>(shared: &Shared, config: &'a Config) -> Result<Vec<QueueRow<'a>>, Problem> {
    let now = clock::now();
    let views = read(shared, config).await.map_err(|error| Problem::unavailable(error.to_string()))?;
    let nodes = shared.parts.broker.nodes(now).await.map_err(|error| refusal(&shared.parts.broker, &error))?;
    let mut rows = rows(shared, config, Some(&views));
    for row in &mut rows {
        if let Some(queue) = config.queues.get(row.queue) {
            row.limits = limits::of(shared, queue).await?;
        }
        row.nodes = Some(nodes.iter().filter_map(|(id, card)| served_by(shared, row.queue, id, card, now)).collect());
    }
    Ok(rows)
}

fn served_by(shared: &Shared, queue: &str, id: &NodeId, card: &NodeCard, now: Timestamp) -> Option<ServedBy> {
    let served = card.queues.iter().find(|served| served.queue.as_str() == queue)?;
    let broker = &shared.parts.broker;
    let draining = if *id == broker.node { *broker.draining.borrow() } else { card.draining };
    let NodeQueue { running, concurrency, outage, set, .. } = nodes::latest(broker, id, served);
    let (set, breaker) = (set.as_ref().map(ShownOverride::of), outage.map(ShownBreaker::of));
    (card.lease_until > now).then(|| ServedBy { node: id.to_string(), running, concurrency, draining, set, breaker })
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

/// Whether this node claims nothing, because somebody has told it so.
fn told_to_drain(shared: &Shared) -> bool {
    *shared.parts.broker.draining.borrow() && shared.parts.control.phase() == Phase::Running
}

fn overview<'a>(shared: &'a Shared, config: &'a Config, views: &'a Result<Vec<QueueView>, ReadError>) -> Overview<'a> {
    let error = views.as_ref().err().map(ToString::to_string);
    Overview {
        node: shared.parts.broker.node.as_str(),
        version: shared.parts.version,
        phase: if told_to_drain(shared) { "drained" } else { phase_word(shared.parts.control.phase()) },
        started: shared.started.to_string(),
        uptime_seconds: clock::now().since(shared.started).as_secs(),
        redis: RedisState { up: error.is_none(), error, warnings: warnings(shared) },
        queues: rows(shared, config, views.as_deref().ok()),
    }
}

fn warnings(shared: &Shared) -> Vec<String> {
    let report = shared.parts.broker.store.report();
    let findings = report.iter().flat_map(|report| &report.findings);
    let told = findings.filter(|finding| finding.severity >= Severity::Warning);
    told.map(|finding| format!("{}: {}; {}", finding.severity.as_str(), finding.sentence, finding.remedy)).collect()
}

fn rows<'a>(shared: &Shared, config: &'a Config, views: Option<&[QueueView]>) -> Vec<QueueRow<'a>> {
    let now = clock::now();
    let view = |queue: &Queue| views.and_then(|views| views.iter().find(|view| view.queue == queue.name));
    let broker = &shared.parts.broker;
    let stance = |queue: &Queue| (broker.stances.of(&queue.name), broker.overrides.of(&queue.name));
    config.queues.values().map(|queue| row(queue, stance(queue), view(queue), now)).collect()
}

fn row<'a>(
    queue: &'a Queue,
    (stance, set): (Stance, Option<Override>),
    view: Option<&QueueView>,
    now: Timestamp,
) -> QueueRow<'a> {
    let slots = set.as_ref().map_or(queue.concurrency, |set| set.concurrency).max;
    let backlog = |at: usize| view.and_then(|view| view.foreign.get(at)).map(|(_, waiting)| *waiting);
    let lists = queue.lists.iter().enumerate();
    let (paused, paused_tasks) = view.map(pauses::of).unwrap_or_default();
    QueueRow {
        queue: queue.name.as_str(),
        concurrency: stance.scaled.as_ref().map_or(slots, |scaled| scaled.size),
        configured: ShownConcurrency(queue.concurrency),
        set: set.as_ref().map(ShownOverride::of),
        scale: stance.scaled.map(ShownScale::of),
        paused,
        paused_tasks,
        breaker: stance.outage.map(ShownBreaker::of),
        lists: lists.map(|(at, (wire, list))| ListRow { wire: wire.as_str(), list, backlog: backlog(at) }).collect(),
        jobs: view.map(jobs),
        oldest_wait_seconds: view.and_then(|view| view.oldest_pending).map(|at| now.since(at).as_secs_f64()),
        totals: view.map(totals),
        limits: Vec::new(),
        nodes: None,
    }
}

fn jobs(view: &QueueView) -> Jobs {
    Jobs {
        pending: view.pending,
        held: view.held,
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
