//! One fire of a schedule becomes one job, over any number of nodes.

use std::collections::HashMap;

use redis::Pipeline;

use super::enqueue::encode;
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
    /// Enqueues `job` as the fire `fire` of `schedule`, unless it was done. `skip_overlap` holds what the ids of the
    /// schedule's jobs start with when a fire is to be left out while the previous job has not ended.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it, a fire that was done is recognised.
    pub(crate) async fn fire(
        &self,
        schedule: &str,
        fire: Timestamp,
        job: &Job,
        skip_overlap: Option<&str>,
    ) -> Result<Fired, BrokerError> {
        let keys = self.keys(&job.queue);
        let touched = [&keys.fires, &keys.jobs, &keys.pending, &keys.scheduled, &keys.retry, &keys.active];
        let mut pipeline = Pipeline::new();
        Script::fire.call(&mut pipeline, &touched.map(String::as_str));
        pipeline.arg(schedule).arg(fire.as_millis()).arg(job.id.as_str()).arg(encode(job)?);
        pipeline.arg(job.enqueued_at.as_millis()).arg(skip_overlap.unwrap_or_default());
        let reply = only(self.store.link.send(&pipeline).await?)?;
        match Script::fire.reply::<u8>(reply, "0, 1 or 2")? {
            0 => Ok(Fired::DoneBefore),
            1 => Ok(Fired::Enqueued),
            2 => Ok(Fired::Overlaps),
            _ => Err(BrokerError::Answer { script: "fire", expected: "0, 1 or 2" }),
        }
    }

    /// The last fire of each schedule that enqueues into `queue`.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer.
    pub(crate) async fn last_fires(&self, queue: &QueueName) -> Result<HashMap<String, Timestamp>, BrokerError> {
        let mut pipeline = Pipeline::new();
        pipeline.hgetall(&self.keys(queue).fires);
        let reply = crate::store::accepted(only(self.store.link.send(&pipeline).await?)?)?;
        let fires: HashMap<String, u64> = redis::FromRedisValue::from_redis_value(reply)
            .map_err(|_| BrokerError::Answer { script: "HGETALL", expected: "the fires" })?;
        Ok(fires.into_iter().map(|(name, at)| (name, Timestamp::from_millis(at))).collect())
    }
}
