//! The slots of a pool: a fixed number, or what [`Scale`] says of the load; every step is logged, counted and shown.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::pressure::Pressure;
use super::scale::{Load, Reason, Scale, Step, TICK};
use crate::broker::{Broker, Scaled};
use crate::clock;
use crate::config::Concurrency;
use crate::job::{Failure, Outcome, QueueName, Request, Retryable};
use crate::metrics::{Metrics, QueueLabels};

#[derive(Debug)]
pub(super) struct Size {
    queue: QueueName,
    broker: Arc<Broker>,
    pressure: Arc<Pressure>,
    concurrency: Concurrency,
    /// Who has set it, where it is not the configuration's.
    set: Option<Request>,
    /// Of a queue whose size is not fixed.
    scale: Option<Scale>,
    /// When the next tick is due.
    next: Instant,
    /// What has happened since the last tick.
    seen: Seen,
    bounds: (Gauge, Gauge),
    steps: Counter,
}

#[derive(Debug, Default)]
struct Seen {
    /// The most slots in use at one time.
    busy: usize,
    crowded_out: bool,
    ended: usize,
    pushbacks: usize,
    /// The words of the last pushback.
    words: String,
}

impl Size {
    pub(super) fn new(
        queue: &QueueName,
        concurrency: Concurrency,
        broker: Arc<Broker>,
        pressure: Arc<Pressure>,
        metrics: &Metrics,
    ) -> Self {
        let labels = QueueLabels { queue: queue.to_string() };
        let gauge = |family: &prometheus_client::metrics::family::Family<QueueLabels, Gauge>| {
            family.get_or_create(&labels).clone()
        };
        let size = Self {
            queue: queue.clone(),
            broker,
            pressure,
            concurrency,
            set: None,
            scale: (!concurrency.is_fixed()).then(|| Scale::new(concurrency)),
            next: Instant::now() + TICK,
            seen: Seen::default(),
            bounds: (gauge(&metrics.slots_min), gauge(&metrics.slots_max)),
            steps: metrics.resizes.get_or_create(&labels).clone(),
        };
        size.show(None);
        size
    }

    pub(super) fn slots(&self) -> usize {
        self.scale.as_ref().map_or(self.concurrency.max, Scale::size)
    }

    /// The configuration says so now, or somebody in its place; says whether that is news. A size that was found stays as
    /// near as the new bounds allow.
    pub(super) fn configure(&mut self, concurrency: Concurrency, set: Option<&Request>) -> bool {
        if self.concurrency == concurrency && self.set.as_ref() == set {
            return false;
        }
        let before = self.slots();
        (self.concurrency, self.set) = (concurrency, set.cloned());
        self.scale = (!concurrency.is_fixed()).then(|| match self.scale.take() {
            Some(scale) => scale.within(concurrency),
            None => Scale::new(Concurrency::fixed(before)).within(concurrency),
        });
        let (from, to) = (before, self.slots());
        let reason = Reason::Bounds { bounds: concurrency, set: set.map(Request::words) };
        self.show((from != to).then_some(Step { from, to, reason }));
        true
    }

    /// So many slots are in use, and the queue could use more than the node has.
    pub(super) fn saw(&mut self, busy: usize, crowded_out: bool) {
        self.seen.busy = self.seen.busy.max(busy);
        self.seen.crowded_out |= crowded_out;
    }

    /// An attempt has ended.
    pub(super) fn ended(&mut self, outcome: &Outcome) {
        if self.scale.is_none() {
            return;
        }
        self.seen.ended += 1;
        if let Some(words) = pushback(outcome) {
            self.seen.pushbacks += 1;
            self.seen.words = words;
        }
    }

    /// When the next tick is due; there is none for a queue that has its smallest size and runs nothing.
    pub(super) fn due(&self, busy: usize) -> Option<Instant> {
        let scale = self.scale.as_ref()?;
        (busy > 0 || !scale.is_at_rest()).then_some(self.next)
    }

    /// Whether the tick needs to know how much waits: where slots are free nothing does.
    pub(super) fn asks_for_backlog(&mut self, busy: usize) -> bool {
        self.next = Instant::now() + TICK;
        self.seen.busy = self.seen.busy.max(busy);
        self.seen.busy >= self.slots()
    }

    /// Says whether the size is another now.
    pub(super) fn tick(&mut self, backlog: u64) -> bool {
        let Some(scale) = &mut self.scale else { return false };
        let Seen { busy, crowded_out, ended, pushbacks, words } = std::mem::take(&mut self.seen);
        let pressure = self.pressure.now();
        // One late attempt among many is no sign of anything.
        let pushback = (pushbacks > 0 && pushbacks * 10 >= ended).then_some(words);
        let load = Load { busy, backlog, pushback, crowded_out, cpu: pressure.cpu, memory: pressure.memory };
        let (before, step) = (scale.held().is_some(), scale.tick(&load));
        let changed = step.is_some();
        if changed || scale.held().is_some() || before {
            if let Some(held) = scale.held().filter(|_| !before) {
                tracing::info!(queue = %self.queue, size = scale.size(), "jobs wait, and it does not grow: {held}");
            }
            self.show(step);
        }
        changed
    }

    fn show(&self, step: Option<Step>) {
        let Concurrency { min, max } = self.concurrency;
        self.bounds.0.set(i64::try_from(min).unwrap_or(i64::MAX));
        self.bounds.1.set(i64::try_from(max).unwrap_or(i64::MAX));
        if let Some(Step { from, to, reason }) = &step {
            self.steps.inc();
            tracing::info!(queue = %self.queue, from, to, "another number of slots: {reason}");
        }
        let held = self.scale.as_ref().and_then(Scale::held).map(ToString::to_string);
        let slots = self.slots();
        self.broker.stances.change(&self.queue, |stance| {
            let kept = stance.scaled.take().filter(|_| step.is_none());
            let fresh = || Scaled { min, max, size: slots, since: clock::now(), reason: None, held: None };
            let reason = step.map(|step| step.reason.to_string());
            let shown =
                kept.map_or_else(|| Scaled { reason, ..fresh() }, |kept| Scaled { min, max, size: slots, ..kept });
            stance.scaled = self.scale.is_some().then_some(Scaled { held, ..shown });
        });
    }
}

/// Why this ending says that there is too much at a time.
fn pushback(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Failure(Failure { retry: Retryable::After(_), kind, .. }) => Some(format!("{kind} asks to wait")),
        Outcome::Failure(Failure { kind, .. }) if kind == "Http429" => Some(kind.clone()),
        Outcome::TimedOut(_) => Some("attempts run into their timeout".to_owned()),
        Outcome::Unavailable { error, .. } => Some(error.kind.clone()),
        _ => None,
    }
}
