//! The job hash that an RQ 2.0 producer writes, byte for byte; for `jobsd demo` and for tests.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::job::Lapse;
use crate::intake::inflate::deflate;
use crate::intake::iso;
use crate::intake::pickle;
use crate::intake::pyrepr;

/// RQ cuts each argument of a description after this many characters.
const DESCRIBED: usize = 75;

/// What `queue.enqueue(func, *args, **kwargs)` stores, in the default serializer.
#[derive(Debug, Clone)]
pub(crate) struct Enqueue<'a> {
    pub(crate) func_name: &'a str,
    pub(crate) args: &'a [Value],
    pub(crate) kwargs: &'a Map<String, Value>,
    /// The queue's name.
    pub(crate) origin: &'a str,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) enqueued_at: DateTime<Utc>,
    pub(crate) timeout: Lapse,
    pub(crate) result_ttl: Option<Lapse>,
    pub(crate) failure_ttl: Option<Lapse>,
}

impl Enqueue<'_> {
    /// The fields to HSET, in RQ's order.
    pub(crate) fn encode(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut fields = vec![
            ("created_at", iso::rq(self.created_at).into_bytes()),
            ("data", deflate(&pickle::dumps_call(self.func_name, self.args, self.kwargs))),
        ];
        fields.extend(EMPTY.map(|name| (name, Vec::new())));
        fields.push(("origin", self.origin.into()));
        fields.push(("description", self.description().into_bytes()));
        fields.push(("enqueued_at", iso::rq(self.enqueued_at).into_bytes()));
        fields.push(("timeout", seconds(self.timeout)));
        fields.extend(self.result_ttl.map(|ttl| ("result_ttl", seconds(ttl))));
        fields.extend(self.failure_ttl.map(|ttl| ("failure_ttl", seconds(ttl))));
        fields.push(("status", b"queued".to_vec()));
        fields
    }

    /// The call as Python would write it, keyword arguments sorted.
    fn description(&self) -> String {
        let mut keywords: Vec<String> =
            self.kwargs.iter().map(|(name, value)| format!("{name}={}", described(value))).collect();
        keywords.sort();
        let args: Vec<String> = self.args.iter().map(described).chain(keywords).collect();
        format!("{}({})", self.func_name, args.join(", "))
    }
}

/// The fields that are still empty when a job is enqueued.
const EMPTY: [&str; 8] = [
    "success_callback_name",
    "failure_callback_name",
    "stopped_callback_name",
    "started_at",
    "ended_at",
    "last_heartbeat",
    "worker_name",
    "group_id",
];

fn described(value: &Value) -> String {
    let text = pyrepr::repr(value);
    match text.char_indices().nth(DESCRIBED) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

fn seconds(lapse: Lapse) -> Vec<u8> {
    lapse.seconds().to_string().into_bytes()
}
