//! Pauses of a queue or of one task in it, over all nodes and restarts.
//!
//! While a queue is paused nothing is claimed from it and nothing is taken from its foreign lists; what runs goes on.
//! Jobs of a paused task are held when a claim comes to them, so that they do not stand in the way of the others.

use std::sync::Arc;

use redis::Pipeline;
use tokio::sync::Notify;

use super::script::{Script, only};
use super::{Broker, BrokerError};
use crate::job::{QueueName, Request, TaskName};
use crate::store::accepted;

/// What a pause holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Paused {
    Queue,
    Task(TaskName),
}

/// A pause in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pause {
    pub paused: Paused,
    pub request: Request,
}

impl Paused {
    /// Its field in the `pauses` hash.
    fn field(&self) -> &str {
        match self {
            Self::Queue => "",
            Self::Task(task) => task.as_str(),
        }
    }
}

impl Pause {
    /// Reads one field of the `pauses` hash.
    pub(crate) fn parse(field: &str, note: &str) -> Option<Self> {
        let paused = if field.is_empty() { Paused::Queue } else { Paused::Task(TaskName::parse(field).ok()?) };
        Some(Self { paused, request: serde_json::from_str(note).ok()? })
    }
}

impl Broker {
    /// Pauses a queue or a task. A pause that is in force gets the new words.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it.
    pub(crate) async fn pause(&self, queue: &QueueName, what: &Paused, request: &Request) -> Result<(), BrokerError> {
        let note = serde_json::to_string(request).map_err(|error| BrokerError::Encode(error.to_string()))?;
        let mut pipeline = Pipeline::new();
        pipeline.hset(self.keys(queue).pauses, what.field(), note);
        accepted(only(self.store.link.send(&pipeline).await?)?)?;
        tracing::info!(%queue, task = what.field(), "paused {}", request.words());
        Ok(())
    }

    /// Ends a pause; says whether there was one.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it.
    pub(crate) async fn resume(&self, queue: &QueueName, what: &Paused) -> Result<bool, BrokerError> {
        let keys = self.keys(queue);
        let mut pipeline = Pipeline::new();
        Script::resume.call(&mut pipeline, &[&keys.pauses, &keys.lines]);
        pipeline.arg(what.field());
        let reply = only(self.store.link.send(&pipeline).await?)?;
        let ended = Script::resume.reply::<u8>(reply, "0 or 1")? == 1;
        if ended {
            tracing::info!(%queue, task = what.field(), "resumed");
        }
        Ok(ended)
    }

    /// Whether the whole queue is paused; `changed` is told when that may be different.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer; nothing is armed then.
    pub(crate) async fn is_paused(&self, queue: &QueueName, changed: &Arc<Notify>) -> Result<bool, BrokerError> {
        let pauses = self.watch.read_hash(changed, &self.keys(queue).pauses).await?;
        Ok(pauses.iter().any(|(field, _)| field == Paused::Queue.field()))
    }
}
