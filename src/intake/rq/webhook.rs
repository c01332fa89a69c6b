//! Webhooks of RQ's producers (from RQ 2.9 on): requests that are made when a job has ended. Each is a job of its own, in
//! the queue of the job that it tells of and tried again as that queue says; RQ's worker tries once and forgets.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::answer::failure_text;
use super::follow_up::follow_up;
use super::job::RqJob;
use crate::broker::{OwedJob, RqEnding, RqSay};
use crate::config::{Config, WEBHOOK};
use crate::intake::iso::Stamp;
use crate::intake::pyjson::{Dialect, dumps};
use crate::job::{Job, TaskName, Timestamp};

/// What one job may have; RQ has no bounds. All of it stands in the job's record.
const MOST: usize = 20;
const MAX_BYTES: usize = 16 * 1024;

/// One of the list in a job's hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Webhook {
    url: String,
    job_status: JobStatus,
    #[serde(default)]
    method: Method,
    headers: Option<BTreeMap<String, String>>,
    /// In seconds.
    #[serde(default = "ten")]
    timeout: NonZeroU64,
}

/// The end that it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum JobStatus {
    Finished,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Method {
    #[default]
    Get,
    Post,
}

fn ten() -> NonZeroU64 {
    const { NonZeroU64::new(10).expect("it is not zero") }
}

/// Reads the list. `None`: it is none, or more than a job may have. RQ's worker drops such a list and runs the job.
pub(super) fn read(text: &str) -> Option<Vec<Webhook>> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let all: Vec<Webhook> = serde_json::from_str(text).ok()?;
    (all.len() <= MOST && all.iter().all(|webhook| names_a_host(&webhook.url))).then_some(all)
}

fn names_a_host(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    http && !rest.is_empty() && !rest.starts_with(['/', '?', '#'])
}

/// Adds the webhooks of a job to its note, and what they tell that is forgotten else.
pub(super) fn note(job: &RqJob, note: &mut Value) {
    if job.options.webhooks.is_empty() {
        return;
    }
    note["webhooks"] = serde_json::to_value(&job.options.webhooks).expect("texts and numbers become JSON");
    note["func_name"] = job.func_name.as_str().into();
    note["enqueued_at"] = job.options.enqueued_at.map(isoformat).into();
}

/// The webhooks that are due now, each as a job.
pub(super) fn due(owed: &OwedJob, note: &Value, ending: &RqEnding, config: &Config, now: Timestamp) -> Vec<Job> {
    let status = match ending.say {
        RqSay::Finished => JobStatus::Finished,
        RqSay::Failed => JobStatus::Failed,
        RqSay::Stopped | RqSay::Canceled(_) | RqSay::Retry { .. } => return Vec::new(),
    };
    let Some(list) = note.get("webhooks") else { return Vec::new() };
    let Ok(all) = serde_json::from_value::<Vec<Webhook>>(list.clone()) else {
        tracing::error!(queue = %owed.job.queue, job = %owed.job.id, "its webhooks are not called: another version noted them");
        return Vec::new();
    };
    let task = TaskName::parse(WEBHOOK).expect("a valid name");
    let due = all.iter().enumerate().filter(|(_, webhook)| webhook.job_status == status);
    let job = |(nth, webhook): (usize, &Webhook)| {
        let args = webhook.arguments(|| payload(owed, note, status, ending));
        follow_up(owed, &format!("webhook{}", nth + 1), (&owed.job.queue, &task), args, config, now)
    };
    due.map(job).collect()
}

impl Webhook {
    /// As the handler reads them.
    fn arguments(&self, payload: impl FnOnce() -> Value) -> Map<String, Value> {
        let body = (self.method == Method::Post).then(|| dumps(&payload(), Dialect::Plain));
        let Self { url, method, headers, timeout, .. } = self;
        let headers = headers.clone().unwrap_or_default();
        let arguments = json!({"url": url, "method": method, "headers": headers, "body": body, "timeout": timeout});
        match arguments {
            Value::Object(arguments) => arguments,
            _ => Map::new(),
        }
    }
}

/// What RQ's worker posts, in its order.
fn payload(owed: &OwedJob, note: &Value, status: JobStatus, ending: &RqEnding) -> Value {
    let mut payload = json!({
        "job_id": owed.job.id,
        "func_name": note.get("func_name"),
        "status": status,
        "enqueued_at": note.get("enqueued_at"),
        "ended_at": isoformat(ending.ended.to_utc()),
    });
    if status == JobStatus::Failed {
        payload["exc_info"] = failure_text(owed).into();
    }
    payload
}

/// `datetime.isoformat()` of a time in UTC.
fn isoformat(at: chrono::DateTime<chrono::Utc>) -> String {
    Stamp { local: at.naive_utc(), offset: Some(TimeDelta::zero()) }.isoformat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_whole_or_not_at_all() {
        // As RQ 3.0 writes it.
        let written = r#"[{"url": "HTTPS://example.com/x", "job_status": "failed", "method": "POST", "headers": null, "timeout": 3}]"#;
        let read_back = read(written).expect("it is one");
        assert_eq!((read_back[0].method, read_back[0].timeout.get()), (Method::Post, 3));
        let short = r#"{"url": "http://h", "job_status": "finished"}"#;
        let defaults = read(&format!("[{short}]")).expect("RQ reads it too");
        assert_eq!((defaults[0].method, defaults[0].timeout.get()), (Method::Get, 10));
        assert_eq!(read("[]"), Some(Vec::new()));
        let list = |count: usize| format!("[{}]", vec![short; count].join(","));
        assert_eq!(read(&list(20)).map(|all| all.len()), Some(20));
        let broken = [
            list(21),
            format!("[{}{short}]", " ".repeat(MAX_BYTES)),
            "{}".to_owned(),
            short.replace("http://h", "http:///x"),
            short.replace("http://h", "ftp://h"),
            short.replace("finished", "stopped"),
            short.replace('}', r#", "method": "PUT"}"#),
            short.replace('}', r#", "timeout": 0}"#),
            short.replace('}', r#", "headers": {"A": 1}}"#),
        ];
        for text in broken {
            let text = if text.starts_with('{') { format!("[{text}]") } else { text };
            assert_eq!(read(&text), None, "{text}");
        }
    }
}
