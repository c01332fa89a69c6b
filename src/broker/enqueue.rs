//! Putting jobs in: one script call for each queue, any number of jobs.

use redis::Pipeline;

use super::place;
use super::script::Script;
use super::{Broker, BrokerError};
use crate::job::{Args, Job, QueueName, Timestamp};

/// What became of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enqueued {
    Added,
    /// A job of this id exists; it stays as it is.
    Exists,
    /// It was started before, or is not to be started any more: only jobs of flows.
    NotReady,
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
        self.enqueue_out_of(None, jobs).await
    }

    /// The same for jobs of a flow: only those that stand in `ready`, and they leave it in the same step.
    pub(super) async fn enqueue_out_of(&self, ready: Option<&str>, jobs: &[Job]) -> Result<Vec<Enqueued>, BrokerError> {
        let mut pipeline = Pipeline::new();
        let mut calls: Vec<Vec<usize>> = Vec::new();
        for (queue, indexes) in by_queue(jobs) {
            for batch in indexes.chunks(BATCH) {
                let keys = self.keys(&queue);
                let mut touched = vec![&*keys.jobs, &keys.large, &keys.pending, &keys.scheduled];
                touched.extend(ready);
                Script::enqueue.call(&mut pipeline, &touched);
                for &index in batch {
                    let job = &jobs[index];
                    let Record { text, large } = encode(job)?;
                    let (set, score) = self.place(job, job.enqueued_at);
                    pipeline.arg(job.id.as_str()).arg(text).arg(set).arg(score).arg(large);
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
                results[index] = match added {
                    1 => Enqueued::Added,
                    2 => Enqueued::NotReady,
                    _ => Enqueued::Exists,
                };
            }
        }
        Ok(results)
    }

    /// The set that a new job goes to, and its place there.
    pub(super) fn place(&self, job: &Job, now: Timestamp) -> (&'static str, String) {
        match job.due {
            Some(due) if due > now => ("scheduled", place::at_its_time(job.priority, due).to_string()),
            _ => ("pending", place::in_line(job.priority, job.enqueued_at, self.ageing(&job.queue)).to_string()),
        }
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

/// Arguments of more bytes stand beside the record: the line, its claims and its lists stay small.
const LARGE: usize = 64 * 1024;

/// A job as it is written.
#[derive(Debug)]
pub(super) struct Record {
    /// For the `jobs` hash.
    pub(super) text: String,
    /// For the `large` hash; empty when the arguments stand in the record.
    pub(super) large: String,
}

/// The job as it is written.
pub(super) fn encode(job: &Job) -> Result<Record, BrokerError> {
    let text = serde_json::to_string(job).map_err(|error| BrokerError::Encode(error.to_string()))?;
    if text.len() <= LARGE && job.args_apart.is_none() {
        return Ok(Record { text, large: String::new() });
    }
    let large = serde_json::to_string(&job.args).map_err(|error| BrokerError::Encode(error.to_string()))?;
    let apart = (large.len() > LARGE).then_some(large.len() as u64);
    let (args, large) = if apart.is_some() { (Args::new(), large) } else { (job.args.clone(), String::new()) };
    let text = serde_json::to_string(&Job { args, args_apart: apart, ..job.clone() });
    Ok(Record { text: text.map_err(|error| BrokerError::Encode(error.to_string()))?, large })
}
