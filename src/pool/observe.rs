//! What a pool counts and measures. The handles are looked up once, not for each job.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::broker::Claim;
use crate::job::{Outcome, QueueName, TaskName, Timestamp};
use crate::metrics::{AttemptLabels, Ending, Metrics, QueueLabels, TaskLabels};

/// The metrics of one queue.
#[derive(Debug)]
pub(super) struct Observed {
    queue: QueueName,
    metrics: Arc<Metrics>,
    running: Gauge,
    /// What of the node's number is ours.
    shown: i64,
    slots: Gauge,
    wait: Histogram,
    pub(super) taken_over: Counter,
    pub(super) refused: Counter,
    /// Tasks are those of the configuration, so their number is bounded.
    tasks: HashMap<TaskName, ObservedTask>,
}

#[derive(Debug)]
struct ObservedTask {
    seconds: Histogram,
    completed: Counter,
}

impl Observed {
    pub(super) fn new(metrics: Arc<Metrics>, queue: &QueueName) -> Self {
        let labels = QueueLabels { queue: queue.to_string() };
        let running = metrics.running.get_or_create(&labels).clone();
        let slots = metrics.slots.get_or_create(&labels).clone();
        let wait = metrics.wait_seconds.get_or_create(&labels).clone();
        let taken_over = metrics.taken_over.get_or_create(&labels).clone();
        let refused = metrics.refused.get_or_create(&labels).clone();
        let tasks = HashMap::new();
        Self { queue: queue.clone(), metrics, running, shown: 0, slots, wait, taken_over, refused, tasks }
    }

    pub(super) fn sizes(&mut self, running: usize, slots: usize) {
        let running = i64::try_from(running).unwrap_or(i64::MAX);
        self.running.set(running);
        self.metrics.node_running.inc_by(running - std::mem::replace(&mut self.shown, running));
        self.slots.set(i64::try_from(slots).unwrap_or(i64::MAX));
    }

    /// A claim, of a job's first attempt: how long it waited.
    pub(super) fn claimed(&self, claim: &Claim) {
        if claim.history.next_attempt() == 1 {
            let since = claim.job.due.unwrap_or(claim.job.enqueued_at);
            self.wait.observe(claim.started.since(since).as_secs_f64());
        }
    }

    pub(super) fn ended(&mut self, claim: &Claim, outcome: &Outcome, now: Timestamp) {
        let ending = match outcome {
            Outcome::Success(_) => Ending::Completed,
            Outcome::Failure(_) => Ending::Failed,
            Outcome::TimedOut(_) => Ending::TimedOut,
            Outcome::Snoozed { .. } => Ending::Snoozed,
            Outcome::Unavailable { .. } => Ending::Unavailable,
            Outcome::Expired(_) => Ending::Expired,
            Outcome::Cancelled(_) => Ending::Cancelled,
            Outcome::Crashed { .. } | Outcome::Interrupted { .. } => Ending::Interrupted,
        };
        let task = self.task(&claim.job.task);
        task.seconds.observe(now.since(claim.started).as_secs_f64());
        if ending == Ending::Completed {
            task.completed.inc();
        } else {
            let (queue, task) = (self.queue.to_string(), claim.job.task.to_string());
            self.metrics.attempts.get_or_create(&AttemptLabels { queue, task, ending }).inc();
        }
    }

    fn task(&mut self, task: &TaskName) -> &ObservedTask {
        let Self { queue, metrics, tasks, .. } = self;
        tasks.entry(task.clone()).or_insert_with(|| {
            let (queue, task, ending) = (queue.to_string(), task.to_string(), Ending::Completed);
            let labels = TaskLabels { queue: queue.clone(), task: task.clone() };
            ObservedTask {
                seconds: metrics.attempt_seconds.get_or_create(&labels).clone(),
                completed: metrics.attempts.get_or_create(&AttemptLabels { queue, task, ending }).clone(),
            }
        })
    }
}

/// A pool that ends, by a panic too, takes what it ran with it.
impl Drop for Observed {
    fn drop(&mut self) {
        self.metrics.node_running.dec_by(self.shown);
    }
}
