//! What has happened to a job since it was enqueued: the part of its record that changes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{NodeId, State, Timestamp};

/// Failed and interrupted attempts that are kept word for word; older ones are only counted.
const MISHAPS_KEPT: usize = 10;

/// A job's past. A job that has not ended an attempt yet has the empty one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct History {
    /// Attempts that failed or timed out: these count against the retry limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// Attempts whose process died: these count against the crash limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub crashes: u32,
    /// Attempts that we ended ourselves: these count against nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interruptions: u32,
    /// Attempts that ended with "not now, later": these count against the limit of snoozes only.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub snoozes: u32,
    /// The latest of the snoozes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snooze: Option<Snooze>,
    /// Start of the first attempt that was not merely interrupted, once there is a further one to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_started: Option<Timestamp>,
    /// Results of the steps that are done; the next attempt goes on behind them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Value>,
    /// What the step after them remembers of itself, when a part of it is done: to whom it has delivered already.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub partial: Value,
    /// The latest attempts that did not succeed, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mishaps: Vec<Mishap>,
    /// Present once the job is completed, dead or cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// An attempt that put its job off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Snooze {
    pub at: Timestamp,
    pub reason: String,
}

/// One attempt that did not succeed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mishap {
    pub at: Timestamp,
    pub attempt: u32,
    pub node: NodeId,
    pub kind: MishapKind,
    /// The failure's name, in the form of an exception class.
    pub name: String,
    pub message: String,
    /// What an exception of Python's is made of, where that is not just the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MishapKind {
    Failed,
    TimedOut,
    Crashed,
    Interrupted,
    Cancelled,
    /// It did not start.
    Expired,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct End {
    pub state: State,
    pub at: Timestamp,
    /// Start of the last attempt; `None` when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// The result of a completed job.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub result: Value,
    /// Why a dead job is dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Why there is no further attempt, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why a job is dead, as one word for machines; the mishaps hold the sentences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cause {
    /// Its last permitted attempt failed, or the next one would come too late.
    RetriesExhausted,
    /// It failed in a way that another attempt cannot cure.
    NotRetryable,
    /// The process died under it as often as the queue allows.
    CrashLoop,
    /// It was put off more often or for longer than a job may be.
    SnoozeLimit,
    /// The message could not be read.
    Unreadable,
    /// No task of the configuration has this name.
    UnknownTask,
    /// Arguments are missing, too many or of the wrong type.
    BadArguments,
    /// Its time was over before it could start.
    Expired,
}

impl History {
    /// The number of the attempt that comes next, from 1. Interrupted ones are not counted.
    pub(crate) fn next_attempt(&self) -> u32 {
        1 + self.failures + self.crashes
    }

    /// Nothing is done: the next attempt, if there is one, begins at the beginning.
    pub(crate) fn forget_steps(&mut self) {
        self.steps.clear();
        self.partial = Value::Null;
    }

    /// The snooze, if that is how the latest attempt ended.
    pub(crate) fn snoozed_last(&self) -> Option<&Snooze> {
        let snooze = self.snooze.as_ref()?;
        let mishap = self.mishaps.last();
        (self.end.is_none() && mishap.is_none_or(|mishap| mishap.at < snooze.at)).then_some(snooze)
    }

    /// Adds a mishap, dropping the oldest beyond the bound.
    pub(crate) fn note(&mut self, mishap: Mishap) {
        self.mishaps.push(mishap);
        let surplus = self.mishaps.len().saturating_sub(MISHAPS_KEPT);
        self.mishaps.drain(..surplus);
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}
