//! How a pool serves its queue, as it is shown: that it waits for the service behind its jobs, its size by the load, and
//! the size that somebody has set.

use serde::{Serialize, Serializer};

use super::pauses::ShownRequest;
use crate::broker::{Outage, Override, Scaled};
use crate::config::Concurrency;

/// The size of a queue whose concurrency lies between two bounds.
#[derive(Debug, Serialize)]
pub(super) struct ShownScale {
    min: usize,
    max: usize,
    size: usize,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Why it does not grow though jobs wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<String>,
}

impl ShownScale {
    pub(super) fn of(scaled: Scaled) -> Self {
        let Scaled { min, max, size, since, reason, held } = scaled;
        Self { min, max, size, since: since.to_string(), reason, held }
    }

    /// The size, and why it is no other.
    pub(super) fn words(&self) -> String {
        let Self { min, max, size, since, reason, held } = self;
        let why = reason.as_ref().map_or(String::new(), |reason| format!(" since {since}: {reason}"));
        let held = held.as_ref().map_or(String::new(), |held| format!("; it does not grow: {held}"));
        format!("{size} of {min} to {max}{why}{held}")
    }
}

/// A number of slots, or the two that it lies between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ShownConcurrency(pub(super) Concurrency);

impl Serialize for ShownConcurrency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_fixed() { self.0.max.serialize(serializer) } else { self.0.serialize(serializer) }
    }
}

/// A number of slots that somebody has set.
#[derive(Debug, Serialize)]
pub(super) struct ShownOverride {
    concurrency: ShownConcurrency,
    set: ShownRequest,
}

impl ShownOverride {
    pub(super) fn of(Override { concurrency, request }: &Override) -> Self {
        Self { concurrency: ShownConcurrency(*concurrency), set: ShownRequest::of(request) }
    }

    /// The number, by whom, and what it would be without.
    pub(super) fn words(&self, configured: Concurrency) -> String {
        let Self { concurrency: ShownConcurrency(concurrency), set } = self;
        format!("set to {concurrency} {} at {}; the configuration says {configured}", set.words(), set.at())
    }
}

/// The breaker of a queue that is not closed.
#[derive(Debug, Serialize)]
pub(super) struct ShownBreaker {
    state: &'static str,
    since: String,
    /// Until when nothing is claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    reason: String,
}

impl ShownBreaker {
    pub(super) fn of(outage: Outage) -> Self {
        let Outage { since, until, reason } = outage;
        let state = if until.is_some() { "open" } else { "half-open" };
        Self { state, since: since.to_string(), until: until.map(|until| until.to_string()), reason }
    }

    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    /// For the column that says how a queue stands.
    pub(super) fn words(&self) -> &'static str {
        if self.until.is_some() { "service down" } else { "trying service" }
    }
}
