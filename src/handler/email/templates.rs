//! Mail templates by name: the built-in ones, and the operator's folder before them.
//!
//! A mail template is `NAME.html`, `NAME.txt` or both; whatever is missing follows from the other. All are parsed when
//! the configuration is loaded. HTML is autoescaped, a missing value is an error, and the work is bounded.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use minijinja::value::Serde;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, HtmlEscape, Output, State, UndefinedBehavior, escape_formatter,
};
use serde_json::{Map, Value};

use super::message::Body;
use super::{needs, text};
use crate::config::{Step, Task, Template, ValueTemplate};

/// Work that one rendering may do; a loop over a hostile argument ends here.
const FUEL: u64 = 500_000;
/// Largest file of the operator's folder, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// What HTML templates extend and import; no mails by themselves.
const PARTS: [&str; 2] = ["layout", "button"];
/// What every template sees besides the arguments.
const ALWAYS: [&str; 4] = ["vars", "steps", "now", "job"];

const BUILT_IN: [(&str, &str); 10] = [
    ("layout.html", include_str!("templates/layout.html")),
    ("button.html", include_str!("templates/button.html")),
    ("welcome.html", include_str!("templates/welcome.html")),
    ("welcome.txt", include_str!("templates/welcome.txt")),
    ("job_application.html", include_str!("templates/job_application.html")),
    ("job_application.txt", include_str!("templates/job_application.txt")),
    ("message.html", include_str!("templates/message.html")),
    ("message.txt", include_str!("templates/message.txt")),
    ("password_reset.html", include_str!("templates/password_reset.html")),
    ("password_reset.txt", include_str!("templates/password_reset.txt")),
];

#[derive(Debug)]
pub(super) struct MailTemplates {
    environment: Environment<'static>,
    names: BTreeSet<String>,
}

/// What is wrong with a mail template.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplatesError {
    #[error("read the mail templates in {}: {reason}", path.display())]
    Read { path: PathBuf, reason: String },
    #[error("read the mail template {file}: {reason}")]
    Syntax { file: String, reason: String },
    #[error("find the mail template `{name}`; there are {known}")]
    Unknown { name: String, known: String },
    #[error("read the mail template {file}: it names `{name}`, which is not there")]
    Reference { file: String, name: String },
    #[error("render the mail template {file} for the task `{task}`: there is no `{name}`; {help}")]
    Lookup { file: String, task: String, name: String, help: &'static str },
    #[error("render the mail template {file}: {reason}")]
    Render { file: String, reason: String },
}

/// The mail templates that are always there.
pub(crate) fn builtin_template_names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().filter_map(|(file, _)| file.strip_suffix(".html")).filter(|name| !PARTS.contains(name))
}

impl MailTemplates {
    /// # Errors
    /// [`TemplatesError`] when the folder cannot be read or one of its files does not parse.
    pub(super) fn load(folder: Option<&Path>) -> Result<Self, TemplatesError> {
        let mut templates =
            Self { environment: environment(), names: builtin_template_names().map(str::to_owned).collect() };
        for (file, source) in BUILT_IN {
            templates.add(file.to_owned(), source.to_owned())?;
        }
        if let Some(folder) = folder {
            let files = files(folder)?;
            for (file, _) in &files {
                templates.forget(file);
            }
            for (file, source) in files {
                templates.add(file, source)?;
            }
        }
        Ok(templates)
    }

    /// Whether the mails of a task find everything that their templates look up. A template or a context that an argument
    /// chooses cannot be known before.
    pub(super) fn suffice(&self, task: &Task, vars: &Map<String, Value>) -> Result<(), TemplatesError> {
        let mails = task.steps.iter().filter_map(|step| match step {
            Step::Email(step) => Some(step),
            _ => None,
        });
        for mail in mails {
            let Some(name) = mail.template.as_ref().map(Template::source).filter(|name| !name.contains('{')) else {
                continue;
            };
            let context: Vec<&str> = match &mail.context {
                None => Vec::new(),
                Some(ValueTemplate::Table(entries)) => entries.iter().map(|(name, _)| name.as_str()).collect(),
                Some(_) => continue,
            };
            let given = |name: &str| ALWAYS.contains(&name) || context.contains(&name) || task.has_param(name);
            for ending in ["html", "txt"] {
                for (lookup, file) in needs::lookups(&self.environment, &format!("{name}.{ending}"))? {
                    let mut parts = lookup.split('.');
                    let (root, field) = (parts.next().unwrap_or_default(), parts.next());
                    let help = match (root, field) {
                        ("vars", Some(field)) if !vars.contains_key(field) => "add it to [vars]",
                        (root, _) if !given(root) => "add it to the task's `params` or to the mail's `context`",
                        _ => continue,
                    };
                    return Err(TemplatesError::Lookup { file, task: task.name.to_string(), name: lookup, help });
                }
            }
        }
        Ok(())
    }

    /// Takes out both parts of a mail, so that the operator's HTML never goes with the built-in text.
    fn forget(&mut self, file: &str) {
        let Some((name, _)) = file.rsplit_once('.').filter(|(name, _)| !PARTS.contains(name)) else { return };
        for ending in ["html", "txt"] {
            self.environment.remove_template(&format!("{name}.{ending}"));
        }
    }

    fn add(&mut self, file: String, source: String) -> Result<(), TemplatesError> {
        self.environment
            .add_template_owned(file.clone(), source)
            .map_err(|error| TemplatesError::Syntax { file: file.clone(), reason: reason(&error) })?;
        if let Some((name, _)) = file.rsplit_once('.').filter(|(name, _)| !PARTS.contains(name)) {
            self.names.insert(name.to_owned());
        }
        Ok(())
    }

    /// Renders the parts that `name` has; `name.html` is understood too.
    pub(super) fn render(&self, name: &str, values: &Value) -> Result<Body, TemplatesError> {
        let name = name.strip_suffix(".html").unwrap_or(name);
        if !self.names.contains(name) {
            let known = self.names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            return Err(TemplatesError::Unknown { name: name.chars().take(100).collect(), known });
        }
        let html = self.part(format!("{name}.html"), values)?;
        let text = self.part(format!("{name}.txt"), values)?;
        let text = text.or_else(|| html.as_deref().map(text::from_html)).unwrap_or_default();
        Ok(Body { html, text })
    }

    fn part(&self, file: String, values: &Value) -> Result<Option<String>, TemplatesError> {
        let fail = |error: minijinja::Error| TemplatesError::Render { file: file.clone(), reason: reason(&error) };
        match self.environment.get_template(&file) {
            Ok(template) => template.render(Serde(values)).map(Some).map_err(fail),
            Err(error) if error.kind() == ErrorKind::TemplateNotFound => Ok(None),
            Err(error) => Err(fail(error)),
        }
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment
        .set_auto_escape_callback(|file| if file.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None });
    environment.set_formatter(write_value);
    environment
}

/// As the library writes values, but a slash stays one: HTML gives it no meaning in texts and quoted attributes, and a
/// link stays readable in the mail's source.
fn write_value(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &minijinja::Value) -> Result<(), Error> {
    let Some(text) = value.as_str().filter(|_| state.auto_escape() == &AutoEscape::Html && !value.is_safe()) else {
        return escape_formatter(out, state, value);
    };
    for (number, part) in text.split('/').enumerate() {
        out.write_str(if number == 0 { "" } else { "/" })?;
        write!(out, "{}", HtmlEscape(part))?;
    }
    Ok(())
}

/// The `.html` and `.txt` files of the folder, in the order of their names.
fn files(folder: &Path) -> Result<Vec<(String, String)>, TemplatesError> {
    let fail = |path: &Path, reason: String| TemplatesError::Read { path: path.to_owned(), reason };
    let entries = std::fs::read_dir(folder).map_err(|error| fail(folder, error.to_string()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| fail(folder, error.to_string()))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name.starts_with('.') || !(name.ends_with(".html") || name.ends_with(".txt")) {
            continue;
        }
        let size = std::fs::metadata(&path).map_err(|error| fail(&path, error.to_string()))?.len();
        if size > MAX_FILE {
            return Err(fail(&path, format!("it has {size} bytes, at most {MAX_FILE} are allowed")));
        }
        let source = std::fs::read_to_string(&path).map_err(|error| fail(&path, error.to_string()))?;
        files.push((name.to_owned(), source));
    }
    files.sort();
    Ok(files)
}

/// What is wrong and in which line, in one line; never the values.
fn reason(error: &minijinja::Error) -> String {
    let place = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
    let what = match error.detail() {
        Some(detail) => format!("{}: {detail}{place}", error.kind()),
        None => format!("{}{place}", error.kind()),
    };
    match std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<minijinja::Error>()) {
        Some(cause) => format!("{what}: {}", reason(cause)),
        None => what,
    }
}
