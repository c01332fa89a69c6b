//! How much a pool could take on: the pool says it, the intake waits for it.

use std::sync::Arc;

use tokio::sync::watch;

/// The free slots of one pool. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Demand(Arc<watch::Sender<usize>>);

impl Default for Demand {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Demand {
    /// The pool's word: this many slots are free.
    pub(crate) fn set(&self, free: usize) {
        self.0.send_if_modified(|current| std::mem::replace(current, free) != free);
    }

    /// The intake's word: this many slots that it took messages for stay free, since those became no jobs. The pool,
    /// which has heard nothing of them, would not say it.
    pub(crate) fn give_back(&self, slots: usize) {
        self.0.send_if_modified(|current| {
            *current += slots;
            slots > 0
        });
    }

    /// Waits until there is at least one free slot; says how many there are.
    pub(crate) async fn some(&self) -> usize {
        let mut receiver = self.0.subscribe();
        match receiver.wait_for(|&free| free > 0).await {
            Ok(free) => *free,
            // The sender lives in `self`, so it cannot be gone.
            Err(_) => 0,
        }
    }
}
