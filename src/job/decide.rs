//! What follows from an outcome. The one place where retry, death and crash limits are decided.

use std::time::Duration;

use serde_json::Value;

use super::{
    Backoff, Cause, End, Failure, History, Mishap, MishapKind, NodeId, Outcome, RetryPolicy, Retryable, Snooze, State,
    Timestamp,
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

/// How long a job whose service is down is put off, where the service does not say: 5 s, doubling up to 5 min. The
/// retry policy is about failures of the job; it does not know how long somebody else's outage takes.
const OUTAGE: RetryPolicy = RetryPolicy {
    limit: 0,
    backoff: Backoff::Exponential { delay: Duration::from_secs(5) },
    max_delay: Duration::from_secs(300),
    jitter: 0.1,
    span: None,
    never: Vec::new(),
};

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
            let failure = Failure { args: Some([seconds(limit)].into()), ..Failure::new("TimeLimitExceeded", message) };
            after_failure(facts, &mut history, MishapKind::TimedOut, failure)
        }
        Outcome::Snoozed { delay, reason } => after_snooze(facts, &mut history, delay, reason),
        Outcome::Unavailable { error, retry_after } => after_unavailable(facts, &mut history, retry_after, error),
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
    let delay = if asked.is_some() {
        Duration::ZERO
    } else {
        facts.retry.delay(history.snoozes.saturating_add(1), facts.random)
    };
    put_off(facts, history, delay, asked, reason.clone(), Failure::new("SnoozeLimit", reason))
}

/// As a snooze, by the clock of an outage; `retry.never` and `retry.for` hold, `retry.limit` is not touched.
fn after_unavailable(facts: &AttemptFacts<'_>, history: &mut History, asked: Option<Duration>, error: Failure) -> Next {
    if let Some(reason) = forbidden(facts, &error) {
        history.note(mishap(facts, MishapKind::Failed, error));
        return die(facts, history, Cause::NotRetryable, reason);
    }
    let delay =
        if asked.is_some() { Duration::ZERO } else { OUTAGE.delay(history.snoozes.saturating_add(1), facts.random) };
    put_off(facts, history, delay, asked, format!("{}: {}", error.kind, error.message), error)
}

/// Later, at no cost of an attempt; `last` is what is said of a job that has been put off too often.
fn put_off(
    facts: &AttemptFacts<'_>,
    history: &mut History,
    delay: Duration,
    asked: Option<Duration>,
    reason: String,
    last: Failure,
) -> Next {
    history.snoozes = history.snoozes.saturating_add(1);
    history.snooze = Some(Snooze { at: facts.now, reason });
    let limit = (history.snoozes > SNOOZES).then(|| format!("it was put off more than {SNOOZES} times"));
    match limit.or_else(|| too_late(facts, history, delay, asked)) {
        Some(limit) => {
            let message = format!("{limit}; the last time: {}", last.message);
            history.note(mishap(facts, MishapKind::Failed, Failure { message, ..last }));
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

/// As producers write it: whole where it is.
fn seconds(span: Duration) -> Value {
    if span.subsec_nanos() == 0 { span.as_secs().into() } else { span.as_secs_f64().into() }
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
        result: Value::Null,
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
        args: failure.args.map(Vec::from),
        detail: failure.detail,
    }
}

#[cfg(test)]
mod tests;
