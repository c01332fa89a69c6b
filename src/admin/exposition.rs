//! `/metrics`: what this process counts, and what Redis knows at the moment of the scrape, as OpenMetrics text.
//!
//! A scrape without Redis still answers, with `jobsd_redis_up 0` and what the process counts by itself: monitoring that
//! goes blind when something breaks is of no use.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hyper::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::answer::{Answer, of};
use super::overview::read;
use super::problem::Problem;
use super::{Shared, pauses};
use crate::clock;
use crate::config::{Config, Queue};
use crate::job::{State, Timestamp};
use crate::metrics::QueueLabels;
use crate::store::QueueView;

/// OpenMetrics 1.0, section "Text format".
const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    queue: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListLabels {
    queue: String,
    wire: &'static str,
    list: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    queue: String,
    outcome: &'static str,
}

/// What is read at a scrape.
#[derive(Default)]
struct Scraped {
    jobs: Family<StateLabels, Gauge>,
    oldest: Family<QueueLabels, Gauge<f64, AtomicU64>>,
    backlog: Family<ListLabels, Gauge>,
    paused: Family<QueueLabels, Gauge>,
    held: Family<QueueLabels, Gauge>,
    limit_hits: Family<QueueLabels, Counter>,
    outcomes: Family<OutcomeLabels, Counter>,
}

/// `GET /metrics`.
pub(super) async fn answer(shared: &Shared, config: &Config) -> Result<Answer, Problem> {
    let views = read(shared, config).await;
    if let Err(error) = &views {
        tracing::debug!("/metrics without the numbers of Redis: {error}");
    }
    let registry = scraped(shared, config, views.as_deref().ok());
    let mut out = String::new();
    encode_registry(&mut out, &shared.parts.metrics.registry)
        .and_then(|()| encode_registry(&mut out, &registry))
        .and_then(|()| encode_eof(&mut out))
        .map_err(|error| Problem::internal(format!("write the metrics: {error}")))?;
    Ok(of(StatusCode::OK, MEDIA_TYPE, out.into_bytes()))
}

fn scraped(shared: &Shared, config: &Config, views: Option<&[QueueView]>) -> Registry {
    let mut registry = Registry::with_prefix("jobsd");
    let version = Info::new([("version", shared.parts.version)]);
    registry.register("build", "The version that runs", version);
    let started = Gauge::<f64, AtomicU64>::default();
    started.set(seconds(shared.started));
    registry.register_with_unit("start_time", "When the daemon was started", Unit::Seconds, started);
    let up: Gauge = Gauge::default();
    up.set(i64::from(views.is_some()));
    registry.register("redis_up", "Whether Redis answers", up);
    let slots: Gauge = Gauge::default();
    slots.set(node_slots(shared, config));
    registry.register("node_slots", "Attempts that may run at once, over all queues", slots);
    if let Some(views) = views {
        let scraped = Scraped::default();
        let now = clock::now();
        for view in views {
            scraped.add(view, now);
        }
        scraped.register(&mut registry);
    }
    registry
}

/// The node's bound, or as many as its queues may have together.
fn node_slots(shared: &Shared, config: &Config) -> i64 {
    let of_queue = |queue: &Arc<Queue>| shared.parts.broker.concurrency(queue).max;
    let of_queues = || config.queues.values().map(of_queue).sum::<usize>();
    let slots = config.node.slots.bound.unwrap_or_else(of_queues);
    i64::try_from(slots).unwrap_or(i64::MAX)
}

impl Scraped {
    fn register(self, registry: &mut Registry) {
        registry.register("queue_jobs", "Jobs by state", self.jobs);
        let oldest = "How long the first in line has been waiting; 0 when there is none";
        registry.register_with_unit("queue_oldest", oldest, Unit::Seconds, self.oldest);
        registry.register("foreign_backlog", "Foreign messages that no node has taken yet", self.backlog);
        registry.register("queue_paused", "Whether somebody has paused the whole queue", self.paused);
        let held = "Pending jobs that are held: by a pause of their task, by a limit, or until their tenant's turn";
        registry.register("queue_held", held, self.held);
        registry.register("queue_limit_hits", "How often a limit had no room for a job", self.limit_hits);
        let outcomes = "What attempts and jobs came to, over all nodes and restarts";
        registry.register("queue_outcomes", outcomes, self.outcomes);
    }

    fn add(&self, view: &QueueView, now: Timestamp) {
        let queue = || view.queue.to_string();
        for (state, count) in states(view) {
            let labels = StateLabels { queue: queue(), state: state.as_str() };
            self.jobs.get_or_create(&labels).set(gauge(count));
        }
        let oldest = view.oldest_pending.map_or(0.0, |at| now.since(at).as_secs_f64());
        self.oldest.get_or_create(&QueueLabels { queue: queue() }).set(oldest);
        let paused = pauses::of(view).0.is_some();
        self.paused.get_or_create(&QueueLabels { queue: queue() }).set(i64::from(paused));
        self.held.get_or_create(&QueueLabels { queue: queue() }).set(gauge(view.held));
        self.limit_hits.get_or_create(&QueueLabels { queue: queue() }).inc_by(view.counters.held);
        for (list, waiting) in &view.foreign {
            let labels = ListLabels { queue: queue(), wire: list.wire.as_str(), list: list.name.clone() };
            self.backlog.get_or_create(&labels).set(gauge(*waiting));
        }
        for (outcome, count) in outcomes(view) {
            self.outcomes.get_or_create(&OutcomeLabels { queue: queue(), outcome }).inc_by(count);
        }
    }
}

fn states(view: &QueueView) -> [(State, u64); 7] {
    [
        (State::Scheduled, view.scheduled),
        (State::Pending, view.pending),
        (State::Active, view.active),
        (State::Retry, view.retry),
        (State::Completed, view.completed),
        (State::Dead, view.dead),
        (State::Cancelled, view.cancelled),
    ]
}

fn outcomes(view: &QueueView) -> [(&'static str, u64); 6] {
    let counters = view.counters;
    [
        ("completed", counters.completed),
        ("failed", counters.failed),
        ("dead", counters.dead),
        ("cancelled", counters.cancelled),
        ("crashed", counters.crashed),
        ("refused", counters.refused),
    ]
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^53")]
fn seconds(at: Timestamp) -> f64 {
    at.as_millis() as f64 / 1000.0
}
