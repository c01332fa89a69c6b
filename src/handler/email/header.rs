//! Header fields as arguments give them: a [`HeaderText`] is one line and stays one, a [`Header`] is none of jobsd's own.
//!
//! Both can be made in one way only, by reading them here.

use lettre::message::header::{HeaderName, HeaderValue, Headers};
use reqwest::Url;
use serde_json::Value;

/// Headers that the mail gets from elsewhere, or that would change who gets it or how it is read.
const OWN: [&str; 18] = [
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
    "return-path",
    "received",
    "dkim-signature",
    "x-sg-id",
    "x-sg-eid",
];
/// A mail's line has at most 998 bytes (RFC 5322, 2.1.1), and a word is not cut.
const LONGEST: usize = 900;
/// Links to unsubscribe that a mail has.
const LINKS: usize = 4;

/// Text that can stand in a header, whatever was put into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeaderText(String);

/// Why a text cannot stand in a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TextError {
    #[error("it holds a line break or another control character")]
    Control,
    #[error("it holds a character that turns the direction of writing around")]
    Reversed,
    #[error("it holds an encoded word (=?…?=), which would be read as something else")]
    Encoded,
    #[error("it has {0} bytes, at most {LONGEST} are allowed")]
    TooLong(usize),
}

/// A header field of the operator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    name: String,
    value: HeaderText,
}

/// Why a header cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("write the mail's `{name}`: {error}")]
    Text { name: String, error: TextError },
    #[error("write the mail's `{0}`: this header is jobsd's own, or not a header's name")]
    Name(String),
    #[error("write the mail's `unsubscribe`: `{0}` is not an `https:` or `mailto:` link")]
    Link(String),
    #[error("write the mail's `unsubscribe`: it is neither a link nor an array of at most {LINKS} links")]
    Links,
}

impl HeaderText {
    pub(super) fn parse(text: String) -> Result<Self, TextError> {
        // Line and paragraph separators are no controls to Unicode, and line breaks to some readers.
        let is_control = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        if text.chars().any(is_control) {
            return Err(TextError::Control);
        }
        // The overrides only: embeddings and isolates are in the names of people who write from right to left.
        if text.contains(['\u{202d}', '\u{202e}']) {
            return Err(TextError::Reversed);
        }
        if text.split_once("=?").is_some_and(|(_, rest)| rest.contains("?=")) {
            return Err(TextError::Encoded);
        }
        if text.len() > LONGEST {
            return Err(TextError::TooLong(text.len()));
        }
        Ok(Self(text))
    }

    /// The text under the name of a mail's field.
    pub(super) fn of(name: &str, text: String) -> Result<Self, HeaderError> {
        Self::parse(text).map_err(|error| HeaderError::Text { name: name.to_owned(), error })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Header {
    pub(super) fn new(name: &str, value: String) -> Result<Self, HeaderError> {
        let value = HeaderText::of(name, value)?;
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let own = OWN.contains(&name.to_ascii_lowercase().as_str());
        if own || name.is_empty() || name.len() > 76 || !name.chars().all(token) {
            return Err(HeaderError::Name(name.to_owned()));
        }
        Ok(Self { name: name.to_owned(), value })
    }

    /// `List-Unsubscribe`, and where one of the links is `https:`, that one click is enough (RFC 8058).
    pub(super) fn unsubscribe(links: &Value) -> Result<Vec<Self>, HeaderError> {
        let links: Vec<&Value> = match links {
            Value::Null => return Ok(Vec::new()),
            Value::String(text) if text.trim().is_empty() => return Ok(Vec::new()),
            Value::String(_) => vec![links],
            Value::Array(links) if links.len() <= LINKS => links.iter().collect(),
            _ => return Err(HeaderError::Links),
        };
        let links: Vec<String> = links.into_iter().map(link).collect::<Result<_, _>>()?;
        let mut headers = Vec::new();
        if !links.is_empty() {
            headers.push(Self::new("List-Unsubscribe", links.join(", "))?);
        }
        if links.iter().any(|link| link.starts_with("<https:")) {
            headers.push(Self::new("List-Unsubscribe-Post", "List-Unsubscribe=One-Click".to_owned())?);
        }
        Ok(headers)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// As it stands in the mail: other than ASCII as encoded words (RFC 2047).
    pub(super) fn encoded(&self) -> String {
        let mut headers = Headers::new();
        headers.insert_raw(self.to_lettre());
        let line = headers.to_string().replace("\r\n ", " ");
        line.split_once(": ").map_or("", |(_, value)| value).trim_end().to_owned()
    }

    pub(super) fn to_lettre(&self) -> HeaderValue {
        let name =
            HeaderName::new_from_ascii(self.name.clone()).expect("the name is a token of less than 77 characters");
        HeaderValue::new(name, self.value.0.clone())
    }
}

/// A link between angle brackets, with everything in it escaped that could end it.
fn link(value: &Value) -> Result<String, HeaderError> {
    let text = value.as_str().ok_or(HeaderError::Links)?;
    let bad = || HeaderError::Link(text.chars().take(200).collect());
    HeaderText::of("unsubscribe", text.to_owned())?;
    let url = Url::parse(text.trim()).map_err(|_| bad())?;
    let link = url.as_str();
    let clean = !link.contains(|c: char| c.is_whitespace() || "<>,\"".contains(c)) && link.is_ascii();
    match url.scheme() {
        "https" | "mailto" if clean => Ok(format!("<{link}>")),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_header_stays_one_line() {
        for bad in ["a\r\nBcc: x", "a\nb", "a\rb", "a\0b", "a\u{85}b", "a\u{2028}b", "a\tb", "a\u{7f}"] {
            assert_eq!(HeaderText::parse(bad.into()), Err(TextError::Control), "{bad:?}");
        }
        // Letters whose last byte is that of a line break, for software that cuts what it does not know.
        let cut = HeaderText::parse("\u{560a}\u{560d}\u{10a}\u{10d}".into()).expect("letters are letters");
        let header = Header { name: "X-Tag".into(), value: cut };
        assert!(header.encoded().is_ascii() && header.encoded().starts_with("=?utf-8?"), "{}", header.encoded());
        assert_eq!(HeaderText::parse("x".repeat(901)), Err(TextError::TooLong(901)));
        assert!(HeaderText::parse("Is 2 =? 2 ?".into()).is_ok());
    }

    #[test]
    fn names_are_tokens_and_not_ours() {
        for bad in
            ["", "Bcc", "bCC", "X-Tag:", "X Tag", "X\r\nBcc", "Résumé", "message-ID", "Return-Path", &"x".repeat(77)]
        {
            assert!(matches!(Header::new(bad, "x".into()), Err(HeaderError::Name(_))), "{bad}");
        }
        let header = Header::new("X-Job", "plain text".into()).expect("it is one");
        assert_eq!((header.name(), header.encoded().as_str()), ("X-Job", "plain text"));
    }

    #[test]
    fn links_to_unsubscribe() {
        let shown = |links: Value| {
            let headers = Header::unsubscribe(&links)?;
            Ok(headers.iter().map(|header| format!("{}: {}", header.name, header.value.0)).collect::<Vec<_>>())
        };
        let post = "List-Unsubscribe-Post: List-Unsubscribe=One-Click";
        let both = json!(["https://x.test/u?t=a%2Cb&c=d e", "mailto:leave@x.test?subject=unsubscribe"]);
        let expected =
            "List-Unsubscribe: <https://x.test/u?t=a%2Cb&c=d%20e>, <mailto:leave@x.test?subject=unsubscribe>";
        assert_eq!(shown(both), Ok(vec![expected.to_owned(), post.to_owned()]));
        assert_eq!(shown(json!("mailto:leave@x.test")), Ok(vec!["List-Unsubscribe: <mailto:leave@x.test>".to_owned()]));
        for none in [json!(null), json!(""), json!([])] {
            assert_eq!(shown(none), Ok(Vec::new()));
        }
        for bad in [
            "http://x.test/",
            "javascript:alert(1)",
            "x.test",
            "https://x.test/>, <https://evil.test/",
            "https://x.test/a,b",
        ] {
            assert_eq!(shown(json!(bad)), Err(HeaderError::Link(bad.to_owned())), "{bad}");
        }
        assert!(shown(json!("https://x.test/\r\nBcc: a@b.c")).is_err());
        assert_eq!(shown(json!({"a": 1})), Err(HeaderError::Links));
    }
}
