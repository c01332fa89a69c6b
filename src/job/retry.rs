//! How often and after what time a failed job is tried again, and which failures end it at once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::FailurePattern;

/// A retry policy, resolved: what a job follows when an attempt fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RetryPolicy {
    /// Attempts after the first one. 0: never again.
    pub limit: u32,
    pub backoff: Backoff,
    /// No delay is longer than this.
    pub max_delay: Duration,
    /// Each delay is changed by up to this share of itself, in both directions. 0 to 1. The curve of Sidekiq has a
    /// spread of its own and takes no other.
    pub jitter: f64,
    /// No further attempt starts later than this after the start of the first one. `None`: there is no such bound.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub span: Option<Duration>,
    /// Failures after which there is no further attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<FailurePattern>,
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
    /// `c⁴ + 15 + rand(10)·(c + 1)` seconds, where `c = n − 1` and `rand(10)` is a whole number from 0 to 9: what the
    /// page "Error Handling" of Sidekiq's wiki gives for its `retry_count`, and its `JobRetry#process_retry` does.
    Sidekiq,
    /// The n-th of the list; its last for all further ones.
    List {
        delays: Vec<Duration>,
    },
}

impl RetryPolicy {
    /// The delay before retry number `n`, from 1. `random` lies in 0..1 and moves the delay inside its jitter.
    pub(crate) fn delay(&self, n: u32, random: f64) -> Duration {
        let random = random.clamp(0.0, 1.0);
        let plain = match &self.backoff {
            Backoff::Fixed { delay } => *delay,
            Backoff::Exponential { delay } => delay.saturating_mul(2_u32.saturating_pow(n.saturating_sub(1))),
            Backoff::Sidekiq => return sidekiq(n.saturating_sub(1), random).min(self.max_delay),
            Backoff::List { delays } => {
                let index = (n.saturating_sub(1) as usize).min(delays.len().saturating_sub(1));
                delays.get(index).copied().unwrap_or(Duration::ZERO)
            }
        };
        let factor = 1.0 + self.jitter.clamp(0.0, 1.0) * (2.0 * random - 1.0);
        plain.min(self.max_delay).mul_f64(factor).min(self.max_delay)
    }

    /// The pattern that forbids another attempt after a failure of this name.
    pub(crate) fn forbids(&self, failure: &str) -> Option<&FailurePattern> {
        self.never.iter().find(|pattern| pattern.matches(failure))
    }
}

fn sidekiq(count: u32, random: f64) -> Duration {
    let count = u64::from(count);
    let spread = (random * 10.0).floor().min(9.0);
    let plain = count.saturating_pow(4).saturating_add(15);
    Duration::from_secs(plain).saturating_add(Duration::from_secs(count + 1).mul_f64(spread))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(86_400);

    fn policy(backoff: Backoff, jitter: f64) -> RetryPolicy {
        RetryPolicy { limit: 10, backoff, max_delay: 60 * SECOND, jitter, span: None, never: Vec::new() }
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

    /// Retry by retry: the least, and the most that a `rand(10)` of 9 gives.
    #[test]
    fn the_curve_of_sidekiq() {
        let policy = RetryPolicy { max_delay: 30 * DAY, ..policy(Backoff::Sidekiq, 0.9) };
        let table = [(1, 15, 24), (2, 16, 34), (3, 31, 58), (4, 96, 132), (5, 271, 316), (11, 10_015, 10_114)];
        for (n, least, most) in table {
            let seconds = |random| policy.delay(n, random).as_secs();
            assert_eq!((seconds(0.0), seconds(0.999), seconds(1.0)), (least, most, most), "retry {n}");
        }
        assert_eq!(policy.delay(2, 0.35), (16 + 3 * 2) * SECOND, "rand(10) is a whole number");
        let total: u64 = (1..=25).map(|n| policy.delay(n, 0.45).as_secs()).sum();
        assert_eq!(total / 86_400, 20, "25 retries take about 20 days");
        assert_eq!(policy.delay(u32::MAX, 1.0), 30 * DAY, "no overflow");
        assert_eq!(RetryPolicy { max_delay: 20 * SECOND, ..policy }.delay(3, 0.0), 20 * SECOND);
    }

    #[test]
    fn records_of_older_versions_are_read() {
        let written = r#"{"limit":3,"backoff":{"fixed":{"delay":{"secs":5,"nanos":0}}},"max_delay":{"secs":60,"nanos":0},"jitter":0.0}"#;
        let read: RetryPolicy = serde_json::from_str(written).expect("it is a policy");
        let expected = RetryPolicy { limit: 3, ..policy(Backoff::Fixed { delay: 5 * SECOND }, 0.0) };
        assert_eq!(read, expected);
        assert_eq!(
            serde_json::to_string(&read).expect("it is JSON"),
            written,
            "and nothing is added that says nothing"
        );
    }
}
