//! What became of a job, as RQ's clients read it: the status in the job's hash, the results stream, the registry.

use redis::Pipeline;
use serde_json::Value;

use super::job::{DEFAULT_FAILURE_TTL, DEFAULT_RESULT_TTL, Serializer};
use super::{keys, result};
use crate::broker::OwedJob;
use crate::intake::iso;
use crate::job::{End, Mishap, State, Timestamp};

/// Entries that RQ keeps in a results stream.
const RESULTS_KEPT: usize = 10;

/// Adds the commands that write the answer. `exists` says whether the job's hash is still there: one that was deleted
/// while it ran stays deleted.
pub(crate) fn write(transaction: &mut Pipeline, owed: &OwedJob, note: &Value, exists: bool) {
    let Some(id) = note.get("id").and_then(Value::as_str).filter(|_| exists) else { return };
    let origin = note.get("origin").and_then(Value::as_str).unwrap_or_default();
    let ttl = |name: &str, default: u64| note.get(name).and_then(Value::as_i64).unwrap_or(default.cast_signed());
    match &owed.history.end {
        // It runs again by itself; RQ's own scheduler must not hear of it, or it would run twice.
        None => {
            transaction.cmd("HSET").arg(keys::job(id)).arg("status").arg("scheduled");
        }
        Some(end) if end.state == State::Completed => {
            let ttl = ttl("result_ttl", DEFAULT_RESULT_TTL.as_secs());
            let serializer =
                if note.get("json") == Some(&Value::Bool(true)) { Serializer::Json } else { Serializer::Pickle };
            finished(transaction, id, origin, end, ttl, result::return_value(&end.result, serializer));
        }
        Some(end) => {
            let ttl = ttl("failure_ttl", DEFAULT_FAILURE_TTL.as_secs());
            failed(transaction, id, origin, end, ttl, owed.history.mishaps.last());
        }
    }
}

/// A result of no life deletes the job, as RQ does.
fn finished(to: &mut Pipeline, id: &str, origin: &str, end: &End, ttl: i64, value: Option<String>) {
    if ttl == 0 {
        to.cmd("DEL").arg(keys::job(id)).cmd("DEL").arg(keys::results(id));
        return;
    }
    status(to, id, "finished", end);
    to.cmd("XADD").arg(keys::results(id)).arg("MAXLEN").arg("~").arg(RESULTS_KEPT).arg("*").arg("type").arg(1);
    if let Some(value) = value {
        to.arg("return_value").arg(value);
    }
    keep(to, id, "finished", origin, end, ttl);
}

fn failed(to: &mut Pipeline, id: &str, origin: &str, end: &End, ttl: i64, mishap: Option<&Mishap>) {
    status(to, id, "failed", end);
    to.cmd("XADD").arg(keys::results(id)).arg("MAXLEN").arg("~").arg(RESULTS_KEPT).arg("*").arg("type").arg(2);
    to.arg("exc_string").arg(result::exc_string(&exc_info(mishap)));
    keep(to, id, "failed", origin, end, ttl);
}

fn status(to: &mut Pipeline, id: &str, status: &str, end: &End) {
    let at = iso::rq(end.at.to_utc());
    let started = end.started.map_or_else(String::new, |started| iso::rq(started.to_utc()));
    let worker = end.node.as_ref().map_or("", |node| node.as_str());
    to.cmd("HSET").arg(keys::job(id)).arg("status").arg(status).arg("started_at").arg(started);
    to.arg("ended_at").arg(&at).arg("last_heartbeat").arg(&at).arg("worker_name").arg(worker);
}

/// Bounds the life of the hash and the stream and enters the job in its registry; -1 is for ever.
fn keep(to: &mut Pipeline, id: &str, registry: &str, origin: &str, end: &End, ttl: i64) {
    let until = if ttl < 0 { "+inf".to_owned() } else { (end.at.to_utc().timestamp() + ttl).to_string() };
    to.cmd("ZADD").arg(keys::registry(registry, origin)).arg(until).arg(id);
    for key in [keys::job(id), keys::results(id)] {
        if ttl < 0 {
            to.cmd("PERSIST").arg(key);
        } else {
            to.cmd("EXPIRE").arg(key).arg(ttl);
        }
    }
}

/// The end of a Python traceback, which is what people and tools look for in `exc_info`.
fn exc_info(mishap: Option<&Mishap>) -> String {
    let Some(mishap) = mishap else { return "RuntimeError: the job ended without a word\n".to_owned() };
    let detail = mishap.detail.as_deref().map(|detail| format!("  {}\n", detail.trim_end().replace('\n', "\n  ")));
    format!("Traceback (most recent call last):\n{}{}: {}\n", detail.unwrap_or_default(), mishap.name, mishap.message)
}

/// Adds the commands that show a job as running.
pub(crate) fn started(pipeline: &mut Pipeline, id: &str, node: &str, now: Timestamp) {
    let now = iso::rq(now.to_utc());
    pipeline.cmd("HSET").arg(keys::job(id)).arg("status").arg("started").arg("started_at").arg(&now);
    pipeline.arg("last_heartbeat").arg(&now).arg("worker_name").arg(node);
}
