//! Signs of life, and what the dead left behind.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use redis::{FromRedisValue, Pipeline, Value};
use serde_json::Value as Json;

use super::exchange::{call_settle, encode_history, holder};
use super::flows::words;
use super::script::{Script, only};
use super::{Broker, BrokerError, Claim};
use crate::clock;
use crate::config::Queue;
use crate::job::{Cause, End, History, JobId, Mishap, MishapKind, NodeId, QueueName, State, Timestamp};
use crate::store::{ActiveView, QueueKeys, accepted};

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
    /// Since when some node's heartbeats have come without a gap.
    pub unbroken_since: Timestamp,
}

impl Survey {
    /// Leases that ended by this time are over: their nodes had a whole lease's time to renew them while Redis could be
    /// reached. Until that is known, only those that were ended on purpose (at 0) are.
    pub(crate) fn expired_before(&self, lease: Duration, now: Timestamp) -> Timestamp {
        if now.since(self.unbroken_since) >= lease { now } else { Timestamp::from_millis(0) }
    }

    /// How long from now the earliest lease may be over.
    pub(crate) fn next_end(&self, lease: Duration, now: Timestamp) -> Option<Duration> {
        let end = self.earliest_lease?;
        Some(end.max(self.unbroken_since.after(lease)).since(now))
    }
}

/// A claim that this node has come by in a sweep, and why its former attempt is over, in words.
#[derive(Debug)]
pub(crate) struct Swept {
    pub claim: Claim,
    pub reason: String,
    /// Whether a process died under it; if not, only an answer was lost and the attempt never began.
    pub crashed: bool,
}

/// A bound for sets that nothing reaches: burying trims nothing.
const KEEP_ALL: usize = 1 << 40;
/// Jobs buried in one call.
const BURY: usize = 500;
/// Jobs deleted by one pass over one set.
const PRUNE: usize = 1000;
/// More bytes than any Redis holds, and a number that Lua still counts exactly.
const EXACT: u64 = 1 << 52;
/// Jobs measured by one step of a walk.
const SHRINK: u64 = 500;

impl Broker {
    /// Sets this process's clock by Redis's, so that all nodes on it reckon leases and due times by the same one. Says
    /// whether it jumped by more than a lease bears.
    ///
    /// # Errors
    /// [`BrokerError`]: the clock goes on as it was.
    pub(crate) async fn set_clock(&self) -> Result<bool, BrokerError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("TIME");
        let asked = clock::Reading::now();
        let reply = accepted(only(self.store.link.send(&pipeline).await?)?)?;
        let unexpected = |_| BrokerError::Answer { script: "TIME", expected: "seconds and microseconds" };
        let (seconds, micros): (u64, u64) = FromRedisValue::from_redis_value(reply).map_err(unexpected)?;
        Ok(asked.set_by(Timestamp::from_millis(seconds * 1000 + micros / 1000)) > self.lease / 3)
    }

    /// Renews this node's leases, and publishes what it learned in [`Broker::surveys`].
    ///
    /// # Errors
    /// [`BrokerError`]: the leases run on from their last renewal.
    pub(crate) async fn heartbeat(&self, queues: &[QueueName], now: Timestamp) -> Result<Vec<Survey>, BrokerError> {
        if queues.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = queues.iter().map(|queue| self.keys(queue)).collect();
        let of = |k: &'_ QueueKeys| [&k.leases, &k.active, &k.inflight, &k.outbox, &k.counters].map(String::clone);
        let touched: Vec<String> = keys.iter().flat_map(of).collect();
        let mut pipeline = Pipeline::new();
        Script::heartbeat.call(&mut pipeline, &touched.iter().map(String::as_str).collect::<Vec<_>>());
        pipeline.arg(self.node.as_str()).arg(self.lease_until(now).as_millis());
        // A beat comes every third of a lease; half a lease without any is a gap.
        pipeline.arg(now.as_millis()).arg((self.lease / 2).as_millis().to_string());
        let reply = only(self.store.link.send(&pipeline).await?)?;
        let flat: Vec<String> = Script::heartbeat.reply(reply, "numbers")?;
        let surveys: Vec<Survey> = queues
            .iter()
            .zip(flat.chunks_exact(5))
            .map(|(queue, found)| Survey {
                queue: queue.clone(),
                earliest_lease: found[0].parse().ok().map(Timestamp::from_millis),
                active: found[1].parse().unwrap_or(0),
                inflight: found[2].parse().unwrap_or(0),
                owed: found[3].parse().unwrap_or(0),
                unbroken_since: found[4].parse().map_or(now, Timestamp::from_millis),
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
        let touched = [&keys.leases, &keys.active, &keys.jobs, &keys.history, &keys.counters, &keys.used, &keys.lines];
        Script::reap.call(&mut pipeline, &touched.map(String::as_str));
        pipeline.arg(expired_before.as_millis()).arg(now.as_millis()).arg(self.node.as_str()).arg(limit);
        let reply = only(self.store.link.send(&pipeline).await?)?;
        let (mine, taken): (Vec<Vec<u8>>, Vec<Vec<u8>>) = Script::reap.reply(reply, "two lists")?;
        let mut swept = Vec::new();
        let mut unreadable = Vec::new();
        for found in taken.chunks_exact(7) {
            let started = number(&found[6]).map_or(now, Timestamp::from_millis);
            match self.read_claim(queue, &found[1], &found[2], &found[3], started) {
                Ok(claim) => {
                    let reason = self.last_seen(&found[4], &found[5], started, now);
                    swept.push(Swept { claim, reason, crashed: true });
                }
                Err(error) => unreadable.push(Unreadable::new(&found[0], &found[1], started, error)),
            }
        }
        // What is in `swept` is held from here on: if the rest fails, it is dropped, and found by the next sweep.
        // Young ones are left alone: their answer may still be on its way, for no longer than the deadline of a call.
        let old = now.before(2 * self.store.link.timeout());
        self.lost_answers(queue, &mine, old, &mut swept, &mut unreadable).await?;
        self.bury(queue, &unreadable, now).await?;
        Ok(swept)
    }

    /// When a node was last heard of, in words.
    fn last_seen(&self, node: &[u8], lease: &[u8], started: Timestamp, now: Timestamp) -> String {
        let node = if node.is_empty() { "unknown".into() } else { String::from_utf8_lossy(node) };
        let ran = now.since(started).as_secs();
        let silent = match number(lease) {
            Some(0) | None => "has ended without handing it back".to_owned(),
            Some(end) => {
                let last = Timestamp::from_millis(end).before(self.lease);
                format!("gave its last sign of life {} s ago", now.since(last).as_secs())
            }
        };
        format!("the node {node}, which ran it for up to {ran} s, {silent}")
    }

    /// Claims that Redis says are ours and that this process does not know, of those made before `old`.
    async fn lost_answers(
        &self,
        queue: &QueueName,
        mine: &[Vec<u8>],
        old: Timestamp,
        swept: &mut Vec<Swept>,
        unreadable: &mut Vec<Unreadable>,
    ) -> Result<(), BrokerError> {
        let lost: Vec<(&[u8], &[u8], Timestamp)> = mine
            .chunks_exact(3)
            .filter_map(|own| Some((&*own[0], &*own[1], number(&own[1])?, Timestamp::from_millis(number(&own[2])?))))
            .filter(|(id, _, token, started)| *started < old && !self.knows(queue, id, *token))
            .map(|(id, token, _, started)| (id, token, started))
            .collect();
        if lost.is_empty() {
            return Ok(());
        }
        let keys = self.keys(queue);
        let ids: Vec<&[u8]> = lost.iter().map(|(id, ..)| *id).collect();
        let mut pipeline = Pipeline::new();
        pipeline.cmd("HMGET").arg(&keys.jobs).arg(&ids).cmd("HMGET").arg(&keys.history).arg(&ids);
        let mut replies = self.store.link.send(&pipeline).await?.into_iter();
        let mut texts = || -> Result<Vec<Option<Vec<u8>>>, BrokerError> {
            let reply = accepted(replies.next().unwrap_or(Value::Nil))?;
            FromRedisValue::from_redis_value(reply)
                .map_err(|_| BrokerError::Answer { script: "HMGET", expected: "records" })
        };
        let (records, histories) = (texts()?, texts()?);
        for (((id, token, started), record), history) in lost.into_iter().zip(records).zip(histories) {
            let Some(record) = record else { continue };
            match self.read_claim(queue, token, &record, &history.unwrap_or_default(), started) {
                Ok(claim) => {
                    let reason = "Redis had given it to this node, but the answer was lost on the way".to_owned();
                    swept.push(Swept { claim, reason, crashed: false });
                }
                Err(error) => unreadable.push(Unreadable::new(id, token, started, error)),
            }
        }
        Ok(())
    }

    fn knows(&self, queue: &QueueName, id: &[u8], token: u64) -> bool {
        let id = std::str::from_utf8(id).ok().and_then(|id| JobId::parse(id).ok());
        id.is_some_and(|id| self.held.knows(queue, &id, token))
    }

    /// Ends jobs whose record cannot be read: dead, with the reason. The record stays as it is, for whoever can read it.
    async fn bury(&self, queue: &QueueName, unreadable: &[Unreadable], now: Timestamp) -> Result<(), BrokerError> {
        // As many at a time as a script may take apart.
        for some in unreadable.chunks(BURY) {
            self.bury_some(queue, some, now).await?;
        }
        Ok(())
    }

    async fn bury_some(&self, queue: &QueueName, unreadable: &[Unreadable], now: Timestamp) -> Result<(), BrokerError> {
        let mut pipeline = Pipeline::new();
        call_settle(&mut pipeline, &self.keys(queue), KEEP_ALL, KEEP_ALL);
        for Unreadable { id, token, started, error } in unreadable {
            let job = String::from_utf8_lossy(id);
            tracing::error!(%queue, %job, "its record cannot be read, it is dead: {error}");
            let mut history = History::default();
            history.note(Mishap {
                at: now,
                attempt: 0,
                node: self.node.clone(),
                kind: MishapKind::Failed,
                name: "UnreadableRecord".to_owned(),
                message: format!("this version of jobsd cannot read the job's record: {error}"),
                args: None,
                detail: None,
            });
            let cause = Some(Cause::Unreadable);
            let end =
                End { state: State::Dead, at: now, started: None, node: None, result: Json::Null, cause, reason: None };
            history.end = Some(end);
            pipeline.arg(id).arg(holder(*token, &self.node, *started)).arg("dead").arg(now.as_millis());
            pipeline.arg(encode_history(&history)?).arg("").arg("").arg(words::of_unreadable(&job, now)?);
        }
        accepted(only(self.store.link.send(&pipeline).await?)?)?;
        self.flows_stir.notify_one();
        Ok(())
    }

    /// Claims of this node that it does not know of, however young: for a node that waits for no answer any more.
    ///
    /// # Errors
    /// [`BrokerError`]: they are taken over when the lease has ended.
    pub(crate) async fn leftovers(&self, queue: &QueueName, now: Timestamp) -> Result<Vec<Swept>, BrokerError> {
        let mut pipeline = Pipeline::new();
        pipeline.hgetall(self.keys(queue).active);
        let reply = accepted(only(self.store.link.send(&pipeline).await?)?)?;
        let unexpected = |_| BrokerError::Answer { script: "HGETALL", expected: "who runs what" };
        let active: Vec<(Vec<u8>, String)> = FromRedisValue::from_redis_value(reply).map_err(unexpected)?;
        let mut mine = Vec::new();
        for (id, holder) in active {
            let view = ActiveView::parse(&holder).filter(|view| view.node == self.node);
            if let Some(ActiveView { token, started, .. }) = view {
                mine.extend([id, token.to_string().into_bytes(), started.as_millis().to_string().into_bytes()]);
            }
        }
        let (mut swept, mut unreadable) = (Vec::new(), Vec::new());
        self.lost_answers(queue, &mine, Timestamp::from_millis(u64::MAX), &mut swept, &mut unreadable).await?;
        self.bury(queue, &unreadable, now).await?;
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

    /// Deletes ended jobs that are past their retention, by age or by count, a bounded number, and unique keys that nobody
    /// holds; says how many jobs.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer.
    pub(crate) async fn prune(&self, queue: &Queue, now: Timestamp) -> Result<u64, BrokerError> {
        // First: a cancelled job holds nothing, but once it is deleted nobody can tell that it was cancelled.
        self.release_keys(&queue.name, now).await?;
        let keys = self.keys(&queue.name);
        let ended = [&keys.completed, &keys.dead, &keys.cancelled];
        let others = [&keys.jobs, &keys.history, &keys.large, &keys.outbox, &keys.trash, &keys.notes];
        let touched: Vec<&str> = ended.iter().chain(&others).map(|key| key.as_str()).collect();
        let mut pipeline = Pipeline::new();
        Script::prune.call(&mut pipeline, &touched);
        pipeline.arg(now.before(queue.keep_completed.age).as_millis());
        pipeline.arg(now.before(queue.keep_dead.age).as_millis());
        pipeline.arg(queue.keep_completed.count).arg(queue.keep_dead.count).arg(PRUNE);
        pipeline.arg(now.as_millis());
        let reply = only(self.store.link.send(&pipeline).await?)?;
        let found: Vec<u64> = Script::prune.reply(reply, "eight numbers")?;
        let &[mut deleted, purges, ref sets @ ..] = found.as_slice() else {
            return Err(BrokerError::Answer { script: "prune", expected: "eight numbers" });
        };
        let bytes = [queue.keep_completed.bytes, queue.keep_dead.bytes, queue.keep_dead.bytes];
        for ((set, bytes), found) in ended.into_iter().zip(bytes).zip(sets.chunks_exact(2)) {
            let as_measured = Measured { count: found[0], newest: found[1], bytes };
            if found[0] > 0 && self.measured().get(set) != Some(&as_measured) {
                deleted += self.shrink(&keys, set, bytes).await?;
                self.measured().insert(set.clone(), as_measured);
            }
        }
        if purges > 0 {
            self.empty_trash(&queue.name, now).await?;
        }
        Ok(deleted)
    }

    fn measured(&self) -> MutexGuard<'_, HashMap<String, Measured>> {
        // A panic while it was locked cannot have left it half-changed: every use is a single operation.
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes the oldest of a set of ended jobs, as many as it takes to keep the rest within `bytes`; says how many.
    /// Walks from the newest on in steps, so that nobody waits for the whole walk.
    async fn shrink(&self, keys: &QueueKeys, set: &str, bytes: u64) -> Result<u64, BrokerError> {
        let (mut rank, mut left, mut deleted) = (0, i64::try_from(bytes.min(EXACT)).unwrap_or(i64::MAX), 0);
        loop {
            let mut pipeline = Pipeline::new();
            Script::shrink
                .call(&mut pipeline, &[set, &keys.jobs, &keys.history, &keys.large, &keys.outbox, &keys.notes]);
            pipeline.arg(rank).arg(SHRINK).arg(left);
            let reply = only(self.store.link.send(&pipeline).await?)?;
            let (stay, room, gone): (u64, i64, u64) = Script::shrink.reply(reply, "three numbers")?;
            (rank, left, deleted) = (rank + stay, room, deleted + gone);
            if stay + gone < SHRINK {
                return Ok(deleted);
            }
        }
    }
}

/// A set of ended jobs as it was when it was last measured, and by which bound: while it is so still, there is nothing to
/// walk through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measured {
    count: u64,
    newest: u64,
    bytes: u64,
}

/// A claim of ours whose record cannot be read, and why.
#[derive(Debug)]
struct Unreadable {
    id: Vec<u8>,
    token: u64,
    started: Timestamp,
    error: BrokerError,
}

impl Unreadable {
    fn new(id: &[u8], token: &[u8], started: Timestamp, error: BrokerError) -> Self {
        Self { id: id.to_vec(), token: number(token).unwrap_or(0), started, error }
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
