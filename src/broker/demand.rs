//! How much a pool could take on: the pool says it, the intake waits for it.
//!
//! The pool is the only one who says a number. The intake takes messages for a number once; whatever it admits changes
//! the queue, so the pool comes round and says the next one.

use std::sync::Arc;

use tokio::sync::watch;

/// What one pool could take on. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Demand(Arc<watch::Sender<Told>>);

/// What the pool said, and when: the count grows with every word, so that the same number said again is news.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Slots that nothing runs in and no claim is on its way to.
    pub free: usize,
    /// Attempts that have ended since the pool began.
    pub ended: u64,
    /// Slots that the pool has at all.
    pub slots: usize,
    /// Whether it claims at all.
    is_open: bool,
    count: u64,
}

impl Default for Demand {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }
}

impl Demand {
    /// The pool's word: this many slots are free, or, where the node has a bound, this many jobs may wait for one; and
    /// this many attempts have ended; it has this many `slots` at all.
    pub(crate) fn tell(&self, free: usize, ended: u64, slots: usize) {
        self.0.send_modify(|told| *told = Told { free, ended, slots, is_open: true, count: told.count + 1 });
    }

    /// The pool claims nothing, until it tells a number again.
    pub(crate) fn close(&self) {
        self.0.send_modify(|told| *told = Told { free: 0, is_open: false, count: told.count + 1, ..*told });
    }

    /// Waits until the pool is open and has said so after `known`.
    pub(crate) async fn after(&self, known: Option<Told>) -> Told {
        self.wait_for(|told| told.is_open && Some(*told) != known).await
    }

    /// Waits until so many attempts have ended after `since`.
    pub(crate) async fn ended_after(&self, since: Told, attempts: u64) {
        // A new pool counts from the start.
        self.wait_for(|told| told.ended < since.ended || told.ended - since.ended >= attempts).await;
    }

    async fn wait_for(&self, is_it: impl FnMut(&Told) -> bool) -> Told {
        let mut receiver = self.0.subscribe();
        // The sender lives in `self`, so it cannot be gone.
        receiver.wait_for(is_it).await.map_or_else(|_| Told::default(), |told| *told)
    }
}
