//! From an RQ job to a job of ours, or to the reason why there is none.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::job::{DEFAULT_TIMEOUT, Lapse, Options, Refusal, RqJob, Serializer, Status};
use super::{callback, keys, webhook};
use crate::broker::{Taken, Verdict};
use crate::config::{Task, bind};
use crate::intake::desk::Desk;
use crate::intake::refused::{Refused, Why, call, unread};
use crate::job::{Backoff, Cause, FailurePattern, Job, JobId, Origin, Priority, RetryPolicy, Timestamp, Wire};

/// Reads the job's hash and decides what it becomes.
pub(crate) fn verdict(desk: &Desk<'_>, taken: &Taken, hash: &HashMap<String, Vec<u8>>) -> Verdict {
    let rq_id = String::from_utf8_lossy(&taken.element).into_owned();
    // An id without a hash: its producer's `ttl` is over, or it was deleted. RQ's own worker skips it too.
    if hash.is_empty() {
        return Verdict::Dropped;
    }
    let mut job = match RqJob::decode(&rq_id, hash, desk.limits) {
        Ok(job) => job,
        Err(refusal) => return unreadable(desk, taken, &rq_id, hash, &refusal),
    };
    if job.options.status == Some(Status::Canceled) {
        return Verdict::Dropped;
    }
    let mut note = reply_note(&job, taken);
    let unknown_callback = callback::note(&job.options, desk.config, &mut note).err();
    let task = desk.config.task_named(&job.func_name);
    let accepted = match unknown_callback {
        Some(reason) => Err(Why::new(Cause::UnknownTask, "ValueError", &reason)),
        None => accept(desk, taken, &mut job, task.map(|task| &**task), &note),
    };
    match accepted {
        Ok(job) => Verdict::Job(Box::new(job)),
        Err(why) => {
            let refused = Refused {
                wire: Wire::Rq,
                list: &taken.list,
                id: JobId::parse(&rq_id).ok(),
                task: Some(&job.func_name),
                message: call(desk.config, task.map(|task| &**task), &job.args, &job.kwargs),
                why,
                reply: note,
            };
            refused.verdict(desk.queue, desk.node, desk.now)
        }
    }
}

fn accept(desk: &Desk<'_>, taken: &Taken, job: &mut RqJob, task: Option<&Task>, note: &Value) -> Result<Job, Why> {
    let task = task.ok_or_else(|| Why::unknown_task("ValueError", &job.func_name))?;
    let id = JobId::parse(&job.id).map_err(|error| Why::unfit_id("ValueError", &error))?;
    let timeout = take_timeout(job, task);
    let args = bind(task, &job.args, job.kwargs.clone()).map_err(|error| Why::bad_arguments(&error))?;
    let buckets = desk.config.buckets(desk.queue, &task.name, &args).map_err(|error| Why::unfit_for_limit(&error))?;
    let unique = task.unique_of(&args, &desk.config.vars).map_err(|error| Why::no_key(&error))?;
    let due = unique.as_ref().and_then(|unique| unique.rule.wait()).map(|wait| desk.now.after(wait));
    Ok(Job {
        id,
        queue: desk.queue.clone(),
        task: task.name.clone(),
        buckets,
        unique,
        args,
        origin: Origin::Wire { wire: Wire::Rq, list: taken.list.clone(), reply: note.clone() },
        enqueued_at: desk.now,
        due,
        timeout,
        expires: task.expiry(due.or_else(|| enqueued(&job.options)).unwrap_or(desk.now)),
        retry: retry(&job.options, never(desk, task)),
        priority: Priority::default(),
        args_apart: None,
        flow: None,
    })
}

fn unreadable(
    desk: &Desk<'_>,
    taken: &Taken,
    rq_id: &str,
    hash: &HashMap<String, Vec<u8>>,
    refusal: &Refusal,
) -> Verdict {
    let refused = Refused {
        wire: Wire::Rq,
        list: &taken.list,
        id: JobId::parse(rq_id).ok(),
        task: None,
        message: hash.get("data").map_or(Value::Null, |data| unread(desk.config, None, data)),
        why: Why::new(Cause::Unreadable, refusal.class, &refusal.reason),
        reply: json!({
            "id": rq_id,
            "origin": queue_of(taken),
            "failure_ttl": refusal.failure_ttl.map(Lapse::seconds),
            // Whatever cannot be read, the place is given back.
            "rate_limit": hash.get("rate_limit_key").and_then(|key| std::str::from_utf8(key).ok()),
        }),
    };
    refused.verdict(desk.queue, desk.node, desk.now)
}

/// How long the job may run, when its producer has said so.
///
/// `enqueue(f, timeout=300)` was RQ's way before 1.0; RQ 2 hands that `timeout` to the function, which fails. Unless
/// the task has a parameter of that name it is what its author meant: the job's timeout. And 180 s is what RQ 2
/// writes when the producer says nothing: then the configuration decides.
fn take_timeout(job: &mut RqJob, task: &Task) -> Option<Duration> {
    let declared = task.params.iter().any(|param| param.name == "timeout");
    let stray = if declared { None } else { job.stray_timeout() };
    if stray.is_some() {
        job.kwargs.remove("timeout");
    }
    let said = stray.or(job.options.timeout.filter(|lapse| *lapse != Lapse::After(DEFAULT_TIMEOUT)));
    match said? {
        Lapse::After(span) => Some(span).filter(|span| *span > Duration::ZERO),
        Lapse::Never => Some(WITHOUT_END),
    }
}

/// RQ's "no timeout": a year.
const WITHOUT_END: Duration = Duration::from_secs(365 * 86_400);
/// No retry of RQ's waits longer than its own longest interval; this only bounds nonsense.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(365 * 86_400);

/// How often and when, its producer says; what must not be tried again, the operator.
fn retry(options: &Options, never: &[FailurePattern]) -> Option<RetryPolicy> {
    let limit = options.retries_left?;
    let delays =
        if options.retry_intervals.is_empty() { vec![Duration::ZERO] } else { options.retry_intervals.clone() };
    Some(RetryPolicy {
        limit,
        backoff: Backoff::List { delays },
        max_delay: MAX_RETRY_DELAY,
        jitter: 0.0,
        span: None,
        never: never.to_vec(),
    })
}

fn never<'a>(desk: &Desk<'a>, task: &'a Task) -> &'a [FailurePattern] {
    let policy = task.retry.as_ref().or_else(|| desk.config.queues.get(desk.queue).map(|queue| &queue.retry));
    policy.map_or(&[], |policy| &policy.never)
}

/// When its producer put it into the queue.
fn enqueued(options: &Options) -> Option<Timestamp> {
    let at = options.enqueued_at.or(options.created_at)?;
    Some(Timestamp::from_millis(u64::try_from(at.timestamp_millis()).unwrap_or(0)))
}

/// What the answer needs later: see [`super::answer`]. It stands in every record, so what is not there is left out.
fn reply_note(job: &RqJob, taken: &Taken) -> Value {
    let mut note = json!({
        "id": job.id,
        "origin": job.options.origin.as_deref().unwrap_or_else(|| queue_of(taken)),
    });
    if job.serializer == Serializer::Json {
        note["json"] = true.into();
    }
    if let Some(lapse) = job.options.result_ttl {
        note["result_ttl"] = lapse.seconds().into();
    }
    if let Some(lapse) = job.options.failure_ttl {
        note["failure_ttl"] = lapse.seconds().into();
    }
    if let Some(key) = &job.options.rate_limit {
        note["rate_limit"] = key.as_str().into();
    }
    webhook::note(job, &mut note);
    note
}

fn queue_of(taken: &Taken) -> &str {
    taken.list.strip_prefix(keys::QUEUE).unwrap_or(&taken.list)
}
