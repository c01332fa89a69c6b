//! RQ's own keys, where they change together with ours: attempts are shown as running, their ends are told in the
//! transition that pays the debt, and what RQ's scheduler and its maintenance would do is done here.
//!
//! What is said to a client is decided in the intake; here are the transitions.

use redis::Pipeline;

use super::outbox::{Answered, BATCH, OwedJob, by_queue};
use super::script::{Script, only};
use super::{Broker, BrokerError};
use crate::job::{JobId, QueueName, Timestamp};
use crate::store::{RQ_BASE, RQ_EXECUTION, accepted};

/// An attempt as RQ's clients see it.
#[derive(Debug, Clone)]
pub(crate) struct RqAttempt {
    pub id: JobId,
    /// Of its claim.
    pub token: u64,
    /// RQ's queue.
    pub queue: String,
    /// RQ's worker.
    pub worker: String,
    pub began: Timestamp,
}

/// What became of showing an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RqShown {
    Yes,
    /// It has ended already.
    Ended,
    /// Its producer has cancelled or deleted the job.
    Withdrawn,
}

/// How an attempt has ended, in RQ's terms.
#[derive(Debug)]
pub(crate) struct RqEnding {
    pub say: RqSay,
    /// RQ's queue.
    pub queue: String,
    /// `None`: nobody ran it.
    pub began: Option<Timestamp>,
    pub ended: Timestamp,
    pub worker: String,
    /// How long the job is kept, in seconds; negative for ever.
    pub keep: i64,
    /// What it returned, or the exception, encoded.
    pub value: Option<String>,
    /// How many of its retries are left, once it has used one. Not a step but the number: the answers to quick attempts
    /// overtake each other, and only the last one is written.
    pub retries_left: Option<u32>,
    /// Its execution may have been shown.
    pub shown: bool,
    /// The key of its rate limit; empty without one.
    pub rate_limit: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RqSay {
    Finished,
    Failed,
    Stopped,
    /// At this second.
    Canceled(u64),
    /// It runs again by itself, not before this second; `listed` when it is to stand among RQ's scheduled jobs: only where
    /// no other scheduler would put it into its queue.
    Retry {
        at: Option<u64>,
        listed: bool,
    },
}

/// What one of RQ's workers has done.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct RqWorkerTally {
    pub worker: String,
    pub succeeded: u32,
    pub failed: u32,
    pub seconds: f64,
}

/// What a look at RQ's scheduled jobs found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    /// Whether we are the scheduler of this queue.
    pub ours: bool,
    /// The second at which the next job is due.
    pub next: Option<u64>,
    pub moved: u64,
}

/// What cleaning the registries of one of RQ's queues takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RqTidying<'a> {
    pub lock: &'a str,
    /// RQ's queue.
    pub queue: &'a str,
    /// Why jobs failed that nobody runs any more, deflated.
    pub abandoned: &'a [u8],
    /// What belongs to no queue, groups and rate limits, is cleaned too.
    pub shared: bool,
}

/// What cleaning brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RqTidied {
    pub given_back: u64,
    pub failed: u64,
    /// In the hands of RQ's own workers.
    pub theirs: u64,
}

/// How long a sign of life of a running job counts, in seconds. A client that cleans up fails what is silent for longer.
const ALIVE: u64 = 300;
/// Attempts in one script call.
const ATTEMPTS: usize = 500;
/// Workers whose signs of life go in one script call.
const WORKERS: usize = 1000;
/// How long we are the scheduler without a renewal: RQ's own time, in seconds.
const SCHEDULER: u64 = 61;
/// Scheduled jobs moved in one call: as many as RQ moves at a time.
const MOVED: usize = 1000;
/// RQ's own time for a job between its queue and its start, in seconds.
const STUCK: u64 = 60;
/// What one call of the maintenance looks at, of each kind.
const TIDIED: usize = 1000;

impl Broker {
    /// Shows attempts as running.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it.
    pub(crate) async fn rq_begin(
        &self,
        queue: &QueueName,
        attempts: &[RqAttempt],
        now: Timestamp,
    ) -> Result<Vec<RqShown>, BrokerError> {
        let mut pipeline = Pipeline::new();
        for some in attempts.chunks(ATTEMPTS) {
            self.rq_call(Script::rq_begin, &mut pipeline, queue, now);
            for attempt in some {
                pipeline.arg(attempt.id.as_str()).arg(attempt.token).arg(&attempt.queue).arg(&attempt.worker);
            }
        }
        let codes = self.rq_codes(Script::rq_begin, &pipeline).await?;
        let shown = |code| match code {
            0 => RqShown::Ended,
            2 => RqShown::Withdrawn,
            _ => RqShown::Yes,
        };
        Ok(codes.into_iter().map(shown).collect())
    }

    /// Renews what is shown of running attempts; says of each whether it runs still. What was handed back is shown as
    /// waiting again.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it.
    pub(crate) async fn rq_beat(
        &self,
        queue: &QueueName,
        attempts: &[RqAttempt],
        now: Timestamp,
    ) -> Result<Vec<bool>, BrokerError> {
        let mut pipeline = Pipeline::new();
        for some in attempts.chunks(ATTEMPTS) {
            self.rq_call(Script::rq_beat, &mut pipeline, queue, now);
            for attempt in some {
                let running = now.since(attempt.began).as_secs_f64();
                pipeline.arg(attempt.id.as_str()).arg(attempt.token).arg(&attempt.queue).arg(&attempt.worker);
                pipeline.arg(running);
            }
        }
        let codes = self.rq_codes(Script::rq_beat, &pipeline).await?;
        Ok(codes.into_iter().map(|code| code == 1).collect())
    }

    fn rq_call(&self, script: Script, pipeline: &mut Pipeline, queue: &QueueName, now: Timestamp) {
        script.call(pipeline, &[&self.keys(queue).active]);
        pipeline.arg(RQ_BASE).arg(RQ_EXECUTION).arg(iso(now)).arg(seconds(now)).arg(ALIVE);
    }

    async fn rq_codes(&self, script: Script, pipeline: &Pipeline) -> Result<Vec<u8>, BrokerError> {
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let mut codes = Vec::new();
        for reply in self.store.link.send(pipeline).await? {
            codes.extend(script.reply::<Vec<u8>>(reply, "a number for each attempt")?);
        }
        Ok(codes)
    }

    /// Tells how attempts have ended, each in one transition with the payment of its debt; says for each what became of
    /// it. `tallies` is what their workers have done.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it, what was told is recognised.
    pub(crate) async fn rq_answer(
        &self,
        answers: &[(&OwedJob, RqEnding)],
        tallies: &[RqWorkerTally],
        now: Timestamp,
    ) -> Result<Vec<Answered>, BrokerError> {
        let mut pipeline = Pipeline::new();
        let mut calls: Vec<Vec<usize>> = Vec::new();
        for (queue, indexes) in by_queue(answers) {
            for batch in indexes.chunks(BATCH) {
                Script::rq_answer.call(&mut pipeline, &[&self.keys(queue).outbox]);
                pipeline.arg(RQ_BASE).arg(RQ_EXECUTION).arg(iso(now)).arg(seconds(now));
                // With the first call only: a repetition of what was counted is no harm, a second count is one.
                add_tallies(&mut pipeline, if calls.is_empty() { tallies } else { &[] });
                for &index in batch {
                    let (owed, ending) = &answers[index];
                    add_ending(&mut pipeline, owed, ending);
                }
                calls.push(batch.to_vec());
            }
        }
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let replies = self.store.link.send(&pipeline).await?;
        let mut answered = vec![Answered::NotOwed; answers.len()];
        for (reply, batch) in replies.into_iter().zip(calls) {
            let codes: Vec<redis::Value> = Script::rq_answer.reply(reply, "a word for each answer")?;
            for (index, code) in batch.into_iter().zip(codes) {
                answered[index] = Answered::read(code);
            }
        }
        Ok(answered)
    }

    /// Tells what workers have done. `queue` is any of ours.
    ///
    /// # Errors
    /// [`BrokerError`]: whether it was counted is unknown.
    pub(crate) async fn rq_count(
        &self,
        queue: &QueueName,
        tallies: &[RqWorkerTally],
        now: Timestamp,
    ) -> Result<(), BrokerError> {
        let mut pipeline = Pipeline::new();
        Script::rq_answer.call(&mut pipeline, &[&self.keys(queue).outbox]);
        pipeline.arg(RQ_BASE).arg(RQ_EXECUTION).arg(iso(now)).arg(seconds(now));
        add_tallies(&mut pipeline, tallies);
        accepted(only(self.store.link.send(&pipeline).await?)?)?;
        Ok(())
    }

    /// Enqueues RQ's scheduled jobs that are due, if we are or can become the scheduler of RQ's queue; `queue` is the one
    /// of ours that reads it.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it.
    pub(crate) async fn rq_due(
        &self,
        queue: &QueueName,
        keys: [&str; 3],
        me: u32,
        now: Timestamp,
    ) -> Result<Due, BrokerError> {
        let [scheduled, list, lock] = keys;
        let mut pipeline = Pipeline::new();
        Script::rq_due.call(&mut pipeline, &[scheduled, list, lock, &self.keys(queue).retry]);
        pipeline.arg(RQ_BASE).arg(iso(now)).arg(now.as_millis() / 1000).arg(me).arg(SCHEDULER).arg(MOVED);
        let reply = only(self.store.link.send(&pipeline).await?)?;
        let (ours, next, moved): (u8, String, u64) = Script::rq_due.reply(reply, "a number, a time and a count")?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of this age")]
        let next = next.parse::<f64>().ok().map(|next| next.max(0.0) as u64);
        Ok(Due { ours: ours == 1, next, moved })
    }

    /// The signs of life of RQ's workers, by the keys of their hashes; says of each whether Redis knows it still. They are
    /// believed to live for `ttl` seconds.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it.
    pub(crate) async fn rq_alive(
        &self,
        workers: &[String],
        ttl: i64,
        now: Timestamp,
    ) -> Result<Vec<bool>, BrokerError> {
        let mut pipeline = Pipeline::new();
        for some in workers.chunks(WORKERS) {
            Script::rq_alive.call(&mut pipeline, &some.iter().map(String::as_str).collect::<Vec<_>>());
            pipeline.arg(iso(now)).arg(ttl);
        }
        let codes = self.rq_codes(Script::rq_alive, &pipeline).await?;
        Ok(codes.into_iter().map(|code| code == 1).collect())
    }

    /// Stays or becomes the scheduler of those of RQ's queues that have no other; says of each lock whether it is ours.
    /// `queue` is any of ours.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer.
    pub(crate) async fn rq_hold(&self, queue: &QueueName, locks: &[String], me: u32) -> Result<Vec<bool>, BrokerError> {
        let pending = self.keys(queue).pending;
        let keys: Vec<&str> = locks.iter().map(String::as_str).chain([pending.as_str()]).collect();
        let mut pipeline = Pipeline::new();
        Script::rq_hold.call(&mut pipeline, &keys);
        pipeline.arg(me).arg(SCHEDULER);
        let reply = only(self.store.link.send(&pipeline).await?)?;
        let ours: Vec<u8> = Script::rq_hold.reply(reply, "a number for each lock")?;
        Ok(ours.into_iter().map(|ours| ours == 1).collect())
    }

    /// Cleans the registries of one of RQ's queues, as its workers do now and then.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer.
    pub(crate) async fn rq_tidy(&self, what: RqTidying<'_>, now: Timestamp) -> Result<RqTidied, BrokerError> {
        let mut pipeline = Pipeline::new();
        Script::rq_tidy.call(&mut pipeline, &[what.lock]);
        pipeline.arg(RQ_BASE).arg(RQ_EXECUTION).arg(iso(now)).arg(seconds(now)).arg(what.queue).arg(STUCK).arg(TIDIED);
        pipeline.arg(what.abandoned).arg(flag(what.shared));
        let reply = only(self.store.link.send(&pipeline).await?)?;
        let (given_back, failed, theirs) = Script::rq_tidy.reply(reply, "three counts")?;
        Ok(RqTidied { given_back, failed, theirs })
    }
}

fn add_tallies(pipeline: &mut Pipeline, tallies: &[RqWorkerTally]) {
    pipeline.arg(tallies.len());
    for tally in tallies {
        pipeline.arg(&tally.worker).arg(tally.succeeded).arg(tally.failed).arg(tally.seconds);
    }
}

fn add_ending(pipeline: &mut Pipeline, owed: &OwedJob, ending: &RqEnding) {
    let (say, at, listed) = match ending.say {
        RqSay::Finished => ("finished", 0, false),
        RqSay::Failed => ("failed", 0, false),
        RqSay::Stopped => ("stopped", 0, false),
        RqSay::Canceled(at) => ("canceled", at, false),
        RqSay::Retry { at, listed } => ("retry", at.unwrap_or(0), listed),
    };
    let left = ending.retries_left.map(|left| left.to_string()).unwrap_or_default();
    pipeline.arg(owed.job.id.as_str()).arg(owed.token).arg(say).arg(&ending.queue);
    pipeline.arg(ending.began.map(iso).unwrap_or_default()).arg(iso(ending.ended));
    pipeline
        .arg(ending.began.map(seconds).unwrap_or_default())
        .arg(seconds(ending.ended))
        .arg(&ending.worker)
        .arg(ending.keep)
        .arg(ending.value.as_deref().unwrap_or_default());
    pipeline.arg(at).arg(left).arg(flag(listed)).arg(flag(ending.shown)).arg(&ending.rate_limit);
}

fn flag(yes: bool) -> &'static str {
    if yes { "1" } else { "" }
}

/// As RQ writes times into hashes.
fn iso(now: Timestamp) -> String {
    now.to_utc().format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// As RQ writes times into scores.
fn seconds(now: Timestamp) -> String {
    format!("{}.{:03}", now.as_millis() / 1000, now.as_millis() % 1000)
}
