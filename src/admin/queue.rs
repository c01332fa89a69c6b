//! One queue: `GET` and `PATCH /api/v1/queues/{q}`, its `pause`, `resume` and `purge`, and the undo of a purge.

use hyper::StatusCode;
use hyper::http::request::Parts;
use serde::Serialize;
use serde_json::Value;

use super::alter::refusal;
use super::answer::{Answer, json};
use super::fields::{Fields, no_queue};
use super::overview::{self, QueueRow};
use super::pauses::ShownRequest;
use super::problem::{Problem, ProblemKind};
use super::{Shared, who};
use crate::broker::{Paused, Purge, Restored};
use crate::clock;
use crate::config::{Config, Queue};
use crate::job::{QueueName, Timestamp};
use crate::store::{ForeignList, PurgeView};

/// A queue with what only matters when one looks at it alone.
#[derive(Serialize)]
struct Shown<'a> {
    queue: QueueRow<'a>,
    /// What can be taken back.
    purges: Vec<ShownPurge>,
}

#[derive(Serialize)]
struct ShownPurge {
    id: String,
    jobs: u64,
    messages: u64,
    /// Until then it can be taken back.
    until: String,
}

/// How a queue stands after a pause or its end.
#[derive(Serialize)]
struct Standing<'a> {
    queue: &'a str,
    paused: Option<ShownRequest>,
}

/// What a purge took.
#[derive(Serialize)]
struct Purged<'a> {
    queue: &'a str,
    /// Absent when nothing waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    purge: Option<&'a str>,
    jobs: u64,
    messages: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    /// What takes it back, until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    undo: Option<String>,
}

#[derive(Serialize)]
struct Undone<'a> {
    queue: &'a str,
    purge: &'a str,
    /// Jobs and messages that are where they were.
    restored: u64,
}

/// `GET /api/v1/queues/{q}`.
pub(super) async fn answer(shared: &Shared, config: &Config, name: &str) -> Result<Answer, Problem> {
    let queue = known(config, name)?;
    let rows = overview::queue_rows(shared, config).await?;
    let row = rows.into_iter().find(|row| row.queue == queue.name.as_str());
    let row = row.ok_or_else(|| Problem::internal("a queue of the configuration has no row"))?;
    let purges = shared.parts.broker.store.purges(&queue.name).await.map_err(|error| Problem::of_read(&error))?;
    let purges = purges.into_iter().map(shown_purge).collect();
    Ok(json(StatusCode::OK, &Shown { queue: row, purges }))
}

fn shown_purge(PurgeView { id, until, jobs, messages }: PurgeView) -> ShownPurge {
    ShownPurge { id, jobs, messages, until: until.to_string() }
}

/// `PATCH /api/v1/queues/{q}`.
pub(super) async fn patch(
    shared: &Shared,
    config: &Config,
    name: &str,
    head: &Parts,
    body: Option<&Value>,
) -> Result<Answer, Problem> {
    let known = [&["paused"], &who::FIELDS[..]].concat();
    let mut fields = Fields::of_body(body, "a change of a queue", &known)?;
    match fields.flag("paused") {
        Some(paused) => set(shared, config, name, paused, head, fields).await,
        None => {
            if fields.is_sound() {
                fields
                    .wrong("paused", "say \"paused\": true or false; everything else of a queue stands in jobsd.toml");
            }
            fields.done()?;
            Err(Problem::internal("a request without its field passed"))
        }
    }
}

/// `POST /api/v1/queues/{q}/{pause,resume}`.
pub(super) async fn pause(
    shared: &Shared,
    config: &Config,
    name: &str,
    paused: bool,
    head: &Parts,
    body: Option<&Value>,
) -> Result<Answer, Problem> {
    let fields = Fields::of_body(body, "a pause", &who::FIELDS)?;
    set(shared, config, name, paused, head, fields).await
}

async fn set(
    shared: &Shared,
    config: &Config,
    name: &str,
    paused: bool,
    head: &Parts,
    mut fields: Fields<'_>,
) -> Result<Answer, Problem> {
    let request = who::request(head, &mut fields)?;
    fields.done()?;
    let queue = &known(config, name)?.name;
    let broker = &shared.parts.broker;
    let of_change = |error| refusal(broker, &error);
    if paused {
        broker.pause(queue, &Paused::Queue, &request).await.map_err(of_change)?;
    } else {
        broker.resume(queue, &Paused::Queue).await.map_err(of_change)?;
    }
    let paused = paused.then(|| ShownRequest::of(&request));
    Ok(json(StatusCode::OK, &Standing { queue: queue.as_str(), paused }))
}

/// `POST /api/v1/queues/{q}/purge`. It asks for no confirmation, because it can be taken back.
pub(super) async fn purge(
    shared: &Shared,
    config: &Config,
    name: &str,
    head: &Parts,
    body: Option<&Value>,
) -> Result<Answer, Problem> {
    let mut fields = Fields::of_body(body, "a purge", &who::FIELDS)?;
    let request = who::request(head, &mut fields)?;
    fields.done()?;
    let queue = known(config, name)?;
    let lists: Vec<ForeignList> = queue.lists.iter().map(|(wire, name)| ForeignList::new(*wire, name)).collect();
    tracing::warn!(queue = %queue.name, "a purge is asked for {}", request.words());
    let taken = shared
        .parts
        .broker
        .purge(&queue.name, &lists, clock::now())
        .await
        .map_err(|error| refusal(&shared.parts.broker, &error))?;
    Ok(json(StatusCode::OK, &purged(&queue.name, &taken)))
}

fn purged<'a>(queue: &'a QueueName, Purge { id, jobs, messages, until }: &'a Purge) -> Purged<'a> {
    let any = jobs + messages > 0;
    Purged {
        queue: queue.as_str(),
        purge: any.then_some(id),
        jobs: *jobs,
        messages: *messages,
        until: any.then(|| Timestamp::to_string(until)),
        undo: any.then(|| format!("/api/v1/queues/{queue}/purges/{id}/undo")),
    }
}

/// `POST /api/v1/queues/{q}/purges/{purge}/undo`.
pub(super) async fn undo(shared: &Shared, config: &Config, name: &str, purge: &str) -> Result<Answer, Problem> {
    let queue = &known(config, name)?.name;
    let gone = || {
        let detail = format!("{queue} has no such purge: its half hour is over, or it was taken back already");
        Problem::new(ProblemKind::NotFound, detail)
    };
    // It becomes a part of a key: only what we have given out does.
    let purge = uuid::Uuid::parse_str(purge).map_err(|_| gone())?.to_string();
    match shared.parts.broker.restore(queue, &purge).await.map_err(|error| refusal(&shared.parts.broker, &error))? {
        Restored::All(restored) => Ok(json(StatusCode::OK, &Undone { queue: queue.as_str(), purge: &purge, restored })),
        Restored::Gone => Err(gone()),
    }
}

fn known<'c>(config: &'c Config, name: &str) -> Result<&'c Queue, Problem> {
    let queue = config.queues.get(name).map(AsRef::as_ref);
    queue.ok_or_else(|| Problem::new(ProblemKind::NotFound, no_queue(config, name)))
}
