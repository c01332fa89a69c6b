//! What became of a job, as the result document that `AsyncResult` reads: stored for the late reader and published for
//! the one who waits.

use std::time::Duration;

use serde_json::{Value, json};

use super::canvas::{Canvas, Draft, Failure};
use super::exception::{self, traceback, traceback_of_retry};
use super::result::{Document, Exception, Revocation, State};
use crate::broker::{Answer, Broker, BrokerError, Guard, OwedJob};
use crate::config::Config;
use crate::job::{Cause, End, History, NodeId, Origin, State as JobState, Timestamp};

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
        self.draft.look_again(broker, canvas, desk).await
    }
}

fn draft(owed: &OwedJob, note: &Value, canvas: Option<&Canvas>, desk: &Desk<'_>) -> Draft {
    let exception = exception(note, &owed.history);
    let text_of_traceback = text_of_traceback(owed, &exception);
    let traceback = text_of_traceback.as_deref();
    // Also a job that was put off: it waits for a further run, and its history says that nothing has failed.
    let state = match &owed.history.end {
        None => State::Retry { exception: &exception, traceback },
        Some(end) => ended(end, &exception, traceback),
    };
    let told = |draft, state, children: &[Value]| told(draft, note, &owed.history, canvas, state, children, desk);
    let mut draft = Draft::default();
    let (Some(canvas), State::Success { result, done }) = (canvas, state) else { return told(draft, state, &[]) };
    match canvas.succeed(&mut draft, result, desk) {
        Ok(children) => told(draft, state, &children),
        // As when a real worker cannot publish: the task has failed, although its work is done.
        Err(unfit) => {
            tracing::error!(job = %owed.job.id, "what follows it is not published: {unfit}");
            let exception = Exception::runtime_error(&unfit.to_string());
            told(draft, State::Failure { exception: &exception, traceback: None, done }, &[])
        }
    }
}

/// With the result, and with what a failure and a chord bring with them.
fn told(
    mut draft: Draft,
    note: &Value,
    history: &History,
    canvas: Option<&Canvas>,
    state: State<'_>,
    children: &[Value],
    desk: &Desk<'_>,
) -> Draft {
    if let (Some(canvas), State::Failure { exception, traceback, .. }) = (canvas, state) {
        canvas.fail(&mut draft, Failure { exception, traceback }, desk);
    }
    if let Some(canvas) = canvas.filter(|_| state.has_ended()) {
        canvas.tell(&mut draft, state.name(), state.result(), desk);
    }
    let text = |name: &str| note.get(name).and_then(Value::as_str);
    let Some(id) = text("id").filter(|_| note.get("silent") != Some(&Value::Bool(true))) else { return draft };
    // As Celery sees it, a task that is tried again publishes itself: it is its own child, and then its own parent.
    let parent_id = if is_a_repetition(history) { Some(id) } else { text("parent") };
    let itself = [json!([[id, null], null])];
    let children = if history.end.is_none() { &itself } else { children };
    let document = Document { task_id: id, group: text("group"), parent_id, children, state };
    desk.store(&mut draft.answer, id, &document, Said::UnderGuard);
    // As the real backend: a stored success stands, whatever comes later. What followed it was published before.
    draft.answer.guard = Guard::Unless { key: result_key(id), begins: SUCCESS };
    draft
}

/// Whether the guard of an answer concerns what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    UnderGuard,
    Always,
}

impl Said {
    pub(super) fn add(self, answer: &mut Answer, form: &'static str, values: &[&dyn AsRef<[u8]>]) {
        match self {
            Self::UnderGuard => answer.command(form, values),
            Self::Always => answer.other(form, values),
        }
    }
}

impl Desk<'_> {
    /// How long results are kept, and what belongs to them; `None`: for ever.
    pub(super) fn keep(&self) -> Option<Duration> {
        self.config.celery.result_expires
    }

    /// Stores a result and tells whoever waits for it.
    pub(super) fn store(&self, answer: &mut Answer, id: &str, document: &Document<'_>, said: Said) {
        let (key, bytes) = (result_key(id), document.encode());
        self.set(answer, &key, &bytes, said);
        said.add(answer, "PUBLISH {} {}", &[&key, &bytes]);
    }

    /// Sets a key for as long as results are kept.
    pub(super) fn set(&self, answer: &mut Answer, key: &str, value: &[u8], said: Said) {
        match self.keep() {
            Some(keep) => said.add(answer, "SETEX {} {} {}", &[&key, &whole_seconds(keep).to_string(), &value]),
            None => said.add(answer, "SET {} {}", &[&key, &value]),
        }
    }
}

/// The key of a result, and the channel it is published on.
pub(crate) fn result_key(id: &str) -> String {
    format!("celery-task-meta-{id}")
}

/// Nothing is kept for shorter than is said.
pub(super) fn whole_seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

/// Whether the producer was told RETRY before.
fn is_a_repetition(history: &History) -> bool {
    let failed_now = match &history.end {
        None => history.snoozed_last().is_none(),
        Some(end) => matches!(end.cause, Some(Cause::RetriesExhausted | Cause::NotRetryable | Cause::SnoozeLimit)),
    };
    let snoozed_now = history.snoozed_last().is_some();
    history.failures + history.snoozes > u32::from(failed_now) + u32::from(snoozed_now)
}

fn text_of_traceback(owed: &OwedJob, exception: &Exception) -> Option<String> {
    let history = &owed.history;
    let failed = history.mishaps.last().filter(|_| history.snoozed_last().is_none())?;
    let detail = failed.detail.as_deref();
    match owed.again.filter(|_| history.end.is_none()) {
        Some(again) => Some(traceback_of_retry(exception, detail, again.since(failed.at).as_secs_f64())),
        None => traceback(exception, detail),
    }
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

/// The exception that the client raises. One of a job that was put off is what `self.retry()` raises in a task. A class it
/// has imported comes as itself, any other as one of that name.
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
    exception::of(mishap, note.get("soft") == Some(&Value::Bool(true)))
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
            args: None,
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
