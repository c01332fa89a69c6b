//! How fast a pool ends its jobs, and so how many messages may wait beyond its free slots.
//!
//! A pool whose jobs take milliseconds would starve between two round trips of the intake if that took only what the
//! free slots hold. What it ends within a moment may wait as pending; a pool whose jobs take long ends none in a moment,
//! and its backlog stays in the foreign lists, where producers see and change it.

use std::time::Duration;

use tokio::time::Instant;

/// What may wait is gone in this time, at the present pace.
const MOMENT: Duration = Duration::from_millis(50);
/// And it is no more than this, for each job that may run at a time.
const PER_SLOT: usize = 8;

/// The pace of one pool.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    ended: u64,
    /// Attempts of one moment, as last measured.
    recent: u64,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, ended: 0, recent: 0 }
    }

    /// How many messages may wait. `ended` counts the attempts that the pool has ended so far.
    pub(super) fn ahead(&mut self, ended: u64, concurrency: usize, now: Instant) -> usize {
        let span = now.duration_since(self.since);
        if span >= MOMENT {
            let share = MOMENT.as_secs_f64() / span.as_secs_f64();
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count of jobs, and not below 0"
            )]
            let recent = (ended.saturating_sub(self.ended) as f64 * share) as u64;
            *self = Self { since: now, ended, recent };
        }
        usize::try_from(self.recent).unwrap_or(usize::MAX).min(concurrency.saturating_mul(PER_SLOT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_wait_follows_the_pace() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::new(start);
        assert_eq!(pace.ahead(40, 10, at(49)), 0, "nothing is known yet");
        assert_eq!(pace.ahead(60, 10, at(100)), 30, "60 in 100 ms");
        assert_eq!(pace.ahead(90, 10, at(110)), 30, "a moment has not passed");
        assert_eq!(pace.ahead(1060, 10, at(200)), 80, "no more than 8 a slot");
        assert_eq!(pace.ahead(1061, 10, at(60_200)), 0, "one job a minute: none may wait");
        assert_eq!(pace.ahead(3, 10, at(70_000)), 0, "a new pool counts from the start");
    }
}
