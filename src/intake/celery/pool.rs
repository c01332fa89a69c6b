//! `pool_grow`, `pool_shrink` and `autoscale`: other numbers of slots for the queues that read lists of Celery.
//!
//! Celery's worker has one pool, this node one for each queue, so each of them is changed. One whose concurrency lies
//! between two bounds stays within these; one that has a single number may get any other. What is set holds until the
//! next reload, as what is set by hand anywhere else.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use super::command::nok;
use super::front::Front;
use super::request::Request;
use crate::clock;
use crate::config::Concurrency;
use crate::job;

/// Who has set it, for everyone who asks later.
const BY: &str = "a Celery client";

/// What becomes of the slots of a queue.
#[derive(Debug, Clone, Copy)]
enum Step {
    By(i64),
    Between(i64, i64),
}

/// By `n` slots more.
pub(super) fn grow(front: &Front, request: &Request) -> Value {
    let n = request.integer("n").unwrap_or(1);
    apply(front, Step::By(n), "pool will grow")
}

/// By `n` slots less.
pub(super) fn shrink(front: &Front, request: &Request) -> Value {
    let n = request.integer("n").unwrap_or(1);
    apply(front, Step::By(n.saturating_neg()), "pool will shrink")
}

/// Between `min` and `max` slots.
pub(super) fn autoscale(front: &Front, request: &Request) -> Value {
    let Some(max) = request.integer("max") else { return nok("ValueError('autoscale needs a max')") };
    let min = request.integer("min").unwrap_or(max.min(1));
    if min > max || max < 1 {
        return nok("ValueError('max is at least 1, and min at most max')");
    }
    apply(front, Step::Between(min, max), "autoscale")
}

fn apply(front: &Front, step: Step, words: &str) -> Value {
    let (mut done, mut left) = (Vec::new(), Vec::new());
    for queue in front.queues() {
        let before = front.broker.concurrency(&queue);
        let bounds = bounds(queue.concurrency);
        let after = after(before, step, &bounds);
        if after == before {
            left.push(format!(
                "{} stays at {before} (its bounds are {} to {})",
                queue.name,
                bounds.start(),
                bounds.end()
            ));
        } else {
            let request = job::Request { at: clock::now(), by: BY.to_owned(), reason: None };
            front.broker.scale(&queue, after, request);
            done.push(format!("{} has {after}", queue.name));
        }
    }
    if done.is_empty() {
        return nok(&left.join(", "));
    }
    done.extend(left);
    json!({ "ok": format!("{words}: {}", done.join(", ")) })
}

/// Between what numbers the operator lets a queue be.
fn bounds(configured: Concurrency) -> RangeInclusive<i64> {
    let whole = |slots: usize| i64::try_from(slots).unwrap_or(i64::MAX);
    if configured.is_fixed() {
        i64::from(*Concurrency::SLOTS.start())..=i64::from(*Concurrency::SLOTS.end())
    } else {
        whole(configured.min)..=whole(configured.max)
    }
}

fn after(before: Concurrency, step: Step, bounds: &RangeInclusive<i64>) -> Concurrency {
    let slots = |wanted: i64| usize::try_from(wanted.clamp(*bounds.start(), *bounds.end())).unwrap_or(1);
    match step {
        Step::Between(min, max) => Concurrency { min: slots(min), max: slots(max) },
        Step::By(n) => {
            let max = slots(i64::try_from(before.max).unwrap_or(i64::MAX).saturating_add(n));
            if before.is_fixed() { Concurrency::fixed(max) } else { Concurrency { min: before.min.min(max), max } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_stays_within_what_its_operator_allows() {
        let fixed = Concurrency::fixed(4);
        let range = Concurrency { min: 2, max: 6 };
        let cases = [
            (fixed, fixed, Step::By(2), Concurrency::fixed(6)),
            (fixed, fixed, Step::By(-9), Concurrency::fixed(1)),
            (fixed, fixed, Step::By(i64::MAX), Concurrency::fixed(10_000)),
            (fixed, fixed, Step::Between(2, 8), Concurrency { min: 2, max: 8 }),
            (range, range, Step::By(1), range),
            (range, range, Step::By(-1), Concurrency { min: 2, max: 5 }),
            (range, range, Step::By(i64::MIN), Concurrency::fixed(2)),
            (range, Concurrency { min: 2, max: 3 }, Step::By(9), range),
            (range, range, Step::Between(0, 100), range),
        ];
        for (configured, before, step, expected) in cases {
            assert_eq!(after(before, step, &bounds(configured)), expected, "{before} {step:?}");
        }
    }
}
