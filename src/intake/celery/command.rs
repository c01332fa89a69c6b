//! What a client of Celery can tell a worker to do, and what it is told of that: the answers of `celery control …` and
//! of Flower's buttons. Where jobsd does something in another way than Celery's worker, the answer says what was done.

use std::time::Duration;

use serde_json::{Value, json};

use super::ask::{Ask, Signal};
use super::front::Front;
use super::pool;
use super::rate;
use super::request::Request;
use crate::broker::{Altered, BrokerError, Change};
use crate::clock;
use crate::job::{JobId, TaskName};

/// Ids that one command may revoke.
const IDS: usize = 10_000;
/// Ids that are looked for in one go.
const TOGETHER: usize = 500;
/// Longest run of a task that a client may ask for.
const LONGEST_RUN: f64 = 86_400.0 * 30.0;

/// What became of a command.
pub(super) enum Done {
    Told(Value),
    /// The client is not answered: this worker shuts down.
    Bye,
    /// There is no such command.
    Unknown,
}

/// Does what a client says.
///
/// # Errors
/// [`BrokerError`] when Redis did not answer: how much was done is unknown.
pub(super) async fn obey(front: &Front, request: &Request) -> Result<Done, BrokerError> {
    Ok(Done::Told(match request.method.as_str() {
        "revoke" => revoke(front, request, request.flag("terminate"), "revoke").await?,
        "terminate" => revoke(front, request, true, "terminate").await?,
        "enable_events" => events(front, true),
        "disable_events" => events(front, false),
        // The sign of life is given by who hears the command.
        "heartbeat" => Value::Null,
        "time_limit" => time_limit(front, request),
        "rate_limit" => rate_limit(front, request),
        "add_consumer" => consume(front, request, true),
        "cancel_consumer" => consume(front, request, false),
        "pool_grow" => pool::grow(front, request),
        "pool_shrink" => pool::shrink(front, request),
        "autoscale" => pool::autoscale(front, request),
        "pool_restart" => nok("ValueError('Pool restarts not enabled')"),
        "shutdown" => return Ok(Done::Bye),
        _ => return Ok(Done::Unknown),
    }))
}

fn ok(words: &str) -> Value {
    json!({ "ok": words })
}

pub(super) fn nok(words: &str) -> Value {
    json!({ "error": words })
}

/// As Python says it.
fn missing(method: &str, name: &str) -> Value {
    nok(&format!("TypeError(\"{method}() missing 1 required positional argument: '{name}'\")"))
}

/// Ends jobs that wait, for good and on every node; refuses those that come; and, to terminate, ends those that run.
async fn revoke(front: &Front, request: &Request, terminate: bool, method: &str) -> Result<Value, BrokerError> {
    let ids = request.texts("task_id");
    if ids.is_empty() && !request.arguments.contains_key("task_id") {
        return Ok(missing(method, "task_id"));
    }
    if ids.len() > IDS {
        return Ok(nok(&format!("ValueError('revoke no more than {IDS} tasks at a time')")));
    }
    let signal = match request.text("signal") {
        None => Signal::default(),
        Some(name) => match Signal::parse(name) {
            Some(signal) => signal,
            None => return Ok(nok(&format!("ValueError('no such signal: {}')", plain(name)))),
        },
    };
    let now = clock::now();
    front.revoked.add(&front.broker.store, &ids, now).await;
    let ask = if terminate { Ask::Terminate(signal) } else { Ask::Revoke };
    let change = match ask {
        Ask::Terminate(_) => Change::Cancel(ask.request(now)),
        Ask::Revoke => Change::Withdraw(ask.request(now)),
    };
    let jobs: Vec<JobId> = ids.iter().filter_map(|id| JobId::parse(id).ok()).collect();
    let mut found = Vec::new();
    for queue in front.queues() {
        for some in jobs.chunks(TOGETHER) {
            let altered = front.broker.alter(&queue.name, some, &change, now).await?;
            let hit = |altered: &Altered| matches!(altered, Altered::Done(_) | Altered::Requested);
            let hits = some.iter().zip(&altered).filter(|(_, altered)| hit(altered));
            found.extend(hits.map(|(id, _)| id.to_string()));
        }
    }
    tracing::info!(tasks = ids.len(), ended = found.len(), "told by a Celery client: {ask:?}");
    Ok(match (terminate, found.as_slice()) {
        (false, _) => ok(&format!("tasks {} flagged as revoked", set(&ids))),
        (true, []) => ok("terminate: tasks unknown"),
        (true, found) => ok(&format!("terminate: {}", found.join(", "))),
    })
}

/// As Python prints a set of texts.
fn set(ids: &[String]) -> String {
    if ids.is_empty() {
        return "set()".to_owned();
    }
    let quoted: Vec<String> = ids.iter().map(|id| format!("'{}'", plain(id))).collect();
    format!("{{{}}}", quoted.join(", "))
}

/// Foreign text inside quotes of ours.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && !matches!(c, '\'' | '\\')).take(200).collect()
}

fn events(front: &Front, on: bool) -> Value {
    let before = front.events.want(on);
    if on {
        front.events.expect_listener();
    }
    front.listen_for_beginnings();
    let word = if on { "enabled" } else { "disabled" };
    if before != on {
        tracing::info!("events of tasks {word} by a Celery client");
    }
    ok(&if before == on { format!("task events already {word}") } else { format!("task events {word}") })
}

/// Holds for jobs that come from now on. There is one limit: what Celery calls the soft one is taken where the hard one
/// is not given, for nothing in a handler could act on it.
fn time_limit(front: &Front, request: &Request) -> Value {
    let Some(name) = request.text("task_name") else { return missing("time_limit", "task_name") };
    let Some(task) = task_named(front, name) else { return nok("unknown task") };
    let seconds = request.number("hard").or_else(|| request.number("soft"));
    let valid = |seconds: &f64| *seconds > 0.0 && *seconds <= LONGEST_RUN;
    if seconds.is_some_and(|seconds| !valid(&seconds)) {
        return nok("ValueError('a time limit is more than 0 and at most 2592000 seconds')");
    }
    let limit = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    front.limit_time(&task, limit);
    tracing::info!(%task, ?limit, "time limit set by a Celery client");
    ok("time limits set successfully")
}

/// Another rate than the configuration gives the task, until the next reload. Celery's holds for each worker; this one,
/// as every limit, for all nodes together.
fn rate_limit(front: &Front, request: &Request) -> Value {
    let Some(name) = request.text("task_name") else { return missing("rate_limit", "task_name") };
    let rate = match rate::read(request.arguments.get("rate_limit")) {
        Ok(rate) => rate,
        Err(words) => return nok(&words),
    };
    let Some(task) = task_named(front, name) else { return nok("unknown task") };
    let rates = Vec::from_iter(rate);
    if let Err(error) = front.config.load().with_rates(&task, &rates) {
        return nok(&error.to_string());
    }
    front.broker.limit_rate(&task, rates);
    match rate {
        Some(rate) => tracing::info!(%task, rate = rate::write(&rate), "rate limit set by a Celery client"),
        None => tracing::info!(%task, "rate limit ended by a Celery client"),
    }
    ok(if rate.is_some() { "new rate limit set successfully" } else { "rate limit disabled successfully" })
}

fn task_named(front: &Front, name: &str) -> Option<TaskName> {
    front.config.load().task_named(name).map(|task| task.name.clone())
}

/// Serves a list of the configuration again, or leaves it alone until it is told otherwise or starts anew.
fn consume(front: &Front, request: &Request, serve: bool) -> Value {
    let method = if serve { "add_consumer" } else { "cancel_consumer" };
    let Some(list) = request.text("queue") else { return missing(method, "queue") };
    let shown = plain(list);
    let known = front.lists().iter().any(|name| name == list);
    if serve && !known {
        return nok(&format!(
            "no queue of jobsd reads the list {shown}: add it to `lists` of a queue in jobsd.toml and reload"
        ));
    }
    if known && front.leave(list, !serve) {
        tracing::info!(list, "{} by a Celery client", if serve { "served again" } else { "left alone" });
    }
    match (serve, known) {
        (true, _) => ok(&format!("add consumer {shown}")),
        (false, _) => ok(&format!("no longer consuming from {shown}")),
    }
}
