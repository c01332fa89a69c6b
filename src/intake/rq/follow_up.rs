//! A job that is made when one of RQ's has ended: for a callback, for a webhook.

use crate::broker::OwedJob;
use crate::config::Config;
use crate::job::{Args, Job, JobId, Origin, Priority, QueueName, TaskName, Timestamp};

/// The job, by an id that is the same however often the end of the other one is told: so it is there once.
pub(super) fn follow_up(
    owed: &OwedJob,
    suffix: &str,
    (queue, task): (&QueueName, &TaskName),
    args: Args,
    config: &Config,
    now: Timestamp,
) -> Job {
    let id = JobId::parse(&format!("{}.{}.{suffix}", owed.job.id, owed.token)).unwrap_or_else(|_| JobId::random());
    Job {
        id,
        queue: queue.clone(),
        task: task.clone(),
        // Nobody is there to refuse it to: it runs, beyond a limit too.
        buckets: config.buckets(queue, task, &args).unwrap_or_default(),
        unique: None,
        flow: None,
        args,
        origin: Origin::Api,
        enqueued_at: now,
        due: None,
        timeout: None,
        expires: config.task(task).and_then(|task| task.expiry(now)),
        retry: None,
        priority: Priority::default(),
        args_apart: None,
    }
}
