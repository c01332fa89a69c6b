//! Putting jobs in: one script call for each queue, any number of jobs.

use redis::Pipeline;

use super::script::Script;
use super::{Broker, BrokerError};
use crate::job::{Job, QueueName};

/// What became of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enqueued {
    Added,
    /// A job of this id exists; it stays as it is.
    Exists,
}

/// Jobs in one script call: bounds the time that Redis serves nobody else.
const BATCH: usize = 500;

impl Broker {
    /// Adds the jobs, in order. All of them are in Redis when this returns; a job whose id exists is left out, so an
    /// enqueue whose answer was lost can be repeated with the same ids.
    ///
    /// # Errors
    /// [`BrokerError`]: some or all of the jobs may have been added.
    pub(crate) async fn enqueue(&self, jobs: &[Job]) -> Result<Vec<Enqueued>, BrokerError> {
        let mut pipeline = Pipeline::new();
        let mut calls: Vec<Vec<usize>> = Vec::new();
        for (queue, indexes) in by_queue(jobs) {
            for batch in indexes.chunks(BATCH) {
                let keys = self.keys(&queue);
                Script::enqueue.call(&mut pipeline, &[&keys.jobs, &keys.pending, &keys.scheduled]);
                for &index in batch {
                    let job = &jobs[index];
                    let (set, at) = match job.due {
                        Some(due) if due > job.enqueued_at => ("scheduled", due),
                        _ => ("pending", job.enqueued_at),
                    };
                    pipeline.arg(job.id.as_str()).arg(encode(job)?).arg(set).arg(at.as_millis());
                }
                calls.push(batch.to_vec());
            }
        }
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let replies = self.store.link.send(&pipeline).await?;
        let mut results = vec![Enqueued::Exists; jobs.len()];
        for (reply, batch) in replies.into_iter().zip(calls) {
            let added: Vec<u8> = Script::enqueue.reply(reply, "a number for each job")?;
            for (index, added) in batch.into_iter().zip(added) {
                if added == 1 {
                    results[index] = Enqueued::Added;
                }
            }
        }
        Ok(results)
    }
}

/// The indexes of each queue's jobs, in their order.
fn by_queue(jobs: &[Job]) -> Vec<(QueueName, Vec<usize>)> {
    let mut queues: Vec<(QueueName, Vec<usize>)> = Vec::new();
    for (index, job) in jobs.iter().enumerate() {
        match queues.iter_mut().find(|(queue, _)| *queue == job.queue) {
            Some((_, indexes)) => indexes.push(index),
            None => queues.push((job.queue.clone(), vec![index])),
        }
    }
    queues
}

/// The record as it stands in the `jobs` hash.
pub(super) fn encode(job: &Job) -> Result<String, BrokerError> {
    serde_json::to_string(job).map_err(|error| BrokerError::Encode(error.to_string()))
}
