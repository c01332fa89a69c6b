//! Which jobs are meant: by state, queue, task, text, failure and time.
//!
//! What is looked for is looked for in what may be shown: nobody finds a secret out by searching for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::entry::{nearest, quoted};
use super::fields::Fields;
use crate::config::{Config, JobSecrets, NamePattern};
use crate::job::{QueueName, State, TaskName, Timestamp};
use crate::store::{Listed, Span, Standing};

/// The fields of a filter, in a query and in a body.
pub(super) const FIELDS: [&str; 7] = ["state", "queue", "task", "q", "error", "before", "after"];
/// Longest text that is looked for.
const LONGEST: usize = 200;

#[derive(Debug, Clone)]
pub(super) struct Filter {
    /// Empty: nothing is said.
    pub(super) states: Vec<State>,
    /// Of these queues: the one that is named, or all of the configuration.
    pub(super) queues: Vec<QueueName>,
    pub(super) names_queue: bool,
    pub(super) span: Span,
    task: Option<TaskName>,
    /// In lower case.
    text: Option<String>,
    error: Option<NamePattern>,
}

impl Filter {
    /// Mistakes are noted in `fields`.
    pub(super) fn read(fields: &mut Fields<'_>, config: &Config, now: Timestamp) -> Self {
        let states = states(fields);
        let queue = fields.queue(config);
        let task = task(fields, config);
        let text = fields.text("q", "ann@example.com").map(|text| text.to_lowercase());
        if text.as_ref().is_some_and(|text| text.chars().count() > LONGEST) {
            fields.wrong("q", format!("\"q\" may have {LONGEST} characters"));
        }
        let error = fields.text("error", "Smtp*").map(NamePattern);
        let (from, until) = (fields.instant("after", now), fields.instant("before", now));
        if from.zip(until).is_some_and(|(from, until)| from >= until) {
            fields.wrong("before", "nothing lies between: \"before\" must be later than \"after\"");
        }
        let names_queue = queue.is_some();
        let queues = queue.map_or_else(|| config.queues.keys().cloned().collect(), |queue| vec![queue]);
        Self { states, queues, names_queue, span: Span { from, until }, task, text, error }
    }

    /// Whether a record must be read to know if it is meant.
    pub(super) fn looks_inside(&self) -> bool {
        let timed = self.span != Span::default();
        self.task.is_some() || self.text.is_some() || self.error.is_some() || timed
    }

    /// Whether this job is meant. One whose record cannot be read is meant where nothing is asked of it.
    pub(super) fn means(&self, listed: &Listed, config: &Config) -> bool {
        let Some(standing) = &listed.standing else { return !self.looks_inside() };
        self.task.as_ref().is_none_or(|task| *task == standing.job.task)
            && self.span.holds(time_of(standing))
            && self.error.as_ref().is_none_or(|pattern| failed_by(standing, pattern))
            && self.text.as_ref().is_none_or(|text| holds(standing, config, text))
    }
}

/// The time that counts in a job's state: when it ended, since when it runs or waits, or when it is due.
pub(super) fn time_of(standing: &Standing) -> Timestamp {
    let ended = standing.history.end.as_ref().map(|end| end.at);
    let started = standing.active.as_ref().map(|active| active.started);
    started.or(standing.due).or(ended).unwrap_or(standing.job.enqueued_at)
}

fn states(fields: &mut Fields<'_>) -> Vec<State> {
    let mut states = BTreeSet::new();
    for name in fields.texts("state", "dead") {
        match State::ALL.iter().position(|state| state.as_str() == name) {
            Some(at) => drop(states.insert(at)),
            None => {
                let names = State::ALL.map(State::as_str);
                let near = nearest(&name, names.into_iter());
                let hint = near.map_or_else(
                    || format!("states are {}", names.join(", ")),
                    |near| format!("did you mean {near:?}?"),
                );
                fields.wrong("state", format!("{} is no state; {hint}", quoted(&name)));
            }
        }
    }
    states.into_iter().map(|at| State::ALL[at]).collect()
}

/// A task by its own name or a producer's. One that is not configured any more may still have jobs.
fn task(fields: &mut Fields<'_>, config: &Config) -> Option<TaskName> {
    let name = fields.text("task", "send_welcome_email")?;
    if let Some(task) = config.tasks.get(name.as_str()).or_else(|| config.task_named(&name)) {
        return Some(task.name.clone());
    }
    TaskName::parse(&name).map_err(|error| fields.wrong("task", error.to_string())).ok()
}

fn failed_by(standing: &Standing, pattern: &NamePattern) -> bool {
    standing.history.mishaps.last().is_some_and(|mishap| pattern.matches(&mishap.name))
}

/// Whether the id, the task, the arguments or the last failure hold the text. Arguments that stand beside the record are
/// not looked into.
fn holds(standing: &Standing, config: &Config, text: &str) -> bool {
    let job = &standing.job;
    let has = |hay: &str| hay.to_lowercase().contains(text);
    if has(job.id.as_str()) || has(job.task.as_str()) {
        return true;
    }
    if job.args_apart.is_some() {
        return false;
    }
    let secrets = JobSecrets::of(config.tasks.get(&job.task).map(Arc::as_ref), &job.args);
    let last = standing.history.mishaps.last();
    has(&secrets.args().to_string())
        || last.is_some_and(|mishap| has(&secrets.text(&mishap.name)) || has(&secrets.text(&mishap.message)))
}
