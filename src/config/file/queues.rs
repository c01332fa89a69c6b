//! `[queues.NAME]`, and what must hold between queues.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::document::{Document, Item, Key, Table};
use super::limits;
use super::retry;
use super::scalar::{DAY, TIMEOUT};
use super::source::Place;
use super::tasks::Tasks;
use crate::config::{Batch, Concurrency, Limits, Queue, Retention};
use crate::job::{QueueName, Wire};

const COMPLETED_BYTES: u64 = 64 << 20;
const DEAD_BYTES: u64 = 256 << 20;

/// The queues of a file. A queue with problems in it is here too: a task may name it.
#[derive(Default)]
pub(super) struct Queues {
    pub(super) checked: BTreeMap<QueueName, Arc<Queue>>,
    /// Where each queue says which wires it reads.
    wires: BTreeMap<QueueName, Place>,
    /// Who reads a foreign list.
    readers: BTreeMap<(Wire, String), QueueName>,
    /// Where batches are asked for.
    batches: Vec<(QueueName, Place)>,
    /// Where weights are given.
    weights: Vec<Place>,
}

impl Queues {
    pub(super) fn read(doc: &Document<'_>, table: &Table<'_>) -> Self {
        let mut queues = Self::default();
        for (key, item) in table.entries() {
            let Some(name) = queue_name(doc, &key) else { continue };
            let Some(table) = item.table() else { continue };
            let queue = queues.queue(&name, &table);
            queues.checked.insert(name, Arc::new(queue));
        }
        queues
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.checked.keys().map(QueueName::as_str)
    }

    pub(super) fn read_foreign_lists(&self) -> bool {
        !self.readers.is_empty()
    }

    /// A foreign message names its task by a wire name; without any, every one of them would be refused.
    pub(super) fn need_wire_names(&self, doc: &Document<'_>) {
        for (name, place) in &self.wires {
            doc.error(
                place,
                format!("the queue `{name}` reads foreign lists, but no task has `names`"),
                "give the tasks the names their producers use: names = [\"module.function\"]",
            );
        }
    }

    /// A queue that asks for batches has a task that can do them.
    pub(super) fn need_batch_tasks(&self, doc: &Document<'_>, tasks: &Tasks) {
        for (name, place) in &self.batches {
            let mut own = tasks.checked.values().filter(|task| task.queue == *name);
            if tasks.are_all_checked() && !own.any(|task| task.takes_batches()) {
                doc.error(place, format!("no task of the queue `{name}` can do many jobs at once"), CAN_BATCH);
            }
        }
    }

    /// Weights divide what the node has, so without a bound there is nothing to divide.
    pub(super) fn weigh_nothing(&self, doc: &Document<'_>) {
        for place in &self.weights {
            let message = "`weight` has no effect: there is no bound on the node that queues would compete for";
            doc.warning(place, message, "give [node] a `concurrency`, or remove the weight");
        }
    }

    fn queue(&mut self, name: &QueueName, table: &Table<'_>) -> Queue {
        let lists = self.lists(name, table);
        let default = retry::default_policy();
        let queue = Queue {
            name: name.clone(),
            lists,
            concurrency: concurrency(table),
            timeout: table.duration("timeout", Duration::from_secs(300), TIMEOUT),
            retry: table.get("retry").map_or(default.clone(), |item| retry::policy(&item, &default)),
            crash_limit: table.integer("crash_limit", 3, 1..=1000),
            keep_completed: retention(
                table,
                "keep_completed",
                Retention { age: DAY, count: 10_000, bytes: COMPLETED_BYTES },
            ),
            keep_dead: retention(table, "keep_dead", Retention { age: DAY * 30, count: 10_000, bytes: DEAD_BYTES }),
            batch: table.get("batch").and_then(|item| batch(&item)),
            weight: table.integer("weight", 1, 1..=100),
            ageing: table.duration("ageing", Queue::AGEING, Duration::ZERO..=DAY * 365),
            limits: Limits::default(),
        };
        // Their templates see the parameters of tasks: they are read when the tasks are known.
        for key in limits::KEYS {
            table.get(key);
        }
        self.batches.extend(table.get("batch").map(|item| (name.clone(), item.key)));
        self.weights.extend(table.get("weight").map(|item| item.key));
        table.close();
        queue
    }

    /// Each list on each wire, lists in the operator's order.
    fn lists(&mut self, name: &QueueName, table: &Table<'_>) -> Vec<(Wire, String)> {
        let wires = table.get("wires").map(|item| (wires(&item), item));
        let lists = table.get("lists");
        let Some((wires, item)) = wires else {
            if let Some(lists) = lists {
                table.doc.error(
                    &lists.key,
                    "`lists` without `wires`",
                    "say who writes to them: wires = [\"celery\"] or [\"rq\"]",
                );
            }
            return Vec::new();
        };
        if !wires.is_empty() {
            self.wires.insert(name.clone(), item.key.clone());
        }
        let names = match &lists {
            Some(lists) => list_names(lists),
            None => vec![(name.to_string(), item.place.clone())],
        };
        let pairs: Vec<_> = names
            .iter()
            .flat_map(|(list, place)| wires.iter().map(move |wire| ((*wire, list.clone()), place)))
            .collect();
        for (pair, place) in &pairs {
            self.claim(table.doc, name, pair, place);
        }
        pairs.into_iter().map(|(pair, _)| pair).collect()
    }

    /// One reader a list: two would share its messages by chance.
    fn claim(&mut self, doc: &Document<'_>, name: &QueueName, pair: &(Wire, String), place: &Place) {
        let Some(other) = self.readers.insert(pair.clone(), name.clone()) else { return };
        let (wire, list) = (pair.0.as_str(), &pair.1);
        if other == *name {
            doc.error(place, format!("the {wire} list `{list}` is named twice"), "name it once");
        } else {
            doc.error(
                place,
                format!("the queues `{other}` and `{name}` both read the {wire} list `{list}`"),
                "let one of them read it; `lists` says which lists a queue reads",
            );
        }
    }
}

/// What can do many jobs at once.
pub(super) const CAN_BATCH: &str =
    "remove `batch`; these handlers can: `sql` with one statement INSERT … VALUES (…) without RETURNING, and `probe`";

/// `batch = { max = 500, wait = "200ms" }`.
pub(super) fn batch(item: &Item<'_>) -> Option<Batch> {
    let table = item.table()?;
    let max = table.integer("max", 500, 2..=500);
    let wait = table.duration("wait", Duration::from_millis(200), Duration::ZERO..=Duration::from_secs(10));
    table.close();
    Some(Batch { max, wait })
}

/// `concurrency = 10` or `concurrency = { min = 3, max = 10 }`.
fn concurrency(table: &Table<'_>) -> Concurrency {
    const SLOTS: RangeInclusive<i64> = *Concurrency::SLOTS.start() as i64..=*Concurrency::SLOTS.end() as i64;
    let default = Concurrency::fixed(10);
    let Some(item) = table.get("concurrency") else { return default };
    if !item.value.is_table() {
        let slots = item.integer(SLOTS).and_then(|slots| usize::try_from(slots).ok());
        return slots.map_or(default, Concurrency::fixed);
    }
    let Some(table) = item.table() else { return default };
    let min = table.integer("min", 1, SLOTS);
    let max = table.required("max", "say how many slots it may have at most: { min = 3, max = 10 }");
    let max = max.and_then(|item| item.integer(SLOTS)).and_then(|max| usize::try_from(max).ok());
    table.close();
    match max {
        Some(max) if min > max => {
            item.error(format!("`min` is {min} and `max` is {max}"), "give `max` the larger of the two numbers");
            default
        }
        Some(max) => Concurrency { min, max },
        None => default,
    }
}

fn wires(item: &Item<'_>) -> Vec<Wire> {
    let choices = Wire::ALL.map(|wire| (wire.as_str(), wire));
    let mut wires = Vec::new();
    for item in item.array("an array such as [\"celery\"] or [\"rq\"]").unwrap_or_default() {
        match item.choice(&choices) {
            Some(wire) if wires.contains(&wire) => {
                item.error(format!("the wire \"{}\" is named twice", wire.as_str()), "name it once")
            }
            Some(wire) => wires.push(wire),
            None => {}
        }
    }
    wires
}

fn list_names(item: &Item<'_>) -> Vec<(String, Place)> {
    if item.value.as_array().is_some_and(|items| items.is_empty()) {
        item.error("`lists` is empty", "name a list, or remove the key: then the list is called as the queue");
    }
    item.texts("[\"emails\", \"celery\"]").into_iter().map(|text| (text.text, text.place)).collect()
}

fn retention(table: &Table<'_>, key: &'static str, default: Retention) -> Retention {
    let Some(table) = table.get(key).and_then(|item| item.table()) else { return default };
    let retention = Retention {
        age: table.duration("age", default.age, Duration::ZERO..=DAY * 3650),
        count: table.integer("count", default.count, 0..=10_000_000),
        bytes: table.get("bytes").and_then(|item| item.size(0..=1 << 40)).unwrap_or(default.bytes),
    };
    table.close();
    retention
}

fn queue_name(doc: &Document<'_>, key: &Key) -> Option<QueueName> {
    QueueName::parse(&key.name)
        .map_err(|error| doc.error(&key.place, error.to_string(), "rename it, as in [queues.emails]"))
        .ok()
}
