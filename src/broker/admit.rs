//! Foreign messages on their way in: taken from their list, in flight, admitted as jobs.

use std::sync::Arc;

use redis::{FromRedisValue, Pipeline, Value};

use super::enqueue::{Record, encode};
use super::exchange::encode_history;
use super::script::{Script, only};
use super::unique::{Holder, Wanted, duplicate_of, duplicate_text};
use super::{Broker, BrokerError, OwedJob, place};
use crate::job::{History, Job, QueueName, State, Timestamp, Wire};
use crate::store::{ForeignList, RQ_SUSPENDED};

/// A message that stands in the in-flight record of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Its place in the in-flight record.
    pub field: String,
    /// The Redis list it came from.
    pub list: String,
    pub element: Vec<u8>,
}

/// What a look at the foreign lists brought.
#[derive(Debug)]
pub(crate) struct Haul {
    pub messages: Vec<Taken>,
    /// How much of the room is taken; `None` when the queue is paused, and nothing was looked at.
    pub pending: Option<usize>,
    /// RQ's workers are suspended: its lists were left alone.
    pub suspended: bool,
}

/// What is to become of a message.
#[derive(Debug)]
pub(crate) struct Admission {
    pub taken: Taken,
    pub verdict: Verdict,
    /// The producer's own hash of the job, if it has one: looked at in the same transition.
    pub hash: Option<String>,
}

/// The field of a producer's own hash, and its value, that say that the producer has withdrawn the job.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Withdrawn(pub &'static str, pub &'static str);

#[derive(Debug)]
pub(crate) enum Verdict {
    /// It becomes this job.
    Job(Box<Job>),
    /// It is not to be run: it becomes a dead or cancelled job, as its history says, and its producer is told.
    Refused(Box<Job>, Box<History>),
    /// There is nothing to run and nobody to tell (its producer has withdrawn it).
    Dropped,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admitted {
    Yes,
    /// A job of this id is waiting or running; the message is a repetition of it.
    LivesAlready,
    /// It had been admitted before; the answer to that was lost.
    DoneBefore,
    /// Its producer has withdrawn it meanwhile.
    Withdrawn,
    /// Another job holds its unique key: it has become a cancelled job that says so, and its producer is told.
    Duplicate(Holder),
}

/// Messages in one script call: bounds the time that Redis serves nobody else.
const MESSAGES: usize = 250;

impl Broker {
    /// Takes messages from the lists, which are in the order of their turns, those of a wire together; no more than `room` together with what is pending, and not all at once. Where jobs may
    /// be held, no more than `most` wait in all.
    ///
    /// # Errors
    /// [`BrokerError`]: what was taken all the same is found by [`Broker::adopt`].
    pub(crate) async fn take(
        &self,
        queue: &QueueName,
        lists: &[ForeignList],
        room: usize,
        most: Option<usize>,
        now: Timestamp,
    ) -> Result<Haul, BrokerError> {
        let keys = self.keys(queue);
        let mut touched = vec![&*keys.pending, &keys.inflight, &keys.counters, &keys.leases, &keys.pauses, &keys.held];
        let has_rq = lists.iter().any(|list| list.wire == Wire::Rq);
        touched.push(if has_rq { RQ_SUSPENDED } else { &keys.pauses });
        touched.extend(lists.iter().flat_map(|list| list.keys.iter().map(String::as_str)));
        let mut pipeline = Pipeline::new();
        Script::take.call(&mut pipeline, &touched);
        pipeline.arg(self.node.as_str()).arg(self.lease_until(now).as_millis()).arg(room).arg(MESSAGES);
        pipeline.arg(most.map(|most| most.to_string()).unwrap_or_default());
        for (list, step) in steps(lists) {
            pipeline.arg(side(list.wire)).arg(step);
        }
        let reply = only(self.store.link.send(&pipeline).await?)?;
        let mut flat = Script::take.reply::<Vec<Vec<u8>>>(reply, HAUL)?.into_iter();
        let pending = match flat.next().as_deref() {
            Some(b"paused") => None,
            count => Some(count.and_then(|count| text(count).parse().ok()).ok_or(broken("take", HAUL))?),
        };
        let suspended = flat.next().is_some_and(|word| word == b"1");
        let mut haul = Haul { messages: Vec::new(), pending, suspended };
        while let (Some(field), Some(element)) = (flat.next(), flat.next()) {
            haul.messages.extend(taken(&field, element));
        }
        Ok(haul)
    }

    /// Takes over messages that dead nodes left in flight; this node's own come back too, for it knows which of them
    /// it is working on.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer.
    pub(crate) async fn adopt(
        &self,
        queue: &QueueName,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Taken>, BrokerError> {
        let keys = self.keys(queue);
        let mut pipeline = Pipeline::new();
        Script::adopt.call(&mut pipeline, &[&keys.inflight, &keys.leases, &keys.counters]);
        pipeline.arg(now.as_millis()).arg(self.node.as_str()).arg(limit);
        let reply = only(self.store.link.send(&pipeline).await?)?;
        let mut flat = Script::adopt.reply::<Vec<Vec<u8>>>(reply, "messages")?.into_iter();
        let mut messages = Vec::new();
        while let (Some(field), Some(element)) = (flat.next(), flat.next()) {
            messages.extend(taken(&field, element));
        }
        Ok(messages)
    }

    /// Turns messages in flight into jobs, in one transition; the hashes of their producers stay for as long.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it, what was admitted is recognised.
    pub(crate) async fn admit(
        &self,
        queue: &QueueName,
        admissions: &[Admission],
        withdrawn: Withdrawn,
        now: Timestamp,
    ) -> Result<Vec<Admitted>, BrokerError> {
        if admissions.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.keys(queue);
        let touched = [
            &keys.inflight,
            &keys.jobs,
            &keys.history,
            &keys.pending,
            &keys.scheduled,
            &keys.retry,
            &keys.active,
            &keys.completed,
            &keys.dead,
            &keys.cancelled,
            &keys.outbox,
            &keys.counters,
            &keys.large,
            &keys.held,
            &keys.lines,
            &keys.turns,
            &keys.unique,
        ];
        let mut pipeline = Pipeline::new();
        Script::admit.call(&mut pipeline, &touched.map(String::as_str));
        pipeline.arg(withdrawn.0).arg(withdrawn.1).arg(admissions.len());
        for (index, admission) in admissions.iter().enumerate() {
            self.add(&mut pipeline, admission, place::thousandths(index, admissions.len()), now)?;
        }
        add_uniques(&mut pipeline, admissions, now)?;
        let reply = only(self.store.link.send(&pipeline).await?)?;
        let told: Vec<Value> = Script::admit.reply(reply, TOLD)?;
        let admitted: Vec<Admitted> = told.into_iter().map(|told| self.admitted(told)).collect::<Result<_, _>>()?;
        self.owe_refusals(admissions, &admitted, now);
        Ok(admitted)
    }

    /// What became of a message, as the script tells it.
    fn admitted(&self, told: Value) -> Result<Admitted, BrokerError> {
        match told {
            Value::Int(1) => Ok(Admitted::Yes),
            Value::Int(2) => Ok(Admitted::LivesAlready),
            Value::Int(3) => Ok(Admitted::Withdrawn),
            Value::Int(_) => Ok(Admitted::DoneBefore),
            unique => {
                let words: Vec<String> = FromRedisValue::from_redis_value(unique).map_err(|_| broken("admit", TOLD))?;
                match words.as_slice() {
                    [code, holder @ ..] if code == "4" => {
                        Holder::read(holder).map(Admitted::Duplicate).ok_or(broken("admit", TOLD))
                    }
                    [_, _, owed @ ..] => {
                        self.owe_replaced(owed);
                        Ok(Admitted::Yes)
                    }
                    _ => Ok(Admitted::Yes),
                }
            }
        }
    }

    /// `nth` keeps the messages of one call in their order.
    fn add(
        &self,
        pipeline: &mut Pipeline,
        admission: &Admission,
        nth: usize,
        now: Timestamp,
    ) -> Result<(), BrokerError> {
        pipeline.arg(&admission.taken.field);
        match &admission.verdict {
            Verdict::Job(job) => {
                let Record { text, large } = encode(job)?;
                let (set, mut score) = self.place(job, now);
                if set == "pending" {
                    score = format!("{score}.{nth:03}");
                }
                pipeline.arg(job.id.as_str()).arg(text).arg(set).arg(score).arg("").arg(large);
            }
            Verdict::Refused(job, history) => {
                let cancelled = history.end.as_ref().is_some_and(|end| end.state == State::Cancelled);
                let set = if cancelled { "cancelled" } else { "dead" };
                let (Record { text, large }, history) = (encode(job)?, encode_history(history)?);
                pipeline.arg(job.id.as_str()).arg(text).arg(set).arg(now.as_millis()).arg(history).arg(large);
            }
            Verdict::Dropped => {
                pipeline.arg("").arg("").arg("drop").arg(0).arg("").arg("");
            }
        }
        pipeline.arg(admission.hash.as_deref().unwrap_or_default());
        let line = if let Verdict::Job(job) = &admission.verdict { job.line() } else { None };
        pipeline.arg(line.unwrap_or_default());
        Ok(())
    }

    /// The producers of messages that have ended at once are owed an answer.
    fn owe_refusals(&self, admissions: &[Admission], admitted: &[Admitted], now: Timestamp) {
        for (admission, admitted) in admissions.iter().zip(admitted) {
            let (job, history) = match (&admission.verdict, admitted) {
                (Verdict::Refused(job, history), Admitted::Yes) => (job, (**history).clone()),
                (Verdict::Job(job), Admitted::Duplicate(holder)) => (job, duplicate_of(holder.id.as_str(), now)),
                _ => continue,
            };
            self.owed.send(OwedJob { job: Arc::new((**job).clone()), history, token: 0, again: None });
        }
    }
}

/// What the script is told of the messages that are unique, if any is.
fn add_uniques(pipeline: &mut Pipeline, admissions: &[Admission], now: Timestamp) -> Result<(), BrokerError> {
    let mut is_first = true;
    for (index, admission) in admissions.iter().enumerate() {
        let Verdict::Job(job) = &admission.verdict else { continue };
        let Some(unique) = &job.unique else { continue };
        if std::mem::take(&mut is_first) {
            pipeline.arg(now.as_millis());
        }
        pipeline.arg(index + 1);
        Wanted::of(job, unique, now).add(pipeline, job, now)?;
        pipeline.arg(duplicate_text(now)?);
    }
    Ok(())
}

/// Celery's consumers take from the tail, RQ's from the head.
/// Each Redis list of these, and which step of its wire it is, from 1: Celery's priorities, and RQ's queues in their order.
fn steps(lists: &[ForeignList]) -> impl Iterator<Item = (&ForeignList, usize)> {
    let mut queues_of_rq = 0;
    lists.iter().flat_map(move |list| {
        queues_of_rq += usize::from(list.wire == Wire::Rq);
        let first = if list.wire == Wire::Rq { queues_of_rq } else { 1 };
        (first..first + list.keys.len()).map(move |step| (list, step))
    })
}

fn side(wire: Wire) -> &'static str {
    match wire {
        Wire::Celery => "R",
        Wire::Rq => "L",
    }
}

const HAUL: &str = "a count, and messages";
const TOLD: &str = "what became of each message";

fn broken(script: &'static str, expected: &'static str) -> BrokerError {
    BrokerError::Answer { script, expected }
}

/// A message from its place in the in-flight record: the field names its list, behind a NUL.
fn taken(field: &[u8], element: Vec<u8>) -> Option<Taken> {
    let nul = field.iter().position(|&byte| byte == 0)?;
    Some(Taken { field: text(field), list: text(&field[nul + 1..]), element })
}

/// Fields and list names are ours or from the configuration: always UTF-8.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
