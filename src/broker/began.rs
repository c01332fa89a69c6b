//! Attempts as they begin, for who shows them to foreign clients.
//!
//! The pool tells and does not wait. What is told stands here, by wire, until that wire's side of the intake takes it; beyond
//! the bound it is dropped, and the producers of those jobs see them first when they have ended. A wire on which nobody
//! wants to know costs a look at a flag.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::Claim;
use crate::job::{Job, Origin, Timestamp, Wire};

/// Beginnings of one wire that wait at a time.
const CAPACITY: usize = 20_000;

/// An attempt of a foreign job that has begun on this node.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    pub job: Arc<Job>,
    /// Of its claim: who holds another one knows nothing of this attempt.
    pub token: u64,
    pub at: Timestamp,
}

/// The beginnings of one node.
#[derive(Debug, Default)]
pub(crate) struct Beginnings {
    celery: Mailbox,
    rq: Mailbox,
}

/// Those of one wire.
#[derive(Debug, Default)]
struct Mailbox {
    /// Whether somebody takes them. One that is told around the time of the change may be lost, or wait for the next take.
    wanted: AtomicBool,
    waiting: Mutex<Vec<Begun>>,
    told: Notify,
}

impl Beginnings {
    /// The attempt of this claim begins.
    pub(crate) fn tell(&self, claim: &Claim) {
        let Origin::Wire { wire, .. } = &claim.job.origin else { return };
        let mailbox = self.of(*wire);
        if mailbox.wanted.load(Ordering::Relaxed) {
            mailbox.put(Begun { job: Arc::clone(&claim.job), token: claim.token, at: claim.started });
        }
    }

    /// From now on somebody takes those of this wire, or nobody does.
    pub(crate) fn want(&self, wire: Wire, wanted: bool) {
        let mailbox = self.of(wire);
        if mailbox.wanted.swap(wanted, Ordering::Relaxed) && !wanted {
            drop(mailbox.take());
        }
    }

    /// All of this wire that have been told and not been taken, in their order.
    pub(crate) fn take(&self, wire: Wire) -> Vec<Begun> {
        self.of(wire).take()
    }

    /// Waits until something of this wire is told.
    pub(crate) async fn told(&self, wire: Wire) {
        self.of(wire).told.notified().await;
    }

    fn of(&self, wire: Wire) -> &Mailbox {
        match wire {
            Wire::Celery => &self.celery,
            Wire::Rq => &self.rq,
        }
    }
}

impl Mailbox {
    fn put(&self, begun: Begun) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < CAPACITY {
            waiting.push(begun);
            drop(waiting);
            self.told.notify_one();
        }
    }

    fn take(&self) -> Vec<Begun> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
