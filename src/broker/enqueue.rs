//! Putting jobs in: one script call for each queue, any number of jobs. Those that are unique have a call of their own.

use redis::Pipeline;

use super::place;
use super::script::Script;
use super::unique::{Holder, Wanted};
use super::{Broker, BrokerError};
use crate::job::{Args, Job, JobId, QueueName, Timestamp};

/// What became of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Enqueued {
    Added,
    /// Added in the place of a job that waited and held its unique key; that one is cancelled. It is due then.
    Replaced {
        id: JobId,
        due: Option<Timestamp>,
    },
    /// A job of this id exists; it stays as it is.
    Exists,
    /// Another job holds its unique key. It was not added.
    Held(Holder),
    /// It was started before, or is not to be started any more: only jobs of flows.
    NotReady,
}

impl Enqueued {
    /// Whether the job is in now, and was not before.
    pub(crate) fn is_new(&self) -> bool {
        matches!(self, Self::Added | Self::Replaced { .. })
    }
}

/// Jobs in one script call: bounds the time that Redis serves nobody else.
const BATCH: usize = 500;
/// Unique ones are looked at one by one.
const UNIQUE: usize = 100;
/// What the script that adds them answers.
const WORDS: &str = "what became of each job";

impl Broker {
    /// Adds the jobs, in order. All of them are in Redis when this returns; a job whose id exists is left out, so an
    /// enqueue whose answer was lost can be repeated with the same ids. So is one whose unique key is held.
    ///
    /// # Errors
    /// [`BrokerError`]: some or all of the jobs may have been added.
    pub(crate) async fn enqueue(&self, jobs: &[Job]) -> Result<Vec<Enqueued>, BrokerError> {
        self.enqueue_out_of(None, jobs).await
    }

    /// The same for jobs of a flow: only those that stand in `ready`, and they leave it in the same step.
    pub(super) async fn enqueue_out_of(&self, ready: Option<&str>, jobs: &[Job]) -> Result<Vec<Enqueued>, BrokerError> {
        let mut pipeline = Pipeline::new();
        let mut calls: Vec<Call> = Vec::new();
        for (queue, indexes) in by_queue(jobs) {
            // Jobs of flows are never unique: a key that is held would leave their flow waiting for nobody.
            let (unique, plain): (Vec<usize>, Vec<usize>) =
                indexes.into_iter().partition(|&index| jobs[index].unique.is_some());
            for batch in plain.chunks(BATCH) {
                self.add_plain(&mut pipeline, &queue, ready, jobs, batch)?;
                calls.push(Call { script: Script::enqueue, batch: batch.to_vec() });
            }
            for batch in unique.chunks(UNIQUE) {
                self.add_unique(&mut pipeline, &queue, jobs, batch)?;
                calls.push(Call { script: Script::enqueue_unique, batch: batch.to_vec() });
            }
        }
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let replies = self.store.link.send(&pipeline).await?;
        let mut results = vec![Enqueued::Exists; jobs.len()];
        for (reply, Call { script, batch }) in replies.into_iter().zip(calls) {
            if script == Script::enqueue {
                let added: Vec<u8> = script.reply(reply, "a number for each job")?;
                for (index, added) in batch.into_iter().zip(added) {
                    results[index] = match added {
                        1 => Enqueued::Added,
                        2 => Enqueued::NotReady,
                        _ => Enqueued::Exists,
                    };
                }
            } else {
                let told: Vec<Vec<String>> = script.reply(reply, WORDS)?;
                for (index, words) in batch.into_iter().zip(told) {
                    results[index] = self.enqueued(&words)?;
                }
            }
        }
        Ok(results)
    }

    fn add_plain(
        &self,
        pipeline: &mut Pipeline,
        queue: &QueueName,
        ready: Option<&str>,
        jobs: &[Job],
        batch: &[usize],
    ) -> Result<(), BrokerError> {
        let keys = self.keys(queue);
        let (own, lines) = ([&keys.jobs, &keys.large, &keys.pending, &keys.scheduled], [&keys.held, &keys.lines]);
        let touched = [&own[..], &lines, &[&keys.turns, &keys.counters]].concat();
        let touched = touched.into_iter().map(String::as_str).chain(ready);
        Script::enqueue.call(pipeline, &touched.collect::<Vec<_>>());
        for &index in batch {
            let job = &jobs[index];
            self.add_job(pipeline, job)?;
            pipeline.arg(job.line().unwrap_or_default());
        }
        Ok(())
    }

    fn add_unique(
        &self,
        pipeline: &mut Pipeline,
        queue: &QueueName,
        jobs: &[Job],
        batch: &[usize],
    ) -> Result<(), BrokerError> {
        let keys = self.keys(queue);
        let touched = [
            &keys.unique,
            &keys.jobs,
            &keys.history,
            &keys.large,
            &keys.pending,
            &keys.scheduled,
            &keys.retry,
            &keys.held,
            &keys.active,
            &keys.completed,
            &keys.dead,
            &keys.cancelled,
            &keys.outbox,
            &keys.counters,
        ];
        Script::enqueue_unique.call(pipeline, &touched.map(String::as_str));
        // Jobs of one call were made in one moment.
        let now = batch.first().map_or(Timestamp::from_millis(0), |&index| jobs[index].enqueued_at);
        pipeline.arg(now.as_millis());
        for &index in batch {
            let job = &jobs[index];
            let Some(unique) = &job.unique else { continue };
            self.add_job(pipeline, job)?;
            Wanted::of(job, unique, now).add(pipeline, job, now)?;
        }
        Ok(())
    }

    fn add_job(&self, pipeline: &mut Pipeline, job: &Job) -> Result<(), BrokerError> {
        let Record { text, large } = encode(job)?;
        let (set, score) = self.place(job, job.enqueued_at);
        pipeline.arg(job.id.as_str()).arg(text).arg(set).arg(score).arg(large);
        Ok(())
    }

    /// What became of a unique job, as the script tells it.
    fn enqueued(&self, words: &[String]) -> Result<Enqueued, BrokerError> {
        let unexpected = BrokerError::Answer { script: "enqueue_unique", expected: WORDS };
        let told = match words {
            [code] if code == "0" => Some(Enqueued::Exists),
            [code, _] if code == "1" => Some(Enqueued::Added),
            [code, due, id, owed @ ..] if code == "1" => {
                self.owe_replaced(owed);
                let due = due.parse().ok().filter(|due| *due > 0).map(Timestamp::from_millis);
                JobId::parse(id).ok().map(|id| Enqueued::Replaced { id, due })
            }
            [code, holder @ ..] if code == "2" => Holder::read(holder).map(Enqueued::Held),
            _ => None,
        };
        told.ok_or(unexpected)
    }

    /// The set that a new job goes to, and its place there.
    pub(super) fn place(&self, job: &Job, now: Timestamp) -> (&'static str, String) {
        match job.due {
            Some(due) if due > now => ("scheduled", place::at_its_time(job.priority, due).to_string()),
            _ => ("pending", place::in_line(job.priority, job.enqueued_at, self.ageing(&job.queue)).to_string()),
        }
    }
}

/// A call of a script, and the indexes of its jobs.
struct Call {
    script: Script,
    batch: Vec<usize>,
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
