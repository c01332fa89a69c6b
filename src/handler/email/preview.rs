//! What a task would send, without sending it: for whoever writes templates.

use serde_json::json;

use super::provider::Provider;
use super::{Email, EmailError, SetupError, attachment};
use crate::clock;
use crate::config::{Config, EmailStep, Step, Task};
use crate::handler::context::{Context, Now};
use crate::handler::{Attempt, Done, Notepad, Run, Steps};
use crate::job::{Args, Job, JobId, Origin, Priority};

/// One mail of a task.
#[derive(Debug)]
pub(crate) struct MailPreview {
    /// Position of its step in the task, from 0.
    pub step: usize,
    pub to: String,
    pub subject: String,
    /// The whole mail, as it would go out.
    pub eml: Vec<u8>,
    pub html: Option<String>,
    pub text: String,
}

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PreviewError {
    #[error("{0}")]
    Setup(#[from] SetupError),
    #[error("{0}")]
    Mail(String),
}

/// The mails that `task` sends when it is called with `args`, which are bound to its parameters. The steps before one
/// have not run, so their results are empty.
pub(crate) fn preview(config: &Config, task: &Task, args: Args) -> Result<Vec<MailPreview>, PreviewError> {
    let email = Email::with(&config.email, Provider::Outbox(config.node.state_dir.clone()))?;
    let job = job(task, args);
    let mails = task.steps.iter().enumerate().filter_map(|(number, step)| match step {
        Step::Email(step) => Some((number, step)),
        _ => None,
    });
    mails.map(|(number, step)| one(&email, config, task, &job, number, step)).collect()
}

fn one(
    email: &Email,
    config: &Config,
    task: &Task,
    job: &Job,
    number: usize,
    step: &EmailStep,
) -> Result<MailPreview, PreviewError> {
    let failed = |error: EmailError| PreviewError::Mail(error.to_string());
    let (vars, now) = (config.vars.clone().into(), clock::now());
    let done = Done { steps: vec![json!({}); number], ..Done::default() };
    let attempt = Attempt { job, task, attempt: 1, steps: Steps::new(done, None), notepad: Notepad::default() };
    let of_templates = Now::new(now);
    let context = Context::new(&attempt, &vars, &of_templates);
    let run = Run {
        job,
        attempt: 1,
        params: &task.params,
        step: number,
        context: &context,
        steps: &attempt.steps,
        notepad: &attempt.notepad,
    };
    let mut mail = email.compose(step, &run, now).map_err(failed)?;
    if let Some(attachments) = &step.attachments {
        let wanted = attachments.render(context.values()).map_err(|error| failed(error.into()))?;
        mail.attachments = attachment::read(&wanted, &email.attachments).map_err(|error| failed(error.into()))?;
    }
    let (to, subject) = (mail.to.bare().to_owned(), mail.subject.as_str().to_owned());
    let (html, text) = (mail.body.html.clone(), mail.body.text.clone());
    let eml = mail.into_wire().map_err(failed)?.bytes;
    Ok(MailPreview { step: number, to, subject, eml, html, text })
}

fn job(task: &Task, args: Args) -> Job {
    Job {
        id: JobId::parse("preview").expect("a word is an id"),
        queue: task.queue.clone(),
        task: task.name.clone(),
        args,
        origin: Origin::Api,
        enqueued_at: clock::now(),
        due: None,
        timeout: None,
        expires: None,
        retry: None,
        priority: Priority::default(),
        args_apart: None,
        buckets: Vec::new(),
        unique: None,
        flow: None,
    }
}
