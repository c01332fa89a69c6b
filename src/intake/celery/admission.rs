//! From a Celery message to a job, or to the reason why there is none.

use std::time::Duration;

use serde_json::{Value, json};

use super::message::{self, Message};
use super::refusal::Refusal;
use super::result::Exception;
use crate::broker::{Taken, Verdict};
use crate::config::{Task, bind};
use crate::intake::desk::Desk;
use crate::intake::refused::{Refused, call, unread};
use crate::job::{Cause, Job, JobId, Origin, Timestamp, Wire};

/// Reads the message and decides what it becomes.
pub(crate) fn verdict(desk: &Desk<'_>, taken: &Taken) -> Verdict {
    let message = match message::decode(&taken.element, desk.limits) {
        Ok(message) => message,
        Err(refusal) => return unreadable(desk, taken, &refusal),
    };
    let Some(task) = desk.config.task_named(&message.task) else {
        let reason = format!("no task of this configuration has the name {}; declare it in jobsd.toml", message.task);
        return refuse(desk, taken, &message, None, Cause::UnknownTask, "NotRegistered", reason);
    };
    if let Some(reason) = beyond_us(&message) {
        return refuse(desk, taken, &message, Some(task), Cause::Unreadable, "NotImplementedError", reason.to_owned());
    }
    if instant(message.expires_ms).is_some_and(|expires| expires < desk.now) {
        let reason = "the message had expired before it could start".to_owned();
        return refuse(desk, taken, &message, Some(task), Cause::Expired, "TaskRevokedError", reason);
    }
    let id = match JobId::parse(&message.id) {
        Ok(id) => id,
        Err(error) => {
            let reason = format!("the message's id cannot be used: {error}");
            return refuse(desk, taken, &message, Some(task), Cause::Unreadable, "InvalidTaskError", reason);
        }
    };
    match bind(task, &message.args, message.kwargs.clone()) {
        Ok(args) => Verdict::Job(Box::new(Job {
            id,
            queue: desk.queue.clone(),
            task: task.name.clone(),
            args,
            origin: origin(taken, reply_note(&message)),
            enqueued_at: desk.now,
            due: instant(message.eta_ms),
            timeout: message.time_limit.hard.filter(|limit| *limit > Duration::ZERO),
            retry: None,
        })),
        Err(error) => refuse(desk, taken, &message, Some(task), Cause::BadArguments, "TypeError", error.to_string()),
    }
}

/// What would have to happen at the task's end and cannot yet: refused as a whole rather than run by half.
fn beyond_us(message: &Message) -> Option<&'static str> {
    let due = |value: &Value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    let embed = &message.embed;
    (due(&embed.callbacks) || due(&embed.errbacks) || due(&embed.chain) || due(&embed.chord)).then_some(
        "the message is part of a chain or chord or has callbacks, which this version does not run; \
         send the tasks one by one",
    )
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
        cause: Cause::Unreadable,
        class: refusal.exception.exc_type.clone(),
        reason: refusal.reason.clone(),
        reply: note,
    };
    refused.verdict(desk.queue, desk.node, desk.now)
}

fn refuse(
    desk: &Desk<'_>,
    taken: &Taken,
    message: &Message,
    task: Option<&Task>,
    cause: Cause,
    class: &str,
    reason: String,
) -> Verdict {
    let mut note = reply_note(message);
    if cause == Cause::UnknownTask {
        note["exception"] = Exception::not_registered(&message.task).to_value();
    }
    let refused = Refused {
        wire: Wire::Celery,
        list: &taken.list,
        id: JobId::parse(&message.id).ok(),
        task: Some(&message.task),
        message: call(task, &message.args, &message.kwargs),
        cause,
        class: class.to_owned(),
        reason,
        reply: note,
    };
    refused.verdict(desk.queue, desk.node, desk.now)
}

/// What the answer needs later: see [`super::answer`].
fn reply_note(message: &Message) -> Value {
    json!({
        "id": message.id,
        "group": message.group,
        "parent": message.parent_id,
        "silent": message.ignore_result,
    })
}

fn origin(taken: &Taken, reply: Value) -> Origin {
    Origin::Wire { wire: Wire::Celery, list: taken.list.clone(), reply }
}

fn instant(millis: Option<i64>) -> Option<Timestamp> {
    millis.map(|millis| Timestamp::from_millis(u64::try_from(millis).unwrap_or(0)))
}
