//! What became of a job, as the result document that `AsyncResult` reads: stored for the late reader and published for
//! the one who waits.

use serde_json::Value;

use super::canvas::{Canvas, Draft, Failure};
use super::result::{Document, Exception, Revocation, State};
use crate::broker::{Answer, Broker, BrokerError, Guard, OwedJob};
use crate::config::Config;
use crate::job::{Cause, End, History, NodeId, Origin, State as JobState, Timestamp};

/// A result stays for a day: Celery's own default for `result_expires`.
const STORE: &str = "SETEX {} 86400 {}";

/// How the document of a success begins; see [`super::result::Document`].
const SUCCESS: &str = "{\"status\": \"SUCCESS\"";

/// What an answer is made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Desk<'a> {
    pub(crate) config: &'a Config,
    pub(crate) node: &'a NodeId,
    pub(crate) now: Timestamp,
}

/// The answer to the producer of a job.
#[derive(Debug)]
pub(crate) struct Reply {
    draft: Draft,
    canvas: Option<Canvas>,
}

impl Reply {
    /// `note` is what admission left for it, `list` where the message stood.
    pub(crate) fn new(owed: &OwedJob, note: &Value, list: &str, desk: &Desk<'_>) -> Self {
        let canvas = Canvas::read(note, list);
        let draft = draft(owed, note, canvas.as_ref(), desk);
        Self { draft, canvas }
    }

    pub(crate) fn of(owed: &OwedJob, desk: &Desk<'_>) -> Self {
        match &owed.job.origin {
            Origin::Wire { list, reply: note, .. } => Self::new(owed, note, list, desk),
            // Only foreign jobs owe an answer.
            Origin::Api | Origin::Schedule { .. } => Self { draft: Draft::default(), canvas: None },
        }
    }

    pub(crate) fn answer(&self) -> &Answer {
        &self.draft.answer
    }

    /// A chord has become complete by it, or has not after all: makes what follows from that.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer.
    pub(crate) async fn look_again(&mut self, broker: &Broker, desk: &Desk<'_>) -> Result<(), BrokerError> {
        let Some(canvas) = &self.canvas else { return Ok(()) };
        self.draft.look_again(broker, canvas, &canvas.routes(desk), desk.now).await
    }
}

fn draft(owed: &OwedJob, note: &Value, canvas: Option<&Canvas>, desk: &Desk<'_>) -> Draft {
    let exception = exception(note, &owed.history);
    let failed = owed.history.mishaps.last().filter(|_| owed.history.snoozed_last().is_none());
    let traceback = failed.and_then(|mishap| mishap.detail.as_deref());
    // Also a job that was put off: it waits for a further run, and its history says that nothing has failed.
    let state = match &owed.history.end {
        None => State::Retry { exception: &exception, traceback },
        Some(end) => ended(end, &exception, traceback),
    };
    let mut draft = Draft::default();
    let (Some(canvas), State::Success { result, done }) = (canvas, state) else {
        return told(draft, note, canvas, state, &[], desk);
    };
    match canvas.succeed(&mut draft, result, &canvas.routes(desk), desk.now) {
        Ok(children) => told(draft, note, Some(canvas), state, &children, desk),
        // As when a real worker cannot publish: the task has failed, although its work is done.
        Err(unfit) => {
            tracing::error!(job = %owed.job.id, "what follows it is not published: {unfit}");
            let exception = Exception::runtime_error(&unfit.to_string());
            told(draft, note, Some(canvas), State::Failure { exception: &exception, traceback: None, done }, &[], desk)
        }
    }
}

/// With the result and what a failure and a chord bring with them.
fn told(
    mut draft: Draft,
    note: &Value,
    canvas: Option<&Canvas>,
    state: State<'_>,
    children: &[Value],
    desk: &Desk<'_>,
) -> Draft {
    if let (Some(canvas), State::Failure { exception, traceback, .. }) = (canvas, state) {
        canvas.fail(&mut draft, &Failure { exception, traceback, now: desk.now }, &canvas.routes(desk));
    }
    if let Some(canvas) = canvas.filter(|_| state.has_ended()) {
        canvas.tell(&mut draft, state.name(), state.result());
    }
    let text = |name: &str| note.get(name).and_then(Value::as_str);
    if let Some(id) = text("id").filter(|_| note.get("silent") != Some(&Value::Bool(true))) {
        let document = Document { task_id: id, group: text("group"), parent_id: text("parent"), children, state };
        store(&mut draft.answer, id, &document.encode(), true);
        // As the real backend: a stored success stands, whatever comes later. What followed it was published before.
        draft.answer.guard = Guard::Unless { key: result_key(id), begins: SUCCESS };
    }
    draft
}

/// Stores a result document and tells whoever waits for it.
pub(super) fn store(answer: &mut Answer, id: &str, document: &[u8], guarded: bool) {
    let key = result_key(id);
    for (form, values) in [(STORE, [&key as &dyn AsRef<[u8]>, &document]), ("PUBLISH {} {}", [&key, &document])] {
        if guarded { answer.command(form, &values) } else { answer.other(form, &values) }
    }
}

/// The key of a result, and the channel it is published on.
pub(crate) fn result_key(id: &str) -> String {
    format!("celery-task-meta-{id}")
}

fn ended<'a>(end: &'a End, exception: &'a Exception, traceback: Option<&'a str>) -> State<'a> {
    let done = end.at.to_utc();
    match (end.state, end.cause) {
        (JobState::Completed, _) => State::Success { result: &end.result, done },
        (JobState::Cancelled, _) => State::Revoked { revocation: Revocation::Revoked, done },
        (_, Some(Cause::Expired)) => State::Revoked { revocation: Revocation::Expired, done },
        _ => State::Failure { exception, traceback, done },
    }
}

/// The exception that the client raises. One of a job that was put off is what `self.retry()` raises in a task. A class it has imported comes as itself, any other as one of that name.
fn exception(note: &Value, history: &History) -> Exception {
    if let Some(snooze) = history.snoozed_last() {
        return Exception::new("celery.exceptions", "Retry", vec![snooze.reason.as_str().into()]);
    }
    if let Some(Value::Object(told)) = note.get("exception") {
        let text = |name: &str| told.get(name).and_then(Value::as_str).unwrap_or_default();
        let message = told.get("exc_message").and_then(Value::as_array).cloned().unwrap_or_default();
        return Exception::new(text("exc_module"), text("exc_type"), message);
    }
    let Some(mishap) = history.mishaps.last() else { return Exception::runtime_error("the job ended without a word") };
    let module = match mishap.name.as_str() {
        "TypeError" | "ValueError" | "RuntimeError" | "KeyError" | "NotImplementedError" | "OSError" => "builtins",
        "WorkerLostError" => return Exception::worker_lost(&mishap.message),
        "TimeLimitExceeded" => "billiard.exceptions",
        "NotRegistered" | "InvalidTaskError" => "celery.exceptions",
        _ => "jobsd",
    };
    Exception::new(module, &mishap.name, vec![mishap.message.as_str().into()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Mishap, MishapKind, NodeId, Snooze, Timestamp};

    /// As after `raise self.retry()` in a task.
    #[test]
    fn a_job_that_was_put_off_is_a_retry() {
        let failed = Mishap {
            at: Timestamp::from_millis(1),
            attempt: 1,
            node: NodeId::parse("vps-1").expect("a name"),
            kind: MishapKind::Failed,
            name: "Http503".into(),
            message: "busy".into(),
            detail: Some("<html>".into()),
        };
        let told = |snoozed_at| {
            let snooze =
                Some(Snooze { at: Timestamp::from_millis(snoozed_at), reason: "the feed is not ready".into() });
            let history = History { mishaps: vec![failed.clone()], snooze, ..History::default() };
            let exception = exception(&Value::Null, &history);
            (exception.exc_module, exception.exc_type, exception.exc_message)
        };
        let text = |module: &str, class: &str, words: &str| (module.to_owned(), class.to_owned(), vec![words.into()]);
        assert_eq!(told(2), text("celery.exceptions", "Retry", "the feed is not ready"));
        assert_eq!(told(0), text("jobsd", "Http503", "busy"), "the failure came later");
    }

    #[test]
    fn the_guard_knows_a_success_by_its_beginning() {
        let state = State::Success { result: &Value::Null, done: chrono::DateTime::UNIX_EPOCH };
        let document = Document { task_id: "t", group: None, parent_id: None, children: &[], state };
        assert!(document.encode().starts_with(SUCCESS.as_bytes()));
    }
}
