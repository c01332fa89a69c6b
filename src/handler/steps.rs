//! What an attempt has finished so far, seen by whoever runs it while it runs: when it is stopped in the middle, by a
//! timeout or by the end of the daemon, what is done stays done. For the end without warning there is [`Keep`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// What is done of a task. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Steps {
    done: Arc<Mutex<Done>>,
    /// `None`: nobody needs it before the attempt has ended.
    keep: Option<Keep>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Done {
    /// Results of the finished steps, in order.
    pub steps: Vec<Value>,
    /// What the next step remembers of itself; null when nothing of it is done.
    pub partial: Value,
}

/// Stores what is done where the next attempt finds it, however this one ends. The attempt waits for it, and goes no
/// further when it fails.
pub(crate) type Keep = Arc<dyn Fn(Done) -> Pin<Box<dyn Future<Output = Result<(), LeaseLost>> + Send>> + Send + Sync>;

/// The job is not ours any more: somebody else runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaseLost;

impl Steps {
    /// Begins with what earlier attempts have finished.
    pub(crate) fn new(done: Done, keep: Option<Keep>) -> Self {
        Self { done: Arc::new(Mutex::new(done)), keep }
    }

    pub(crate) fn done(&self) -> Done {
        self.lock().clone()
    }

    /// The same, for whoever asks last: nothing of it stays here.
    pub(crate) fn take(&self) -> Done {
        std::mem::take(&mut *self.lock())
    }

    pub(super) fn results(&self) -> Vec<Value> {
        self.lock().steps.clone()
    }

    /// What the step that runs now has remembered, in this attempt or an earlier one.
    pub(super) fn remembered(&self) -> Value {
        self.lock().partial.clone()
    }

    /// The step that runs remembers this, in case it does not come to its end.
    pub(super) fn remember(&self, partial: Value) {
        self.lock().partial = partial;
    }

    /// The step that ran has its result; what it remembered is needed no more.
    pub(super) fn finish(&self, result: Value) {
        let mut done = self.lock();
        done.steps.push(result);
        done.partial = Value::Null;
    }

    /// Returns when what is done is stored.
    pub(super) async fn keep(&self) -> Result<(), LeaseLost> {
        match &self.keep {
            Some(keep) => keep(self.done()).await,
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Done> {
        // Every use is a single operation, so a panic cannot have left it half-changed.
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steps").field("done", &*self.lock()).finish_non_exhaustive()
    }
}
