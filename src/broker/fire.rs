//! One fire of a schedule becomes one job, over any number of nodes.

use redis::Pipeline;

use super::enqueue::{Record, encode};
use super::script::{Script, only};
use super::unique::{Holder, Wanted};
use super::{Broker, BrokerError};
use crate::job::{Job, QueueName, Timestamp};

/// What became of a fire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fired {
    Enqueued,
    /// This node or another has done this fire or a later one.
    DoneBefore,
    /// The job of the previous fire has not ended, and overlaps are to be left out.
    Overlaps,
    /// Another job holds its unique key.
    Held(Holder),
}

const WORDS: &str = "what became of the fire";

impl Broker {
    /// Enqueues `job` as the fire `fire` of `schedule`, unless it was done; with `skip_overlap` also unless the job of an
    /// earlier fire has not ended.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it, a fire that was done is recognised.
    pub(crate) async fn fire(
        &self,
        schedule: &str,
        fire: Timestamp,
        job: &Job,
        skip_overlap: bool,
    ) -> Result<Fired, BrokerError> {
        let keys = self.keys(&job.queue);
        let Record { text, large } = encode(job)?;
        let touched = [
            &keys.fires,
            &keys.jobs,
            &keys.pending,
            &keys.scheduled,
            &keys.retry,
            &keys.active,
            &keys.large,
            &keys.held,
            &keys.unique,
            &keys.history,
            &keys.completed,
            &keys.dead,
            &keys.cancelled,
            &keys.outbox,
            &keys.counters,
        ];
        let (set, score) = self.place(job, job.enqueued_at);
        let mut pipeline = Pipeline::new();
        Script::fire.call(&mut pipeline, &touched.map(String::as_str));
        pipeline.arg(schedule).arg(fire.as_millis()).arg(job.id.as_str()).arg(text);
        pipeline.arg(job.enqueued_at.as_millis()).arg(score).arg(large);
        pipeline.arg(if skip_overlap { "skip" } else { "" }).arg(set);
        if let Some(unique) = &job.unique {
            Wanted::of(job, unique, job.enqueued_at).add(&mut pipeline, job, job.enqueued_at)?;
        }
        let reply = only(self.store.link.send(&pipeline).await?)?;
        let words: Vec<String> = Script::fire.reply(reply, WORDS)?;
        let fired = match words.as_slice() {
            [code] if code == "0" => Some(Fired::DoneBefore),
            [code, replaced @ ..] if code == "1" => {
                self.owe_replaced(replaced.get(1..).unwrap_or_default());
                Some(Fired::Enqueued)
            }
            [code] if code == "2" => Some(Fired::Overlaps),
            [code, holder @ ..] if code == "3" => Holder::read(holder).map(Fired::Held),
            _ => None,
        };
        fired.ok_or(BrokerError::Answer { script: "fire", expected: WORDS })
    }

    /// The last fire of a schedule. One that has none yet is entered as if it had fired now, so that from here on no
    /// fire of it is missed unnoticed.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer.
    pub(crate) async fn last_fire(
        &self,
        queue: &QueueName,
        schedule: &str,
        now: Timestamp,
    ) -> Result<Timestamp, BrokerError> {
        let fires = self.keys(queue).fires;
        let mut pipeline = Pipeline::new();
        pipeline.cmd("HSETNX").arg(&fires).arg(schedule).arg(now.as_millis()).cmd("HGET").arg(&fires).arg(schedule);
        let reply = self.store.link.send(&pipeline).await?.pop().unwrap_or_default();
        let last: u64 = redis::FromRedisValue::from_redis_value(crate::store::accepted(reply)?)
            .map_err(|_| BrokerError::Answer { script: "HGET", expected: "a fire" })?;
        Ok(Timestamp::from_millis(last))
    }
}
