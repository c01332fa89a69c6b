//! A retry policy as somebody wrote it, in the configuration or with a job: parts of one, completed by another.
//!
//! Reading the parts, and saying where a conflict stands, is the work of whoever has the text.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Backoff, FailurePattern, RetryPolicy};

/// Most attempts after the first one.
pub(crate) const MOST_RETRIES: u32 = 1000;
/// What the delay before a retry may be.
pub(crate) const DELAY: RangeInclusive<Duration> = Duration::ZERO..=LONGEST_DELAY;
const LONGEST_DELAY: Duration = Duration::from_secs(30 * 86_400);
/// What `for` may be: from a second to a year.
pub(crate) const SPAN: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(31_557_600);
/// Delays that a list may hold, and names of failures.
pub(crate) const MOST_LISTED: usize = 100;
/// Sidekiq's own number of retries; its curve takes about 20 days for them.
const SIDEKIQ_RETRIES: u32 = 25;

/// The parts of a policy that are written.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct RetryDraft {
    pub limit: Option<u32>,
    pub backoff: Option<BackoffKind>,
    pub delay: Option<Duration>,
    pub delays: Option<Vec<Duration>>,
    pub max_delay: Option<Duration>,
    pub jitter: Option<f64>,
    /// `for`.
    pub span: Option<Duration>,
    pub never: Option<Vec<FailurePattern>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BackoffKind {
    Fixed,
    Exponential,
    Sidekiq,
    List,
}

impl BackoffKind {
    pub(crate) const ALL: [(&'static str, Self); 4] =
        [("fixed", Self::Fixed), ("exponential", Self::Exponential), ("sidekiq", Self::Sidekiq), ("list", Self::List)];
}

/// Two parts that do not go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RetryConflict {
    /// The part to look at; `None`: the policy as a whole.
    pub key: Option<&'static str>,
    pub message: String,
    pub help: String,
}

impl RetryDraft {
    /// `retry = 5`, and `retry = false` for none.
    pub(crate) fn limit(limit: u32) -> Self {
        Self { limit: Some(limit), ..Self::default() }
    }

    /// `retry = ["5s", "5m"]`.
    pub(crate) fn list(delays: Vec<Duration>) -> Self {
        Self { delays: Some(delays), ..Self::default() }
    }

    /// The whole policy, with what is left out taken from `base`; and everything that is wrong with it.
    pub(crate) fn resolve(&self, base: &RetryPolicy) -> (RetryPolicy, Vec<RetryConflict>) {
        let mut conflicts = Vec::new();
        let backoff = self.backoff(base, &mut conflicts);
        let policy = RetryPolicy {
            limit: self.limit_or(base),
            max_delay: self.max_delay_or(base),
            jitter: self.jitter.unwrap_or(base.jitter),
            span: self.span.or(base.span),
            never: self.never.clone().unwrap_or_else(|| base.never.clone()),
            backoff,
        };
        conflicts.extend(self.out_of_reach(&policy));
        (policy, conflicts)
    }

    fn backoff(&self, base: &RetryPolicy, conflicts: &mut Vec<RetryConflict>) -> Backoff {
        let mut unused = |key: &'static str, is_given: bool, reason: &str| {
            if is_given {
                let message = format!("`{key}` has no effect here: {reason}");
                conflicts.push(RetryConflict { key: Some(key), message, help: format!("remove `{key}`") });
            }
        };
        let (has_delay, has_delays) = (self.delay.is_some(), self.delays.is_some());
        match self.kind(base) {
            BackoffKind::List => {
                unused("delay", has_delay, "the backoff \"list\" takes `delays`");
                match (&self.delays, &base.backoff) {
                    (Some(delays), _) | (None, Backoff::List { delays }) => Backoff::List { delays: delays.clone() },
                    (None, _) => {
                        conflicts.push(RetryConflict {
                            key: None,
                            message: "the backoff \"list\" without `delays`".to_owned(),
                            help: "add `delays`, such as [\"10s\", \"1m\", \"10m\"]".to_owned(),
                        });
                        Backoff::List { delays: vec![Duration::ZERO] }
                    }
                }
            }
            BackoffKind::Sidekiq => {
                unused("delay", has_delay, "the curve of Sidekiq has its own delays");
                unused("delays", has_delays, "the curve of Sidekiq has its own delays");
                unused("jitter", self.jitter.is_some(), "the curve of Sidekiq has its own spread");
                Backoff::Sidekiq
            }
            kind @ (BackoffKind::Fixed | BackoffKind::Exponential) => {
                unused("delays", has_delays, "only the backoff \"list\" takes them");
                let delay = self.delay.unwrap_or_else(|| base_delay(base));
                if kind == BackoffKind::Fixed { Backoff::Fixed { delay } } else { Backoff::Exponential { delay } }
            }
        }
    }

    /// A list of delays says by itself what is meant.
    fn kind(&self, base: &RetryPolicy) -> BackoffKind {
        match (self.backoff, &self.delays, &base.backoff) {
            (Some(kind), _, _) => kind,
            (None, Some(_), _) | (None, None, Backoff::List { .. }) => BackoffKind::List,
            (None, None, Backoff::Fixed { .. }) => BackoffKind::Fixed,
            (None, None, Backoff::Exponential { .. }) => BackoffKind::Exponential,
            (None, None, Backoff::Sidekiq) => BackoffKind::Sidekiq,
        }
    }

    /// Whoever says for how long, and not how often, means as often as it takes.
    fn limit_or(&self, base: &RetryPolicy) -> u32 {
        match self {
            Self { limit: Some(limit), .. } => *limit,
            Self { span: Some(_), .. } => MOST_RETRIES,
            Self { delays: Some(delays), .. } => u32::try_from(delays.len()).unwrap_or(MOST_RETRIES),
            Self { backoff: Some(BackoffKind::Sidekiq), .. } => SIDEKIQ_RETRIES,
            _ => base.limit,
        }
    }

    /// Delays that are written one by one, and those of Sidekiq's curve, are meant as they are: another policy's maximum
    /// does not cut them.
    fn max_delay_or(&self, base: &RetryPolicy) -> Duration {
        match self {
            Self { max_delay: Some(most), .. } => *most,
            Self { backoff: Some(BackoffKind::Sidekiq), .. } => LONGEST_DELAY,
            Self { delays: Some(delays), .. } => delays.iter().copied().fold(base.max_delay, Duration::max),
            _ => base.max_delay,
        }
    }

    /// A delay above the maximum would be cut silently; one above the span would leave no retry at all.
    fn out_of_reach(&self, policy: &RetryPolicy) -> Vec<RetryConflict> {
        let longest = match &policy.backoff {
            Backoff::Fixed { delay } | Backoff::Exponential { delay } => *delay,
            Backoff::List { delays } => delays.iter().max().copied().unwrap_or_default(),
            Backoff::Sidekiq => Duration::ZERO,
        };
        let mut conflicts = Vec::new();
        if longest > policy.max_delay {
            let (longest, most) = (show(longest), show(policy.max_delay));
            conflicts.push(RetryConflict {
                key: self.max_delay.map(|_| "max_delay"),
                message: format!("a retry delay of {longest} is longer than `max_delay`, which is {most}"),
                help: format!("set `max_delay` to {longest} or more, or shorten the delay"),
            });
        }
        let first = policy.delay(1, 0.5);
        if let Some(span) = policy.span.filter(|&span| policy.limit > 0 && first > span) {
            conflicts.push(RetryConflict {
                key: self.span.map(|_| "for"),
                message: format!(
                    "there would be no retry: the first comes after {}, and `for` is {}",
                    show(first),
                    show(span)
                ),
                help: "lengthen `for`, or shorten the first delay".to_owned(),
            });
        }
        conflicts
    }
}

/// The delay that `base` starts with, for a policy that names another kind and no delay.
fn base_delay(base: &RetryPolicy) -> Duration {
    match &base.backoff {
        Backoff::Fixed { delay } | Backoff::Exponential { delay } => *delay,
        Backoff::List { delays } => delays.first().copied().unwrap_or_default(),
        Backoff::Sidekiq => Duration::from_secs(15),
    }
}

fn show(span: Duration) -> String {
    humantime::format_duration(span).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);

    fn base() -> RetryPolicy {
        RetryPolicy {
            limit: 3,
            backoff: Backoff::Exponential { delay: 10 * SECOND },
            max_delay: HOUR,
            jitter: 0.1,
            span: None,
            never: vec![FailurePattern::parse("Http4*").expect("a pattern")],
        }
    }

    fn resolved(draft: &RetryDraft) -> RetryPolicy {
        let (policy, conflicts) = draft.resolve(&base());
        assert_eq!(conflicts, []);
        policy
    }

    #[test]
    fn what_is_left_out_is_the_bases() {
        assert_eq!(resolved(&RetryDraft::default()), base());
        assert_eq!(resolved(&RetryDraft::limit(5)), RetryPolicy { limit: 5, ..base() });
        let fixed = RetryDraft { backoff: Some(BackoffKind::Fixed), never: Some(Vec::new()), ..RetryDraft::default() };
        let backoff = Backoff::Fixed { delay: 10 * SECOND };
        assert_eq!(resolved(&fixed), RetryPolicy { backoff, never: Vec::new(), ..base() });
    }

    #[test]
    fn a_list_has_as_many_retries_as_delays_and_is_not_cut() {
        let delays = vec![5 * SECOND, 2 * HOUR];
        let policy = resolved(&RetryDraft::list(delays.clone()));
        let backoff = Backoff::List { delays };
        assert_eq!(policy, RetryPolicy { limit: 2, backoff, max_delay: 2 * HOUR, ..base() });
    }

    #[test]
    fn sidekiqs_curve_comes_with_its_25_retries_and_no_maximum() {
        let draft = RetryDraft { backoff: Some(BackoffKind::Sidekiq), ..RetryDraft::default() };
        let whole = RetryPolicy { limit: 25, backoff: Backoff::Sidekiq, max_delay: LONGEST_DELAY, ..base() };
        assert_eq!(resolved(&draft), whole);
        let bounded = RetryDraft { limit: Some(7), max_delay: Some(HOUR), ..draft };
        assert_eq!(resolved(&bounded), RetryPolicy { limit: 7, max_delay: HOUR, ..whole.clone() });
        assert_eq!(RetryDraft::limit(9).resolve(&whole), (RetryPolicy { limit: 9, ..whole }, Vec::new()));
    }

    #[test]
    fn for_alone_is_not_bounded_by_a_number() {
        let span = Some(24 * HOUR);
        let draft = RetryDraft { span, ..RetryDraft::default() };
        assert_eq!(resolved(&draft), RetryPolicy { limit: 1000, span, ..base() });
        let both = RetryDraft { limit: Some(4), ..draft.clone() };
        assert_eq!(resolved(&both), RetryPolicy { limit: 4, span, ..base() });
        let list = RetryDraft { delays: Some(vec![SECOND]), ..draft };
        assert_eq!(resolved(&list).limit, 1000);
    }

    #[test]
    fn parts_that_do_not_go_together_are_named() {
        let written = RetryDraft::default;
        let (sidekiq, list) = (Some(BackoffKind::Sidekiq), Some(BackoffKind::List));
        let cases = [
            (RetryDraft { delay: Some(SECOND), ..RetryDraft::list(vec![SECOND]) }, Some("delay"), "takes `delays`"),
            (RetryDraft { backoff: list, ..written() }, None, "without `delays`"),
            (RetryDraft { backoff: sidekiq, delay: Some(SECOND), ..written() }, Some("delay"), "its own delays"),
            (RetryDraft { backoff: sidekiq, jitter: Some(0.5), ..written() }, Some("jitter"), "its own spread"),
            (RetryDraft { delay: Some(2 * HOUR), ..written() }, None, "a retry delay of 2h is longer"),
            (
                RetryDraft { max_delay: Some(SECOND), ..RetryDraft::list(vec![HOUR]) },
                Some("max_delay"),
                "a retry delay of 1h is longer than `max_delay`, which is 1s",
            ),
            (RetryDraft { span: Some(SECOND), ..written() }, Some("for"), "there would be no retry: the first comes"),
        ];
        for (draft, key, words) in cases {
            let (_, conflicts) = draft.resolve(&base());
            let [conflict] = conflicts.as_slice() else { panic!("{draft:?}: {conflicts:?}") };
            assert_eq!(conflict.key, key, "{draft:?}");
            assert!(conflict.message.contains(words), "{words:?} is not in {:?}", conflict.message);
        }
    }
}
