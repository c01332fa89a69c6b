//! A rule for unique jobs as somebody wrote it, in the configuration or with a job: parts of one, completed by another.
//!
//! Reading the parts, and saying where a conflict stands, is the work of whoever has the text.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Hold, UniqueRule, Until};

/// What `for` and `wait` may be.
pub(crate) const SPAN: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(366 * 86_400);

/// The parts of a rule that are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct UniqueDraft {
    pub on_conflict: Option<OnConflict>,
    pub until: Option<Until>,
    /// `for`.
    pub span: Option<Duration>,
    pub wait: Option<Duration>,
}

/// What becomes of a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnConflict {
    Reject,
    Replace,
    Debounce,
    Throttle,
}

impl OnConflict {
    pub(crate) const ALL: [(&'static str, Self); 4] = [
        ("reject", Self::Reject),
        ("replace", Self::Replace),
        ("debounce", Self::Debounce),
        ("throttle", Self::Throttle),
    ];
}

/// Parts that do not go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UniqueConflict {
    /// The part to look at; `None`: the rule as a whole.
    pub key: Option<&'static str>,
    pub message: &'static str,
    pub help: &'static str,
}

impl UniqueDraft {
    /// What is left out comes from `base`, unless another `on_conflict` is asked for: its parts mean other things.
    #[must_use]
    pub(crate) fn over(self, base: UniqueRule) -> Self {
        let base = Self::of(base);
        if self.on_conflict.is_some_and(|wanted| Some(wanted) != base.on_conflict) {
            return self;
        }
        let on_conflict = base.on_conflict;
        let has_hold = matches!(on_conflict, Some(OnConflict::Reject | OnConflict::Replace));
        if has_hold && (self.until.is_some() || self.span.is_some()) {
            // Whoever names a hold of his own means that one as a whole.
            return Self { on_conflict, ..self };
        }
        let (until, span) = (self.until.or(base.until), self.span.or(base.span));
        Self { on_conflict, until, span, wait: self.wait.or(base.wait) }
    }

    /// The whole rule, and everything that is wrong with it.
    pub(crate) fn resolve(self) -> (UniqueRule, Vec<UniqueConflict>) {
        let conflicts = self.conflicts();
        let rule = match self.on_conflict.unwrap_or(OnConflict::Reject) {
            OnConflict::Reject => UniqueRule::Reject(self.hold()),
            OnConflict::Replace => UniqueRule::Replace(self.hold()),
            OnConflict::Debounce => UniqueRule::Debounce { wait: self.wait.unwrap_or_default(), longest: self.span },
            OnConflict::Throttle => UniqueRule::Throttle { span: self.span.unwrap_or_default() },
        };
        (rule, conflicts)
    }

    fn of(rule: UniqueRule) -> Self {
        let on_conflict = match rule {
            UniqueRule::Reject(_) => OnConflict::Reject,
            UniqueRule::Replace(_) => OnConflict::Replace,
            UniqueRule::Debounce { .. } => OnConflict::Debounce,
            UniqueRule::Throttle { .. } => OnConflict::Throttle,
        };
        Self { on_conflict: Some(on_conflict), until: rule.until(), span: rule.span(), wait: rule.wait() }
    }

    /// Whoever says nothing means: until it has ended.
    fn hold(self) -> Hold {
        match (self.until, self.span) {
            (None, None) => Hold::Until(Until::Ended),
            (Some(until), None) => Hold::Until(until),
            (None, Some(span)) => Hold::For(span),
            (Some(until), Some(span)) => Hold::Either(until, span),
        }
    }

    fn conflicts(self) -> Vec<UniqueConflict> {
        let mut found = Vec::new();
        let mut wrong = |is_so: bool, key, message, help| {
            if is_so {
                found.push(UniqueConflict { key, message, help });
            }
        };
        match self.on_conflict.unwrap_or(OnConflict::Reject) {
            OnConflict::Reject | OnConflict::Replace => wrong(
                self.wait.is_some(),
                Some("wait"),
                "`wait` has an effect with \"debounce\" only",
                "remove `wait`, or set on_conflict = \"debounce\"",
            ),
            OnConflict::Debounce => {
                wrong(
                    self.wait.is_none(),
                    None,
                    "\"debounce\" without `wait`: how long after the last one the job starts",
                    "add `wait`, such as \"30s\"",
                );
                wrong(
                    self.until.is_some(),
                    Some("until"),
                    "`until` has no effect with \"debounce\", which holds its key until the job starts",
                    "remove `until`",
                );
                let too_short = self.span.zip(self.wait).is_some_and(|(span, wait)| span < wait);
                wrong(
                    too_short,
                    Some("for"),
                    "`for` is shorter than `wait`: every start would come before its `wait` is over",
                    "lengthen `for`, the longest that newcomers put the start off, or shorten `wait`",
                );
            }
            OnConflict::Throttle => {
                wrong(
                    self.span.is_none(),
                    None,
                    "\"throttle\" without `for`: the time in which there is one start",
                    "add `for`, such as \"10m\"",
                );
                wrong(
                    self.until.is_some(),
                    Some("until"),
                    "`until` has no effect with \"throttle\", which holds its key for a time",
                    "remove `until`",
                );
                wrong(
                    self.wait.is_some(),
                    Some("wait"),
                    "`wait` has an effect with \"debounce\" only",
                    "remove `wait`, or set on_conflict = \"debounce\"",
                );
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_left_out_is_until_the_end() {
        let rule = |draft: UniqueDraft| {
            let (rule, conflicts) = draft.resolve();
            assert_eq!(conflicts, []);
            rule
        };
        let draft = UniqueDraft::default();
        assert_eq!(rule(draft), UniqueRule::Reject(Hold::Until(Until::Ended)));
        let span = Some(SECOND);
        assert_eq!(rule(UniqueDraft { span, ..draft }), UniqueRule::Reject(Hold::For(SECOND)));
        let both =
            UniqueDraft { span, until: Some(Until::Started), on_conflict: Some(OnConflict::Replace), wait: None };
        assert_eq!(rule(both), UniqueRule::Replace(Hold::Either(Until::Started, SECOND)));
    }

    #[test]
    fn a_job_completes_its_rule_by_its_tasks() {
        let debounce = UniqueRule::Debounce { wait: SECOND, longest: Some(5 * SECOND) };
        let over = |draft: UniqueDraft| draft.over(debounce).resolve();
        let nothing = UniqueDraft::default();
        assert_eq!(over(nothing), (debounce, vec![]));
        let longer = UniqueRule::Debounce { wait: 2 * SECOND, longest: Some(5 * SECOND) };
        assert_eq!(over(UniqueDraft { wait: Some(2 * SECOND), ..nothing }), (longer, vec![]));
        let other = UniqueDraft { on_conflict: Some(OnConflict::Reject), ..nothing };
        assert_eq!(over(other), (UniqueRule::Reject(Hold::Until(Until::Ended)), vec![]));
        let held = UniqueRule::Reject(Hold::Either(Until::Ended, SECOND));
        let timed = UniqueDraft { span: Some(2 * SECOND), ..nothing };
        assert_eq!(timed.over(held).resolve().0, UniqueRule::Reject(Hold::For(2 * SECOND)));
    }

    #[test]
    fn parts_that_do_not_go_together_are_named() {
        let (wait, span, until) = (Some(2 * SECOND), Some(SECOND), Some(Until::Ended));
        let of = |on_conflict| UniqueDraft { on_conflict: Some(on_conflict), ..UniqueDraft::default() };
        let cases = [
            (UniqueDraft { wait, ..UniqueDraft::default() }, vec![Some("wait")]),
            (UniqueDraft { wait, ..of(OnConflict::Replace) }, vec![Some("wait")]),
            (of(OnConflict::Debounce), vec![None]),
            (UniqueDraft { wait, until, span, ..of(OnConflict::Debounce) }, vec![Some("until"), Some("for")]),
            (UniqueDraft { wait, until, ..of(OnConflict::Throttle) }, vec![None, Some("until"), Some("wait")]),
        ];
        for (draft, keys) in cases {
            let found: Vec<_> = draft.resolve().1.into_iter().map(|conflict| conflict.key).collect();
            assert_eq!(found, keys, "{draft:?}");
        }
    }
}
