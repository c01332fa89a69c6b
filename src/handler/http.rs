//! The `http` handler: one request to the operator's URL, and what the answer means.
//!
//! A failed status is called by its number, `Http503`, and tried again as the retry policy says if that may help (408,
//! 425, 429, 5xx), not before the answer's `Retry-After`. The attempt is spent: whoever wants a status to mean "not now"
//! says so in the step's `snooze`.
//!
//! Redirects are not followed: a job that posts somewhere must not end up elsewhere, or as a GET.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde_json::{Value, json};

use super::{Halt, Run, response};
use crate::clock;
use crate::config::{HttpStep, RenderError};
use crate::job::Failure;

/// Bytes of an answer's body that a result holds.
const MAX_BODY: usize = 64 * 1024;
/// Bytes of a refusal's body that a failure holds.
const MAX_DETAIL: usize = 4 * 1024;
/// Longest wait for a connection; the whole request is bounded by the job's timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence in the middle of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Http {
    client: Client,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SetupError(String);

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("{0}")]
    Render(#[from] RenderError),
    #[error("build the request: {0}")]
    Request(String),
    #[error("call {host}: {reason}")]
    Connection { host: String, reason: String },
    #[error("{reason}")]
    Snooze { delay: Option<Duration>, reason: String },
    #[error("call {host}: it answered {status}{}", redirect(.location))]
    Status { host: String, status: StatusCode, location: Option<String>, retry_after: Option<Duration>, body: String },
}

impl Http {
    pub(super) fn new() -> Result<Self, SetupError> {
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("jobsd/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| SetupError(response::reason(error)))?;
        Ok(Self { client })
    }

    /// Returns `{"status": …, "body": …}`: JSON where the answer is, else text; cut at 64 KiB, and then
    /// `"truncated": true`.
    pub(super) async fn call(&self, step: &HttpStep, run: &Run<'_>) -> Result<Value, HttpError> {
        let request = self.request(step, run)?;
        let host = request.url().host_str().unwrap_or_default().to_owned();
        let lost = |error| HttpError::Connection { host: host.clone(), reason: response::reason(error) };
        let answer = self.client.execute(request).await.map_err(lost)?;
        if step.snooze.contains(&answer.status().as_u16()) {
            return Err(put_off(&host, &answer));
        }
        if !answer.status().is_success() {
            return Err(refusal(host, answer).await);
        }
        let status = answer.status();
        let body = response::read(answer, MAX_BODY).await.map_err(lost)?;
        let mut result = json!({"status": status.as_u16(), "body": readable(&body.bytes)});
        if body.cut {
            result["truncated"] = json!(true);
        }
        Ok(result)
    }

    fn request(&self, step: &HttpStep, run: &Run<'_>) -> Result<reqwest::Request, HttpError> {
        let values = run.context.values();
        let bad = |what: String| HttpError::Request(what);
        let method = Method::from_bytes(step.method.to_ascii_uppercase().as_bytes())
            .map_err(|_| bad(format!("`{}` is not a method", step.method)))?;
        let mut headers = HeaderMap::new();
        for (name, template) in &step.headers {
            let key =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad(format!("`{name}` is not a header's name")))?;
            let value = HeaderValue::from_str(&template.render(values)?)
                .map_err(|_| bad(format!("the value of `{name}` holds a line break or another control character")))?;
            headers.append(key, value);
        }
        let body = match &step.body {
            Some(template) => Some(template.render(values)?),
            None if matches!(method, Method::POST | Method::PUT | Method::PATCH) => {
                Some(Value::Object(run.context.args().clone()))
            }
            None => None,
        };
        let mut request = self.client.request(method, url(&step.url.render(values)?)?).headers(headers.clone());
        if let Some(body) = body {
            if !headers.contains_key(CONTENT_TYPE) {
                request = request.header(CONTENT_TYPE, "application/json");
            }
            request = request.body(body.to_string());
        }
        request.build().map_err(|error| bad(response::reason(error)))
    }
}

/// The URL parser would drop a line break silently; here it is refused.
fn url(text: &str) -> Result<Url, HttpError> {
    if text.chars().any(char::is_control) {
        return Err(HttpError::Request("the URL holds a line break or another control character".into()));
    }
    let url = Url::parse(text.trim()).map_err(|error| HttpError::Request(format!("the URL is not one: {error}")))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(HttpError::Request(format!("the URL starts with `{other}:`, not with `http:` or `https:`"))),
    }
}

fn put_off(host: &str, answer: &Response) -> HttpError {
    let reason = format!("{host} answered {}, which means \"not now\" here", answer.status());
    HttpError::Snooze { delay: response::retry_after(answer.headers(), clock::now().to_utc()), reason }
}

async fn refusal(host: String, answer: Response) -> HttpError {
    let status = answer.status();
    let retry_after = response::retry_after(answer.headers(), clock::now().to_utc());
    let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let location = location.filter(|_| status.is_redirection());
    let body = match response::read(answer, MAX_DETAIL).await {
        Ok(body) => String::from_utf8_lossy(&body.bytes).into_owned(),
        Err(_) => String::new(),
    };
    HttpError::Status { host, status, location, retry_after, body }
}

fn readable(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| json!(String::from_utf8_lossy(body)))
}

fn redirect(location: &Option<String>) -> String {
    location.as_ref().map(|to| format!(", a redirect to {to}; redirects are not followed")).unwrap_or_default()
}

impl From<HttpError> for Halt {
    fn from(error: HttpError) -> Self {
        let message = format!("failed to {error}");
        Self::Failed(match error {
            HttpError::Snooze { delay, reason } => return Self::Snoozed { delay, reason },
            HttpError::Render(error) => error.into(),
            HttpError::Request(_) => Failure::never("InvalidRequest", message),
            HttpError::Connection { .. } => Failure::new("HttpConnectError", message),
            HttpError::Status { status, retry_after, body, .. } => {
                let name = format!("Http{}", status.as_u16());
                let again = matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error();
                let failure = match (again, retry_after) {
                    (true, Some(span)) => Failure::new(name, message).after(span),
                    (true, None) => Failure::new(name, message),
                    (false, _) => Failure::never(name, message),
                };
                if body.is_empty() { failure } else { failure.with_detail(body) }
            }
        })
    }
}

#[cfg(test)]
mod tests;
