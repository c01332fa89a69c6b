//! Deleting flows that came to rest long ago, and those beyond the number that is kept.

use std::time::Duration;

use redis::{FromRedisValue, Pipeline};

use crate::broker::script::{Script, only};
use crate::broker::{Broker, BrokerError};
use crate::job::{FlowId, Timestamp};
use crate::store::accepted;

/// Flows at rest that are kept of each kind, whatever their age.
const KEEP: isize = 10_000;
/// Flows deleted by one pass.
const STEP: usize = 500;

impl Broker {
    /// Deletes flows that have rested for longer than this: the completed ones, and the others. Says how many.
    ///
    /// # Errors
    /// [`BrokerError`]: the rest is deleted the next time.
    pub(crate) async fn prune_flows(
        &self,
        keep_completed: Duration,
        keep_stopped: Duration,
        now: Timestamp,
    ) -> Result<usize, BrokerError> {
        let all = self.store.keys.flows();
        let mut deleted = self.prune_rested(&all.completed, now.before(keep_completed)).await?;
        deleted += self.prune_rested(&all.stopped, now.before(keep_stopped)).await?;
        Ok(deleted)
    }

    async fn prune_rested(&self, rested: &str, before: Timestamp) -> Result<usize, BrokerError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("ZRANGEBYSCORE").arg(rested).arg("-inf").arg(format!("({}", before.as_millis()));
        pipeline.arg("LIMIT").arg(0).arg(STEP);
        pipeline.cmd("ZREVRANGE").arg(rested).arg(KEEP).arg(KEEP + 499);
        let mut deleted = 0;
        let ends = [before.as_millis(), u64::MAX >> 12];
        for (reply, end) in self.store.link.send(&pipeline).await?.into_iter().zip(ends) {
            let unexpected = |_| BrokerError::Answer { script: "ZRANGE", expected: "flows" };
            let ids: Vec<String> = FromRedisValue::from_redis_value(accepted(reply)?).map_err(unexpected)?;
            for id in ids.iter().filter_map(|id| FlowId::parse(id).ok()) {
                deleted += usize::from(self.delete_rested(rested, &id, end).await?);
            }
        }
        Ok(deleted)
    }

    async fn delete_rested(&self, rested: &str, id: &FlowId, before: u64) -> Result<bool, BrokerError> {
        let (all, keys) = (self.store.keys.flows(), self.store.keys.flow(id));
        let mut pipeline = Pipeline::new();
        let touched = [rested, &all.all, &all.due, &keys.plan, &keys.state, &keys.ready];
        Script::flow_prune.call(&mut pipeline, &touched);
        pipeline.arg(id.as_str()).arg(before);
        Ok(Script::flow_prune.reply::<u8>(only(self.store.link.send(&pipeline).await?)?, "0 or 1")? == 1)
    }
}
