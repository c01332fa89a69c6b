//! The `exec` handler: one program of the operator's, without a shell.
//!
//! The program reads `{"id", "task", "queue", "attempt", "args"}` on stdin and answers on stdout, as JSON or text. Exit
//! codes follow `sysexits.h` where they say something about a further run: 0 done, 75 not now but later, 65 never again;
//! any other as the retry policy says.
//!
//! It runs under a [`guard`], which leaves nothing of it behind, and holds a [`lock`] until then.
//!
//! 75 puts the job off and costs no attempt. The last line of stdout may say for how long and why:
//! `{"retry_after": 90}` in seconds or `{"retry_after": "1h 30m"}`, and `"reason"`. Without it the wait is that of the
//! retry policy, and the reason is the program's last words.
//!
//! While it runs, whatever it writes can be read as the job's log. A line of stdout that is an object with the one key
//! `jobsd` is meant for us: `{"jobsd": {"progress": 40, "message": "…"}}`, percent and what it does now, one of them or
//! both. It is taken out of the output, so it is no part of the result, of which any other line is one.

mod guard;
mod lock;

use std::ffi::OsString;
use std::io::{PipeReader, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::{Value, json};

use super::child::{self, ChildError, Finished, Keep, Program};
use super::lines::Heard;
use super::{Halt, Notepad, Run};
use crate::config::{ExecStep, RenderError};
use crate::job::{Failure, Source};

pub(crate) use guard::guard_if_told;
use guard::{Order, Report};
pub(crate) use lock::until_guards_have_ended;

/// Bytes of stdout that a result holds.
const MAX_RESULT: usize = 256 * 1024;
/// Bytes of stderr that a failure holds, the last ones.
const MAX_STDERR: usize = 8 * 1024;
/// Characters of the reason for which a program puts its job off.
const MAX_REASON: usize = 500;
/// What the program sees of the daemon's environment in any case.
const ENV: [&str; 2] = ["PATH", "LANG"];

/// This very executable, also when the file has been replaced meanwhile.
const OURSELVES: &str = "/proc/self/exe";
/// Bytes of a guard's report.
const MAX_REPORT: u64 = 4096;

const EX_DATAERR: i32 = 65;
const EX_TEMPFAIL: i32 = 75;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExecError {
    #[error("{0}")]
    Render(#[from] RenderError),
    #[error("{0}")]
    Child(#[from] ChildError),
    #[error("start {}: {reason}{}", program.display(), if *.other_user { "; only root may become another user" } else { "" })]
    Start { program: PathBuf, reason: std::io::Error, other_user: bool },
    #[error("start {}: {reason} (the file exec.lock in the state folder)", program.display())]
    Lock { program: PathBuf, reason: std::io::Error },
    #[error("run {}: an argument holds a NUL character", .0.display())]
    Nul(PathBuf),
    #[error(
        "run {}: what the job gives for the argument `{argument}` begins with `-`, and would be an option; put \"--\" before \
         it, or set `allow_options`",
        program.display()
    )]
    Option { program: PathBuf, argument: String },
    #[error("run {}: its answer is longer than {} KiB", .0.display(), MAX_RESULT / 1024)]
    TooLong(PathBuf),
    #[error("{reason}")]
    Snooze { delay: Option<Duration>, reason: String },
    #[error("run {}: it {}{}", program.display(), how_it_ended(.status), .used)]
    Failed { program: PathBuf, status: ExitStatus, used: String, stderr: String },
}

/// Returns what the program wrote: JSON where it is, else the text, null where it wrote nothing.
pub(super) async fn run(step: &ExecStep, run: &Run<'_>, state_dir: &Path) -> Result<Value, ExecError> {
    let (reports, report) = std::io::pipe().map_err(|reason| start_error(step, reason))?;
    let lock = lock::hold(state_dir).map_err(|reason| ExecError::Lock { program: step.program.clone(), reason })?;
    let order = Order { report: report.as_raw_fd(), lock: lock.as_raw_fd(), ..Order::new(step.user, &step.limits) };
    let hear = |source, line: &[u8], beyond| hear(run.notepad, source, line, beyond);
    let finished = child::run_guard(program(step, run, &order)?, vec![report.into(), lock.into()], &hear).await?;
    let (status, peak) = match read(reports) {
        Some(Report::NotStarted { errno }) => {
            return Err(start_error(step, std::io::Error::from_raw_os_error(errno)));
        }
        Some(Report::Ended { status, peak }) => (ExitStatus::from_raw(status), peak),
        // Somebody has killed the guard.
        None => (finished.status, 0),
    };
    if status.code() == Some(EX_TEMPFAIL) {
        return Err(put_off(&finished));
    }
    if !status.success() {
        return Err(ExecError::Failed {
            program: step.program.clone(),
            status,
            used: used(step, status, peak),
            stderr: finished.stderr.text(),
        });
    }
    if finished.stdout.cut {
        return Err(ExecError::TooLong(step.program.clone()));
    }
    Ok(answer(&finished))
}

/// A line of the program, as it comes: progress, or a line of the log.
fn hear(notepad: &Notepad, source: Source, line: &[u8], beyond: u64) -> Heard {
    match (source, progress(line)) {
        (Source::Stdout, Some((percent, message))) if beyond == 0 => {
            notepad.progress(percent, message.as_deref());
            Heard::Taken
        }
        _ => {
            notepad.output(source, line, beyond);
            Heard::Kept
        }
    }
}

/// What a line that is meant for us says; any other line is the program's own.
fn progress(line: &[u8]) -> Option<(Option<u8>, Option<String>)> {
    // The cheap look first: a program may write a lot.
    if line.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let Value::Object(said) = serde_json::from_slice(line).ok()? else { return None };
    let ours = said.get("jobsd").filter(|_| said.len() == 1)?.as_object()?;
    let is_ours = ours.keys().all(|key| matches!(key.as_str(), "progress" | "message"));
    let message = match ours.get("message") {
        None | Some(Value::Null) => None,
        Some(message) => Some(message.as_str()?.to_owned()),
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies between 0 and 100")]
    let percent = match ours.get("progress") {
        None | Some(Value::Null) => None,
        Some(percent) => Some(percent.as_f64().filter(|percent| (0.0..=100.0).contains(percent))? as u8),
    };
    (is_ours && (percent.is_some() || message.is_some())).then_some((percent, message))
}

fn start_error(step: &ExecStep, reason: std::io::Error) -> ExecError {
    let other_user = step.user.is_some() && reason.kind() == std::io::ErrorKind::PermissionDenied;
    ExecError::Start { program: step.program.clone(), reason, other_user }
}

/// Everything that writes the report has ended, so this does not wait.
fn read(reports: PipeReader) -> Option<Report> {
    let mut text = Vec::new();
    reports.take(MAX_REPORT).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The guard, and what it guards.
fn program(step: &ExecStep, run: &Run<'_>, order: &Order) -> Result<Program, ExecError> {
    let order = serde_json::to_string(order).expect("numbers can be written as JSON");
    let mut args = vec![guard::VERB.to_owned(), order, step.program.to_string_lossy().into_owned()];
    args.extend(arguments(step, run)?);
    let job = json!({
        "id": run.job.id,
        "task": run.job.task,
        "queue": run.job.queue,
        "attempt": run.attempt,
        "args": run.context.args(),
    });
    Ok(Program {
        path: OURSELVES.into(),
        args,
        env: environment(step, run),
        dir: step.dir.clone(),
        stdin: job.to_string().into_bytes(),
        stdout: Keep::First(MAX_RESULT),
        stderr: Keep::Last(MAX_STDERR),
    })
}

/// Each is one argument, whatever stands in it. One that a stranger makes an option is refused: `--rsh=…` starts programs.
fn arguments(step: &ExecStep, run: &Run<'_>) -> Result<Vec<String>, ExecError> {
    let values = run.context.values();
    let mut args = Vec::new();
    let mut options_are_over = step.allow_options;
    for template in &step.args {
        let arg = template.render(values)?;
        if arg.contains('\0') {
            return Err(ExecError::Nul(step.program.clone()));
        }
        let own = template.source().starts_with('-') || arg.parse::<f64>().is_ok();
        if arg.starts_with('-') && !own && !options_are_over {
            return Err(ExecError::Option { program: step.program.clone(), argument: template.source().to_owned() });
        }
        options_are_over |= template.source() == "--";
        args.push(arg);
    }
    Ok(args)
}

fn environment(step: &ExecStep, run: &Run<'_>) -> Vec<(OsString, OsString)> {
    let allowed = ENV.into_iter().chain(step.env.iter().map(String::as_str));
    let inherited = allowed.filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
    let own = [("JOBSD_JOB_ID", run.job.id.to_string()), ("JOBSD_ATTEMPT", run.attempt.to_string())];
    inherited.chain(own.map(|(name, value)| (name.into(), value.into()))).collect()
}

fn answer(finished: &Finished) -> Value {
    let text = finished.stdout.text();
    match text.trim() {
        "" => Value::Null,
        text => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
    }
}

/// What a program that ended with 75 says of it.
fn put_off(finished: &Finished) -> ExecError {
    let said = last_object(&finished.stdout.text());
    let asked = said.get("retry_after");
    let delay = asked.and_then(span);
    let reason = match said.get("reason").and_then(Value::as_str) {
        Some(reason) => shortened(reason),
        None if asked.is_some() => last_words(&finished.stderr.text()),
        None => last_words(&format!("{}\n{}", finished.stdout.text(), finished.stderr.text())),
    };
    let reason = match asked {
        Some(asked) if delay.is_none() => {
            let asked = shortened(&asked.to_string());
            format!("{reason} (its `retry_after` is {asked}, which is neither seconds nor a duration such as \"5m\")")
        }
        _ => reason,
    };
    ExecError::Snooze { delay, reason }
}

/// The output as one object, or its last line as one: what stands above may be the program's progress.
fn last_object(output: &str) -> Value {
    let read = |text: &str| serde_json::from_str(text).ok().filter(Value::is_object);
    let line = || output.lines().rfind(|line| !line.trim().is_empty());
    read(output).or_else(|| read(line()?)).unwrap_or_default()
}

/// Seconds, or a duration as people write it.
fn span(asked: &Value) -> Option<Duration> {
    match asked {
        Value::Number(seconds) => Duration::try_from_secs_f64(seconds.as_f64()?).ok(),
        Value::String(text) => humantime::parse_duration(text).ok(),
        _ => None,
    }
}

/// The last line that is not blank.
fn last_words(output: &str) -> String {
    match output.lines().map(str::trim).rfind(|line| !line.is_empty()) {
        Some(line) => shortened(line),
        None => "the program asked to be run later (exit code 75)".to_owned(),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_REASON).collect()
}

/// What it used, where that may be why it ended.
fn used(step: &ExecStep, status: ExitStatus, peak: u64) -> String {
    let mebibytes = |kib: u64| kib / 1024;
    if let (Some(libc::SIGXCPU), Some(cpu)) = (status.signal(), step.limits.cpu) {
        return format!("; it had used up its {} of processor time", humantime::format_duration(cpu));
    }
    match step.limits.memory.map(|bytes| bytes / 1024) {
        Some(limit) if peak >= limit / 2 => format!(
            "; its largest process held {} MiB, and none may hold more than {} MiB",
            mebibytes(peak),
            mebibytes(limit)
        ),
        // Not by us: a job that is stopped is not reported.
        _ if status.signal() == Some(libc::SIGKILL) => format!(
            "; if nobody did that, the machine was out of memory: its largest process held {} MiB",
            mebibytes(peak)
        ),
        _ => String::new(),
    }
}

fn how_it_ended(status: &ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by {}", child::signal_name(signal)),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

impl From<ExecError> for Halt {
    fn from(error: ExecError) -> Self {
        let message = format!("failed to {error}");
        Self::Failed(match error {
            ExecError::Snooze { delay, reason } => return Self::Snoozed { delay, reason },
            ExecError::Render(error) => error.into(),
            ExecError::Child(_) | ExecError::Start { .. } | ExecError::Lock { .. } => {
                Failure::new("ExecStartError", message)
            }
            ExecError::Nul(_) | ExecError::Option { .. } => Failure::never("ExecArgumentRefused", message),
            ExecError::TooLong(_) => Failure::never("ExecError", message),
            ExecError::Failed { status, stderr, .. } => {
                let failure = match (status.code(), status.signal()) {
                    (Some(EX_DATAERR), _) => Failure::never("ExecError", message),
                    (_, Some(_)) => Failure::new("ExecKilled", message),
                    _ => Failure::new("ExecError", message),
                };
                if stderr.is_empty() { failure } else { failure.with_detail(stderr) }
            }
        })
    }
}

#[cfg(test)]
mod tests;
