//! From a Celery message to a job, or to the reason why there is none.

use serde_json::{Value, json};

use super::canvas::{self, Malformed};
use super::message::{self, Embed, Message};
use super::refusal::Refusal;
use super::result::Exception;
use crate::broker::{Taken, Verdict};
use crate::config::{Task, bind};
use crate::intake::desk::Desk;
use crate::intake::refused::{Refused, Why, call, unread};
use crate::job::{Cause, Job, JobId, Origin, Priority, Timestamp, Wire};

/// Reads the message and decides what it becomes.
pub(crate) fn verdict(desk: &Desk<'_>, taken: &Taken) -> Verdict {
    let message = match message::decode(&taken.element, desk.limits) {
        Ok(message) => message,
        Err(refusal) => return unreadable(desk, taken, &refusal),
    };
    let task = desk.config.task_named(&message.task).map(|task| &**task);
    if let Err(malformed) = canvas::check(&message.embed) {
        return unfollowable(desk, taken, message, task, &malformed);
    }
    match accept(desk, taken, &message, task) {
        Ok(job) => Verdict::Job(Box::new(job)),
        Err(why) => refuse(desk, taken, &message, task, why),
    }
}

fn accept(desk: &Desk<'_>, taken: &Taken, message: &Message, task: Option<&Task>) -> Result<Job, Why> {
    let task = task.ok_or_else(|| Why::unknown_task("NotRegistered", &message.task))?;
    if instant(message.expires_ms).is_some_and(|expires| expires < desk.now) {
        return Err(Why::new(Cause::Expired, "TaskRevokedError", "the message had expired before it could start"));
    }
    let id = JobId::parse(&message.id).map_err(|error| Why::unfit_id("InvalidTaskError", &error))?;
    let args = bind(task, &message.args, message.kwargs.clone()).map_err(|error| Why::bad_arguments(&error))?;
    let buckets = desk.config.buckets(desk.queue, &task.name, &args).map_err(|error| Why::unfit_for_limit(&error))?;
    let unique = task.unique_of(&args, &desk.config.vars).map_err(|error| Why::no_key(&error))?;
    let debounced = unique.as_ref().and_then(|unique| unique.rule.wait()).map(|wait| desk.now.after(wait));
    let due = instant(message.eta_ms).max(debounced);
    Ok(Job {
        id,
        queue: desk.queue.clone(),
        task: task.name.clone(),
        buckets,
        unique,
        args,
        origin: Origin::Wire { wire: Wire::Celery, list: taken.list.clone(), reply: reply_note(message) },
        enqueued_at: desk.now,
        due,
        timeout: message.time_limit.shortest(),
        expires: instant(message.expires_ms).or_else(|| task.expiry(due.unwrap_or(desk.now))),
        retry: None,
        priority: Priority::new(i64::from(message.priority_step())).unwrap_or_default(),
        args_apart: None,
        flow: None,
    })
}

/// What is to follow the task is broken: then the task is not run either, rather than by half.
fn unfollowable(
    desk: &Desk<'_>,
    taken: &Taken,
    message: Message,
    task: Option<&Task>,
    malformed: &Malformed,
) -> Verdict {
    let reason = format!("what is to follow the task cannot be called: {malformed}");
    let message = Message { embed: Embed::default(), ..message };
    refuse(desk, taken, &message, task, Why::new(Cause::Unreadable, "InvalidTaskError", &reason))
}

fn unreadable(desk: &Desk<'_>, taken: &Taken, refusal: &Refusal) -> Verdict {
    let note = json!({
        "id": refusal.id,
        "group": refusal.group,
        "parent": refusal.parent_id,
        "silent": refusal.ignore_result || refusal.id.is_none(),
        "exception": refusal.exception.to_value(),
    });
    let refused = Refused {
        wire: Wire::Celery,
        list: &taken.list,
        id: refusal.id.as_deref().and_then(|id| JobId::parse(id).ok()),
        task: refusal.task.as_deref(),
        message: unread(desk.config, refusal.task.as_deref(), &taken.element),
        why: Why::new(Cause::Unreadable, &refusal.exception.exc_type, &refusal.reason),
        reply: note,
    };
    refused.verdict(desk.queue, desk.node, desk.now)
}

fn refuse(desk: &Desk<'_>, taken: &Taken, message: &Message, task: Option<&Task>, why: Why) -> Verdict {
    let mut note = reply_note(message);
    if why.cause == Cause::UnknownTask {
        note["exception"] = Exception::not_registered(&message.task).to_value();
    }
    let refused = Refused {
        wire: Wire::Celery,
        list: &taken.list,
        id: JobId::parse(&message.id).ok(),
        task: Some(&message.task),
        message: call(desk.config, task, &message.args, &message.kwargs),
        why,
        reply: note,
    };
    refused.verdict(desk.queue, desk.node, desk.now)
}

/// What the answer needs later: see [`super::answer`]. It stands in every record, so what is not there is left out.
fn reply_note(message: &Message) -> Value {
    let mut note = json!({"id": message.id});
    if let Some(group) = &message.group {
        note["group"] = group.as_str().into();
    }
    if let Some(parent) = &message.parent_id {
        note["parent"] = parent.as_str().into();
    }
    if message.ignore_result {
        note["silent"] = true.into();
    }
    if message.time_limit.is_soft() {
        note["soft"] = true.into();
    }
    for (name, value) in canvas::note(message) {
        note[name] = value;
    }
    note
}

fn instant(millis: Option<i64>) -> Option<Timestamp> {
    millis.map(|millis| Timestamp::from_millis(u64::try_from(millis).unwrap_or(0)))
}
