//! What follows from an outcome. The one place where retry, death and crash limits are decided.

use std::time::Duration;

use super::{
    Cause, End, Failure, History, Mishap, MishapKind, NodeId, Outcome, RetryPolicy, Retryable, State, Timestamp,
};

/// Where a job goes after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It has ended; the history says how.
    End(State),
    /// Again, not before this instant.
    Retry { at: Timestamp },
    /// Back to pending at once, in front of what came later.
    Release,
}

/// An attempt's consequence: where the job goes, and its history with the attempt in it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decision {
    pub next: Next,
    pub history: History,
}

/// The attempt that an outcome belongs to.
#[derive(Debug, Clone)]
pub(crate) struct AttemptFacts<'a> {
    pub node: &'a NodeId,
    pub attempt: u32,
    pub started: Timestamp,
    pub now: Timestamp,
    pub retry: &'a RetryPolicy,
    /// Crashes after which the job is dead.
    pub crash_limit: u32,
    /// In 0..1: places the delay inside its jitter.
    pub random: f64,
}

/// A wait that a provider asks for is honoured up to this: nobody parks a job for ever.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// Decides what follows from `outcome`. `history` holds the finished steps, those of this attempt too.
pub(crate) fn decide(facts: &AttemptFacts<'_>, mut history: History, outcome: Outcome) -> Decision {
    let next = match outcome {
        Outcome::Success(result) => {
            history.steps.clear();
            history.end = Some(End { result, ..end(facts, State::Completed) });
            Next::End(State::Completed)
        }
        Outcome::Failure(failure) => {
            history.failures += 1;
            let retryable = failure.retry;
            history.note(mishap(facts, MishapKind::Failed, failure));
            after_failure(facts, &mut history, retryable)
        }
        Outcome::TimedOut(limit) => {
            history.failures += 1;
            let message = format!("the attempt was stopped after its timeout of {}", humantime::format_duration(limit));
            history.note(mishap(facts, MishapKind::TimedOut, Failure::new("TimeLimitExceeded", message)));
            after_failure(facts, &mut history, Retryable::ByPolicy)
        }
        Outcome::Crashed { reason } => {
            history.crashes += 1;
            history.note(mishap(facts, MishapKind::Crashed, Failure::new("WorkerLostError", reason)));
            if history.crashes >= facts.crash_limit {
                die(facts, &mut history, Cause::CrashLoop)
            } else {
                Next::Release
            }
        }
        Outcome::Interrupted { reason } => {
            history.interruptions += 1;
            history.note(mishap(facts, MishapKind::Interrupted, Failure::new("Interrupted", reason)));
            Next::Release
        }
        Outcome::Cancelled(request) => {
            let message = format!("cancelled {}", request.words());
            history.note(mishap(facts, MishapKind::Cancelled, Failure::new("Cancelled", message)));
            history.end = Some(end(facts, State::Cancelled));
            Next::End(State::Cancelled)
        }
    };
    Decision { next, history }
}

fn after_failure(facts: &AttemptFacts<'_>, history: &mut History, retryable: Retryable) -> Next {
    let floor = match retryable {
        Retryable::Never => return die(facts, history, Cause::NotRetryable),
        Retryable::After(span) => span.min(LONGEST_WAIT),
        Retryable::ByPolicy => Duration::ZERO,
    };
    if history.failures > facts.retry.limit {
        return die(facts, history, Cause::RetriesExhausted);
    }
    let delay = facts.retry.delay(history.failures, facts.random).max(floor);
    Next::Retry { at: facts.now.after(delay) }
}

fn die(facts: &AttemptFacts<'_>, history: &mut History, cause: Cause) -> Next {
    history.end = Some(End { cause: Some(cause), ..end(facts, State::Dead) });
    Next::End(State::Dead)
}

fn end(facts: &AttemptFacts<'_>, state: State) -> End {
    End {
        state,
        at: facts.now,
        started: Some(facts.started),
        node: Some(facts.node.clone()),
        result: serde_json::Value::Null,
        cause: None,
    }
}

fn mishap(facts: &AttemptFacts<'_>, kind: MishapKind, failure: Failure) -> Mishap {
    Mishap {
        at: facts.now,
        attempt: facts.attempt,
        node: facts.node.clone(),
        kind,
        name: failure.kind,
        message: failure.message,
        detail: failure.detail,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::Backoff;

    const MINUTE: Duration = Duration::from_secs(60);

    fn retry(limit: u32) -> RetryPolicy {
        RetryPolicy { limit, backoff: Backoff::Fixed { delay: 5 * MINUTE }, max_delay: 60 * MINUTE, jitter: 0.0 }
    }

    /// Feeds the outcomes one after another and returns where the job went each time.
    fn journey(limit: u32, outcomes: Vec<Outcome>) -> (Vec<Next>, History) {
        let node = NodeId::parse("vps-1").expect("a valid name");
        let retry = retry(limit);
        let mut history = History::default();
        let mut path = Vec::new();
        for outcome in outcomes {
            let facts = AttemptFacts {
                node: &node,
                attempt: history.next_attempt(),
                started: Timestamp::from_millis(500),
                now: Timestamp::from_millis(1000),
                retry: &retry,
                crash_limit: 3,
                random: 0.5,
            };
            let decision = decide(&facts, history, outcome);
            path.push(decision.next);
            history = decision.history;
        }
        (path, history)
    }

    fn failed() -> Outcome {
        Failure::new("SmtpError", "no").into()
    }

    fn crashed() -> Outcome {
        Outcome::Crashed { reason: "the node died".into() }
    }

    fn in_five_minutes() -> Next {
        Next::Retry { at: Timestamp::from_millis(301_000) }
    }

    #[test]
    fn success_ends_with_its_result() {
        let (path, history) = journey(3, vec![Outcome::Success(json!({"success": true}))]);
        assert_eq!(path, [Next::End(State::Completed)]);
        let end = history.end.expect("it has ended");
        assert_eq!((end.state, end.result), (State::Completed, json!({"success": true})));
    }

    #[test]
    fn three_retries_make_four_attempts() {
        let (path, history) = journey(3, vec![failed(), failed(), failed(), failed()]);
        assert_eq!(path, [in_five_minutes(), in_five_minutes(), in_five_minutes(), Next::End(State::Dead)]);
        assert_eq!(history.end.and_then(|end| end.cause), Some(Cause::RetriesExhausted));
        assert_eq!(history.mishaps.iter().map(|m| m.attempt).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn crashes_and_failures_are_counted_apart() {
        let (path, history) = journey(1, vec![crashed(), failed(), crashed(), crashed()]);
        assert_eq!(path, [Next::Release, in_five_minutes(), Next::Release, Next::End(State::Dead)]);
        assert_eq!(history.end.and_then(|end| end.cause), Some(Cause::CrashLoop));
        assert_eq!((history.failures, history.crashes), (1, 3));
    }

    #[test]
    fn an_interruption_costs_nothing() {
        let interrupted = || Outcome::Interrupted { reason: "the daemon is stopping".into() };
        let (path, history) = journey(0, vec![interrupted(), interrupted(), interrupted(), interrupted()]);
        assert_eq!(path, [Next::Release; 4]);
        assert_eq!(history.next_attempt(), 1);
    }

    #[test]
    fn what_cannot_be_cured_is_not_tried_again() {
        let (path, history) = journey(9, vec![Failure::never("BadAddress", "no such mailbox").into()]);
        assert_eq!(path, [Next::End(State::Dead)]);
        assert_eq!(history.end.and_then(|end| end.cause), Some(Cause::NotRetryable));
    }

    #[test]
    fn retry_after_is_a_floor_not_a_replacement() {
        let (path, _) = journey(9, vec![Failure::new("TooMany", "429").after(10 * MINUTE).into()]);
        assert_eq!(path, [Next::Retry { at: Timestamp::from_millis(601_000) }]);
        let (path, _) = journey(9, vec![Failure::new("TooMany", "429").after(MINUTE).into()]);
        assert_eq!(path, [in_five_minutes()]);
        let (path, _) = journey(9, vec![Failure::new("TooMany", "429").after(Duration::MAX).into()]);
        assert_eq!(path, [Next::Retry { at: Timestamp::from_millis(86_401_000) }], "but not for ever");
    }
}
