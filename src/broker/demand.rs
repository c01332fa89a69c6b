//! How much a pool could take on: the pool says it, the intake waits for it.
//!
//! The pool is the only one who says a number. The intake takes messages for a number once; whatever it admits changes
//! the queue, so the pool comes round and says the next one.

use std::sync::Arc;

use tokio::sync::watch;

/// The free slots of one pool. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Demand(Arc<watch::Sender<Told>>);

/// What the pool said, and when: the count grows with every word, so that the same number said again is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub free: usize,
    count: u64,
}

impl Default for Demand {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Told { free: 0, count: 0 })))
    }
}

impl Demand {
    /// The pool's word: this many slots are free, or, where the node has a bound, this many jobs may wait for one.
    pub(crate) fn tell(&self, free: usize) {
        self.0.send_modify(|told| *told = Told { free, count: told.count + 1 });
    }

    /// Waits until there is a free slot and the pool has said so after `known`.
    pub(crate) async fn after(&self, known: Option<Told>) -> Told {
        let mut receiver = self.0.subscribe();
        match receiver.wait_for(|told| told.free > 0 && Some(*told) != known).await {
            Ok(told) => *told,
            // The sender lives in `self`, so it cannot be gone.
            Err(_) => Told { free: 0, count: 0 },
        }
    }
}
