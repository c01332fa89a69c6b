//! What the operator wrote: from the text of `jobsd.toml` to a [`Config`], or every problem of it at once.
//!
//! ```text
//! text ─► TOML with places ─► walk: read, check, note problems ─► Config and warnings, or Problems
//! ```
//! The walk never stops at a problem. `document` and `scalar` read values, `services` to `schedules` know the keys,
//! `diagnostic` and `source` tell the operator. Nothing here runs later than a start, a reload or `jobsd check`.

mod delivery;
mod diagnostic;
mod document;
mod email;
mod exec;
mod http;
mod interpolate;
mod limits;
mod params;
mod push;
mod queues;
mod redis;
mod retry;
mod scalar;
mod schedules;
mod scope;
mod secrets;
mod services;
mod source;
mod sql;
mod steps;
mod tasks;
mod unique;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use toml::de::DeTable;

pub(crate) use self::diagnostic::{Diagnostic, Problems};
use self::diagnostic::{Finding, Severity};
use self::document::{Document, Table};
use self::queues::Queues;
use self::source::Source;
use self::steps::Surroundings;
use self::tasks::{Context, Tasks};
use super::Config;

/// The environment: a variable's value by its name.
pub(super) type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Mail templates that need no file.
pub(crate) const MAIL_TEMPLATES: [&str; 4] = ["welcome", "job_application", "message", "password_reset"];

/// Largest file that is read.
const LARGEST: u64 = 4 << 20;
/// Syntax errors after the first few follow from them.
const SYNTAX_ERRORS: usize = 10;

/// A valid file.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub config: Config,
    /// What is allowed and still worth a look, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// [`Problems`]: all of them.
pub(crate) fn load(path: &Path, env: Environment<'_>) -> Result<Loaded, Problems> {
    let mut bytes = Vec::new();
    let outcome = std::fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    if let Err(error) = outcome {
        let help = "name the file with --config, and let the user of jobsd read it";
        return Err(Problems::without_place(path, format!("cannot read the file: {error}"), help));
    }
    if bytes.len() as u64 > LARGEST {
        let message = format!("the file is larger than {} MiB", LARGEST >> 20);
        return Err(Problems::without_place(path, message, "is this the right file?"));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, path, env, &MAIL_TEMPLATES),
        Err(error) => Err(not_utf8(&bytes, error.valid_up_to(), path)),
    }
}

/// Checks the text of a file. `path` is what the messages call it; `mail_templates` are those that need no file.
///
/// # Errors
/// [`Problems`]: all of them.
pub(crate) fn parse(
    text: &str,
    path: &Path,
    env: Environment<'_>,
    mail_templates: &[&str],
) -> Result<Loaded, Problems> {
    walk(text, path, env, mail_templates).0
}

/// The keys that the walk has asked for, with their tables.
type Asked = BTreeSet<(String, &'static str)>;

fn walk(text: &str, path: &Path, env: Environment<'_>, mail_templates: &[&str]) -> (Result<Loaded, Problems>, Asked) {
    let (tree, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let source = Source::new(text, secrets::likely_places(text));
        let findings = errors.iter().take(SYNTAX_ERRORS).map(syntax).collect();
        return (Err(problems(path, findings, &source)), Asked::new());
    }
    let doc = Document::new(text, env);
    let config = config(&doc, tree.get_ref(), mail_templates);
    let (findings, asked) = doc.into_findings();
    let source = Source::new(text, secrets::places(text, tree.get_ref()));
    let outcome = if findings.iter().any(|finding| finding.severity == Severity::Error) {
        Err(problems(path, findings, &source))
    } else {
        Ok(Loaded { config, warnings: located(path, findings, &source) })
    };
    (outcome, asked)
}

fn config(doc: &Document<'_>, tree: &DeTable<'_>, mail_templates: &[&str]) -> Config {
    let root = Table::root(doc, tree);
    let redis = self::redis::redis(&root.table("redis"));
    let node_table = root.table("node");
    let node = services::node(&node_table);
    let log = services::log(&root.table("log"));
    let admin = services::admin(&root.table("admin"));
    let database = services::database(&root.table("database"), &node.state_dir);
    let email = email::email(&root.table("email"), &node.state_dir);
    let push = push::push(&root.table("push"), &node.state_dir, database.dialect());
    let video = delivery::video(&root.table("video"), &node.state_dir);
    let celery = services::celery(&root.table("celery"));
    let http = http::http(&root.table("http"));
    let vars = services::vars(doc, &root.table("vars"));
    let mut queues = Queues::read(doc, &root.table("queues"));
    if !node_table.has("concurrency") {
        queues.weigh_nothing(doc);
    }
    let mail_templates = all_mail_templates(mail_templates, email.templates.as_deref());
    let around = Surroundings {
        mail_templates: &mail_templates,
        input_roots: !video.input_roots.is_empty(),
        attachment_roots: !email.attachments.roots.is_empty(),
        dialect: database.dialect(),
    };
    let context = Context { queues: &queues, vars: &vars, around };
    let tasks = Tasks::read(doc, &root.table("tasks"), &context);
    queues.need_batch_tasks(doc, &tasks);
    limits::of_queues(&root.table("queues"), &mut queues.checked, &tasks.checked, &vars);
    let schedules = schedules::read(doc, &root.table("schedules"), &tasks, &queues, &vars);
    root.close();
    let (queues, tasks) = (queues.checked, tasks.checked);
    Config { redis, node, log, admin, database, email, push, video, http, celery, vars, queues, tasks, schedules }
}

/// The built-in templates and those of the operator's folder: `NAME.html`, `NAME.txt`, `NAME.subject.txt` and so on.
fn all_mail_templates(built_in: &[&str], folder: Option<&Path>) -> Vec<String> {
    let mut names: BTreeSet<String> = built_in.iter().map(|&name| name.to_owned()).collect();
    let entries = folder.and_then(|folder| std::fs::read_dir(folder).ok());
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        names.extend(name.split('.').next().filter(|stem| !stem.is_empty()).map(str::to_owned));
    }
    names.into_iter().collect()
}

fn syntax(error: &toml::de::Error) -> Finding {
    let message = error.message().lines().next().unwrap_or("it cannot be read").to_owned();
    let help = if message.starts_with("duplicate key") {
        "keep one of the two"
    } else if message.contains("string") || message.contains("quote") {
        "texts stand in quotes: key = \"text\""
    } else {
        "every line is a [table], key = value, or a # comment; texts stand in quotes"
    };
    let place = error.span().unwrap_or(0..0);
    Finding { severity: Severity::Error, place, message: format!("this is not TOML: {message}"), help: help.into() }
}

fn not_utf8(bytes: &[u8], valid: usize, path: &Path) -> Problems {
    let text = String::from_utf8_lossy(bytes);
    let place = valid..valid + 1;
    let finding = Finding {
        severity: Severity::Error,
        place,
        message: "the file is not UTF-8 from here on".into(),
        help: "save it as UTF-8".into(),
    };
    problems(path, vec![finding], &Source::new(&text, secrets::likely_places(&text)))
}

/// Only the errors: "N problems" is what must be mended.
fn problems(path: &Path, findings: Vec<Finding>, source: &Source<'_>) -> Problems {
    let errors = findings.into_iter().filter(|finding| finding.severity == Severity::Error).collect();
    Problems { path: path.display().to_string(), diagnostics: located(path, errors, source) }
}

/// In the order of the file.
fn located(path: &Path, mut findings: Vec<Finding>, source: &Source<'_>) -> Vec<Diagnostic> {
    findings.sort_by_key(|finding| finding.place.start);
    findings.into_iter().map(|finding| finding.located(path, source)).collect()
}
