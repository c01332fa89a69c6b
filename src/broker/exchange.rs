//! The round trip of a pool: finished attempts go in, new claims come out.

use std::sync::Arc;

use redis::{Pipeline, Value};

use super::held::Hold;
use super::script::Script;
use super::{Broker, BrokerError, OwedJob};
use crate::config::Queue;
use crate::job::{Decision, History, Job, Next, Origin, QueueName, State, Timestamp};
use crate::store::QueueKeys;

/// A job that is ours for one attempt. Not `Clone`: [`Broker::exchange`] takes it by value, so it is settled once.
#[derive(Debug)]
pub(crate) struct Claim {
    /// Shared with the running attempt; the claim itself stays with the pool.
    pub job: Arc<Job>,
    pub history: History,
    /// Proof that the claim is ours; grows with every claim of the queue.
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
}

/// What one round trip brought.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// For each settlement, in order. `Err` holds those that are not known to be applied: to be sent again.
    pub settled: Result<Vec<Settled>, (BrokerError, Vec<Settlement>)>,
    pub promoted: Result<(), BrokerError>,
    pub claims: Result<Vec<Claim>, BrokerError>,
}

impl Exchange {
    /// Nothing is known to have happened.
    fn failed(error: BrokerError, settlements: Vec<Settlement>) -> Self {
        let settled = if settlements.is_empty() { Ok(Vec::new()) } else { Err((error.clone(), settlements)) };
        Self { settled, promoted: Ok(()), claims: Err(error) }
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
        if let Err(error) = add_settles(&mut pipeline, &keys, queue, &settlements) {
            return Exchange::failed(error, settlements);
        }
        if promote {
            Script::promote.call(&mut pipeline, &[&keys.scheduled, &keys.retry, &keys.pending]);
            pipeline.arg(now.as_millis()).arg(PROMOTE);
        }
        if want > 0 {
            self.add_claim(&mut pipeline, &keys, want, now);
        }
        let mut replies = match self.store.link.send(&pipeline).await {
            Ok(replies) => replies.into_iter(),
            Err(error) => return Exchange::failed(error.into(), settlements),
        };
        let settled = self.read_settles(settlements, &mut replies);
        let promoted = match promote.then(|| replies.next()).flatten() {
            Some(reply) => Script::promote.reply::<u64>(reply, "a count").map(drop),
            None => Ok(()),
        };
        let claims = match replies.next() {
            Some(reply) if want > 0 => self.read_claims(&queue.name, reply, now),
            _ => Ok(Vec::new()),
        };
        #[cfg(debug_assertions)]
        self.mark(&queue.name, claims.as_deref().unwrap_or_default()).await;
        Exchange { settled, promoted, claims }
    }

    fn add_claim(&self, pipeline: &mut Pipeline, keys: &QueueKeys, want: usize, now: Timestamp) {
        let touched = [&keys.pending, &keys.jobs, &keys.history, &keys.active, &keys.leases, &keys.counters];
        Script::claim.call(pipeline, &touched.map(String::as_str));
        pipeline.arg(now.as_millis()).arg(self.node.as_str()).arg(self.lease_until(now).as_millis()).arg(want);
    }

    fn read_claims(&self, queue: &QueueName, reply: Value, now: Timestamp) -> Result<Vec<Claim>, BrokerError> {
        let flat: Vec<Vec<u8>> = Script::claim.reply(reply, "texts")?;
        let mut claims = Vec::with_capacity(flat.len() / 4);
        for claim in flat.chunks_exact(4) {
            match self.read_claim(queue, &claim[1], &claim[2], &claim[3], now) {
                Ok(claim) => claims.push(claim),
                // It stays active under a token that nobody holds: the next sweep finds it and buries it.
                Err(error) => {
                    let job = String::from_utf8_lossy(&claim[0]);
                    tracing::error!(%queue, %job, "a claimed job is unreadable: {error}");
                }
            }
        }
        Ok(claims)
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
        let hold = self.held.hold(queue, token);
        Ok(Claim { job: Arc::new(job), history, token, started, _hold: hold })
    }

    fn read_settles(
        &self,
        settlements: Vec<Settlement>,
        replies: &mut impl Iterator<Item = Value>,
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
        let outcomes = settlements.into_iter().zip(codes).map(|(settlement, code)| self.close(settlement, code));
        Ok(outcomes.collect())
    }

    /// The settle is answered: the claim is no longer ours, and the producer is owed an answer.
    fn close(&self, settlement: Settlement, code: u8) -> Settled {
        let Settlement { claim, decision } = settlement;
        if code == 0 {
            return Settled::Refused;
        }
        if owes_reply(&claim.job, decision.next) {
            self.owed.send(OwedJob { job: claim.job, history: decision.history, token: claim.token });
        }
        Settled::Applied
    }
}

fn add_settles(
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
        let (set, score) = destination(decision, claim);
        pipeline.arg(claim.job.id.as_str()).arg(claim.token).arg(set).arg(score.as_millis());
        pipeline.arg(encode_history(&decision.history)?);
        pipeline.arg(counter(decision, &claim.history)).arg(u8::from(owes_reply(&claim.job, decision.next)));
    }
    Ok(())
}

/// Starts a call of `settle`; the settles follow as arguments.
pub(super) fn call_settle(pipeline: &mut Pipeline, keys: &QueueKeys, keep_completed: usize, keep_dead: usize) {
    let touched = [
        &keys.active,
        &keys.history,
        &keys.jobs,
        &keys.pending,
        &keys.retry,
        &keys.completed,
        &keys.dead,
        &keys.cancelled,
        &keys.counters,
        &keys.outbox,
    ];
    Script::settle.call(pipeline, &touched.map(String::as_str));
    pipeline.arg(keep_completed).arg(keep_dead);
}

/// The history as it stands in the `history` hash.
pub(super) fn encode_history(history: &History) -> Result<String, BrokerError> {
    serde_json::to_string(history).map_err(|error| BrokerError::Encode(error.to_string()))
}

/// The set a job goes to, and its place in it. A released job gets its old place back, before what came later.
fn destination(decision: &Decision, claim: &Claim) -> (&'static str, Timestamp) {
    match decision.next {
        Next::Release => ("pending", claim.job.due.unwrap_or(claim.job.enqueued_at)),
        Next::Retry { at } => ("retry", at),
        Next::End(state) => {
            let at = decision.history.end.as_ref().map_or(claim.started, |end| end.at);
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
