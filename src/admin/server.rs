//! `GET /api/v1/redis`: what the guardian knows of the server, and whether it answers now.

use hyper::StatusCode;
use serde::Serialize;

use super::Shared;
use super::answer::{Answer, json};
use super::overview::ping;
use crate::store::{Finding, Policy, Report, Role};

#[derive(Serialize)]
struct Body<'a> {
    /// The password masked.
    url: String,
    /// Where the Sentinels say the master is.
    #[serde(skip_serializing_if = "Option::is_none")]
    master: Option<String>,
    up: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// How old what follows is; absent before the first look.
    checked_seconds_ago: Option<u64>,
    version: Option<String>,
    role: Option<&'static str>,
    persistence: Persistence<'a>,
    memory: Memory,
    policy: Option<String>,
    round_trip_ms: Option<f64>,
    findings: Vec<FindingRow<'a>>,
}

#[derive(Serialize, Default)]
struct Persistence<'a> {
    append_only_file: Option<bool>,
    append_fsync: Option<&'a str>,
    /// Pairs of seconds and changes.
    snapshots: Option<&'a [(u64, u64)]>,
    unsaved_changes: Option<u64>,
}

#[derive(Serialize, Default)]
struct Memory {
    used_bytes: Option<u64>,
    /// Zero: there is no limit.
    limit_bytes: Option<u64>,
}

/// One finding of the guardian, as clients see it.
#[derive(Debug, Serialize)]
pub(super) struct FindingRow<'a> {
    code: &'static str,
    severity: &'static str,
    stops_work: bool,
    sentence: &'a str,
    remedy: &'a str,
}

impl<'a> From<&'a Finding> for FindingRow<'a> {
    fn from(finding: &'a Finding) -> Self {
        Self {
            code: finding.code.as_str(),
            severity: finding.severity.as_str(),
            stops_work: finding.stops_work,
            sentence: &finding.sentence,
            remedy: &finding.remedy,
        }
    }
}

/// Answers in any case: what was known of a Redis that is away is what one wants to know then.
pub(super) async fn answer(shared: &Shared) -> Answer {
    let store = &shared.parts.broker.store;
    let error = ping(shared).await.err().map(|error| error.to_string());
    let report = store.report();
    json(StatusCode::OK, &body(store.endpoint.shown(), store.endpoint.master(), error, report.as_deref()))
}

fn body(url: String, master: Option<String>, error: Option<String>, report: Option<&Report>) -> Body<'_> {
    let facts = report.map(|report| &report.facts);
    Body {
        url,
        master,
        up: error.is_none(),
        error,
        checked_seconds_ago: report.map(|report| report.at.elapsed().as_secs()),
        version: facts.and_then(|facts| facts.server.as_ref()).map(ToString::to_string),
        role: facts.and_then(|facts| facts.role.as_ref()).map(role),
        persistence: facts.map(|facts| persistence(&facts.persistence)).unwrap_or_default(),
        memory: facts.map(|facts| memory(&facts.memory)).unwrap_or_default(),
        policy: facts.and_then(|facts| facts.memory.policy.as_ref()).map(Policy::to_string),
        round_trip_ms: report.and_then(|report| report.round_trip).map(|time| time.as_secs_f64() * 1000.0),
        findings: report.map(|report| report.findings.iter().map(FindingRow::from).collect()).unwrap_or_default(),
    }
}

fn role(role: &Role) -> &'static str {
    match role {
        Role::Master { .. } => "master",
        Role::Replica { .. } => "replica",
    }
}

fn persistence(facts: &crate::store::Persistence) -> Persistence<'_> {
    Persistence {
        append_only_file: facts.aof,
        append_fsync: facts.fsync.as_deref(),
        snapshots: facts.snapshots.as_deref(),
        unsaved_changes: facts.unsaved,
    }
}

fn memory(facts: &crate::store::Memory) -> Memory {
    Memory { used_bytes: facts.used, limit_bytes: facts.limit }
}
