//! One job as a client writes it: read, checked, and every mistake named with its place.
//!
//! Knows the fields of a job and what each may hold; putting jobs in is [`super::enqueue`]'s.

mod retry;
mod unique;

use std::collections::HashSet;
use std::time::Duration;

use chrono::DateTime;
use serde_json::{Map, Value};

use super::problem::{FieldError, Problem};
use crate::config::{Config, NamePattern, Task, bind, bind_except};
use crate::job::flow::reference::{self, is_reference};
use crate::job::flow::{Draft, IDS as FLOW_IDS};
use crate::job::{Args, Bucket, Job, JobId, Origin, Priority, QueueName, Timestamp};

/// Jobs in one request.
const BULK: usize = 1000;
/// Mistakes reported of one request; the first ones say enough.
const ERRORS: usize = 50;
/// How far ahead a job may be due.
const HORIZON: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 3600);
/// What the ids of a schedule's jobs start with: a job of such an id would stand in for a fire.
const SCHEDULE_IDS: &str = "cron:";
const AN_INSTANT: &str = "2026-12-24T18:00:00Z or 2026-12-24T13:00:00-05:00";
/// How much of a wrong value is repeated to the client.
const QUOTED: usize = 80;

/// The fields of one job.
const FIELDS: [&str; 11] =
    ["task", "args", "queue", "id", "in", "at", "timeout", "expires", "retry", "priority", "unique"];

/// A job that can be enqueued as it stands.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) job: Job,
    /// The client named the id, so it may be taken.
    pub(super) id_is_chosen: bool,
}

/// The only job of a request, or everything that is wrong with it.
pub(super) fn one(config: &Config, entry: &Map<String, Value>, now: Timestamp) -> Result<Entry, Problem> {
    let mut errors = Vec::new();
    let read = Fields { entry, at: String::new(), errors: &mut errors, in_flow: false }.read(config, now);
    read.ok_or_else(|| Problem::invalid(errors))
}

/// A job of a flow, at this place of the request. Its arguments may refer to results of others.
pub(super) fn draft(
    config: &Config,
    entry: &Map<String, Value>,
    at: &str,
    errors: &mut Vec<FieldError>,
    now: Timestamp,
) -> Option<Draft> {
    let given = |field: &str| entry.get(field).filter(|value| !value.is_null());
    let is_instant = |value: &Value| value.as_str().is_some_and(|text| instant(text).is_some());
    let (delayed, expires_later) = (given("in").is_some(), !given("expires").is_some_and(is_instant));
    let read = Fields { entry, at: at.to_owned(), errors, in_flow: true }.read(config, now)?;
    Some(Draft { job: read.job, delayed, expires_later })
}

/// The jobs of a bulk request, or everything that is wrong with them.
pub(super) fn several(config: &Config, entries: &[Value], now: Timestamp) -> Result<Vec<Entry>, Problem> {
    let whole = |detail: String| Problem::invalid(vec![FieldError { pointer: String::new(), detail }]);
    if entries.is_empty() {
        return Err(whole("the array is empty; there is nothing to enqueue".into()));
    }
    if entries.len() > BULK {
        return Err(whole(format!("the array has {} jobs; one request takes up to {BULK}", entries.len())));
    }
    let mut errors = Vec::new();
    let mut read = Vec::with_capacity(entries.len());
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
        let Some(entry) = (Fields { entry, at, errors: &mut errors, in_flow: false }).read(config, now) else {
            continue;
        };
        if !ids.insert(entry.job.id.clone()) {
            let detail = format!("the id {:?} stands twice in this request", entry.job.id.as_str());
            errors.push(FieldError { pointer: format!("/{index}/id"), detail });
        }
        read.push(entry);
    }
    if errors.is_empty() { Ok(read) } else { Err(Problem::invalid(errors)) }
}

/// Reads one entry; what is wrong is noted with its place.
struct Fields<'a> {
    entry: &'a Map<String, Value>,
    /// Pointer to the entry.
    at: String,
    errors: &'a mut Vec<FieldError>,
    /// A job of a flow: its arguments may be references to results, and nothing makes it unique.
    in_flow: bool,
}

impl Fields<'_> {
    /// The job, unless something is wrong with it.
    fn read(mut self, config: &Config, now: Timestamp) -> Option<Entry> {
        let before = self.errors.len();
        self.refuse_unknown_fields();
        let task = self.task(config);
        let args = task.and_then(|task| self.args(task));
        let queue = self.queue(config).or_else(|| task.map(|task| task.queue.clone()));
        let chosen = self.id();
        let unique = match task.zip(args.as_ref()) {
            Some((task, _)) if self.in_flow => self.refuse_unique(task),
            Some((task, args)) => self.unique(config, task, args),
            None => None,
        };
        let due = self.due(now);
        let wait = unique.as_ref().and_then(|unique| unique.rule.wait());
        let due = wait.map_or(due, |wait| Some(self.put_off(wait, now)));
        let timeout = self.duration("timeout", LONGEST_TIMEOUT);
        if timeout == Some(Duration::ZERO) {
            self.wrong("timeout", "a timeout of nothing would stop every attempt at once");
        }
        let priority = self.priority();
        let expires = self.expires(due.unwrap_or(now), now);
        let policy = task.and_then(|task| task.retry.as_ref());
        let base = policy.or_else(|| Some(&config.queues.get(queue.as_ref()?)?.retry));
        let retry = self.retry(base);
        let (task, args, queue) = (task?, args?, queue?);
        let buckets = self.buckets(config, &queue, task, &args);
        if self.errors.len() > before {
            return None;
        }
        let id_is_chosen = chosen.is_some();
        let id = chosen.unwrap_or_else(fresh_id);
        let expires = expires.or_else(|| task.expiry(due.unwrap_or(now)));
        let (task, origin, enqueued_at) = (task.name.clone(), Origin::Api, now);
        let (args_apart, flow) = (None, None);
        let job = Job {
            id,
            queue,
            task,
            buckets: buckets?,
            unique,
            flow,
            args,
            origin,
            enqueued_at,
            due,
            timeout,
            expires,
            retry,
            priority,
            args_apart,
        };
        Some(Entry { job, id_is_chosen })
    }

    fn wrong(&mut self, field: &str, detail: impl Into<String>) {
        self.wrong_at(&escaped(field), detail);
    }

    /// `place` is the rest of a pointer.
    fn wrong_at(&mut self, place: &str, detail: impl Into<String>) {
        let pointer = format!("{}/{place}", self.at);
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
        let open = |value: &Value| self.in_flow && is_reference(value);
        let bound = match self.entry.get("args") {
            None | Some(Value::Null) => bind(task, &[], Map::new()),
            Some(Value::Object(keyword)) => bind_except(task, &[], keyword.clone(), open),
            Some(Value::Array(positional)) => bind_except(task, positional, Map::new(), open),
            Some(_) => {
                self.wrong("args", "\"args\" must be an object (arguments by name) or an array (by position)");
                return None;
            }
        };
        bound.map_err(|error| self.wrong("args", error.to_string())).ok()
    }

    /// What it draws from. Where it refers to results, that is known only when its turn comes.
    fn buckets(&mut self, config: &Config, queue: &QueueName, task: &Task, args: &Args) -> Option<Vec<Bucket>> {
        if self.in_flow && !reference::find(args).is_empty() {
            return Some(Vec::new());
        }
        config.buckets(queue, &task.name, args).map_err(|error| self.wrong("args", error.to_string())).ok()
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

    /// The client's own id.
    fn id(&mut self) -> Option<JobId> {
        let text = self.text("id", "order-4711-receipt")?;
        match JobId::parse(&text) {
            Ok(_) if text.starts_with(FLOW_IDS) => {
                self.wrong("id", format!("ids that start with {FLOW_IDS:?} belong to the jobs of flows"));
                None
            }
            Ok(_) if text.starts_with(SCHEDULE_IDS) => {
                self.wrong("id", format!("ids that start with {SCHEDULE_IDS:?} belong to the schedules"));
                None
            }
            Ok(id) => Some(id),
            Err(error) => {
                self.wrong("id", error.to_string());
                None
            }
        }
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
            (None, Some(text)) => {
                let Some(at) = instant(&text) else {
                    self.wrong("at", format!("{} is not an RFC 3339 time; write {AN_INSTANT}", quoted(&text)));
                    return None;
                };
                if at > now.after(HORIZON) {
                    self.wrong("at", "a job may be due up to ten years ahead");
                }
                // All past ones mean at once.
                (at > now).then_some(at)
            }
            (None, None) => None,
        }
    }

    /// When a job is due that starts only when none of its kind has come for a while.
    fn put_off(&mut self, wait: Duration, now: Timestamp) -> Timestamp {
        for field in ["in", "at"] {
            if self.entry.get(field).is_some_and(|given| !given.is_null()) {
                let span = humantime::format_duration(wait);
                self.wrong(field, format!("the job is debounced: it starts {span} after the last one of its key"));
            }
        }
        now.after(wait)
    }

    /// After when the job is not worth starting: an instant, or a span from the time at which it is `due`.
    fn expires(&mut self, due: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let text = self.text("expires", "10m")?;
        let at = match (humantime::parse_duration(&text), instant(&text)) {
            (Ok(span), _) if span.is_zero() => {
                self.wrong("expires", "a job that expires at once would never start");
                return None;
            }
            (Ok(span), _) => due.after(span),
            (_, Some(at)) => at,
            (Err(_), None) => {
                let detail = format!("write a duration like \"10m\" or a time like {AN_INSTANT}");
                self.wrong("expires", format!("{} is no duration and no RFC 3339 time; {detail}", quoted(&text)));
                return None;
            }
        };
        if at <= now {
            self.wrong("expires", format!("{at} is past; the job would never start"));
        } else if at <= due {
            self.wrong("expires", format!("the job would expire before it is due, which is at {due}"));
        } else if at > due.after(HORIZON) {
            self.wrong("expires", "a job may expire up to ten years after it is due");
        }
        Some(at)
    }

    /// How urgent it is; as usual when nothing is said.
    fn priority(&mut self) -> Priority {
        let given = match self.entry.get("priority") {
            None | Some(Value::Null) => return Priority::default(),
            Some(given) => given,
        };
        let priority = given.as_i64().and_then(Priority::new);
        if priority.is_none() {
            let (first, last) = (Priority::RANGE.start(), Priority::RANGE.end());
            self.wrong(
                "priority",
                format!("\"priority\" must be a whole number from {first} (first) to {last} (last)"),
            );
        }
        priority.unwrap_or_default()
    }

    fn duration(&mut self, field: &'static str, longest: Duration) -> Option<Duration> {
        let text = self.text(field, "5m")?;
        match humantime::parse_duration(&text) {
            Ok(span) if span <= longest => return Some(span),
            Ok(_) => {
                let days = longest.as_secs() / (24 * 3600);
                self.wrong(field, format!("{} is too long; {field:?} may be up to {days} days", quoted(&text)));
            }
            Err(_) => {
                let examples = r#"write "90s", "5m" or "1h 30m""#;
                self.wrong(field, format!("{} is not a duration; {examples}", quoted(&text)));
            }
        }
        None
    }
}

/// An RFC 3339 time. Instants before 1970 are past, and so is its first one.
fn instant(text: &str) -> Option<Timestamp> {
    let at = DateTime::parse_from_rfc3339(text).ok()?;
    Some(Timestamp::from_millis(u64::try_from(at.timestamp_millis()).unwrap_or(0)))
}

/// A field's name inside a JSON pointer.
pub(super) fn escaped(field: &str) -> String {
    field.replace('~', "~0").replace('/', "~1")
}

fn fresh_id() -> JobId {
    JobId::parse(&uuid::Uuid::now_v7().to_string()).expect("a UUID is an id")
}

/// The names under which a task can be asked for, as far as they are names.
fn names(task: &Task) -> impl Iterator<Item = &str> {
    let wire = task.names.iter().map(|NamePattern(pattern)| pattern.as_str()).filter(|name| !name.contains('*'));
    std::iter::once(task.name.as_str()).chain(wire)
}

/// The known name that was probably meant.
pub(super) fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const PLAUSIBLE: f64 = 0.75;
    let given: String = given.chars().take(QUOTED).collect();
    known
        .map(|name| (strsim::jaro_winkler(&given, name), name))
        .filter(|(likeness, _)| *likeness >= PLAUSIBLE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// A wrong value as it is repeated to its sender: in quotes, and no longer than needed to recognise it.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
