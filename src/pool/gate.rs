//! Whether a pool may claim, as its breaker says; every change of that is logged, counted and shown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::breaker::{Allowed, Answer, Breaker, Change};
use crate::broker::{Broker, Outage};
use crate::clock;
use crate::job::{Outcome, QueueName};
use crate::metrics::{Metrics, QueueLabels};

#[derive(Debug)]
pub(super) struct Gate {
    queue: QueueName,
    broker: Arc<Broker>,
    breaker: Breaker,
    waits: Gauge,
    outages: Counter,
}

impl Gate {
    /// Open to everything: what an earlier pool of the queue has said of an outage is over.
    pub(super) fn new(queue: &QueueName, broker: Arc<Broker>, metrics: &Metrics) -> Self {
        let labels = QueueLabels { queue: queue.to_string() };
        let waits = metrics.waits.get_or_create(&labels).clone();
        let outages = metrics.outages.get_or_create(&labels).clone();
        waits.set(0);
        broker.stances.change(queue, |stance| stance.outage = None);
        Self { queue: queue.clone(), broker, breaker: Breaker::new(), waits, outages }
    }

    pub(super) fn allowed(&self) -> Allowed {
        self.breaker.allowed()
    }

    /// When there is something to do for [`Gate::tick`].
    pub(super) fn until(&self) -> Option<Instant> {
        self.breaker.until()
    }

    /// Time has passed; says whether something else is allowed now.
    pub(super) fn tick(&mut self) -> bool {
        let change = self.breaker.tick(Instant::now());
        self.show(change)
    }

    /// An attempt, or a batch, has ended; says whether something else is allowed now.
    pub(super) fn ended<'o>(&mut self, outcomes: impl Iterator<Item = &'o Outcome>, probe: bool) -> bool {
        // A batch is one answer: given, if any of its jobs was.
        let answers = outcomes.map(answer).reduce(|one, other| match (&one, &other) {
            (Answer::Given, _) | (_, Answer::Unknown) => one,
            _ => other,
        });
        let change = self.breaker.ended(answers.unwrap_or(Answer::Unknown), probe, Instant::now());
        self.show(change)
    }

    fn show(&mut self, change: Option<Change>) -> bool {
        let Some(change) = change else { return false };
        self.waits.set(i64::from(change != Change::Closed));
        match &change {
            Change::Opened { span, reason, .. } => {
                tracing::warn!(queue = %self.queue, "{change}");
                self.outages.inc();
                self.show_outage(Some((*span, reason.clone())));
            }
            Change::HalfOpened => {
                tracing::info!(queue = %self.queue, "{change}");
                self.broker.stances.change(&self.queue, |stance| {
                    if let Some(outage) = &mut stance.outage {
                        outage.until = None;
                    }
                });
            }
            Change::Closed => {
                tracing::info!(queue = %self.queue, "{change}");
                self.show_outage(None);
            }
        }
        true
    }

    /// An outage that goes on has begun with the first of its waits.
    fn show_outage(&self, wait: Option<(Duration, String)>) {
        let now = clock::now();
        self.broker.stances.change(&self.queue, |stance| {
            let since = stance.outage.as_ref().map_or(now, |outage| outage.since);
            stance.outage = wait.map(|(span, reason)| Outage { since, until: Some(now.after(span)), reason });
        });
    }
}

fn answer(outcome: &Outcome) -> Answer {
    match outcome {
        Outcome::Success(_) | Outcome::Failure(_) | Outcome::Snoozed { .. } => Answer::Given,
        Outcome::Unavailable { error, retry_after } => {
            Answer::Unavailable { reason: format!("{}: {}", error.kind, error.message), retry_after: *retry_after }
        }
        Outcome::TimedOut(_)
        | Outcome::Expired(_)
        | Outcome::Crashed { .. }
        | Outcome::Interrupted { .. }
        | Outcome::Cancelled(_) => Answer::Unknown,
    }
}
