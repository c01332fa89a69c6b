//! The self-test handler: does on request what real handlers do by accident.
//!
//! Tests, benchmarks and operators use it to see a queue work, wait, fail, retry and survive a crash.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Halt, Run};
use crate::clock;
use crate::config::{ParamType, ProbeOp, ProbeStep};
use crate::job::{Failure, Timestamp};

pub(super) async fn run(step: &ProbeStep, run: &Run<'_>) -> Result<Value, Halt> {
    match step.op {
        ProbeOp::Echo => Ok(echo(run)),
        ProbeOp::Add => {
            Ok(add(["x", "y"].map(|name| run.context.args().get(name).cloned().unwrap_or_default()).to_vec())?)
        }
        ProbeOp::Sum => Ok(sum(run)?),
        ProbeOp::Sleep => Ok(sleep(run).await?),
        ProbeOp::Fail => Err(fail(run).into()),
        ProbeOp::Flaky => Ok(flaky(run)?),
        ProbeOp::Crash => Ok(crash().await?),
        ProbeOp::Snooze => Err(snooze(run)),
        ProbeOp::Noop => Ok(Value::Null),
    }
}

/// The arguments by name; those of a task that is declared with `*` and `**` as they were given.
fn echo(run: &Run<'_>) -> Value {
    let args = run.context.args();
    let star = |kind| run.params.iter().find(|param| param.kind == kind).and_then(|param| args.get(&param.name));
    match (star(ParamType::Rest), star(ParamType::Keywords)) {
        (None, None) => json!({"args": args}),
        (rest, keywords) => {
            let named = run.params.iter().filter(|param| !param.kind.is_star());
            let named = named.map(|param| args.get(&param.name).cloned().unwrap_or_default());
            let rest = rest.and_then(Value::as_array).into_iter().flatten().cloned();
            let positional: Vec<Value> = named.chain(rest).collect();
            json!({"args": positional, "kwargs": keywords.cloned().unwrap_or_else(|| json!({}))})
        }
    }
}

/// The numbers, added: whole as long as all of them are.
fn add(numbers: Vec<Value>) -> Result<Value, Failure> {
    let wrong = || Failure::never("BadArguments", "the probe adds numbers, and what it was given is no number");
    let whole: Option<i64> = numbers.iter().try_fold(0_i64, |sum, number| sum.checked_add(number.as_i64()?));
    match whole {
        Some(sum) => Ok(json!(sum)),
        None => {
            let sum: Option<f64> = numbers.iter().map(Value::as_f64).sum();
            sum.map(|sum| json!(sum)).ok_or_else(wrong)
        }
    }
}

/// Adds up the argument `numbers`.
fn sum(run: &Run<'_>) -> Result<Value, Failure> {
    match run.context.args().get("numbers") {
        Some(Value::Array(numbers)) => add(numbers.clone()),
        _ => Err(Failure::never("BadArguments", "the probe `sum` needs the argument `numbers`: a list of numbers")),
    }
}

/// Fails for the first times that a job runs, as many as the argument `failures` says.
fn flaky(run: &Run<'_>) -> Result<Value, Failure> {
    let failures = run.context.args().get("failures").and_then(Value::as_u64).unwrap_or(0);
    let job = run.context.values()["job"]["id"].as_str().unwrap_or_default().to_owned();
    let mut all = RUNS.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() >= RUNS_COUNTED && !all.contains_key(&job) {
        all.clear();
    }
    let runs = all.entry(job).or_default();
    *runs += 1;
    if *runs <= failures {
        let kind = run.context.args().get("kind").and_then(Value::as_str).unwrap_or(FAILURE);
        return Err(Failure::new(kind, format!("run {runs} of {failures} that fail")));
    }
    Ok(json!(*runs))
}

/// How often the jobs of `flaky` have run. A job of RQ that is enqueued again starts over with its attempts, so they do
/// not tell.
static RUNS: LazyLock<Mutex<HashMap<String, u64>>> = LazyLock::new(Mutex::default);
/// So many are counted at a time.
const RUNS_COUNTED: usize = 10_000;

/// All at once, as far as that makes sense: those that sleep do so together, and an echo says how many there were.
pub(super) async fn run_batch(step: &ProbeStep, runs: &[Run<'_>]) -> Vec<Result<Value, Halt>> {
    if step.op == ProbeOp::Sleep {
        let started = clock::now();
        let spans: Vec<Result<Duration, Failure>> = runs.iter().map(|run| seconds(run, "sleep")).collect();
        tokio::time::sleep(spans.iter().flatten().max().copied().unwrap_or_default()).await;
        let slept = |span: Result<Duration, Failure>| Ok(span.map(|_| since_1970(started))?);
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

/// The name of its failures.
const FAILURE: &str = "ProbeFailure";

/// Most reports of one sleep.
const REPORTS: u64 = 10_000;

/// `{"started": …}`, as Python's `time.time()` has it.
fn since_1970(started: Timestamp) -> Value {
    json!({"started": Duration::from_millis(started.as_millis()).as_secs_f64()})
}

/// Sleeps for the argument `seconds` and returns when it started. With the argument `report` = n it tells n times how far
/// it is, as progress and as a line of its log.
async fn sleep(run: &Run<'_>) -> Result<Value, Failure> {
    let started = clock::now();
    let span = seconds(run, "sleep")?;
    let reports = run.context.args().get("report").and_then(Value::as_u64).unwrap_or(0).min(REPORTS);
    let parts = u32::try_from(reports.max(1)).unwrap_or(1);
    for part in 1..=u64::from(parts) {
        tokio::time::sleep(span / parts).await;
        if reports > 0 {
            let message = format!("{part} of {reports}");
            run.notepad.progress(u8::try_from(part * 100 / reports).ok(), Some(&message));
            run.notepad.log(&format!("slept {message}"));
        }
    }
    Ok(since_1970(started))
}

/// Fails with the arguments `message` and `kind`, which may be the name of a Python exception with its module; `args` is
/// what that exception is made of instead of the message. `retry` = false makes it final.
fn fail(run: &Run<'_>) -> Failure {
    let args = run.context.args();
    let text = |name: &str, default: &str| args.get(name).and_then(Value::as_str).unwrap_or(default).to_owned();
    let (kind, message) = (text("kind", FAILURE), text("message", "the probe was told to fail"));
    let failure = match args.get("retry") {
        Some(Value::Bool(false)) => Failure::never(kind, message),
        _ => Failure::new(kind, message),
    };
    Failure { args: args.get("args").and_then(Value::as_array).map(|args| args.clone().into()), ..failure }
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
