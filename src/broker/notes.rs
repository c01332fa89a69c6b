//! What running jobs say of themselves, on its way into Redis.
//!
//! Not a transition: nothing is decided by it and nothing waits for it. What is lost with a node or refused by a full
//! Redis is missing from the log of a job and from nothing else.

use redis::Pipeline;

use super::exchange::holder;
use super::script::{Script, only};
use super::{Broker, BrokerError, Claim};
use crate::job::{JobId, Notes, QueueName, Timestamp};

/// Which attempt speaks: what is needed of a claim to write in its name.
#[derive(Debug, Clone)]
pub(crate) struct Speaker {
    pub queue: QueueName,
    pub id: JobId,
    pub started: Timestamp,
    token: u64,
}

impl Speaker {
    pub(crate) fn of(claim: &Claim) -> Self {
        let (queue, id) = (claim.job.queue.clone(), claim.job.id.clone());
        Self { queue, id, started: claim.started, token: claim.token }
    }
}

impl Broker {
    /// Writes what the attempt and those before it have said; says whether the job is still its own.
    ///
    /// # Errors
    /// [`BrokerError`]: what was there stands; the next writing brings all of it.
    pub(crate) async fn note(&self, speaker: &Speaker, notes: &Notes) -> Result<bool, BrokerError> {
        let keys = self.keys(&speaker.queue);
        let text = serde_json::to_string(notes).map_err(|error| BrokerError::Encode(error.to_string()))?;
        let mut pipeline = Pipeline::new();
        Script::note.call(&mut pipeline, &[&keys.active, &keys.notes]);
        pipeline.arg(speaker.id.as_str()).arg(holder(speaker.token, &self.node, speaker.started)).arg(text);
        let reply = only(self.store.link.send(&pipeline).await?)?;
        Ok(Script::note.reply::<u64>(reply, "0 or 1")? == 1)
    }
}
