//! One mail, checked, and its bytes as RFC 5322 and MIME want them.
//!
//! SMTP, SES, Mailgun and the outbox take these bytes; SendGrid has no interface for them and gets the parts.

use lettre::Message;
use lettre::address::Envelope;
use lettre::message::{Attachment as AttachmentPart, MultiPart, SinglePart};

use super::EmailError;
use super::address::{Address, AddressError};
use super::attachment::Attachment;
use super::header::{Header, HeaderText};
use super::key::{self, SendKey};
use crate::job::Timestamp;

/// Recipients of one mail. SES takes no more.
pub(super) const MOST_RECIPIENTS: usize = 50;

/// Everything of a mail, not yet in its wire form. Each part is of a type that cannot break out of its place.
#[derive(Debug, Clone)]
pub(super) struct Mail {
    pub(super) key: SendKey,
    pub(super) from: Address,
    pub(super) reply_to: Option<Address>,
    pub(super) to: Address,
    pub(super) cc: Vec<Address>,
    pub(super) bcc: Vec<Address>,
    pub(super) subject: HeaderText,
    /// Without those that follow from the other fields.
    pub(super) headers: Vec<Header>,
    pub(super) date: Timestamp,
    pub(super) body: Body,
    pub(super) attachments: Vec<Attachment>,
}

/// What the recipient reads. At least one part is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) html: Option<String>,
    pub(super) text: String,
}

/// Whom a server is to give the bytes to, and the bytes.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) envelope: Envelope,
    pub(super) bytes: Vec<u8>,
}

impl Mail {
    pub(super) fn message_id(&self) -> String {
        self.key.message_id(self.from.domain())
    }

    /// Who gets it, openly or not.
    pub(super) fn recipients(&self) -> impl Iterator<Item = &Address> {
        std::iter::once(&self.to).chain(&self.cc).chain(&self.bcc)
    }

    /// # Errors
    /// [`AddressError::NotAscii`] of the first address that only SMTPUTF8 can carry.
    pub(super) fn must_be_ascii(&self) -> Result<(), AddressError> {
        let others = [Some(&self.from), self.reply_to.as_ref()];
        self.recipients().chain(others.into_iter().flatten()).try_for_each(|address| address.in_ascii().map(drop))
    }

    pub(super) fn into_wire(self) -> Result<Wire, EmailError> {
        let date = std::time::UNIX_EPOCH + std::time::Duration::from_millis(self.date.as_millis());
        let mut builder = Message::builder()
            .from(self.from.to_mailbox())
            .to(self.to.to_mailbox())
            .subject(self.subject.as_str())
            .date(date)
            .message_id(Some(self.message_id()));
        builder = self.cc.iter().fold(builder, |builder, address| builder.cc(address.to_mailbox()));
        // These stand in the envelope only: lettre takes the header out again.
        builder = self.bcc.iter().fold(builder, |builder, address| builder.bcc(address.to_mailbox()));
        if let Some(reply_to) = &self.reply_to {
            builder = builder.reply_to(reply_to.to_mailbox());
        }
        for header in self.headers.iter().chain([&self.key_header()]) {
            builder = builder.raw_header(header.to_lettre());
        }
        let content = Content::of(self.body);
        let message = match (content, self.attachments) {
            (Content::Single(part), files) if files.is_empty() => builder.singlepart(part),
            (Content::Alternative(parts), files) if files.is_empty() => builder.multipart(parts),
            (content, files) => builder.multipart(with_files(content, files)),
        };
        let message = message.map_err(|error| EmailError::Build(error.to_string()))?;
        Ok(Wire { envelope: message.envelope().clone(), bytes: message.formatted() })
    }

    pub(super) fn key_header(&self) -> Header {
        Header::new(key::HEADER, self.key.to_string()).expect("a key is letters, digits, `-` and `_`")
    }
}

enum Content {
    Single(SinglePart),
    Alternative(MultiPart),
}

impl Content {
    fn of(body: Body) -> Self {
        let plain = SinglePart::plain(body.text);
        match body.html {
            Some(html) => {
                Self::Alternative(MultiPart::alternative().singlepart(plain).singlepart(SinglePart::html(html)))
            }
            None => Self::Single(plain),
        }
    }
}

fn with_files(content: Content, files: Vec<Attachment>) -> MultiPart {
    let mixed = match content {
        Content::Single(part) => MultiPart::mixed().singlepart(part),
        Content::Alternative(parts) => MultiPart::mixed().multipart(parts),
    };
    files.into_iter().fold(mixed, |mixed, file| {
        mixed.singlepart(AttachmentPart::new(file.name.as_str().to_owned()).body(file.bytes, file.kind))
    })
}
