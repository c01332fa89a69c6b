//! What a Celery client asks of a job by `revoke`, in the words that stay with the job: by them whoever answers its producer
//! knows later what happened, on any node.

use crate::job::{End, Request, Timestamp};

const REVOKED_BY: &str = "revoke of a Celery client";
const TERMINATED_BY: &str = "terminate of a Celery client";

/// What `revoke` asks of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// It shall not start.
    Revoke,
    /// It shall end, though it runs.
    Terminate(Signal),
}

/// The signal that a worker of Celery would send; ours ends the attempt in its own way and names it all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signal(&'static str, u8);

const SIGNALS: [(&str, u8); 9] = [
    ("SIGTERM", 15),
    ("SIGKILL", 9),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGHUP", 1),
    ("SIGUSR1", 10),
    ("SIGUSR2", 12),
    ("SIGABRT", 6),
    ("SIGALRM", 14),
];

impl Signal {
    /// As a client names it: `SIGKILL`, `kill`, `9`; nothing is `SIGTERM`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let name = text.trim().to_ascii_uppercase();
        let is = |(known, number): &&(&str, u8)| {
            *known == name || known.strip_prefix("SIG") == Some(&name) || number.to_string() == name
        };
        SIGNALS.iter().find(is).map(|(name, number)| Self(name, *number))
    }

    pub(super) fn number(self) -> u8 {
        self.1
    }
}

impl Default for Signal {
    fn default() -> Self {
        Self(SIGNALS[0].0, SIGNALS[0].1)
    }
}

impl Ask {
    pub(super) fn request(self, at: Timestamp) -> Request {
        match self {
            Self::Revoke => Request { at, by: REVOKED_BY.to_owned(), reason: None },
            Self::Terminate(signal) => Request { at, by: TERMINATED_BY.to_owned(), reason: Some(signal.0.to_owned()) },
        }
    }

    /// What ended an attempt that ran, if it was a client's wish to terminate it.
    pub(super) fn terminated(end: &End) -> Option<Signal> {
        let words = end.reason.as_deref().filter(|_| end.started.is_some())?;
        let signal = words.strip_prefix("cancelled by ")?.strip_prefix(TERMINATED_BY)?.strip_prefix(": ")?;
        Signal::parse(signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::State;

    #[test]
    fn signals_are_named_as_clients_name_them() {
        for text in ["SIGKILL", "kill", "9", " KILL "] {
            assert_eq!(Signal::parse(text).map(Signal::number), Some(9), "{text}");
        }
        assert_eq!(Signal::parse("SIGNONSENSE"), None);
        assert_eq!(Signal::default().number(), 15);
    }

    #[test]
    fn who_answers_knows_that_it_was_terminated() {
        let at = Timestamp::from_millis(1);
        let ended = |ask: Ask, started| End {
            state: State::Cancelled,
            at,
            started,
            node: None,
            result: serde_json::Value::Null,
            cause: None,
            reason: Some(format!("cancelled {}", ask.request(at).words())),
        };
        let kill = Ask::Terminate(Signal::parse("KILL").expect("a signal"));
        assert_eq!(Ask::terminated(&ended(kill, Some(at))).map(Signal::number), Some(9));
        assert_eq!(Ask::terminated(&ended(kill, None)), None, "it had not started");
        assert_eq!(Ask::terminated(&ended(Ask::Revoke, Some(at))), None);
    }
}
