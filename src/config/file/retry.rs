//! `retry = { limit, backoff, delay | delays, max_delay, jitter }` of a queue or a task.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::document::{Item, Table};
use super::scalar::{DAY, show};
use crate::job::{Backoff, RetryPolicy};

const DELAY: RangeInclusive<Duration> = Duration::ZERO..=DAY.saturating_mul(30);
/// Delays that a list may hold.
const DELAYS: usize = 100;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fixed,
    Exponential,
    List,
}

/// The policy of a queue that names none.
pub(super) fn default_policy() -> RetryPolicy {
    RetryPolicy {
        limit: 3,
        backoff: Backoff::Exponential { delay: Duration::from_secs(10) },
        max_delay: Duration::from_secs(3600),
        jitter: 0.1,
    }
}

/// The policy in the table that `item` is; what it leaves out comes from `base`.
pub(super) fn policy(item: &Item<'_>, base: &RetryPolicy) -> RetryPolicy {
    let Some(table) = item.table() else { return base.clone() };
    let (base_kind, base_delay) = match &base.backoff {
        Backoff::Fixed { delay } => (Kind::Fixed, *delay),
        Backoff::Exponential { delay } => (Kind::Exponential, *delay),
        Backoff::List { .. } => (Kind::List, Duration::ZERO),
    };
    let choices = [("fixed", Kind::Fixed), ("exponential", Kind::Exponential), ("list", Kind::List)];
    // A list of delays says by itself what is meant.
    let usual = if table.has("delays") { Kind::List } else { base_kind };
    let kind = table.choice("backoff", usual, &choices);
    let delay = table.get("delay");
    let delays = table.get("delays");
    let backoff = match kind {
        Kind::List => {
            unused(&table, delay.as_ref(), "delay", "backoff = \"list\" takes `delays`");
            list(&table, delays.as_ref(), base)
        }
        Kind::Fixed | Kind::Exponential => {
            unused(&table, delays.as_ref(), "delays", "only backoff = \"list\" takes them");
            let delay = delay.and_then(|item| item.duration(DELAY)).unwrap_or(base_delay);
            if kind == Kind::Fixed { Backoff::Fixed { delay } } else { Backoff::Exponential { delay } }
        }
    };
    let limit = match &backoff {
        Backoff::List { delays } if table.has("delays") => u32::try_from(delays.len()).unwrap_or(u32::MAX),
        _ => base.limit,
    };
    let policy = RetryPolicy {
        limit: table.integer("limit", limit, 0..=1000),
        max_delay: table.duration("max_delay", base.max_delay, DELAY),
        jitter: table.get("jitter").and_then(|item| item.number(0.0..=1.0)).unwrap_or(base.jitter),
        backoff,
    };
    table.close();
    reachable(&table, &policy);
    policy
}

fn list(table: &Table<'_>, delays: Option<&Item<'_>>, base: &RetryPolicy) -> Backoff {
    let Some(item) = delays else {
        if let Backoff::List { .. } = &base.backoff {
            return base.backoff.clone();
        }
        table.doc.error(&table.place, "backoff = \"list\" without `delays`", "add delays = [\"10s\", \"1m\", \"10m\"]");
        return Backoff::List { delays: vec![Duration::ZERO] };
    };
    let items = item.array("an array of durations such as [\"10s\", \"1m\"]").unwrap_or_default();
    if item.value.is_array() && !(1..=DELAYS).contains(&items.len()) {
        item.error(
            format!("`delays` holds {} items, allowed is 1 to {DELAYS}", items.len()),
            "name the delay before each retry",
        );
    }
    Backoff::List { delays: items.iter().filter_map(|item| item.duration(DELAY)).collect() }
}

fn unused(table: &Table<'_>, item: Option<&Item<'_>>, key: &str, reason: &str) {
    if let Some(item) = item {
        table.doc.error(&item.key, format!("`{key}` has no effect here: {reason}"), format!("remove `{key}`"));
    }
}

/// A delay above the maximum would be cut silently.
fn reachable(table: &Table<'_>, policy: &RetryPolicy) {
    let longest = match &policy.backoff {
        Backoff::Fixed { delay } | Backoff::Exponential { delay } => *delay,
        Backoff::List { delays } => delays.iter().max().copied().unwrap_or_default(),
    };
    if longest > policy.max_delay {
        let (longest, most) = (show(longest), show(policy.max_delay));
        table.doc.error(
            &table.place,
            format!("a retry delay of {longest} is longer than `max_delay`, which is {most}"),
            format!("set max_delay = \"{longest}\" or more, or shorten the delay"),
        );
    }
}
