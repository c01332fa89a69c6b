//! Where a waiting job stands in its set: scores from times and priorities.
//!
//! In `pending` a score is the time since when the job waits, moved by its priority: one step is worth as much as having
//! waited for the queue's `ageing`. So an urgent job overtakes, and a job of any priority comes to the front in the end.
//! Messages that are admitted together begin to wait together; their fraction keeps the order in which they came.
//! In `scheduled` and `retry` a score is the due time, and its fraction holds the priority until the job is promoted.

use std::time::Duration;

use crate::job::{Job, Priority, Timestamp};

/// The place in line of a job that waits since `since`.
pub(super) fn in_line(priority: Priority, since: Timestamp, ageing: Duration) -> i64 {
    let since = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    let step = i64::try_from(ageing.as_millis()).unwrap_or(i64::MAX);
    since.saturating_add(step.saturating_mul(i64::from(priority.steps())))
}

/// The fraction of a millisecond, in thousandths, by which the message at `index` of so many stands behind the first.
pub(super) fn thousandths(index: usize, count: usize) -> usize {
    index * 1000 / count.max(1)
}

/// The place of a job that is due at `due`. The fraction is the priority in 32nds; those from 16 on stand for negative
/// ones. A score is a double: milliseconds until the year 4199 leave five bits for it.
pub(super) fn at_its_time(priority: Priority, due: Timestamp) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 stay far below 2^47")]
    let millis = due.as_millis().min(1 << 47) as f64;
    millis + f64::from(priority.steps().rem_euclid(32)) / 32.0
}

/// The due time in such a place.
pub(super) fn time(score: f64) -> Timestamp {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "scores are milliseconds below 2^53")]
    Timestamp::from_millis(score.max(0.0) as u64)
}

/// Since when a job waits, as far as its record tells.
pub(super) fn waits_since(job: &Job) -> Timestamp {
    job.due.unwrap_or(job.enqueued_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priority(steps: i64) -> Priority {
        Priority::new(steps).expect("in range")
    }

    #[test]
    fn a_step_of_priority_is_worth_a_span_of_waiting() {
        let minute = Duration::from_secs(60);
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
        assert!(in_line(priority(-1), at(59), minute) < in_line(priority(0), at(0), minute), "an urgent one overtakes");
        assert!(in_line(priority(9), at(0), minute) < in_line(priority(0), at(541), minute), "none waits for ever");
        assert_eq!(in_line(priority(9), at(1), Duration::ZERO), 1000, "no ageing, no priorities");
    }

    #[test]
    fn messages_stay_in_their_order() {
        let places: Vec<usize> = (0..1000).map(|index| thousandths(index, 1000)).collect();
        assert_eq!((places.is_sorted(), places[0], places[999]), (true, 0, 999));
        assert_eq!((thousandths(0, 1), thousandths(1, 3)), (0, 333));
    }

    #[test]
    fn the_fraction_keeps_the_priority_and_the_order_of_times() {
        let at = Timestamp::from_millis(1_800_000_000_000);
        assert_eq!(at_its_time(priority(0), at).fract(), 0.0);
        assert_eq!(at_its_time(priority(9), at).fract(), 9.0 / 32.0);
        assert_eq!(at_its_time(priority(-9), at).fract(), 23.0 / 32.0);
        assert!(at_its_time(priority(-1), at) < at_its_time(priority(0), Timestamp::from_millis(1_800_000_000_001)));
    }
}
