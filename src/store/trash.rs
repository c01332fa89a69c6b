//! Reads: what purges took, for as long as it can be taken back.

use redis::Pipeline;

use super::inspect::{number, typed};
use super::standing::instant;
use super::{LinkError, QueueKeys, Store};
use crate::job::{JobId, QueueName, Timestamp};

/// A purge that can be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PurgeView {
    pub id: String,
    /// Then its jobs are deleted for good.
    pub until: Timestamp,
    pub jobs: u64,
    /// Foreign messages.
    pub messages: u64,
}

/// A key of the trash, and whether it is a sorted set of jobs rather than a list of foreign messages.
struct Taken {
    key: String,
    jobs: bool,
}

impl Store {
    /// The purges of a queue that can be taken back, oldest first.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn purges(&self, queue: &QueueName) -> Result<Vec<PurgeView>, LinkError> {
        let keys = self.keys.queue(queue);
        let mut purges = Vec::new();
        for (id, until) in self.trash(&keys).await? {
            let mut view = PurgeView { id, until, jobs: 0, messages: 0 };
            let taken = self.taken_by(&keys, &view.id).await?;
            let mut pipeline = Pipeline::new();
            for Taken { key, jobs } in &taken {
                pipeline.cmd(if *jobs { "ZCARD" } else { "LLEN" }).arg(key);
            }
            let replies = if taken.is_empty() { Vec::new() } else { self.read(&pipeline).await? };
            for (one, reply) in taken.iter().zip(replies) {
                *(if one.jobs { &mut view.jobs } else { &mut view.messages }) += number(reply)?;
            }
            purges.push(view);
        }
        Ok(purges)
    }

    /// The purge that holds a job, and until when it can be taken back.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn purge_of(
        &self,
        queue: &QueueName,
        id: &JobId,
    ) -> Result<Option<(String, Timestamp)>, LinkError> {
        let keys = self.keys.queue(queue);
        for (purge, until) in self.trash(&keys).await? {
            let taken = self.taken_by(&keys, &purge).await?;
            let mut pipeline = Pipeline::new();
            for Taken { key, .. } in taken.iter().filter(|taken| taken.jobs) {
                pipeline.zscore(key, id.as_str());
            }
            let replies = if pipeline.is_empty() { Vec::new() } else { self.read(&pipeline).await? };
            for reply in replies {
                if typed::<Option<f64>>(reply, "a score")?.is_some() {
                    return Ok(Some((purge, until)));
                }
            }
        }
        Ok(None)
    }

    /// The purges, each with the end of its time.
    async fn trash(&self, keys: &QueueKeys) -> Result<Vec<(String, Timestamp)>, LinkError> {
        let mut pipeline = Pipeline::new();
        pipeline.zrange_withscores(&keys.trash, 0, -1);
        let reply = self.read(&pipeline).await?.into_iter().next().unwrap_or(redis::Value::Nil);
        let found: Vec<(String, f64)> = typed(reply, "purges")?;
        Ok(found.into_iter().map(|(id, until)| (id, instant(until))).collect())
    }

    async fn taken_by(&self, keys: &QueueKeys, purge: &str) -> Result<Vec<Taken>, LinkError> {
        let mut pipeline = Pipeline::new();
        pipeline.hgetall(keys.manifest_of(purge));
        let reply = self.read(&pipeline).await?.into_iter().next().unwrap_or(redis::Value::Nil);
        let found: Vec<(String, String)> = typed(reply, "what a purge took")?;
        Ok(found.into_iter().map(|(key, note)| Taken { key, jobs: note.starts_with('-') }).collect())
    }
}
