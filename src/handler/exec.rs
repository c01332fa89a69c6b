//! The `exec` handler: one program of the operator's, without a shell.
//!
//! The program reads `{"id", "task", "queue", "attempt", "args"}` on stdin and answers on stdout, as JSON or text. Exit
//! codes follow `sysexits.h` where they say something about a retry: 0 done, 75 try again, 65 never again; any other as
//! the retry policy says.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;

use serde_json::{Value, json};

use super::Run;
use super::child::{self, ChildError, Finished, Keep, Program};
use crate::config::{ExecStep, RenderError};
use crate::job::Failure;

/// Bytes of stdout that a result holds.
const MAX_RESULT: usize = 256 * 1024;
/// Bytes of stderr that a failure holds, the last ones.
const MAX_STDERR: usize = 8 * 1024;
/// What the program sees of the daemon's environment in any case.
const ENV: [&str; 2] = ["PATH", "LANG"];

const EX_DATAERR: i32 = 65;
const EX_TEMPFAIL: i32 = 75;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExecError {
    #[error("{0}")]
    Render(#[from] RenderError),
    #[error("{0}")]
    Child(#[from] ChildError),
    #[error("run {}: an argument holds a NUL character", .0.display())]
    Argument(PathBuf),
    #[error("run {}: its answer is longer than {} KiB", .0.display(), MAX_RESULT / 1024)]
    TooLong(PathBuf),
    #[error("run {}: it {}", program.display(), how_it_ended(.status))]
    Failed { program: PathBuf, status: ExitStatus, stderr: String },
}

/// Returns what the program wrote: JSON where it is, else the text, null where it wrote nothing.
pub(super) async fn run(step: &ExecStep, run: &Run<'_>) -> Result<Value, ExecError> {
    let finished = child::run(program(step, run)?).await?;
    if !finished.status.success() {
        return Err(ExecError::Failed {
            program: step.program.clone(),
            status: finished.status,
            stderr: finished.stderr.text(),
        });
    }
    if finished.stdout.cut {
        return Err(ExecError::TooLong(step.program.clone()));
    }
    Ok(answer(&finished))
}

fn program(step: &ExecStep, run: &Run<'_>) -> Result<Program, ExecError> {
    let values = run.context.values();
    let args = step.args.iter().map(|arg| arg.render(values)).collect::<Result<Vec<_>, _>>()?;
    if args.iter().any(|arg| arg.contains('\0')) {
        return Err(ExecError::Argument(step.program.clone()));
    }
    let job = json!({
        "id": run.job.id,
        "task": run.job.task,
        "queue": run.job.queue,
        "attempt": run.attempt,
        "args": run.context.args(),
    });
    Ok(Program {
        path: step.program.clone(),
        args,
        env: environment(step, run),
        dir: step.dir.clone(),
        stdin: job.to_string().into_bytes(),
        stdout: Keep::First(MAX_RESULT),
        stderr: Keep::Last(MAX_STDERR),
    })
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

fn how_it_ended(status: &ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by {}", child::signal_name(signal)),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

impl From<ExecError> for Failure {
    fn from(error: ExecError) -> Self {
        let message = format!("failed to {error}");
        match error {
            ExecError::Render(error) => error.into(),
            ExecError::Child(_) => Self::new("ExecStartError", message),
            ExecError::Argument(_) | ExecError::TooLong(_) => Self::never("ExecError", message),
            ExecError::Failed { status, stderr, .. } => {
                let failure = match (status.code(), status.signal()) {
                    (Some(EX_DATAERR), _) => Self::never("ExecError", message),
                    (Some(EX_TEMPFAIL), _) => Self::new("ExecTemporaryError", message),
                    (_, Some(_)) => Self::new("ExecKilled", message),
                    _ => Self::new("ExecError", message),
                };
                if stderr.is_empty() { failure } else { failure.with_detail(stderr) }
            }
        }
    }
}

#[cfg(test)]
mod tests;
