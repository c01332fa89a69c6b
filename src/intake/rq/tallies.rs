//! What RQ's workers have done, as their counters show it. A busy node counts here and tells Redis now and then.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::broker::RqWorkerTally;

/// Clients see what was done no later than this.
pub(super) const LATE: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct Tallies {
    untold: Mutex<(Vec<RqWorkerTally>, Instant)>,
    /// There is something to tell.
    pub(super) counted: Notify,
}

impl Tallies {
    pub(super) fn new() -> Self {
        Self { untold: Mutex::new((Vec::new(), Instant::now())), counted: Notify::new() }
    }

    pub(super) fn add(&self, done: RqWorkerTally) {
        let tallies = &mut self.untold().0;
        if tallies.is_empty() {
            self.counted.notify_one();
        }
        match tallies.iter_mut().find(|tally| tally.worker == done.worker) {
            None => tallies.push(done),
            Some(tally) => {
                tally.succeeded += done.succeeded;
                tally.failed += done.failed;
                tally.seconds += done.seconds;
            }
        }
    }

    /// What is to be told now: of these workers, and of all when it is time.
    pub(super) fn due(&self, workers: &[String]) -> Vec<RqWorkerTally> {
        let mut untold = self.untold();
        if untold.1.elapsed() >= LATE {
            untold.1 = Instant::now();
            return std::mem::take(&mut untold.0);
        }
        let (due, later) = std::mem::take(&mut untold.0).into_iter().partition(|tally| workers.contains(&tally.worker));
        untold.0 = later;
        due
    }

    fn untold(&self) -> MutexGuard<'_, (Vec<RqWorkerTally>, Instant)> {
        // Every use leaves it whole.
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_a_client_waits_for_is_told_at_once_and_the_rest_soon() {
        let tallies = Tallies::new();
        let done = |worker: &str| RqWorkerTally { worker: worker.to_owned(), succeeded: 1, failed: 0, seconds: 0.5 };
        for worker in ["a", "b", "a"] {
            tallies.add(done(worker));
        }
        assert_eq!(tallies.due(&["a".to_owned()]), [RqWorkerTally { succeeded: 2, seconds: 1.0, ..done("a") }]);
        assert!(tallies.due(&[]).is_empty());
        tokio::time::advance(LATE).await;
        assert_eq!(tallies.due(&[]), [done("b")]);
    }
}
