//! `GET /api/v1/tasks`, and `POST /api/v1/tasks/{t}/{pause,resume}`: a task is paused in every queue, or in one.

use hyper::StatusCode;
use hyper::http::request::Parts;
use serde::Serialize;
use serde_json::Value;

use super::alter::refusal;
use super::answer::{Answer, json};
use super::fields::{Fields, no_task};
use super::overview;
use super::pauses::{self, PausedTask, ShownRequest};
use super::problem::{Problem, ProblemKind};
use super::{Shared, who};
use crate::broker::Paused;
use crate::config::{Config, NamePattern, Param, Task};
use crate::job::{QueueName, TaskName};
use crate::store::QueueView;

/// A task, as its producers need to know it.
#[derive(Serialize)]
struct Shown<'a> {
    task: &'a str,
    /// Where its jobs go when nobody names a queue.
    queue: &'a str,
    /// The names that producers use.
    names: Vec<&'a str>,
    params: Vec<ShownParam<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    /// The queues in which it is paused.
    paused: Vec<PausedIn>,
}

#[derive(Serialize)]
struct ShownParam<'a> {
    name: &'a str,
    r#type: &'static str,
    required: bool,
    secret: bool,
}

#[derive(Serialize)]
struct PausedIn {
    queue: String,
    request: PausedTask,
}

/// How a task stands after a pause or its end.
#[derive(Serialize)]
struct Standing<'a> {
    task: &'a str,
    queues: Vec<&'a str>,
    paused: Option<ShownRequest>,
}

/// `GET /api/v1/tasks`.
pub(super) async fn answer(shared: &Shared, config: &Config) -> Result<Answer, Problem> {
    #[derive(Serialize)]
    struct Body<'a> {
        tasks: Vec<Shown<'a>>,
    }
    let views = overview::read(shared, config).await.map_err(|error| Problem::unavailable(error.to_string()))?;
    let tasks = config.tasks.values().map(|task| shown(task, &views)).collect();
    Ok(json(StatusCode::OK, &Body { tasks }))
}

fn shown<'a>(task: &'a Task, views: &[QueueView]) -> Shown<'a> {
    let paused_in = |view: &QueueView| {
        let (_, tasks) = pauses::of(view);
        let own = tasks.into_iter().find(|paused| paused.task == task.name.as_str());
        own.map(|request| PausedIn { queue: view.queue.to_string(), request })
    };
    Shown {
        task: task.name.as_str(),
        queue: task.queue.as_str(),
        names: task.names.iter().map(|NamePattern(name)| name.as_str()).collect(),
        params: task.params.iter().map(shown_param).collect(),
        timeout: task.timeout.map(|timeout| humantime::format_duration(timeout).to_string()),
        paused: views.iter().filter_map(paused_in).collect(),
    }
}

fn shown_param(param: &Param) -> ShownParam<'_> {
    ShownParam { name: &param.name, r#type: param.kind.as_str(), required: param.required, secret: param.secret }
}

/// `POST /api/v1/tasks/{t}/{pause,resume}`.
pub(super) async fn pause(
    shared: &Shared,
    config: &Config,
    name: &str,
    paused: bool,
    head: &Parts,
    body: Option<&Value>,
) -> Result<Answer, Problem> {
    let known = [&["queue"], &who::FIELDS[..]].concat();
    let mut fields = Fields::of_body(body, "a pause of a task", &known)?;
    let request = who::request(head, &mut fields)?;
    let queue = fields.queue(config);
    fields.done()?;
    let unknown = || Problem::new(ProblemKind::NotFound, no_task(config, name));
    let declared = config.tasks.get(name).or_else(|| config.task_named(name));
    // A task that is not declared any more can still be resumed.
    let task = match declared {
        Some(task) => task.name.clone(),
        None if !paused => TaskName::parse(name).map_err(|_| unknown())?,
        None => return Err(unknown()),
    };
    let queues: Vec<QueueName> = queue.map_or_else(|| config.queues.keys().cloned().collect(), |queue| vec![queue]);
    let what = Paused::Task(task.clone());
    let mut ended = false;
    for queue in &queues {
        let broker = &shared.parts.broker;
        if paused {
            broker.pause(queue, &what, &request).await.map_err(|error| refusal(&shared.parts.broker, &error))?;
        } else {
            ended |= broker.resume(queue, &what).await.map_err(|error| refusal(&shared.parts.broker, &error))?;
        }
    }
    if declared.is_none() && !ended {
        return Err(unknown());
    }
    let queues = queues.iter().map(QueueName::as_str).collect();
    let paused = paused.then(|| ShownRequest::of(&request));
    Ok(json(StatusCode::OK, &Standing { task: task.as_str(), queues, paused }))
}
