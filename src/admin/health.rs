//! Whether this node works: for supervisors (`/livez`), for load balancers (`/readyz`), and for the app that asks how
//! its queues are (`/health/queues`).

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde::Serialize;

use super::Shared;
use super::answer::{Answer, json, text};
use super::overview::{self, phase_word};
use super::problem::Problem;
use super::request::Format;
use crate::config::Config;
use crate::control::Phase;
use crate::store::{QueueView, Severity};

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
    let mut degraded = String::new();
    let phase = shared.parts.control.phase();
    if phase != Phase::Running {
        reasons.push(format!("the daemon is {}", phase_word(phase)));
    }
    match (overview::ping(shared).await, shared.parts.broker.store.report()) {
        (Err(error), _) => reasons.push(error.to_string()),
        (Ok(()), None) => {}
        (Ok(()), Some(report)) => {
            for finding in report.findings.iter().filter(|finding| finding.severity == Severity::Error) {
                match finding.stops_work {
                    true => reasons.push(finding.sentence.clone()),
                    false => degraded += &format!("degraded: {}\n", finding.sentence),
                }
            }
        }
    }
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
    QueueNumbers { count: view.pending + backlog, failed_count: view.dead, started_count: view.active }
}
