//! One fire of a schedule becomes one job, over any number of nodes.

use redis::Pipeline;

use super::enqueue::{Record, encode};
use super::script::{Script, only};
use super::{Broker, BrokerError};
use crate::job::{Job, QueueName, Timestamp};

/// What became of a fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fired {
    Enqueued,
    /// This node or another has done this fire or a later one.
    DoneBefore,
    /// The job of the previous fire has not ended, and overlaps are to be left out.
    Overlaps,
}

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
        ];
        let mut pipeline = Pipeline::new();
        Script::fire.call(&mut pipeline, &touched.map(String::as_str));
        pipeline.arg(schedule).arg(fire.as_millis()).arg(job.id.as_str()).arg(text);
        pipeline.arg(job.enqueued_at.as_millis()).arg(self.place(job, job.enqueued_at).1).arg(large);
        pipeline.arg(if skip_overlap { "skip" } else { "" });
        let reply = only(self.store.link.send(&pipeline).await?)?;
        match Script::fire.reply::<u8>(reply, "0, 1 or 2")? {
            0 => Ok(Fired::DoneBefore),
            1 => Ok(Fired::Enqueued),
            2 => Ok(Fired::Overlaps),
            _ => Err(BrokerError::Answer { script: "fire", expected: "0, 1 or 2" }),
        }
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
