//! Puts the jobs in, at the rate asked for, as a careful client does: each batch is tried on one node after another
//! until one has said that it has it, under the same ids.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::fleet::Fleet;
use super::ledger::Ledger;
use super::load::Load;

#[derive(Debug, Clone)]
pub(super) struct Producer {
    pub(super) fleet: Arc<Fleet>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) load: Load,
    pub(super) rate: u32,
}

/// A batch each time.
const TICK: Duration = Duration::from_millis(50);
/// Batches on their way at the same time.
const TRIES: usize = 32;
/// The backlog is kept below what comes in in this time: a run must come to an end.
const BACKLOG: Duration = Duration::from_secs(10);
/// After all nodes have refused.
const PAUSE: Duration = Duration::from_millis(50);

impl Producer {
    /// Produces until `enough` says so; returns when all that was sent is accepted.
    pub(super) async fn run(self, enough: CancellationToken) {
        let (mut tasks, tries) = (JoinSet::new(), Arc::new(Semaphore::new(TRIES)));
        let mut ticks = tokio::time::interval(TICK);
        // A busy machine gets the load later, not all at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut owed, mut turn) = (0.0, 0);
        loop {
            tokio::select! {
                () = enough.cancelled() => break,
                _ = ticks.tick() => {}
            }
            owed += f64::from(self.rate) * TICK.as_secs_f64();
            if self.backlog() > f64::from(self.rate) * BACKLOG.as_secs_f64() {
                owed = 0.0;
            }
            // Every tenth tick one job goes alone: it takes another way than several.
            while owed >= 1.0 {
                let Ok(permit) = Arc::clone(&tries).try_acquire_owned() else { break };
                let count = if turn % 10 == 0 { 1 } else { whole(owed).min(MOST) };
                owed -= f64::from(count);
                turn += 1;
                let (producer, from) = (self.clone(), turn);
                let first = self.ledger.reserve(count);
                tasks.spawn(async move {
                    let _permit = permit;
                    producer.put(first, count, from).await;
                });
            }
            while tasks.try_join_next().is_some() {}
            owed = owed.min(f64::from(self.rate));
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn put(&self, first: u32, count: u32, turn: usize) {
        let ask = |node| async move { self.fleet.client.enqueue(node, &self.load, first, count).await.then_some(()) };
        while self.fleet.ask(turn, ask).await.is_none() {
            tokio::time::sleep(PAUSE).await;
        }
        self.ledger.accept(first, count);
    }

    fn backlog(&self) -> f64 {
        let progress = self.ledger.progress();
        f64::from(u32::try_from(progress.sent.saturating_sub(progress.done)).unwrap_or(u32::MAX))
    }
}

/// Jobs in one batch.
const MOST: u32 = 500;

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is at least 1 and below a second's jobs"
)]
fn whole(jobs: f64) -> u32 {
    jobs as u32
}
