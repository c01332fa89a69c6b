//! Answers owed to foreign producers.
//!
//! A settle writes the debt in the same transition as the end of the attempt, so it survives us; [`Broker::answer`]
//! removes it in the same transition that writes the foreign answer. In between it travels through a channel inside
//! the process; what does not fit there, or was left behind by a dead node, is found again by [`Broker::owed_jobs`].

use std::sync::Arc;

use redis::{Pipeline, Value};
use tokio::sync::mpsc;

use super::place;
use super::script::{Script, only};
use super::{Broker, BrokerError};
use crate::job::{History, Job, QueueName, Timestamp};
use crate::store::accepted;

/// A job whose producer waits for word of it.
#[derive(Debug, Clone)]
pub(crate) struct OwedJob {
    pub job: Arc<Job>,
    pub history: History,
    /// Token of the settle that owes it; 0 for a message refused at admission.
    pub token: u64,
    /// When it runs again, if it does.
    pub again: Option<Timestamp>,
}

/// Debts that wait in the process; more stay in Redis until the next sweep.
const CAPACITY: usize = 4096;

#[derive(Debug, Clone)]
pub(crate) struct OwedSender(mpsc::Sender<OwedJob>);

/// The receiving end of the debts of one process.
pub(crate) type OwedReceiver = mpsc::Receiver<OwedJob>;

pub(super) fn channel() -> (OwedSender, OwedReceiver) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    (OwedSender(sender), receiver)
}

impl OwedSender {
    /// Hands a debt on. A full channel loses nothing: the debt stands in Redis.
    pub(super) fn send(&self, job: OwedJob) {
        if self.0.try_send(job).is_err() {
            tracing::debug!("the answers queue up; this one goes out with the next sweep");
        }
    }
}

impl Broker {
    /// Debts of the queue as they stand in Redis, up to `limit`, in no order.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer.
    pub(crate) async fn owed_jobs(&self, queue: &QueueName, limit: usize) -> Result<Vec<OwedJob>, BrokerError> {
        let keys = self.keys(queue);
        let mut pipeline = Pipeline::new();
        pipeline.cmd("HRANDFIELD").arg(&keys.outbox).arg(limit).arg("WITHVALUES");
        let reply = accepted(only(self.store.link.send(&pipeline).await?)?)?;
        let unexpected = || BrokerError::Answer { script: "HRANDFIELD", expected: "debts" };
        let flat: Vec<String> = redis::FromRedisValue::from_redis_value(reply).map_err(|_| unexpected())?;
        let debts: Vec<(&str, u64)> =
            flat.chunks_exact(2).filter_map(|debt| Some((debt[0].as_str(), debt[1].parse().ok()?))).collect();
        if debts.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<&str> = debts.iter().map(|(id, _)| *id).collect();
        let mut reads = Pipeline::new();
        reads.cmd("HMGET").arg(&keys.jobs).arg(&ids).cmd("HMGET").arg(&keys.history).arg(&ids);
        reads.cmd("ZMSCORE").arg(&keys.retry).arg(&ids);
        let mut replies = self.store.link.send(&reads).await?.into_iter();
        let mut texts = || -> Result<Vec<Option<String>>, BrokerError> {
            let reply = accepted(replies.next().unwrap_or(Value::Nil))?;
            redis::FromRedisValue::from_redis_value(reply).map_err(|_| unexpected())
        };
        let (records, histories) = (texts()?, texts()?);
        let again: Vec<Option<f64>> =
            redis::FromRedisValue::from_redis_value(accepted(replies.next().unwrap_or(Value::Nil))?)
                .map_err(|_| unexpected())?;
        let mut owed = Vec::new();
        for ((((id, token), record), history), again) in debts.into_iter().zip(records).zip(histories).zip(again) {
            match owed_job(record.as_deref(), history.as_deref(), token) {
                Some(job) => owed.push(OwedJob { again: again.map(place::time), ..job }),
                None => {
                    tracing::warn!(%queue, job = id, "its producer cannot be answered: the job was deleted before");
                    self.forget_debt(queue, id, token).await?;
                }
            }
        }
        Ok(owed)
    }

    /// Answers, each in one transition with the payment of its debt; says for each what became of it.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it, what was answered is recognised.
    pub(crate) async fn answer(&self, answers: &[(&OwedJob, &Answer)]) -> Result<Vec<Answered>, BrokerError> {
        let mut pipeline = Pipeline::new();
        let mut calls: Vec<Vec<usize>> = Vec::new();
        for (queue, indexes) in by_queue(answers) {
            for batch in indexes.chunks(BATCH) {
                let batch_answers: Vec<_> = batch.iter().map(|&index| &answers[index]).collect();
                Script::answer.call(&mut pipeline, &[&self.keys(queue).outbox]);
                add_answers(&mut pipeline, &batch_answers);
                calls.push(batch.to_vec());
            }
        }
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let replies = self.store.link.send(&pipeline).await?;
        let mut answered = vec![Answered::NotOwed; answers.len()];
        for (reply, batch) in replies.into_iter().zip(calls) {
            let codes: Vec<Value> = Script::answer.reply(reply, "a word for each answer")?;
            for (index, code) in batch.into_iter().zip(codes) {
                answered[index] = Answered::read(code);
            }
        }
        Ok(answered)
    }

    /// Nobody can be answered any more: the job was deleted before.
    async fn forget_debt(&self, queue: &QueueName, id: &str, token: u64) -> Result<(), BrokerError> {
        let mut pipeline = Pipeline::new();
        Script::answer.call(&mut pipeline, &[&self.keys(queue).outbox]);
        pipeline.arg(0).arg(1);
        add_answer(&mut pipeline, &[], id, token, &Answer::default());
        accepted(only(self.store.link.send(&pipeline).await?)?)?;
        Ok(())
    }
}

/// What became of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answered {
    /// The debt is paid.
    Paid,
    /// A tally came out otherwise than was expected: nothing was written. To be looked at again.
    Overtaken,
    /// There was none, or a newer one.
    NotOwed,
    /// Redis refused it, in these words; the debt stands.
    Refused(String),
}

impl Answered {
    pub(super) fn read(code: Value) -> Self {
        match code {
            Value::Int(1) => Self::Paid,
            Value::Int(2) => Self::Overtaken,
            Value::BulkString(words) => Self::Refused(String::from_utf8_lossy(&words).into_owned()),
            _ => Self::NotOwed,
        }
    }
}

/// Answers in one script call: bounds the time that Redis serves nobody else.
pub(super) const BATCH: usize = 200;

/// The indexes of each queue's answers, in their order.
pub(super) fn by_queue<'a, T>(answers: &[(&'a OwedJob, T)]) -> Vec<(&'a QueueName, Vec<usize>)> {
    let mut queues: Vec<(&QueueName, Vec<usize>)> = Vec::new();
    for (index, (owed, _)) in answers.iter().enumerate() {
        match queues.iter_mut().find(|(queue, _)| **queue == owed.job.queue) {
            Some((_, indexes)) => indexes.push(index),
            None => queues.push((&owed.job.queue, vec![index])),
        }
    }
    queues
}

/// The arguments of one call of `answer`.
fn add_answers(pipeline: &mut Pipeline, answers: &[&(&OwedJob, &Answer)]) {
    let mut forms: Vec<&'static str> = Vec::new();
    for (_, answer) in answers {
        for Command { form, .. } in answer.commands.iter().chain(&answer.others) {
            if !forms.contains(form) {
                forms.push(form);
            }
        }
    }
    pipeline.arg(forms.len()).arg(&forms).arg(answers.len());
    for (owed, answer) in answers {
        add_answer(pipeline, &forms, owed.job.id.as_str(), owed.token, answer);
    }
}

fn add_answer(pipeline: &mut Pipeline, forms: &[&'static str], id: &str, token: u64, answer: &Answer) {
    let (guard, key) = match &answer.guard {
        Guard::None => ("", ""),
        Guard::Unless { key, begins } => (*begins, key.as_str()),
    };
    pipeline.arg(id).arg(token).arg(guard).arg(key).arg(answer.commands.len());
    pipeline.arg(answer.checks.len()).arg(answer.tallies.len()).arg(answer.others.len());
    answer.commands.iter().for_each(|command| add_command(pipeline, forms, command));
    for (key, kind) in &answer.checks {
        pipeline.arg(key).arg(kind);
    }
    answer.tallies.iter().for_each(|tally| tally.add(pipeline));
    answer.others.iter().for_each(|command| add_command(pipeline, forms, command));
}

fn add_command(pipeline: &mut Pipeline, forms: &[&'static str], command: &Command) {
    let form = forms.iter().position(|form| *form == command.form).expect("the forms of all commands were gathered");
    pipeline.arg(form + 1);
    let mut begin = 0;
    for &end in &command.ends {
        pipeline.arg(&command.values[begin..end]);
        begin = end;
    }
}

/// A Redis command: the words that are always the same, and the values between them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// `{}` stands for a value. Sent once for all commands of this form.
    form: &'static str,
    /// One behind the other.
    values: Vec<u8>,
    /// Where each value ends.
    ends: Vec<usize>,
}

impl Command {
    fn new(form: &'static str, values: &[&dyn AsRef<[u8]>]) -> Self {
        debug_assert_eq!(form.matches("{}").count(), values.len(), "{form}");
        let mut command = Self { form, values: Vec::with_capacity(256), ends: Vec::with_capacity(values.len()) };
        for value in values {
            command.values.extend_from_slice((*value).as_ref());
            command.ends.push(command.values.len());
        }
        command
    }
}

/// What is written to answer a producer, in its own keys.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub guard: Guard,
    /// What the guard is for.
    pub commands: Vec<Command>,
    /// Keys, and the type that each of them must have if it exists, else nothing is written.
    checks: Vec<(String, &'static str)>,
    pub tallies: Vec<Tally>,
    /// What is written after the tallies, whatever the guard says.
    pub others: Vec<Command>,
}

/// When the commands of an answer are left out; the debt is paid all the same.
#[derive(Debug, Default)]
pub(crate) enum Guard {
    #[default]
    None,
    /// When the value of this key begins with a text.
    Unless { key: String, begins: &'static str },
}

/// Entries that are counted in a sorted set of a foreign protocol, until there are as many as a size says. Redis adds them
/// only if it comes out as `full` says; see `scripts/answer.lua`.
#[derive(Debug)]
pub(crate) struct Tally {
    pub keys: TallyKeys,
    pub entries: Vec<Entry>,
    /// The number of entries with which it becomes full; `None`: it does not yet.
    pub full: Option<usize>,
}

/// Where a tally stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TallyKeys {
    pub entries: String,
    pub size: String,
    /// A number that comes on top of the size.
    pub more: String,
    /// How many seconds the three are kept; `None`: for ever.
    pub keep: Option<u64>,
}

/// One entry of a tally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As Redis reads it.
    pub score: String,
    /// An entry of the same score that begins so is the same one, and gives way …
    pub begins: String,
    /// … unless it begins so.
    pub stands: String,
    pub text: String,
}

impl Tally {
    fn add(&self, pipeline: &mut Pipeline) {
        let TallyKeys { entries, size, more, keep } = &self.keys;
        let full = self.full.map(|count| count.to_string()).unwrap_or_default();
        let keep = keep.map(|seconds| seconds.to_string()).unwrap_or_default();
        pipeline.arg(entries).arg(size).arg(more).arg(keep).arg(full).arg(self.entries.len());
        for Entry { score, begins, stands, text } in &self.entries {
            pipeline.arg(score).arg(begins).arg(stands).arg(text);
        }
    }
}

impl Answer {
    /// Adds a command: `form` is its words, with `{}` for each of the values.
    pub(crate) fn command(&mut self, form: &'static str, values: &[&dyn AsRef<[u8]>]) {
        self.commands.push(Command::new(form, values));
    }

    /// Adds a command that the guard does not concern.
    pub(crate) fn other(&mut self, form: &'static str, values: &[&dyn AsRef<[u8]>]) {
        self.others.push(Command::new(form, values));
    }

    /// Nothing is to be written unless the key is free or of this type.
    pub(crate) fn check(&mut self, key: &str, kind: &'static str) {
        if !self.checks.iter().any(|(known, _)| known == key) {
            self.checks.push((key.to_owned(), kind));
        }
    }

    /// About how many bytes it sends.
    pub(crate) fn size(&self) -> usize {
        let commands = self.commands.iter().chain(&self.others).map(|command| command.values.len());
        let entries = self.tallies.iter().flat_map(|tally| &tally.entries).map(|entry| entry.text.len());
        commands.chain(entries).sum()
    }
}

pub(super) fn owed_job(record: Option<&str>, history: Option<&str>, token: u64) -> Option<OwedJob> {
    let job: Job = serde_json::from_str(record?).ok()?;
    let history = serde_json::from_str(history?).ok()?;
    Some(OwedJob { job: Arc::new(job), history, token, again: None })
}
