//! What performs a task: a closed set of handlers, and the walk through a task's steps.
//!
//! Owns the dispatch, the values that templates and SQL see, and everything a handler needs for
//! long (pools, mail templates, credentials). Does not own retries, timeouts or the job's record: a
//! failure is handed back as a value, and whoever drops the future of [`Handlers::perform`] has
//! stopped everything it started.

mod batch;
mod child;
mod context;
mod email;
mod exec;
mod http;
mod lines;
mod notepad;
mod outbox;
mod probe;
mod push;
mod response;
mod sql;
mod steps;
mod video;
mod video_protocol;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::clock;
use crate::config::{Config, JobSecrets, Param, Step, Task};
use crate::job::{Failure, Job, Outcome};

use context::{Context, Now};
pub(crate) use email::{MailPreview, PreviewError, preview as preview_mails};
pub(crate) use exec::{guard_if_told, until_guards_have_ended};
pub(crate) use notepad::Notepad;
pub(crate) use steps::{Done, Keep, LeaseLost, Steps};

/// Everything that performs tasks, built once for a configuration. Connections are made when a
/// step first needs them.
#[derive(Debug)]
pub(crate) struct Handlers {
    vars: Value,
    /// Where the guards of programs hold their lock.
    state_dir: PathBuf,
    email: email::Email,
    sql: sql::Sql,
    push: push::Push,
    video: video::Video,
    http: http::Http,
}

/// Why the handlers of a configuration cannot be built. Each is the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandlersError {
    #[error("prepare the mail handler: {0}")]
    Email(#[from] email::SetupError),
    #[error("prepare the database: {0}")]
    Sql(#[from] sql::SetupError),
    #[error("prepare the push handler: {0}")]
    Push(#[from] push::SetupError),
    #[error("prepare the video handler: {0}")]
    Video(#[from] video::SetupError),
    #[error("prepare the HTTP client: {0}")]
    Http(#[from] http::SetupError),
}

/// One attempt of a job.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    pub job: &'a Job,
    pub task: &'a Task,
    /// From 1.
    pub attempt: u32,
    /// Results of the finished steps; those of earlier attempts at first.
    pub steps: Steps,
    /// Where it writes what those who watch it may read.
    pub notepad: Notepad,
}

/// What one step sees of its attempt.
struct Run<'a> {
    job: &'a Job,
    attempt: u32,
    params: &'a [Param],
    /// Position of the step in its task, from 0.
    step: usize,
    context: &'a Context<'a>,
    /// Where a step that is done in parts remembers which are done.
    steps: &'a Steps,
    notepad: &'a Notepad,
}

/// Why an attempt ends before its last step is done.
#[derive(Debug)]
enum Halt {
    Failed(Failure),
    /// Somebody else runs the job by now: nothing more may be done for it here.
    LeaseLost,
    /// Not now, later: see [`Outcome::Snoozed`].
    Snoozed {
        delay: Option<Duration>,
        reason: String,
    },
    /// Nobody could do this step now: see [`Outcome::Unavailable`].
    Unavailable {
        error: Failure,
        retry_after: Option<Duration>,
    },
}

impl From<LeaseLost> for Halt {
    fn from(_: LeaseLost) -> Self {
        Self::LeaseLost
    }
}

impl<E: Into<Failure>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Handlers {
    /// Reads what the configuration points to (templates, certificates, credentials) and checks it.
    /// Nothing here waits for the network.
    ///
    /// # Errors
    /// [`HandlersError`] names the part of the configuration that does not work and why.
    pub(crate) fn new(config: &Config) -> Result<Self, HandlersError> {
        Ok(Self {
            vars: Value::Object(config.vars.clone()),
            state_dir: config.node.state_dir.clone(),
            email: email::Email::new(config)?,
            sql: sql::Sql::new(&config.database)?,
            push: push::Push::new(&config.push)?,
            video: video::Video::new(&config.video)?,
            http: http::Http::new(&config.http)?,
        })
    }

    /// Runs the task's steps from the first one that is not done yet.
    ///
    /// Dropping the future stops what it started: programs are killed with their process group, a
    /// statement is cancelled and rolled back, a connection in the middle of a conversation is closed.
    pub(crate) async fn perform(&self, attempt: &Attempt<'_>) -> Outcome {
        let now = Now::new(clock::now());
        let mut context = Context::new(attempt, &self.vars, &now);
        let result = self.steps(attempt, &mut context).await;
        attempt.ended(result)
    }

    async fn steps(&self, attempt: &Attempt<'_>, context: &mut Context<'_>) -> Result<Value, Halt> {
        let finished = attempt.steps.results().len();
        for (number, step) in attempt.task.steps.iter().enumerate().skip(finished) {
            if attempt.task.steps.len() > 1 {
                attempt.notepad.step(number + 1, attempt.task.steps.len());
            }
            let Attempt { job, attempt: n, steps, notepad, .. } = attempt;
            let run = Run { job, attempt: *n, params: &attempt.task.params, step: number, context, steps, notepad };
            let result = self.step(step, &run).await?;
            attempt.steps.finish(result.clone());
            context.finish_step(result);
            // What the last step has done goes along with the settle, at once.
            if number + 1 < attempt.task.steps.len() {
                attempt.steps.keep().await?;
            }
        }
        attempt.result(context)
    }

    /// Each on the heap: the future of an attempt has the size of its largest part, and is moved when it is spawned.
    async fn step(&self, step: &Step, run: &Run<'_>) -> Result<Value, Halt> {
        match step {
            Step::Email(step) => Ok(Box::pin(self.email.send(step, run)).await?),
            Step::Sql(step) => {
                let named = sql::Named { args: run.context.args(), more: batch::more_values(step, run.context)? };
                Ok(Box::pin(self.sql.run(&step.statements, &named)).await.map_err(sql::SqlError::into_halt)?)
            }
            Step::Push(step) => Ok(Box::pin(self.push.send(step, run, &self.sql)).await?),
            Step::Video(step) => Ok(Box::pin(self.video.process(step, run)).await?),
            Step::Exec(step) => Ok(Box::pin(exec::run(step, run, &self.state_dir)).await?),
            Step::Http(step) => Box::pin(self.http.call(step, run)).await,
            Step::Webhook => Box::pin(self.http.webhook(run)).await,
            Step::Probe(step) => probe::run(step, run).await,
        }
    }
}

impl Attempt<'_> {
    /// What the producer gets back once all steps are done.
    fn result(&self, context: &Context<'_>) -> Result<Value, Halt> {
        match &self.task.result {
            Some(template) => Ok(context.render(template)?),
            None => Ok(context.last_result()),
        }
    }

    fn ended(&self, result: Result<Value, Halt>) -> Outcome {
        let halt = match result {
            Ok(result) => return Outcome::Success(result),
            Err(halt) => halt,
        };
        let secrets = JobSecrets::of(Some(self.task), &self.job.args);
        match halt {
            Halt::LeaseLost => Outcome::Interrupted { reason: "its lease was lost while it ran".to_owned() },
            Halt::Failed(failure) => Outcome::Failure(without_secrets(failure, &secrets)),
            Halt::Snoozed { delay, reason } => Outcome::Snoozed { delay, reason: secrets.text(&reason) },
            Halt::Unavailable { error, retry_after } => {
                Outcome::Unavailable { error: without_secrets(error, &secrets), retry_after }
            }
        }
    }
}

/// Servers and programs like to repeat what they were given, and a failure goes into the record, the logs and the
/// producer's result. Kinds are jobsd's own words.
fn without_secrets(failure: Failure, secrets: &JobSecrets) -> Failure {
    Failure {
        message: secrets.text(&failure.message),
        detail: failure.detail.map(|detail| secrets.text(&detail)),
        ..failure
    }
}

impl From<crate::config::RenderError> for Failure {
    fn from(error: crate::config::RenderError) -> Self {
        Self::never("TemplateError", format!("failed to {error}"))
    }
}

#[cfg(test)]
mod shipped_tests;
#[cfg(test)]
mod tests;
