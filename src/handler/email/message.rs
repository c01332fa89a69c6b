//! One mail as RFC 5322 wants it: addresses checked, headers that cannot be broken out of, MIME parts.

use lettre::address::Envelope;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::{Address, Message};

use super::{Body, EmailError};
use crate::job::{JobId, Timestamp};

/// Headers that this module writes itself, or that would change who gets the mail or how it is read.
const OWN_HEADERS: [&str; 13] = [
    "from",
    "sender",
    "to",
    "cc",
    "bcc",
    "subject",
    "reply-to",
    "date",
    "message-id",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "content-disposition",
];

/// Everything of a mail, not yet in its wire form.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) from: Mailbox,
    pub(super) to: Mailbox,
    pub(super) reply_to: Option<Mailbox>,
    pub(super) subject: String,
    /// With the angle brackets.
    pub(super) message_id: String,
    pub(super) date: Timestamp,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("it holds a line break or another control character")]
    Control,
    #[error("`{0}` is not one mail address")]
    Invalid(String),
}

impl Mail {
    /// The envelope and the bytes that follow SMTP's DATA.
    pub(super) fn into_wire(self) -> Result<(Envelope, Vec<u8>), EmailError> {
        let subject = header_text("subject", self.subject)?;
        let date = std::time::UNIX_EPOCH + std::time::Duration::from_millis(self.date.as_millis());
        let mut builder = Message::builder()
            .from(self.from)
            .to(self.to)
            .subject(subject)
            .date(date)
            .message_id(Some(self.message_id));
        if let Some(reply_to) = self.reply_to {
            builder = builder.reply_to(reply_to);
        }
        for (name, value) in self.headers {
            builder = builder.raw_header(extra_header(name, value)?);
        }
        let plain = SinglePart::plain(self.body.text);
        let message = match self.body.html {
            Some(html) => {
                builder.multipart(MultiPart::alternative().singlepart(plain).singlepart(SinglePart::html(html)))
            }
            None => builder.singlepart(plain),
        };
        let message = message.map_err(|error| EmailError::Build(error.to_string()))?;
        Ok((message.envelope().clone(), message.formatted()))
    }
}

/// Reads `address`, `Name <address>` or `"Name" <address>`: exactly one.
pub(super) fn mailbox(text: &str) -> Result<Mailbox, AddressError> {
    if text.chars().any(char::is_control) {
        return Err(AddressError::Control);
    }
    let text = text.trim();
    let invalid = || AddressError::Invalid(text.to_owned());
    let (name, address) = match text.strip_suffix('>') {
        Some(rest) => rest.rsplit_once('<').ok_or_else(invalid)?,
        None => ("", text),
    };
    let name = name.trim();
    let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name);
    let address: Address = address.trim().parse().map_err(|_| invalid())?;
    Ok(Mailbox::new((!name.is_empty()).then(|| name.to_owned()), address))
}

/// `<job.step@domain>`: the same in every attempt, so that a mail sent twice can be told from two mails.
pub(super) fn message_id(job: &JobId, step: usize, domain: &str) -> String {
    let mut local = String::new();
    for byte in job.as_str().bytes() {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' => local.push(byte.into()),
            other => local.push_str(&format!("={other:02x}")),
        }
    }
    format!("<{local}.{step}@{domain}>")
}

fn extra_header(name: String, value: String) -> Result<HeaderValue, EmailError> {
    let value = header_text(&name, value)?;
    let own = OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str());
    if own || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(EmailError::HeaderName(name));
    }
    match HeaderName::new_from_ascii(name.clone()) {
        Ok(header) => Ok(HeaderValue::new(header, value)),
        Err(_) => Err(EmailError::HeaderName(name)),
    }
}

/// A line break in a header would start another header, or the body.
fn header_text(name: &str, text: String) -> Result<String, EmailError> {
    if text.chars().any(char::is_control) { Err(EmailError::Header(name.to_owned())) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_in_the_forms_people_write() {
        let shown = |text: &str| mailbox(text).map(|mailbox| mailbox.to_string());
        assert_eq!(shown("a@b.com").as_deref(), Ok("a@b.com"));
        assert_eq!(shown(" HireMeBahamas <no-reply@b.com> ").as_deref(), Ok("HireMeBahamas <no-reply@b.com>"));
        assert_eq!(shown("\"Bahamas, Inc.\" <a@b.com>").as_deref(), Ok("\"Bahamas, Inc.\" <a@b.com>"));
        for bad in ["", "nobody", "a@b.com, c@d.com", "a@b.com c@d.com", "<a@b.com", "a@b@c.com>"] {
            assert!(matches!(shown(bad), Err(AddressError::Invalid(_))), "{bad}");
        }
        for bad in ["a@b.com\r\nBcc: c@d.com", "Eve\n <a@b.com>", "a@b.com\0"] {
            assert_eq!(shown(bad), Err(AddressError::Control), "{bad:?}");
        }
    }

    #[test]
    fn a_message_id_is_a_dot_atom_whatever_the_job_id() {
        let id = JobId::parse("cron:clean<up>@x:1").expect("a valid id");
        assert_eq!(message_id(&id, 2, "b.com"), "<cron=3aclean=3cup=3e=40x=3a1.2@b.com>");
    }
}
