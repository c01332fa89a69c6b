//! Which claims this process knows it holds.
//!
//! Each [`Claim`](super::Claim) carries its entry: however the claim goes (settled, dropped, lost in a panic), its entry
//! goes with it. So the sweep, which gives back what Redis says we hold and this set does not know, finds it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::job::{JobId, QueueName};

/// The set. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(Arc<Mutex<HashSet<Entry>>>);

/// A claim by its job and its token: those of one round trip share the token.
type Entry = (QueueName, JobId, u64);

/// One entry; it leaves the set when it is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    held: Held,
    entry: Entry,
}

impl Held {
    pub(super) fn hold(&self, queue: &QueueName, job: &JobId, token: u64) -> Hold {
        let entry = (queue.clone(), job.clone(), token);
        self.lock().insert(entry.clone());
        Hold { held: self.clone(), entry }
    }

    pub(super) fn knows(&self, queue: &QueueName, job: &JobId, token: u64) -> bool {
        self.lock().contains(&(queue.clone(), job.clone(), token))
    }

    pub(super) fn count(&self, queue: &QueueName) -> usize {
        self.lock().iter().filter(|(held, ..)| held == queue).count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<Entry>> {
        // A panic while it was locked cannot have left it half-changed: every use is a single operation.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.lock().remove(&self.entry);
    }
}
