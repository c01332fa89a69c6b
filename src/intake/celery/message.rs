//! A Celery task message: one element of a queue's list, read into what a job needs.
//!
//! Message protocol 2; one of protocol 1 is turned into it, as Celery's own worker does. The result of a message may have to
//! be written, and it may have to be published again for a retry, so what is not understood here is kept as it came.

use std::time::Duration;

use serde_json::{Map, Value};

use super::envelope::{self, BodyError};
use super::refusal::Refusal;
use super::result::Exception;
use crate::intake::iso::Stamp;
use crate::intake::limits::Limits;
use crate::intake::pyjson::{Dialect, loads};
use crate::intake::tagged::tagged;

/// A task message that can become a job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) task: String,
    /// Replaces the task's name where people see it, never where it is looked up.
    pub(crate) shadow: Option<String>,
    /// Values as [`crate::intake::tagged`] holds them.
    pub(crate) args: Vec<Value>,
    pub(crate) kwargs: Map<String, Value>,
    pub(crate) embed: Embed,
    /// How often the task has been retried before.
    pub(crate) retries: u32,
    /// Not before this time: milliseconds since 1970 in UTC. A time without an offset is taken as UTC.
    pub(crate) eta_ms: Option<i64>,
    /// Not after this time; the same clock.
    pub(crate) expires_ms: Option<i64>,
    pub(crate) time_limit: TimeLimit,
    /// The client wants no result written. Its part of a chord is still due.
    pub(crate) ignore_result: bool,
    pub(crate) group: Option<String>,
    pub(crate) group_index: Option<i64>,
    pub(crate) root_id: Option<String>,
    pub(crate) parent_id: Option<String>,
    pub(crate) reply_to: Option<String>,
    pub(crate) correlation_id: Option<String>,
    /// 0 is served first and is the default.
    pub(crate) priority: u8,
    /// The queue it was sent to, which is where a retry goes.
    pub(crate) routing_key: Option<String>,
    pub(crate) delivery_tag: Option<String>,
    /// A Python worker has had it before.
    pub(crate) redelivered: bool,
    /// The producer's print of the arguments, for events.
    pub(crate) argsrepr: Option<String>,
    pub(crate) kwargsrepr: Option<String>,
    pub(crate) origin: Option<String>,
    /// All headers as they came, custom ones among them.
    pub(crate) headers: Map<String, Value>,
}

impl Message {
    /// The priority of the list that it belongs into: Celery on Redis has four of them, and in each the order of arrival.
    pub(crate) fn priority_step(&self) -> u8 {
        self.priority.min(9) / 3 * 3
    }
}

/// What is due when the task ends: signatures, as they came. `null` is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Embed {
    pub(crate) callbacks: Value,
    pub(crate) errbacks: Value,
    /// In reverse order; the last task of a chain carries an empty list.
    pub(crate) chain: Value,
    pub(crate) chord: Value,
}

/// The producer's limits on the run time; `None` leaves it to the task.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct TimeLimit {
    pub(crate) hard: Option<Duration>,
    pub(crate) soft: Option<Duration>,
}

impl TimeLimit {
    /// The one that ends the run. A limit of nothing is none.
    pub(crate) fn shortest(self) -> Option<Duration> {
        [self.hard, self.soft].into_iter().flatten().filter(|limit| *limit > Duration::ZERO).min()
    }

    /// Whether that is the one at which a task may still clean up, which only its exception tells.
    pub(crate) fn is_soft(self) -> bool {
        self.shortest().is_some_and(|limit| self.soft == Some(limit) && self.hard != Some(limit))
    }
}

/// Reads one list element. The refusal says whose message it was, as far as that could be read.
pub(crate) fn decode(element: &[u8], limits: &Limits) -> Result<Message, Box<Refusal>> {
    let mut envelope = match loads(element, Dialect::Plain, limits) {
        Ok(Value::Object(envelope)) => envelope,
        Ok(_) => {
            return Err(nameless("the list element is not a Celery message: it is JSON, but not an object"));
        }
        Err(error) => {
            return Err(nameless(&format!("the list element is not a Celery message: {error}")));
        }
    };
    let of_protocol_1 = super::protocol_1::upgrade(&mut envelope, limits);
    let Some(head) = Head::read(&envelope) else {
        return Err(nameless("the message names no task in its headers, so it is not a Celery task message"));
    };
    let Some(id) = head.text("id") else {
        return Err(head.refuse("the message has no id; send it with a Celery client".to_owned()));
    };
    let body = match of_protocol_1 {
        Some(body) => body,
        None => envelope::body(&envelope, limits).map_err(|error| head.refuse_body(&error))?,
    };
    let body = Body::read(body).map_err(|reason| head.refuse(reason.to_owned()))?;
    let retries = head.count("retries")?;
    let eta_ms = head.instant("eta")?;
    let expires_ms = head.instant("expires")?;
    let time_limit = head.time_limit()?;
    let properties = Fields(envelope.get("properties").and_then(Value::as_object));
    let delivery = Fields(properties.get("delivery_info").and_then(Value::as_object));
    let mut message = Message {
        id,
        task: head.task.clone(),
        shadow: head.text("shadow"),
        args: body.args,
        kwargs: body.kwargs,
        embed: body.embed,
        retries,
        eta_ms,
        expires_ms,
        time_limit,
        ignore_result: head.ignore_result(),
        group: head.text("group"),
        group_index: head.headers.get("group_index").and_then(Value::as_i64),
        root_id: head.text("root_id"),
        parent_id: head.text("parent_id"),
        reply_to: properties.text("reply_to"),
        correlation_id: properties.text("correlation_id"),
        priority: properties.get("priority").and_then(Value::as_i64).unwrap_or(0).clamp(0, 255) as u8,
        routing_key: delivery.text("routing_key"),
        delivery_tag: properties.text("delivery_tag"),
        redelivered: delivery.get("redelivered").is_some_and(|value| *value == Value::Bool(true)),
        argsrepr: head.text("argsrepr"),
        kwargsrepr: head.text("kwargsrepr"),
        origin: head.text("origin"),
        headers: Map::new(),
    };
    if let Some(Value::Object(headers)) = envelope.get_mut("headers") {
        message.headers = std::mem::take(headers);
    }
    Ok(message)
}

/// The headers of a message that names its task.
struct Head<'a> {
    task: String,
    headers: &'a Map<String, Value>,
}

impl<'a> Head<'a> {
    fn read(envelope: &'a Map<String, Value>) -> Option<Self> {
        let headers = envelope.get("headers")?.as_object()?;
        let task = headers.get("task")?.as_str()?.to_owned();
        Some(Self { task, headers })
    }

    fn text(&self, name: &str) -> Option<String> {
        Fields(Some(self.headers)).text(name)
    }

    fn ignore_result(&self) -> bool {
        self.headers.get("ignore_result").is_some_and(|value| *value == Value::Bool(true))
    }

    /// An ISO time; absent, null and empty are none, as for Celery.
    fn instant(&self, name: &str) -> Result<Option<i64>, Box<Refusal>> {
        match self.headers.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(other) => {
                let millis = other.as_str().and_then(Stamp::parse).and_then(Stamp::unix_millis);
                millis.map(Some).ok_or_else(|| self.bad_header(name, other, "an ISO 8601 time"))
            }
        }
    }

    fn count(&self, name: &str) -> Result<u32, Box<Refusal>> {
        match self.headers.get(name) {
            None | Some(Value::Null) => Ok(0),
            Some(other) => {
                let count = other.as_u64().and_then(|count| u32::try_from(count).ok());
                count.ok_or_else(|| self.bad_header(name, other, "a count"))
            }
        }
    }

    /// `[hard, soft]` in seconds, each of them or all of it null.
    fn time_limit(&self) -> Result<TimeLimit, Box<Refusal>> {
        let limits = match self.headers.get("timelimit") {
            None | Some(Value::Null) => return Ok(TimeLimit::default()),
            Some(limits) => limits,
        };
        let bad = || self.bad_header("timelimit", limits, "a pair of seconds");
        let [hard, soft] = limits.as_array().map(Vec::as_slice).unwrap_or_default() else {
            return Err(bad());
        };
        let seconds = |limit: &Value| match limit {
            Value::Null => Ok(None),
            other => {
                let seconds = other.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                seconds.map(Some).ok_or_else(bad)
            }
        };
        Ok(TimeLimit { hard: seconds(hard)?, soft: seconds(soft)? })
    }

    fn bad_header(&self, name: &str, value: &Value, expected: &str) -> Box<Refusal> {
        let shown: String = value.to_string().chars().take(100).collect();
        self.refuse(format!("the header {name} is {shown}, which is not {expected}; send it with a Celery client"))
    }

    fn refuse_body(&self, error: &BodyError) -> Box<Refusal> {
        let mut refusal = self.refuse(error.to_string());
        if let BodyError::ContentType(content_type) = error {
            refusal.exception = Exception::content_disallowed(content_type);
        }
        refusal
    }

    fn refuse(&self, reason: String) -> Box<Refusal> {
        Box::new(Refusal {
            id: self.text("id"),
            task: Some(self.task.clone()),
            group: self.text("group"),
            parent_id: self.text("parent_id"),
            ignore_result: self.ignore_result(),
            ..Refusal::nameless(reason)
        })
    }
}

/// Named values that may not be there at all.
#[derive(Clone, Copy)]
struct Fields<'a>(Option<&'a Map<String, Value>>);

impl<'a> Fields<'a> {
    fn get(self, name: &str) -> Option<&'a Value> {
        self.0?.get(name)
    }

    fn text(self, name: &str) -> Option<String> {
        self.get(name).and_then(Value::as_str).map(str::to_owned)
    }
}

fn nameless(reason: &str) -> Box<Refusal> {
    Box::new(Refusal::nameless(reason.to_owned()))
}

/// `[args, kwargs, embed]`.
struct Body {
    args: Vec<Value>,
    kwargs: Map<String, Value>,
    embed: Embed,
}

impl Body {
    fn read(body: Value) -> Result<Self, &'static str> {
        let parts = match body {
            Value::Array(parts) => <[Value; 3]>::try_from(parts).ok(),
            _ => None,
        };
        let Some([args, kwargs, embed]) = parts else {
            return Err("the body is not [args, kwargs, embed]; send it with a Celery client");
        };
        if tagged(&kwargs).is_some() {
            return Err("the keyword arguments have names that no Python function can have");
        }
        match (args, kwargs, embed) {
            (Value::Array(args), Value::Object(kwargs), embed @ (Value::Object(_) | Value::Null)) => {
                Ok(Self { args, kwargs, embed: Embed::read(&embed) })
            }
            (Value::Array(_), Value::Object(_), _) => {
                Err("the embedded signatures are not an object; send it with a Celery client")
            }
            (Value::Array(_), _, _) => Err("the keyword arguments are not an object; send it with a Celery client"),
            _ => Err("the positional arguments are not a list; send it with a Celery client"),
        }
    }
}

impl Embed {
    pub(super) fn read(embed: &Value) -> Self {
        let part = |name: &str| embed.get(name).cloned().unwrap_or_default();
        Self { callbacks: part("callbacks"), errbacks: part("errbacks"), chain: part("chain"), chord: part("chord") }
    }
}
