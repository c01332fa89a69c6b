//! Where mails go: the one provider of a configuration.

use std::path::PathBuf;

use super::mailgun::Mailgun;
use super::message::Mail;
use super::sendgrid::SendGrid;
use super::ses::Ses;
use super::smtp::Smtp;
use super::{EmailError, SetupError};
use crate::config::EmailProvider;
use crate::handler::Run;
use crate::handler::outbox;

#[derive(Debug)]
pub(super) enum Provider {
    Outbox(PathBuf),
    Smtp(Smtp),
    SendGrid(SendGrid),
    Ses(Box<Ses>),
    Mailgun(Mailgun),
}

/// What is left of a mail that was taken.
#[derive(Debug)]
pub(super) enum Receipt {
    /// The provider's own name for the mail, if it gave one.
    Id(Option<String>),
    File(PathBuf),
}

impl Provider {
    pub(super) fn new(config: &EmailProvider) -> Result<Self, SetupError> {
        Ok(match config {
            EmailProvider::Outbox { folder } => Self::Outbox(folder.clone()),
            EmailProvider::Smtp(smtp) => Self::Smtp(Smtp::new(smtp)?),
            EmailProvider::SendGrid(sendgrid) => Self::SendGrid(SendGrid::new(sendgrid)?),
            EmailProvider::Ses(ses) => Self::Ses(Box::new(Ses::new(ses)?)),
            EmailProvider::Mailgun(mailgun) => Self::Mailgun(Mailgun::new(mailgun)?),
        })
    }

    /// Returns once the provider has taken the mail.
    pub(super) async fn deliver(&self, mail: Mail, run: &Run<'_>) -> Result<Receipt, EmailError> {
        if matches!(self, Self::SendGrid(_) | Self::Ses(_) | Self::Mailgun(_)) {
            mail.must_be_ascii().map_err(|error| EmailError::Address { field: "addresses", error })?;
        }
        match self {
            Self::Outbox(folder) => {
                let name = outbox::file_name(mail.date, &run.job.id, run.step, "eml");
                Ok(Receipt::File(outbox::write(folder, name, mail.into_wire()?.bytes).await?))
            }
            Self::Smtp(smtp) => {
                let wire = mail.into_wire()?;
                smtp.send(&wire.envelope, &wire.bytes).await?;
                Ok(Receipt::Id(None))
            }
            Self::SendGrid(sendgrid) => Ok(Receipt::Id(sendgrid.send(&mail).await?)),
            Self::Ses(ses) => Ok(Receipt::Id(ses.send(mail).await?)),
            Self::Mailgun(mailgun) => Ok(Receipt::Id(mailgun.send(mail).await?)),
        }
    }
}
