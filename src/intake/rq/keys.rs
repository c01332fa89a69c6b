//! The names of RQ's keys (rq 2.0, `rq/job.py`, `rq/registry.py`, `rq/worker.py`).

/// HASH: the job.
pub(crate) use crate::store::rq_job as job;

/// What the keys of its queues start with.
pub(crate) const QUEUE: &str = "rq:queue:";

/// SET: the lists of all its queues, by their whole keys.
pub(crate) const QUEUES: &str = "rq:queues";

/// SET: all workers, by their whole keys.
pub(crate) const WORKERS: &str = "rq:workers";

/// STREAM: its results.
pub(crate) fn results(id: &str) -> String {
    format!("rq:results:{id}")
}

/// LIST: the ids that wait.
pub(crate) fn queue(queue: &str) -> String {
    format!("{QUEUE}{queue}")
}

/// ZSET of a queue: job id → when it is due (s).
pub(crate) fn scheduled(queue: &str) -> String {
    format!("rq:scheduled:{queue}")
}

/// STRING: the pid of who schedules the queue.
pub(crate) fn scheduler_lock(queue: &str) -> String {
    format!("rq:scheduler-lock:{queue}")
}

/// HASH: what a scheduler says of itself, by what stands in its lock (RQ from 3.0 on looks for its pid here).
pub(crate) fn scheduler(holder: u32) -> String {
    format!("rq:scheduler:{holder}")
}

/// STRING: who cleans the registries of the queue has it.
pub(crate) fn cleaning_lock(queue: &str) -> String {
    format!("rq:clean_registries:{queue}")
}

/// HASH: what a worker says of itself.
pub(crate) fn worker(name: &str) -> String {
    format!("rq:worker:{name}")
}

/// SET: what a worker runs, `JOB:EXECUTION` (RQ from 3.0 on finds its current job here).
pub(crate) fn executions_of(worker: &str) -> String {
    format!("rq:worker:{worker}:executions")
}

/// SET: the workers of a queue, by their whole keys.
pub(crate) fn workers_of(queue: &str) -> String {
    format!("rq:workers:{queue}")
}

/// Where a worker hears commands.
pub(crate) fn channel(worker: &str) -> String {
    format!("rq:pubsub:{worker}")
}
