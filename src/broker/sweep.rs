//! Signs of life, and what the dead left behind.

use redis::Pipeline;

use super::exchange::read_claim;
use super::script::{Script, only};
use super::{Broker, BrokerError, Claim};
use crate::config::Queue;
use crate::job::{NodeId, QueueName, Timestamp};

/// What a heartbeat learned about one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Survey {
    pub queue: QueueName,
    /// End of the earliest lease that is not ours.
    pub earliest_lease: Option<Timestamp>,
    pub active: u64,
    /// Foreign messages between list and admission.
    pub inflight: u64,
    /// Answers owed to foreign producers.
    pub owed: u64,
}

/// A claim that this node has come by in a sweep, and why its former attempt is over, in words.
#[derive(Debug)]
pub(crate) struct Swept {
    pub claim: Claim,
    pub reason: String,
    /// Whether a process died under it; if not, only an answer was lost and the attempt never began.
    pub crashed: bool,
}

/// Jobs deleted by one pass over one set.
const PRUNE: usize = 1000;

impl Broker {
    /// Renews this node's leases, and publishes what it learned in [`Broker::surveys`].
    ///
    /// # Errors
    /// [`BrokerError`]: the leases run on from their last renewal.
    pub(crate) async fn heartbeat(&self, queues: &[QueueName], now: Timestamp) -> Result<Vec<Survey>, BrokerError> {
        if queues.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = queues.iter().map(|queue| self.keys(queue)).collect();
        let touched: Vec<&str> = keys.iter().flat_map(|k| [&*k.leases, &*k.active, &*k.inflight, &*k.outbox]).collect();
        let mut pipeline = Pipeline::new();
        Script::heartbeat.call(&mut pipeline, &touched);
        pipeline.arg(now.as_millis()).arg(self.node.as_str()).arg(self.lease_until(now).as_millis());
        let reply = only(self.store.link.send(&pipeline).await?)?;
        let flat: Vec<String> = Script::heartbeat.reply(reply, "numbers")?;
        let surveys: Vec<Survey> = queues
            .iter()
            .zip(flat.chunks_exact(4))
            .map(|(queue, found)| Survey {
                queue: queue.clone(),
                earliest_lease: found[0].parse().ok().map(Timestamp::from_millis),
                active: found[1].parse().unwrap_or(0),
                inflight: found[2].parse().unwrap_or(0),
                owed: found[3].parse().unwrap_or(0),
            })
            .collect();
        self.surveys.send_replace(surveys.clone());
        Ok(surveys)
    }

    /// Takes over the claims of nodes whose lease ended before `expired_before`, and finds claims of ours whose answer
    /// was lost.
    ///
    /// # Errors
    /// [`BrokerError`]: what was taken over without our knowing is found by the next sweep.
    pub(crate) async fn sweep(
        &self,
        queue: &QueueName,
        expired_before: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Swept>, BrokerError> {
        let keys = self.keys(queue);
        let mut pipeline = Pipeline::new();
        Script::reap.call(&mut pipeline, &[&keys.leases, &keys.active, &keys.jobs, &keys.history, &keys.counters]);
        pipeline.arg(expired_before.as_millis()).arg(now.as_millis()).arg(self.node.as_str()).arg(limit);
        let reply = only(self.store.link.send(&pipeline).await?)?;
        let (mine, taken): (Vec<String>, Vec<String>) = Script::reap.reply(reply, "two lists")?;
        let mut swept = Vec::new();
        for found in taken.chunks_exact(7) {
            swept.push(self.taken_over(queue, found, now)?);
        }
        swept.extend(self.lost_answers(queue, &mine, now).await?);
        Ok(swept)
    }

    fn taken_over(&self, queue: &QueueName, found: &[String], now: Timestamp) -> Result<Swept, BrokerError> {
        let started = found[6].parse().map_or(now, Timestamp::from_millis);
        let claim = read_claim(&found[0], &found[1], &found[2], &found[3], started)?;
        self.held().insert((queue.clone(), claim.token));
        let node = if found[4].is_empty() { "an unknown node" } else { &found[4] };
        let silent = match found[5].parse::<u64>() {
            Ok(0) | Err(_) => "has ended without handing it back".to_owned(),
            Ok(end) => {
                let last = Timestamp::from_millis(end).before(self.lease);
                format!("gave its last sign of life {} s ago", now.since(last).as_secs())
            }
        };
        let ran = started_words(started, now);
        let reason = format!("the node {node}, which ran it {ran}, {silent}");
        Ok(Swept { claim, reason, crashed: true })
    }

    /// Claims that Redis says are ours and that this process does not know. Young ones are left alone: their answer
    /// may still be on its way, for no longer than the deadline of a call.
    async fn lost_answers(
        &self,
        queue: &QueueName,
        mine: &[String],
        now: Timestamp,
    ) -> Result<Vec<Swept>, BrokerError> {
        let old = now.before(2 * self.store.link.timeout());
        let lost: Vec<(&str, u64, Timestamp)> = mine
            .chunks_exact(3)
            .filter_map(|own| Some((own[0].as_str(), own[1].parse().ok()?, own[2].parse().ok()?)))
            .map(|(id, token, started)| (id, token, Timestamp::from_millis(started)))
            .filter(|(_, token, started)| *started < old && !self.held().contains(&(queue.clone(), *token)))
            .collect();
        if lost.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.keys(queue);
        let ids: Vec<&str> = lost.iter().map(|(id, ..)| *id).collect();
        let mut pipeline = Pipeline::new();
        pipeline.cmd("HMGET").arg(&keys.jobs).arg(&ids).cmd("HMGET").arg(&keys.history).arg(&ids);
        let replies = self.store.link.send(&pipeline).await?;
        let unexpected = || BrokerError::Answer { script: "HMGET", expected: "records" };
        let mut texts = replies.into_iter().map(|reply| {
            redis::FromRedisValue::from_redis_value(crate::store::accepted(reply)?).map_err(|_| unexpected())
        });
        let records: Vec<Option<String>> = texts.next().ok_or_else(unexpected)??;
        let histories: Vec<Option<String>> = texts.next().ok_or_else(unexpected)??;
        let mut swept = Vec::new();
        for (((id, token, started), record), history) in lost.into_iter().zip(records).zip(histories) {
            let Some(record) = record else { continue };
            let claim = read_claim(id, &token.to_string(), &record, &history.unwrap_or_default(), started)?;
            self.held().insert((queue.clone(), claim.token));
            let reason = "Redis had given it to this node, but the answer was lost on the way".to_owned();
            swept.push(Swept { claim, reason, crashed: false });
        }
        Ok(swept)
    }

    /// Ends the leases of a node that is known to be dead or is this one, about to leave.
    ///
    /// # Errors
    /// [`BrokerError`]: the leases then run out by themselves.
    pub(crate) async fn retire(&self, node: &NodeId, queues: &[QueueName]) -> Result<(), BrokerError> {
        let mut pipeline = Pipeline::new();
        for queue in queues {
            Script::retire.call(&mut pipeline, &[&self.keys(queue).leases]);
            pipeline.arg(node.as_str());
        }
        if !queues.is_empty() {
            self.store.link.send(&pipeline).await?;
        }
        Ok(())
    }

    /// Deletes ended jobs that are past their retention, a bounded number; says how many.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer.
    pub(crate) async fn prune(&self, queue: &Queue, now: Timestamp) -> Result<u64, BrokerError> {
        let keys = self.keys(&queue.name);
        let touched = [&keys.completed, &keys.dead, &keys.cancelled, &keys.jobs, &keys.history];
        let mut pipeline = Pipeline::new();
        Script::prune.call(&mut pipeline, &touched.map(String::as_str));
        pipeline.arg(now.before(queue.keep_completed.age).as_millis());
        pipeline.arg(now.before(queue.keep_dead.age).as_millis()).arg(PRUNE);
        let reply = only(self.store.link.send(&pipeline).await?)?;
        Script::prune.reply(reply, "a count")
    }
}

fn started_words(started: Timestamp, now: Timestamp) -> String {
    format!("for up to {} s", now.since(started).as_secs())
}
