//! `jobsd email preview`: the mails of a task as files, rendered from the configuration. Nothing is sent or opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::enqueue::{by_name, read_json};
use super::{CliError, output};
use crate::config::{self, Config, Step, Task};
use crate::handler::{MailPreview, PreviewError, preview_mails};
use crate::job::Args;

#[derive(Debug, Subcommand)]
pub(crate) enum Email {
    /// Write the mails that a task would send: TASK.eml, TASK.html and TASK.txt. Says where; sends and opens nothing.
    Preview(Preview),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Preview {
    /// The task, by its own name or a producer's.
    task: String,
    /// Arguments, as for `jobsd enqueue`.
    #[arg(value_name = "KEY=VALUE")]
    args: Vec<String>,
    /// The arguments as JSON: '{…}', '[…]', @FILE, or - for standard input.
    #[arg(long = "args", value_name = "JSON", conflicts_with = "args")]
    args_json: Option<String>,
    /// The folder for the files; it must exist.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    dir: PathBuf,
    /// What was written, as JSON.
    #[arg(long)]
    json: bool,
    /// The configuration file.
    #[arg(short = 'c', long = "config", env = "JOBSD_CONFIG", default_value = "jobsd.toml", value_name = "FILE")]
    config: PathBuf,
}

impl Email {
    pub(super) fn run(self) -> Result<(), CliError> {
        let Self::Preview(preview) = self;
        preview.run()
    }
}

impl Preview {
    fn run(self) -> Result<(), CliError> {
        let loaded = config::load(&self.config, &|name| std::env::var(name).ok());
        let config = loaded.map_err(|problems| CliError::Config(problems.to_string()))?.config;
        let task = self.task(&config)?;
        let mails = preview_mails(&config, &task, self.bound(&task)?).map_err(|error| match error {
            PreviewError::Setup(error) => CliError::Config(format!("failed to {error}")),
            PreviewError::Mail(words) => CliError::Failed(format!("failed to {words}")),
        })?;
        let several = mails.len() > 1;
        let mut written = Vec::new();
        for mail in &mails {
            let stem = if several { format!("{}-{}", task.name, mail.step + 1) } else { task.name.to_string() };
            let files = write(&self.dir, &stem, mail)?;
            written.push(json!({"to": mail.to, "subject": mail.subject, "step": mail.step, "files": files}));
        }
        if self.json {
            output::json(&Value::Array(written));
            return Ok(());
        }
        for (mail, written) in mails.iter().zip(&written) {
            output::line(&format!("To {}: {}", mail.to, mail.subject));
            for file in written["files"].as_array().into_iter().flatten() {
                output::line(&format!("  {}", output::cell(file)));
            }
        }
        Ok(())
    }

    fn task(&self, config: &Config) -> Result<Arc<Task>, CliError> {
        let sends = |task: &Task| task.steps.iter().any(|step| matches!(step, Step::Email(_)));
        let named = config.tasks.values().find(|task| task.name.as_str() == self.task);
        match named.or_else(|| config.task_named(&self.task)) {
            Some(task) if sends(task) => Ok(task.clone()),
            found => {
                let why = if found.is_some() { "sends no mail" } else { "is not in the configuration" };
                let names: Vec<&str> =
                    config.tasks.values().filter(|task| sends(task)).map(|task| task.name.as_str()).collect();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                Err(CliError::Usage(format!("the task {} {why}; those that send mail: {names}", self.task)))
            }
        }
    }

    /// The arguments, bound as those of a job are.
    fn bound(&self, task: &Task) -> Result<Args, CliError> {
        let pairs: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let params: Vec<_> = task.params.iter().map(|param| (param.name.clone(), param.kind)).collect();
        let given = match &self.args_json {
            Some(text) => read_json(text)?,
            None => by_name(&pairs, &params)?,
        };
        let bound = match given {
            Value::Array(positional) => config::bind(task, &positional, Map::new()),
            Value::Object(keyword) => config::bind(task, &[], keyword),
            _ => unreachable!("arguments are an array or an object"),
        };
        bound.map_err(|error| CliError::Usage(error.to_string()))
    }
}

/// Writes the mail and its parts; returns the files.
fn write(folder: &Path, stem: &str, mail: &MailPreview) -> Result<Vec<PathBuf>, CliError> {
    let parts = [
        ("eml", Some(mail.eml.as_slice())),
        ("html", mail.html.as_deref().map(str::as_bytes)),
        ("txt", Some(mail.text.as_bytes())),
    ];
    let mut files = Vec::new();
    for (ending, bytes) in parts {
        let Some(bytes) = bytes else { continue };
        let path = folder.join(format!("{stem}.{ending}"));
        std::fs::write(&path, bytes)
            .map_err(|error| CliError::Failed(format!("failed to write {}: {error}", path.display())))?;
        files.push(path);
    }
    Ok(files)
}
