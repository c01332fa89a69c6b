//! The values an attempt's templates see: the arguments by name, and `vars`, `steps`, `now`, `job`.
//!
//! Values that JSON cannot hold stay tagged objects here; each handler knows what its target makes of them.

use serde_json::{Map, Value, json};

use super::Attempt;
use crate::job::Timestamp;

/// One attempt's values. The reserved names win over arguments of the same name.
#[derive(Debug)]
pub(super) struct Context {
    args: Map<String, Value>,
    values: Value,
}

impl Context {
    /// Optional arguments that are missing get their declared defaults.
    pub(super) fn new(attempt: &Attempt<'_>, vars: &Value, now: Timestamp) -> Self {
        let mut args = attempt.job.args.clone();
        for param in &attempt.task.params {
            if !args.contains_key(&param.name) {
                args.insert(param.name.clone(), param.default.clone());
            }
        }
        let mut values = args.clone();
        values.insert("vars".into(), vars.clone());
        values.insert("steps".into(), Value::Array(attempt.steps.results()));
        values.insert("now".into(), json!(now.to_string()));
        values.insert(
            "job".into(),
            json!({"id": attempt.job.id, "queue": attempt.job.queue, "attempt": attempt.attempt}),
        );
        Self { args, values: Value::Object(values) }
    }

    /// What templates are rendered with.
    pub(super) fn values(&self) -> &Value {
        &self.values
    }

    /// The arguments alone.
    pub(super) fn args(&self) -> &Map<String, Value> {
        &self.args
    }

    pub(super) fn finish_step(&mut self, result: Value) {
        if let Some(steps) = self.values["steps"].as_array_mut() {
            steps.push(result);
        }
    }

    /// Null before the first step has ended.
    pub(super) fn last_result(&self) -> Value {
        self.values["steps"].as_array().and_then(|steps| steps.last()).cloned().unwrap_or_default()
    }
}
