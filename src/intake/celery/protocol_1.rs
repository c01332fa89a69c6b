//! Message protocol 1, Celery's before version 4 and still a producer's `task_protocol = 1`: everything stands in the body.

use serde_json::{Map, Value, json};

use super::envelope;
use crate::intake::limits::Limits;

/// What protocol 2 has in its headers under the same name.
const HEADERS: [&str; 9] =
    ["task", "id", "root_id", "parent_id", "retries", "eta", "expires", "timelimit", "group_index"];

/// Gives an envelope of protocol 1 the headers of protocol 2; its body in the form of protocol 2. `None` for any other
/// envelope, which stays as it is.
pub(super) fn upgrade(envelope: &mut Map<String, Value>, limits: &Limits) -> Option<Value> {
    if envelope.get("headers").is_some_and(|headers| headers.get("task").is_some()) {
        return None;
    }
    let Ok(Value::Object(mut body)) = envelope::body(envelope, limits) else { return None };
    if !body.get("task").is_some_and(Value::is_string) || !body.contains_key("args") && !body.contains_key("kwargs") {
        return None;
    }
    let mut take = |name: &str| body.remove(name).unwrap_or_default();
    let embed =
        json!({"callbacks": take("callbacks"), "errbacks": take("errbacks"), "chain": null, "chord": take("chord")});
    let call = json!([or(take("args"), json!([])), or(take("kwargs"), json!({})), embed]);
    // A group was called a task set.
    let (set, group) = (take("taskset"), take("group"));
    let mut headers = match envelope.remove("headers") {
        Some(Value::Object(own)) => own,
        _ => Map::new(),
    };
    headers.extend(HEADERS.into_iter().map(|name| (name.to_owned(), take(name))));
    headers.insert("group".to_owned(), or(set, group));
    envelope.insert("headers".to_owned(), headers.into());
    Some(call)
}

fn or(value: Value, default: Value) -> Value {
    if value.is_null() { default } else { value }
}
