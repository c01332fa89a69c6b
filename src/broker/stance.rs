//! How each pool serves its queue just now: the pool says it, the admin port and the heartbeat pass it on.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::job::{QueueName, Timestamp};

/// What is special about a pool; nothing of it as long as it serves its queue as the configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stance {
    /// The service behind the jobs is down, so the queue waits.
    pub outage: Option<Outage>,
    /// Of a queue whose concurrency lies between two bounds.
    pub scaled: Option<Scaled>,
}

/// The size that a queue has by its load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scaled {
    pub min: usize,
    pub max: usize,
    pub size: usize,
    pub since: Timestamp,
    /// Why it has this size; `None`: it began with it.
    pub reason: Option<String>,
    /// Why it does not grow though jobs wait.
    pub held: Option<String>,
}

/// Why a queue waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outage {
    pub since: Timestamp,
    /// Until when nothing is claimed. `None`: one job tries whether the service is back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What the last attempt was told.
    pub reason: String,
}

/// The stances of this node's pools.
#[derive(Debug, Default)]
pub(crate) struct Stances(Mutex<HashMap<QueueName, Stance>>);

impl Stances {
    /// Says something new of a pool.
    pub(crate) fn change(&self, queue: &QueueName, change: impl FnOnce(&mut Stance)) {
        change(self.lock().entry(queue.clone()).or_default());
    }

    pub(crate) fn of(&self, queue: &QueueName) -> Stance {
        self.lock().get(queue).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<QueueName, Stance>> {
        // A pool says everything anew when it starts again after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
