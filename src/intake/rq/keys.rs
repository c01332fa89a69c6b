//! The names of RQ's keys (rq 2.0, `rq/job.py`, `rq/registry.py`, `rq/results.py`).

/// HASH: the job.
pub(crate) use crate::store::rq_job as job;

/// What the keys of its queues start with.
pub(crate) const QUEUE: &str = "rq:queue:";

/// SET: the lists of all its queues, by their whole keys.
pub(crate) const QUEUES: &str = "rq:queues";

/// STREAM: its results.
pub(crate) fn results(id: &str) -> String {
    format!("rq:results:{id}")
}

/// ZSET of a queue: job id → when it may be forgotten (s).
pub(crate) fn registry(what: &str, queue: &str) -> String {
    format!("rq:{what}:{queue}")
}
