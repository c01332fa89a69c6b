//! SendGrid, Web API v3: `POST /v3/mail/send`.
//!
//! Its interface takes a mail in parts, so the Message-ID and the key travel as headers. It documents no key that would
//! make a repeat harmless; the key is also a custom argument, which its event webhook repeats as `jobsd_key`.
//!
//! | answer | meaning | source |
//! |---|---|---|
//! | 202 | taken | "Mail Send" of its API reference, as all below |
//! | 400 | this mail is refused; an address, where the error's `field` is one | "Mail Send Errors" |
//! | 413, 451 and other 4xx | this mail is refused: too large, not allowed in this region | "Errors" |
//! | 403 whose `field` is `from` | this mail is refused: its sender was not verified | "Sender Identity" |
//! | 401, other 403 | the key, or what it may do: no mail is taken | "Errors" |
//! | 429 | too many; `X-RateLimit-Reset` is a second of the epoch | "Rate Limits" |
//! | 408, 5xx but 504 | SendGrid's fault | "Errors" |

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde_json::{Map, Value, json};

use super::EmailError;
use super::address::Address;
use super::api::{self, Answer, Api, Fault, SetupError};
use super::message::Mail;
use crate::config;

#[derive(Debug)]
pub(super) struct SendGrid {
    api: Api,
    url: String,
    authorization: HeaderValue,
}

impl SendGrid {
    pub(super) fn new(config: &config::SendGrid) -> Result<Self, SetupError> {
        let bearer = format!("Bearer {}", config.api_key.expose());
        Ok(Self {
            api: Api::new(config.timeout, "SendGrid")?,
            url: format!("{}/v3/mail/send", config.endpoint),
            authorization: api::secret_header(&bearer, "email.sendgrid.api_key")?,
        })
    }

    /// Returns SendGrid's own id of the mail.
    pub(super) async fn send(&self, mail: &Mail) -> Result<Option<String>, EmailError> {
        let request =
            self.api.client.post(&self.url).header(AUTHORIZATION, self.authorization.clone()).json(&body(mail));
        let answer = self.api.send(request, &mail.key, sort, reason).await?;
        Ok(answer.headers.get("x-message-id").and_then(|id| id.to_str().ok()).map(str::to_owned))
    }
}

fn body(mail: &Mail) -> Value {
    let mut personalization = json!({"to": [party(&mail.to)], "custom_args": {"jobsd_key": mail.key.as_str()}});
    for (field, addresses) in [("cc", &mail.cc), ("bcc", &mail.bcc)] {
        if !addresses.is_empty() {
            personalization[field] = addresses.iter().map(party).collect();
        }
    }
    let mut headers = Map::from_iter([("Message-ID".to_owned(), json!(mail.message_id()))]);
    for header in mail.headers.iter().chain([&mail.key_header()]) {
        headers.insert(header.name().to_owned(), json!(header.encoded()));
    }
    let mut content = vec![json!({"type": "text/plain", "value": mail.body.text})];
    content.extend(mail.body.html.as_ref().map(|html| json!({"type": "text/html", "value": html})));
    let mut body = json!({
        "personalizations": [personalization],
        "from": party(&mail.from),
        "subject": mail.subject.as_str(),
        "content": content,
        "headers": headers,
    });
    if let Some(reply_to) = &mail.reply_to {
        body["reply_to"] = party(reply_to);
    }
    if !mail.attachments.is_empty() {
        body["attachments"] = mail.attachments.iter().map(attachment).collect();
    }
    body
}

fn party(address: &Address) -> Value {
    match address.name() {
        Some(name) => json!({"email": address.bare(), "name": name}),
        None => json!({"email": address.bare()}),
    }
}

fn attachment(file: &super::attachment::Attachment) -> Value {
    json!({
        "content": STANDARD.encode(&file.bytes),
        "type": file.media_type,
        "filename": file.name.as_str(),
        "disposition": "attachment",
    })
}

fn sort(answer: &Answer) -> Fault {
    match answer.status.as_u16() {
        403 if fields(answer).iter().any(|field| field.starts_with("from")) => Fault::Mail,
        401 | 403 => Fault::Credentials,
        429 => Fault::Throttled,
        400 if names_an_address(answer) => Fault::Address,
        408 | 500.. => Fault::Down,
        _ => Fault::Mail,
    }
}

/// `personalizations.0.to.0.email`, in an error that says "Does not contain a valid address."
fn names_an_address(answer: &Answer) -> bool {
    fields(answer).iter().any(|field| field.ends_with(".email") && field != "from.email")
}

/// What its errors are about.
fn fields(answer: &Answer) -> Vec<String> {
    let errors = answer.json()["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().filter_map(|error| error["field"].as_str().map(str::to_owned)).collect()
}

fn reason(answer: &Answer) -> Option<String> {
    let errors = answer.json()["errors"].as_array().cloned()?;
    let words: Vec<String> = errors.iter().filter_map(|error| error["message"].as_str().map(str::to_owned)).collect();
    Some(words.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::email::api::tests::answer;

    #[test]
    fn refusals_are_sorted() {
        let error = |field: &str| json!({"errors": [{"message": "m", "field": field, "help": null}]}).to_string();
        for (status, body, fault) in [
            (400, error("personalizations.0.to.0.email"), Fault::Address),
            (400, error("personalizations.0.bcc.1.email"), Fault::Address),
            (400, error("from.email"), Fault::Mail),
            (400, error("subject"), Fault::Mail),
            (400, String::from("not JSON"), Fault::Mail),
            (401, String::new(), Fault::Credentials),
            (403, error("from"), Fault::Mail),
            (403, String::from("{}"), Fault::Credentials),
            (404, String::new(), Fault::Mail),
            (406, String::new(), Fault::Mail),
            (408, String::new(), Fault::Down),
            (413, String::new(), Fault::Mail),
            (429, String::new(), Fault::Throttled),
            (451, String::new(), Fault::Mail),
            (500, String::new(), Fault::Down),
            (503, String::new(), Fault::Down),
        ] {
            assert_eq!(sort(&answer(status, &[], &body)), fault, "{status} {body}");
        }
    }
}
