//! Mail addresses as arguments give them: exactly one each, with nothing in it that could become a second one.
//!
//! An [`Address`] can be made in one way only, by reading it here; whoever has one need not look at it again.

use lettre::message::Mailbox;
use reqwest::Url;

use super::header::{HeaderText, TextError};

/// Longest address that mail servers take (RFC 5321, 4.5.3.1.3, less the angle brackets).
const LONGEST: usize = 254;

/// One mail address, with the name of whom it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    name: Option<HeaderText>,
    /// The domain is in its ASCII form.
    address: lettre::Address,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("{0}")]
    Text(#[from] TextError),
    #[error("`{0}` is not one mail address")]
    Invalid(String),
    #[error("it is {0}, where an address or an array of addresses is expected")]
    Shape(&'static str),
    #[error("the part of `{0}` before the @ is not ASCII, which this provider does not take")]
    NotAscii(String),
}

impl Address {
    /// Reads `address`, `Name <address>` or `"Name" <address>`.
    pub(super) fn parse(text: &str) -> Result<Self, AddressError> {
        let text = HeaderText::parse(text.trim().to_owned())?;
        let text = text.as_str();
        let invalid = || AddressError::Invalid(text.to_owned());
        let (name, address) = match text.strip_suffix('>') {
            Some(rest) => rest.rsplit_once('<').ok_or_else(invalid)?,
            None => ("", text),
        };
        let name = name.trim();
        let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name);
        let name = (!name.is_empty()).then(|| HeaderText::parse(name.to_owned())).transpose()?;
        let (local, domain) = address.trim().rsplit_once('@').ok_or_else(invalid)?;
        let domain = ascii_domain(domain).filter(|_| is_local(local)).ok_or_else(invalid)?;
        let address = lettre::Address::new(local, &domain).map_err(|_| invalid())?;
        let length = local.len() + 1 + domain.len();
        if length > LONGEST { Err(invalid()) } else { Ok(Self { name, address }) }
    }

    /// The address without the name.
    pub(super) fn bare(&self) -> &str {
        self.address.as_ref()
    }

    pub(super) fn domain(&self) -> &str {
        self.address.domain()
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_ref().map(HeaderText::as_str)
    }

    /// Servers may tell upper from lower case before the `@`; none in use does.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.bare().eq_ignore_ascii_case(other.bare())
    }

    /// # Errors
    /// [`AddressError::NotAscii`]: only servers that speak SMTPUTF8 take the address.
    pub(super) fn in_ascii(&self) -> Result<&str, AddressError> {
        if self.bare().is_ascii() { Ok(self.bare()) } else { Err(AddressError::NotAscii(self.bare().to_owned())) }
    }

    pub(super) fn to_mailbox(&self) -> Mailbox {
        Mailbox::new(self.name().map(str::to_owned), self.address.clone())
    }
}

/// A dot-atom (RFC 5322, 3.2.3) with letters of any script (RFC 6531). Quoted ones are legal, used by nobody, and good
/// for hiding a second address.
fn is_local(local: &str) -> bool {
    let fits = |c: char| match c.is_ascii() {
        true => c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c),
        false => c.is_alphanumeric(),
    };
    !local.is_empty() && local.chars().all(fits)
}

/// The domain as DNS knows it. A host's name by the rules of URLs is stricter than what mail allows: no look-alike of
/// a separator passes, because it is mapped to what it stands for first.
fn ascii_domain(domain: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_';
    if domain.chars().any(|c| c.is_ascii() && !plain(c)) || domain.is_empty() {
        return None;
    }
    if domain.is_ascii() {
        return domain.parse::<std::net::IpAddr>().is_err().then(|| domain.to_owned());
    }
    let url = Url::parse(&format!("http://{domain}/")).ok()?;
    url.domain().filter(|host| host.chars().all(plain) && url.path() == "/").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, AddressError> {
        Address::parse(text).map(|address| address.to_mailbox().to_string())
    }

    #[test]
    fn one_address_in_the_forms_people_write() {
        for (text, expected) in [
            ("a@b.com", "a@b.com"),
            (" HireMeBahamas <no-reply@b.com> ", "HireMeBahamas <no-reply@b.com>"),
            ("\"Bahamas, Inc.\" <a@b.com>", "\"Bahamas, Inc.\" <a@b.com>"),
            ("o'neil+jobs@mail.b-c.co.uk", "o'neil+jobs@mail.b-c.co.uk"),
            ("zoe@exämple.org", "zoe@xn--exmple-cua.org"),
            ("zoë@example.org", "zoë@example.org"),
            ("root@localhost", "root@localhost"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
        }
        assert!(matches!(Address::parse("zoë@b.com").expect("it is one").in_ascii(), Err(AddressError::NotAscii(_))));
    }

    #[test]
    fn what_could_be_two_or_none_is_refused() {
        let long = format!("{}@b.com", "a".repeat(300));
        for bad in [
            "",
            "nobody",
            "@b.com",
            "a@",
            "a@b.com, c@d.com",
            "a@b.com c@d.com",
            "<a@b.com",
            "a@b@c.com>",
            "\"a@b.com, c\"@d.com",
            "\"a\"@b.com",
            "a(comment)@b.com",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "a@b.com:25",
            "a@b.com/x",
            "a@b%2ecom",
            "a@b\u{ff0f}c.com",
            "a@b.com\u{ff20}evil.com",
            "a@b.com\u{ff0c}c@d.com",
            "a\u{ff20}b.com",
            "a@b..com",
            "a..b@c.com",
            &long,
        ] {
            assert!(matches!(shown(bad), Err(AddressError::Invalid(_))), "{bad}: {:?}", shown(bad));
        }
        for bad in ["a@b.com\r\nBcc: c@d.com", "Eve\n <a@b.com>", "a@b\0.com", "a@b.com\u{85}x", "a@b\u{2028}.com"] {
            assert_eq!(shown(bad), Err(AddressError::Text(TextError::Control)), "{bad:?}");
        }
        assert_eq!(shown("=?utf-8?q?Eve=0A?= <a@b.com>"), Err(AddressError::Text(TextError::Encoded)));
        assert_eq!(shown("\u{202e}moc.b@a <a@b.com>"), Err(AddressError::Text(TextError::Reversed)));
    }
}
