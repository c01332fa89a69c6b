//! Unique keys in Redis: what a script is told of a job's key, and who it says holds it.
//!
//! What the rules mean stands in [`crate::job::UniqueRule`]; who holds a key is found out by `scripts/lib/unique.lua`.
//! Jobs without a key never come here.

use std::fmt;
use std::sync::{MutexGuard, PoisonError};

use redis::Pipeline;
use serde_json::Value;

use super::exchange::encode_history;
use super::outbox::owed_job;
use super::script::{Script, only};
use super::{Broker, BrokerError};
use crate::job::{End, History, Hold, Job, JobId, QueueName, State, Timestamp, Unique, UniqueRule};

/// The job that holds a unique key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub id: JobId,
    /// `None`: it has ended and is deleted, and the time of its hold is not over.
    pub state: Option<State>,
    /// Since when it holds the key.
    pub since: Timestamp,
    /// Then the key is free at the latest. `None`: what becomes of the job decides.
    pub free_at: Option<Timestamp>,
}

/// Entries of unique keys looked at in one step.
const STEP: usize = 500;
/// A walk goes on at once while at least one in so many was stale.
const WORTHWHILE: u64 = 4;

impl Broker {
    /// Deletes the entries of keys that nobody holds any more. A walk through all of them may take several calls: it goes
    /// on as long as it finds many, so that they are deleted as fast as they arise, and else rests until the next one.
    ///
    /// # Errors
    /// [`BrokerError`]: the next call goes on where this one was.
    pub(super) async fn release_keys(&self, queue: &QueueName, now: Timestamp) -> Result<(), BrokerError> {
        let keys = self.keys(queue);
        let touched = [
            &keys.unique,
            &keys.jobs,
            &keys.history,
            &keys.pending,
            &keys.scheduled,
            &keys.retry,
            &keys.held,
            &keys.active,
            &keys.completed,
            &keys.dead,
            &keys.cancelled,
        ];
        loop {
            let from = self.walks().get(queue).cloned().unwrap_or_else(|| "0".to_owned());
            let mut pipeline = Pipeline::new();
            Script::release.call(&mut pipeline, &touched.map(String::as_str));
            pipeline.arg(from).arg(STEP).arg(now.as_millis());
            let reply = only(self.store.link.send(&pipeline).await?)?;
            let (next, seen, stale): (String, u64, u64) = Script::release.reply(reply, "three numbers")?;
            let is_round = next == "0";
            self.walks().insert(queue.clone(), next);
            if is_round || stale * WORTHWHILE < seen {
                return Ok(());
            }
        }
    }

    fn walks(&self) -> MutexGuard<'_, std::collections::HashMap<QueueName, String>> {
        // A panic while it was locked cannot have left it half-changed: every use is a single operation.
        self.walks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The producer of a job that gave way is owed an answer, if a script says so: by its record and its new history.
    pub(super) fn owe_replaced(&self, words: &[String]) {
        if let [record, history] = words {
            // Unreadable to us: the debt stands in the outbox, and its sweep says what is wrong.
            owed_job(Some(record), Some(history), 0).into_iter().for_each(|owed| self.owed.send(owed));
        }
    }
}

/// What a script is told of a key that a job is to hold.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Where the key stands in the hash: the task and the key's JSON, as in the record.
    pub(super) field: String,
    way: &'static str,
    pub(super) till: &'static str,
    pub(super) expires: u64,
    pub(super) span: u128,
    longest: u128,
}

impl Wanted {
    pub(super) fn of(job: &Job, unique: &Unique, now: Timestamp) -> Self {
        let time = |hold: Hold| match hold {
            Hold::Until(until) => (until.as_str(), 0),
            Hold::For(span) => ("time", now.after(span).as_millis()),
            Hold::Either(until, span) => (until.as_str(), now.after(span).as_millis()),
        };
        let (way, (till, expires), span, longest) = match unique.rule {
            UniqueRule::Reject(hold) => ("refuse", time(hold), 0, 0),
            UniqueRule::Replace(hold) => ("replace", time(hold), 0, 0),
            UniqueRule::Debounce { longest, .. } => {
                ("replace", ("started", 0), 0, longest.unwrap_or_default().as_millis())
            }
            UniqueRule::Throttle { span } => {
                let due = job.due.map_or(now, |due| due.max(now));
                ("refuse", ("throttle", due.after(span).as_millis()), span.as_millis(), 0)
            }
        };
        Self { field: field(job, unique), way, till, expires, span, longest }
    }

    /// As the scripts that put jobs in take it: key, way, until, expires, for, longest, ending.
    pub(super) fn add(&self, pipeline: &mut Pipeline, job: &Job, now: Timestamp) -> Result<(), BrokerError> {
        let ending = serde_json::to_string(&replaced_by(&job.id, now));
        let ending = ending.map_err(|error| BrokerError::Encode(error.to_string()))?;
        pipeline.arg(&self.field).arg(self.way).arg(self.till).arg(self.expires);
        pipeline.arg(self.span.to_string()).arg(self.longest.to_string()).arg(ending);
        Ok(())
    }
}

/// The field of a job's key. A task's name holds no space.
fn field(job: &Job, unique: &Unique) -> String {
    format!("{} {}", job.task, Value::from(unique.key.as_str()))
}

/// How a job ends whose place another one takes.
fn replaced_by(id: &JobId, now: Timestamp) -> End {
    cancelled(now, format!("replaced by the job {id}, which has the same unique key"))
}

/// The history of a message that is admitted while another job holds its key.
pub(super) fn duplicate_of(holder: &str, now: Timestamp) -> History {
    let reason = format!("left out: the job {holder} holds its unique key");
    History { end: Some(cancelled(now, reason)), ..History::default() }
}

/// The history of a duplicate, with what stands for its holder's id: a script puts that in.
pub(super) fn duplicate_text(now: Timestamp) -> Result<String, BrokerError> {
    encode_history(&duplicate_of("{holder}", now))
}

fn cancelled(now: Timestamp, reason: String) -> End {
    End {
        state: State::Cancelled,
        at: now,
        started: None,
        node: None,
        result: Value::Null,
        cause: None,
        reason: Some(reason),
    }
}

impl Holder {
    /// As a script tells it.
    pub(super) fn read(words: &[String]) -> Option<Self> {
        let [id, state, since, free] = words else { return None };
        let instant = |text: &String| text.parse().ok().map(Timestamp::from_millis);
        Some(Self {
            id: JobId::parse(id).ok()?,
            state: State::ALL.into_iter().find(|known| known.as_str() == state),
            since: instant(since)?,
            free_at: instant(free).filter(|free| free.as_millis() > 0),
        })
    }
}

/// In words that continue "the unique key is held by".
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the job {} since {}", self.id, self.since)?;
        match self.state {
            Some(state) => write!(f, ", which is {}", state.as_str())?,
            None => f.write_str(", which has ended and is deleted")?,
        }
        self.free_at.map_or(Ok(()), |free| write!(f, "; it is free again at {free} at the latest"))
    }
}
