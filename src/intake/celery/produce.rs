//! The list element that a Celery 5.4 producer writes, byte for byte; for `jobsd demo` and for tests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::intake::pyjson::{Dialect, dumps};
use crate::intake::pyrepr;

/// What `task.apply_async(args, kwargs)` sends, with the producer's defaults for everything else.
#[derive(Debug, Clone)]
pub(crate) struct Call<'a> {
    pub(crate) task: &'a str,
    pub(crate) args: &'a [Value],
    pub(crate) kwargs: &'a Map<String, Value>,
    /// The task's id, a UUID in real producers.
    pub(crate) id: &'a str,
    pub(crate) queue: &'a str,
    /// Who sends it, `gen<pid>@<host>`.
    pub(crate) origin: &'a str,
    /// The producer's own id for replies, which the Redis backend does not use.
    pub(crate) reply_to: &'a str,
    /// A UUID of this delivery.
    pub(crate) delivery_tag: &'a str,
}

impl Call<'_> {
    /// The element to LPUSH to the queue's list.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let embed = json!({"callbacks": null, "errbacks": null, "chain": null, "chord": null});
        let body = dumps(&json!([self.args, self.kwargs, embed]), Dialect::Kombu);
        let envelope = json!({
            "body": STANDARD.encode(body),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": self.headers(),
            "properties": self.properties(),
        });
        dumps(&envelope, Dialect::Plain).into_bytes()
    }

    fn headers(&self) -> Value {
        json!({
            "lang": "py",
            "task": self.task,
            "id": self.id,
            "shadow": null,
            "eta": null,
            "expires": null,
            "group": null,
            "group_index": null,
            "retries": 0,
            "timelimit": [null, null],
            "root_id": self.id,
            "parent_id": null,
            "argsrepr": pyrepr::celery_args(self.args),
            "kwargsrepr": pyrepr::celery_kwargs(self.kwargs),
            "origin": self.origin,
            "ignore_result": false,
            "replaced_task_nesting": 0,
            "stamped_headers": null,
            "stamps": {},
        })
    }

    fn properties(&self) -> Value {
        json!({
            "correlation_id": self.id,
            "reply_to": self.reply_to,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": self.queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": self.delivery_tag,
        })
    }
}
