//! What is counted while the daemon runs. Everyone may count; only the admin port reads.
//!
//! Numbers that Redis knows (how many wait, how many are dead) are not kept here: they are read when asked for.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Ending {
    Completed,
    Failed,
    TimedOut,
    Snoozed,
    Unavailable,
    Expired,
    Interrupted,
    Cancelled,
}

impl EncodeLabelValue for Ending {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let word = match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Snoozed => "snoozed",
            Self::Unavailable => "unavailable",
            Self::Expired => "expired",
            Self::Interrupted => "interrupted",
            Self::Cancelled => "cancelled",
        };
        word.encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct AttemptLabels {
    pub queue: String,
    pub task: String,
    pub ending: Ending,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct QueueLabels {
    pub queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TaskLabels {
    pub queue: String,
    pub task: String,
}

/// The counters of this process. Label values are names from the configuration, so their number is bounded.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub registry: Registry,
    pub attempts: Family<AttemptLabels, Counter>,
    /// Attempts that run now.
    pub running: Family<QueueLabels, Gauge>,
    /// Slots of the pool.
    pub slots: Family<QueueLabels, Gauge>,
    /// What its number lies between.
    pub slots_min: Family<QueueLabels, Gauge>,
    pub slots_max: Family<QueueLabels, Gauge>,
    /// Steps from one number to another.
    pub resizes: Family<QueueLabels, Counter>,
    /// Those that run, over all queues.
    pub node_running: Gauge,
    pub attempt_seconds: Family<TaskLabels, Histogram>,
    /// From due to claimed.
    pub wait_seconds: Family<QueueLabels, Histogram>,
    /// Claims taken over from dead nodes.
    pub taken_over: Family<QueueLabels, Counter>,
    /// Late results that were refused.
    pub refused: Family<QueueLabels, Counter>,
    /// Whether the queue waits, because the service behind its jobs is down.
    pub waits: Family<QueueLabels, Gauge>,
    /// How often it began to wait.
    pub outages: Family<QueueLabels, Counter>,
    /// Foreign messages that could not become jobs that run.
    pub unreadable: Family<QueueLabels, Counter>,
}

/// From 5 ms to an hour: mails and transcodes on one scale.
const ATTEMPT_BUCKETS: [f64; 13] = [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];
/// From 1 ms, a pickup by an idle pool, to an hour of backlog.
const WAIT_BUCKETS: [f64; 11] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0, 600.0, 3600.0];

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("jobsd"),
            attempts: Family::default(),
            running: Family::default(),
            slots: Family::default(),
            slots_min: Family::default(),
            slots_max: Family::default(),
            resizes: Family::default(),
            node_running: Gauge::default(),
            attempt_seconds: Family::new_with_constructor(|| Histogram::new(ATTEMPT_BUCKETS)),
            wait_seconds: Family::new_with_constructor(|| Histogram::new(WAIT_BUCKETS)),
            taken_over: Family::default(),
            refused: Family::default(),
            waits: Family::default(),
            outages: Family::default(),
            unreadable: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("attempts", "Attempts that have ended", self.attempts.clone());
        registry.register("running", "Attempts that run now", self.running.clone());
        registry.register("slots", "Attempts that may run at once", self.slots.clone());
        registry.register("slots_min", "The fewest slots that the configuration allows", self.slots_min.clone());
        registry.register("slots_max", "The most slots that the configuration allows", self.slots_max.clone());
        registry.register("slots_changes", "Steps from one number of slots to another", self.resizes.clone());
        registry.register("node_running", "Attempts that run now, over all queues", self.node_running.clone());
        let (attempt, wait) = (self.attempt_seconds.clone(), self.wait_seconds.clone());
        registry.register_with_unit("attempt", "Length of attempts", Unit::Seconds, attempt);
        registry.register_with_unit("wait", "Time from due to claimed", Unit::Seconds, wait);
        registry.register("taken_over", "Claims taken over from dead nodes", self.taken_over.clone());
        registry.register("refused", "Late results of lost leases, refused", self.refused.clone());
        let waits = "Whether the queue waits, because the service behind its jobs is down";
        registry.register("waits_for_service", waits, self.waits.clone());
        let outages = "How often the service behind the jobs was found down";
        registry.register("service_outages", outages, self.outages.clone());
        registry.register("unreadable", "Foreign messages that could not be run", self.unreadable.clone());
    }
}
