//! The `http` handler: one request to the operator's URL, and what the answer means.
//!
//! A failed status is called by its number, `Http503`, and tried again as the retry policy says if that may help (408,
//! 425, 429, 5xx), not before the answer's `Retry-After`. The attempt is spent: whoever wants a status to mean "not now"
//! says so in the step's `snooze`.
//!
//! A host may be anybody's, so one that cannot be reached concerns its own jobs only: their attempts are spent, and
//! [`hosts`] keeps them from holding the queue's slots. Where it is the one service behind the queue the step says
//! `when_down = "wait"`, and then the queue waits for it, at no cost of an attempt.
//!
//! Redirects are followed where the step says so, and only such as keep the method: a job that posts somewhere must not
//! end up with a GET elsewhere. Where a request may go at all is a matter of [`address`].

mod address;
mod hosts;
mod signature;
mod webhook;

use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Certificate, Client, ClientBuilder, Method, Response, StatusCode, Url};
use serde_json::{Value, json};

use super::{Halt, Run, response};
use crate::clock;
use crate::config::{self, HttpStep, RenderError, WhenDown};
use crate::job::Failure;

use address::{Guard, NotPublic};
use hosts::Hosts;

/// Bytes of an answer's body that a result holds.
const MAX_BODY: usize = 64 * 1024;
/// Bytes of a refusal's body that a failure holds.
const MAX_DETAIL: usize = 4 * 1024;
/// Longest wait for a connection; the whole request is bounded by the step's timeout and the job's.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a step without a timeout; the job's own ends it long before.
const UNBOUNDED: Duration = Duration::from_secs(30 * 24 * 3600);
/// Longest silence in the middle of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Http {
    guard: Guard,
    /// Connects to public addresses and to what the operator allows.
    guarded: Client,
    /// Connects anywhere: for hosts that stand in a step as they are.
    trusted: Client,
    /// For steps that do not wait for their service.
    hosts: Hosts,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("read the certificates in {}: {reason}", path.display())]
    Authority { path: std::path::PathBuf, reason: String },
    #[error("{0}")]
    Client(String),
}

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("{0}")]
    Render(#[from] RenderError),
    #[error("build the request: {0}")]
    Request(String),
    #[error("call {0}: it is not a public address; where requests may go all the same, [http] allow_private says")]
    NotPublic(String),
    #[error("call {host}: {reason}")]
    Connection { host: String, reason: String, was_connected: bool },
    #[error("call {host}: there was no whole answer within {}", humantime::format_duration(*.limit))]
    Timeout { host: String, limit: Duration },
    #[error("{reason}")]
    Snooze { delay: Option<Duration>, reason: String },
    #[error("call {host}: it answered {status}{}", redirect(.location, .kept_from))]
    Status {
        host: String,
        status: StatusCode,
        location: Option<String>,
        kept_from: &'static str,
        retry_after: Option<Duration>,
        body: String,
    },
}

/// A request that can be made again, elsewhere.
#[derive(Debug, Clone)]
struct Request {
    method: Method,
    url: Url,
    /// Whether the host is the operator's own word.
    trusted: bool,
    headers: HeaderMap,
    body: Option<String>,
}

/// How an exchange goes, whatever is asked.
#[derive(Debug, Clone, Copy)]
struct Manner<'a> {
    timeout: Option<Duration>,
    redirects: u8,
    snooze: &'a [u16],
    when_down: WhenDown,
}

impl<'a> Manner<'a> {
    fn of(step: &'a HttpStep) -> Self {
        let HttpStep { timeout, redirects, snooze, when_down, .. } = step;
        Self { timeout: *timeout, redirects: *redirects, snooze, when_down: *when_down }
    }
}

/// How long a whole exchange may take.
#[derive(Debug, Clone, Copy)]
struct Time {
    begun: Instant,
    limit: Duration,
}

impl Time {
    fn new(limit: Duration) -> Self {
        Self { begun: Instant::now(), limit }
    }

    fn left(self, now: Instant) -> Duration {
        self.limit.saturating_sub(now.saturating_duration_since(self.begun))
    }
}

impl Http {
    pub(super) fn new(config: &config::Http) -> Result<Self, SetupError> {
        let guard = Guard::new(&config.allow_private);
        let build =
            |builder: ClientBuilder| builder.build().map_err(|error| SetupError::Client(response::reason(error)));
        let guarded = build(client(config)?.dns_resolver(guard.clone()))?;
        Ok(Self { guard, guarded, trusted: build(client(config)?)?, hosts: Hosts::default() })
    }

    /// Returns `{"status": …, "body": …}`: JSON where the answer is, else text; cut at 64 KiB, and then
    /// `"truncated": true`.
    pub(super) async fn call(&self, step: &HttpStep, run: &Run<'_>) -> Result<Value, Halt> {
        self.perform(Manner::of(step), request(step, run)?).await
    }

    /// As [`Self::call`], of the request that the job's arguments describe.
    pub(super) async fn webhook(&self, run: &Run<'_>) -> Result<Value, Halt> {
        let (manner, request) = webhook::read(run.context.args())?;
        self.perform(manner, request).await
    }

    async fn perform(&self, manner: Manner<'_>, request: Request) -> Result<Value, Halt> {
        let (host, time) = (host(&request.url), Time::new(manner.timeout.unwrap_or(UNBOUNDED)));
        let exchange = tokio::time::timeout(time.limit, self.exchange(manner, request, time));
        let called = exchange.await.unwrap_or(Err(HttpError::Timeout { host, limit: time.limit }));
        called.map_err(|error| match manner.when_down {
            WhenDown::Wait if error.is_outage() => error.into_outage(),
            WhenDown::Wait | WhenDown::Retry => error.into(),
        })
    }

    /// One request, and those that it is redirected to.
    async fn exchange(&self, manner: Manner<'_>, mut request: Request, time: Time) -> Result<Value, HttpError> {
        for left in (0..=manner.redirects).rev() {
            let answer = match manner.when_down {
                WhenDown::Wait => self.send(&request).await?,
                WhenDown::Retry => self.send_to_known(&request, time).await?,
            };
            if manner.snooze.contains(&answer.status().as_u16()) {
                return Err(put_off(&host(&request.url), &answer));
            }
            match next(&request, &answer, left) {
                Hop::Here if answer.status().is_success() => return result(&request, answer).await,
                Hop::Here => return Err(refusal(&request, answer, "").await),
                Hop::Kept(why) => return Err(refusal(&request, answer, why).await),
                Hop::To(elsewhere) => request = *elsewhere,
            }
        }
        unreachable!("without a redirect left the last answer is kept")
    }

    /// Leaves a host alone that could not be reached lately.
    async fn send_to_known(&self, request: &Request, time: Time) -> Result<Response, HttpError> {
        let (authority, now) = (authority(&request.url), Instant::now());
        let left_alone = |left| left_alone(&authority, left);
        let pass = self.hosts.ask(&authority, now, time.left(now).min(CONNECT_TIMEOUT)).map_err(left_alone)?;
        let sent = tokio::time::timeout(time.left(now), self.send(request)).await;
        let late = || HttpError::Timeout { host: host(&request.url), limit: time.limit };
        let sent = sent.unwrap_or_else(|_| Err(late()));
        match &sent {
            Ok(_) => self.hosts.answered(&authority),
            Err(HttpError::Connection { .. } | HttpError::Timeout { .. }) => {
                self.hosts.lost(&authority, pass, Instant::now());
            }
            // Nobody was asked.
            Err(_) => {}
        }
        sent
    }

    async fn send(&self, request: &Request) -> Result<Response, HttpError> {
        let client = if request.trusted { &self.trusted } else { &self.guarded };
        if !request.trusted {
            self.guard.check(&request.url).map_err(|refused| HttpError::NotPublic(refused.host))?;
        }
        let mut builder = client.request(request.method.clone(), request.url.clone()).headers(request.headers.clone());
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let built = builder.build().map_err(|error| HttpError::Request(response::reason(error)))?;
        client.execute(built).await.map_err(|error| lost(&request.url, error))
    }
}

fn client(config: &config::Http) -> Result<ClientBuilder, SetupError> {
    let builder = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .user_agent(concat!("jobsd/", env!("CARGO_PKG_VERSION")));
    let Some(path) = &config.ca_file else { return Ok(builder) };
    let fail = |reason: String| SetupError::Authority { path: path.clone(), reason };
    let pem = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| fail(response::reason(error)))?;
    if authorities.is_empty() {
        return Err(fail("it holds no certificate".into()));
    }
    Ok(builder.tls_certs_merge(authorities))
}

fn request(step: &HttpStep, run: &Run<'_>) -> Result<Request, HttpError> {
    let values = run.context.values();
    let method = Method::from_bytes(step.method.to_ascii_uppercase().as_bytes())
        .map_err(|_| HttpError::Request(format!("`{}` is not a method", step.method)))?;
    let url = url(&step.url.render_url(values)?)?;
    let mut headers = headers(step, values)?;
    let body = match &step.body {
        Some(template) => Some(template.render(values)?),
        None if matches!(method, Method::POST | Method::PUT | Method::PATCH) => {
            Some(Value::Object(run.context.args().clone()))
        }
        None => None,
    };
    let body = body.map(|body| text(body, &mut headers));
    if !step.signing_keys.is_empty() {
        let id = signature::message_id(&run.job.id, run.step);
        let signed = body.as_deref().unwrap_or_default().as_bytes();
        signature::sign(&mut headers, &step.signing_keys, &id, clock::now(), signed);
    }
    let trusted = address::is_the_operators(&step.url, &url);
    Ok(Request { method, url, trusted, headers, body })
}

fn headers(step: &HttpStep, values: &Value) -> Result<HeaderMap, HttpError> {
    let mut headers = HeaderMap::new();
    for (name, template) in &step.headers {
        let key = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| HttpError::Request(format!("`{name}` is not a header's name")))?;
        let value = HeaderValue::from_str(&template.render(values)?).map_err(|_| {
            HttpError::Request(format!(
                "the value of `{name}` holds a line break, another control character or a letter outside ASCII"
            ))
        })?;
        headers.append(key, value);
    }
    Ok(headers)
}

/// The body as it is sent: JSON, unless the step gives a text and says that it is of another kind.
fn text(body: Value, headers: &mut HeaderMap) -> String {
    let json = "application/json";
    let kind = headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(json));
    match body {
        Value::String(text) if !kind.to_str().is_ok_and(|kind| kind.contains("json")) => text,
        body => body.to_string(),
    }
}

/// What follows from an answer.
enum Hop {
    /// Nothing: it is the answer.
    Here,
    To(Box<Request>),
    /// It is a redirect, and this keeps us from following.
    Kept(&'static str),
}

fn next(request: &Request, answer: &Response, left: u8) -> Hop {
    let same_method = match answer.status().as_u16() {
        307 | 308 => true,
        301..=303 => matches!(request.method, Method::GET | Method::HEAD),
        _ => return Hop::Here,
    };
    let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let Some(to) = location.and_then(|location| request.url.join(location).ok()) else { return Hop::Here };
    if left == 0 {
        return Hop::Kept("it is not followed: `redirects` of the step allows no further one");
    }
    if !same_method {
        return Hop::Kept("it is not followed: it would make the request a GET");
    }
    if !matches!(to.scheme(), "http" | "https") || (request.url.scheme() == "https" && to.scheme() == "http") {
        return Hop::Kept("it is not followed: it leaves https");
    }
    let same_origin = to.origin() == request.url.origin();
    let mut elsewhere = Request { url: to, trusted: request.trusted && same_origin, ..request.clone() };
    if !same_origin {
        // Whatever opens doors there is not meant for others; what was signed may be read by anybody who has the body.
        let meant = [CONTENT_TYPE, signature::ID, signature::TIMESTAMP, signature::SIGNATURE];
        elsewhere.headers = elsewhere
            .headers
            .into_iter()
            .filter_map(|(name, value)| name.filter(|name| meant.contains(name)).map(|name| (name, value)))
            .collect();
    }
    Hop::To(Box::new(elsewhere))
}

async fn result(request: &Request, answer: Response) -> Result<Value, HttpError> {
    let status = answer.status();
    let body = response::read(answer, MAX_BODY).await.map_err(|error| lost(&request.url, error))?;
    let mut result = json!({"status": status.as_u16(), "body": readable(&body.bytes)});
    if body.cut {
        result["truncated"] = json!(true);
    }
    Ok(result)
}

fn lost(url: &Url, error: reqwest::Error) -> HttpError {
    match NotPublic::behind(&error) {
        Some(refused) => HttpError::NotPublic(refused.host),
        None => {
            let was_connected = !error.is_connect();
            HttpError::Connection { host: host(url), reason: response::reason(error), was_connected }
        }
    }
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

/// The host and the port.
fn authority(url: &Url) -> String {
    format!("{}:{}", host(url), url.port_or_known_default().unwrap_or_default())
}

fn left_alone(authority: &str, left: Duration) -> HttpError {
    let left = Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0));
    let reason = format!(
        "{authority} could not be reached by the last requests to it, so it is left alone for {}",
        humantime::format_duration(left)
    );
    HttpError::Snooze { delay: Some(left), reason }
}

/// The URL parser would drop a line break silently; here it is refused.
fn url(text: &str) -> Result<Url, HttpError> {
    if text.chars().any(char::is_control) {
        return Err(HttpError::Request("the URL holds a line break or another control character".into()));
    }
    if has_dot_segment(text) {
        return Err(HttpError::Request("the path of the URL holds a `.` or `..`, which would leave its place".into()));
    }
    let url = Url::parse(text.trim()).map_err(|error| HttpError::Request(format!("the URL is not one: {error}")))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(HttpError::Request(format!("the URL starts with `{other}:`, not with `http:` or `https:`"))),
    }
}

/// As the parser would read it: `%2e` is a dot, and `\\` is a slash.
fn has_dot_segment(url: &str) -> bool {
    let path = url.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase().replace("%2e", ".");
    path.split(['/', '\\']).any(|segment| matches!(segment.trim(), "." | ".."))
}

fn put_off(host: &str, answer: &Response) -> HttpError {
    let reason = format!("{host} answered {}, which means \"not now\" here", answer.status());
    HttpError::Snooze { delay: response::retry_after(answer.headers(), clock::now().to_utc()), reason }
}

async fn refusal(request: &Request, answer: Response, kept_from: &'static str) -> HttpError {
    let status = answer.status();
    let retry_after = response::retry_after(answer.headers(), clock::now().to_utc());
    let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let location = location.filter(|_| status.is_redirection());
    let body = match response::read(answer, MAX_DETAIL).await {
        Ok(body) => String::from_utf8_lossy(&body.bytes).into_owned(),
        Err(_) => String::new(),
    };
    HttpError::Status { host: host(&request.url), status, location, kept_from, retry_after, body }
}

fn readable(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| json!(String::from_utf8_lossy(body)))
}

fn redirect(location: &Option<String>, kept_from: &str) -> String {
    match location {
        Some(to) if kept_from.is_empty() => format!(", a redirect to {to}"),
        Some(to) => format!(", a redirect to {to}; {kept_from}"),
        None => String::new(),
    }
}

impl HttpError {
    /// Whether it says that the service behind the URL works for nobody at the moment.
    fn is_outage(&self) -> bool {
        match self {
            Self::Connection { was_connected, .. } => !was_connected,
            Self::Status { status, retry_after, .. } => match status.as_u16() {
                502..=504 => true,
                429 => retry_after.is_some(),
                _ => false,
            },
            _ => false,
        }
    }

    fn into_outage(self) -> Halt {
        let retry_after = match &self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        };
        match Halt::from(self) {
            Halt::Failed(error) => Halt::Unavailable { error, retry_after },
            other => other,
        }
    }
}

impl From<HttpError> for Halt {
    fn from(error: HttpError) -> Self {
        let message = format!("failed to {error}");
        Self::Failed(match error {
            HttpError::Snooze { delay, reason } => return Self::Snoozed { delay, reason },
            HttpError::Render(error) => error.into(),
            HttpError::Request(_) => Failure::never("InvalidRequest", message),
            HttpError::NotPublic(_) => Failure::never("HttpAddressRefused", message),
            HttpError::Timeout { .. } => Failure::new("HttpTimeout", message),
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
