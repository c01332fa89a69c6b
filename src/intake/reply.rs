//! Answers to foreign producers, from the broker's outbox to the keys that their clients read.
//!
//! Each answer is one transition: the foreign keys and the payment of the debt. If we die before it, the debt stands
//! and the next sweep of any node pays it; after it, there is nothing left to do.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{celery, rq};
use crate::broker::{Answer, Answered, Broker, BrokerError, OwedJob, OwedReceiver, Survey};
use crate::clock;
use crate::config::Config;
use crate::job::{Origin, QueueName, Wire};

/// Answers in one round trip.
const BATCH: usize = 200;
/// Pause after a failure; doubles up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Batches on their way at the same time: while Redis works on one, the next is written.
const TRAVELLING: usize = 2;

/// Bytes of answers at once; one answer may be longer.
const BYTES: usize = 16 << 20;
/// How often answers are made anew that others have overtaken, before they are left to the next sweep.
const TRIES: usize = 20;

/// Where answers are written.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) broker: Arc<Broker>,
    pub(super) config: Arc<ArcSwap<Config>>,
    /// RQ's side of this node.
    pub(super) front: Arc<rq::Front>,
}

/// Writes answers until it is told to stop, and then those that are at hand.
pub(super) async fn run(desk: Arc<Desk>, mut owed: OwedReceiver, stop: CancellationToken) {
    let broker = &desk.broker;
    let mut surveys = broker.surveys.subscribe();
    let mut travelling = JoinSet::new();
    while !stop.is_cancelled() {
        let mut batch = Vec::with_capacity(BATCH);
        tokio::select! {
            () = stop.cancelled() => {}
            Some(ended) = travelling.join_next() => expect_no_panic(ended),
            _ = owed.recv_many(&mut batch, BATCH), if travelling.len() < TRAVELLING => {
                travelling.spawn(answer_until_done(Arc::clone(&desk), batch, stop.clone()));
            }
            Ok(()) = surveys.changed() => {
                // The debts of dead nodes are among those that this node is paying anyway.
                let at_hand = owed.len() + travelling.len() * BATCH;
                let queues = owing(&surveys.borrow_and_update());
                for (queue, debts) in queues {
                    pay_debts(&desk, &queue, debts.saturating_sub(at_hand).max(1), &stop).await;
                }
            }
        }
    }
    while let Some(ended) = travelling.join_next().await {
        expect_no_panic(ended);
    }
    // What cannot be written now stays in the outbox for the next start, or for another node.
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(last) = owed.try_recv() {
        batch.push(last);
        if batch.len() == BATCH && answer(&desk, &std::mem::take(&mut batch)).await.is_err() {
            return;
        }
    }
    if let Err(error) = answer(&desk, &batch).await {
        tracing::debug!("the last answers stay in the outbox: {error}");
    }
}

/// A bug in writing one answer is told, and does not cost the others theirs.
fn expect_no_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!("answering producers ended with a panic; the debts stay in the outbox: {error}");
    }
}

fn owing(surveys: &[Survey]) -> Vec<(QueueName, usize)> {
    let count = |survey: &Survey| usize::try_from(survey.owed).unwrap_or(usize::MAX);
    surveys.iter().filter(|survey| survey.owed > 0).map(|survey| (survey.queue.clone(), count(survey))).collect()
}

/// Answers about so many that stand in the outbox of the queue, until nothing of what is found can be paid. Some of them
/// may be on their way already: they are recognised.
async fn pay_debts(desk: &Desk, queue: &QueueName, debts: usize, stop: &CancellationToken) {
    for _ in 0..debts.div_ceil(BATCH) {
        let answered = match desk.broker.owed_jobs(queue, BATCH).await {
            Ok(found) => answer(desk, &found).await,
            Err(error) => Err(error),
        };
        match answered {
            Ok(0) => return,
            Ok(_) if stop.is_cancelled() => return,
            Ok(_) => {}
            Err(error) => {
                return tracing::debug!(%queue, "paying from the outbox failed, until the next sweep: {error}");
            }
        }
    }
}

/// Tries until the answers are written. Whoever stops in between leaves them in the outbox.
async fn answer_until_done(desk: Arc<Desk>, batch: Vec<OwedJob>, stop: CancellationToken) {
    let mut pause = PAUSE.0;
    while let Err(error) = answer(&desk, &batch).await {
        tracing::debug!("answering producers failed, trying again: {error}");
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Sends the answers; how many debts they have paid.
async fn answer(desk: &Desk, batch: &[OwedJob]) -> Result<usize, BrokerError> {
    let (rq, celery): (Vec<&OwedJob>, Vec<&OwedJob>) = batch.iter().partition(|owed| is_rq(owed));
    let mut paid = answer_celery(desk, &celery).await?;
    if !rq.is_empty() {
        paid += count(&rq, &desk.front.answer(&rq).await?);
    }
    Ok(paid)
}

/// Those of Celery, as many at once as may be long.
async fn answer_celery(desk: &Desk, batch: &[&OwedJob]) -> Result<usize, BrokerError> {
    let config = desk.config.load_full();
    let mut owed = batch.iter();
    let mut paid = 0;
    loop {
        let with = celery::answer::Desk { config: &config, node: &desk.broker.node, now: clock::now() };
        let (mut replies, mut bytes) = (Vec::new(), 0);
        while bytes < BYTES
            && let Some(&owed) = owed.next()
        {
            let reply = celery::answer::Reply::of(owed, &with);
            bytes += reply.answer().size();
            replies.push((owed, reply));
        }
        if replies.is_empty() {
            return Ok(paid);
        }
        paid += send(desk, replies, &with).await?;
    }
}

/// Sends them until none of them was overtaken, which others can bring about a few times in a row.
async fn send(
    desk: &Desk,
    mut replies: Vec<(&OwedJob, celery::answer::Reply)>,
    with: &celery::answer::Desk<'_>,
) -> Result<usize, BrokerError> {
    let mut paid = 0;
    for _ in 0..TRIES {
        let answers: Vec<(&OwedJob, &Answer)> = replies.iter().map(|(owed, reply)| (*owed, reply.answer())).collect();
        let owed: Vec<&OwedJob> = replies.iter().map(|(owed, _)| *owed).collect();
        let answered = desk.broker.answer(&answers).await?;
        paid += count(&owed, &answered);
        let mut fate = answered.iter();
        replies.retain(|_| fate.next() == Some(&Answered::Overtaken));
        if replies.is_empty() {
            break;
        }
        for (_, reply) in &mut replies {
            reply.look_again(&desk.broker, with).await?;
        }
    }
    Ok(paid)
}

/// How many were paid; what Redis refused is told.
fn count(batch: &[&OwedJob], answered: &[Answered]) -> usize {
    for (owed, answered) in batch.iter().zip(answered) {
        if let Answered::Refused(words) = answered {
            let (queue, job) = (&owed.job.queue, &owed.job.id);
            tracing::warn!(%queue, %job, "its producer cannot be answered now, the next sweep tries again: {words}");
        }
    }
    answered.iter().filter(|answered| **answered == Answered::Paid).count()
}

fn is_rq(owed: &OwedJob) -> bool {
    matches!(owed.job.origin, Origin::Wire { wire: Wire::Rq, .. })
}
