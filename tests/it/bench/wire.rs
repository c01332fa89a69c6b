//! Celery messages as the real producer writes them, for tests that need hundreds and no Python.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redis::Commands;
use serde_json::{Value, json};

/// The message of `app.send_task(task, kwargs=…, task_id=…)`; see tests/fixtures/wire/celery.
pub(crate) fn celery_message(task: &str, id: &str, kwargs: &Value) -> String {
    let embed = json!({"callbacks": null, "errbacks": null, "chain": null, "chord": null});
    envelope(task, id, "application/json", json!([[], kwargs, embed]).to_string().as_bytes())
}

pub(crate) fn envelope(task: &str, id: &str, content_type: &str, body: &[u8]) -> String {
    json!({
        "body": STANDARD.encode(body),
        "content-encoding": "utf-8",
        "content-type": content_type,
        "headers": {
            "lang": "py", "task": task, "id": id, "root_id": id, "parent_id": null, "group": null, "eta": null,
            "expires": null, "retries": 0, "timelimit": [null, null], "argsrepr": "()", "kwargsrepr": "{}",
            "origin": "gen1@test", "ignore_result": false,
        },
        "properties": {
            "correlation_id": id, "reply_to": random_id(), "delivery_mode": 2, "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": "jobs"}, "priority": 0, "delivery_tag": random_id(),
        },
    })
    .to_string()
}

/// Puts a Celery message for `task` into the list, as its producer does; returns the job's id.
pub(crate) fn push(connection: &mut redis::Connection, list: &str, task: &str, kwargs: &Value) -> String {
    let id = random_id();
    connection.lpush::<_, _, ()>(list, celery_message(task, &id, kwargs)).expect("Redis takes it");
    id
}

pub(crate) fn random_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
