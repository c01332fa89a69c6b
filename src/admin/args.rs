//! Stand-in for `config::bind`: the same signatures, a small part of the checks.

use serde_json::{Map, Value};

use crate::config::Task;
use crate::job::Args;

pub(super) const MASK: &str = "***";

const MARKS: [&str; 7] = ["password", "passwd", "secret", "token", "api_key", "authorization", "cookie"];

#[derive(Debug, thiserror::Error)]
pub(super) enum BindError {
    #[error("{task}() got an unexpected keyword argument '{name}'")]
    Unexpected { task: String, name: String },
    #[error("{task}() takes at most {most} arguments but {given} were given")]
    TooMany { task: String, most: usize, given: usize },
    #[error("{task}() missing 1 required positional argument: '{name}'")]
    Missing { task: String, name: String },
}

pub(super) fn bind(task: &Task, positional: &[Value], mut keyword: Map<String, Value>) -> Result<Args, BindError> {
    let name = || task.name.to_string();
    if positional.len() > task.params.len() {
        return Err(BindError::TooMany { task: name(), most: task.params.len(), given: positional.len() });
    }
    let mut args = Args::new();
    for (at, param) in task.params.iter().enumerate() {
        let value = match positional.get(at).cloned().or_else(|| keyword.remove(&param.name)) {
            Some(value) => value,
            None if param.required => return Err(BindError::Missing { task: name(), name: param.name.clone() }),
            None => param.default.clone(),
        };
        args.insert(param.name.clone(), value);
    }
    match keyword.keys().next() {
        Some(extra) => Err(BindError::Unexpected { task: name(), name: extra.clone() }),
        None => Ok(args),
    }
}

pub(super) fn mask(task: &Task, args: &Args) -> Args {
    let secret = |name: &str| task.params.iter().any(|param| param.secret && param.name == name);
    args.iter()
        .map(|(name, value)| (name.clone(), if secret(name) { MASK.into() } else { masked(name, value) }))
        .collect()
}

pub(super) fn masked(name: &str, value: &Value) -> Value {
    let lower = name.to_ascii_lowercase().replace('-', "_");
    match value {
        Value::Null => Value::Null,
        _ if MARKS.iter().any(|mark| lower.contains(mark)) => MASK.into(),
        Value::Object(map) => Value::Object(map.iter().map(|(key, inner)| (key.clone(), masked(key, inner))).collect()),
        Value::Array(items) => Value::Array(items.iter().map(|item| masked("", item)).collect()),
        plain => plain.clone(),
    }
}
