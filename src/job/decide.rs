//! What follows from an outcome. The one place where retry, death and crash limits are decided.

use std::time::Duration;

use super::{
    Cause, End, Failure, History, Mishap, MishapKind, NodeId, Outcome, RetryPolicy, Retryable, Snooze, State, Timestamp,
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
/// A job may be put off this often; then somebody should look.
const SNOOZES: u32 = 1000;
/// A shorter snooze would keep a slot busy with asking.
const SHORTEST_SNOOZE: Duration = Duration::from_secs(1);

/// Decides what follows from `outcome`. `history` holds the finished steps, those of this attempt too.
pub(crate) fn decide(facts: &AttemptFacts<'_>, mut history: History, outcome: Outcome) -> Decision {
    let next = match outcome {
        Outcome::Success(result) => {
            history.forget_steps();
            history.end = Some(End { result, ..end(facts, State::Completed) });
            Next::End(State::Completed)
        }
        Outcome::Failure(failure) => after_failure(facts, &mut history, MishapKind::Failed, failure),
        Outcome::TimedOut(limit) => {
            let message = format!("the attempt was stopped after its timeout of {}", humantime::format_duration(limit));
            after_failure(facts, &mut history, MishapKind::TimedOut, Failure::new("TimeLimitExceeded", message))
        }
        Outcome::Snoozed { delay, reason } => after_snooze(facts, &mut history, delay, reason),
        Outcome::Expired(at) => {
            let message = format!("it expired at {at}, before its attempt could start");
            history.note(mishap(facts, MishapKind::Expired, Failure::new("Expired", message.as_str())));
            let reason = Some(message);
            history.end = Some(End { started: None, cause: Some(Cause::Expired), reason, ..end(facts, State::Dead) });
            Next::End(State::Dead)
        }
        Outcome::Crashed { reason } => after_crash(facts, &mut history, Failure::new("WorkerLostError", reason)),
        Outcome::Interrupted { reason } => {
            history.interruptions += 1;
            history.note(mishap(facts, MishapKind::Interrupted, Failure::new("Interrupted", reason)));
            Next::Release
        }
        Outcome::Cancelled(request) => {
            let message = format!("cancelled {}", request.words());
            history.note(mishap(facts, MishapKind::Cancelled, Failure::new("Cancelled", message.clone())));
            history.end = Some(End { reason: Some(message), ..end(facts, State::Cancelled) });
            Next::End(State::Cancelled)
        }
    };
    Decision { next, history }
}

fn after_failure(facts: &AttemptFacts<'_>, history: &mut History, kind: MishapKind, failure: Failure) -> Next {
    history.failures += 1;
    let (retryable, forbidden) = (failure.retry, forbidden(facts, &failure));
    let name = failure.kind.clone();
    history.note(mishap(facts, kind, failure));
    if retryable == Retryable::Never {
        return die(facts, history, Cause::NotRetryable, format!("another attempt would end in {name} again"));
    }
    if let Some(reason) = forbidden {
        return die(facts, history, Cause::NotRetryable, reason);
    }
    if history.failures > facts.retry.limit {
        let reason = format!("it failed {}, and `retry.limit` is {}", times(history.failures), facts.retry.limit);
        return die(facts, history, Cause::RetriesExhausted, reason);
    }
    let asked = match retryable {
        Retryable::After(span) => Some(span),
        Retryable::ByPolicy | Retryable::Never => None,
    };
    let delay = facts.retry.delay(history.failures, facts.random);
    match too_late(facts, history, delay, asked) {
        Some(reason) => die(facts, history, Cause::RetriesExhausted, reason),
        None => Next::Retry { at: facts.now.after(delay.max(asked.unwrap_or_default().min(LONGEST_WAIT))) },
    }
}

fn after_snooze(facts: &AttemptFacts<'_>, history: &mut History, asked: Option<Duration>, reason: String) -> Next {
    history.snoozes = history.snoozes.saturating_add(1);
    history.snooze = Some(Snooze { at: facts.now, reason: reason.clone() });
    let delay = if asked.is_some() { Duration::ZERO } else { facts.retry.delay(history.snoozes, facts.random) };
    let limit = (history.snoozes > SNOOZES).then(|| format!("it was put off more than {SNOOZES} times"));
    match limit.or_else(|| too_late(facts, history, delay, asked)) {
        Some(limit) => {
            let last = format!("{limit}; the last time: {reason}");
            history.note(mishap(facts, MishapKind::Failed, Failure::new("SnoozeLimit", last)));
            die(facts, history, Cause::SnoozeLimit, limit)
        }
        None => {
            let wait = asked.unwrap_or(delay).clamp(SHORTEST_SNOOZE, LONGEST_WAIT.max(delay));
            Next::Retry { at: facts.now.after(wait) }
        }
    }
}

fn after_crash(facts: &AttemptFacts<'_>, history: &mut History, failure: Failure) -> Next {
    history.crashes += 1;
    history.first_started.get_or_insert(facts.started);
    let forbidden = forbidden(facts, &failure);
    history.note(mishap(facts, MishapKind::Crashed, failure));
    if let Some(reason) = forbidden {
        die(facts, history, Cause::NotRetryable, reason)
    } else if history.crashes >= facts.crash_limit {
        let reason = format!("the process died under it {}", times(history.crashes));
        die(facts, history, Cause::CrashLoop, reason)
    } else {
        Next::Release
    }
}

/// Why the operator wants no other attempt after this failure.
fn forbidden(facts: &AttemptFacts<'_>, failure: &Failure) -> Option<String> {
    let pattern = facts.retry.forbids(&failure.kind)?;
    Some(match pattern.as_str() {
        name if name == failure.kind => format!("`retry.never` names {name}"),
        glob => format!("`retry.never` names {} by `{glob}`", failure.kind),
    })
}

/// Why an attempt that starts no sooner than `delay` and than what the other side `asked` for would come too late.
fn too_late(
    facts: &AttemptFacts<'_>,
    history: &mut History,
    delay: Duration,
    asked: Option<Duration>,
) -> Option<String> {
    let first = *history.first_started.get_or_insert(facts.started);
    let span = facts.retry.span?;
    let next = facts.now.after(delay.max(asked.unwrap_or_default()));
    if next <= first.after(span) {
        return None;
    }
    let span = words(span);
    Some(match asked.filter(|&asked| asked > delay) {
        Some(asked) => {
            format!("it was told to wait for {}, which is longer than `retry.for` = {span} allows", words(asked))
        }
        None => format!(
            "the next attempt would start {} after the first one, and `retry.for` is {span}",
            words(next.since(first))
        ),
    })
}

fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// A span as people say it: nobody needs its milliseconds after a second.
fn words(span: Duration) -> String {
    let whole = if span >= Duration::from_secs(1) { Duration::from_secs(span.as_secs()) } else { span };
    humantime::format_duration(whole).to_string()
}

fn die(facts: &AttemptFacts<'_>, history: &mut History, cause: Cause, reason: String) -> Next {
    history.end = Some(End { cause: Some(cause), reason: Some(reason), ..end(facts, State::Dead) });
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
        reason: None,
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
    use crate::job::{Backoff, FailurePattern};

    const MINUTE: Duration = Duration::from_secs(60);

    fn retry(limit: u32) -> RetryPolicy {
        RetryPolicy {
            limit,
            backoff: Backoff::Fixed { delay: 5 * MINUTE },
            max_delay: 60 * MINUTE,
            jitter: 0.0,
            span: None,
            never: Vec::new(),
        }
    }

    /// Feeds the outcomes one after another and returns where the job went each time.
    fn journey(limit: u32, outcomes: Vec<Outcome>) -> (Vec<Next>, History) {
        travel(&retry(limit), outcomes)
    }

    fn travel(retry: &RetryPolicy, outcomes: Vec<Outcome>) -> (Vec<Next>, History) {
        let node = NodeId::parse("vps-1").expect("a valid name");
        let mut history = History::default();
        let mut path = Vec::new();
        for outcome in outcomes {
            let facts = AttemptFacts {
                node: &node,
                attempt: history.next_attempt(),
                started: Timestamp::from_millis(500),
                now: Timestamp::from_millis(1000),
                retry,
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

    fn end_of(history: &History) -> (Option<Cause>, &str) {
        let end = history.end.as_ref().expect("it has ended");
        (end.cause, end.reason.as_deref().unwrap_or_default())
    }

    #[test]
    fn a_death_says_why_there_is_no_further_attempt() {
        let cases = [
            (0, failed(), Cause::RetriesExhausted, "it failed once, and `retry.limit` is 0"),
            (0, Outcome::TimedOut(MINUTE), Cause::RetriesExhausted, "it failed once, and `retry.limit` is 0"),
            (
                9,
                Failure::never("BadAddress", "no").into(),
                Cause::NotRetryable,
                "another attempt would end in BadAddress again",
            ),
        ];
        for (limit, outcome, cause, reason) in cases {
            let (path, history) = journey(limit, vec![outcome]);
            assert_eq!(
                (path.as_slice(), end_of(&history)),
                ([Next::End(State::Dead)].as_slice(), (Some(cause), reason))
            );
        }
        let (_, history) = journey(0, vec![crashed(), crashed(), crashed()]);
        assert_eq!(end_of(&history), (Some(Cause::CrashLoop), "the process died under it 3 times"));
    }

    /// The first attempt starts at 0.5 s, and each of these outcomes is told at 1 s.
    #[test]
    fn no_retry_starts_later_than_the_span_allows() {
        let after = |wait| -> Outcome { Failure::new("Http503", "503").after(wait).into() };
        let hour = 60 * MINUTE;
        let retry_in = |span: Duration| Next::Retry { at: Timestamp::from_millis(1000).after(span) };
        let dead = Next::End(State::Dead);
        let next = "the next attempt would start 5m after the first one, and `retry.for` is 5m";
        let asked = "it was told to wait for 2h, which is longer than `retry.for` = 1h allows";
        let days = "it was told to wait for 2days, which is longer than `retry.for` = 1day 12h allows";
        let cases = [
            (5 * MINUTE, failed(), dead, next),
            (5 * MINUTE + Duration::from_millis(500), failed(), retry_in(5 * MINUTE), ""),
            (hour, after(hour / 2), retry_in(hour / 2), ""),
            (hour, after(2 * hour), dead, asked),
            // What is asked for counts whole, also where so long a wait would be cut.
            (36 * hour, after(48 * hour), dead, days),
            (72 * hour, after(48 * hour), retry_in(24 * hour), ""),
            (hour, Outcome::Snoozed { delay: Some(2 * hour), reason: String::new() }, dead, asked),
        ];
        for (span, outcome, expected, reason) in cases {
            let (path, history) = travel(&RetryPolicy { span: Some(span), ..retry(9) }, vec![outcome.clone()]);
            assert_eq!(path, [expected], "{span:?} {outcome:?}");
            let told = history.end.and_then(|end| end.reason).unwrap_or_default();
            assert_eq!(told, reason, "{span:?} {outcome:?}");
        }
    }

    #[test]
    fn the_span_counts_from_the_first_start() {
        let mut history = History { first_started: Some(Timestamp::from_millis(1)), failures: 1, ..History::default() };
        let node = NodeId::parse("vps-1").expect("a valid name");
        let retry = RetryPolicy { span: Some(60 * MINUTE), ..retry(9) };
        let started = Timestamp::from_millis(1).after(56 * MINUTE);
        let facts =
            AttemptFacts { node: &node, attempt: 2, started, now: started, retry: &retry, crash_limit: 3, random: 0.5 };
        history = decide(&facts, history, failed()).history;
        let words = "the next attempt would start 1h 1m after the first one, and `retry.for` is 1h";
        assert_eq!(end_of(&history), (Some(Cause::RetriesExhausted), words));
    }

    #[test]
    fn failures_that_the_operator_names_are_not_tried_again() {
        let never = ["SmtpError", "Time*", "WorkerLostError"].map(FailurePattern::parse);
        let retry = RetryPolicy { never: never.into_iter().map(|one| one.expect("valid")).collect(), ..retry(9) };
        let cases = [
            (failed(), Some("`retry.never` names SmtpError")),
            (Outcome::TimedOut(MINUTE), Some("`retry.never` names TimeLimitExceeded by `Time*`")),
            (crashed(), Some("`retry.never` names WorkerLostError")),
            (Failure::new("SmtpErrors", "no").into(), None),
        ];
        for (outcome, reason) in cases {
            let (path, history) = travel(&retry, vec![outcome]);
            let Some(reason) = reason else {
                assert_eq!(path, [in_five_minutes()]);
                continue;
            };
            assert_eq!(path, [Next::End(State::Dead)], "{reason}");
            assert_eq!(end_of(&history), (Some(Cause::NotRetryable), reason));
        }
    }

    fn snoozed(delay: Option<Duration>) -> Outcome {
        Outcome::Snoozed { delay, reason: "the feed is not ready".into() }
    }

    #[test]
    fn a_snooze_costs_no_attempt() {
        let seconds = |seconds: u64| Next::Retry { at: Timestamp::from_millis(1000 + seconds * 1000) };
        let day = 24 * 60 * MINUTE;
        let delays = [None, Some(MINUTE), Some(Duration::ZERO), Some(30 * day)];
        let (path, history) = journey(0, delays.map(snoozed).to_vec());
        assert_eq!(path, [seconds(300), seconds(60), seconds(1), seconds(86_400)]);
        assert_eq!((history.snoozes, history.failures, history.next_attempt()), (4, 0, 1));
        assert_eq!(history.snoozed_last().map(|snooze| snooze.reason.as_str()), Some("the feed is not ready"));
    }

    #[test]
    fn a_job_is_not_put_off_for_ever() {
        let (path, history) = journey(3, vec![snoozed(None); 1001]);
        assert_eq!(path[..1000], [in_five_minutes(); 1000]);
        assert_eq!(path[1000], Next::End(State::Dead));
        assert_eq!(end_of(&history), (Some(Cause::SnoozeLimit), "it was put off more than 1000 times"));
        let last = history.mishaps.last().expect("its producer is told");
        assert_eq!(last.message, "it was put off more than 1000 times; the last time: the feed is not ready");
        assert_eq!(history.snoozed_last(), None);
    }

    #[test]
    fn an_expired_job_ends_without_an_attempt() {
        let (path, history) = journey(9, vec![failed(), Outcome::Expired(Timestamp::from_millis(900))]);
        assert_eq!(path, [in_five_minutes(), Next::End(State::Dead)]);
        let words = "it expired at 1970-01-01T00:00:00.900Z, before its attempt could start";
        assert_eq!(end_of(&history), (Some(Cause::Expired), words));
        assert_eq!((history.failures, history.end.and_then(|end| end.started)), (1, None));
    }
}
