//! The values an attempt's templates see: the arguments by name, and `vars`, `steps`, `now`, `job`.
//!
//! Values that JSON cannot hold stay tagged objects here; each handler knows what its target makes of them.

use std::borrow::Cow;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::Attempt;
use crate::config::{RenderError, ValueTemplate};
use crate::job::{Args, Job, Timestamp};

/// Values that every attempt has beside its arguments.
const RESERVED: [&str; 4] = ["vars", "steps", "now", "job"];

/// The instant of `now`, which the jobs of a batch share.
#[derive(Debug)]
pub(super) struct Now {
    at: Timestamp,
    text: OnceLock<String>,
}

impl Now {
    pub(super) fn new(at: Timestamp) -> Self {
        Self { at, text: OnceLock::new() }
    }

    fn text(&self) -> &str {
        self.text.get_or_init(|| self.at.to_string())
    }
}

/// One attempt's values. The reserved names win over arguments of the same name.
#[derive(Debug)]
pub(super) struct Context<'a> {
    job: &'a Job,
    attempt: u32,
    args: Cow<'a, Args>,
    vars: &'a Value,
    steps: Vec<Value>,
    now: &'a Now,
    /// All of them as one object, made when a template first needs that: most rows of a batch never do.
    values: OnceLock<Value>,
}

impl<'a> Context<'a> {
    /// Optional arguments that are missing get their declared defaults.
    pub(super) fn new(attempt: &Attempt<'a>, vars: &'a Value, now: &'a Now) -> Self {
        let mut args = Cow::Borrowed(&attempt.job.args);
        for param in &attempt.task.params {
            if !args.contains_key(&param.name) {
                args.to_mut().insert(param.name.clone(), param.default.clone());
            }
        }
        let (job, steps) = (attempt.job, attempt.steps.results());
        Self { job, attempt: attempt.attempt, args, vars, steps, now, values: OnceLock::new() }
    }

    /// What templates are rendered with.
    pub(super) fn values(&self) -> &Value {
        self.values.get_or_init(|| {
            let mut values = self.args.clone().into_owned();
            for name in RESERVED {
                values.insert(name.to_owned(), self.get(name).unwrap_or_default());
            }
            Value::Object(values)
        })
    }

    /// The arguments alone.
    pub(super) fn args(&self) -> &Args {
        &self.args
    }

    /// What the template gives for these values.
    pub(super) fn render(&self, template: &ValueTemplate) -> Result<Value, RenderError> {
        if let Some(value) = template.name().and_then(|name| self.get(name)) {
            return Ok(value);
        }
        // The key of a row, in batches of many.
        if template.is("job.id") {
            return Ok(json!(self.job.id));
        }
        template.render(if template.templates().is_empty() { &Value::Null } else { self.values() })
    }

    pub(super) fn finish_step(&mut self, result: Value) {
        self.steps.push(result);
        self.values.take();
    }

    /// Null before the first step has ended.
    pub(super) fn last_result(&self) -> Value {
        self.steps.last().cloned().unwrap_or_default()
    }

    fn get(&self, name: &str) -> Option<Value> {
        let Job { id, queue, .. } = self.job;
        match name {
            "vars" => Some(self.vars.clone()),
            "steps" => Some(Value::Array(self.steps.clone())),
            "now" => Some(json!(self.now.text())),
            "job" => Some(json!({"id": id, "queue": queue, "attempt": self.attempt})),
            argument => self.args.get(argument).cloned(),
        }
    }
}
