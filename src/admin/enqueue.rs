//! `POST /api/v1/jobs`: one job, or an array of them. Everything is checked before anything is enqueued.

use std::collections::HashSet;
use std::time::Duration;

use chrono::DateTime;
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use serde::Serialize;
use serde_json::{Map, Value};

use super::answer::{Answer, json};
use super::overview::RETRY_AFTER;
use super::problem::{FieldError, Problem, ProblemKind};
use crate::broker::{Broker, BrokerError, Enqueued};
use crate::clock;
use crate::config::{Config, NamePattern, Task, bind};
use crate::job::{Args, Job, JobId, Origin, QueueName, State, Timestamp};
use crate::store::LinkError;

/// Jobs in one request.
const BULK: usize = 1000;
/// Mistakes reported of one request; the first ones say enough.
const ERRORS: usize = 50;
/// How far ahead a job may be due.
const HORIZON: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 3600);
/// What the ids of a schedule's jobs start with: a job of such an id would stand in for a fire.
const SCHEDULE_IDS: &str = "cron:";
/// How much of a wrong value is repeated to the client.
const QUOTED: usize = 80;

/// The fields of one job.
const FIELDS: [&str; 7] = ["task", "args", "queue", "id", "in", "at", "timeout"];

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
}

/// What became of one job of several: added, or there already and left as it is.
#[derive(Serialize)]
struct BulkAccepted<'a> {
    id: &'a str,
    queue: &'a str,
    task: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<String>,
    added: bool,
}

/// `POST /api/v1/jobs`.
pub(super) async fn answer(broker: &Broker, config: &Config, body: &Value) -> Result<Answer, Problem> {
    let now = clock::now();
    match body {
        Value::Array(entries) => {
            let jobs = several(config, entries, now)?;
            let added = add(broker, config, &jobs).await?;
            Ok(bulk_answer(&jobs, &added))
        }
        Value::Object(entry) => {
            let mut errors = Vec::new();
            let job = Fields { entry, at: String::new(), errors: &mut errors }.job(config, now);
            let jobs = job.map(|job| [job]).filter(|_| errors.is_empty()).ok_or_else(|| Problem::invalid(errors))?;
            match add(broker, config, &jobs).await?.as_slice() {
                [Enqueued::Added] => Ok(single_answer(&jobs[0])),
                _ => Err(exists(&jobs[0].id)),
            }
        }
        _ => Err(Problem::invalid(vec![FieldError {
            pointer: String::new(),
            detail: "the body must be one job (an object) or several (an array of objects)".into(),
        }])),
    }
}

/// The jobs of a bulk request, or everything that is wrong with them.
fn several(config: &Config, entries: &[Value], now: Timestamp) -> Result<Vec<Job>, Problem> {
    let whole = |detail: String| Problem::invalid(vec![FieldError { pointer: String::new(), detail }]);
    if entries.is_empty() {
        return Err(whole("the array is empty; there is nothing to enqueue".into()));
    }
    if entries.len() > BULK {
        return Err(whole(format!("the array has {} jobs; one request takes up to {BULK}", entries.len())));
    }
    let mut errors = Vec::new();
    let mut jobs = Vec::with_capacity(entries.len());
    let mut ids: HashSet<JobId> = HashSet::new();
    for (index, entry) in entries.iter().enumerate() {
        if errors.len() >= ERRORS {
            break;
        }
        let at = format!("/{index}");
        let Value::Object(entry) = entry else {
            errors.push(FieldError { pointer: at, detail: format!("job {index} is not an object") });
            continue;
        };
        let Some(job) = (Fields { entry, at, errors: &mut errors }).job(config, now) else { continue };
        if !ids.insert(job.id.clone()) {
            let detail = format!("the id {:?} stands twice in this request", job.id.as_str());
            errors.push(FieldError { pointer: format!("/{index}/id"), detail });
        }
        jobs.push(job);
    }
    if errors.is_empty() { Ok(jobs) } else { Err(Problem::invalid(errors)) }
}

/// Reads one entry; what is wrong is noted with its place.
struct Fields<'a> {
    entry: &'a Map<String, Value>,
    /// Pointer to the entry.
    at: String,
    errors: &'a mut Vec<FieldError>,
}

impl Fields<'_> {
    /// The job, unless something is wrong with it.
    fn job(mut self, config: &Config, now: Timestamp) -> Option<Job> {
        let before = self.errors.len();
        self.refuse_unknown_fields();
        let task = self.task(config);
        let args = task.and_then(|task| self.args(task));
        let queue = self.queue(config).or_else(|| task.map(|task| task.queue.clone()));
        let id = self.id();
        let due = self.due(now);
        let timeout = self.duration("timeout", LONGEST_TIMEOUT);
        if timeout == Some(Duration::ZERO) {
            self.wrong("timeout", "a timeout of nothing would stop every attempt at once");
        }
        let (task, args, queue) = (task?, args?, queue?);
        (self.errors.len() == before).then(|| Job {
            id,
            queue,
            task: task.name.clone(),
            args,
            origin: Origin::Api,
            enqueued_at: now,
            due,
            timeout,
            retry: None,
        })
    }

    fn wrong(&mut self, field: &str, detail: impl Into<String>) {
        let pointer = format!("{}/{}", self.at, field.replace('~', "~0").replace('/', "~1"));
        self.errors.push(FieldError { pointer, detail: detail.into() });
    }

    fn refuse_unknown_fields(&mut self) {
        for field in self.entry.keys().filter(|field| !FIELDS.contains(&field.as_str())).take(ERRORS) {
            let detail = match nearest(field, FIELDS.into_iter()) {
                Some(near) => format!("a job has no field {}; did you mean {near:?}?", quoted(field)),
                None => format!("a job has no field {}; it has {}", quoted(field), FIELDS.join(", ")),
            };
            self.wrong(field, detail);
        }
    }

    /// The text of an optional field. `null` is as good as leaving it out.
    fn text(&mut self, field: &str, example: &str) -> Option<String> {
        match self.entry.get(field)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            _ => {
                self.wrong(field, format!("{field:?} must be a text, like {example:?}"));
                None
            }
        }
    }

    fn task<'c>(&mut self, config: &'c Config) -> Option<&'c Task> {
        let before = self.errors.len();
        let Some(name) = self.text("task", "send_welcome_email") else {
            if self.errors.len() == before {
                self.wrong("task", "a job needs a \"task\": the name of one that jobsd.toml declares");
            }
            return None;
        };
        let task = config.tasks.get(name.as_str()).or_else(|| config.task_named(&name));
        if task.is_none() {
            let known = config.tasks.values().flat_map(|task| names(task));
            let hint = nearest(&name, known).map_or(String::new(), |near| format!("; did you mean {near:?}?"));
            self.wrong("task", format!("no task is called {}{hint}", quoted(&name)));
        }
        task.map(AsRef::as_ref)
    }

    fn args(&mut self, task: &Task) -> Option<Args> {
        let bound = match self.entry.get("args") {
            None | Some(Value::Null) => bind(task, &[], Map::new()),
            Some(Value::Object(keyword)) => bind(task, &[], keyword.clone()),
            Some(Value::Array(positional)) => bind(task, positional, Map::new()),
            Some(_) => {
                self.wrong("args", "\"args\" must be an object (arguments by name) or an array (by position)");
                return None;
            }
        };
        bound.map_err(|error| self.wrong("args", error.to_string())).ok()
    }

    fn queue(&mut self, config: &Config) -> Option<QueueName> {
        let name = self.text("queue", "emails")?;
        if let Some(queue) = config.queues.get(name.as_str()) {
            return Some(queue.name.clone());
        }
        let hint = nearest(&name, config.queues.keys().map(QueueName::as_str))
            .map_or(String::new(), |near| format!("; did you mean {near:?}?"));
        self.wrong("queue", format!("no queue is called {}{hint}", quoted(&name)));
        None
    }

    /// The client's id, or a new one.
    fn id(&mut self) -> JobId {
        let fresh = || JobId::parse(&uuid::Uuid::now_v7().to_string()).expect("a UUID is an id");
        let Some(text) = self.text("id", "order-4711-receipt") else { return fresh() };
        match JobId::parse(&text) {
            Ok(_) if text.starts_with(SCHEDULE_IDS) => {
                self.wrong("id", format!("ids that start with {SCHEDULE_IDS:?} belong to the schedules"));
            }
            Ok(id) => return id,
            Err(error) => self.wrong("id", error.to_string()),
        }
        fresh()
    }

    /// When the job is due, if not at once.
    fn due(&mut self, now: Timestamp) -> Option<Timestamp> {
        let (span, at) = (self.duration("in", HORIZON), self.text("at", "2026-12-24T18:00:00Z"));
        match (span, at) {
            (Some(_), Some(_)) => {
                self.wrong("at", "give \"in\" or \"at\", not both");
                None
            }
            (Some(span), None) => Some(now.after(span)),
            (None, Some(at)) => self.instant(&at, now),
            (None, None) => None,
        }
    }

    fn instant(&mut self, text: &str, now: Timestamp) -> Option<Timestamp> {
        let Ok(at) = DateTime::parse_from_rfc3339(text) else {
            let example = "2026-12-24T18:00:00Z or 2026-12-24T13:00:00-05:00";
            self.wrong("at", format!("{} is not an RFC 3339 time; write {example}", quoted(text)));
            return None;
        };
        // Instants before 1970 are past, and all past ones mean at once.
        let at = Timestamp::from_millis(u64::try_from(at.timestamp_millis()).unwrap_or(0));
        if at > now.after(HORIZON) {
            self.wrong("at", "a job may be due up to ten years ahead");
        }
        (at > now).then_some(at)
    }

    fn duration(&mut self, field: &'static str, longest: Duration) -> Option<Duration> {
        let text = self.text(field, "5m")?;
        match humantime::parse_duration(&text) {
            Ok(span) if span <= longest => return Some(span),
            Ok(_) => {
                let days = longest.as_secs() / (24 * 3600);
                self.wrong(field, format!("{} is too long; {field:?} may be up to {days} days", quoted(&text)));
            }
            Err(error) => {
                let example = "\"90s\", \"5m\" or \"1h 30m\"";
                self.wrong(field, format!("{} is not a duration ({error}); write {example}", quoted(&text)));
            }
        }
        None
    }
}

/// Adds the jobs whose id no queue has. All ids were looked up first, because the broker compares them only inside one
/// queue.
async fn add(broker: &Broker, config: &Config, jobs: &[Job]) -> Result<Vec<Enqueued>, Problem> {
    let queues: Vec<QueueName> = config.queues.keys().cloned().collect();
    let ids: Vec<&JobId> = jobs.iter().map(|job| &job.id).collect();
    let known = broker.store.known(&ids, &queues).await.map_err(|error| refusal(&error.into()))?;
    let fresh: Vec<Job> = jobs.iter().filter(|job| !known.contains(&job.id)).cloned().collect();
    let mut added = enqueue(broker, &fresh).await.map_err(|error| refusal(&error))?.into_iter();
    let outcome = |job: &Job| if known.contains(&job.id) { None } else { added.next() };
    Ok(jobs.iter().map(outcome).map(|outcome| outcome.unwrap_or(Enqueued::Exists)).collect())
}

/// Enqueues; once more when the connection turns out to be dead, as the first call after a restart of Redis finds it.
/// The ids make that safe: what is there by then is what the lost call had added.
async fn enqueue(broker: &Broker, jobs: &[Job]) -> Result<Vec<Enqueued>, BrokerError> {
    match broker.enqueue(jobs).await {
        Err(BrokerError::Link(error)) if is_stale(&error) => {
            tracing::debug!("enqueue again, on a new connection: {error}");
            broker.enqueue(jobs).await.map(|_| vec![Enqueued::Added; jobs.len()])
        }
        other => other,
    }
}

fn is_stale(error: &LinkError) -> bool {
    match error {
        LinkError::Broken(_) => true,
        // A Redis that was emptied, with the scripts gone; the link loads them on its next connection.
        LinkError::Refused(words) => words.starts_with("NOSCRIPT"),
        _ => false,
    }
}

fn refusal(error: &BrokerError) -> Problem {
    match error {
        BrokerError::Link(LinkError::Unexpected { .. }) | BrokerError::Answer { .. } | BrokerError::Encode(_) => {
            Problem::internal(error.to_string())
        }
        BrokerError::Link(away) => {
            let detail = format!("{away}; the job may have been enqueued: with an \"id\" of yours a repetition is safe");
            Problem::unavailable(detail, RETRY_AFTER).logged(error.to_string())
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

fn single_answer(job: &Job) -> Answer {
    let (state, due) = standing(job);
    let accepted = Accepted { id: job.id.as_str(), queue: job.queue.as_str(), task: job.task.as_str(), state, due };
    let mut answer = json(StatusCode::CREATED, &accepted);
    if let Some(location) = location(&job.id) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}

/// 201 when something was added; 200 when a repetition found everything there.
fn bulk_answer(jobs: &[Job], outcomes: &[Enqueued]) -> Answer {
    let accepted = |(job, outcome): (_, &Enqueued)| bulk_accepted(job, *outcome);
    let body: Vec<BulkAccepted<'_>> = jobs.iter().zip(outcomes).map(accepted).collect();
    let status = if outcomes.contains(&Enqueued::Added) { StatusCode::CREATED } else { StatusCode::OK };
    json(status, &body)
}

fn bulk_accepted(job: &Job, outcome: Enqueued) -> BulkAccepted<'_> {
    let (id, queue, task) = (job.id.as_str(), job.queue.as_str(), job.task.as_str());
    match outcome {
        Enqueued::Added => {
            let (state, due) = standing(job);
            BulkAccepted { id, queue, task, state: Some(state), due, added: true }
        }
        // Where the older job stands is another question: GET it.
        Enqueued::Exists => BulkAccepted { id, queue, task, state: None, due: None, added: false },
    }
}

/// Where a job stands that was just added.
fn standing(job: &Job) -> (State, Option<String>) {
    let state = if job.due.is_some() { State::Scheduled } else { State::Pending };
    (state, job.due.map(|due| due.to_string()))
}

/// Where the job can be read. `None` for an id that no header can hold.
fn location(id: &JobId) -> Option<HeaderValue> {
    let plain = id.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte));
    if plain { HeaderValue::from_str(&format!("/api/v1/jobs/{id}")).ok() } else { None }
}

/// The names under which a task can be asked for, as far as they are names.
fn names(task: &Task) -> impl Iterator<Item = &str> {
    let wire = task.names.iter().map(|NamePattern(pattern)| pattern.as_str()).filter(|name| !name.contains('*'));
    std::iter::once(task.name.as_str()).chain(wire)
}

/// The known name that was probably meant.
fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const PLAUSIBLE: f64 = 0.75;
    let given: String = given.chars().take(QUOTED).collect();
    known
        .map(|name| (strsim::jaro_winkler(&given, name), name))
        .filter(|(likeness, _)| *likeness >= PLAUSIBLE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// A wrong value as it is repeated to its sender: in quotes, and no longer than needed to recognise it.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
