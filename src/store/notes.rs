//! Reads: what a job has said of itself.

use redis::{Pipeline, Value};

use super::inspect::typed;
use super::{LinkError, Store};
use crate::job::{JobId, Notes, QueueName};

impl Store {
    /// What a job has said; nothing where it has said nothing, or in a form that this version cannot read.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn notes(&self, queue: &QueueName, id: &JobId) -> Result<Notes, LinkError> {
        let mut pipeline = Pipeline::new();
        pipeline.hget(self.keys.queue(queue).notes, id.as_str());
        let reply = self.read(&pipeline).await?.into_iter().next().unwrap_or(Value::Nil);
        let text: Option<Vec<u8>> = typed(reply, "what a job has said")?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default())
    }
}
