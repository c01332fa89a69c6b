//! Answers to foreign producers, from the broker's outbox to the keys that their clients read.
//!
//! Each answer is one transition: the foreign keys and the payment of the debt. If we die before it, the debt stands
//! and the next sweep of any node pays it; after it, there is nothing left to do.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{celery, rq};
use crate::broker::{Answer, Broker, BrokerError, OwedJob, OwedReceiver, Survey};
use crate::job::{Origin, QueueName, Wire};

/// Answers in one round trip.
const BATCH: usize = 200;
/// Pause after a failure; doubles up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Writes answers until it is told to stop, and then those that are at hand.
pub(super) async fn run(broker: Arc<Broker>, mut owed: OwedReceiver, stop: CancellationToken) {
    let mut surveys = broker.surveys.subscribe();
    let mut batch = Vec::with_capacity(BATCH);
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => {}
            _ = owed.recv_many(&mut batch, BATCH) => answer_until_done(&broker, &mut batch, &stop).await,
            Ok(()) = surveys.changed() => {
                let queues = owing(&surveys.borrow_and_update());
                for queue in queues {
                    match broker.owed_jobs(&queue, BATCH).await {
                        Ok(mut found) => answer_until_done(&broker, &mut found, &stop).await,
                        Err(error) => tracing::debug!(%queue, "reading the outbox failed: {error}"),
                    }
                }
            }
        }
    }
    // What cannot be written now stays in the outbox for the next start, or for another node.
    while let Ok(last) = owed.try_recv() {
        batch.push(last);
        if batch.len() == BATCH && answer(&broker, &std::mem::take(&mut batch)).await.is_err() {
            return;
        }
    }
    if let Err(error) = answer(&broker, &batch).await {
        tracing::debug!("the last answers stay in the outbox: {error}");
    }
}

fn owing(surveys: &[Survey]) -> Vec<QueueName> {
    surveys.iter().filter(|survey| survey.owed > 0).map(|survey| survey.queue.clone()).collect()
}

/// Tries until the answers are written. Whoever stops in between leaves them in the outbox.
async fn answer_until_done(broker: &Broker, batch: &mut Vec<OwedJob>, stop: &CancellationToken) {
    let mut pause = PAUSE.0;
    while let Err(error) = answer(broker, batch).await {
        tracing::debug!("answering producers failed, trying again: {error}");
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE.1);
    }
    batch.clear();
}

async fn answer(broker: &Broker, batch: &[OwedJob]) -> Result<(), BrokerError> {
    let answers: Vec<(&OwedJob, Answer)> = batch.iter().map(|owed| (owed, written(owed))).collect();
    broker.answer(&answers).await.map(drop)
}

fn written(owed: &OwedJob) -> Answer {
    match &owed.job.origin {
        Origin::Wire { wire: Wire::Celery, reply: note, .. } => celery::answer::answer(owed, note),
        Origin::Wire { wire: Wire::Rq, reply: note, .. } => rq::answer::answer(owed, note),
        // Only foreign jobs owe an answer.
        Origin::Api | Origin::Schedule { .. } => Answer::default(),
    }
}
