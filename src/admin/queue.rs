//! One queue: `GET` and `PATCH /api/v1/queues/{q}`, its `pause`, `resume` and `purge`, and the undo of a purge.

use std::ops::RangeInclusive;

use hyper::StatusCode;
use hyper::http::request::Parts;
use serde::Serialize;
use serde_json::{Map, Value};

use super::alter::refusal;
use super::answer::{Answer, json};
use super::entry::quoted;
use super::fields::{Fields, no_queue};
use super::overview::{self, QueueRow};
use super::pauses::ShownRequest;
use super::problem::{Problem, ProblemKind};
use super::stance::ShownConcurrency;
use super::{Shared, who};
use crate::broker::{Paused, Purge, Restored};
use crate::clock;
use crate::config::{Concurrency, Config, Queue};
use crate::job::{QueueName, Request, Timestamp};
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

/// How a queue stands after a change, in what was changed.
#[derive(Serialize)]
struct Standing<'a> {
    queue: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<Option<ShownRequest>>,
    /// Of the node that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<ShownSlots<'a>>,
}

#[derive(Serialize)]
struct ShownSlots<'a> {
    node: &'a str,
    concurrency: ShownConcurrency,
    configured: ShownConcurrency,
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

/// `PATCH /api/v1/queues/{q}`. Everything is read before anything is done, and what can fail is done first.
pub(super) async fn patch(
    shared: &Shared,
    config: &Config,
    name: &str,
    head: &Parts,
    body: Option<&Value>,
) -> Result<Answer, Problem> {
    let known_fields = [&["paused", "concurrency"], &who::FIELDS[..]].concat();
    let mut fields = Fields::of_body(body, "a change of a queue", &known_fields)?;
    let (paused, size) = (fields.flag("paused"), Size::read(&mut fields));
    if fields.is_sound() && paused.is_none() && size.is_none() {
        fields.all_wrong(
            "say \"paused\": true or false, or \"concurrency\"; everything else of a queue stands in jobsd.toml",
        );
    }
    let request = who::request(head, &mut fields)?;
    fields.done()?;
    let queue = known(config, name)?;
    if let Some(paused) = paused {
        set(shared, &queue.name, paused, &request).await?;
    }
    let broker = &shared.parts.broker;
    match size {
        Some(Size::Set(concurrency)) => broker.scale(queue, concurrency, request.clone()),
        Some(Size::Configured) => drop(broker.unscale(queue, &request)),
        None => {}
    }
    let standing = Standing {
        paused: paused.map(|paused| paused.then(|| ShownRequest::of(&request))),
        slots: size.map(|_| ShownSlots {
            node: broker.node.as_str(),
            concurrency: ShownConcurrency(broker.concurrency(queue)),
            configured: ShownConcurrency(queue.concurrency),
        }),
        queue: queue.name.as_str(),
    };
    Ok(json(StatusCode::OK, &standing))
}

/// What is asked of the number of slots.
#[derive(Debug, Clone, Copy)]
enum Size {
    Set(Concurrency),
    /// What the file says.
    Configured,
}

impl Size {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        const FIELD: &str = "concurrency";
        match fields.value(FIELD)?.clone() {
            Value::String(word) if word == "configured" => Some(Self::Configured),
            Value::Object(bounds) => Self::bounds(fields, &bounds),
            Value::Number(_) => {
                let slots = fields.count(FIELD, slots())?;
                Some(Self::Set(Concurrency::fixed(slots)))
            }
            _ => {
                let forms = r#"a number of slots, {"min": 3, "max": 10}, or "configured" for what the file says"#;
                fields.wrong(FIELD, format!("{FIELD:?} must be {forms}"));
                None
            }
        }
    }

    fn bounds(fields: &mut Fields<'_>, bounds: &Map<String, Value>) -> Option<Self> {
        let mut part = |name: &str| {
            let given = bounds.get(name).and_then(Value::as_u64).filter(|given| slots().contains(given));
            if given.is_none() {
                let (least, most) = (slots().start().to_owned(), slots().end().to_owned());
                fields.wrong_in("concurrency", name, format!("{name:?} must be a whole number from {least} to {most}"));
            }
            given.and_then(|given| usize::try_from(given).ok())
        };
        let (min, max) = (part("min"), part("max"));
        for name in bounds.keys().filter(|name| !["min", "max"].contains(&name.as_str())).take(MOST_NAMED) {
            fields.wrong_in("concurrency", name, format!("there is no {}; a range has min and max", quoted(name)));
        }
        let (min, max) = (min?, max?);
        if min > max {
            fields.wrong("concurrency", format!("\"min\" is {min} and \"max\" is {max}: give \"max\" the larger one"));
            return None;
        }
        Some(Self::Set(Concurrency { min, max }))
    }
}

fn slots() -> RangeInclusive<u64> {
    (*Concurrency::SLOTS.start()).into()..=(*Concurrency::SLOTS.end()).into()
}

/// Unknown fields that are named.
const MOST_NAMED: usize = 10;

/// `POST /api/v1/queues/{q}/{pause,resume}`.
pub(super) async fn pause(
    shared: &Shared,
    config: &Config,
    name: &str,
    paused: bool,
    head: &Parts,
    body: Option<&Value>,
) -> Result<Answer, Problem> {
    let mut fields = Fields::of_body(body, "a pause", &who::FIELDS)?;
    let request = who::request(head, &mut fields)?;
    fields.done()?;
    let queue = &known(config, name)?.name;
    set(shared, queue, paused, &request).await?;
    let paused = Some(paused.then(|| ShownRequest::of(&request)));
    Ok(json(StatusCode::OK, &Standing { queue: queue.as_str(), paused, slots: None }))
}

async fn set(shared: &Shared, queue: &QueueName, paused: bool, request: &Request) -> Result<(), Problem> {
    let broker = &shared.parts.broker;
    let done = if paused {
        broker.pause(queue, &Paused::Queue, request).await
    } else {
        broker.resume(queue, &Paused::Queue).await.map(drop)
    };
    done.map_err(|error| refusal(broker, &error))
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
