//! The circuit breaker of a queue: when the service behind its jobs is down, the queue waits instead of trying each job.
//!
//! Pure: it is told how attempts ended and what time it is, and says what may be claimed. It knows nothing of tasks: the
//! queue waits as a whole. Only so do its foreign messages stay in their lists, because what task a message is for
//! is not known before it is taken; and only so do jobs keep their order. A queue in which other work goes on never has
//! a few such endings in a row, so it does not wait: there each job is put off by itself.

use std::fmt;
use std::time::{Duration, Instant};

use humantime::format_duration;

/// So many attempts in a row that found the service down open the breaker.
const IN_A_ROW: u32 = 3;
/// How long it stays open the first time; it doubles up to the second with each probe that fails.
const OPEN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// The same where the service has named a time itself, which may be shorter: that of a quota that refills each second.
const OPEN_ASKED: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    in_a_row: u32,
    /// Times it has opened since the service last answered.
    openings: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

/// How an attempt, or a batch, ended, as far as the service is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It did its work, or refused it: it is there.
    Given,
    /// It is down.
    Unavailable { reason: String, retry_after: Option<Duration> },
    /// Nothing is known: the attempt was stopped.
    Unknown,
}

/// What may be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowed {
    All,
    /// One job, by which the service is tried.
    Probe,
    Nothing,
}

/// A change of its state, in words when it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Opened {
        until: Instant,
        /// How long that is from now.
        span: Duration,
        reason: String,
    },
    HalfOpened,
    Closed,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self { state: State::Closed, in_a_row: 0, openings: 0 }
    }

    pub(super) fn allowed(&self) -> Allowed {
        match self.state {
            State::Closed => Allowed::All,
            State::HalfOpen => Allowed::Probe,
            State::Open { .. } => Allowed::Nothing,
        }
    }

    /// When it lets a probe through.
    pub(super) fn until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed | State::HalfOpen => None,
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) -> Option<Change> {
        self.until().filter(|until| *until <= now)?;
        self.state = State::HalfOpen;
        Some(Change::HalfOpened)
    }

    /// An attempt has ended. While the breaker is not closed only that of a `probe` counts: what had begun before says
    /// nothing new.
    pub(super) fn ended(&mut self, answer: Answer, probe: bool, now: Instant) -> Option<Change> {
        match (self.state, answer) {
            (_, Answer::Unknown) => None,
            (State::Closed, Answer::Given) => {
                self.in_a_row = 0;
                None
            }
            (State::Closed, Answer::Unavailable { reason, retry_after }) => {
                self.in_a_row += 1;
                let opens = self.in_a_row >= IN_A_ROW || retry_after.is_some();
                opens.then(|| self.open(reason, retry_after, now))
            }
            (State::HalfOpen, Answer::Given) if probe => {
                *self = Self::new();
                Some(Change::Closed)
            }
            (State::HalfOpen, Answer::Unavailable { reason, retry_after }) if probe => {
                Some(self.open(reason, retry_after, now))
            }
            (State::Open { .. } | State::HalfOpen, _) => None,
        }
    }

    /// A time that the service asks for is kept within the bounds: the queue may hold jobs of others too.
    fn open(&mut self, reason: String, asked: Option<Duration>, now: Instant) -> Change {
        let first = if asked.is_some() { OPEN_ASKED } else { OPEN.0 };
        let grown = first.saturating_mul(2_u32.saturating_pow(self.openings));
        let span = asked.unwrap_or_default().max(grown).min(OPEN.1);
        self.openings = self.openings.saturating_add(1);
        self.in_a_row = 0;
        let until = now + span;
        self.state = State::Open { until };
        Change::Opened { until, span, reason }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { span, reason, .. } => {
                write!(f, "the service behind its jobs is down, so it waits for {}: {reason}", format_duration(*span))
            }
            Self::HalfOpened => write!(f, "one job tries whether the service behind them is back"),
            Self::Closed => write!(f, "the service behind its jobs is back: it goes on"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn down() -> Answer {
        Answer::Unavailable { reason: "refused".into(), retry_after: None }
    }

    fn wait(seconds: u64) -> Answer {
        Answer::Unavailable { reason: "busy".into(), retry_after: Some(SECOND * u32::try_from(seconds).expect("few")) }
    }

    fn span(change: Option<Change>) -> u64 {
        match change {
            Some(Change::Opened { span, .. }) => span.as_secs(),
            other => panic!("it did not open: {other:?}"),
        }
    }

    #[test]
    fn a_few_in_a_row_open_it_and_nothing_else_does() {
        let (mut breaker, now) = (Breaker::new(), Instant::now());
        for answer in [down(), down(), Answer::Given, down(), Answer::Unknown, down(), Answer::Given] {
            assert_eq!(breaker.ended(answer, false, now), None);
            assert_eq!(breaker.allowed(), Allowed::All);
        }
        assert_eq!(breaker.ended(down(), false, now), None);
        assert_eq!(breaker.ended(down(), false, now), None);
        assert_eq!(span(breaker.ended(down(), false, now)), 5);
        assert_eq!((breaker.allowed(), breaker.until()), (Allowed::Nothing, Some(now + 5 * SECOND)));
        // Those that ran beside it change nothing.
        for answer in [down(), Answer::Given, wait(100)] {
            assert_eq!(breaker.ended(answer, false, now), None);
        }
        assert_eq!(breaker.until(), Some(now + 5 * SECOND));
    }

    #[test]
    fn a_probe_decides_and_the_waits_grow() {
        let (mut breaker, mut now) = (Breaker::new(), Instant::now());
        assert_eq!(span(breaker.ended(wait(1), false, now)), 1, "a time of its own opens it at once");
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            assert_eq!(breaker.tick(now + SECOND / 2), None);
            now = breaker.until().expect("it is open");
            assert_eq!(breaker.tick(now), Some(Change::HalfOpened));
            assert_eq!((breaker.tick(now), breaker.allowed()), (None, Allowed::Probe));
            assert_eq!(breaker.ended(down(), false, now), None, "it began before");
            assert_eq!(breaker.ended(Answer::Unknown, true, now), None, "another probe follows");
            assert_eq!(breaker.allowed(), Allowed::Probe);
            assert_eq!(span(breaker.ended(down(), true, now)), expected);
        }
        now = breaker.until().expect("it is open");
        breaker.tick(now);
        assert_eq!(breaker.ended(Answer::Given, true, now), Some(Change::Closed));
        assert_eq!(breaker.allowed(), Allowed::All);
        assert_eq!(span(breaker.ended(wait(7200), false, now)), 300, "it begins anew, within its bounds");
    }
}
