//! `[tasks.NAME]`, and what must hold between tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::diagnostic::{hint, quoted};
use super::document::{Document, Item, Key, Table};
use super::limits;
use super::params;
use super::queues::{self, CAN_BATCH, Queues};
use super::retry;
use super::scalar::{TIMEOUT, YEAR};
use super::scope::Scope;
use super::source::Place;
use super::steps::{self, HANDLERS, Surroundings};
use super::unique::unique;
use crate::config::{BatchRule, NamePattern, Param, Step, Task};
use crate::job::{QueueName, TaskName};

/// Bounds of how long a job is worth starting.
const EXPIRES: RangeInclusive<Duration> = Duration::from_secs(1)..=YEAR;

/// The tasks of a file.
#[derive(Default)]
pub(super) struct Tasks {
    /// Those without problems of their own.
    pub(super) checked: BTreeMap<TaskName, Arc<Task>>,
    /// Every task that the operator named, so that a task with a problem is not also called unknown.
    pub(super) declared: BTreeSet<String>,
    /// Who has a wire name.
    names: BTreeMap<String, String>,
}

/// What a task is checked against.
pub(super) struct Context<'a> {
    pub(super) queues: &'a Queues,
    pub(super) vars: &'a Map<String, Value>,
    pub(super) around: Surroundings<'a>,
}

impl Tasks {
    pub(super) fn read(doc: &Document<'_>, table: &Table<'_>, context: &Context<'_>) -> Self {
        let mut tasks = Self::default();
        for (key, item) in table.entries() {
            tasks.declared.insert(key.name.clone());
            let Some(name) = task_name(doc, &key) else { continue };
            let Some(table) = item.table() else { continue };
            if let Some(task) = tasks.task(&name, &table, context) {
                tasks.checked.insert(name, Arc::new(task));
            }
        }
        if tasks.names.is_empty() {
            context.queues.need_wire_names(doc);
        }
        tasks
    }

    fn task(&mut self, name: &TaskName, table: &Table<'_>, context: &Context<'_>) -> Option<Task> {
        let names = self.wire_names(name, table, context);
        let queue = queue(table, context.queues);
        let params = table.get("params").map(|item| params::params(&item)).unwrap_or_default();
        let timeout = table.get("timeout").and_then(|item| item.duration(TIMEOUT));
        let base = queue.as_ref().and_then(|queue| context.queues.checked.get(queue)).map(|queue| queue.retry.clone());
        let base = base.unwrap_or_else(retry::default_policy);
        let retry = table.get("retry").map(|item| retry::policy(&item, &base));
        let batch = table.get("batch");
        let expires = table.get("expires").and_then(|item| item.duration(EXPIRES));
        let limits = limits::of_task(name, table, &params, context.vars);
        // A key may name what no step has made: that is told by `key` itself, better than as a missing step.
        let before = Scope { task: name.as_str(), params: &params, vars: context.vars, steps: 1 };
        let unique = table.get("unique").map(|item| unique(&item, &before));
        let steps = all_steps(name, table, &params, context);
        let scope = Scope { task: name.as_str(), params: &params, vars: context.vars, steps: steps.len().max(1) };
        let result = table.get("result").map(|item| scope.value(&item));
        table.close();
        let rule = batch.as_ref().and_then(batch_rule).unwrap_or(BatchRule::AsQueue);
        let steps = steps.into_iter().collect::<Option<Vec<_>>>()?;
        let (name, unique, result) = (name.clone(), unique.flatten(), result.flatten());
        let queue = queue?;
        let task =
            Task { name, names, queue, params, timeout, retry, expires, limits, unique, batch: rule, steps, result };
        if let (BatchRule::Own(_), Some(item), false) = (rule, batch, task.takes_batches()) {
            table.doc.error(&item.key, format!("the task `{}` cannot do many jobs at once", task.name), CAN_BATCH);
        }
        Some(task)
    }

    /// Whether no task had problems of its own.
    pub(super) fn are_all_checked(&self) -> bool {
        self.checked.len() == self.declared.len()
    }

    fn wire_names(&mut self, task: &TaskName, table: &Table<'_>, context: &Context<'_>) -> Vec<NamePattern> {
        let Some(item) = table.get("names") else { return Vec::new() };
        let names = item.texts("[\"backend.tasks.send_mail\"]");
        if !names.is_empty() && !context.queues.read_foreign_lists() {
            let message = "no queue reads a foreign list, so nobody calls the task by these names";
            table.doc.warning(&item.key, message, "add wires = [\"celery\"] or [\"rq\"] to the queue");
        }
        for name in &names {
            self.claim(table.doc, task, &name.text, &name.place);
        }
        names.into_iter().map(|name| NamePattern(name.text)).collect()
    }

    fn claim(&mut self, doc: &Document<'_>, task: &TaskName, name: &str, place: &Place) {
        if name.len() > 512 || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            doc.error(
                place,
                format!("{} cannot be a wire name", quoted(name)),
                "write it as producers do: \"module.function\"",
            );
        }
        match self.names.insert(name.to_owned(), task.to_string()) {
            Some(other) if other == task.as_str() => {
                doc.error(place, format!("the name {} is given twice", quoted(name)), "give it once")
            }
            Some(other) => doc.error(
                place,
                format!("the tasks `{other}` and `{task}` both have the name {}", quoted(name)),
                "keep it in one of them; which task a producer means must be clear",
            ),
            None => {}
        }
    }
}

/// `batch = false` or `batch = { max = 500, wait = "200ms" }`.
fn batch_rule(item: &Item<'_>) -> Option<BatchRule> {
    if item.value.is_table() {
        return queues::batch(item).map(BatchRule::Own);
    }
    match item.boolean()? {
        false => Some(BatchRule::Never),
        true => {
            item.error("`batch = true` does not say how many", "write batch = { max = 500, wait = \"200ms\" }");
            None
        }
    }
}

fn queue(table: &Table<'_>, queues: &Queues) -> Option<QueueName> {
    let item = table.required("queue", "say where its jobs wait: queue = \"emails\"")?;
    let text = item.filled_text("the name of a queue")?.text;
    let known = queues.checked.keys().find(|queue| queue.as_str() == text);
    if known.is_none() {
        item.error(format!("there is no queue {}", quoted(&text)), hint(&text, "queue", queues.names()));
    }
    known.cloned()
}

/// The steps, with `None` for one that has problems.
fn all_steps(name: &TaskName, table: &Table<'_>, params: &[Param], context: &Context<'_>) -> Vec<Option<Step>> {
    let scope = |steps| Scope { task: name.as_str(), params, vars: context.vars, steps };
    let listed = table.get("steps");
    let single = HANDLERS.iter().find(|handler| table.has(handler));
    let first = steps::step(table, &scope(0), &context.around);
    match (listed, single) {
        (Some(item), Some(single)) => {
            table.doc.error(
                &item.key,
                format!("`{single}` and `steps` are both given"),
                format!("move `{single}` into the list"),
            );
            vec![None]
        }
        (Some(item), None) => {
            let read = |(at, item)| listed_step(&item, &scope(at), &context.around);
            many(&item).into_iter().enumerate().map(read).collect()
        }
        (None, Some(_)) => vec![first],
        (None, None) => {
            let message = format!("the task `{name}` does nothing");
            table.doc.error(&table.place, message, format!("add one of {}, or steps = [{{ … }}]", HANDLERS.join(", ")));
            vec![None]
        }
    }
}

fn many<'d>(item: &Item<'d>) -> Vec<Item<'d>> {
    let items = item.array("an array of steps such as [{ sql = { … } }, { push = { … } }]").unwrap_or_default();
    if item.value.is_array() && !(1..=steps::MOST).contains(&items.len()) {
        item.error(
            format!("there are {} steps, allowed is 1 to {}", items.len(), steps::MOST),
            "name what is to be done",
        );
    }
    items
}

fn listed_step(item: &Item<'_>, scope: &Scope<'_>, around: &Surroundings<'_>) -> Option<Step> {
    let table = item.table()?;
    if !HANDLERS.iter().any(|handler| table.has(handler)) {
        item.error("the step names no handler", format!("add one of {}", HANDLERS.join(", ")));
    }
    let step = steps::step(&table, scope, around);
    table.close();
    step
}

fn task_name(doc: &Document<'_>, key: &Key) -> Option<TaskName> {
    let named = TaskName::parse(&key.name);
    named
        .map_err(|error| {
            doc.error(&key.place, error.to_string(), "rename it; the names that producers use stand in `names`")
        })
        .ok()
}
