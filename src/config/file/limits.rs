//! `limit` of a queue or a task, and `fair_by` of a queue.
//!
//! The templates of a task's limits are checked with its parameters; those of a queue's limits with the parameters of
//! each task whose jobs wait in the queue, once all tasks are known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use toml::de::DeValue;

use super::diagnostic::quoted;
use super::document::{Item, Table};
use super::scalar::{DAY, show};
use super::scope::Scope;
use crate::config::{Key, Limit, Limits, Param, Points, Queue, Rate, Task, Template, ValueTemplate};
use crate::job::{QueueName, TaskName};

/// The keys of a queue that are read when the tasks are known.
pub(super) const KEYS: [&str; 2] = ["limit", "fair_by"];

/// Limits that one queue or task may have, and windows of one limit.
const MOST: usize = 10;
/// What a bound may be.
const BOUND: std::ops::RangeInclusive<i64> = 1..=1_000_000;
const SECOND: Duration = Duration::from_secs(1);
const A_RATE: &str = "a rate such as \"20/min\", \"500/h\" or \"5/30s\"";

/// The limits of a task.
pub(super) fn of_task(name: &TaskName, table: &Table<'_>, params: &[Param], vars: &Map<String, Value>) -> Vec<Limit> {
    let Some(item) = table.get("limit") else { return Vec::new() };
    let scope = Scope { task: name.as_str(), params, vars, steps: 0 };
    limits(&item, Some(name), &[scope])
}

/// Puts the limits in force: the queues' own, and those of all tasks in every queue.
pub(super) fn of_queues(
    table: &Table<'_>,
    queues: &mut BTreeMap<QueueName, Arc<Queue>>,
    tasks: &BTreeMap<TaskName, Arc<Task>>,
    vars: &Map<String, Value>,
) {
    let of_tasks: Vec<Limit> = tasks.values().flat_map(|task| task.limits.iter().cloned()).collect();
    for (key, item) in table.entries() {
        // Whatever else is wrong with it was reported when it was read.
        let Some(queue) = queues.get_mut(key.name.as_str()).filter(|_| item.value.is_table()) else { continue };
        let Some(table) = item.table() else { continue };
        let scope = |task: &'_ Arc<Task>| task.queue.as_str() == key.name;
        let scopes: Vec<Scope<'_>> = tasks
            .values()
            .filter(|task| scope(task))
            .map(|task| Scope { task: task.name.as_str(), params: &task.params, vars, steps: 0 })
            .collect();
        let mut all = table.get("limit").map(|item| limits(&item, None, &scopes)).unwrap_or_default();
        all.extend(of_tasks.iter().cloned());
        let fair_by = table.get("fair_by").and_then(|item| self::key(&item, &scopes));
        Arc::make_mut(queue).limits = Limits::new(fair_by, all);
    }
}

/// One limit, or an array of them.
fn limits(item: &Item<'_>, task: Option<&TaskName>, scopes: &[Scope<'_>]) -> Vec<Limit> {
    let items = match item.value {
        DeValue::Array(_) => item.array("an array of limits").unwrap_or_default(),
        DeValue::Table(_) => vec![item.clone()],
        _ => {
            item.mismatch("a table such as { concurrency = 20 } or { rate = [\"20/min\", \"500/h\"] }");
            Vec::new()
        }
    };
    if items.len() > MOST {
        item.error(format!("there are {} limits, allowed are up to {MOST}", items.len()), "leave out what never binds");
    }
    let mut limits: Vec<Limit> = Vec::new();
    for item in items {
        let Some(limit) = item.table().map(|table| limit(&table, task, scopes)) else { continue };
        if limits.iter().any(|other| other.name() == limit.name()) {
            let what = if limit.key.is_some() { "the same key" } else { "no key" };
            let help = "put both bounds into one: { concurrency = 2, rate = [\"20/min\", \"500/h\"] }";
            item.doc.error(&item.key, format!("two limits with {what}"), help);
        }
        limits.push(limit);
    }
    limits
}

fn limit(table: &Table<'_>, task: Option<&TaskName>, scopes: &[Scope<'_>]) -> Limit {
    let concurrency = table.get("concurrency").and_then(|item| bound(&item));
    let rate = table.get("rate");
    let rates = rate.as_ref().map(rates).unwrap_or_default();
    let key = table.get("key").and_then(|item| self::key(&item, scopes));
    let written = table.get("points");
    let points = written.as_ref().map_or(Points::Each(1), |item| points(item, scopes));
    if concurrency.is_none() && rate.is_none() && !table.has("concurrency") {
        let help = "add concurrency = 2 (running at once) or rate = \"20/min\" (starts in any minute)";
        table.doc.error(&table.place, "the limit bounds nothing", help);
    }
    table.close();
    let limit = Limit { task: task.cloned(), key, concurrency, rates, points };
    if let (Points::Each(points), Some(item)) = (&limit.points, &written)
        && *points > limit.smallest()
    {
        let message = format!("a job takes {points} points, and the limit has no more than {}", limit.smallest());
        item.error(format!("{message}: none could ever start"), "take fewer points, or raise the bound");
    }
    limit
}

fn bound(item: &Item<'_>) -> Option<u64> {
    item.integer(BOUND).and_then(|bound| u64::try_from(bound).ok())
}

/// A template that says whose a job is.
fn key(item: &Item<'_>, scopes: &[Scope<'_>]) -> Option<Key> {
    let text = item.filled_text("a template such as \"{{ user_id }}\"")?.text;
    let template = item.template()?;
    if !text.contains("{{") && !text.contains("{%") {
        item.error(
            format!("{} is the same for every job", quoted(&text)),
            "name a parameter: \"{{ user_id }}\"; without a key the limit holds for all jobs together",
        );
        return None;
    }
    // Without a value it is not limited.
    check(item, &template, scopes, "''");
    Some(Key { is_secret: is_secret(&template, scopes), template })
}

fn points(item: &Item<'_>, scopes: &[Scope<'_>]) -> Points {
    if item.value.is_str() {
        let template = item.value_template();
        template.iter().flat_map(ValueTemplate::templates).for_each(|template| check(item, template, scopes, "1"));
        return match template {
            Some(ValueTemplate::Plain(_)) => {
                item.error(
                    "`points` is neither a number nor a template",
                    "write points = 2 or points = \"{{ size }}\"",
                );
                Points::Each(1)
            }
            Some(template) => Points::By(template),
            None => Points::Each(1),
        };
    }
    Points::Each(bound(item).unwrap_or(1))
}

fn check(item: &Item<'_>, template: &Template, scopes: &[Scope<'_>], stand_in: &str) {
    // One task that lacks a parameter says it for all.
    let _ = scopes.iter().all(|scope| scope.limit(item, template, stand_in));
}

fn is_secret(template: &Template, scopes: &[Scope<'_>]) -> bool {
    let roots = || template.lookups().map(|lookup| lookup.split('.').next().unwrap_or_default());
    let secret = |scope: &Scope<'_>, name: &str| scope.params.iter().any(|param| param.secret && param.name == name);
    scopes.iter().any(|scope| roots().any(|name| secret(scope, name)))
}

/// One rate or several, the shortest window first.
fn rates(item: &Item<'_>) -> Vec<Rate> {
    let items = match item.value {
        DeValue::Array(_) => item.array("an array of rates").unwrap_or_default(),
        _ => vec![item.clone()],
    };
    if !(1..=MOST).contains(&items.len()) {
        item.error(format!("there are {} rates, allowed are 1 to {MOST}", items.len()), format!("give {A_RATE}"));
    }
    let mut rates: Vec<(Rate, Item<'_>)> = Vec::new();
    for item in items {
        let Some(rate) = rate(&item) else { continue };
        rates.push((rate, item));
    }
    rates.sort_by_key(|(rate, _)| rate.window);
    for pair in rates.windows(2) {
        contradict(&pair[0].0, &pair[1].0, &pair[1].1);
    }
    rates.into_iter().map(|(rate, _)| rate).collect()
}

/// Two windows of which one makes the other pointless.
fn contradict(short: &Rate, long: &Rate, item: &Item<'_>) {
    let (a, b) = (told(short), told(long));
    if short.window == long.window {
        item.error(format!("two rates for the same window: {a} and {b}"), "keep the lower one");
    } else if short.points >= long.points {
        let message = format!("{a} never binds, because {b} allows no more in a longer window");
        item.error(message, "lower the first, raise the second, or leave the first out");
    } else if u128::from(short.points) * long.window.as_millis().div_ceil(short.window.as_millis())
        <= u128::from(long.points)
    {
        let message = format!("{b} never binds: {a} does not allow so many");
        item.doc.warning(&item.place, message, "lower it, or leave it out");
    }
}

fn told(rate: &Rate) -> String {
    format!("{} in {}", rate.points, show(rate.window))
}

fn rate(item: &Item<'_>) -> Option<Rate> {
    if let DeValue::Integer(number) = item.value {
        item.error(
            format!("expected {A_RATE}, found the integer {number}"),
            format!("say in what time: \"{number}/min\""),
        );
        return None;
    }
    let text = item.filled_text(A_RATE)?.text;
    let Some((points, window)) = text.split_once('/') else {
        item.error(format!("{} has no time", quoted(&text)), format!("say in what time: {A_RATE}"));
        return None;
    };
    let number = points.trim().parse::<i64>().ok().filter(|points| BOUND.contains(points));
    let Some(points) = number.and_then(|points| u64::try_from(points).ok()) else {
        let (least, most) = (BOUND.start(), BOUND.end());
        item.error(
            format!("{} in {} is no number from {least} to {most}", quoted(points.trim()), quoted(&text)),
            format!("give {A_RATE}; to let nothing start, pause the queue or the task"),
        );
        return None;
    };
    let Some(window) = span(window.trim()) else {
        let message = format!("{} in {} is no time", quoted(window.trim()), quoted(&text));
        item.error(message, "write s, min, h or d, or a duration such as 30s or 2m");
        return None;
    };
    if !(SECOND..=DAY).contains(&window) {
        let message = format!(
            "the window of {} is {}, allowed is {} to {}",
            quoted(&text),
            show(window),
            show(SECOND),
            show(DAY)
        );
        item.error(message, "choose a window from a second to a day");
        return None;
    }
    Some(Rate { points, window })
}

/// `min`, `h`, `30s`.
fn span(text: &str) -> Option<Duration> {
    Some(match text {
        "s" | "sec" | "second" => SECOND,
        "m" | "min" | "minute" => SECOND * 60,
        "h" | "hour" => SECOND * 3600,
        "d" | "day" => DAY,
        _ => humantime::parse_duration(text).ok()?,
    })
}
