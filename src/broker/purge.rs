//! Purging a queue of everything that waits, and taking that back.
//!
//! A purge renames the sets and lists, so it is whole and takes no time, however much waits. The jobs' records stay until
//! the time to take it back is over; then they are deleted step by step.

use std::time::Duration;

use redis::{FromRedisValue, Pipeline};

use super::script::{Script, only};
use super::{Broker, BrokerError};
use crate::job::{QueueName, Timestamp, Wire};
use crate::store::{ForeignList, QueueKeys, accepted};

/// How long a purge can be taken back.
const UNDO: Duration = Duration::from_secs(30 * 60);
/// Jobs put back or deleted by one step.
const STEP: usize = 1000;

/// What a purge took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Purge {
    pub id: String,
    pub jobs: u64,
    /// Messages of foreign producers that nobody had taken yet.
    pub messages: u64,
    /// Until then it can be taken back.
    pub until: Timestamp,
}

/// What became of a purge that was to be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restored {
    /// This many jobs and messages are where they were.
    All(u64),
    /// There is no purge of this id, or its time is over.
    Gone,
}

/// A key that holds what waits.
struct Waiting {
    key: String,
    /// The key that gets it back.
    back: String,
    /// The end from which a list is served, `L` or `R`; `-` for a sorted set.
    side: char,
    /// Its name in the trash.
    name: String,
}

impl Broker {
    /// Takes everything that waits out of the queue: pending, held, scheduled and retried jobs, and the messages in
    /// `lists`. What runs goes on.
    ///
    /// # Errors
    /// [`BrokerError`]: it may have happened all the same; another purge takes what is left.
    pub(crate) async fn purge(
        &self,
        queue: &QueueName,
        lists: &[ForeignList],
        now: Timestamp,
    ) -> Result<Purge, BrokerError> {
        let keys = self.keys(queue);
        let (id, until) = (purge_id(), now.after(UNDO));
        let waiting = waiting(&keys, lists);
        let mut touched =
            [&keys.trash, &keys.manifest_of(&id), &keys.held, &keys.lines, &keys.turns].map(String::clone).to_vec();
        touched.extend(waiting.iter().flat_map(|one| [one.key.clone(), keys.trash_of(&id, &one.name)]));
        let mut pipeline = Pipeline::new();
        Script::purge.call(&mut pipeline, &touched.iter().map(String::as_str).collect::<Vec<_>>());
        pipeline.arg(&id).arg(until.as_millis());
        for one in &waiting {
            pipeline.arg(format!("{}{}", one.side, one.back));
        }
        let counts: Vec<u64> = Script::purge.reply(only(self.store.link.send(&pipeline).await?)?, "counts")?;
        let sum = |sorted: bool| -> u64 {
            waiting.iter().zip(&counts).filter(|(one, _)| (one.side == '-') == sorted).map(|(_, count)| count).sum()
        };
        let purge = Purge { jobs: sum(true), messages: sum(false), id, until };
        tracing::warn!(%queue, purge = purge.id, jobs = purge.jobs, messages = purge.messages, "purged");
        Ok(purge)
    }

    /// Puts everything back that a purge took.
    ///
    /// # Errors
    /// [`BrokerError`]: a part may be back; call it again for the rest.
    pub(crate) async fn restore(&self, queue: &QueueName, purge: &str) -> Result<Restored, BrokerError> {
        let keys = self.keys(queue);
        let manifest = keys.manifest_of(purge);
        let mut restored = 0;
        loop {
            let mut pipeline = Pipeline::new();
            let touched = [&[&keys.trash, &manifest], standing(&keys).as_slice()].concat();
            Script::restore.call(&mut pipeline, &touched.iter().map(|key| key.as_str()).collect::<Vec<_>>());
            pipeline.arg(purge).arg(STEP);
            let reply = only(self.store.link.send(&pipeline).await?)?;
            let (back, left): (i64, u64) = Script::restore.reply(reply, "two counts")?;
            let Ok(back) = u64::try_from(back) else { return Ok(Restored::Gone) };
            restored += back;
            if left == 0 {
                tracing::info!(%queue, purge, restored, "the purge was taken back");
                return Ok(Restored::All(restored));
            }
        }
    }

    /// Deletes what the purges took whose time is over.
    ///
    /// # Errors
    /// [`BrokerError`]: the rest is deleted the next time.
    pub(super) async fn empty_trash(&self, queue: &QueueName, now: Timestamp) -> Result<(), BrokerError> {
        let keys = self.keys(queue);
        let mut pipeline = Pipeline::new();
        pipeline.cmd("ZRANGEBYSCORE").arg(&keys.trash).arg("-inf").arg(now.as_millis());
        let reply = accepted(only(self.store.link.send(&pipeline).await?)?)?;
        let unexpected = |_| BrokerError::Answer { script: "ZRANGEBYSCORE", expected: "purges" };
        let over: Vec<String> = FromRedisValue::from_redis_value(reply).map_err(unexpected)?;
        for purge in over {
            let manifest = keys.manifest_of(&purge);
            loop {
                let mut pipeline = Pipeline::new();
                let records = [&keys.jobs, &keys.history, &keys.large, &keys.notes, &keys.words];
                let touched = [&[&keys.trash, &manifest], standing(&keys).as_slice(), &records].concat();
                Script::discard.call(&mut pipeline, &touched.iter().map(|key| key.as_str()).collect::<Vec<_>>());
                pipeline.arg(&purge).arg(STEP).arg(now.as_millis());
                let reply = only(self.store.link.send(&pipeline).await?)?;
                if Script::discard.reply::<u64>(reply, "a count")? == 0 {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Every key of the queue that holds what waits. Taken back, held jobs come to pending: a claim holds them again if there
/// is still a reason.
fn waiting(keys: &QueueKeys, lists: &[ForeignList]) -> Vec<Waiting> {
    let mut waiting: Vec<Waiting> =
        [(&keys.pending, "pending"), (&keys.held, "held"), (&keys.scheduled, "scheduled"), (&keys.retry, "retry")]
            .into_iter()
            .map(|(key, name)| {
                let back = if name == "held" { &keys.pending } else { key };
                Waiting { key: key.clone(), back: back.clone(), side: '-', name: name.to_owned() }
            })
            .collect();
    for list in lists {
        let side = if list.wire == Wire::Celery { 'R' } else { 'L' };
        let of = |key: &String| Waiting { key: key.clone(), back: key.clone(), side, name: format!("list/{key}") };
        waiting.extend(list.keys.iter().map(of));
    }
    waiting
}

/// Where a job can stand, in the order of the scripts.
fn standing(keys: &QueueKeys) -> [&String; 8] {
    [
        &keys.active,
        &keys.pending,
        &keys.scheduled,
        &keys.retry,
        &keys.completed,
        &keys.dead,
        &keys.cancelled,
        &keys.held,
    ]
}

fn purge_id() -> String {
    uuid::Uuid::now_v7().to_string()
}
