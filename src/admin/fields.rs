//! The fields of a request's body or query: each read as what it must be, every mistake named with its place.
//!
//! A body is an object and its places are JSON pointers; a query has texts only, and its places are `?name`.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use chrono::DateTime;
use serde_json::{Map, Value};

use super::entry::{nearest, quoted};
use super::problem::{FieldError, Problem};
use super::routes::percent_decoded;
use crate::config::Config;
use crate::job::{QueueName, Timestamp};

/// Mistakes reported of one request; the first ones say enough.
const ERRORS: usize = 50;

/// What is read, and what was wrong so far.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    object: Cow<'a, Map<String, Value>>,
    /// What stands before a field's name in its place.
    mark: char,
    errors: Vec<FieldError>,
}

impl<'a> Fields<'a> {
    /// The fields of a body, which may be left out as a whole. `what` has these fields and no others.
    pub(super) fn of_body(body: Option<&'a Value>, what: &str, known: &[&str]) -> Result<Self, Problem> {
        let object = match body {
            None | Some(Value::Null) => Cow::Owned(Map::new()),
            Some(Value::Object(object)) => Cow::Borrowed(object),
            Some(_) => {
                let detail = format!("the body must be an object: {what} has the fields {}", known.join(", "));
                return Err(Problem::invalid(vec![FieldError { pointer: String::new(), detail }]));
            }
        };
        let mut fields = Self { object, mark: '/', errors: Vec::new() };
        fields.refuse_unknown(what, known);
        Ok(fields)
    }

    pub(super) fn of_query(query: Option<&str>, what: &str, known: &[&str]) -> Self {
        let mut fields = Self { object: Cow::Owned(Map::new()), mark: '?', errors: Vec::new() };
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = |text: &str| percent_decoded(&text.replace('+', " "));
            let (Some(name), Some(value)) = (decoded(name), decoded(value)) else {
                fields.wrong(name, "the query is not UTF-8");
                continue;
            };
            if fields.object.contains_key(&name) {
                fields.wrong(&name, format!("{} is given twice", quoted(&name)));
            }
            // `state=` is as good as leaving it out: forms send what was not filled in.
            if !value.is_empty() || !known.contains(&name.as_str()) {
                fields.object.to_mut().insert(name, Value::String(value));
            }
        }
        fields.refuse_unknown(what, known);
        fields
    }

    fn refuse_unknown(&mut self, what: &str, known: &[&str]) {
        let unknown: Vec<String> =
            self.object.keys().filter(|name| !known.contains(&name.as_str())).take(ERRORS).cloned().collect();
        for name in unknown {
            let detail = match nearest(&name, known.iter().copied()) {
                Some(near) => format!("{what} has no field {}; did you mean {near:?}?", quoted(&name)),
                None => format!("{what} has no field {}; it has {}", quoted(&name), known.join(", ")),
            };
            self.wrong(&name, detail);
        }
    }

    pub(super) fn wrong(&mut self, field: &str, detail: impl Into<String>) {
        if self.errors.len() < ERRORS {
            let name = field.replace('~', "~0").replace('/', "~1");
            self.errors.push(FieldError { pointer: format!("{}{name}", self.mark), detail: detail.into() });
        }
    }

    /// Something is wrong with what a field holds under this name.
    pub(super) fn wrong_in(&mut self, field: &str, name: &str, detail: impl Into<String>) {
        let before = self.errors.len();
        self.wrong(name, detail);
        for error in &mut self.errors[before..] {
            error.pointer.insert_str(0, &format!("/{field}"));
        }
    }

    /// Something is wrong with the whole.
    pub(super) fn all_wrong(&mut self, detail: impl Into<String>) {
        self.errors.push(FieldError { pointer: String::new(), detail: detail.into() });
    }

    /// The value of a field. `null` is as good as leaving it out.
    pub(super) fn value(&self, field: &str) -> Option<&Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, field: &str, example: &str) -> Option<String> {
        match self.value(field)? {
            Value::String(text) => Some(text.clone()),
            _ => {
                self.wrong(field, format!("{field:?} must be a text, like {example:?}"));
                None
            }
        }
    }

    /// One text or several: an array in a body, with commas in a query.
    pub(super) fn texts(&mut self, field: &str, example: &str) -> Vec<String> {
        let all: Option<Vec<String>> = match self.value(field) {
            None => return Vec::new(),
            Some(Value::String(text)) => Some(text.split(',').map(|part| part.trim().to_owned()).collect()),
            Some(Value::Array(items)) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
            Some(_) => None,
        };
        let fits = all.filter(|all| !all.is_empty());
        if fits.is_none() {
            self.wrong(field, format!("{field:?} must be a text, like {example:?}, or an array of such"));
        }
        fits.unwrap_or_default()
    }

    pub(super) fn flag(&mut self, field: &str) -> Option<bool> {
        match self.value(field)? {
            Value::Bool(flag) => Some(*flag),
            _ => {
                self.wrong(field, format!("{field:?} must be true or false"));
                None
            }
        }
    }

    pub(super) fn count(&mut self, field: &str, range: RangeInclusive<u64>) -> Option<usize> {
        let given = match self.value(field)? {
            Value::String(digits) if self.mark == '?' => digits.parse().ok(),
            value => value.as_u64(),
        };
        let count = given.filter(|count| range.contains(count));
        if count.is_none() {
            self.wrong(field, format!("{field:?} must be a whole number from {} to {}", range.start(), range.end()));
        }
        count.and_then(|count| usize::try_from(count).ok())
    }

    /// An instant, or how long ago it was.
    pub(super) fn instant(&mut self, field: &str, now: Timestamp) -> Option<Timestamp> {
        let text = self.text(field, "2026-12-24T18:00:00Z")?;
        if let Ok(span) = humantime::parse_duration(&text) {
            return Some(now.before(span));
        }
        // A plus that stood bare in a query has become a space.
        let at = DateTime::parse_from_rfc3339(&text.replace(' ', "+"));
        if at.is_err() {
            let examples = "2026-12-24T18:00:00Z, or 2h for two hours ago";
            self.wrong(
                field,
                format!("{} is neither an RFC 3339 time nor a duration; write {examples}", quoted(&text)),
            );
        }
        at.ok().map(|at| Timestamp::from_millis(u64::try_from(at.timestamp_millis()).unwrap_or(0)))
    }

    pub(super) fn queue(&mut self, config: &Config) -> Option<QueueName> {
        let name = self.text("queue", "emails")?;
        let queue = config.queues.get(name.as_str()).map(|queue| queue.name.clone());
        if queue.is_none() {
            self.wrong("queue", no_queue(config, &name));
        }
        queue
    }

    pub(super) fn is_sound(&self) -> bool {
        self.errors.is_empty()
    }

    /// Everything that was wrong, if anything was.
    pub(super) fn done(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors)) }
    }
}

/// That there is no such queue, and which one was probably meant.
pub(super) fn no_queue(config: &Config, name: &str) -> String {
    let near = nearest(name, config.queues.keys().map(QueueName::as_str));
    let hint = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
    format!("no queue is called {}{hint}", quoted(name))
}

/// That there is no such task, and which one was probably meant.
pub(super) fn no_task(config: &Config, name: &str) -> String {
    let near = nearest(name, config.tasks.keys().map(|task| task.as_str()));
    let hint = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
    format!("no task is called {}{hint}", quoted(name))
}
