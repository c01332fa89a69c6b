//! The `email` handler: a step's templates become one mail, which a provider takes.
//!
//! Owns how a mail comes together; its form on the wire is `message`'s, its delivery `provider`'s. A re-run sends the same
//! mail under the same key and Message-ID, so that a repeat can be recognised: between the moment in which a provider has
//! taken a mail and the one in which the job is settled, a crash makes one.

mod address;
mod api;
mod attachment;
mod compose;
mod header;
mod key;
mod mailgun;
mod message;
mod needs;
mod preview;
mod provider;
mod sendgrid;
mod ses;
mod sigv4;
mod smtp;
mod templates;
mod text;

use serde_json::{Value, json};

use super::outbox::OutboxError;
use super::{Halt, Run};
use crate::clock;
use crate::config::{self, AttachmentRules, Config, EmailStep, RenderError};
use crate::job::Failure;

use address::{Address, AddressError};
use api::ApiError;
use attachment::{Attachment, AttachmentError};
use header::HeaderError;
use provider::{Provider, Receipt};
use smtp::SmtpError;
use templates::{MailTemplates, TemplatesError};

pub(crate) use preview::{MailPreview, PreviewError, preview};
#[cfg(test)]
pub(super) use templates::builtin_template_names;

/// Mail as `[email]` wants it.
#[derive(Debug)]
pub(super) struct Email {
    from: Address,
    reply_to: Option<Address>,
    templates: MailTemplates,
    attachments: AttachmentRules,
    provider: Provider,
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
    #[error(transparent)]
    Api(#[from] api::SetupError),
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
    #[error("write the mail: it has {0} recipients, at most {most} are allowed", most = message::MOST_RECIPIENTS)]
    Recipients(usize),
    #[error("{0}")]
    Header(#[from] HeaderError),
    #[error("{0}")]
    Attachment(#[from] AttachmentError),
    #[error("write the mail: its `context` is {0}, not an object")]
    Context(&'static str),
    #[error("write the mail: it has no template, no `html` and no `text`")]
    Empty,
    #[error("build the mail: {0}")]
    Build(String),
    #[error("{0}")]
    Smtp(#[from] SmtpError),
    #[error("{0}")]
    Api(#[from] ApiError),
    #[error("{0}")]
    Outbox(#[from] OutboxError),
}

impl Email {
    /// Reads templates and certificates; asks nobody.
    pub(super) fn new(config: &Config) -> Result<Self, SetupError> {
        let email = Self::with(&config.email, Provider::new(&config.email.provider)?)?;
        for task in config.tasks.values() {
            email.templates.suffice(task, &config.vars)?;
        }
        Ok(email)
    }

    fn with(config: &config::Email, provider: Provider) -> Result<Self, SetupError> {
        let address = |key, text: &str| Address::parse(text).map_err(|error| SetupError::Address { key, error });
        Ok(Self {
            from: address("from", &config.from)?,
            reply_to: config.reply_to.as_deref().map(|text| address("reply_to", text)).transpose()?,
            templates: MailTemplates::load(config.templates.as_deref())?,
            attachments: config.attachments.clone(),
            provider,
        })
    }

    /// Returns `{"message_id": …, "recipient": …, "key": …}`, with `"provider_id"`, the provider's own name for the mail,
    /// or with `"file"` where the provider is the outbox.
    pub(super) async fn send(&self, step: &EmailStep, run: &Run<'_>) -> Result<Value, EmailError> {
        let mut mail = self.compose(step, run, clock::now())?;
        if let Some(attachments) = &step.attachments {
            mail.attachments = self.read(attachments.render(run.context.values())?).await?;
        }
        let mut result = json!({
            "message_id": mail.message_id(),
            "recipient": mail.to.bare(),
            "key": mail.key.as_str(),
        });
        match self.provider.deliver(mail, run).await? {
            Receipt::Id(Some(id)) => result["provider_id"] = json!(id),
            Receipt::Id(None) => {}
            Receipt::File(path) => result["file"] = json!(path),
        }
        Ok(result)
    }

    async fn read(&self, wanted: Value) -> Result<Vec<Attachment>, EmailError> {
        let rules = self.attachments.clone();
        let read = tokio::task::spawn_blocking(move || attachment::read(&wanted, &rules)).await;
        Ok(read.map_err(|error| EmailError::Build(error.to_string()))??)
    }
}

impl From<EmailError> for Halt {
    fn from(error: EmailError) -> Self {
        let message = format!("failed to {error}");
        Self::Failed(match error {
            EmailError::Render(_) | EmailError::Template(_) => Failure::never("TemplateError", message),
            EmailError::Address { .. } => Failure::never("InvalidAddress", message),
            EmailError::Recipients(_)
            | EmailError::Header(_)
            | EmailError::Context(_)
            | EmailError::Empty
            | EmailError::Build(_) => Failure::never("InvalidMail", message),
            EmailError::Attachment(error) => match error {
                // Another program may be about to write it.
                AttachmentError::Missing(_) | AttachmentError::Read { .. } => {
                    Failure::new("AttachmentMissing", message)
                }
                AttachmentError::Outside { .. } => Failure::never("AttachmentOutsideRoots", message),
                AttachmentError::TooLarge { .. } => Failure::never("AttachmentTooLarge", message),
                AttachmentError::Shape
                | AttachmentError::NotAFile(_)
                | AttachmentError::Name { .. }
                | AttachmentError::Kind { .. } => Failure::never("InvalidMail", message),
            },
            EmailError::Smtp(error) if error.is_outage() => {
                return Self::Unavailable { error: Failure::new(error.kind(), message), retry_after: None };
            }
            EmailError::Smtp(error) if error.is_final() => Failure::never("SmtpRejected", message),
            EmailError::Smtp(error) => Failure::new(error.kind(), message),
            EmailError::Api(error) => return error.into(),
            EmailError::Outbox(_) => Failure::new("OutboxError", message),
        })
    }
}

#[cfg(test)]
mod tests;
