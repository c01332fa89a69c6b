//! Results of the steps an attempt has finished, seen by whoever runs the attempt while it runs: when it is stopped in
//! the middle, by a timeout or by the end of the daemon, what is done stays done.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

/// The results, in order. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Steps(Arc<Mutex<Vec<Value>>>);

impl Steps {
    /// Those that earlier attempts have finished.
    pub(crate) fn new(finished: Vec<Value>) -> Self {
        Self(Arc::new(Mutex::new(finished)))
    }

    pub(crate) fn results(&self) -> Vec<Value> {
        self.lock().clone()
    }

    pub(super) fn finish(&self, result: Value) {
        self.lock().push(result);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Value>> {
        // Every use is a single operation, so a panic cannot have left it half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
