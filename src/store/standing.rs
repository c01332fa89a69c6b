//! Where one job stands: its record, its history, and the set that holds it.

use redis::{FromRedisValue, Pipeline, Value};

use super::{ActiveView, LinkError, QueueKeys, Store};
use crate::job::{History, Job, JobId, Priority, QueueName, State, Timestamp};

/// One job as it stands.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub job: Job,
    pub history: History,
    /// The history word for word; empty when there is none.
    pub before: Vec<u8>,
    pub place: Place,
    /// The running attempt, of an active job.
    pub active: Option<ActiveView>,
    /// Since when a pending job waits, or when a waiting one becomes due.
    pub due: Option<Timestamp>,
}

/// What holds a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Pending,
    /// Out of the way, because something holds it: pending to everyone who asks.
    Held,
    Scheduled,
    Retry,
    Active,
    Completed,
    Dead,
    Cancelled,
    /// In the trash, where a purge put it.
    Purged,
}

impl Standing {
    pub(crate) fn state(&self) -> State {
        self.place.state()
    }
}

impl Place {
    pub(crate) fn state(self) -> State {
        match self {
            Self::Pending | Self::Held => State::Pending,
            Self::Scheduled => State::Scheduled,
            Self::Retry => State::Retry,
            Self::Active => State::Active,
            Self::Completed => State::Completed,
            Self::Dead => State::Dead,
            Self::Cancelled | Self::Purged => State::Cancelled,
        }
    }

    /// The sorted set that holds it; `None` for what runs and what was purged.
    pub(crate) fn key(self, keys: &QueueKeys) -> Option<String> {
        match self {
            Self::Pending => Some(keys.pending.clone()),
            Self::Held => Some(keys.held.clone()),
            Self::Scheduled => Some(keys.scheduled.clone()),
            Self::Retry => Some(keys.retry.clone()),
            Self::Completed => Some(keys.completed.clone()),
            Self::Dead => Some(keys.dead.clone()),
            Self::Cancelled => Some(keys.cancelled.clone()),
            Self::Active | Self::Purged => None,
        }
    }
}

/// The places that a look asks for, in the order of its replies.
const SETS: [Place; 7] =
    [Place::Pending, Place::Held, Place::Scheduled, Place::Retry, Place::Completed, Place::Dead, Place::Cancelled];
/// The replies of a look at one job: record, history, holder, and a score of each set.
const READS: usize = 3 + SETS.len();

impl Store {
    /// The jobs of these ids in these queues, each where it stands; `None` where there is no such job.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer or a record cannot be read.
    pub(crate) async fn standings(&self, wanted: &[(&QueueName, &JobId)]) -> Result<Vec<Option<Standing>>, LinkError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::new();
        for (queue, id) in wanted {
            let (keys, id) = (self.keys.queue(queue), id.as_str());
            pipeline.hget(&keys.jobs, id).hget(&keys.history, id).hget(&keys.active, id);
            for key in SETS.iter().filter_map(|place| place.key(&keys)) {
                pipeline.zscore(key, id);
            }
        }
        let replies = self.read(&pipeline).await?;
        replies.chunks_exact(READS).map(standing).collect()
    }
}

/// A job from the replies of a look.
fn standing(found: &[Value]) -> Result<Option<Standing>, LinkError> {
    let Some(record) = text(&found[0])? else { return Ok(None) };
    let before = text(&found[1])?.unwrap_or_default();
    let (job, history) = parsed(&record, &before)?;
    let active = text(&found[2])?.and_then(|text| ActiveView::parse(&String::from_utf8_lossy(&text)));
    let mut place = active.is_some().then_some(Place::Active);
    let mut due = None;
    for (set, reply) in SETS.into_iter().zip(&found[3..]) {
        if let Some(score) = score(reply)? {
            place = place.or(Some(set));
            match set {
                Place::Scheduled | Place::Retry => due = Some(instant(score)),
                Place::Pending | Place::Held => due = Some(waits_since(&job, score)),
                _ => {}
            }
        }
    }
    Ok(Some(Standing { job, history, before, place: place.unwrap_or(Place::Purged), active, due }))
}

/// A record and a history from their texts; where there is no history, the empty one.
pub(super) fn parsed(record: &[u8], history: &[u8]) -> Result<(Job, History), LinkError> {
    let unexpected = |what| LinkError::Unexpected { what };
    let job: Job = serde_json::from_slice(record).map_err(|_| unexpected("a record"))?;
    let history = match history {
        b"" => History::default(),
        text => serde_json::from_slice(text).map_err(|_| unexpected("a history"))?,
    };
    Ok((job, history))
}

fn text(reply: &Value) -> Result<Option<Vec<u8>>, LinkError> {
    FromRedisValue::from_redis_value(reply.clone()).map_err(|_| LinkError::Unexpected { what: "a text" })
}

fn score(reply: &Value) -> Result<Option<f64>, LinkError> {
    FromRedisValue::from_redis_value(reply.clone()).map_err(|_| LinkError::Unexpected { what: "a score" })
}

/// Since when a job in line waits. The place of an urgent or lax one is not a time any more.
fn waits_since(job: &Job, score: f64) -> Timestamp {
    if job.priority == Priority::default() { instant(score) } else { job.due.unwrap_or(job.enqueued_at) }
}

/// The time in a score: its whole part, in milliseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "scores are milliseconds, far below 2^53")]
pub(super) fn instant(score: f64) -> Timestamp {
    Timestamp::from_millis(score.max(0.0) as u64)
}
