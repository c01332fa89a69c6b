//! A command of a Celery client on the channel of remote control: whom it is for, what it asks, where its reply goes.

use serde_json::{Map, Value, json};

use super::envelope;
use super::keys;
use super::post;
use crate::intake::limits::Limits;
use crate::intake::pyjson::{Dialect, dumps, loads};
use crate::job::glob;

/// A list that is called after a client is no longer than this.
const LONGEST: usize = 200;

/// A command for this worker.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) arguments: Map<String, Value>,
    /// The client's logical clock.
    pub(super) clock: u64,
    ticket: Value,
    /// The client that waits for a reply.
    client: Option<String>,
}

/// What a message on the channel is to this worker.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    Command(Request),
    /// It is for other workers.
    NotForUs,
}

/// Reads a message.
///
/// # Errors
/// Why it is no command, in words.
pub(super) fn read(message: &[u8], worker: &str, limits: &Limits) -> Result<Heard, String> {
    let envelope = match loads(message, Dialect::Plain, limits) {
        Ok(Value::Object(envelope)) => envelope,
        Ok(_) => return Err("it is JSON, but not an object".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let body = envelope::body(&envelope, limits).map_err(|error| error.to_string())?;
    let method = body.get("method").and_then(Value::as_str).ok_or("it names no method")?;
    if !is_for(worker, &body) {
        return Ok(Heard::NotForUs);
    }
    let arguments = match body.get("arguments") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(arguments)) => arguments.clone(),
        Some(_) => return Err("its arguments are not an object".to_owned()),
    };
    let reply_to = body.get("reply_to");
    let part = |name: &str| reply_to.and_then(|reply| reply.get(name)).and_then(Value::as_str);
    let client = part("routing_key").filter(|key| !key.is_empty() && key.len() <= LONGEST);
    let clock = envelope.get("headers").and_then(|headers| headers.get("clock")).and_then(Value::as_u64);
    Ok(Heard::Command(Request {
        method: method.to_owned(),
        arguments,
        clock: clock.unwrap_or(0),
        ticket: body.get("ticket").cloned().unwrap_or_default(),
        client: client.filter(|_| part("exchange") == Some(keys::REPLIES)).map(str::to_owned),
    }))
}

/// Whether this worker is among those that the client means. A pattern that is no glob (`pcre`) means nobody here: what
/// cannot be decided must not be obeyed.
fn is_for(worker: &str, body: &Value) -> bool {
    let text = |name: &str| body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    match body.get("destination") {
        Some(Value::Array(workers)) if !workers.is_empty() => workers.iter().any(|name| name.as_str() == Some(worker)),
        Some(Value::String(name)) => name == worker,
        _ => match (text("pattern"), text("matcher")) {
            (Some(pattern), Some("glob")) => glob(pattern, worker),
            (Some(_), Some(_)) => false,
            _ => true,
        },
    }
}

impl Request {
    /// The list of the client that waits for a reply, and the message for it.
    pub(super) fn reply(&self, worker: &str, value: &Value, clock: u64) -> Option<(String, String)> {
        let client = self.client.as_deref()?;
        let body = dumps(&json!({ worker: value }), Dialect::Kombu);
        let headers = json!({"ticket": self.ticket, "clock": clock});
        Some((keys::replies(client), post::envelope(&body, &headers, keys::REPLIES, client)))
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.arguments.get(name).and_then(Value::as_str)
    }

    /// A whole number; command lines send it as a text.
    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        let value = self.arguments.get(name)?;
        value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
    }

    /// A number, which may be given as a text too.
    pub(super) fn number(&self, name: &str) -> Option<f64> {
        let value = self.arguments.get(name)?;
        value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        match self.arguments.get(name) {
            Some(Value::Bool(yes)) => *yes,
            Some(Value::String(text)) => matches!(text.to_ascii_lowercase().as_str(), "true" | "yes" | "1" | "on"),
            Some(Value::Number(number)) => number.as_i64() == Some(1),
            _ => false,
        }
    }

    /// One text or a list of them.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        match self.arguments.get(name) {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(items)) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(body: &Value) -> Result<Heard, String> {
        let message = post::envelope(&body.to_string(), &json!({"clock": 55, "expires": 0}), "celery.pidbox", "");
        read(message.as_bytes(), "celery@vps-1", &Limits::default())
    }

    #[test]
    fn a_command_is_for_those_that_it_names() {
        let asked = |more: Value| {
            let mut body = json!({"method": "ping", "arguments": {}});
            body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            matches!(command(&body), Ok(Heard::Command(_)))
        };
        assert!(asked(json!({"destination": null, "pattern": null, "matcher": null})));
        assert!(asked(json!({"destination": ["other@host", "celery@vps-1"]})));
        assert!(!asked(json!({"destination": ["other@host"]})));
        assert!(asked(json!({"pattern": "celery@*", "matcher": "glob"})));
        assert!(!asked(json!({"pattern": "web@*", "matcher": "glob"})));
        assert!(!asked(json!({"pattern": "celery@.*", "matcher": "pcre"})));
    }

    #[test]
    fn a_reply_goes_to_the_list_of_its_client() {
        let body = json!({
            "method": "ping", "arguments": {}, "ticket": "t1",
            "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "c1"}
        });
        let Ok(Heard::Command(request)) = command(&body) else { panic!("it is a command") };
        assert_eq!(request.clock, 55);
        let (list, message) = request.reply("celery@vps-1", &json!({"ok": "pong"}), 56).expect("somebody waits");
        assert_eq!(list, "c1.reply.celery.pidbox");
        let message: Value = serde_json::from_str(&message).expect("JSON");
        assert_eq!(message["headers"], json!({"ticket": "t1", "clock": 56}));
        let Ok(Heard::Command(request)) = command(&json!({"method": "shutdown"})) else { panic!("it is a command") };
        assert_eq!(request.reply("celery@vps-1", &Value::Null, 1), None);
    }

    #[test]
    fn what_is_no_command_says_why() {
        let read = |message: &[u8]| read(message, "w", &Limits::default());
        assert!(read(b"\xff\xfe").is_err());
        assert!(read(b"[]").is_err());
        assert!(read(b"{}").is_err());
        assert_eq!(command(&json!({"arguments": {}})), Err("it names no method".to_owned()));
        assert!(command(&json!({"method": "ping", "arguments": [1]})).is_err());
    }
}
