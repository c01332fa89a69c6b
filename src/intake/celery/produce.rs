//! The list element that a Celery 5.4 producer writes, byte for byte: for what follows a task, for `jobsd demo` and for
//! tests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::message::Embed;
use crate::intake::pyjson::{Dialect, dumps};
use crate::intake::pyrepr;

/// What `task.apply_async(args, kwargs, …)` sends.
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
    pub(crate) options: CallOptions<'a>,
}

/// What a producer may say besides; the default is what it says by itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallOptions<'a> {
    pub(crate) embed: Embed,
    pub(crate) shadow: Option<&'a str>,
    /// ISO 8601, as Python writes it.
    pub(crate) eta: Option<String>,
    pub(crate) expires: Option<String>,
    /// How many milliseconds from now `expires` is; nobody acts on it.
    pub(crate) expiration: Option<i64>,
    pub(crate) group: Option<&'a str>,
    pub(crate) group_index: Option<i64>,
    pub(crate) retries: u64,
    /// Hard and soft, in seconds, or null.
    pub(crate) time_limits: [Value; 2],
    /// `None`: the task itself.
    pub(crate) root_id: Option<&'a str>,
    pub(crate) parent_id: Option<&'a str>,
    pub(crate) argsrepr: Option<&'a str>,
    pub(crate) kwargsrepr: Option<&'a str>,
    pub(crate) ignore_result: bool,
    pub(crate) replaced_task_nesting: u64,
    pub(crate) stamped_headers: Value,
    pub(crate) stamps: Map<String, Value>,
    /// Headers of the application's own.
    pub(crate) headers: Map<String, Value>,
    pub(crate) priority: i64,
}

impl Call<'_> {
    /// The element to LPUSH to the queue's list.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Embed { callbacks, errbacks, chain, chord } = &self.options.embed;
        let embed = json!({"callbacks": callbacks, "errbacks": errbacks, "chain": chain, "chord": chord});
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
        let more = &self.options;
        let print = |given: Option<&str>, made: fn(&Self) -> String| given.map_or_else(|| made(self), str::to_owned);
        let mut headers = json!({
            "lang": "py",
            "task": self.task,
            "id": self.id,
            "shadow": more.shadow,
            "eta": more.eta,
            "expires": more.expires,
            "group": more.group,
            "group_index": more.group_index,
            "retries": more.retries,
            "timelimit": more.time_limits,
            "root_id": more.root_id.unwrap_or(self.id),
            "parent_id": more.parent_id,
            "argsrepr": print(more.argsrepr, |call| pyrepr::celery_args(call.args)),
            "kwargsrepr": print(more.kwargsrepr, |call| pyrepr::celery_kwargs(call.kwargs)),
            "origin": self.origin,
            "ignore_result": more.ignore_result,
            "replaced_task_nesting": more.replaced_task_nesting,
            "stamped_headers": more.stamped_headers,
            "stamps": more.stamps,
        });
        for (name, value) in &more.headers {
            headers[name] = value.clone();
        }
        headers
    }

    fn properties(&self) -> Value {
        let mut properties = Map::new();
        let mut property = |name: &str, value: Value| properties.insert(name.to_owned(), value);
        property("correlation_id", self.id.into());
        property("reply_to", self.reply_to.into());
        property("delivery_mode", 2.into());
        if let Some(millis) = self.options.expiration {
            property("expiration", millis.to_string().into());
        }
        property("delivery_info", json!({"exchange": "", "routing_key": self.queue}));
        property("priority", self.options.priority.into());
        property("body_encoding", "base64".into());
        property("delivery_tag", self.delivery_tag.into());
        Value::Object(properties)
    }
}
