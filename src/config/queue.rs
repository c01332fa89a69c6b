//! `[queues.NAME]`: what one queue reads, how much of it runs at once, and what becomes of its jobs.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Limits;
use crate::job::{QueueName, RetryPolicy, Wire};

/// One queue of this node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Queue {
    pub name: QueueName,
    /// The foreign lists it reads, in this order of preference: the wire and the queue name its producers use.
    pub lists: Vec<(Wire, String)>,
    /// Attempts of this queue that run at the same time on this node.
    pub concurrency: Concurrency,
    /// Longest run of one attempt, unless the task or the job says otherwise.
    pub timeout: Duration,
    pub retry: RetryPolicy,
    /// Crashes after which a job is dead.
    pub crash_limit: u32,
    pub keep_completed: Retention,
    pub keep_dead: Retention,
    /// For its tasks that can do many jobs at once.
    pub batch: Option<Batch>,
    /// Its part of the node's slots, when the node has a bound; or its rank, when its order is strict. 1 to 100.
    pub weight: u64,
    /// A waiting job rises by one step of priority in this time.
    pub ageing: Duration,
    /// What its jobs are held to, over all nodes.
    pub limits: Limits,
}

/// How many jobs a handler gets at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    /// 2 to 500.
    pub max: usize,
    /// How long the first one waits for others.
    pub wait: Duration,
}

/// A number of slots, or the bounds of one that follows the load: each one of [`Concurrency::SLOTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Concurrency {
    pub min: usize,
    pub max: usize,
}

impl Concurrency {
    pub(crate) const SLOTS: RangeInclusive<u16> = 1..=10_000;

    pub(crate) fn fixed(slots: usize) -> Self {
        Self { min: slots, max: slots }
    }

    pub(crate) fn is_fixed(self) -> bool {
        self.min == self.max
    }
}

impl fmt::Display for Concurrency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_fixed() { write!(f, "{}", self.max) } else { write!(f, "{} to {}", self.min, self.max) }
    }
}

impl Queue {
    /// The usual `ageing`.
    pub(crate) const AGEING: Duration = Duration::from_secs(60);
}

/// How long and how many ended jobs stay readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention {
    pub age: Duration,
    pub count: usize,
    /// Records, histories and arguments together.
    pub bytes: u64,
}
