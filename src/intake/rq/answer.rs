//! What became of a job, as RQ's clients read it: the status in the job's hash, the results stream, the registry.

use serde_json::Value;

use super::job::{DEFAULT_FAILURE_TTL, DEFAULT_RESULT_TTL, Serializer};
use super::{keys, result};
use crate::broker::{Answer, Guard, Mark, OwedJob, Place};
use crate::intake::iso;
use crate::job::{End, Mishap, NodeId, State, Timestamp};

/// An entry of a results stream, of which RQ keeps ten.
const ADD_NOTHING: &str = "XADD {} MAXLEN ~ 10 * type 1";
const ADD_RESULT: &str = "XADD {} MAXLEN ~ 10 * type 1 return_value {}";
const ADD_FAILURE: &str = "XADD {} MAXLEN ~ 10 * type 2 exc_string {}";

/// The answer to the producer of a job. `note` is what admission left for it. A job whose hash was deleted while it ran
/// stays deleted.
pub(crate) fn answer(owed: &OwedJob, note: &Value) -> Answer {
    let mut answer = Answer::default();
    let Some(id) = note.get("id").and_then(Value::as_str) else { return answer };
    let foreign = Foreign { id, queue: note.get("origin").and_then(Value::as_str).unwrap_or_default() };
    let ttl = |name: &str, default: u64| note.get(name).and_then(Value::as_i64).unwrap_or(default.cast_signed());
    match &owed.history.end {
        // It runs again by itself; RQ's own scheduler must not hear of it, or it would run twice.
        None => answer.command("HSET {} status scheduled", &[&keys::job(id)]),
        Some(end) if end.state == State::Completed => {
            let ttl = ttl("result_ttl", DEFAULT_RESULT_TTL.as_secs());
            let serializer =
                if note.get("json") == Some(&Value::Bool(true)) { Serializer::Json } else { Serializer::Pickle };
            foreign.finished(&mut answer, end, ttl, result::return_value(&end.result, serializer));
        }
        Some(end) if end.state == State::Cancelled => {
            foreign.cancelled(&mut answer, end, ttl("failure_ttl", DEFAULT_FAILURE_TTL.as_secs()));
        }
        Some(end) => {
            let ttl = ttl("failure_ttl", DEFAULT_FAILURE_TTL.as_secs());
            foreign.failed(&mut answer, end, ttl, owed.history.mishaps.last());
        }
    }
    answer.guard = Guard::Exists(keys::job(id));
    answer
}

/// How clients see a job as running, and how a cancelled one is known.
pub(crate) fn started(node: &NodeId, now: Timestamp) -> Mark {
    let now = iso::rq(now.to_utc());
    Mark {
        withdrawn: ("status", "canceled"),
        fields: vec![
            ("status", "started".to_owned()),
            ("started_at", now.clone()),
            ("last_heartbeat", now),
            ("worker_name", node.to_string()),
        ],
    }
}

/// A job in RQ's keys.
struct Foreign<'a> {
    id: &'a str,
    queue: &'a str,
}

impl Foreign<'_> {
    /// A result of no life deletes the job, as RQ does.
    fn finished(&self, to: &mut Answer, end: &End, ttl: i64, value: Option<String>) {
        if ttl == 0 {
            return to.command("DEL {} {}", &[&keys::job(self.id), &keys::results(self.id)]);
        }
        self.status(to, "finished", end);
        let stream = keys::results(self.id);
        match value {
            Some(value) => to.command(ADD_RESULT, &[&stream, &value]),
            None => to.command(ADD_NOTHING, &[&stream]),
        }
        self.keep(to, "finished", end, ttl, "+inf");
    }

    /// RQ enters a cancelled job in its registry with the time of the cancellation.
    fn cancelled(&self, to: &mut Answer, end: &End, ttl: i64) {
        self.status(to, "canceled", end);
        let at = end.at.to_utc().timestamp();
        self.enter(to, keys::registry("canceled", self.queue), at.to_string());
        if ttl >= 0 {
            to.command("EXPIRE {} {}", &[&keys::job(self.id), &ttl.to_string()]);
        }
    }

    fn failed(&self, to: &mut Answer, end: &End, ttl: i64, mishap: Option<&Mishap>) {
        self.status(to, "failed", end);
        let exception = result::exc_string(&exc_info(mishap));
        to.command(ADD_FAILURE, &[&keys::results(self.id), &exception]);
        // RQ's own registry of failed jobs holds the -1 of "for ever" as it is.
        self.keep(to, "failed", end, ttl, "-1");
    }

    fn status(&self, to: &mut Answer, status: &str, end: &End) {
        let at = iso::rq(end.at.to_utc());
        let started = end.started.map_or_else(String::new, |started| iso::rq(started.to_utc()));
        let worker = end.node.as_ref().map_or("", |node| node.as_str());
        to.command(
            "HSET {} status {} started_at {} ended_at {} last_heartbeat {} worker_name {}",
            &[&keys::job(self.id), &status, &started, &at, &at, &worker],
        );
    }

    fn enter(&self, to: &mut Answer, registry: String, score: String) {
        to.places.push(Place { key: registry, score, member: self.id.to_owned() });
    }

    /// Bounds the life of the hash and the stream and enters the job in its registry; a negative life has no end.
    /// RQ's workers clear what is past its time out of the registries now and then; so do we, whenever we enter something.
    fn keep(&self, to: &mut Answer, registry: &str, end: &End, ttl: i64, for_ever: &str) {
        let registry = keys::registry(registry, self.queue);
        let now = end.at.to_utc().timestamp();
        let until = if ttl < 0 { for_ever.to_owned() } else { (now + ttl).to_string() };
        to.once("ZREMRANGEBYSCORE {} 0 {}", &[&registry, &now.to_string()]);
        self.enter(to, registry, until);
        for key in [keys::job(self.id), keys::results(self.id)] {
            if ttl < 0 {
                to.command("PERSIST {}", &[&key]);
            } else {
                to.command("EXPIRE {} {}", &[&key, &ttl.to_string()]);
            }
        }
    }
}

/// The end of a Python traceback, which is what people and tools look for in `exc_info`.
fn exc_info(mishap: Option<&Mishap>) -> String {
    let Some(mishap) = mishap else { return "RuntimeError: the job ended without a word\n".to_owned() };
    let detail = mishap.detail.as_deref().map(|detail| format!("  {}\n", detail.trim_end().replace('\n', "\n  ")));
    format!("Traceback (most recent call last):\n{}{}: {}\n", detail.unwrap_or_default(), mishap.name, mishap.message)
}
