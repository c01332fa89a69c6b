//! The field `retry` of a job: the job's own policy, in the forms that `jobsd.toml` has for one.
//!
//! What it leaves out comes from the policy that the job would follow without it.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Fields, nearest, quoted};
use crate::config::{failure_names, is_known};
use crate::job::retry_draft::{DELAY, MOST_LISTED, MOST_RETRIES, SPAN};
use crate::job::{BackoffKind, FailurePattern, RetryDraft, RetryPolicy};

const KEYS: [&str; 8] = ["limit", "backoff", "delay", "delays", "max_delay", "jitter", "for", "never"];

impl Fields<'_> {
    /// The job's own policy, if it has one. `base` is `None` when something else is wrong with the job.
    pub(super) fn retry(&mut self, base: Option<&RetryPolicy>) -> Option<RetryPolicy> {
        let written = self.entry.get("retry").filter(|value| !value.is_null())?;
        let draft = match written {
            Value::Object(table) => self.whole(table),
            Value::Array(_) => RetryDraft::list(self.delays("retry", written)),
            Value::Bool(false) => RetryDraft::limit(0),
            Value::Number(_) => self.limit("retry", written).map(RetryDraft::limit)?,
            _ => {
                let forms = r#"an object like {"limit": 5}, a list of delays, a number of retries or false"#;
                self.wrong("retry", format!("\"retry\" must be {forms}"));
                return None;
            }
        };
        let (policy, conflicts) = draft.resolve(base?);
        for conflict in conflicts {
            let place = conflict.key.map_or_else(|| "retry".to_owned(), |key| format!("retry/{key}"));
            self.wrong_at(&place, format!("{}; {}", conflict.message, conflict.help));
        }
        Some(policy)
    }

    fn whole(&mut self, table: &Map<String, Value>) -> RetryDraft {
        for key in table.keys().filter(|key| !KEYS.contains(&key.as_str())).take(MOST_LISTED) {
            let detail = match nearest(key, KEYS.into_iter()) {
                Some(near) => format!("a retry policy has no {}; did you mean {near:?}?", quoted(key)),
                None => format!("a retry policy has no {}; it has {}", quoted(key), KEYS.join(", ")),
            };
            self.wrong_at(&format!("retry/{}", super::escaped(key)), detail);
        }
        let part = |key: &str| table.get(key).filter(|value| !value.is_null());
        RetryDraft {
            limit: part("limit").and_then(|value| self.limit("retry/limit", value)),
            backoff: part("backoff").and_then(|value| self.backoff(value)),
            delay: part("delay").and_then(|value| self.span("retry/delay", value, DELAY)),
            delays: part("delays").map(|value| self.delays("retry/delays", value)),
            max_delay: part("max_delay").and_then(|value| self.span("retry/max_delay", value, DELAY)),
            jitter: part("jitter").and_then(|value| self.jitter(value)),
            span: part("for").and_then(|value| self.span("retry/for", value, SPAN)),
            never: part("never").map(|value| self.never(value)),
        }
    }

    fn limit(&mut self, place: &str, value: &Value) -> Option<u32> {
        let limit = value.as_u64().and_then(|limit| u32::try_from(limit).ok()).filter(|&limit| limit <= MOST_RETRIES);
        if limit.is_none() {
            self.wrong_at(place, format!("the number of retries must be an integer from 0 to {MOST_RETRIES}"));
        }
        limit
    }

    fn backoff(&mut self, value: &Value) -> Option<BackoffKind> {
        let kind = BackoffKind::ALL.iter().find(|(word, _)| value.as_str() == Some(word));
        if kind.is_none() {
            let words = BackoffKind::ALL.map(|(word, _)| format!("{word:?}")).join(", ");
            self.wrong_at("retry/backoff", format!("\"backoff\" must be one of {words}"));
        }
        kind.map(|(_, kind)| *kind)
    }

    fn jitter(&mut self, value: &Value) -> Option<f64> {
        let share = value.as_f64().filter(|share| (0.0..=1.0).contains(share));
        if share.is_none() {
            self.wrong_at("retry/jitter", "\"jitter\" must be a number from 0 to 1");
        }
        share
    }

    fn delays(&mut self, place: &str, value: &Value) -> Vec<Duration> {
        let Some(items) = value.as_array().filter(|items| (1..=MOST_LISTED).contains(&items.len())) else {
            self.wrong_at(
                place,
                format!("the delays must be a list of 1 to {MOST_LISTED} durations, like [\"5s\", \"5m\"]"),
            );
            return Vec::new();
        };
        let read = |(at, item)| self.span(&format!("{place}/{at}"), item, DELAY);
        items.iter().enumerate().filter_map(read).collect()
    }

    pub(super) fn span(&mut self, place: &str, value: &Value, bounds: RangeInclusive<Duration>) -> Option<Duration> {
        let Some(text) = value.as_str() else {
            self.wrong_at(place, "a duration is a text, like \"5m\"");
            return None;
        };
        match humantime::parse_duration(text) {
            Ok(span) if bounds.contains(&span) => Some(span),
            Ok(_) => {
                let bound = |bound: &Duration| humantime::format_duration(*bound).to_string();
                let (least, most) = (bound(bounds.start()), bound(bounds.end()));
                self.wrong_at(place, format!("{} is not from {least} to {most}", quoted(text)));
                None
            }
            Err(_) => {
                let examples = r#"write "90s", "5m" or "1h 30m""#;
                self.wrong_at(place, format!("{} is not a duration; {examples}", quoted(text)));
                None
            }
        }
    }

    /// Unlike in the configuration, a name that no failure has is refused: nobody would read a warning.
    fn never(&mut self, value: &Value) -> Vec<FailurePattern> {
        let Some(items) = value.as_array().filter(|items| items.len() <= MOST_LISTED) else {
            let detail =
                format!("\"never\" must be a list of up to {MOST_LISTED} names, like [\"InvalidAddress\", \"Http4*\"]");
            self.wrong_at("retry/never", detail);
            return Vec::new();
        };
        let read = |(at, item)| self.pattern(&format!("retry/never/{at}"), item);
        items.iter().enumerate().filter_map(read).collect()
    }

    fn pattern(&mut self, place: &str, item: &Value) -> Option<FailurePattern> {
        let text = item.as_str().unwrap_or_default();
        let pattern = match FailurePattern::parse(text) {
            Ok(pattern) => pattern,
            Err(error) => {
                self.wrong_at(place, format!("{error}; write it like \"InvalidAddress\" or \"Http4*\""));
                return None;
            }
        };
        if !is_known(&pattern) {
            let hint = nearest(text, failure_names()).map_or(String::new(), |near| format!("; did you mean {near:?}?"));
            self.wrong_at(place, format!("no handler reports a failure {}{hint}", quoted(text)));
        }
        Some(pattern)
    }
}
