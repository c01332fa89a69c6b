//! Reads: what stands between a job and a slot: the line, who runs what, how long it takes, and the foreign lists.
//!
//! For the question about one job, asked by a person: each read is bounded, none of them is made by a node that idles.

use std::collections::HashMap;
use std::time::Duration;

use redis::{Pipeline, Value};

use super::inspect::typed;
use super::keys::{RQ_SUSPENDED, rq_job};
use super::standing::{instant, parsed};
use super::{ActiveView, ForeignList, LinkError, Store};
use crate::job::{JobId, NodeId, QueueName, Timestamp, Wire};

/// What is known of a queue around one of its jobs.
#[derive(Debug, Default)]
pub(crate) struct LineView {
    /// The `pauses` hash: a task, or an empty text for the whole queue, with who paused it (JSON).
    pub pauses: Vec<(String, String)>,
    /// The end of each node's lease.
    pub leases: HashMap<NodeId, Timestamp>,
    /// Jobs before it in line; `None` where it is in none.
    pub ahead: Option<u64>,
    /// The same in the line of its tenant.
    pub turn: Option<u64>,
    /// RQ's workers are to take nothing.
    pub rq_suspended: bool,
}

/// A message in a foreign list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MessageView {
    pub wire: Wire,
    /// The queue name that its producers use.
    pub list: String,
    /// How many are served before it.
    pub ahead: u64,
}

/// Runs from which a pace is taken, and how few say nothing.
const RUNS: (usize, usize) = (10, 3);
/// Messages of a Celery list that are looked through, those served next.
pub(crate) const MESSAGES: i64 = 200;

impl Store {
    /// The queue around one of its jobs, or around a message; of a job with the line of its tenant, if it has one.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn line(
        &self,
        queue: &QueueName,
        id: &JobId,
        tenant: Option<&str>,
    ) -> Result<LineView, LinkError> {
        let keys = self.keys.queue(queue);
        let mut pipeline = Pipeline::new();
        pipeline.hgetall(&keys.pauses).zrange_withscores(&keys.leases, 0, -1).zrank(&keys.pending, id.as_str());
        if let Some(tenant) = tenant {
            pipeline.zrank(keys.line(tenant), id.as_str());
        }
        let mut replies = self.read(&pipeline).await?.into_iter();
        let mut next = || replies.next().unwrap_or(Value::Nil);
        let pauses = typed(next(), "pauses")?;
        let leases: Vec<(String, f64)> = typed(next(), "leases")?;
        let leases = leases.into_iter().filter_map(|(node, end)| Some((NodeId::parse(&node).ok()?, instant(end))));
        let (leases, ahead, turn) = (leases.collect(), typed(next(), "a place in line")?, typed(next(), "a turn")?);
        Ok(LineView { pauses, leases, ahead, turn, rq_suspended: false })
    }

    /// The first of these lines in which the job stands.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn line_of<'a>(
        &self,
        queue: &QueueName,
        id: &JobId,
        lines: &[&'a str],
    ) -> Result<Option<&'a str>, LinkError> {
        let keys = self.keys.queue(queue);
        let mut pipeline = Pipeline::new();
        for line in lines {
            pipeline.zscore(keys.line(line), id.as_str());
        }
        let replies = if lines.is_empty() { Vec::new() } else { self.read(&pipeline).await? };
        for (line, reply) in lines.iter().zip(replies) {
            if typed::<Option<f64>>(reply, "a place in a line")?.is_some() {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// Whether RQ's workers are told to take nothing.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn rq_is_suspended(&self) -> Result<bool, LinkError> {
        let mut pipeline = Pipeline::new();
        pipeline.exists(RQ_SUSPENDED);
        let reply = self.read(&pipeline).await?.into_iter().next().unwrap_or(Value::Nil);
        typed(reply, "whether a key is there")
    }

    /// Who runs what in each of these queues.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn holders(&self, queues: &[QueueName]) -> Result<HashMap<QueueName, Vec<ActiveView>>, LinkError> {
        let mut pipeline = Pipeline::new();
        for queue in queues {
            pipeline.hvals(self.keys.queue(queue).active);
        }
        let replies = if queues.is_empty() { Vec::new() } else { self.read(&pipeline).await? };
        let mut running = HashMap::new();
        for (queue, reply) in queues.iter().zip(replies) {
            let holders: Vec<String> = typed(reply, "who runs what")?;
            running.insert(queue.clone(), holders.iter().filter_map(|holder| ActiveView::parse(holder)).collect());
        }
        Ok(running)
    }

    /// How long the latest jobs of a queue took on average; `None` where too few of them are known.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn pace(&self, queue: &QueueName) -> Result<Option<Duration>, LinkError> {
        let keys = self.keys.queue(queue);
        let mut latest = Pipeline::new();
        latest.zrevrange(&keys.completed, 0, isize::try_from(RUNS.0).unwrap_or(0) - 1);
        let reply = self.read(&latest).await?.into_iter().next().unwrap_or(Value::Nil);
        let ids: Vec<String> = typed(reply, "completed jobs")?;
        if ids.len() < RUNS.1 {
            return Ok(None);
        }
        let mut pipeline = Pipeline::new();
        pipeline.cmd("HMGET").arg(&keys.jobs).arg(&ids).cmd("HMGET").arg(&keys.history).arg(&ids);
        let mut replies = self.read(&pipeline).await?.into_iter();
        let mut texts = || typed::<Vec<Option<Vec<u8>>>>(replies.next().unwrap_or(Value::Nil), "records");
        let (records, histories) = (texts()?, texts()?);
        let took = records.into_iter().zip(histories).filter_map(|(record, history)| {
            let (_, history) = parsed(&record?, &history?).ok()?;
            let end = history.end?;
            Some(end.at.since(end.started?))
        });
        let took: Vec<Duration> = took.collect();
        let count = u32::try_from(took.len()).unwrap_or(u32::MAX);
        Ok((took.len() >= RUNS.1).then(|| took.iter().sum::<Duration>() / count))
    }

    /// The message of this id in one of the lists: RQ's, which hold ids, are searched whole, Celery's as far as they are
    /// served next.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn message(&self, lists: &[ForeignList], id: &JobId) -> Result<Option<MessageView>, LinkError> {
        for list in lists {
            let ahead = match list.wire {
                Wire::Rq => self.rq_position(list, id).await?,
                Wire::Celery => self.celery_position(list, id).await?,
            };
            if let Some(ahead) = ahead {
                return Ok(Some(MessageView { wire: list.wire, list: list.name.clone(), ahead }));
            }
        }
        Ok(None)
    }

    async fn rq_position(&self, list: &ForeignList, id: &JobId) -> Result<Option<u64>, LinkError> {
        let mut pipeline = Pipeline::new();
        for key in &list.keys {
            pipeline.cmd("LPOS").arg(key).arg(id.as_str());
        }
        let reply = self.read(&pipeline).await?.into_iter().next().unwrap_or(Value::Nil);
        typed(reply, "a position")
    }

    /// kombu pushes on the left and takes from the right, step by step of priority.
    async fn celery_position(&self, list: &ForeignList, id: &JobId) -> Result<Option<u64>, LinkError> {
        let quoted = format!("\"{id}\"");
        let mut before = 0;
        for key in &list.keys {
            let mut pipeline = Pipeline::new();
            pipeline.llen(key).cmd("LRANGE").arg(key).arg(-MESSAGES).arg(-1);
            let mut replies = self.read(&pipeline).await?.into_iter();
            let mut next = || replies.next().unwrap_or(Value::Nil);
            let count: u64 = typed(next(), "a count")?;
            let messages: Vec<Vec<u8>> = typed(next(), "messages")?;
            let holds = |message: &Vec<u8>| String::from_utf8_lossy(message).contains(&quoted);
            if let Some(at) = messages.iter().rev().position(holds) {
                return Ok(Some(before + u64::try_from(at).unwrap_or(u64::MAX)));
            }
            before += count;
        }
        Ok(None)
    }

    /// What RQ's own record says of a job: its queue and its status.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn rq_record(&self, id: &JobId) -> Result<Option<(String, String)>, LinkError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("HMGET").arg(rq_job(id.as_str())).arg("origin").arg("status");
        let reply = self.read(&pipeline).await?.into_iter().next().unwrap_or(Value::Nil);
        let (origin, status): (Option<String>, Option<String>) = typed(reply, "RQ's record of a job")?;
        Ok(origin.zip(status))
    }
}
