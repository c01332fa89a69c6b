//! What follows from each outcome.

use serde_json::json;

use super::*;
use crate::job::FailurePattern;

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
        assert_eq!((path.as_slice(), end_of(&history)), ([Next::End(State::Dead)].as_slice(), (Some(cause), reason)));
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

fn unavailable(retry_after: Option<Duration>) -> Outcome {
    Outcome::Unavailable { error: Failure::new("SmtpConnectError", "connection refused"), retry_after }
}

#[test]
fn an_outage_costs_no_attempt_and_is_waited_for_longer_and_longer() {
    let (path, history) = journey(0, (0..9).map(|_| unavailable(None)).collect());
    let seconds = |next: &Next| match next {
        Next::Retry { at } => at.since(Timestamp::from_millis(1000)).as_secs(),
        other => panic!("{other:?}"),
    };
    assert_eq!(path.iter().map(seconds).collect::<Vec<_>>(), [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    assert_eq!((history.next_attempt(), history.snoozes, history.mishaps.len()), (1, 9, 0));
    assert_eq!(history.snoozed_last().expect("put off").reason, "SmtpConnectError: connection refused");
    let (path, _) = journey(0, vec![unavailable(Some(20 * MINUTE))]);
    assert_eq!(path.iter().map(seconds).collect::<Vec<_>>(), [1200], "as the service says");
}

#[test]
fn an_outage_is_not_waited_for_longer_than_the_operator_wants() {
    let (path, history) = journey(9, (0..1001).map(|_| unavailable(None)).collect());
    assert_eq!(path.last(), Some(&Next::End(State::Dead)));
    assert_eq!(end_of(&history), (Some(Cause::SnoozeLimit), "it was put off more than 1000 times"));
    let last = history.mishaps.last().expect("it is told");
    assert_eq!(last.name, "SmtpConnectError");
    assert_eq!(last.message, "it was put off more than 1000 times; the last time: connection refused");

    let never = RetryPolicy { never: vec![FailurePattern::parse("Smtp*").expect("a pattern")], ..retry(9) };
    let (path, history) = travel(&never, vec![unavailable(None)]);
    assert_eq!(path, [Next::End(State::Dead)]);
    assert_eq!(end_of(&history), (Some(Cause::NotRetryable), "`retry.never` names SmtpConnectError by `Smtp*`"));

    let brief = RetryPolicy { span: Some(MINUTE), ..retry(9) };
    let (path, history) = travel(&brief, vec![unavailable(Some(5 * MINUTE))]);
    assert_eq!(path, [Next::End(State::Dead)]);
    assert_eq!(end_of(&history).0, Some(Cause::SnoozeLimit));
}
