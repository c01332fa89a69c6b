//! What became of a job, as RQ's clients read it: the status in the job's hash, the results stream, the registry.

use std::time::Duration;

use serde_json::Value;

use super::job::{DEFAULT_FAILURE_TTL, DEFAULT_RESULT_TTL, Serializer};
use super::result;
use super::roster::Ended;
use crate::broker::{OwedJob, RqEnding, RqSay};
use crate::job::{End, Mishap, MishapKind, Request, State, Timestamp};

/// Who asked for the end of a job, when one of RQ's clients did; by it the answer knows that it was stopped.
const STOPPED_BY: &str = "stop-job of an RQ client";
const KILLED_BY: &str = "kill-horse of an RQ client";

/// How RQ's own worker reports a job that was stopped, and one whose process was killed.
const STOPPED: &str = "Job stopped by user, work-horse terminated.";
const KILLED: &str = "Work-horse terminated unexpectedly; waitpid returned 9 (signal 9); ";

/// What one of RQ's clients asks of a running job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Stop,
    Kill,
}

impl Ask {
    pub(crate) fn request(self, at: Timestamp) -> Request {
        let by = match self {
            Self::Stop => STOPPED_BY,
            Self::Kill => KILLED_BY,
        };
        Request { at, by: by.to_owned(), reason: None }
    }

    /// What ended the job, if it was one of these.
    fn of(end: &End) -> Option<Self> {
        let reason = end.reason.as_deref()?;
        [Self::Stop, Self::Kill].into_iter().find(|ask| reason == format!("cancelled {}", ask.request(end.at).words()))
    }
}

/// What the producer of a job is told. `note` is what admission left for it, `ended` what is known of the attempt; without
/// that, another node ran it, and something of it may be shown. `listed` says whether RQ's registry of scheduled jobs is
/// ours to write. `None` for a job whose note cannot be read.
pub(crate) fn ending(
    owed: &OwedJob,
    note: &Value,
    ended: Option<&Ended>,
    listed: bool,
    now: Timestamp,
) -> Option<RqEnding> {
    note.get("id").and_then(Value::as_str)?;
    let end = owed.history.end.as_ref();
    let ttl = |name: &str, default: Duration| {
        note.get(name).and_then(Value::as_i64).unwrap_or(default.as_secs().cast_signed())
    };
    let (result_ttl, failure_ttl) = (ttl("result_ttl", DEFAULT_RESULT_TTL), ttl("failure_ttl", DEFAULT_FAILURE_TTL));
    let failed = |text: &str| (failure_ttl, Some(result::exc_string(text)));
    let text = |name: &str| note.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let say = say(owed, now, listed);
    let (keep, value) = match (say, end) {
        (RqSay::Finished, Some(end)) => {
            let json = note.get("json") == Some(&Value::Bool(true));
            let serializer = if json { Serializer::Json } else { Serializer::Pickle };
            (result_ttl, result::return_value(&end.result, serializer))
        }
        (RqSay::Stopped, _) => failed(STOPPED),
        (RqSay::Failed, _) => failed(&failure_text(owed)),
        _ => (failure_ttl, None),
    };
    let node = end.and_then(|end| end.node.as_ref());
    Some(RqEnding {
        say,
        queue: text("origin"),
        began: end.and_then(|end| end.started),
        ended: end.map_or(now, |end| end.at),
        worker: ended.map(|ended| ended.worker.clone()).or(node.map(ToString::to_string)).unwrap_or_default(),
        keep,
        value,
        retries_left: retries_left(owed),
        shown: ended.is_none_or(|ended| ended.shown),
        rate_limit: text("rate_limit"),
    })
}

fn say(owed: &OwedJob, now: Timestamp, listed: bool) -> RqSay {
    match &owed.history.end {
        None => {
            // RQ counts whole seconds, and nothing of ours begins before its time.
            let at = owed.again.filter(|again| *again > now).map(|again| again.as_millis().div_ceil(1000));
            RqSay::Retry { at, listed }
        }
        Some(end) if end.state == State::Completed => RqSay::Finished,
        Some(end) if end.state == State::Cancelled => match Ask::of(end) {
            Some(Ask::Stop) => RqSay::Stopped,
            Some(Ask::Kill) => RqSay::Failed,
            None => RqSay::Canceled(end.at.as_millis() / 1000),
        },
        Some(_) => RqSay::Failed,
    }
}

fn retries_left(owed: &OwedJob) -> Option<u32> {
    let retry = owed.job.retry.as_ref().filter(|_| owed.history.failures > 0)?;
    Some(retry.limit.saturating_sub(owed.history.failures))
}

/// What `exc_info` says of a job that has failed.
pub(super) fn failure_text(owed: &OwedJob) -> String {
    match &owed.history.end {
        Some(end) if Ask::of(end) == Some(Ask::Kill) => KILLED.to_owned(),
        _ => exc_info(owed, owed.history.mishaps.last()),
    }
}

/// The end of a Python traceback, which is what people and tools look for in `exc_info`.
fn exc_info(owed: &OwedJob, mishap: Option<&Mishap>) -> String {
    let Some(mishap) = mishap else { return "RuntimeError: the job ended without a word\n".to_owned() };
    let detail = mishap.detail.as_deref().map(|detail| format!("  {}\n", detail.trim_end().replace('\n', "\n  ")));
    let (name, message) = match (mishap.kind, owed.job.timeout) {
        // As RQ words it, where the limit came from its producer.
        (MishapKind::TimedOut, Some(limit)) => (
            "rq.timeouts.JobTimeoutException",
            format!("Task exceeded maximum timeout value ({} seconds)", limit.as_secs()),
        ),
        (MishapKind::TimedOut, None) => ("rq.timeouts.JobTimeoutException", mishap.message.clone()),
        _ => (mishap.name.as_str(), mishap.message.clone()),
    };
    format!("Traceback (most recent call last):\n{}{name}: {message}\n", detail.unwrap_or_default())
}
