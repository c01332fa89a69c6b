//! `GET /api/v1/jobs/{id}`: everything that is known of one job, without its secrets.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;
use serde_json::Value;

use super::Shared;
use super::alter::refusal;
use super::answer::{Answer, json};
use super::fields::Fields;
use super::flow;
use super::limits::{self, ShownBlocked};
use super::notes::{self, ShownProgress, ShownSection};
use super::pauses::ShownRequest;
use super::problem::{Problem, ProblemKind};
use crate::broker::Broker;
use crate::clock;
use crate::config::{Config, JobSecrets};
use crate::job::{
    Backoff, Cause, End, FailurePattern, History, JobId, Mishap, MishapKind, Notes, Origin, QueueName, Request,
    RetryPolicy, State, Timestamp, Unique, Until,
};
use crate::store::{Place, Standing};

/// One job, as it is shown. Instants are RFC 3339, durations in seconds or as people write them.
#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    task: &'a str,
    queue: &'a str,
    state: State,
    /// Out of the way of the others: its task is paused or a limit has no room for it. Where tenants take turns, all are.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    held: bool,
    /// The limit that has no room for it, of a pending job.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked: Option<ShownBlocked>,
    /// What took it out of the queue, and until when that can be taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    purged: Option<ShownPurge>,
    /// Who has asked for its end; its node ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cancel_requested: Option<ShownRequest>,
    priority: i8,
    /// Absent where they are large and nobody asks for them: `?args=full`.
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Value>,
    /// Of arguments that stand beside the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    args_bytes: Option<u64>,
    origin: ShownOrigin<'a>,
    /// The flow that it is a part of, and what it is called there.
    #[serde(skip_serializing_if = "Option::is_none")]
    flow: Option<ShownMember<'a>>,
    enqueued_at: String,
    /// When a waiting job is or was due.
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<String>,
    /// The job's own timeout, when its producer asked for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    /// No attempt starts after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    /// The job's own policy, when its producer sent one.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<ShownRetry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<ShownAttempt>,
    /// What makes it the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    unique: Option<ShownUnique>,
    /// How far it is, or how far the attempt came that spoke last.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<ShownProgress<'a>>,
    /// What it has said while it ran, attempt by attempt.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    log: Vec<ShownSection<'a>>,
    history: ShownHistory,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<ShownEnd>,
}

#[derive(Serialize)]
pub(super) struct ShownMember<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
}

#[derive(Serialize)]
struct ShownPurge {
    purge: String,
    until: String,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum ShownOrigin<'a> {
    Api,
    Schedule { name: &'a str, fire: String },
    Wire { wire: &'static str, list: &'a str },
}

/// A retry policy in the form in which one is written.
#[derive(Serialize)]
struct ShownRetry<'a> {
    limit: u32,
    backoff: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delays: Option<Vec<String>>,
    max_delay: String,
    jitter: f64,
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    span: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    never: Vec<&'a str>,
}

/// What makes a job unique, in the form in which it is written.
#[derive(Serialize)]
struct ShownUnique {
    key: String,
    on_conflict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<&'static str>,
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    span: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait: Option<String>,
}

/// The attempt that runs now.
#[derive(Serialize)]
struct ShownAttempt {
    number: u32,
    node: String,
    started: String,
}

#[derive(Serialize)]
struct ShownHistory {
    failures: u32,
    crashes: u32,
    interruptions: u32,
    snoozes: u32,
    /// Where the time of `retry.for` begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_started: Option<String>,
    /// The latest of the snoozes.
    #[serde(skip_serializing_if = "Option::is_none")]
    snooze: Option<ShownSnooze>,
    /// Results of the steps that are done.
    steps: Vec<Value>,
    /// The latest attempts that did not succeed, oldest first.
    mishaps: Vec<ShownMishap>,
}

#[derive(Serialize)]
struct ShownSnooze {
    at: String,
    reason: String,
}

#[derive(Serialize)]
struct ShownMishap {
    at: String,
    attempt: u32,
    node: String,
    kind: MishapKind,
    name: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Serialize)]
struct ShownEnd {
    state: State,
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    /// Of the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Cause>,
    /// Why there is no further attempt, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    result: Value,
}

/// Larger arguments are shown only to who asks for them.
const LARGE: u64 = 256 * 1024;

/// What is known of a job beside where it stands.
pub(super) struct Around {
    pub(super) purged: Option<(String, Timestamp)>,
    pub(super) cancel: Option<Request>,
    blocked: Option<ShownBlocked>,
    /// Whether the arguments are here.
    has_args: bool,
}

/// `GET /api/v1/jobs/{id}`.
pub(super) async fn answer(shared: &Shared, config: &Config, id: &str, query: Option<&str>) -> Result<Answer, Problem> {
    let mut fields = Fields::of_query(query, "a look at a job", &["args"]);
    let full = fields.text("args", "full");
    if full.as_ref().is_some_and(|wish| wish != "full") {
        fields.wrong("args", "\"args\" can be full; without it large arguments are left out");
    }
    fields.done()?;
    let Some(mut view) = find_if_any(shared, config, id).await? else {
        return flow::answer_unstarted(shared, config, id).await;
    };
    let mut around = look_around(&shared.parts.broker, &mut view, full.is_some()).await?;
    if let (State::Pending, Some(queue)) = (view.state(), config.queues.get(&view.job.queue)) {
        let blocked = shared.parts.broker.store.blocked(queue, &view.job, clock::now()).await;
        around.blocked = blocked.map_err(|error| Problem::of_read(&error))?.map(limits::blocked);
    }
    let said = shared.parts.broker.store.notes(&view.job.queue, &view.job.id).await;
    let said = said.map_err(|error| Problem::of_read(&error))?;
    Ok(json(StatusCode::OK, &shown(config, &view, around, &said)))
}

/// The job of this id, in whatever queue of the configuration; to be changed.
pub(super) async fn find(shared: &Shared, config: &Config, id: &str) -> Result<Standing, Problem> {
    match find_if_any(shared, config, id).await? {
        Some(standing) => Ok(standing),
        None => Err(flow::refuse_unstarted(shared, id).await?),
    }
}

async fn find_if_any(shared: &Shared, config: &Config, id: &str) -> Result<Option<Standing>, Problem> {
    let id = JobId::parse(id).map_err(|_| unknown())?;
    let queues: Vec<QueueName> = config.queues.keys().cloned().collect();
    shared.parts.broker.store.job(&id, &queues).await.map_err(|error| Problem::of_read(&error))
}

pub(super) fn unknown() -> Problem {
    Problem::new(ProblemKind::NotFound, "no job has this id; ended jobs are deleted after a while")
}

/// Reads what stands elsewhere, the large arguments among it: when they are asked for, are not that large, or must be
/// known because the job's history may repeat their secrets.
pub(super) async fn look_around(broker: &Broker, view: &mut Standing, full: bool) -> Result<Around, Problem> {
    let of_read = |error| Problem::of_read(&error);
    let (queue, id) = (view.job.queue.clone(), view.job.id.clone());
    let mut around = Around { purged: None, cancel: None, blocked: None, has_args: view.job.args_apart.is_none() };
    if let Some(bytes) = view.job.args_apart {
        let show = full || bytes <= LARGE;
        if show || view.history != History::default() {
            let args = broker.store.args_apart(&queue, &id).await.map_err(of_read)?;
            around.has_args = show && args.is_some();
            view.job.args = args.unwrap_or_default();
        }
    }
    if view.place == Place::Purged {
        around.purged = broker.store.purge_of(&queue, &id).await.map_err(of_read)?;
    }
    if view.state() == State::Active {
        around.cancel = broker.cancel_of(&queue, &id).await.map_err(|error| refusal(broker, &error))?;
    }
    Ok(around)
}

fn shown<'a>(config: &Config, view: &'a Standing, around: Around, said: &'a Notes) -> Shown<'a> {
    let job = &view.job;
    let task = config.tasks.get(&job.task).map(Arc::as_ref);
    let secrets = JobSecrets::of(task, &job.args);
    Shown {
        id: job.id.as_str(),
        task: job.task.as_str(),
        queue: job.queue.as_str(),
        state: view.state(),
        held: view.place == Place::Held && job.line().is_none(),
        blocked: around.blocked,
        purged: around.purged.map(|(purge, until)| ShownPurge { purge, until: until.to_string() }),
        cancel_requested: around.cancel.as_ref().map(ShownRequest::of),
        priority: job.priority.steps(),
        args: around.has_args.then(|| secrets.args().clone()),
        args_bytes: job.args_apart,
        origin: origin(&job.origin),
        flow: job.flow.as_ref().map(|member| ShownMember { id: member.id.as_str(), name: member.name.as_str() }),
        enqueued_at: job.enqueued_at.to_string(),
        due: view.due.or(job.due).map(|due| due.to_string()),
        timeout: job.timeout.map(|timeout| humantime::format_duration(timeout).to_string()),
        expires: job.expires.map(|at| at.to_string()),
        retry: job.retry.as_ref().map(shown_retry),
        attempt: attempt(view),
        unique: job.unique.as_ref().map(|unique| shown_unique(unique, &secrets)),
        progress: notes::progress(said),
        log: notes::sections(said),
        history: history(&view.history, &secrets),
        end: view.history.end.as_ref().map(|end| shown_end(end, &secrets)),
    }
}

fn shown_retry(policy: &RetryPolicy) -> ShownRetry<'_> {
    let words = |span: &Duration| humantime::format_duration(*span).to_string();
    let (backoff, delay, delays) = match &policy.backoff {
        Backoff::Fixed { delay } => ("fixed", Some(words(delay)), None),
        Backoff::Exponential { delay } => ("exponential", Some(words(delay)), None),
        Backoff::Sidekiq => ("sidekiq", None, None),
        Backoff::List { delays } => ("list", None, Some(delays.iter().map(words).collect())),
    };
    ShownRetry {
        limit: policy.limit,
        backoff,
        delay,
        delays,
        max_delay: words(&policy.max_delay),
        jitter: policy.jitter,
        span: policy.span.as_ref().map(words),
        never: policy.never.iter().map(FailurePattern::as_str).collect(),
    }
}

fn shown_unique(unique: &Unique, secrets: &JobSecrets) -> ShownUnique {
    let words = |span: Duration| humantime::format_duration(span).to_string();
    ShownUnique {
        key: secrets.text(unique.key.as_str()),
        on_conflict: unique.rule.on_conflict(),
        until: unique.rule.until().map(Until::as_str),
        span: unique.rule.span().map(words),
        wait: unique.rule.wait().map(words),
    }
}

/// Where it came from. What its producer's answer needs is between the two of them.
fn origin(origin: &Origin) -> ShownOrigin<'_> {
    match origin {
        Origin::Api => ShownOrigin::Api,
        Origin::Schedule { name, fire } => ShownOrigin::Schedule { name, fire: fire.to_string() },
        Origin::Wire { wire, list, reply: _ } => ShownOrigin::Wire { wire: wire.as_str(), list },
    }
}

fn attempt(view: &Standing) -> Option<ShownAttempt> {
    let active = view.active.as_ref().filter(|_| view.state() == State::Active)?;
    Some(ShownAttempt {
        number: view.history.next_attempt(),
        node: active.node.to_string(),
        started: active.started.to_string(),
    })
}

fn history(history: &History, secrets: &JobSecrets) -> ShownHistory {
    ShownHistory {
        failures: history.failures,
        crashes: history.crashes,
        interruptions: history.interruptions,
        snoozes: history.snoozes,
        first_started: history.first_started.map(|at| at.to_string()),
        snooze: history
            .snooze
            .as_ref()
            .map(|snooze| ShownSnooze { at: snooze.at.to_string(), reason: secrets.text(&snooze.reason) }),
        steps: history.steps.iter().map(|step| secrets.value(step)).collect(),
        mishaps: history.mishaps.iter().map(|mishap| shown_mishap(mishap, secrets)).collect(),
    }
}

fn shown_mishap(mishap: &Mishap, secrets: &JobSecrets) -> ShownMishap {
    ShownMishap {
        at: mishap.at.to_string(),
        attempt: mishap.attempt,
        node: mishap.node.to_string(),
        kind: mishap.kind,
        name: secrets.text(&mishap.name),
        message: secrets.text(&mishap.message),
        detail: mishap.detail.as_deref().map(|detail| secrets.text(detail)),
    }
}

fn shown_end(end: &End, secrets: &JobSecrets) -> ShownEnd {
    let length = |started: Timestamp| -> Duration { end.at.since(started) };
    ShownEnd {
        state: end.state,
        at: end.at.to_string(),
        started: end.started.map(|started| started.to_string()),
        duration_seconds: end.started.map(length).map(|length| length.as_secs_f64()),
        node: end.node.as_ref().map(ToString::to_string),
        cause: end.cause,
        reason: end.reason.as_deref().map(|reason| secrets.text(reason)),
        result: secrets.value(&end.result),
    }
}
