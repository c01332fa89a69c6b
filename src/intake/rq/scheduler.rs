//! RQ's scheduler: under its lock, jobs whose time has come go to their queue. Where one of RQ's own workers, or another
//! node, has the lock of a queue, that one does it.

use std::sync::Arc;
use std::time::Duration;

use redis::Pipeline;
use tokio::sync::Notify;

use super::front::Front;
use super::keys;
use crate::broker::BrokerError;
use crate::clock;
use crate::job::Timestamp;
use crate::store::RQ_SUSPENDED;

/// How often the locks are renewed, which last for 61 s.
pub(super) const BEAT: Duration = Duration::from_secs(45);
/// How often those of others are looked at: whoever had them may be dead.
pub(super) const AGAIN: Duration = Duration::from_secs(10);

/// What a look has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looked {
    /// RQ's workers are suspended.
    pub(super) suspended: bool,
    /// When the next job is due.
    pub(super) next: Option<Duration>,
}

/// What renewing the locks brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// There is one that was not ours before.
    pub(super) more: bool,
    /// Others have some.
    pub(super) others: bool,
}

/// Enqueues what is due; `notice` is told when a scheduled job, or a suspension, comes or goes.
pub(super) async fn look(front: &Front, notice: &Arc<Notify>) -> Result<Looked, BrokerError> {
    let mut looked = Looked { suspended: false, next: None };
    let queues = front.roster.queues();
    if queues.is_empty() {
        return Ok(looked);
    }
    // Armed before it is looked: what comes in between is told.
    let scheduled: Vec<String> = queues.iter().map(|(rq, _)| keys::scheduled(rq)).collect();
    let armed = front.broker.watch.arm(notice, &[RQ_SUSPENDED.to_owned()], &scheduled, RQ_SUSPENDED).await?;
    looked.suspended = armed.ready;
    // Where nothing is scheduled nothing is looked for.
    for (rq, ours) in queues.iter().filter(|_| armed.due.is_some()) {
        let (scheduled, list, lock) = (keys::scheduled(rq), keys::queue(rq), keys::scheduler_lock(rq));
        let now = clock::now();
        let due = front.broker.rq_due(ours, [&scheduled, &list, &lock], std::process::id(), now).await?;
        front.roster.schedule(rq, due.ours);
        if due.moved > 0 {
            tracing::debug!(queue = rq, jobs = due.moved, "scheduled jobs are due");
        }
        let wait = due.next.filter(|_| due.ours).map(|next| Timestamp::from_millis(next * 1000).since(now));
        looked.next = looked.next.into_iter().chain(wait).min();
    }
    Ok(looked)
}

/// Renews the locks and takes those that nobody has.
pub(super) async fn hold(front: &Front) -> Result<Held, BrokerError> {
    let mut found = Held { more: false, others: false };
    let queues = front.roster.queues();
    let Some((_, any)) = queues.first() else { return Ok(found) };
    let me = std::process::id();
    let locks: Vec<String> = queues.iter().map(|(rq, _)| keys::scheduler_lock(rq)).collect();
    let held = front.broker.rq_hold(any, &locks, me).await?;
    for ((rq, _), ours) in queues.iter().zip(held) {
        found.more |= ours && !front.roster.schedules(rq);
        found.others |= !ours;
        front.roster.schedule(rq, ours);
    }
    let (key, ttl) = (keys::scheduler(me), i64::try_from(BEAT.as_secs() * 2).unwrap_or(i64::MAX));
    let mut pipeline = Pipeline::new();
    pipeline.hset(&key, "pid", me).expire(&key, ttl);
    front.broker.store.link.send(&pipeline).await?;
    Ok(found)
}

/// Gives the locks up.
pub(super) async fn resign(front: &Front) -> Result<(), BrokerError> {
    let mut pipeline = Pipeline::new();
    for (rq, _) in front.roster.queues().iter().filter(|(rq, _)| front.roster.schedules(rq)) {
        pipeline.del(keys::scheduler_lock(rq));
    }
    if !pipeline.is_empty() {
        pipeline.del(keys::scheduler(std::process::id()));
        front.broker.store.link.send(&pipeline).await?;
    }
    Ok(())
}
