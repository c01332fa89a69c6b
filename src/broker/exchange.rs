//! The round trip of a pool: finished attempts go in, new claims come out.

use std::sync::Arc;

use redis::{FromRedisValue, Pipeline, Value};

use super::flows::words;
use super::held::Hold;
use super::place;
use super::script::{Script, only};
use super::{Broker, BrokerError, OwedJob};
use crate::config::{Limits, Queue};
use crate::job::{Decision, History, Job, Next, NodeId, Origin, QueueName, State, Timestamp};
use crate::store::{QueueKeys, accepted};

/// A job that is ours for one attempt. Not `Clone`: [`Broker::exchange`] takes it by value, so it is settled once.
#[derive(Debug)]
pub(crate) struct Claim {
    /// Shared with the running attempt; the claim itself stays with the pool.
    pub job: Arc<Job>,
    pub history: History,
    /// Proof, with the job's id, that the claim is ours; grows with every round trip that claims from the queue.
    pub token: u64,
    pub started: Timestamp,
    /// Says that we know of it, for as long as it exists.
    pub(super) _hold: Hold,
}

/// A claim and what follows from its attempt.
#[derive(Debug)]
pub(crate) struct Settlement {
    pub claim: Claim,
    pub decision: Decision,
}

/// What became of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    Applied,
    /// The lease was lost and somebody else has the job: the late result counts for nothing.
    Refused,
    /// The job would have gone on, and somebody has asked for its end: its claim is in [`Exchange::to_cancel`].
    ToBeCancelled,
}

/// How the queue stands, as a claim found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    Open,
    /// There may be more to claim than came: jobs that were held are still coming back.
    More,
    /// A limit of the whole queue has no room: there is nothing to claim until its line is to be looked at.
    Limited,
    /// The whole queue is paused.
    Paused,
}

/// What one round trip brought.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// For each settlement, in order. `Err` holds those that are not known to be applied: to be sent again.
    pub settled: Result<Vec<Settled>, (BrokerError, Vec<Settlement>)>,
    /// Claims that stay ours until they are settled as cancelled.
    pub to_cancel: Vec<Claim>,
    pub promoted: Result<(), BrokerError>,
    pub claims: Result<(Vec<Claim>, Line), BrokerError>,
}

impl Exchange {
    /// Nothing is known to have happened.
    fn failed(error: BrokerError, settlements: Vec<Settlement>) -> Self {
        let settled = if settlements.is_empty() { Ok(Vec::new()) } else { Err((error.clone(), settlements)) };
        Self { settled, to_cancel: Vec::new(), promoted: Ok(()), claims: Err(error) }
    }
}

/// Jobs promoted in one call.
const PROMOTE: usize = 1000;

impl Broker {
    /// Settles, promotes what is due when `promote` says so, and claims up to `want` jobs, in one round trip.
    ///
    /// If the answer is lost, the settlements come back to be sent again (a settle that was applied is recognised),
    /// and claims that Redis made all the same are given back by the next sweep.
    pub(crate) async fn exchange(
        &self,
        queue: &Queue,
        settlements: Vec<Settlement>,
        promote: bool,
        want: usize,
        now: Timestamp,
    ) -> Exchange {
        #[cfg(debug_assertions)]
        let settlements = super::sabotage::hold_back(settlements, want);
        let keys = self.keys(&queue.name);
        let mut pipeline = Pipeline::new();
        if let Err(error) = self.add_settles(&mut pipeline, &keys, queue, &settlements) {
            return Exchange::failed(error, settlements);
        }
        if promote {
            Script::promote.call(&mut pipeline, &[&keys.scheduled, &keys.retry, &keys.pending]);
            pipeline.arg(now.as_millis()).arg(PROMOTE).arg(queue.ageing.as_millis().to_string());
        }
        let news = want > 0 && !self.knows_limits(queue);
        if news {
            // Before the claim: whatever waits may have nothing to wait for any more.
            pipeline.cmd("ZUNIONSTORE").arg(&keys.lines).arg(1).arg(&keys.lines).arg("WEIGHTS").arg(0);
        }
        if want > 0 {
            self.add_claim(&mut pipeline, &keys, &queue.limits, want, now);
        }
        let mut replies = match self.store.link.send(&pipeline).await {
            Ok(replies) => replies.into_iter(),
            Err(error) => return Exchange::failed(error.into(), settlements),
        };
        let mut to_cancel = Vec::new();
        let settled = self.read_settles(settlements, &mut replies, &mut to_cancel);
        let promoted = match promote.then(|| replies.next()).flatten() {
            Some(reply) => Script::promote.reply::<u64>(reply, "a count").map(drop),
            None => Ok(()),
        };
        if news && replies.next().is_some_and(|reply| accepted(reply).is_ok()) {
            self.learn_limits(queue);
        }
        let claims = match replies.next() {
            Some(reply) if want > 0 => self.claimed(&queue.name, reply, now).await,
            _ => Ok((Vec::new(), Line::Open)),
        };
        Exchange { settled, to_cancel, promoted, claims }
    }

    /// To be called before the time of a claim is taken. Windows of limits are reckoned by the clock of Redis, so a node
    /// that could not ask for it yet does that first; if it cannot now, neither can it claim.
    pub(crate) async fn prepare(&self, queue: &Queue) {
        if !queue.limits.is_empty()
            && !self.knows_limits(queue)
            && let Err(error) = self.set_clock().await
        {
            tracing::debug!(queue = %queue.name, "the clock is not set yet: {error}");
        }
    }

    fn add_claim(&self, pipeline: &mut Pipeline, keys: &QueueKeys, limits: &Limits, want: usize, now: Timestamp) {
        let touched = [
            &keys.pending,
            &keys.jobs,
            &keys.history,
            &keys.active,
            &keys.leases,
            &keys.counters,
            &keys.pauses,
            &keys.held,
            &keys.lines,
            &keys.turns,
            &keys.used,
            &keys.starts,
        ];
        Script::claim.call(pipeline, &touched.map(String::as_str));
        pipeline.arg(now.as_millis()).arg(self.node.as_str()).arg(self.lease_until(now).as_millis()).arg(want);
        pipeline.arg(limits.told());
    }

    /// The claims, each with its arguments.
    async fn claimed(
        &self,
        queue: &QueueName,
        reply: Value,
        now: Timestamp,
    ) -> Result<(Vec<Claim>, Line), BrokerError> {
        let (mut claims, line) = self.read_claims(queue, reply, now)?;
        // If this fails the claims are dropped, and given back by the next sweep.
        self.fetch_large(queue, &mut claims).await?;
        #[cfg(debug_assertions)]
        self.mark(queue, &claims).await;
        Ok((claims, line))
    }

    fn read_claims(&self, queue: &QueueName, reply: Value, now: Timestamp) -> Result<(Vec<Claim>, Line), BrokerError> {
        const EXPECTED: &str = "a word, a token, and texts in pairs";
        let texts: Vec<Vec<u8>> = Script::claim.reply(reply, EXPECTED)?;
        let Some(([word, token], found)) = texts.split_first_chunk::<2>() else {
            return Err(BrokerError::Answer { script: "claim", expected: EXPECTED });
        };
        let line = match word.as_slice() {
            b"paused" => Line::Paused,
            b"more" => Line::More,
            b"limited" => Line::Limited,
            _ => Line::Open,
        };
        let mut claims = Vec::with_capacity(found.len() / 2);
        for claim in found.chunks_exact(2) {
            match self.read_claim(queue, token, &claim[0], &claim[1], now) {
                Ok(claim) => claims.push(claim),
                // It stays active under a token that nobody holds: the next sweep finds it and buries it.
                Err(error) => tracing::error!(%queue, "a claimed job is unreadable: {error}"),
            }
        }
        Ok((claims, line))
    }

    /// Fetches the arguments that are too large for the record, of the jobs that have such.
    async fn fetch_large(&self, queue: &QueueName, claims: &mut [Claim]) -> Result<(), BrokerError> {
        let key = self.keys(queue).large;
        // One at a time: each may be as large as a request.
        for claim in claims.iter_mut().filter(|claim| claim.job.args_apart.is_some()) {
            let mut pipeline = Pipeline::new();
            pipeline.hget(&key, claim.job.id.as_str());
            let reply = accepted(only(self.store.link.send(&pipeline).await?)?)?;
            let text: Vec<u8> = FromRedisValue::from_redis_value(reply).unwrap_or_default();
            match serde_json::from_slice(&text) {
                Ok(args) => Arc::make_mut(&mut claim.job).args = args,
                // It runs without them, fails on the first one that is missing, and dies with that reason.
                Err(error) => tracing::error!(%queue, job = %claim.job.id, "its arguments cannot be read: {error}"),
            }
        }
        Ok(())
    }

    /// A claim from the texts that a script gives; from here on it is held.
    pub(super) fn read_claim(
        &self,
        queue: &QueueName,
        token: &[u8],
        record: &[u8],
        history: &[u8],
        started: Timestamp,
    ) -> Result<Claim, BrokerError> {
        let broken = |expected| BrokerError::Answer { script: "claim", expected };
        let job: Job = serde_json::from_slice(record).map_err(|_| broken("a job's record"))?;
        let history = match history {
            b"" => History::default(),
            text => serde_json::from_slice(text).map_err(|_| broken("a job's history"))?,
        };
        let token = std::str::from_utf8(token).ok().and_then(|token| token.parse().ok()).ok_or(broken("a token"))?;
        let hold = self.held.hold(queue, &job.id, token);
        Ok(Claim { job: Arc::new(job), history, token, started, _hold: hold })
    }

    fn read_settles(
        &self,
        settlements: Vec<Settlement>,
        replies: &mut impl Iterator<Item = Value>,
        to_cancel: &mut Vec<Claim>,
    ) -> Result<Vec<Settled>, (BrokerError, Vec<Settlement>)> {
        if settlements.is_empty() {
            return Ok(Vec::new());
        }
        let expected = "a number for each settle";
        let reply = replies.next().unwrap_or(Value::Nil);
        let codes: Vec<u8> = match Script::settle.reply(reply, expected) {
            Ok(codes) => codes,
            Err(error) => return Err((error, settlements)),
        };
        if codes.len() != settlements.len() {
            return Err((BrokerError::Answer { script: "settle", expected }, settlements));
        }
        let answered = settlements.into_iter().zip(codes);
        Ok(answered.map(|(settlement, code)| self.close(settlement, code, to_cancel)).collect())
    }

    fn add_settles(
        &self,
        pipeline: &mut Pipeline,
        keys: &QueueKeys,
        queue: &Queue,
        settlements: &[Settlement],
    ) -> Result<(), BrokerError> {
        if settlements.is_empty() {
            return Ok(());
        }
        call_settle(pipeline, keys, queue.keep_completed.count, queue.keep_dead.count);
        for Settlement { claim, decision } in settlements {
            let (set, score) = destination(decision, claim, queue);
            pipeline.arg(claim.job.id.as_str()).arg(holder(claim.token, &self.node, claim.started)).arg(set).arg(score);
            pipeline.arg(encode_history(&decision.history)?).arg(counter(decision, &claim.history));
            if owes_reply(&claim.job, decision.next) {
                pipeline.arg(claim.token)
            } else {
                pipeline.arg("")
            };
            pipeline.arg(words::of_end(&claim.job, &decision.history)?);
        }
        Ok(())
    }

    /// The settle is answered: the claim is no longer ours, and the producer is owed an answer.
    fn close(&self, settlement: Settlement, code: u8, to_cancel: &mut Vec<Claim>) -> Settled {
        let Settlement { claim, decision } = settlement;
        match code {
            0 => return Settled::Refused,
            3 => {
                to_cancel.push(claim);
                return Settled::ToBeCancelled;
            }
            _ => {}
        }
        if claim.job.flow.is_some() && matches!(decision.next, Next::End(_)) {
            self.flows_stir.notify_one();
        }
        if owes_reply(&claim.job, decision.next) {
            let again = match decision.next {
                Next::Retry { at } => Some(at),
                Next::End(_) | Next::Release => None,
            };
            self.owed.send(OwedJob { job: claim.job, history: decision.history, token: claim.token, again });
        }
        Settled::Applied
    }
}

/// Starts a call of `settle`; the settles follow as arguments.
pub(super) fn call_settle(pipeline: &mut Pipeline, keys: &QueueKeys, keep_completed: usize, keep_dead: usize) {
    let touched = [
        &keys.active,
        &keys.history,
        &keys.jobs,
        &keys.large,
        &keys.pending,
        &keys.retry,
        &keys.completed,
        &keys.dead,
        &keys.cancelled,
        &keys.counters,
        &keys.outbox,
        &keys.cancels,
        &keys.used,
        &keys.lines,
        &keys.words,
        &keys.notes,
    ];
    Script::settle.call(pipeline, &touched.map(String::as_str));
    pipeline.arg(keep_completed).arg(keep_dead);
}

/// Who runs a job, as it stands in the `active` hash before what the attempt has drawn.
pub(super) fn holder(token: u64, node: &NodeId, started: Timestamp) -> String {
    format!("{token} {node} {}", started.as_millis())
}

/// The history as it stands in the `history` hash.
pub(super) fn encode_history(history: &History) -> Result<String, BrokerError> {
    serde_json::to_string(history).map_err(|error| BrokerError::Encode(error.to_string()))
}

/// The set a job goes to, and its place in it. A released job gets its old place back, before what came later.
fn destination(decision: &Decision, claim: &Claim, queue: &Queue) -> (&'static str, String) {
    let job = &claim.job;
    match decision.next {
        Next::Release => ("pending", place::in_line(job.priority, place::waits_since(job), queue.ageing).to_string()),
        Next::Retry { at } => ("retry", place::at_its_time(job.priority, at).to_string()),
        Next::End(state) => {
            let at = decision.history.end.as_ref().map_or(claim.started, |end| end.at).as_millis().to_string();
            match state {
                State::Completed => ("completed", at),
                State::Cancelled => ("cancelled", at),
                _ => ("dead", at),
            }
        }
    }
}

/// The counter for an attempt that did not succeed.
fn counter(decision: &Decision, before: &History) -> &'static str {
    if decision.history.failures > before.failures {
        "failed"
    } else if decision.history.crashes > before.crashes {
        "crashed"
    } else {
        ""
    }
}

/// Whether the producer is to be told: a foreign one, when the job has ended or waits for its next attempt.
fn owes_reply(job: &Job, next: Next) -> bool {
    matches!(job.origin, Origin::Wire { .. }) && !matches!(next, Next::Release)
}
