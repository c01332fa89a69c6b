//! The self-test handler: does on request what real handlers do by accident.
//!
//! Tests, benchmarks and operators use it to see a queue work, wait, fail, retry and survive a crash.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Halt, Run};
use crate::clock;
use crate::config::{ProbeOp, ProbeStep};
use crate::job::Failure;

pub(super) async fn run(step: &ProbeStep, run: &Run<'_>) -> Result<Value, Halt> {
    match step.op {
        ProbeOp::Echo => Ok(json!({"args": run.context.args()})),
        ProbeOp::Sleep => Ok(sleep(run).await?),
        ProbeOp::Fail => Err(fail(run).into()),
        ProbeOp::Crash => Ok(crash().await?),
        ProbeOp::Snooze => Err(snooze(run)),
        ProbeOp::Noop => Ok(Value::Null),
    }
}

/// All at once, as far as that makes sense: those that sleep do so together, and an echo says how many there were.
pub(super) async fn run_batch(step: &ProbeStep, runs: &[Run<'_>]) -> Vec<Result<Value, Halt>> {
    if step.op == ProbeOp::Sleep {
        let started = clock::now();
        let spans: Vec<Result<Duration, Failure>> = runs.iter().map(|run| seconds(run, "sleep")).collect();
        tokio::time::sleep(spans.iter().flatten().max().copied().unwrap_or_default()).await;
        let slept = |span: Result<Duration, Failure>| Ok(span.map(|_| json!({"started": started.to_string()}))?);
        return spans.into_iter().map(slept).collect();
    }
    let mut results = Vec::with_capacity(runs.len());
    for one in runs {
        let result = run(step, one).await.map(|mut result| {
            if step.op == ProbeOp::Echo {
                result["batch"] = json!(runs.len());
            }
            result
        });
        results.push(result);
    }
    results
}

/// Sleeps for the argument `seconds` and returns `{"started": …}`.
async fn sleep(run: &Run<'_>) -> Result<Value, Failure> {
    let started = clock::now();
    let span = seconds(run, "sleep")?;
    tokio::time::sleep(span).await;
    Ok(json!({"started": started.to_string()}))
}

/// Fails with the arguments `message` and `kind`; `retry` = false makes it final.
fn fail(run: &Run<'_>) -> Failure {
    let args = run.context.args();
    let text = |name: &str, default: &str| args.get(name).and_then(Value::as_str).unwrap_or(default).to_owned();
    let (kind, message) = (text("kind", "ProbeFailure"), text("message", "the probe was told to fail"));
    match args.get("retry") {
        Some(Value::Bool(false)) => Failure::never(kind, message),
        _ => Failure::new(kind, message),
    }
}

/// Puts the job off for the argument `seconds`, if there is one, with the argument `reason`.
fn snooze(run: &Run<'_>) -> Halt {
    let args = run.context.args();
    let reason = args.get("reason").and_then(Value::as_str).unwrap_or("the probe was told to wait").to_owned();
    match args.get("seconds").filter(|seconds| !seconds.is_null()) {
        None => Halt::Snoozed { delay: None, reason },
        Some(_) => match seconds(run, "snooze") {
            Ok(delay) => Halt::Snoozed { delay: Some(delay), reason },
            Err(failure) => failure.into(),
        },
    }
}

/// The argument `seconds` of the probe `op`.
fn seconds(run: &Run<'_>, op: &str) -> Result<Duration, Failure> {
    let seconds = run.context.args().get("seconds").and_then(Value::as_f64);
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(|| {
        Failure::never("BadArguments", format!("the probe `{op}` needs the argument `seconds`: a number, 0 or more"))
    })
}

/// Ends this process as the kernel ends one that is out of memory: at once, without a last word.
async fn crash() -> Result<Value, Failure> {
    tracing::warn!("the probe `crash` was asked for: this process kills itself now");
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .map_err(|error| Failure::new("ProbeFailure", format!("failed to kill this process: {error}")))?;
    std::future::pending().await
}
