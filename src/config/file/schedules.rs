//! `[schedules.NAME]`: when, and what with.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::TimeZone;
use croner::parser::{CronParser, Seconds, Year};
use serde_json::{Map, Value};

use super::diagnostic::{hint, nearest, quoted};
use super::document::{Document, Item, Table};
use super::queues::Queues;
use super::tasks::Tasks;
use crate::config::{CatchUp, Overlap, Schedule, Task, bind};
use crate::job::{Args, QueueName, TaskName};

const NICKNAMES: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

pub(super) fn read(
    doc: &Document<'_>,
    table: &Table<'_>,
    tasks: &Tasks,
    queues: &Queues,
    vars: &Map<String, Value>,
) -> BTreeMap<String, Arc<Schedule>> {
    let mut schedules = BTreeMap::new();
    for (key, item) in table.entries() {
        if let Err(error) = QueueName::parse(&key.name) {
            let message = error.to_string().replace("a queue name", "a schedule's name");
            doc.error(&key.place, message, "rename it, as in [schedules.nightly-cleanup]");
        }
        let Some(table) = item.table() else { continue };
        if let Some(schedule) = schedule(&key.name, &table, tasks, queues, vars) {
            schedules.insert(key.name, Arc::new(schedule));
        }
    }
    schedules
}

fn schedule(
    name: &str,
    table: &Table<'_>,
    tasks: &Tasks,
    queues: &Queues,
    vars: &Map<String, Value>,
) -> Option<Schedule> {
    let cron =
        table.required("cron", "add cron = \"0 3 * * *\": minute, hour, day of the month, month, day of the week");
    let cron = cron.and_then(|item| cron_expression(&item));
    let timezone = match table.get("timezone") {
        Some(item) => zone(&item),
        None => Some(chrono_tz::UTC),
    };
    let named = table.required("task", "say what to enqueue: task = \"NAME\"").and_then(|item| task_name(&item, tasks));
    let task = named.as_ref().and_then(|name| tasks.checked.get(name));
    let queue = table.get("queue").map(|item| queue(&item, queues));
    let args = args(table, task.map(Arc::as_ref));
    let overlaps = [("skip", Overlap::Skip), ("allow", Overlap::Allow)];
    let catch_ups = [("none", CatchUp::None), ("last", CatchUp::Last)];
    let overlap = table.choice("overlap", Overlap::Skip, &overlaps);
    let catch_up = table.choice("catch_up", CatchUp::Last, &catch_ups);
    table.close();
    let (task, (expression, cron)) = (task?, cron?);
    let (queue, args) = (queue.unwrap_or_else(|| Some(task.queue.clone()))?, args?);
    fits(table, task, &queue, &args, queues, vars);
    Some(Schedule {
        name: name.to_owned(),
        cron,
        expression,
        timezone: timezone?,
        task: task.name.clone(),
        queue,
        args,
        overlap,
        catch_up,
    })
}

fn cron_expression(item: &Item<'_>) -> Option<(String, croner::Cron)> {
    const HELP: &str = "write five fields: minute (0-59), hour (0-23), day of the month (1-31), month (1-12), day of the week (0-7, SUN-SAT)";
    let text = item.filled_text("a cron expression such as \"0 3 * * *\"")?.text;
    let fields = text.split_whitespace().count();
    let nickname = text.trim_start().starts_with('@');
    if nickname && !NICKNAMES.contains(&text.trim().to_lowercase().as_str()) {
        item.error(
            format!("{} is not a known abbreviation", quoted(&text)),
            hint(text.trim(), "abbreviation", NICKNAMES),
        );
        return None;
    }
    if !nickname && fields != 5 {
        let were = if fields == 1 { "is 1 field" } else { &format!("are {fields} fields") };
        item.error(format!("a cron expression has five fields, here {were}"), HELP);
        return None;
    }
    if !nickname && text.split_whitespace().take(2).any(|field| field.contains(|c: char| c.is_ascii_alphabetic())) {
        item.error(format!("the minute and the hour of {} are not numbers", quoted(&text)), HELP);
        return None;
    }
    // Wild text has no business in the parser of another.
    let sane = text.len() <= 200 && text.is_ascii();
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    let parsed = if sane {
        parser.parse(&text).map_err(|error| error.to_string())
    } else {
        Err("it holds unknown characters".into())
    };
    let cron = match parsed {
        Ok(cron) => cron,
        Err(error) => {
            let error = error.trim_start_matches("Component error: ").trim_end_matches('.');
            item.error(format!("{} is not a cron expression: {error}", quoted(&text)), HELP);
            return None;
        }
    };
    fires(item, &text, &cron);
    Some((text, cron))
}

/// An expression such as `0 0 30 2 *` is well formed and never comes true.
fn fires(item: &Item<'_>, text: &str, cron: &croner::Cron) {
    let start = chrono::Utc.with_ymd_and_hms(2024, 1, 1, 0, 0, 0).single();
    if start.is_some_and(|start| cron.find_next_occurrence(&start, true).is_err()) {
        item.error(format!("{} never comes true", quoted(text)), "choose a day that its month has");
    }
}

fn zone(item: &Item<'_>) -> Option<chrono_tz::Tz> {
    let text = item.filled_text("a time zone such as \"America/Nassau\"")?.text;
    if let Ok(zone) = text.parse() {
        return Some(zone);
    }
    let names = || chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
    let city =
        |zone: &&str| zone.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(&text.replace(' ', "_")));
    let help = match names().find(city).or_else(|| nearest(&text, names())) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => "write its IANA name, as in \"UTC\", \"America/Nassau\" or \"Europe/Berlin\"".into(),
    };
    item.error(format!("unknown time zone {}", quoted(&text)), help);
    None
}

fn task_name(item: &Item<'_>, tasks: &Tasks) -> Option<TaskName> {
    let text = item.filled_text("the name of a task")?.text;
    if !tasks.declared.contains(&text) {
        let help = hint(&text, "task", tasks.declared.iter().map(String::as_str));
        item.error(format!("there is no task {}", quoted(&text)), help);
    }
    TaskName::parse(&text).ok()
}

fn queue(item: &Item<'_>, queues: &Queues) -> Option<QueueName> {
    let text = item.filled_text("the name of a queue")?.text;
    let known = queues.checked.keys().find(|queue| queue.as_str() == text);
    if known.is_none() {
        item.error(format!("there is no queue {}", quoted(&text)), hint(&text, "queue", queues.names()));
    }
    known.cloned()
}

fn args(table: &Table<'_>, task: Option<&Task>) -> Option<Args> {
    let item = table.get("args");
    let given = match &item {
        Some(item) => item.object()?,
        None => Map::new(),
    };
    let place = item.map_or(table.place.clone(), |item| item.place);
    match bind(task?, &[], given) {
        Ok(args) => Some(args),
        Err(error) => {
            let params: Vec<&str> = task?.params.iter().map(|param| param.name.as_str()).collect();
            let help = match params.is_empty() {
                true => "the task has no parameters: remove `args`".to_owned(),
                false => format!("the task's parameters are: {}", params.join(", ")),
            };
            table.doc.error(&place, error.to_string(), help);
            None
        }
    }
}

/// A job that no limit would ever let start is better refused here than at each fire.
fn fits(table: &Table<'_>, task: &Task, queue: &QueueName, args: &Args, queues: &Queues, vars: &Map<String, Value>) {
    let Some(Err(error)) = queues.checked.get(queue).map(|queue| queue.limits.buckets(&task.name, args, vars)) else {
        return;
    };
    let place = table.get("args").map_or(table.place.clone(), |item| item.place);
    table.doc.error(&place, error.to_string(), "change `args`, or the limit of the queue or the task");
}
