//! Reads: one job, one queue. On the pool for reads, so that they never delay a claim.

use std::collections::{BTreeMap, HashSet};

use deadpool_redis::PoolError;
use redis::{FromRedisValue, Pipeline, Value};

use super::link::accepted;
use super::{ForeignList, LinkError, QueueKeys, Standing, Store};
use crate::job::{Args, Job, JobId, NodeId, QueueName, Timestamp};

/// Who runs a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ActiveView {
    pub token: u64,
    pub node: NodeId,
    pub started: Timestamp,
}

/// One queue in numbers.
#[derive(Debug, Clone)]
pub(crate) struct QueueView {
    pub queue: QueueName,
    /// The held ones too.
    pub pending: u64,
    /// Pending jobs that are out of the way of the others: their task is paused, a limit has no room for them, or it is
    /// not their tenant's turn.
    pub held: u64,
    pub active: u64,
    pub scheduled: u64,
    pub retry: u64,
    pub completed: u64,
    pub dead: u64,
    pub cancelled: u64,
    /// Since when the first in line waits.
    pub oldest_pending: Option<Timestamp>,
    /// The `pauses` hash: a task, or an empty text for the whole queue, with who paused it (JSON).
    pub pauses: Vec<(String, String)>,
    /// Messages in each foreign list that no one has taken yet.
    pub foreign: Vec<(ForeignList, u64)>,
    pub counters: Counters,
}

/// What has happened in a queue since it was first used, over all nodes and restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub completed: u64,
    /// Failed attempts, retried or not.
    pub failed: u64,
    pub dead: u64,
    pub cancelled: u64,
    /// Attempts that a dying process left behind.
    pub crashed: u64,
    /// Late results of a lost lease: refused, never applied.
    pub refused: u64,
    /// How often a job was held because a limit had no room for it.
    pub held: u64,
}

impl ActiveView {
    /// Reads `token node started`, the value in the `active` hash.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        Some(Self {
            token: parts.next()?.parse().ok()?,
            node: NodeId::parse(parts.next()?).ok()?,
            started: Timestamp::from_millis(parts.next()?.parse().ok()?),
        })
    }
}

impl Store {
    /// Whether Redis answers, by a round trip on the pool for reads.
    ///
    /// # Errors
    /// [`LinkError`] with what is wrong.
    pub(crate) async fn ping(&self) -> Result<(), LinkError> {
        let mut ping = Pipeline::new();
        ping.cmd("PING");
        self.read(&ping).await.map(drop)
    }

    /// The job of this id, looked for in every queue given.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn job(&self, id: &JobId, queues: &[QueueName]) -> Result<Option<Standing>, LinkError> {
        let wanted: Vec<_> = queues.iter().map(|queue| (queue, id)).collect();
        Ok(self.standings(&wanted).await?.into_iter().flatten().next())
    }

    /// Which of these ids belong to a job, in any of the queues.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn taken(&self, ids: &[&JobId], queues: &[QueueName]) -> Result<HashSet<JobId>, LinkError> {
        if ids.is_empty() || queues.is_empty() {
            return Ok(HashSet::new());
        }
        let mut pipeline = Pipeline::new();
        for queue in queues {
            let keys = self.keys.queue(queue);
            for id in ids {
                pipeline.hexists(&keys.jobs, id.as_str());
            }
        }
        let replies = self.read(&pipeline).await?;
        let mut taken = HashSet::new();
        for (id, reply) in ids.iter().cycle().zip(replies) {
            if typed(reply, "whether a job exists")? {
                taken.insert((*id).clone());
            }
        }
        Ok(taken)
    }

    /// The numbers of each queue; `foreign` are the lists it reads.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn queues(&self, queues: &[(QueueName, Vec<ForeignList>)]) -> Result<Vec<QueueView>, LinkError> {
        if queues.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::new();
        for (queue, foreign) in queues {
            count(&mut pipeline, &self.keys.queue(queue), foreign);
        }
        let mut replies = self.read(&pipeline).await?.into_iter();
        let views = queues.iter().map(|(queue, foreign)| queue_view(queue, foreign, &mut replies));
        let (mut views, firsts): (Vec<_>, Vec<_>) = views.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        self.look_closer(&mut views, &firsts).await?;
        Ok(views)
    }

    /// How much waits in a queue: jobs in line or held, and messages in its foreign lists.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn backlog(&self, queue: &QueueName, foreign: &[ForeignList]) -> Result<u64, LinkError> {
        let mut pipeline = Pipeline::new();
        let keys = self.keys.queue(queue);
        pipeline.zcard(keys.pending).zcard(keys.held);
        for key in foreign.iter().flat_map(|list| &list.keys) {
            pipeline.llen(key);
        }
        self.read(&pipeline).await?.into_iter().map(number).sum()
    }

    /// What the first look at the queues could only name: since when the first in line waits. Its place does not tell,
    /// because its priority moves it.
    async fn look_closer(&self, views: &mut [QueueView], firsts: &[Option<String>]) -> Result<(), LinkError> {
        let mut pipeline = Pipeline::new();
        for (view, first) in views.iter().zip(firsts) {
            if let Some(id) = first {
                pipeline.hget(self.keys.queue(&view.queue).jobs, id);
            }
        }
        if pipeline.is_empty() {
            return Ok(());
        }
        let mut replies = self.read(&pipeline).await?.into_iter();
        let mut next = || replies.next().ok_or(LinkError::Unexpected { what: "a queue's numbers" });
        for (view, _) in views.iter_mut().zip(firsts).filter(|(_, first)| first.is_some()) {
            // Claimed and deleted meanwhile, or unreadable: the others are shown all the same.
            let record: Option<Vec<u8>> = typed(next()?, "a record")?;
            let job: Option<Job> = record.and_then(|record| serde_json::from_slice(&record).ok());
            view.oldest_pending = job.map(|job| job.due.unwrap_or(job.enqueued_at));
        }
        Ok(())
    }

    /// The arguments that stand beside a job's record; `None` when they are gone.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer or they cannot be read.
    pub(crate) async fn args_apart(&self, queue: &QueueName, id: &JobId) -> Result<Option<Args>, LinkError> {
        let mut pipeline = Pipeline::new();
        pipeline.hget(self.keys.queue(queue).large, id.as_str());
        let reply = self.read(&pipeline).await?.into_iter().next().unwrap_or(Value::Nil);
        let text: Option<Vec<u8>> = typed(reply, "arguments")?;
        let read =
            |text: Vec<u8>| serde_json::from_slice(&text).map_err(|_| LinkError::Unexpected { what: "arguments" });
        text.map(read).transpose()
    }

    pub(super) async fn read(&self, pipeline: &Pipeline) -> Result<Vec<Value>, LinkError> {
        let mut connection = self.reads.get().await.map_err(|error| self.unconnected(error))?;
        // The library's own deadline is half a second; ours below is the one that the operator sets.
        connection.set_response_timeout(self.timeout);
        let call = redis::aio::ConnectionLike::req_packed_commands(&mut *connection, pipeline, 0, pipeline.len());
        let replies = match tokio::time::timeout(self.timeout, call).await {
            Err(_) => Err(LinkError::Timeout(self.timeout)),
            Ok(Err(error)) => Err(LinkError::Broken(error)),
            Ok(Ok(replies)) => replies.into_iter().map(accepted).collect(),
        };
        if replies.is_err() {
            // It may still be waiting for the answers of this call: it must not go back into the pool.
            drop(deadpool_redis::Connection::take(connection));
        }
        replies
    }

    fn unconnected(&self, error: PoolError) -> LinkError {
        match error {
            PoolError::Backend(error) => LinkError::Connect(error),
            PoolError::Timeout(_) => LinkError::ConnectTimeout(self.timeout),
            other => LinkError::Refused(other.to_string()),
        }
    }
}

fn count(pipeline: &mut Pipeline, keys: &QueueKeys, foreign: &[ForeignList]) {
    pipeline.zcard(&keys.pending).hlen(&keys.active).zcard(&keys.scheduled).zcard(&keys.retry);
    pipeline.zcard(&keys.completed).zcard(&keys.dead).zcard(&keys.cancelled);
    pipeline.zrange(&keys.pending, 0, 0).zrange(&keys.held, 0, 0).zcard(&keys.held);
    pipeline.hgetall(&keys.pauses).hgetall(&keys.counters);
    for list in foreign {
        for key in &list.keys {
            pipeline.llen(key);
        }
    }
}

/// A queue's numbers, and the first in line.
fn queue_view(
    queue: &QueueName,
    foreign: &[ForeignList],
    replies: &mut impl Iterator<Item = Value>,
) -> Result<(QueueView, Option<String>), LinkError> {
    let mut next = || replies.next().ok_or(LinkError::Unexpected { what: "a queue's numbers" });
    let (pending, active, scheduled, retry) = (number(next()?)?, number(next()?)?, number(next()?)?, number(next()?)?);
    let (completed, dead, cancelled) = (number(next()?)?, number(next()?)?, number(next()?)?);
    let first: Vec<String> = typed(next()?, "the first in line")?;
    let first_held: Vec<String> = typed(next()?, "the first that is held")?;
    let held = number(next()?)?;
    let pauses: Vec<(String, String)> = typed(next()?, "pauses")?;
    let counted: BTreeMap<String, u64> = typed(next()?, "a queue's counters")?;
    let mut lists = Vec::new();
    for list in foreign {
        let mut waiting = 0;
        for _ in &list.keys {
            waiting += number(next()?)?;
        }
        lists.push((list.clone(), waiting));
    }
    let view = QueueView {
        queue: queue.clone(),
        pending: pending + held,
        held,
        active,
        scheduled,
        retry,
        completed,
        dead,
        cancelled,
        oldest_pending: None,
        pauses,
        foreign: lists,
        counters: counters(&counted),
    };
    Ok((view, first.into_iter().chain(first_held).next()))
}

fn counters(counted: &BTreeMap<String, u64>) -> Counters {
    let of = |name: &str| counted.get(name).copied().unwrap_or(0);
    Counters {
        completed: of("completed"),
        failed: of("failed"),
        dead: of("dead"),
        cancelled: of("cancelled"),
        crashed: of("crashed"),
        refused: of("refused"),
        held: of("held"),
    }
}

pub(super) fn number(value: Value) -> Result<u64, LinkError> {
    typed(value, "a count")
}

pub(super) fn typed<T: FromRedisValue>(value: Value, what: &'static str) -> Result<T, LinkError> {
    T::from_redis_value(value).map_err(|_| LinkError::Unexpected { what })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::redis::RedisServer;

    #[tokio::test]
    async fn a_read_waits_as_long_as_the_operator_says() {
        let redis = RedisServer::start();
        let store = Store::new(&redis.url(), "jobsd", Duration::from_secs(20), &[]).expect("a store");
        // Answers after a second, twice as long as the Redis library waits by itself.
        let mut slow = Pipeline::new();
        slow.cmd("BLPOP").arg("nothing").arg(1);
        assert_eq!(store.read(&slow).await.expect("it is waited for"), [Value::Nil]);
        let brief = Store::new(&redis.url(), "jobsd", Duration::from_millis(200), &[]).expect("a store");
        assert!(matches!(brief.read(&slow).await, Err(LinkError::Timeout(_) | LinkError::Broken(_))));
    }
}
