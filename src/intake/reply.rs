//! Answers to foreign producers, from the broker's outbox to the keys that their clients read.
//!
//! Each answer is one transaction: the foreign keys and the payment of the debt. If we die before it, the debt stands
//! and the next sweep of any node pays it; after it, there is nothing left to do.

use std::sync::Arc;
use std::time::Duration;

use redis::{FromRedisValue, Pipeline, Value as Reply};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{celery, rq};
use crate::broker::{Broker, BrokerError, OwedJob, OwedReceiver};
use crate::job::{Origin, QueueName, Wire};
use crate::store::{LinkError, accepted};

/// Answers in one round trip.
const BATCH: usize = 200;
/// Pause after a failure; doubles up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Writes answers until it is told to stop, and then those that are at hand.
pub(super) async fn run(broker: Arc<Broker>, mut owed: OwedReceiver, stop: CancellationToken) {
    let mut surveys = broker.surveys.subscribe();
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            biased;
            _ = owed.recv_many(&mut batch, BATCH) => answer_until_done(&broker, &mut batch, &stop).await,
            () = stop.cancelled() => return,
            Ok(()) = surveys.changed() => {
                let queues = owing(&surveys.borrow_and_update());
                for queue in queues {
                    match broker.owed_jobs(&queue, BATCH).await {
                        Ok(mut found) => answer_until_done(&broker, &mut found, &stop).await,
                        Err(error) => tracing::warn!(%queue, "reading the outbox failed: {error}"),
                    }
                }
            }
        }
    }
}

fn owing(surveys: &[crate::broker::Survey]) -> Vec<QueueName> {
    surveys.iter().filter(|survey| survey.owed > 0).map(|survey| survey.queue.clone()).collect()
}

/// Tries until the answers are written. Whoever stops in between leaves them in the outbox.
async fn answer_until_done(broker: &Broker, batch: &mut Vec<OwedJob>, stop: &CancellationToken) {
    let mut pause = PAUSE.0;
    while let Err(error) = answer(broker, batch).await {
        tracing::warn!("answering producers failed, trying again: {error}");
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE.1);
    }
    batch.clear();
}

async fn answer(broker: &Broker, batch: &[OwedJob]) -> Result<(), BrokerError> {
    if batch.is_empty() {
        return Ok(());
    }
    let known = look(broker, batch).await?;
    let mut pipeline = Pipeline::new();
    let mut replies = 0;
    for (owed, known) in batch.iter().zip(&known).filter(|(_, known)| known.owes) {
        let before = pipeline.len();
        pipeline.cmd("MULTI");
        write(&mut pipeline, owed, known);
        broker.pay(&mut pipeline, owed);
        pipeline.cmd("EXEC");
        replies += pipeline.len() - before;
    }
    if replies == 0 {
        return Ok(());
    }
    for reply in broker.store.link.send(&pipeline).await? {
        accepted(reply)?;
    }
    Ok(())
}

fn write(transaction: &mut Pipeline, owed: &OwedJob, known: &Known) {
    let Origin::Wire { wire, reply: note, .. } = &owed.job.origin else { return };
    match wire {
        Wire::Celery => celery::answer::write(transaction, owed, note, known.stored.as_deref()),
        Wire::Rq => rq::answer::write(transaction, owed, note, known.exists),
    }
}

/// What must be known before an answer can be written.
struct Known {
    /// The debt stands: nobody has paid it meanwhile.
    owes: bool,
    /// The stored result, for Celery.
    stored: Option<Vec<u8>>,
    /// Whether the job's hash is there, for RQ.
    exists: bool,
}

async fn look(broker: &Broker, batch: &[OwedJob]) -> Result<Vec<Known>, BrokerError> {
    let mut pipeline = Pipeline::new();
    for owed in batch {
        broker.debt(&mut pipeline, owed);
        match &owed.job.origin {
            Origin::Wire { wire: Wire::Rq, reply: note, .. } => {
                pipeline.cmd("EXISTS").arg(rq::keys::job(note_id(note)));
            }
            Origin::Wire { reply: note, .. } => {
                pipeline.cmd("GET").arg(celery::answer::result_key(note_id(note)));
            }
            // Only foreign jobs owe an answer.
            Origin::Api | Origin::Schedule { .. } => {
                pipeline.cmd("PING");
            }
        }
    }
    let replies = broker.store.link.send(&pipeline).await?;
    let mut known = Vec::with_capacity(batch.len());
    for (owed, pair) in batch.iter().zip(replies.chunks_exact(2)) {
        let debt = Option::<String>::from_redis_value(accepted(pair[0].clone())?);
        let debt = debt.map_err(|_| LinkError::Unexpected { what: "a debt" })?;
        known.push(Known {
            owes: debt == Some(owed.token.to_string()),
            // A key of another type holds no result of ours to respect.
            stored: Option::from_redis_value(pair[1].clone()).unwrap_or(None),
            exists: matches!(pair[1], Reply::Int(n) if n > 0),
        });
    }
    Ok(known)
}

fn note_id(note: &Value) -> &str {
    note.get("id").and_then(Value::as_str).unwrap_or_default()
}
