//! The `email` handler: a step's templates become one message, which a provider takes.
//!
//! Owns how a mail comes together; its form on the wire is `message`'s, its delivery the providers'. A mail goes to
//! exactly one recipient, and a re-run sends it under the same Message-ID.

mod message;
mod smtp;
mod templates;
mod text;

use std::path::PathBuf;

use lettre::message::Mailbox;
use serde_json::{Map, Value, json};

use super::outbox::{self, OutboxError};
use super::{Halt, Run};
use crate::clock;
use crate::config::{self, EmailProvider, EmailStep, RenderError, Template};
use crate::job::Failure;

use message::{AddressError, Mail};
use smtp::{Smtp, SmtpError};
use templates::{MailTemplates, TemplatesError};

#[cfg(test)]
pub(super) use templates::builtin_template_names;

/// Mail as `[email]` wants it.
#[derive(Debug)]
pub(super) struct Email {
    from: Mailbox,
    reply_to: Option<Mailbox>,
    templates: MailTemplates,
    provider: Provider,
}

#[derive(Debug)]
enum Provider {
    Outbox(PathBuf),
    Smtp(Smtp),
}

/// Why `[email]` cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("read `email.{key}`: {error}")]
    Address { key: &'static str, error: AddressError },
    #[error(transparent)]
    Templates(#[from] TemplatesError),
    #[error(transparent)]
    Smtp(#[from] smtp::SetupError),
}

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum EmailError {
    #[error("{0}")]
    Render(#[from] RenderError),
    #[error("{0}")]
    Template(#[from] TemplatesError),
    #[error("read the mail's `{field}`: {error}")]
    Address { field: &'static str, error: AddressError },
    #[error("write the mail's `{0}`: it holds a line break or another control character")]
    Header(String),
    #[error("write the mail's `{0}`: this header is jobsd's own, or not a header's name")]
    HeaderName(String),
    #[error("write the mail: its `context` is {0}, not an object")]
    Context(&'static str),
    #[error("write the mail: it has no template, no `html` and no `text`")]
    Empty,
    #[error("build the mail: {0}")]
    Build(String),
    #[error("{0}")]
    Smtp(#[from] SmtpError),
    #[error("{0}")]
    Outbox(#[from] OutboxError),
}

/// What the recipient reads. At least one part is there.
#[derive(Debug, PartialEq, Eq)]
struct Body {
    html: Option<String>,
    text: String,
}

impl Email {
    pub(super) fn new(config: &config::Email) -> Result<Self, SetupError> {
        let address = |key, text: &str| message::mailbox(text).map_err(|error| SetupError::Address { key, error });
        Ok(Self {
            from: address("from", &config.from)?,
            reply_to: config.reply_to.as_deref().map(|text| address("reply_to", text)).transpose()?,
            templates: MailTemplates::load(config.templates.as_deref())?,
            provider: match &config.provider {
                EmailProvider::Outbox { folder } => Provider::Outbox(folder.clone()),
                EmailProvider::Smtp(smtp) => Provider::Smtp(Smtp::new(smtp)?),
            },
        })
    }

    /// Returns `{"message_id": …, "recipient": …}`, with `"file"` where the provider is the outbox.
    pub(super) async fn send(&self, step: &EmailStep, run: &Run<'_>) -> Result<Value, EmailError> {
        let now = clock::now();
        let mail = self.compose(step, run, now)?;
        let (recipient, message_id) = (mail.to.email.to_string(), mail.message_id.clone());
        let mut result = json!({"message_id": message_id, "recipient": recipient});
        let (envelope, bytes) = mail.into_wire()?;
        match &self.provider {
            Provider::Smtp(smtp) => smtp.send(&envelope, &bytes).await?,
            Provider::Outbox(folder) => {
                let name = outbox::file_name(now, &run.job.id, run.step, "eml");
                let path = outbox::write(folder, name, bytes).await?;
                result["file"] = json!(path);
            }
        }
        Ok(result)
    }

    fn compose(&self, step: &EmailStep, run: &Run<'_>, now: crate::job::Timestamp) -> Result<Mail, EmailError> {
        let values = run.context.values();
        let address = |field, template: &Template| {
            message::mailbox(&template.render(values)?).map_err(|error| EmailError::Address { field, error })
        };
        let from = step.from.as_ref().map_or_else(|| Ok(self.from.clone()), |from| address("from", from))?;
        let reply_to = match &step.reply_to {
            Some(template) => Some(address("reply_to", template)?),
            None => self.reply_to.clone(),
        };
        let headers = step.headers.iter().map(|(name, value)| Ok((name.clone(), value.render(values)?)));
        Ok(Mail {
            to: address("to", &step.to)?,
            message_id: message::message_id(&run.job.id, run.step, from.email.domain()),
            from,
            reply_to,
            subject: step.subject.render(values)?,
            headers: headers.collect::<Result<_, RenderError>>()?,
            body: self.body(step, values)?,
            date: now,
        })
    }

    /// A named template wins over the step's own `html` and `text`. An absent argument renders as `None`, so that
    /// is no template's name.
    fn body(&self, step: &EmailStep, values: &Value) -> Result<Body, EmailError> {
        let template = step.template.as_ref().map(|template| template.render(values)).transpose()?;
        if let Some(name) = template.as_deref().map(str::trim).filter(|name| !matches!(*name, "" | "None" | "none")) {
            return Ok(self.templates.render(name, &template_values(step, values)?)?);
        }
        let html = step.html.as_ref().map(|html| html.render(values)).transpose()?;
        let text = step.text.as_ref().map(|text| text.render(values)).transpose()?;
        match (html, text) {
            (html, Some(text)) => Ok(Body { html, text }),
            (Some(html), None) => Ok(Body { text: text::from_html(&html), html: Some(html) }),
            (None, None) => Err(EmailError::Empty),
        }
    }
}

/// The attempt's values with the step's `context` spread over them. `vars` stays the operator's: links are made of it,
/// and a producer's context must not move them to another host.
fn template_values(step: &EmailStep, values: &Value) -> Result<Value, EmailError> {
    let mut merged: Map<String, Value> = values.as_object().cloned().unwrap_or_default();
    let context = step.context.as_ref().map(|context| context.render(values)).transpose()?.unwrap_or_default();
    match context {
        Value::Null => {}
        Value::Object(context) => merged.extend(context.into_iter().filter(|(name, _)| name != "vars")),
        Value::Array(_) => return Err(EmailError::Context("an array")),
        Value::String(_) => return Err(EmailError::Context("a text")),
        Value::Bool(_) | Value::Number(_) => return Err(EmailError::Context("a number or a truth value")),
    }
    Ok(Value::Object(merged))
}

impl From<EmailError> for Halt {
    fn from(error: EmailError) -> Self {
        let message = format!("failed to {error}");
        Self::Failed(match error {
            EmailError::Render(_) | EmailError::Template(_) => Failure::never("TemplateError", message),
            EmailError::Address { .. } => Failure::never("InvalidAddress", message),
            EmailError::Header(_)
            | EmailError::HeaderName(_)
            | EmailError::Context(_)
            | EmailError::Empty
            | EmailError::Build(_) => Failure::never("InvalidMail", message),
            EmailError::Smtp(error) if error.is_outage() => {
                return Self::Unavailable { error: Failure::new(error.kind(), message), retry_after: None };
            }
            EmailError::Smtp(error) if error.is_final() => Failure::never("SmtpRejected", message),
            EmailError::Smtp(error) => Failure::new(error.kind(), message),
            EmailError::Outbox(_) => Failure::new("OutboxError", message),
        })
    }
}

#[cfg(test)]
mod tests;
