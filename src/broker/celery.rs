//! Celery's own keys, where they change together with ours: an attempt is shown as started while it runs, and never after.
//!
//! What its document says is decided in the intake.

use std::collections::BTreeMap;

use redis::Pipeline;

use super::script::Script;
use super::{Broker, BrokerError};
use crate::job::{JobId, QueueName};

/// An attempt that clients of Celery are to be shown as started.
#[derive(Debug, Clone)]
pub(crate) struct CeleryAttempt {
    pub queue: QueueName,
    pub id: JobId,
    /// Of its claim.
    pub token: u64,
    /// The key of its result, which is also the channel.
    pub key: String,
    /// The document.
    pub document: Vec<u8>,
}

/// Attempts in one script call.
const ATTEMPTS: usize = 500;

impl Broker {
    /// Shows attempts as started: those that still run. The result stays for so many seconds; 0: for ever.
    ///
    /// # Errors
    /// [`BrokerError`]: some may not be shown.
    pub(crate) async fn celery_begin(&self, attempts: &[CeleryAttempt], keep: u64) -> Result<(), BrokerError> {
        let mut by_queue: BTreeMap<&QueueName, Vec<&CeleryAttempt>> = BTreeMap::new();
        for attempt in attempts {
            by_queue.entry(&attempt.queue).or_default().push(attempt);
        }
        let mut pipeline = Pipeline::new();
        for (queue, attempts) in by_queue {
            for some in attempts.chunks(ATTEMPTS) {
                Script::celery_begin.call(&mut pipeline, &[&self.keys(queue).active]);
                pipeline.arg(keep);
                for attempt in some {
                    pipeline.arg(attempt.id.as_str()).arg(attempt.token).arg(&attempt.key).arg(&attempt.document);
                }
            }
        }
        if pipeline.is_empty() {
            return Ok(());
        }
        for reply in self.store.link.send(&pipeline).await? {
            Script::celery_begin.reply::<u64>(reply, "a count")?;
        }
        Ok(())
    }
}
