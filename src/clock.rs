//! The only source of wall time. Everything else receives `now` as a value, so it can be tested with any.
//!
//! Nodes on one Redis must agree on the time: the end of a lease that one writes is compared by another. So the process
//! reckons by the clock of its Redis: [`Reading::set_by`] measures how far the own clock is off, and [`now`] corrects
//! for it.

#[cfg(debug_assertions)]
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::job::Timestamp;

/// What is to be added to the machine's clock, in milliseconds. One number, read and written whole.
static OFFSET: AtomicI64 = AtomicI64::new(0);
/// A smaller error is not worth a correction: it lies within what the round trip hides.
const TOLERANCE_MS: u64 = 20;

/// The current instant. A clock set before 1970 reads as the epoch.
pub(crate) fn now() -> Timestamp {
    let corrected = machine_millis().saturating_add(OFFSET.load(Ordering::Relaxed));
    Timestamp::from_millis(u64::try_from(corrected).unwrap_or(0))
}

/// A look at the machine's clock, taken when another clock was asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    machine: i64,
    at: Instant,
}

impl Reading {
    pub(crate) fn now() -> Self {
        Self { machine: machine_millis(), at: Instant::now() }
    }

    /// The other clock said `other`, somewhere between this reading and now. Says by how much the clock was changed.
    pub(crate) fn set_by(self, other: Timestamp) -> Duration {
        let half = i64::try_from(self.at.elapsed().as_millis() / 2).unwrap_or(i64::MAX);
        let offset = i64::try_from(other.as_millis()).unwrap_or(i64::MAX) - self.machine.saturating_add(half);
        let change = offset.abs_diff(OFFSET.load(Ordering::Relaxed));
        if change > TOLERANCE_MS {
            OFFSET.store(offset, Ordering::Relaxed);
        }
        Duration::from_millis(if change > TOLERANCE_MS { change } else { 0 })
    }
}

fn machine_millis() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX).saturating_add(skew())
}

/// By how much the machine's clock is wrong on purpose, so that tests can have nodes whose clocks differ. Debug builds
/// only.
#[cfg(debug_assertions)]
fn skew() -> i64 {
    static SKEW: LazyLock<i64> = LazyLock::new(|| {
        let text = std::env::var("JOBSD_CLOCK_SKEW_MS").unwrap_or_default();
        let skew = text.parse().unwrap_or(0);
        if skew != 0 {
            tracing::warn!("its clock is wrong on purpose, by {skew} ms");
        }
        skew
    });
    *SKEW
}

#[cfg(not(debug_assertions))]
fn skew() -> i64 {
    0
}
