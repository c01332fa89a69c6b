//! What a running attempt has finished, stored while it goes on.
//!
//! The settle stores the same once more; this is for the attempt that never gets there. If we die before the script ran,
//! the step is done again by the next attempt; after it ran, it is not.

use redis::Pipeline;

use super::exchange::{encode_history, holder};
use super::script::{Script, only};
use super::{Broker, BrokerError, Claim};
use crate::job::{History, JobId, QueueName, Timestamp};

/// A claim as its running attempt knows it: enough to store what is finished, not enough to settle.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    queue: QueueName,
    id: JobId,
    token: u64,
    started: Timestamp,
    /// As the claim found it.
    history: History,
}

impl Claim {
    pub(crate) fn running(&self) -> Running {
        Running {
            queue: self.job.queue.clone(),
            id: self.job.id.clone(),
            token: self.token,
            started: self.started,
            history: self.history.clone(),
        }
    }
}

impl Running {
    /// The claim's history with these steps done, and what the step after them remembers of itself.
    pub(crate) fn with(&self, steps: Vec<serde_json::Value>, partial: serde_json::Value) -> History {
        History { steps, partial, ..self.history.clone() }
    }
}

impl Broker {
    /// Stores the history of a job while it runs. `false`: its lease was lost, and somebody else has the job.
    ///
    /// # Errors
    /// [`BrokerError`]: it may or may not be stored. To store it once more changes nothing.
    pub(crate) async fn keep(&self, running: &Running, history: &History) -> Result<bool, BrokerError> {
        let keys = self.keys(&running.queue);
        let mut pipeline = Pipeline::new();
        Script::keep.call(&mut pipeline, &[&keys.active, &keys.history]);
        pipeline.arg(running.id.as_str()).arg(holder(running.token, &self.node, running.started));
        pipeline.arg(encode_history(history)?);
        let reply = only(self.store.link.send(&pipeline).await?)?;
        Ok(Script::keep.reply::<u8>(reply, "0 or 1")? == 1)
    }
}
