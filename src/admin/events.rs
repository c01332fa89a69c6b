//! `GET /api/v1/jobs/{id}/events`: a job as it goes on, as server-sent events, on any node.
//!
//! `state`, `progress` and `line` events, first those that bring the client up to date, then each as it happens; `end`
//! when the job has ended, and then the stream ends. Redis tells of changes by the broker's watch (client-side caching):
//! nobody publishes for listeners that are not there, an idle node asks nothing, and a notice that is lost costs some
//! seconds. A change of the queue's notes wakes every follower of the queue, so each looks at most four times a second,
//! however chatty the jobs beside its own are.
//!
//! The id of an event is the number of the last line sent; a client that comes back with it goes on behind that line.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::http::request::Parts;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::answer::{Answer, events, nothing};
use super::job;
use super::notes;
use super::problem::Problem;
use crate::broker::Broker;
use crate::config::Config;
use crate::job::{JobId, Notes, QueueName, Source, State};
use crate::store::{LinkError, Place, Standing};

/// What a client that came back names, and what follows the number once the job has ended.
const LAST: &str = "last-event-id";
const ENDED: &str = ".end";
/// Silence after which a comment shows that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Between two looks of one follower.
const PACE: Duration = Duration::from_millis(250);
/// However silent Redis is: a notice may be lost with its connection.
const LOOK: Duration = Duration::from_secs(5);

/// One client that follows one job.
pub(super) struct Follower {
    broker: Arc<Broker>,
    queue: QueueName,
    id: JobId,
    /// The key of the set that held the job when it was looked at last: whatever happens to it changes that set.
    set: String,
    /// Redis has told of a change.
    changed: Arc<Notify>,
    stop: CancellationToken,
    /// The last line that was sent.
    sent: u64,
    /// The state and the progress as they were sent last.
    told: (Value, Value),
    looked: Option<Instant>,
    over: bool,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.broker.watch.forget(&self.changed);
    }
}

/// `GET /api/v1/jobs/{id}/events`.
pub(super) async fn answer(shared: &Shared, config: &Config, id: &str, head: &Parts) -> Result<Answer, Problem> {
    let standing = job::find(shared, config, id).await?;
    let last = head.headers.get(LAST).and_then(|last| last.to_str().ok()).unwrap_or_default();
    if last.ends_with(ENDED) && standing.state().has_ended() {
        // A browser comes back for ever, unless it is told that there is nothing more.
        return Ok(nothing(StatusCode::NO_CONTENT));
    }
    let Ok(permit) = Arc::clone(&shared.followers).try_acquire_owned() else {
        return Err(Problem::unavailable(
            "too many clients follow jobs now; GET jobs/ID and jobs/ID/log answer at once",
        ));
    };
    let broker = Arc::clone(&shared.parts.broker);
    let follower = Follower {
        set: set_of(&broker, &standing),
        broker,
        queue: standing.job.queue,
        id: standing.job.id,
        changed: Arc::default(),
        stop: shared.stop.clone(),
        sent: last.strip_suffix(ENDED).unwrap_or(last).parse().unwrap_or(0),
        told: (Value::Null, Value::Null),
        looked: None,
        over: false,
        _permit: permit,
    };
    Ok(events(follower))
}

impl Follower {
    /// The next events, or a comment when there were none for a while; `None` when the stream is over.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let silent = Instant::now() + HEARTBEAT;
        loop {
            if let Some(looked) = self.looked {
                let changed = Arc::clone(&self.changed);
                tokio::select! {
                    () = self.stop.cancelled() => return None,
                    () = tokio::time::sleep_until(silent) => return Some(Bytes::from_static(b": still there\n\n")),
                    () = changed.notified() => tokio::time::sleep_until(looked + PACE).await,
                    () = tokio::time::sleep_until(looked + LOOK) => {}
                }
            }
            let first = self.looked.replace(Instant::now()).is_none();
            let mut told = if first { "retry: 2000\n\n".to_owned() } else { String::new() };
            match self.look(&mut told).await {
                Ok(()) => {}
                // It is looked at again: a Redis that is away comes back.
                Err(error) => {
                    let _ = write!(told, ": {}\n\n", error.to_string().replace(['\n', '\r'], " "));
                }
            }
            if !told.is_empty() {
                return Some(Bytes::from(told));
            }
        }
    }

    /// Looks at the job and writes down what is new.
    async fn look(&mut self, told: &mut String) -> Result<(), LinkError> {
        let store = Arc::clone(&self.broker.store);
        // Armed before the look: whatever comes after the look, the watch tells.
        self.arm().await?;
        let standing = store.job(&self.id, std::slice::from_ref(&self.queue)).await?;
        let set = standing.as_ref().map_or_else(|| self.set.clone(), |standing| set_of(&self.broker, standing));
        if set != self.set {
            // It has moved, so the wrong set is watched: once more, with the right one.
            self.set = set;
            self.changed.notify_one();
        }
        // After the state: whoever sees the end sees all the lines before it.
        let notes = store.notes(&self.queue, &self.id).await?;
        let Some(standing) = standing else {
            self.over = true;
            event(told, "gone", "", &json!({"detail": "the job was deleted"}));
            return Ok(());
        };
        let state = state(&standing);
        if state != self.told.0 && !standing.state().has_ended() {
            event(told, "state", &self.sent.to_string(), &state);
            self.told.0 = state.clone();
        }
        let progress = serde_json::to_value(notes::progress(&notes)).unwrap_or_default();
        if progress != self.told.1 && !progress.is_null() {
            event(told, "progress", &self.sent.to_string(), &progress);
            self.told.1 = progress;
        }
        self.tell_lines(&notes, told);
        if standing.state().has_ended() {
            self.over = true;
            event(told, "end", &format!("{}{ENDED}", self.sent), &state);
        }
        Ok(())
    }

    fn tell_lines(&mut self, notes: &Notes, told: &mut String) {
        #[derive(Serialize)]
        struct Told<'a> {
            number: u64,
            attempt: u32,
            at: String,
            source: Source,
            text: &'a str,
        }
        if self.sent > notes.said() {
            // The job was deleted and put in again, or what it had said was lost.
            self.sent = 0;
        }
        let first = notes.lines().next().map_or(notes.said() + 1, |(number, ..)| number);
        if self.sent + 1 < first {
            let lines = first - 1 - self.sent;
            self.sent = first - 1;
            event(told, "left_out", &self.sent.to_string(), &json!({"lines": lines}));
        }
        for (number, section, line) in notes.lines().filter(|(number, ..)| *number > self.sent).collect::<Vec<_>>() {
            self.sent = number;
            let (attempt, at) = (section.attempt, line.at.to_string());
            event(
                told,
                "line",
                &number.to_string(),
                &Told { number, attempt, at, source: line.source, text: &line.text },
            );
        }
    }

    async fn arm(&self) -> Result<(), LinkError> {
        let keys = self.broker.store.keys.queue(&self.queue);
        self.broker.watch.forget(&self.changed);
        self.broker.watch.arm(&self.changed, std::slice::from_ref(&self.set), &[], &keys.notes).await.map(drop)
    }
}

fn set_of(broker: &Broker, standing: &Standing) -> String {
    let keys = broker.store.keys.queue(&standing.job.queue);
    match standing.place {
        Place::Active => keys.active,
        Place::Purged => keys.trash,
        place => place.key(&keys).unwrap_or(keys.jobs),
    }
}

/// What a state event and the end tell.
fn state(standing: &Standing) -> Value {
    let mut told = json!({"state": standing.state()});
    if standing.state() == State::Active || standing.state() == State::Completed {
        told["attempt"] = standing.history.next_attempt().into();
    }
    if let Some(active) = &standing.active {
        told["node"] = active.node.as_str().into();
        told["started"] = active.started.to_string().into();
    } else if let (Some(due), false) = (standing.due, standing.state().has_ended()) {
        told["due"] = due.to_string().into();
    }
    if let Some(end) = &standing.history.end {
        told["at"] = end.at.to_string().into();
        told["cause"] = json!(end.cause);
    }
    told
}

/// One event; its data is one line, because JSON holds no bare line ends.
fn event(told: &mut String, name: &str, id: &str, data: &impl Serialize) {
    let data = serde_json::to_string(data).unwrap_or_default();
    let id = if id.is_empty() { String::new() } else { format!("id: {id}\n") };
    let _ = write!(told, "event: {name}\n{id}data: {data}\n\n");
}
