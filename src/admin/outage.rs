//! A queue that waits for the service behind its jobs, as it is shown.

use serde::Serialize;

use crate::broker::Outage;

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
