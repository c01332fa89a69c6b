//! The end of a run: waits for as long as anything moves, then reads every job's record from the nodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::client::{Numbers, Record};
use super::fleet::Fleet;
use super::ledger::Ledger;
use super::load::Number;

/// What jobsd says at the end.
#[derive(Debug, Clone)]
pub(super) struct Records {
    pub(super) numbers: Numbers,
    /// By number; `None`: there is no such job.
    pub(super) jobs: Vec<Option<Record>>,
}

/// No node answers any more.
#[derive(Debug, thiserror::Error)]
#[error("read the jobs' records: no node answered for {PATIENCE:?}")]
pub(super) struct Unanswered;

const LOOK: Duration = Duration::from_millis(100);
/// A node may just be starting again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Records read at the same time.
const READERS: u32 = 16;

/// Waits until every job has ended, or nothing has moved for so long that nothing will.
pub(super) async fn settle(fleet: &Fleet, ledger: &Ledger, lease: Duration) -> Result<Numbers, Unanswered> {
    // Dead nodes' jobs move after a lease and a sweep; a job takes up to one and a half.
    let still = lease * 3 + Duration::from_secs(3);
    let (mut last, mut moved) = (None, Instant::now());
    loop {
        let numbers = eventually(fleet, |node| fleet.client.numbers(node)).await?;
        let now = (ledger.progress(), numbers);
        if numbers.jobs.open() == 0 || moved.elapsed() > still {
            return Ok(numbers);
        }
        if last != Some(now) {
            (last, moved) = (Some(now), Instant::now());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Every job's record.
pub(super) async fn records(fleet: &Arc<Fleet>, numbers: Numbers, count: Number) -> Result<Records, Unanswered> {
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        let fleet = Arc::clone(fleet);
        readers.spawn(async move {
            let mut found = Vec::new();
            for job in (reader..count).step_by(READERS as usize) {
                found.push((job, eventually(&fleet, |node| fleet.client.record(node, job)).await?));
            }
            Ok(found)
        });
    }
    let mut jobs = vec![None; count as usize];
    while let Some(found) = readers.join_next().await {
        for (job, record) in found.expect("a reader does not panic")? {
            jobs[job as usize] = record;
        }
    }
    Ok(Records { numbers, jobs })
}

async fn eventually<T, F: Future<Output = Option<T>>>(
    fleet: &Fleet,
    ask: impl Fn(std::net::SocketAddr) -> F,
) -> Result<T, Unanswered> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = fleet.ask(0, &ask).await {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(Unanswered);
        }
        tokio::time::sleep(LOOK).await;
    }
}
