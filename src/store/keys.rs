//! The names of all keys, ours and the foreign ones we read. Built nowhere else.
//!
//! Keys of ours carry the queue in a hash tag, `jobsd:{emails}:pending`, so everything that one transition of a queue
//! touches lies in one slot of a Redis Cluster.

use crate::job::{FlowId, QueueName, Wire};

/// Builds key names under one prefix.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
}

/// The keys of one queue.
#[derive(Debug, Clone)]
pub(crate) struct QueueKeys {
    /// HASH: job id → the job (JSON, see [`crate::job::Job`]). Every job that exists is in it.
    pub jobs: String,
    /// HASH: job id → its history (JSON, see [`crate::job::History`]). Absent until something has happened.
    pub history: String,
    /// HASH: job id → its arguments (JSON), of jobs whose arguments are too large to stand in the record.
    pub large: String,
    /// HASH: job id → what it has said of itself while it ran (JSON, see [`crate::job::Notes`]). Absent until it says something.
    pub notes: String,
    /// ZSET: job id → its place in line (since when it waits, moved by its priority). Claimed from the front.
    pub pending: String,
    /// ZSET: job id → when it is due, with its priority in the fraction: jobs that were enqueued for later.
    pub scheduled: String,
    /// ZSET: job id → the same: jobs whose last attempt failed.
    pub retry: String,
    /// ZSET: job id → the score it has in `pending`: pending jobs that are out of the way of the others, because something
    /// holds them (see `broker/scripts/lib/lines.lua`). The ZSET `held/NAME` is the line of those that one thing holds; it may
    /// also hold jobs that have gone another way since.
    pub held: String,
    /// ZSET: name of a line → when it is to be looked at (ms). `*` stands for the queue itself, while it has no room.
    pub lines: String,
    /// ZSET: line of a tenant → its turn: who has the least is next.
    pub turns: String,
    /// HASH: bucket of a limit → points in use: what all holders in `active` have drawn from it, together.
    pub used: String,
    /// HASH: `clock`: when last something was counted in a window; and since when that was right, if it once was wrong.
    /// Beside it, for each length of a window and each era (see `broker/scripts/lib/windows.lua`), stand the HASH
    /// `starts/MS/ERA`: bucket → points that started in the era, and the HASHes `starts/MS/ERA/BUCKET`: the same by quanta.
    pub starts: String,
    /// HASH: job id → `token node started draw…`: who runs it, by which claim, since when (ms), and what it draws from
    /// which bucket, as `BUCKET` for a point or `BUCKET=points`.
    pub active: String,
    /// ZSET: job id → when it ended (ms). One for each way to end.
    pub completed: String,
    pub dead: String,
    pub cancelled: String,
    /// ZSET: node id → end of its lease (ms).
    pub leases: String,
    /// HASH: counters that outlive the process: `completed`, `failed`, `dead`, `crashed`, … and `token`, the last
    /// fencing token given out.
    pub counters: String,
    /// HASH: `node/number NUL list` → element: foreign messages taken and not yet admitted.
    pub inflight: String,
    /// HASH: job id → token of the settle: jobs whose foreign side is not up to date yet.
    pub outbox: String,
    /// HASH: schedule name → its last fire (ms).
    pub fires: String,
    /// HASH: task, or `''` for the whole queue → who paused it, when and why (JSON). Absent: nothing is paused.
    pub pauses: String,
    /// HASH: job id → who asked for it to be cancelled while it ran, when and why (JSON).
    pub cancels: String,
    /// HASH: unique key, with its task → who holds it (see `broker/scripts/lib/unique.lua`). An entry says who took the key
    /// last; whether he still holds it is found out by who asks.
    pub unique: String,
    /// ZSET: purge id → when its jobs are deleted for good (ms). What was purged stands in the keys `trash/ID/…`, which
    /// the HASH `trash/ID/manifest` lists.
    pub trash: String,
    /// LIST: what jobs have to tell their flows, oldest first (JSON, see [`crate::job::flow::Word`]).
    pub words: String,
}

/// The keys of one flow.
#[derive(Debug, Clone)]
pub(crate) struct FlowKeys {
    /// HASH, never changed: `''` → the outline and `h` → the heading (JSON, see [`crate::job::flow`]), `d/NAME` → the job before its
    /// turn (JSON, see [`crate::job::flow::Draft`]), `>/NAME` and `~/NAME` → those that follow it once it is completed, or
    /// once it has ended. Joins are called `+N`.
    pub plan: String,
    /// HASH: `s/NAME` → how the job or join stands (`r` it may start or has, `c` completed, `d` dead, `x` cancelled;
    /// absent: it waits), `w/NAME` → how many it still waits for, `a/NAME` → those that follow its end were told of it,
    /// `r/NAME` → its result (JSON), where a later job refers to it, `e/NAME` → the name of what it died of; the counts
    /// `total`, `completed`, `dead`, `cancelled`, `live` (started and not ended) of the members and `calls`, the live
    /// callbacks; `died` once a job has; `cancel` → who cancelled the flow (JSON).
    pub state: String,
    /// SET: ids of jobs that may start and have not been put into their queues.
    pub ready: String,
}

/// The keys of all flows together.
#[derive(Debug, Clone)]
pub(crate) struct FlowsKeys {
    /// ZSET: flow id → when it was submitted (ms).
    pub all: String,
    /// SET: flows that have ready jobs, or were cancelled and have jobs to cancel.
    pub due: String,
    /// ZSET: flow id → when its last job ended (ms), of flows that are completed; and of those that came to rest otherwise.
    pub completed: String,
    pub stopped: String,
}

/// A foreign list and how elements are taken from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForeignList {
    pub wire: Wire,
    /// The queue name that its producers use.
    pub name: String,
    /// The Redis lists behind it, in the order in which they are served.
    pub keys: Vec<String>,
}

impl QueueKeys {
    /// ZSET: the line of the jobs that one thing holds.
    pub(crate) fn line(&self, name: &str) -> String {
        format!("{}/{name}", self.held)
    }

    /// HASH: quantum → points of a bucket that started in it, in one era of a window of this length.
    pub(crate) fn quanta(&self, millis: u64, era: u64, bucket: &str) -> String {
        format!("{}/{millis}/{era}/{bucket}", self.starts)
    }

    /// HASH: what a purge took, key by key (see `broker/scripts/purge.lua`).
    pub(crate) fn manifest_of(&self, purge: &str) -> String {
        self.trash_of(purge, "manifest")
    }

    /// What a purge took out of the key called `what`, under that name.
    pub(crate) fn trash_of(&self, purge: &str, what: &str) -> String {
        format!("{}/{purge}/{what}", self.trash)
    }
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// HASH: node id → what the node says of itself (JSON, see [`crate::broker::NodeCard`]).
    pub(crate) fn nodes(&self) -> String {
        format!("{}:nodes", self.prefix)
    }

    /// HASH: node id → an order that the node has to follow: `drain`.
    pub(crate) fn orders(&self) -> String {
        format!("{}:orders", self.prefix)
    }

    pub(crate) fn flow(&self, flow: &FlowId) -> FlowKeys {
        let key = |what: &str| format!("{}:{{flow:{flow}}}:{what}", self.prefix);
        FlowKeys { plan: key("plan"), state: key("state"), ready: key("ready") }
    }

    pub(crate) fn flows(&self) -> FlowsKeys {
        let key = |what: &str| format!("{}:flows{what}", self.prefix);
        FlowsKeys { all: key(""), due: key(":due"), completed: key(":completed"), stopped: key(":stopped") }
    }

    pub(crate) fn queue(&self, queue: &QueueName) -> QueueKeys {
        let key = |what: &str| format!("{}:{{{queue}}}:{what}", self.prefix);
        QueueKeys {
            jobs: key("jobs"),
            history: key("history"),
            large: key("large"),
            notes: key("notes"),
            pending: key("pending"),
            scheduled: key("scheduled"),
            retry: key("retry"),
            held: key("held"),
            lines: key("lines"),
            turns: key("turns"),
            used: key("used"),
            starts: key("starts"),
            active: key("active"),
            completed: key("completed"),
            dead: key("dead"),
            cancelled: key("cancelled"),
            leases: key("leases"),
            counters: key("counters"),
            inflight: key("inflight"),
            outbox: key("outbox"),
            fires: key("fires"),
            pauses: key("pauses"),
            cancels: key("cancels"),
            unique: key("unique"),
            trash: key("trash"),
            words: key("words"),
        }
    }
}

/// HASH: RQ's own record of a job (rq 2.0, `rq/job.py`).
pub(crate) fn rq_job(id: &str) -> String {
    format!("rq:job:{id}")
}

/// What all keys of RQ begin with (rq 2.0, `rq/job.py`, `rq/registry.py`).
pub(crate) const RQ_BASE: &str = "rq:";
/// What RQ's clients see as the id of every execution of ours. One job of ours runs once at a time, so one name is
/// enough; and whoever takes a job over knows what the node before it has shown.
pub(crate) const RQ_EXECUTION: &str = "jobsd";

/// STRING: while it exists RQ's workers take no jobs (`rq suspend`).
pub(crate) const RQ_SUSPENDED: &str = "rq:suspended";

/// What kombu puts between a list's name and its priority step (kombu 5.4, `transport/redis.py`, `sep`).
const KOMBU_SEPARATOR: &str = "\u{6}\u{16}";
/// kombu's default priority steps. On Redis 0 is served first, and the step 0 is the bare list.
const KOMBU_STEPS: [u8; 3] = [3, 6, 9];

/// The list of a Celery queue where messages of this priority stand; what is out of range counts as the nearest.
pub(crate) fn celery_list(queue: &str, priority: i64) -> String {
    match KOMBU_STEPS.iter().rev().find(|step| i64::from(**step) <= priority) {
        Some(step) => format!("{queue}{KOMBU_SEPARATOR}{step}"),
        None => queue.to_owned(),
    }
}

impl ForeignList {
    pub(crate) fn new(wire: Wire, name: &str) -> Self {
        let keys = match wire {
            Wire::Celery => std::iter::once(name.to_owned())
                .chain(KOMBU_STEPS.iter().map(|step| format!("{name}{KOMBU_SEPARATOR}{step}")))
                .collect(),
            Wire::Rq => vec![format!("rq:queue:{name}")],
        };
        Self { wire, name: name.to_owned(), keys }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_tagged_by_queue() {
        let queue = QueueName::parse("emails").expect("a valid name");
        assert_eq!(Keys::new("jobsd").queue(&queue).pending, "jobsd:{emails}:pending");
    }

    #[test]
    fn a_celery_queue_is_four_lists_with_the_most_urgent_first() {
        assert_eq!(
            ForeignList::new(Wire::Celery, "emails").keys,
            ["emails", "emails\u{6}\u{16}3", "emails\u{6}\u{16}6", "emails\u{6}\u{16}9"]
        );
        assert_eq!(ForeignList::new(Wire::Rq, "analytics").keys, ["rq:queue:analytics"]);
        let list = |priority| celery_list("emails", priority);
        assert_eq!([list(-1), list(0), list(2)], ["emails", "emails", "emails"]);
        assert_eq!([list(3), list(8), list(99)], ["emails\u{6}\u{16}3", "emails\u{6}\u{16}6", "emails\u{6}\u{16}9"]);
    }
}
