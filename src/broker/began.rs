//! Attempts as they begin, for who shows them to foreign clients.
//!
//! The pool tells and does not wait. What is told stands here until somebody takes it; beyond the bound it is dropped,
//! and the producers of those jobs see them first when they have ended.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::Claim;
use crate::job::{Job, Origin, Timestamp};

/// Beginnings that wait at a time.
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
    waiting: Mutex<Vec<Begun>>,
    told: Notify,
}

impl Beginnings {
    /// The attempt of this claim begins.
    pub(crate) fn tell(&self, claim: &Claim) {
        if !matches!(claim.job.origin, Origin::Wire { .. }) {
            return;
        }
        let begun = Begun { job: Arc::clone(&claim.job), token: claim.token, at: claim.started };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < CAPACITY {
            waiting.push(begun);
            drop(waiting);
            self.told.notify_one();
        }
    }

    /// All that have been told and not been taken, in their order.
    pub(crate) fn take(&self) -> Vec<Begun> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until something is told.
    pub(crate) async fn told(&self) {
        self.told.notified().await;
    }
}
