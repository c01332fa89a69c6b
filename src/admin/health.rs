//! Whether this node works: for supervisors (`/livez`), for load balancers (`/readyz`), and for the app that asks how
//! its queues are (`/health/queues`).

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde::Serialize;

use super::answer::{Answer, json, text};
use super::overview::{self, ReadError, phase_word};
use super::problem::Problem;
use super::request::Format;
use super::{Shared, pauses};
use crate::config::Config;
use crate::control::Phase;
use crate::store::{Finding, LinkError, QueueView, Severity};

/// The shape in which the Python app has always answered about its queues.
#[derive(Serialize)]
struct QueueHealth {
    status: &'static str,
    redis: &'static str,
    queues: BTreeMap<String, QueueNumbers>,
}

#[derive(Serialize)]
struct QueueNumbers {
    /// What waits to be started: pending here, and not yet taken from the foreign lists.
    count: u64,
    failed_count: u64,
    started_count: u64,
    /// Somebody has paused it. Left out otherwise: the app knows the three numbers only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    paused: bool,
}

/// Whoever reads this is served, so the process lives.
pub(super) fn livez() -> Answer {
    text(StatusCode::OK, "alive\n")
}

/// Ready: running, Redis answers, and it is one that jobs can be run with. Otherwise every reason, one a line. What is
/// wrong and lets jobs run all the same (a full Redis takes no new ones, and another node would take them no better) is
/// told beside `ready`.
pub(super) async fn readyz(shared: &Shared, format: Format) -> Answer {
    let mut reasons = Vec::new();
    let phase = shared.parts.control.phase();
    if phase != Phase::Running {
        reasons.push(format!("the daemon is {}", phase_word(phase)));
    }
    let known = shared.parts.broker.store.report();
    let findings = known.iter().flat_map(|report| &report.findings);
    let (stopping, other): (Vec<&Finding>, Vec<&Finding>) =
        findings.filter(|finding| finding.severity == Severity::Error).partition(|finding| finding.stops_work);
    let stopping = stopping.iter().map(|finding| finding.sentence.clone());
    match overview::ping(shared).await {
        Ok(()) => reasons.extend(stopping),
        // It refuses everything, and the finding has better words for why.
        Err(ReadError::Link(LinkError::Refused(_))) if stopping.len() > 0 => reasons.extend(stopping),
        Err(error) => reasons.push(error.to_string()),
    }
    let degraded: String = other.iter().map(|finding| format!("degraded: {}\n", finding.sentence)).collect();
    match format {
        _ if reasons.is_empty() => text(StatusCode::OK, format!("ready\n{degraded}")),
        Format::Json => Problem::unavailable(reasons.join("; ")).into_answer(),
        Format::Text | Format::Html => {
            text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n", reasons.join("\n")))
        }
    }
}

/// `GET /health/queues`.
pub(super) async fn queues(shared: &Shared, config: &Config) -> Answer {
    match overview::read(shared, config).await {
        Ok(views) => {
            let queues = views.iter().map(|view| (view.queue.to_string(), numbers(view))).collect();
            json(StatusCode::OK, &QueueHealth { status: "healthy", redis: "connected", queues })
        }
        Err(error) => {
            tracing::debug!("/health/queues without numbers: {error}");
            let health = QueueHealth { status: "degraded", redis: "disconnected", queues: BTreeMap::new() };
            json(StatusCode::SERVICE_UNAVAILABLE, &health)
        }
    }
}

fn numbers(view: &QueueView) -> QueueNumbers {
    let backlog: u64 = view.foreign.iter().map(|(_, waiting)| waiting).sum();
    QueueNumbers {
        count: view.pending + backlog,
        failed_count: view.dead,
        started_count: view.active,
        paused: pauses::of(view).0.is_some(),
    }
}
