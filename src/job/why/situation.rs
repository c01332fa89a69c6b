//! What bears upon one job at one instant: the values from which a cause follows.

use std::time::Duration;

use crate::job::flow::progress::Hold;
use crate::job::{Cause, FlowId, JobId, NodeId, QueueName, Request, TaskName, Timestamp, Wire};

/// Everything that bears upon one job, at one instant.
#[derive(Debug, Clone)]
pub(crate) struct Situation {
    pub now: Timestamp,
    pub spot: Spot,
    pub queue: QueueName,
    /// Unknown of a message that nobody has read yet.
    pub task: Option<TaskName>,
    /// Why Redis lets nothing run, or come in, when the guardian has found so.
    pub trouble: Option<String>,
    /// Who has paused the whole queue.
    pub pause: Option<Request>,
    /// Who has paused the job's task in it.
    pub task_pause: Option<Request>,
    /// The limit that keeps it from starting.
    pub limit: Option<Reached>,
    /// The nodes that serve the queue, living or not.
    pub nodes: Vec<ServingNode>,
    /// Jobs that stand before it in line, where it stands in one.
    pub ahead: Option<u64>,
    /// Jobs of its tenant that stand before it, where tenants take turns.
    pub turn: Option<(String, u64)>,
    /// How long jobs of the queue take, when enough of them have run lately.
    pub pace: Option<Duration>,
    /// No attempt starts after this.
    pub expires: Option<Timestamp>,
    /// Somebody has told RQ's workers to take nothing.
    pub rq_suspended: bool,
}

/// Where the job is.
#[derive(Debug, Clone)]
pub(crate) enum Spot {
    Scheduled {
        due: Timestamp,
        /// It starts then only if no other job of its unique key comes before.
        debounced: bool,
    },
    /// A job of a flow that is in no queue yet.
    Unstarted(Unstarted),
    Retry {
        due: Timestamp,
        last: Last,
    },
    Pending {
        since: Timestamp,
    },
    Message(Message),
    Active(Run),
    Completed(Ended),
    Dead {
        ended: Ended,
        cause: Option<Cause>,
        error: Option<Failed>,
        reason: Option<String>,
        attempts: u32,
    },
    Cancelled {
        ended: Ended,
        reason: Option<String>,
    },
    Purged {
        purge: Option<(String, Timestamp)>,
    },
    /// RQ's own record of it says that it stands where no queue of this configuration looks.
    Elsewhere {
        list: String,
        status: String,
    },
}

/// How the latest attempt of a waiting job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Last {
    Failed { attempt: u32, error: Failed },
    Snoozed { reason: String },
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub name: String,
    pub message: String,
}

/// A foreign message that no node has taken yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub wire: Wire,
    pub list: String,
    /// From 0: how many are taken before it.
    pub ahead: u64,
}

/// A running attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub node: NodeId,
    pub started: Timestamp,
    pub attempt: u32,
    /// Longest run, where the node that answers knows it.
    pub timeout: Option<Duration>,
    /// Until then the node need not give a further sign of life; `None`: it has said that it is gone.
    pub lease_until: Option<Timestamp>,
    pub cancel: Option<Request>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub at: Timestamp,
    pub started: Option<Timestamp>,
    pub node: Option<NodeId>,
}

/// A limit that has no room for the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Whose jobs it bounds. `None`: all of the queue.
    pub task: Option<String>,
    /// What tells them apart, and its value for this job: `user_id`, `41`.
    pub key: Option<(String, String)>,
    /// In words: `2 at once`, `20 in 1m`. `None`: the node that answers does not know it.
    pub bound: Option<String>,
    pub used: u64,
    /// What the job takes of it.
    pub points: u64,
    /// Running jobs that hold it, longest running first; nobody holds what a window counts.
    pub holders: Vec<(JobId, Timestamp)>,
    /// When its window has room again.
    pub free_at: Option<Timestamp>,
}

/// The service behind a queue's jobs, as a node has found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Down {
    pub since: Timestamp,
    /// When one job tries it again. `None`: one does so now.
    pub until: Option<Timestamp>,
    pub reason: String,
}

/// One node that has the queue in its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServingNode {
    pub node: NodeId,
    pub alive: bool,
    /// It claims nothing more.
    pub draining: bool,
    /// It claims nothing of this queue for now.
    pub down: Option<Down>,
    /// Slots that the queue has there.
    pub concurrency: usize,
    /// Who has set their number by hand.
    pub set: Option<Request>,
    /// Where their number follows the load.
    pub growth: Option<Growth>,
    /// Since when each of the queue's jobs runs there.
    pub running: Vec<Timestamp>,
    /// The bound over all queues of the node, where it has one.
    pub shared: Option<SharedSlots>,
}

/// How far the number of a queue's slots may grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Growth {
    pub max: usize,
    /// Why it does not.
    pub held: Option<String>,
}

/// A job of a flow that its flow has not put into its queue, or that has left no record there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unstarted {
    pub flow: FlowId,
    /// `None`: it is no member that waits for others, but a callback, or gone.
    pub hold: Option<Hold>,
    /// The same in words.
    pub words: String,
    /// It will never start.
    pub over: bool,
}

/// Slots that the queues of a node share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedSlots {
    pub bound: usize,
    /// What each queue uses of them; those that use none are left out.
    pub used: Vec<(QueueName, usize)>,
}
