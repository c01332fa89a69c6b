//! `retry` of a queue or a task: `{ limit, backoff, delay | delays, max_delay, jitter, for, never }`, or one of the short
//! forms `["5s", "5m"]`, `5` and `false`.

use std::time::Duration;

use toml::de::DeValue;

use super::diagnostic::{nearest, quoted};
use super::document::{Item, Table};
use crate::config::{failure_names, is_known};
use crate::job::retry_draft::{DELAY, MOST_LISTED, MOST_RETRIES, SPAN};
use crate::job::{Backoff, BackoffKind, FailurePattern, RetryDraft, RetryPolicy};

/// The policy of a queue that names none.
pub(super) fn default_policy() -> RetryPolicy {
    RetryPolicy {
        limit: 3,
        backoff: Backoff::Exponential { delay: Duration::from_secs(10) },
        max_delay: Duration::from_secs(3600),
        jitter: 0.1,
        span: None,
        never: Vec::new(),
    }
}

/// The policy that `item` is; what it leaves out comes from `base`.
pub(super) fn policy(item: &Item<'_>, base: &RetryPolicy) -> RetryPolicy {
    let draft = match item.value {
        DeValue::Table(_) => return item.table().map_or_else(|| base.clone(), |table| whole(&table, base)),
        DeValue::Array(_) => RetryDraft::list(delays(item)),
        DeValue::Boolean(false) => RetryDraft::limit(0),
        DeValue::Integer(_) => limit(item).map(RetryDraft::limit).unwrap_or_default(),
        // A variable may say how often.
        DeValue::String(text) if text.contains('$') => limit(item).map(RetryDraft::limit).unwrap_or_default(),
        _ => {
            item.mismatch("a table such as { limit = 5 }, a list of delays, a number of retries or false");
            RetryDraft::default()
        }
    };
    let (policy, conflicts) = draft.resolve(base);
    for conflict in conflicts {
        item.error(conflict.message, conflict.help);
    }
    policy
}

fn whole(table: &Table<'_>, base: &RetryPolicy) -> RetryPolicy {
    let draft = RetryDraft {
        limit: table.get("limit").and_then(|item| limit(&item)),
        backoff: table.get("backoff").and_then(|item| item.choice(&BackoffKind::ALL)),
        delay: table.get("delay").and_then(|item| item.duration(DELAY)),
        delays: table.get("delays").map(|item| delays(&item)),
        max_delay: table.get("max_delay").and_then(|item| item.duration(DELAY)),
        jitter: table.get("jitter").and_then(|item| item.number(0.0..=1.0)),
        span: table.get("for").and_then(|item| item.duration(SPAN)),
        never: table.get("never").map(|item| never(&item)),
    };
    table.close();
    let (policy, conflicts) = draft.resolve(base);
    for conflict in conflicts {
        let place = conflict.key.and_then(|key| table.get(key)).map_or_else(|| table.place.clone(), |item| item.key);
        table.doc.error(&place, conflict.message, conflict.help);
    }
    policy
}

fn limit(item: &Item<'_>) -> Option<u32> {
    item.integer(0..=i64::from(MOST_RETRIES)).and_then(|limit| u32::try_from(limit).ok())
}

fn delays(item: &Item<'_>) -> Vec<Duration> {
    let items = item.array("an array of durations such as [\"10s\", \"1m\"]").unwrap_or_default();
    if item.value.is_array() && !(1..=MOST_LISTED).contains(&items.len()) {
        item.error(
            format!("there are {} delays, allowed is 1 to {MOST_LISTED}", items.len()),
            "name the delay before each retry",
        );
    }
    items.iter().filter_map(|item| item.duration(DELAY)).collect()
}

/// A pattern that matches no failure of ours is most likely misspelt; but a probe fails with names of its own.
fn never(item: &Item<'_>) -> Vec<FailurePattern> {
    let items = item.array("an array of names such as [\"InvalidAddress\", \"Http4*\"]").unwrap_or_default();
    if items.len() > MOST_LISTED {
        item.error(
            format!("there are {} names, allowed is up to {MOST_LISTED}", items.len()),
            "use `*` for several of a kind",
        );
    }
    items.iter().filter_map(pattern).collect()
}

fn pattern(item: &Item<'_>) -> Option<FailurePattern> {
    let text = item.text("the name of a failure such as \"InvalidAddress\" or \"Http4*\"")?.text;
    let pattern = match FailurePattern::parse(&text) {
        Ok(pattern) => pattern,
        Err(error) => {
            item.error(error.to_string(), "write it as jobs show it: \"InvalidAddress\", or \"Http4*\" for several");
            return None;
        }
    };
    if !is_known(&pattern) {
        let help = match nearest(&text, failure_names()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "the README lists the names of all failures".to_owned(),
        };
        item.doc.warning(&item.place, format!("no handler reports a failure {}", quoted(&text)), help);
    }
    Some(pattern)
}
