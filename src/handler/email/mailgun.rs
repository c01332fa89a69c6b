//! Mailgun, API v3: `POST /v3/DOMAIN/messages.mime`.
//!
//! The mail goes as MIME: the bytes that every other way of sending takes, with their Message-ID, which Mailgun keeps. It
//! documents no key that would make a repeat harmless; the key is also the variable `jobsd-key`, which its events repeat.
//!
//! | answer | meaning |
//! |---|---|
//! | 200 | taken |
//! | 400 | this mail is refused; an address, where the message says "not a valid address" |
//! | 401, 402, 403, 404 | the key, the account, or the domain: Mailgun calls its 404 temporal |
//! | 413 and other 4xx | this mail is refused |
//! | 429 | too many, for as long as the answer says |
//! | 408, 5xx but 504 | Mailgun's fault |
//!
//! Sources: "API Overview", "API Response Codes" and "Send HTTP" of Mailgun's documentation.

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;

use super::EmailError;
use super::api::{self, Answer, Api, Fault, SetupError};
use super::message::Mail;
use crate::config;

#[derive(Debug)]
pub(super) struct Mailgun {
    api: Api,
    url: String,
    authorization: HeaderValue,
}

impl Mailgun {
    pub(super) fn new(config: &config::Mailgun) -> Result<Self, SetupError> {
        let basic = format!("Basic {}", STANDARD.encode(format!("api:{}", config.api_key.expose())));
        Ok(Self {
            api: Api::new(config.timeout, "Mailgun")?,
            url: format!("{}/v3/{}/messages.mime", config.endpoint, config.domain),
            authorization: api::secret_header(&basic, "email.mailgun.api_key")?,
        })
    }

    /// Returns the id that Mailgun gave the mail.
    pub(super) async fn send(&self, mail: Mail) -> Result<Option<String>, EmailError> {
        let key = mail.key.clone();
        let (boundary, body) = form(mail)?;
        let request = self
            .api
            .client
            .post(&self.url)
            .header(AUTHORIZATION, self.authorization.clone())
            .header(CONTENT_TYPE, format!("multipart/form-data; boundary={boundary}"))
            .body(body);
        let answer = self.api.send(request, &key, sort, reason).await?;
        Ok(answer.json()["id"].as_str().map(str::to_owned))
    }
}

/// The form (RFC 7578), between boundaries that nothing in it can know.
fn form(mail: Mail) -> Result<(String, Vec<u8>), EmailError> {
    let boundary = format!("jobsd-{}", Uuid::new_v4().simple());
    let mut body = String::new();
    let recipients = mail.recipients().map(|address| ("to", address.bare()));
    for (name, value) in recipients.chain([("v:jobsd-key", mail.key.as_str())]) {
        body += &format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    }
    body += &format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"message\"; filename=\"message.eml\"\r\n\
         Content-Type: message/rfc822\r\n\r\n"
    );
    let mut body = body.into_bytes();
    body.extend(mail.into_wire()?.bytes);
    body.extend(format!("\r\n--{boundary}--\r\n").into_bytes());
    Ok((boundary, body))
}

fn sort(answer: &Answer) -> Fault {
    match answer.status.as_u16() {
        400 if reason(answer).is_some_and(|words| words.contains("not a valid address")) => Fault::Address,
        401..=404 => Fault::Credentials,
        429 => Fault::Throttled,
        408 | 500.. => Fault::Down,
        _ => Fault::Mail,
    }
}

/// Mailgun says `{"message": …}`, and to a wrong key one word without JSON.
fn reason(answer: &Answer) -> Option<String> {
    let said = answer.json()["message"].as_str().map(str::to_owned);
    said.or_else(|| answer.body.lines().next().filter(|line| !line.starts_with(['<', '{'])).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::email::api::tests::answer;

    #[test]
    fn refusals_are_sorted() {
        for (status, body, fault) in [
            (400, r#"{"message": "to parameter is not a valid address. please check documentation"}"#, Fault::Address),
            (400, r#"{"message": "from parameter is missing"}"#, Fault::Mail),
            (401, "Forbidden", Fault::Credentials),
            (403, r#"{"message": "Domain x is not allowed to send"}"#, Fault::Credentials),
            (404, r#"{"message": "Domain not found: x"}"#, Fault::Credentials),
            (413, "<html>", Fault::Mail),
            (429, r#"{"message": "too many"}"#, Fault::Throttled),
            (408, "", Fault::Down),
            (500, "", Fault::Down),
            (502, "<html>", Fault::Down),
        ] {
            assert_eq!(sort(&answer(status, &[], body)), fault, "{status} {body}");
        }
        assert_eq!(reason(&answer(401, &[], "Forbidden")).as_deref(), Some("Forbidden"));
        assert_eq!(reason(&answer(502, &[], "<html>")), None);
    }
}
