//! What became of a job, as the result document that `AsyncResult` reads: stored for the late reader and published for
//! the one who waits.

use std::time::Duration;

use serde_json::{Value, json};

use super::exception::{self, traceback, traceback_of_retry};
use super::result::{Document, Exception, Revocation, State};
use crate::broker::{Answer, Guard, OwedJob};
use crate::job::{Cause, End, History, State as JobState};

/// How the document of a success begins; see [`super::result::Document`].
const SUCCESS: &str = "{\"status\": \"SUCCESS\"";

/// The answer to the producer of a job. `note` is what admission left for it; results are kept for `keep`, or for ever.
pub(crate) fn answer(owed: &OwedJob, note: &Value, keep: Option<Duration>) -> Answer {
    let text = |name: &str| note.get(name).and_then(Value::as_str);
    let mut answer = Answer::default();
    let Some(id) = text("id").filter(|_| note.get("silent") != Some(&Value::Bool(true))) else { return answer };
    let exception = exception(note, &owed.history);
    let text_of_traceback = text_of_traceback(owed, &exception);
    let traceback = text_of_traceback.as_deref();
    // Also a job that was put off: it waits for a further run, and its history says that nothing has failed.
    let state = match &owed.history.end {
        None => State::Retry { exception: &exception, traceback },
        Some(end) => ended(end, &exception, traceback),
    };
    // As Celery sees it, a task that is tried again publishes itself: it is its own child, and then its own parent.
    let parent_id = if is_a_repetition(&owed.history) { Some(id) } else { text("parent") };
    let itself = [json!([[id, null], null])];
    let children: &[Value] = if owed.history.end.is_none() { &itself } else { &[] };
    let document = Document { task_id: id, group: text("group"), parent_id, children, state };
    let (key, bytes) = (result_key(id), document.encode());
    match keep {
        Some(keep) => answer.command("SETEX {} {} {}", &[&key, &whole_seconds(keep).to_string(), &bytes]),
        None => answer.command("SET {} {}", &[&key, &bytes]),
    }
    answer.command("PUBLISH {} {}", &[&key, &bytes]);
    // As the real backend: a stored success stands, whatever comes later.
    answer.guard = Guard::Unless { key, begins: SUCCESS };
    answer
}

/// The key of a result, and the channel it is published on.
pub(crate) fn result_key(id: &str) -> String {
    format!("celery-task-meta-{id}")
}

/// Nothing is kept for shorter than is said.
fn whole_seconds(span: Duration) -> u64 {
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
