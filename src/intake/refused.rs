//! A message that cannot be run, as a dead job: what came and why, so that a person can see it and run it later.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::broker::Verdict;
use crate::config::{Config, Task};
use crate::job::{
    Args, Cause, End, History, Job, JobId, Mishap, MishapKind, NodeId, Origin, QueueName, State, TaskName, Timestamp,
    Wire,
};

/// What is known of a message that is refused.
#[derive(Debug)]
pub(super) struct Refused<'a> {
    pub(super) wire: Wire,
    pub(super) list: &'a str,
    /// The producer's id, when it could be read and can be ours.
    pub(super) id: Option<JobId>,
    /// The producer's name for the task, when it could be read.
    pub(super) task: Option<&'a str>,
    pub(super) message: Value,
    pub(super) cause: Cause,
    /// The exception that the producer is told, and the sentence in it.
    pub(super) class: String,
    pub(super) reason: String,
    /// The wire's note for the answer.
    pub(super) reply: Value,
}

/// Stands where a task's name would, when none could be read.
const NAMELESS: &str = "unreadable";

impl Refused<'_> {
    pub(super) fn verdict(self, queue: &QueueName, node: &NodeId, now: Timestamp) -> Verdict {
        tracing::error!(%queue, list = self.list, task = self.task, "a message cannot be run: {}", self.reason);
        let named = self.task.and_then(|name| TaskName::parse(name).ok());
        let mut args = Args::new();
        args.insert("message".to_owned(), self.message);
        let job = Job {
            id: self.id.unwrap_or_else(JobId::random),
            queue: queue.clone(),
            task: named.unwrap_or_else(|| TaskName::parse(NAMELESS).expect("a valid name")),
            args,
            origin: Origin::Wire { wire: self.wire, list: self.list.to_owned(), reply: self.reply },
            enqueued_at: now,
            due: None,
            timeout: None,
            retry: None,
        };
        let mut history = History::default();
        history.note(Mishap {
            at: now,
            attempt: 0,
            node: node.clone(),
            kind: MishapKind::Failed,
            name: self.class,
            message: self.reason,
            detail: None,
        });
        let cause = Some(self.cause);
        history.end = Some(End { state: State::Dead, at: now, started: None, node: None, result: Value::Null, cause });
        Verdict::Refused(Box::new(job), Box::new(history))
    }
}

/// A message that could not be read. Nothing says what in it is a secret, so it stays unseen when its task has one or,
/// where its task is not known, when any task has; it is kept whole all the same.
pub(super) fn unread(config: &Config, task: Option<&str>, bytes: &[u8]) -> Value {
    let has_secret = |task: &Task| task.params.iter().any(|param| param.secret);
    let hidden = match task.and_then(|name| config.task_named(name)) {
        Some(task) => has_secret(task),
        None => config.tasks.values().any(|task| has_secret(task)),
    };
    if hidden { json!({"secret": raw(bytes)}) } else { raw(bytes) }
}

/// Bytes, whole: as text where they are text.
fn raw(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => json!({"__type__": "base64", "__value__": STANDARD.encode(bytes)}),
    }
}

/// A call that does not fit its task. When one of the task's parameters is a secret, nothing says which of the values
/// is it, so all of them stay unseen: the name `secret` keeps them masked wherever jobs are shown.
pub(super) fn call(task: Option<&Task>, args: &[Value], kwargs: &Args) -> Value {
    let secret = task.is_some_and(|task| task.params.iter().any(|param| param.secret));
    if secret { json!({"secret": {"args": args, "kwargs": kwargs}}) } else { json!({"args": args, "kwargs": kwargs}) }
}
