//! A message that cannot be run, as a dead job: what came and why, so that a person can see it and run it later.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::broker::Verdict;
use crate::config::{BindError, Config, LimitError, RenderError, Task};
use crate::job::{
    Args, Cause, End, History, InvalidName, Job, JobId, Mishap, MishapKind, NodeId, Origin, Priority, QueueName, State,
    TaskName, Timestamp, Wire,
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
    pub(super) why: Why,
    /// The wire's note for the answer.
    pub(super) reply: Value,
}

/// Why a message cannot be run.
#[derive(Debug)]
pub(super) struct Why {
    pub(super) cause: Cause,
    /// The exception that the producer is told, and the sentence in it.
    class: String,
    reason: String,
}

impl Why {
    pub(super) fn new(cause: Cause, class: &str, reason: &str) -> Self {
        Self { cause, class: class.to_owned(), reason: reason.to_owned() }
    }

    pub(super) fn unknown_task(class: &str, name: &str) -> Self {
        let reason = format!("no task of this configuration has the name {name}; declare it in jobsd.toml");
        Self::new(Cause::UnknownTask, class, &reason)
    }

    pub(super) fn unfit_id(class: &str, error: &InvalidName) -> Self {
        Self::new(Cause::Unreadable, class, &format!("the message's id cannot be used: {error}"))
    }

    pub(super) fn bad_arguments(error: &BindError) -> Self {
        Self::new(Cause::BadArguments, "TypeError", &error.to_string())
    }

    /// A limit by which it could never start.
    pub(super) fn unfit_for_limit(error: &LimitError) -> Self {
        Self::new(Cause::BadArguments, "ValueError", &error.to_string())
    }

    pub(super) fn no_key(error: &RenderError) -> Self {
        Self::new(Cause::BadArguments, "ValueError", &format!("the task's unique key cannot be told: {error}"))
    }
}

/// Stands where a task's name would, when none could be read.
const NAMELESS: &str = "unreadable";

impl Refused<'_> {
    pub(super) fn verdict(self, queue: &QueueName, node: &NodeId, now: Timestamp) -> Verdict {
        tracing::error!(%queue, list = self.list, task = self.task, "a message cannot be run: {}", self.why.reason);
        let named = self.task.and_then(|name| TaskName::parse(name).ok());
        let mut args = Args::new();
        args.insert("message".to_owned(), self.message);
        let job = Job {
            id: self.id.unwrap_or_else(JobId::random),
            queue: queue.clone(),
            task: named.unwrap_or_else(|| TaskName::parse(NAMELESS).expect("a valid name")),
            buckets: Vec::new(),
            args,
            origin: Origin::Wire { wire: self.wire, list: self.list.to_owned(), reply: self.reply },
            enqueued_at: now,
            due: None,
            timeout: None,
            expires: None,
            retry: None,
            priority: Priority::default(),
            args_apart: None,
            unique: None,
            flow: None,
        };
        let mut history = History::default();
        history.note(Mishap {
            at: now,
            attempt: 0,
            node: node.clone(),
            kind: MishapKind::Failed,
            name: self.why.class,
            message: self.why.reason,
            args: None,
            detail: None,
        });
        let cause = Some(self.why.cause);
        history.end = Some(End {
            state: State::Dead,
            at: now,
            started: None,
            node: None,
            result: Value::Null,
            cause,
            reason: None,
        });
        Verdict::Refused(Box::new(job), Box::new(history))
    }
}

/// A message that could not be read; it is kept whole.
pub(super) fn unread(config: &Config, task: Option<&str>, bytes: &[u8]) -> Value {
    let task = task.and_then(|name| config.task_named(name)).map(|task| &**task);
    unseen_if_secret(config, task, raw(bytes))
}

/// A call that does not fit its task, or whose task is not known.
pub(super) fn call(config: &Config, task: Option<&Task>, args: &[Value], kwargs: &Args) -> Value {
    unseen_if_secret(config, task, json!({"args": args, "kwargs": kwargs}))
}

/// Nothing says which part of a message that was refused is a secret. So it stays unseen as a whole when its task has a
/// secret parameter or, where its task is not known (its name may only be misspelt), when any task has one: the name
/// `secret` keeps it masked wherever jobs are shown.
fn unseen_if_secret(config: &Config, task: Option<&Task>, message: Value) -> Value {
    let has_secret = |task: &Task| task.params.iter().any(|param| param.secret);
    let hidden = match task {
        Some(task) => has_secret(task),
        None => config.tasks.values().any(|task| has_secret(task)),
    };
    if hidden { json!({"secret": message}) } else { message }
}

/// Bytes, whole: as text where they are text.
fn raw(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => json!({"__type__": "base64", "__value__": STANDARD.encode(bytes)}),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::Param;
    use crate::testing::fixture;

    /// What used to happen: a reset mail whose task was misspelt showed its token, because no task was there to say
    /// which argument is secret.
    #[test]
    fn the_arguments_of_an_unknown_task_stay_unseen_where_secrets_exist() {
        let mut config = fixture::config(Path::new("/nowhere"));
        let args = [json!("ann@example.com"), json!("tok3n")];
        let shown = call(&config, None, &args, &Args::new());
        assert_eq!(shown, json!({"args": ["ann@example.com", "tok3n"], "kwargs": {}}), "no task has a secret");
        let mut task = fixture::task(Vec::new());
        task.params = vec![Param { secret: true, ..fixture::param("reset_token") }];
        config.tasks.insert(task.name.clone(), Arc::new(task));
        let shown = call(&config, None, &args, &Args::new());
        assert_eq!(shown, json!({"secret": {"args": ["ann@example.com", "tok3n"], "kwargs": {}}}));
    }
}
