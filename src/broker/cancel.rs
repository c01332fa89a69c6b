//! Requests to cancel jobs that run: written by anyone, heard by the node that runs the job.
//!
//! A request stands in Redis until the attempt is settled, so it outlives every process: if the node dies, whoever takes
//! the job over finds it and ends the job instead of running it again.

use std::sync::Arc;

use redis::{FromRedisValue, Pipeline};
use tokio::sync::Notify;

use super::script::only;
use super::{Broker, BrokerError};
use crate::job::{JobId, QueueName, Request};
use crate::store::accepted;

impl Broker {
    /// The requests of a queue; `heard` is told when there is a new one.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer; nothing is armed then.
    pub(crate) async fn cancels(
        &self,
        queue: &QueueName,
        heard: &Arc<Notify>,
    ) -> Result<Vec<(JobId, Request)>, BrokerError> {
        let fields = self.watch.read_hash(heard, &self.keys(queue).cancels).await?;
        Ok(fields.iter().filter_map(|(id, note)| Some((JobId::parse(id).ok()?, read(note)?))).collect())
    }

    /// The request to cancel one job, if there is one.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer.
    pub(crate) async fn cancel_of(&self, queue: &QueueName, id: &JobId) -> Result<Option<Request>, BrokerError> {
        let mut pipeline = Pipeline::new();
        pipeline.hget(self.keys(queue).cancels, id.as_str());
        let reply = accepted(only(self.store.link.send(&pipeline).await?)?)?;
        let note: Option<String> = FromRedisValue::from_redis_value(reply)
            .map_err(|_| BrokerError::Answer { script: "HGET", expected: "a request" })?;
        Ok(note.as_deref().and_then(read))
    }
}

fn read(note: &str) -> Option<Request> {
    serde_json::from_str(note).ok()
}
