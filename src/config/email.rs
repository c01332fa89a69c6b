//! `[email]`: who sends, as whom, with which templates and files, and what each provider needs.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Email {
    pub provider: EmailProvider,
    /// `Name <address>` or an address.
    pub from: String,
    pub reply_to: Option<String>,
    /// A folder of templates that come before the built-in ones of the same name.
    pub templates: Option<PathBuf>,
    pub attachments: AttachmentRules,
}

/// Which files a mail may carry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AttachmentRules {
    /// Files must lie in one of these folders, after links are resolved.
    pub roots: Vec<PathBuf>,
    /// Bytes of all files of one mail together.
    pub max: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum EmailProvider {
    /// One `.eml` file for each mail in this folder; nothing is sent.
    Outbox {
        folder: PathBuf,
    },
    Smtp(Smtp),
    SendGrid(SendGrid),
    Ses(Ses),
    Mailgun(Mailgun),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Smtp {
    pub host: String,
    pub port: u16,
    pub tls: SmtpTls,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// A PEM file of a certificate authority to trust besides the public ones.
    pub ca_file: Option<PathBuf>,
    pub timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SmtpTls {
    None,
    StartTls,
    Tls,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SendGrid {
    pub api_key: Secret,
    /// Without a slash at its end, as everywhere below.
    pub endpoint: String,
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ses {
    pub region: String,
    pub access_key: Secret,
    pub secret_key: Secret,
    /// Of temporary credentials.
    pub session_token: Option<Secret>,
    pub configuration_set: Option<String>,
    pub endpoint: String,
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mailgun {
    pub domain: String,
    pub api_key: Secret,
    pub endpoint: String,
    pub timeout: Duration,
}
