//! `POST /api/v1/jobs`: one job, or an array of them. Everything is checked before anything is enqueued.

use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use serde::Serialize;
use serde_json::Value;

use super::answer::{Answer, json};
use super::entry::{self, Entry};
use super::problem::{FieldError, Problem, ProblemKind, ShownHolder};
use crate::broker::{Broker, BrokerError, Enqueued, Holder};
use crate::clock;
use crate::config::Config;
use crate::job::{Job, JobId, QueueName, State};
use crate::store::LinkError;

/// What became of one job, as the client learns it.
#[derive(Serialize)]
struct Accepted<'a> {
    id: &'a str,
    queue: &'a str,
    task: &'a str,
    state: State,
    /// RFC 3339. Absent: at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<String>,
    /// The job whose place it takes: it waited and held the same unique key, and is cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<&'a str>,
}

/// What became of one job of several: added, or there already and left as it is, or left out because another job holds its
/// unique key.
#[derive(Serialize)]
struct BulkAccepted<'a> {
    id: &'a str,
    queue: &'a str,
    task: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<&'a str>,
    added: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<ShownHolder>,
}

/// `POST /api/v1/jobs`.
pub(super) async fn answer(broker: &Broker, config: &Config, body: &Value) -> Result<Answer, Problem> {
    let now = clock::now();
    match body {
        Value::Object(object) => {
            let entries = [entry::one(config, object, now)?];
            match add(broker, config, &entries).await?.as_slice() {
                [outcome] if outcome.is_new() => Ok(single_answer(&entries[0].job, outcome)),
                [Enqueued::Held(holder)] => Err(held(holder)),
                _ => Err(exists(&entries[0].job.id)),
            }
        }
        Value::Array(array) => {
            let entries = entry::several(config, array, now)?;
            let outcomes = add(broker, config, &entries).await?;
            Ok(bulk_answer(&entries, &outcomes))
        }
        _ => Err(Problem::invalid(vec![FieldError {
            pointer: String::new(),
            detail: "the body must be one job (an object) or several (an array of objects)".into(),
        }])),
    }
}

/// Adds the jobs whose id no queue has. Ids of the client's choice are looked up in all queues first, because the broker
/// compares them only inside one.
async fn add(broker: &Broker, config: &Config, entries: &[Entry]) -> Result<Vec<Enqueued>, Problem> {
    let queues: Vec<QueueName> = config.queues.keys().cloned().collect();
    let chosen: Vec<&JobId> = entries.iter().filter(|entry| entry.id_is_chosen).map(|entry| &entry.job.id).collect();
    let taken = broker.store.taken(&chosen, &queues).await.map_err(|error| Problem::of_read(&error))?;
    let is_taken = |entry: &Entry| entry.id_is_chosen && taken.contains(&entry.job.id);
    let fresh: Vec<Job> = entries.iter().filter(|entry| !is_taken(entry)).map(|entry| entry.job.clone()).collect();
    let mut outcomes = enqueue(broker, &fresh).await.map_err(|error| refusal(broker, entries, &error))?.into_iter();
    let outcome = |entry: &Entry| if is_taken(entry) { None } else { outcomes.next() };
    Ok(entries.iter().map(outcome).map(|outcome| outcome.unwrap_or(Enqueued::Exists)).collect())
}

/// Enqueues; once more when the connection turns out to be dead, as the first call after a restart of Redis finds it.
/// The ids make that safe: what is there by then is what the lost call had added.
async fn enqueue(broker: &Broker, jobs: &[Job]) -> Result<Vec<Enqueued>, BrokerError> {
    match broker.enqueue(jobs).await {
        Err(BrokerError::Link(error)) if is_stale(&error) => {
            tracing::debug!("enqueue again, on a new connection: {error}");
            let known = |outcome| if outcome == Enqueued::Exists { Enqueued::Added } else { outcome };
            Ok(broker.enqueue(jobs).await?.into_iter().map(known).collect())
        }
        other => other,
    }
}

/// Whether another call, on a new connection, may get through.
pub(super) fn is_stale(error: &LinkError) -> bool {
    match error {
        LinkError::Broken(_) => true,
        // A Redis that was emptied, with the scripts gone; the link loads them on its next connection.
        LinkError::Refused(words) => words.starts_with("NOSCRIPT"),
        _ => false,
    }
}

fn refusal(broker: &Broker, entries: &[Entry], error: &BrokerError) -> Problem {
    if let BrokerError::Link(LinkError::Refused(words)) = error {
        let done = match entries {
            [_] => "nothing was enqueued",
            _ => "some may have been enqueued; a repetition is safe with ids of your own",
        };
        let refused = Problem::of_refused_write(words, broker.store.report().as_deref(), done);
        if let Some(problem) = refused {
            return problem;
        }
    }
    match error {
        BrokerError::Link(LinkError::Unexpected { .. }) | BrokerError::Answer { .. } | BrokerError::Encode(_) => {
            Problem::internal(error.to_string())
        }
        BrokerError::Link(
            away @ (LinkError::Connect(_)
            | LinkError::ConnectTimeout(_)
            | LinkError::Anonymous(_)
            | LinkError::NoMaster { .. }
            | LinkError::NotMaster { .. }),
        ) => Problem::unavailable(format!("{away}; nothing was enqueued")),
        BrokerError::Link(away) => {
            let doubt = "it may have been enqueued all the same; a repetition is safe with an \"id\" of your own";
            Problem::unavailable(format!("{away}; {doubt}"))
        }
    }
}

fn exists(id: &JobId) -> Problem {
    let detail = format!("a job with the id {:?} exists; it was left as it is", id.as_str());
    let problem = Problem::new(ProblemKind::IdExists, detail);
    match location(id) {
        Some(location) => problem.with(header::LOCATION, location),
        None => problem,
    }
}

fn held(holder: &Holder) -> Problem {
    let problem = Problem::key_held(holder, "the job was not enqueued");
    match location(&holder.id) {
        Some(location) => problem.with(header::LOCATION, location),
        None => problem,
    }
}

fn single_answer(job: &Job, outcome: &Enqueued) -> Answer {
    let (state, due, replaced) = standing(job, outcome);
    let (id, queue, task) = (job.id.as_str(), job.queue.as_str(), job.task.as_str());
    let accepted = Accepted { id, queue, task, state, due, replaced };
    let mut answer = json(StatusCode::CREATED, &accepted);
    if let Some(location) = location(&job.id) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}

/// 201 when something was added; 200 when a repetition found everything there.
fn bulk_answer(entries: &[Entry], outcomes: &[Enqueued]) -> Answer {
    let pairs = entries.iter().zip(outcomes);
    let body: Vec<BulkAccepted<'_>> = pairs.map(|(entry, outcome)| bulk_accepted(&entry.job, outcome)).collect();
    let status = if outcomes.iter().any(Enqueued::is_new) { StatusCode::CREATED } else { StatusCode::OK };
    json(status, &body)
}

fn bulk_accepted<'a>(job: &'a Job, outcome: &'a Enqueued) -> BulkAccepted<'a> {
    let (id, queue, task) = (job.id.as_str(), job.queue.as_str(), job.task.as_str());
    let out = BulkAccepted { id, queue, task, state: None, due: None, replaced: None, added: false, holder: None };
    match outcome {
        Enqueued::Added | Enqueued::Replaced { .. } => {
            let (state, due, replaced) = standing(job, outcome);
            BulkAccepted { state: Some(state), due, replaced, added: true, ..out }
        }
        // Where the older job stands is another question: GET it.
        Enqueued::Exists | Enqueued::NotReady => out,
        Enqueued::Held(holder) => BulkAccepted { holder: Some(ShownHolder::of(holder)), ..out },
    }
}

/// Where a job stands that was just added, when it is due, and whose place it takes.
fn standing<'a>(job: &Job, outcome: &'a Enqueued) -> (State, Option<String>, Option<&'a str>) {
    let (due, replaced) = match outcome {
        Enqueued::Replaced { id, due } => (*due, Some(id.as_str())),
        _ => (job.due, None),
    };
    let state = if due.is_some() { State::Scheduled } else { State::Pending };
    (state, due.map(|due| due.to_string()), replaced)
}

/// Where the job can be read. `None` for an id that no header can hold.
fn location(id: &JobId) -> Option<HeaderValue> {
    let plain = id.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte));
    if plain { HeaderValue::from_str(&format!("/api/v1/jobs/{id}")).ok() } else { None }
}
