//! A flow as it is shown: its jobs in the form in which they were given, each with its state, and a sentence for the whole.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::job::ShownMember;
use super::super::pauses::ShownRequest;
use crate::config::{Config, JobSecrets};
use crate::job::flow::progress::Counts;
use crate::job::flow::{Callback, Draft, FlowState, Listed, Progress, Shape, Stand, job_id};
use crate::store::{FlowLine, FlowView, LinkError, Place, Standing, Store};

/// Jobs looked at in one round trip.
const STEP: usize = 200;
/// Culprits that are told with what they say.
const CULPRITS: usize = 20;
/// In a larger flow only the whole is explained; what holds up one of its jobs, that job says itself.
const EXPLAINED: usize = 1_000;
/// The state of a job that a purge took out of its queue.
const PURGED: &str = "purged";
/// How much of an error is repeated in a sentence.
const QUOTED: usize = 300;

/// One flow in a listing.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    state: FlowState,
    jobs: Counts,
    submitted_at: String,
    by: &'a str,
}

/// One flow, whole.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    state: FlowState,
    /// Where it stands, and who is to blame, in one sentence.
    summary: String,
    submitted_at: String,
    by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled: Option<ShownRequest>,
    jobs: Counts,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    culprits: Vec<Culprit<'a>>,
    /// In the form in which it was given: a job, `{"chain": […]}` or `{"group": […]}`; or the list of all jobs.
    flow: Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    callbacks: Vec<Value>,
}

/// A job that did not complete.
#[derive(Serialize)]
struct Culprit<'a> {
    name: &'a str,
    id: String,
    task: &'a str,
    queue: &'a str,
    state: &'static str,
    /// How many jobs cannot start without it.
    blocks: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    /// What it said last.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A job before its turn.
#[derive(Serialize)]
pub(super) struct Unstarted<'a> {
    id: &'a str,
    task: &'a str,
    queue: &'a str,
    /// `blocked` by its flow, `pending` when its turn has come, `cancelled` with its flow.
    state: &'static str,
    why: String,
    flow: ShownMember<'a>,
    priority: i8,
    args: Value,
}

/// What is known beside the flow's own view.
pub(super) struct Close {
    /// States of jobs that are in their queues, by name.
    states: HashMap<String, &'static str>,
    /// What culprits said last, by name.
    reasons: HashMap<String, String>,
}

pub(super) fn line(line: &FlowLine) -> Line<'_> {
    let heading = &line.heading;
    Line {
        id: heading.id.as_str(),
        name: heading.name.as_deref(),
        state: line.state,
        jobs: line.counts,
        submitted_at: heading.request.at.to_string(),
        by: &heading.request.by,
    }
}

/// Looks at the jobs themselves: where those stand that have started, and what the first culprits said.
pub(super) async fn look_closer(store: &Store, config: &Config, view: &FlowView) -> Result<Close, LinkError> {
    let mut close = Close { states: HashMap::new(), reasons: HashMap::new() };
    let flow = &view.outline.heading.id;
    let is_culprit = |stand| matches!(stand, Stand::Dead | Stand::Cancelled);
    let started = view.jobs().filter(|(_, stand)| *stand == Stand::Started);
    let culprits = view.jobs().filter(|(_, stand)| is_culprit(*stand)).take(CULPRITS);
    let wanted: Vec<&Listed> = started.chain(culprits).map(|(listed, _)| listed).collect();
    for some in wanted.chunks(STEP) {
        let ids: Vec<_> = some.iter().map(|listed| job_id(flow, &listed.name)).collect();
        let places: Vec<_> = some.iter().zip(&ids).map(|(listed, id)| (&listed.queue, id)).collect();
        for (listed, standing) in some.iter().zip(store.standings(&places).await?) {
            let Some(standing) = standing else { continue };
            let name = listed.name.to_string();
            close.states.insert(name.clone(), word(&standing));
            close.reasons.extend(reason(config, &standing).map(|reason| (name, reason)));
        }
    }
    Ok(close)
}

/// Where a job stands, as a person says it.
fn word(standing: &Standing) -> &'static str {
    if standing.place == Place::Purged { PURGED } else { standing.state().as_str() }
}

/// What a job said last, without its secrets. Where its arguments stand elsewhere they are not known.
fn reason(config: &Config, standing: &Standing) -> Option<String> {
    let (job, last) = (&standing.job, standing.history.mishaps.last()?);
    if job.args_apart.is_some() {
        return None;
    }
    let secrets = JobSecrets::of(config.tasks.get(&job.task).map(Arc::as_ref), &job.args);
    let words = secrets.text(&last.message);
    Some(match words.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    })
}

pub(super) fn shown<'a>(view: &'a FlowView, close: &Close) -> Shown<'a> {
    let (outline, links) = (&view.outline, view.outline.links());
    let heading = &outline.heading;
    let progress = Progress::new(outline, &links, &view.stands, view.cancelled.as_ref());
    let why = |member: usize| {
        let name = outline.members[member].name.as_str();
        let (error, reason) = (view.errors.get(name), close.reasons.get(name));
        match (error, reason) {
            (Some(error), Some(reason)) => Some(format!("{error}: {reason}")),
            (Some(only), None) | (None, Some(only)) => Some(only.clone()),
            (None, None) => None,
        }
    };
    let picture = Picture { view, close, progress: &progress };
    Shown {
        id: heading.id.as_str(),
        name: heading.name.as_deref(),
        state: progress.state(),
        summary: format!("{}{}", progress.sentence(&why), purged(close)),
        submitted_at: heading.request.at.to_string(),
        by: &heading.request.by,
        cancelled: view.cancelled.as_ref().map(ShownRequest::of),
        jobs: progress.counts,
        culprits: progress.culprits().into_iter().take(CULPRITS).map(|one| picture.culprit(one)).collect(),
        flow: picture.part(&outline.shape),
        callbacks: view
            .callbacks()
            .map(|(callback, listed, stand)| picture.callback(callback, listed, stand))
            .collect(),
    }
}

/// What the flow itself does not know: jobs that it takes for started wait in the trash.
fn purged(close: &Close) -> String {
    let count = close.states.values().filter(|state| **state == PURGED).count();
    match count {
        0 => String::new(),
        1 => "; 1 job was purged, and the purge can be taken back".to_owned(),
        more => format!("; {more} jobs were purged, and the purge can be taken back"),
    }
}

/// Draws a flow.
struct Picture<'a, 'p> {
    view: &'a FlowView,
    close: &'p Close,
    progress: &'p Progress<'p>,
}

impl<'a> Picture<'a, '_> {
    /// As deep as a flow may be, which is bounded where it is read.
    fn part(&self, shape: &Shape) -> Value {
        match shape {
            Shape::Job(member) => Value::Object(self.member(*member)),
            Shape::Chain(parts) => json!({"chain": parts.iter().map(|part| self.part(part)).collect::<Vec<_>>()}),
            Shape::Group(parts) => json!({"group": parts.iter().map(|part| self.part(part)).collect::<Vec<_>>()}),
            Shape::Graph(follows) => {
                let name = |&one: &usize| self.view.outline.members[one].name.as_str();
                let job = |(member, before): (usize, &Vec<usize>)| {
                    let mut job = self.member(member);
                    job.insert("after".to_owned(), before.iter().map(name).collect());
                    Value::Object(job)
                };
                Value::Array(follows.iter().enumerate().map(job).collect())
            }
        }
    }

    fn member(&self, member: usize) -> Map<String, Value> {
        let (listed, stand) = (&self.view.outline.members[member], self.view.stands[member]);
        let mut job = self.job(listed, stand);
        if listed.allow_failure {
            job.insert("allow_failure".to_owned(), true.into());
        }
        let explained = self.view.stands.len() <= EXPLAINED;
        let why = explained.then(|| super::why_not(self.progress, self.view, member, stand)).flatten();
        if let Some(why) = why {
            job.insert("why".to_owned(), why.into());
        }
        job
    }

    fn callback(&self, callback: Callback, listed: &Listed, stand: Stand) -> Value {
        let mut job = self.job(listed, stand);
        if stand == Stand::Blocked {
            job.insert("why".to_owned(), why_not_called(self.view, callback).into());
        }
        Value::Object(job)
    }

    fn job(&self, listed: &Listed, stand: Stand) -> Map<String, Value> {
        let name = listed.name.as_str();
        let mut job = Map::new();
        let mut put = |field: &str, value: Value| drop(job.insert(field.to_owned(), value));
        put("name", name.into());
        put("id", job_id(&self.view.outline.heading.id, &listed.name).as_str().into());
        put("task", listed.task.as_str().into());
        put("queue", listed.queue.as_str().into());
        put("state", self.state(name, stand).into());
        if let Some(error) = self.view.errors.get(name).filter(|_| stand == Stand::Dead) {
            put("error", error.as_str().into());
        }
        job
    }

    /// What its queue says of a job that is there; else what its flow knows.
    fn state(&self, name: &str, stand: Stand) -> &'static str {
        match stand {
            Stand::Started => self.close.states.get(name).copied().unwrap_or("started"),
            other => state(other),
        }
    }

    fn culprit(&self, member: usize) -> Culprit<'a> {
        let (listed, stand) = (&self.view.outline.members[member], self.view.stands[member]);
        let name = listed.name.as_str();
        Culprit {
            name,
            id: job_id(&self.view.outline.heading.id, &listed.name).to_string(),
            task: listed.task.as_str(),
            queue: listed.queue.as_str(),
            state: state(stand),
            blocks: self.progress.blocked_by(member),
            error: self.view.errors.get(name).filter(|_| stand == Stand::Dead).map(String::as_str),
            reason: self.close.reasons.get(name).cloned(),
        }
    }
}

fn state(stand: Stand) -> &'static str {
    match stand {
        Stand::Blocked => "blocked",
        Stand::Ready => "pending",
        Stand::Started => "started",
        Stand::Completed => "completed",
        Stand::Dead => "dead",
        Stand::Cancelled => "cancelled",
    }
}

/// What a callback waits for.
pub(super) fn why_not_called(view: &FlowView, callback: Callback) -> String {
    if let Some(request) = &view.cancelled {
        return format!("the flow was cancelled {}; this job never starts", request.words());
    }
    match callback {
        Callback::Success => "it starts when every job of the flow is completed",
        Callback::Complete => "it starts when nothing of the flow runs any more",
        Callback::Death => "it starts when a job of the flow dies",
    }
    .to_owned()
}

/// A job that is in no queue yet.
pub(super) fn unstarted<'a>(config: &Config, draft: &'a Draft, stand: Stand, why: String) -> Unstarted<'a> {
    let job = &draft.job;
    let member = job.flow.as_ref().expect("the jobs of flows know their flow");
    let secrets = JobSecrets::of(config.tasks.get(&job.task).map(Arc::as_ref), &job.args);
    Unstarted {
        id: job.id.as_str(),
        task: job.task.as_str(),
        queue: job.queue.as_str(),
        state: state(stand),
        why,
        flow: ShownMember { id: member.id.as_str(), name: member.name.as_str() },
        priority: job.priority.steps(),
        args: secrets.args().clone(),
    }
}
