//! Amazon SES, API v2: `POST /v2/email/outbound-emails`, signed.
//!
//! The mail goes as `Raw`: the bytes that every other way of sending takes, with any header and file; `Simple` would have
//! SES write the mail, with fifteen headers at most. SES replaces the Message-ID by its own and documents no key that
//! would make a repeat harmless; the key stands in `X-Jobsd-Key` and in the tag `jobsd-key`, which its events repeat.
//!
//! | answer | meaning |
//! |---|---|
//! | 200 | taken |
//! | `MessageRejected`, `BadRequestException`, `ValidationError` and any other 4xx | this mail is refused |
//! | `TooManyRequestsException`, `LimitExceededException`, `ThrottlingException`, 429 | too many at a time, or today |
//! | `AccountSuspendedException`, `SendingPausedException`, `MailFromDomainNotVerifiedException`, `NotFoundException` (the configuration set), 401, 403, `RequestExpired` (our clock) | the account's to mend |
//! | `RequestTimeoutException`, `RequestAbortedException`, 408, 5xx but 504 | AWS's fault |
//!
//! Sources: "SendEmail" and "Common Errors" of the SES API v2 reference.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

use super::EmailError;
use super::address::Address;
use super::api::{self, Answer, Api, Fault, SetupError};
use super::message::Mail;
use super::sigv4::{Request, Signer, date_header};
use crate::clock;
use crate::config;

const JSON: &str = "application/json";
/// The tag that carries the key.
const TAG: &str = "jobsd-key";

#[derive(Debug)]
pub(super) struct Ses {
    api: Api,
    config: config::Ses,
    url: Url,
    session_token: Option<HeaderValue>,
}

impl Ses {
    pub(super) fn new(config: &config::Ses) -> Result<Self, SetupError> {
        let url = Url::parse(&format!("{}/v2/email/outbound-emails", config.endpoint));
        let token = config.session_token.as_ref();
        let token = token.map(|token| api::secret_header(token.expose(), "email.ses.session_token")).transpose()?;
        // It stands in a header as it is.
        api::secret_header(config.access_key.expose(), "email.ses.access_key")?;
        Ok(Self {
            api: Api::new(config.timeout, "SES")?,
            config: config.clone(),
            url: url.map_err(|error| SetupError::Client(format!("read `email.ses.endpoint`: {error}")))?,
            session_token: token,
        })
    }

    /// Returns the id that SES gave the mail: the part before the `@` of its Message-ID.
    pub(super) async fn send(&self, mail: Mail) -> Result<Option<String>, EmailError> {
        let key = mail.key.clone();
        let body = self.body(mail)?.to_string();
        let request = self.signed(body, clock::now().to_utc());
        let answer = self.api.send(request, &key, sort, reason).await?;
        Ok(answer.json()["MessageId"].as_str().map(str::to_owned))
    }

    fn body(&self, mail: Mail) -> Result<Value, EmailError> {
        let bare = |addresses: &[Address]| addresses.iter().map(|address| json!(address.bare())).collect::<Vec<_>>();
        let mut body = json!({
            "FromEmailAddress": mail.from.bare(),
            "Destination": {
                "ToAddresses": [mail.to.bare()],
                "CcAddresses": bare(&mail.cc),
                "BccAddresses": bare(&mail.bcc),
            },
            "EmailTags": [{"Name": TAG, "Value": mail.key.as_str()}],
        });
        if let Some(set) = &self.config.configuration_set {
            body["ConfigurationSetName"] = json!(set);
        }
        body["Content"] = json!({"Raw": {"Data": STANDARD.encode(mail.into_wire()?.bytes)}});
        Ok(body)
    }

    fn signed(&self, body: String, at: chrono::DateTime<chrono::Utc>) -> reqwest::RequestBuilder {
        let date = date_header(at);
        let host = match self.url.port() {
            Some(port) => format!("{}:{port}", self.url.host_str().unwrap_or_default()),
            None => self.url.host_str().unwrap_or_default().to_owned(),
        };
        let token = self.config.session_token.as_ref().map(|token| ("x-amz-security-token", token.expose()));
        let headers: Vec<(&str, &str)> =
            [("content-type", JSON), ("host", &host), ("x-amz-date", &date)].into_iter().chain(token).collect();
        let signer = Signer {
            access_key: self.config.access_key.expose(),
            secret_key: self.config.secret_key.expose(),
            region: &self.config.region,
            service: "ses",
        };
        let request = Request { method: "POST", path: self.url.path(), headers: &headers, body: body.as_bytes() };
        let authorization = signer.authorization(&request, at);
        let mut request = self.api.client.post(self.url.clone()).header(CONTENT_TYPE, JSON).header("x-amz-date", date);
        if let Some(token) = &self.session_token {
            request = request.header("x-amz-security-token", token.clone());
        }
        request.header(AUTHORIZATION, authorization).body(body)
    }
}

fn sort(answer: &Answer) -> Fault {
    match (error_type(answer).as_str(), answer.status.as_u16()) {
        ("TooManyRequestsException" | "LimitExceededException" | "ThrottlingException" | "Throttling", _)
        | (_, 429) => Fault::Throttled,
        (
            "AccountSuspendedException"
            | "SendingPausedException"
            | "MailFromDomainNotVerifiedException"
            | "NotFoundException"
            | "RequestExpired",
            _,
        )
        | (_, 401 | 403) => Fault::Credentials,
        ("RequestTimeoutException" | "RequestAbortedException", _) | (_, 408 | 500..) => Fault::Down,
        _ => Fault::Mail,
    }
}

/// The error's name stands in a header, in some answers with an address behind it, or in the body.
fn error_type(answer: &Answer) -> String {
    let header = answer.headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = || answer.json()["__type"].as_str().map(str::to_owned);
    let name = header.or_else(body).unwrap_or_default();
    let name = name.split(':').next().unwrap_or_default();
    name.rsplit('#').next().unwrap_or_default().to_owned()
}

fn reason(answer: &Answer) -> Option<String> {
    let body = answer.json();
    let message = body["message"].as_str().or_else(|| body["Message"].as_str()).unwrap_or_default();
    match (error_type(answer), message) {
        (name, "") => Some(name),
        (name, message) if name.is_empty() => Some(message.to_owned()),
        (name, message) => Some(format!("{name}: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::email::api::tests::answer;

    #[test]
    fn refusals_are_sorted() {
        for (status, name, fault) in [
            (400, "MessageRejected", Fault::Mail),
            (400, "BadRequestException:http://internal.amazon.com/coral/com.amazonaws/", Fault::Mail),
            (400, "ValidationError", Fault::Mail),
            (413, "RequestEntityTooLargeException", Fault::Mail),
            (429, "TooManyRequestsException", Fault::Throttled),
            (400, "LimitExceededException", Fault::Throttled),
            (400, "ThrottlingException", Fault::Throttled),
            (400, "AccountSuspendedException", Fault::Credentials),
            (400, "SendingPausedException", Fault::Credentials),
            (400, "MailFromDomainNotVerifiedException", Fault::Credentials),
            (404, "NotFoundException", Fault::Credentials),
            (400, "RequestExpired", Fault::Credentials),
            (403, "SignatureDoesNotMatch", Fault::Credentials),
            (403, "InvalidClientTokenId", Fault::Credentials),
            (408, "RequestTimeoutException", Fault::Down),
            (500, "InternalFailure", Fault::Down),
            (503, "ServiceUnavailable", Fault::Down),
        ] {
            let refused = answer(status, &[("x-amzn-errortype", name)], r#"{"message": "words"}"#);
            assert_eq!(sort(&refused), fault, "{status} {name}");
            let expected = format!("{}: words", name.split(':').next().unwrap_or_default());
            assert_eq!(reason(&refused), Some(expected));
        }
        let in_body = answer(400, &[], r#"{"__type": "com.amazonaws.sesv2#SendingPausedException"}"#);
        assert_eq!(sort(&in_body), Fault::Credentials);
    }
}
