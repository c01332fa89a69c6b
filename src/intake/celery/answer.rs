//! What became of a job, as the result document that `AsyncResult` reads: stored for the late reader and published for
//! the one who waits.

use redis::Pipeline;
use serde_json::Value;

use super::result::{Document, Exception, Revocation, State};
use crate::broker::OwedJob;
use crate::job::{Cause, End, Mishap, State as JobState};

/// How long a result stays: Celery's own default for `result_expires`, in seconds.
const RESULT_EXPIRES: u64 = 86_400;

/// Adds the commands that write the answer. `stored` is what the result key holds already.
pub(crate) fn write(transaction: &mut Pipeline, owed: &OwedJob, note: &Value, stored: Option<&[u8]>) {
    let text = |name: &str| note.get(name).and_then(Value::as_str);
    let Some(id) = text("id").filter(|_| note.get("silent") != Some(&Value::Bool(true))) else { return };
    // As the real backend: a stored success stands, whatever comes later.
    if stored.is_some_and(is_success) {
        return;
    }
    let last = owed.history.mishaps.last();
    let exception = exception(note, last);
    let traceback = last.and_then(|mishap| mishap.detail.as_deref());
    let state = match &owed.history.end {
        None => State::Retry { exception: &exception, traceback },
        Some(end) => ended(end, &exception, traceback),
    };
    let document = Document { task_id: id, group: text("group"), parent_id: text("parent"), children: &[], state };
    let bytes = document.encode();
    let key = result_key(id);
    transaction.cmd("SETEX").arg(&key).arg(RESULT_EXPIRES).arg(&bytes).cmd("PUBLISH").arg(&key).arg(&bytes);
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

/// The exception that the client raises. A class it has imported comes as itself, any other as one of that name.
fn exception(note: &Value, mishap: Option<&Mishap>) -> Exception {
    if let Some(Value::Object(told)) = note.get("exception") {
        let text = |name: &str| told.get(name).and_then(Value::as_str).unwrap_or_default();
        let message = told.get("exc_message").and_then(Value::as_array).cloned().unwrap_or_default();
        return Exception::new(text("exc_module"), text("exc_type"), message);
    }
    let Some(mishap) = mishap else { return Exception::runtime_error("the job ended without a word") };
    let module = match mishap.name.as_str() {
        "TypeError" | "ValueError" | "RuntimeError" | "KeyError" | "NotImplementedError" | "OSError" => "builtins",
        "WorkerLostError" => return Exception::worker_lost(&mishap.message),
        "TimeLimitExceeded" => "billiard.exceptions",
        "NotRegistered" | "InvalidTaskError" => "celery.exceptions",
        _ => "jobsd",
    };
    Exception::new(module, &mishap.name, vec![mishap.message.as_str().into()])
}

fn is_success(document: &[u8]) -> bool {
    let status = serde_json::from_slice::<Value>(document).ok();
    status.is_some_and(|document| document.get("status").and_then(Value::as_str) == Some("SUCCESS"))
}
