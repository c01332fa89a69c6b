//! What the HTTP interfaces of mail providers have in common: the client, a bounded answer, and what a refusal means.
//!
//! A provider sorts its refusals into [`Fault`]s by its own documentation; what follows from a fault is decided here.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder, StatusCode};

use super::key::SendKey;
use crate::clock;
use crate::handler::{Halt, response};
use crate::job::Failure;

/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 16 * 1024;
/// Bytes of a refusal that a failure holds.
const MAX_DETAIL: usize = 4 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// After a 429 that names no time itself.
const THROTTLED_WAIT: Duration = Duration::from_secs(5);

/// The header that an IETF draft gives to keys of this kind. None of the providers documents it; a gateway of one's own
/// at `endpoint` can drop repeats by it.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// One provider's interface.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) client: Client,
    provider: &'static str,
    timeout: Duration,
}

/// What a provider answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

/// What an answer other than a success means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The provider does not take an address of the mail: never again.
    Address,
    /// It does not take this mail: never again.
    Mail,
    /// Too much at a time: later. Where it says when, no mail of anybody's passes until then, so the queue waits.
    Throttled,
    /// It takes no mail from us: the operator's to mend, and the queue's to wait for.
    Credentials,
    /// It does not work at the moment, for nobody's mail: the queue waits.
    Down,
    /// It has the request and did not answer: the mail may have been taken.
    Silent,
}

#[derive(Debug, thiserror::Error)]
#[error("hand the mail to {provider}: {reason}")]
pub(in crate::handler) struct ApiError {
    provider: &'static str,
    fault: Fault,
    reason: String,
    retry_after: Option<Duration>,
    detail: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("prepare the HTTP client: {0}")]
    Client(String),
    #[error("read `{0}`: it holds a character that no HTTP header can carry")]
    Secret(&'static str),
}

impl Api {
    pub(super) fn new(timeout: Duration, provider: &'static str) -> Result<Self, SetupError> {
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT.min(timeout / 2))
            .user_agent(concat!("jobsd/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| SetupError::Client(response::reason(error)))?;
        Ok(Self { client, provider, timeout })
    }

    /// The answer of a success; else the refusal, as `sort` understands it. `reason` finds its words in the answer.
    pub(super) async fn send(
        &self,
        request: RequestBuilder,
        key: &SendKey,
        sort: fn(&Answer) -> Fault,
        reason: fn(&Answer) -> Option<String>,
    ) -> Result<Answer, ApiError> {
        let request = request.header(IDEMPOTENCY_KEY, key.as_str()).timeout(self.timeout);
        let answer = request.send().await.map_err(|error| self.lost(error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = match response::read(answer, MAX_ANSWER).await {
            Ok(body) => String::from_utf8_lossy(&body.bytes).into_owned(),
            // The status alone says whether the mail was taken.
            Err(_) => String::new(),
        };
        let answer = Answer { status, headers, body };
        if status.is_success() {
            return Ok(answer);
        }
        // A gateway that has not heard from the provider knows no more than we do.
        let fault = if status == StatusCode::GATEWAY_TIMEOUT { Fault::Silent } else { sort(&answer) };
        Err(self.refusal(&answer, fault, reason(&answer)))
    }

    /// Nobody answered. Only where no connection came about is it sure that the mail was not taken.
    fn lost(&self, error: reqwest::Error) -> ApiError {
        let fault = if error.is_connect() { Fault::Down } else { Fault::Silent };
        let reason = response::reason(error);
        ApiError { provider: self.provider, fault, reason, retry_after: None, detail: String::new() }
    }

    fn refusal(&self, answer: &Answer, fault: Fault, words: Option<String>) -> ApiError {
        let words = words.map(|words| words.chars().take(300).collect::<String>()).filter(|words| !words.is_empty());
        let reason = match words {
            Some(words) => format!("it answered {}: {words}", answer.status),
            None => format!("it answered {}", answer.status),
        };
        let detail: String = answer.body.chars().take(MAX_DETAIL).collect();
        ApiError { provider: self.provider, fault, reason, retry_after: answer.retry_after(), detail }
    }
}

impl Answer {
    /// When the provider wants to hear from us again: `Retry-After`, else the second at which its count begins anew.
    fn retry_after(&self) -> Option<Duration> {
        let now = clock::now().to_utc();
        response::retry_after(&self.headers, now).or_else(|| {
            let reset = self.headers.get("x-ratelimit-reset")?.to_str().ok()?.trim().parse().ok()?;
            let at = chrono::DateTime::from_timestamp(reset, 0)?;
            (self.status == StatusCode::TOO_MANY_REQUESTS).then(|| (at - now).to_std().unwrap_or_default())
        })
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// The value of a header that is a secret, if one can be.
pub(super) fn secret_header(text: &str, key: &'static str) -> Result<HeaderValue, SetupError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| SetupError::Secret(key))?;
    value.set_sensitive(true);
    Ok(value)
}

impl From<ApiError> for Halt {
    fn from(error: ApiError) -> Self {
        let message = format!("failed to {error}");
        let ApiError { fault, retry_after, detail, .. } = error;
        let detailed = |failure: Failure| if detail.is_empty() { failure } else { failure.with_detail(detail) };
        let unavailable = |failure| Self::Unavailable { error: failure, retry_after };
        match fault {
            Fault::Address => Self::Failed(detailed(Failure::never("InvalidAddress", message))),
            Fault::Mail => Self::Failed(detailed(Failure::never("MailRejected", message))),
            Fault::Throttled if retry_after.is_some() => unavailable(detailed(Failure::new("MailThrottled", message))),
            Fault::Throttled => Self::Failed(detailed(Failure::new("MailThrottled", message).after(THROTTLED_WAIT))),
            Fault::Silent => Self::Failed(Failure::new("MailTimeout", message)),
            Fault::Credentials => unavailable(detailed(Failure::new("MailCredentialsError", message))),
            Fault::Down => unavailable(detailed(Failure::new("MailUnavailable", message))),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::handler::email) fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        };
        Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: headers.iter().map(header).collect(),
            body: body.to_owned(),
        }
    }

    #[test]
    fn a_provider_says_when_it_wants_to_hear_from_us() {
        let seconds = |answer: Answer| answer.retry_after().map(|span| span.as_secs());
        assert_eq!(seconds(answer(503, &[("retry-after", "17")], "")), Some(17));
        let reset = (clock::now().to_utc().timestamp() + 60).to_string();
        let said = seconds(answer(429, &[("x-ratelimit-reset", &reset)], "")).expect("it was said");
        assert!((50..=60).contains(&said), "{said}");
        assert_eq!(seconds(answer(200, &[("x-ratelimit-reset", &reset)], "")), None);
        assert_eq!(seconds(answer(429, &[("x-ratelimit-reset", "soon")], "")), None);
    }
}
