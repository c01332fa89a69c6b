//! Limits and fairness of a queue: how much of what may run at once, or start in a time; and which of a job's arguments
//! say whose it is.
//!
//! What a job draws from keyed limits is worked out here from its arguments; whether there is room is for the claim.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Config, Template, ValueTemplate};
use crate::job::{Args, Bucket, QueueName, TaskName, plain};

/// A window is held for longer than the operator says: by a part of it, within bounds. Between a claim and the first line
/// of a handler lie milliseconds, on a busy machine tens of them, and not always as many; whoever counts the starts there
/// must not see one too many either.
const SLACK: (u32, Duration, Duration) = (20, Duration::from_millis(100), Duration::from_millis(500));

/// Quanta of a window.
const QUANTA: u64 = 1000;

/// How a template writes an argument that is null.
const NULL: &str = "None";

/// What a queue's jobs are held to: its own limits and those of all tasks, whose jobs may come to any queue.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Limits {
    /// Jobs of the same value take turns with those of the others.
    pub fair_by: Option<Key>,
    pub all: Vec<Limit>,
    /// The same as every claim is told of it.
    told: Vec<String>,
}

/// One limit: all its bounds hold at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Limit {
    /// Whose jobs it bounds; `None`: all of the queue.
    pub task: Option<TaskName>,
    /// One bucket for each value. `None`: one for all.
    pub key: Option<Key>,
    /// Points in use at the same time, over all nodes.
    pub concurrency: Option<u64>,
    /// Points that start in any window, over all nodes; the shortest window first.
    pub rates: Vec<Rate>,
    pub points: Points,
}

/// No more than so many points in any window of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub points: u64,
    pub window: Duration,
}

/// How much one job takes of each bound.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Points {
    Each(u64),
    By(ValueTemplate),
}

/// What says whose a job is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub template: Template,
    /// A secret parameter takes part: its values are told from each other, and shown to nobody.
    pub is_secret: bool,
}

/// Why a job cannot be held to a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitError {
    #[error("the job takes {points} points of the limit {limit}, which has no more than {bound}: it could never start")]
    TooMany { limit: String, points: u64, bound: u64 },
    #[error("the points that the job takes of the limit {limit} must be a whole number from 1 on: {reason}")]
    Points { limit: String, reason: String },
}

impl Limits {
    pub(crate) fn new(fair_by: Option<Key>, all: Vec<Limit>) -> Self {
        let turns = if fair_by.is_some() { "1" } else { "" };
        let mut told = vec![turns.to_owned()];
        told.extend(all.iter().flat_map(Limit::told));
        if fair_by.is_none() && all.is_empty() {
            told.clear();
        }
        Self { fair_by, all, told }
    }

    /// What a claim has to know, as the script reads it; nothing where nothing is limited.
    pub(crate) fn told(&self) -> &[String] {
        &self.told
    }

    /// A start that comes later than this after its claim might not be in the window that it was counted in. `None`: no
    /// window is counted.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.all.iter().flat_map(|limit| &limit.rates).map(|rate| rate.slack() / 4).min()
    }

    /// Whether a claim has nothing to look at.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.fair_by.is_none()
    }

    /// Whether some jobs may wait while others of the same queue, behind them, could start.
    pub(crate) fn may_hold(&self) -> bool {
        self.fair_by.is_some() || self.all.iter().any(|limit| limit.key.is_some() || limit.task.is_some())
    }

    /// What a job of this task with these arguments draws from. A key without a value bounds nothing.
    ///
    /// # Errors
    /// [`LimitError`] when there is a limit by which it could never start.
    pub(crate) fn buckets(
        &self,
        task: &TaskName,
        args: &Args,
        vars: &Map<String, Value>,
    ) -> Result<Vec<Bucket>, LimitError> {
        let mut seen = Seen { args, vars, context: None };
        let mut buckets = Vec::new();
        for limit in self.all.iter().filter(|limit| limit.task.as_ref().is_none_or(|own| own == task)) {
            buckets.extend(limit.bucket(&mut seen)?);
        }
        if let Some(tenant) = &self.fair_by {
            buckets.push(Bucket::of_tenant(&tenant.value(&mut seen).unwrap_or_default()));
        }
        Ok(buckets)
    }
}

impl Limit {
    /// Its name in Redis: it says whose limit it is and by what key, and stays when only its bounds change.
    pub(crate) fn name(&self) -> String {
        let owner = self.task.as_ref().map_or("*", TaskName::as_str);
        match &self.key {
            None => owner.to_owned(),
            Some(key) => format!("{owner}/{}", plain(key.expression())),
        }
    }

    /// The most points that a job can take.
    pub(crate) fn smallest(&self) -> u64 {
        let rates = self.rates.iter().map(|rate| rate.points);
        rates.chain(self.concurrency).min().unwrap_or(u64::MAX)
    }

    /// What a job takes of it, where its record has to say so: the claim knows the rest.
    fn bucket(&self, seen: &mut Seen<'_>) -> Result<Option<Bucket>, LimitError> {
        let value = match &self.key {
            Some(key) => match key.value(seen) {
                Some(value) => Some((value, key.is_secret)),
                None => return Ok(None),
            },
            None => None,
        };
        let points = match &self.points {
            Points::Each(points) => *points,
            Points::By(template) => self.points_by(template, seen)?,
        };
        Ok(match (value, &self.points) {
            (Some((value, true)), _) => Some(Bucket::of_secret_key(&self.name(), &value, points)),
            (Some((value, false)), _) => Some(Bucket::of_key(&self.name(), &value, points)),
            (None, Points::By(_)) => Some(Bucket::of_limit(&self.name(), points)),
            (None, Points::Each(_)) => None,
        })
    }

    fn points_by(&self, template: &ValueTemplate, seen: &mut Seen<'_>) -> Result<u64, LimitError> {
        let wrong = |reason: String| LimitError::Points { limit: self.name(), reason };
        let value = template.render(seen.context()).map_err(|error| wrong(error.reason))?;
        let points = match &value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let points = points.filter(|&points| points > 0).ok_or_else(|| wrong(format!("they are {value}")))?;
        let bound = self.smallest();
        if points > bound {
            return Err(LimitError::TooMany { limit: self.name(), points, bound });
        }
        Ok(points)
    }

    /// Its bounds as the claim reads them: name, concurrency, points, how many windows, and the points and the length of
    /// each.
    fn told(&self) -> Vec<String> {
        let points = match self.points {
            Points::Each(points) => points.to_string(),
            Points::By(_) => String::new(),
        };
        let concurrency = self.concurrency.map(|most| most.to_string()).unwrap_or_default();
        let mut told = vec![self.name(), concurrency, points, self.rates.len().to_string()];
        for rate in &self.rates {
            told.extend([rate.points.to_string(), rate.millis().to_string()]);
        }
        told
    }
}

impl Rate {
    /// The length of its window as it is kept, in milliseconds.
    pub(crate) fn millis(&self) -> u64 {
        u64::try_from((self.window + self.slack()).as_millis()).unwrap_or(u64::MAX)
    }

    /// How much longer than the operator says its window is kept.
    fn slack(&self) -> Duration {
        let (part, least, most) = SLACK;
        (self.window / part).clamp(least, most)
    }

    /// Starts are counted by quanta of this length (see `broker/scripts/lib/windows.lua`), in milliseconds.
    pub(crate) fn quantum(&self) -> u64 {
        (self.millis() / QUANTA).max(1)
    }

    /// What has started in a window has started in this era of this length or in the one before, in milliseconds.
    pub(crate) fn era(&self) -> u64 {
        self.millis() + self.quantum()
    }
}

impl Key {
    /// The value for a job; `None` when it has none.
    fn value(&self, seen: &mut Seen<'_>) -> Option<String> {
        // Most keys are a parameter, which needs no template engine.
        let value = match seen.args.get(self.expression()) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Bool(flag)) => flag.to_string(),
            Some(Value::Null) => return None,
            // A job of another task, without such a parameter, has no value: `jobsd check` has asked those of the queue.
            _ => self.template.render(seen.context()).ok().filter(|text| !text.trim().eq_ignore_ascii_case(NULL))?,
        };
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// What stands between the braces, where that is all; else the whole template.
    fn expression(&self) -> &str {
        let source = self.template.source().trim();
        let inner = source.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
        inner.filter(|inner| !inner.contains("{{")).map_or(source, str::trim)
    }
}

/// What templates see, put together when the first one asks.
struct Seen<'a> {
    args: &'a Args,
    vars: &'a Map<String, Value>,
    context: Option<Value>,
}

impl Seen<'_> {
    fn context(&mut self) -> &Value {
        self.context.get_or_insert_with(|| {
            let mut context = self.args.clone();
            context.insert("vars".to_owned(), json!(self.vars));
            Value::Object(context)
        })
    }
}

impl Config {
    /// What a job of this task in this queue draws from.
    ///
    /// # Errors
    /// [`LimitError`] when there is a limit by which it could never start.
    pub(crate) fn buckets(&self, queue: &QueueName, task: &TaskName, args: &Args) -> Result<Vec<Bucket>, LimitError> {
        match self.queues.get(queue) {
            Some(queue) if !queue.limits.is_empty() => queue.limits.buckets(task, args, &self.vars),
            _ => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(key: &str) -> Limits {
        let key = Key { template: Template::parse(key).expect("a template"), is_secret: false };
        let limit = Limit { task: None, key: Some(key), concurrency: Some(1), rates: vec![], points: Points::Each(1) };
        Limits::new(None, vec![limit])
    }

    fn drawn(limits: &Limits, args: Value) -> Vec<String> {
        let task = TaskName::parse("call").expect("a name");
        let vars = json!({"plan": "basic"}).as_object().cloned().expect("an object");
        let args = args.as_object().cloned().expect("an object");
        limits.buckets(&task, &args, &vars).expect("it fits").into_iter().map(String::from).collect()
    }

    #[test]
    fn a_job_draws_from_the_bucket_of_its_value_if_it_has_one() {
        let by_user = limits("{{ user }}");
        for (user, bucket) in [
            (json!("ann"), "*/user/ann"),
            (json!(41), "*/user/41"),
            (json!(true), "*/user/true"),
            (json!("a b"), "*/user/a%20b"),
            (json!("none"), "*/user/none"),
        ] {
            assert_eq!(drawn(&by_user, json!({"user": user})), [bucket]);
        }
        for nobody in [json!({"user": null}), json!({"user": "  "}), json!({"other": 1})] {
            assert_eq!(drawn(&by_user, nobody), Vec::<String>::new());
        }
        assert_eq!(drawn(&limits("{{ user | default('') }}"), json!({"user": null})), Vec::<String>::new());
        let both = limits("{{ vars.plan }}-{{ user | default('') }}");
        assert_eq!(drawn(&both, json!({"user": 7}))[0].rsplit_once('/').map(|(_, value)| value), Some("basic-7"));
    }

    #[test]
    fn a_tenant_without_a_name_has_a_line_too() {
        let key = limits("{{ user }}").all[0].key.clone();
        let fair = Limits::new(key, vec![]);
        assert_eq!(drawn(&fair, json!({"user": "ann"})), ["~ann"]);
        assert_eq!(drawn(&fair, json!({})), ["~"]);
    }

    #[test]
    fn the_values_of_a_secret_are_shown_to_nobody() {
        let mut secret = limits("{{ token }}");
        secret.all[0].key.as_mut().expect("it has one").is_secret = true;
        let drawn = drawn(&secret, json!({"token": "hunter2"}));
        assert!(drawn[0].starts_with("*/token/") && !drawn[0].contains("hunter2"), "{drawn:?}");
    }

    #[test]
    fn a_window_is_held_a_little_longer_than_it_says() {
        let held = |seconds| Rate { points: 1, window: Duration::from_secs(seconds) }.millis();
        assert_eq!((held(1), held(4), held(3600)), (1100, 4200, 3_600_500));
    }
}
