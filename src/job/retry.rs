//! How often and after what time a failed job is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A retry policy, resolved: what a job follows when an attempt fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RetryPolicy {
    /// Attempts after the first one. 0: never again.
    pub limit: u32,
    pub backoff: Backoff,
    /// No delay is longer than this.
    pub max_delay: Duration,
    /// Each delay is changed by up to this share of itself, in both directions. 0 to 1.
    pub jitter: f64,
}

/// The delay before retry number `n` (1 is the first retry).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Backoff {
    Fixed {
        delay: Duration,
    },
    /// `delay × 2^(n−1)`.
    Exponential {
        delay: Duration,
    },
    /// The n-th of the list; its last for all further ones.
    List {
        delays: Vec<Duration>,
    },
}

impl RetryPolicy {
    /// The delay before retry number `n`, from 1. `random` lies in 0..1 and moves the delay inside its jitter.
    pub(crate) fn delay(&self, n: u32, random: f64) -> Duration {
        let plain = match &self.backoff {
            Backoff::Fixed { delay } => *delay,
            Backoff::Exponential { delay } => delay.saturating_mul(2_u32.saturating_pow(n.saturating_sub(1))),
            Backoff::List { delays } => {
                let index = (n.saturating_sub(1) as usize).min(delays.len().saturating_sub(1));
                delays.get(index).copied().unwrap_or(Duration::ZERO)
            }
        };
        let factor = 1.0 + self.jitter.clamp(0.0, 1.0) * (2.0 * random.clamp(0.0, 1.0) - 1.0);
        plain.min(self.max_delay).mul_f64(factor).min(self.max_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy(backoff: Backoff, jitter: f64) -> RetryPolicy {
        RetryPolicy { limit: 10, backoff, max_delay: 60 * SECOND, jitter }
    }

    #[test]
    fn exponential_doubles_and_stops_at_the_maximum() {
        let policy = policy(Backoff::Exponential { delay: SECOND }, 0.0);
        let delays: Vec<u64> = (1..=8).map(|n| policy.delay(n, 0.5).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(policy.delay(u32::MAX, 0.5), 60 * SECOND, "no overflow");
    }

    #[test]
    fn a_list_repeats_its_last_delay() {
        let policy = policy(Backoff::List { delays: vec![SECOND, 5 * SECOND] }, 0.0);
        assert_eq!([1, 2, 3].map(|n| policy.delay(n, 0.5)), [SECOND, 5 * SECOND, 5 * SECOND]);
    }

    #[test]
    fn jitter_stays_inside_its_share_and_under_the_maximum() {
        let policy = policy(Backoff::Fixed { delay: 10 * SECOND }, 0.2);
        assert_eq!(policy.delay(1, 0.0), 8 * SECOND);
        assert_eq!(policy.delay(1, 1.0), 12 * SECOND);
        let capped = RetryPolicy { max_delay: 10 * SECOND, ..policy };
        assert_eq!(capped.delay(1, 1.0), 10 * SECOND);
    }
}
