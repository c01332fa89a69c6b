//! Errors as the client sees them: `application/problem+json` (RFC 9457), and what the log is told beside it.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{self, HeaderName, HeaderValue};
use serde::Serialize;

use super::answer::{Answer, json_of};
use crate::broker::Holder;
use crate::job::State;
use crate::store::{LinkError, Refusal, Report, size};

/// When to ask again for what cannot be done now.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What went wrong, as a closed set: each has its status, its `type` and its `title`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProblemKind {
    /// The request is not HTTP as we understand it.
    BadRequest,
    MalformedJson,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    SlowBody,
    IdExists,
    /// Another job holds the unique key.
    KeyHeld,
    /// The job or queue stands otherwise than the request needs.
    Unfit,
    TooLarge,
    /// The request was understood and cannot be done as it stands; `errors` says where.
    Invalid,
    ReloadRefused,
    Internal,
    /// Not now: Redis is away, or the daemon is not ready.
    Unavailable,
    /// Redis has no memory for more.
    Full,
}

/// A request that was not done.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) kind: ProblemKind,
    /// What the client is told.
    detail: String,
    errors: Vec<FieldError>,
    /// Where the job stands that the request does not fit.
    state: Option<State>,
    /// The job that is in the way. In a box, because a refusal is handed up through many hands.
    holder: Option<Box<ShownHolder>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What the log is told, when that is more than the client's business.
    pub(super) log: Option<String>,
}

/// One thing that is wrong with the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct FieldError {
    /// A JSON pointer (RFC 6901) into the request's body, empty for the whole; `?name` for a field of the query.
    pub(super) pointer: String,
    pub(super) detail: String,
}

/// The body: `{"type", "title", "status", "detail", "errors"?, "state"?, "holder"?}`.
#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<&'a ShownHolder>,
}

/// A job that holds a unique key, as it is shown.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ShownHolder {
    id: String,
    /// Absent of one that has ended and is deleted, while the time of its hold is not over.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    since: String,
    /// The latest. Absent: only what becomes of the job decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    free_at: Option<String>,
}

impl ShownHolder {
    pub(super) fn of(holder: &Holder) -> Self {
        Self {
            id: holder.id.to_string(),
            state: holder.state,
            since: holder.since.to_string(),
            free_at: holder.free_at.map(|free| free.to_string()),
        }
    }
}

impl ProblemKind {
    fn facts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "bad-request", "the request is malformed"),
            Self::MalformedJson => (StatusCode::BAD_REQUEST, "malformed-json", "the body is not JSON"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "a token is needed"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "the request is not allowed"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "there is nothing here"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "this path does not take this method")
            }
            Self::SlowBody => (StatusCode::REQUEST_TIMEOUT, "slow-body", "the body did not come in time"),
            Self::IdExists => (StatusCode::CONFLICT, "id-exists", "this id is taken"),
            Self::KeyHeld => (StatusCode::CONFLICT, "key-held", "another job holds the unique key"),
            Self::Unfit => (StatusCode::CONFLICT, "unfit", "this does not fit the state it is in"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the body is too large"),
            Self::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "the request cannot be done as it stands"),
            Self::ReloadRefused => {
                (StatusCode::UNPROCESSABLE_ENTITY, "reload-refused", "the configuration was not changed")
            }
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "something went wrong inside jobsd"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "this cannot be done now"),
            Self::Full => (StatusCode::INSUFFICIENT_STORAGE, "redis-full", "Redis has no memory for more"),
        }
    }

    pub(super) fn status(self) -> StatusCode {
        self.facts().0
    }
}

impl Problem {
    pub(super) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            state: None,
            holder: None,
            headers: Vec::new(),
            log: None,
        }
    }

    /// What is wrong with the body, place by place. At least one.
    pub(super) fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] => only.detail.clone(),
            several => format!("{} things are wrong with the request; none of it was done", several.len()),
        };
        Self { errors, ..Self::new(ProblemKind::Invalid, detail) }
    }

    /// Another job holds the unique key; `done` is what that means for what was asked for.
    pub(super) fn key_held(holder: &Holder, done: &str) -> Self {
        let detail = format!("{done}: its unique key is held by {holder}");
        Self { holder: Some(Box::new(ShownHolder::of(holder))), ..Self::new(ProblemKind::KeyHeld, detail) }
    }

    /// Worth another try in a while.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(ProblemKind::Unavailable, detail).with(header::RETRY_AFTER, RETRY_AFTER.as_secs().into())
    }

    /// A read of the store that gave nothing.
    pub(super) fn of_read(error: &LinkError) -> Self {
        match error {
            LinkError::Unexpected { .. } => Self::internal(error.to_string()),
            away => Self::unavailable(away.to_string()),
        }
    }

    /// A write that Redis understood and refused, when that says something about the server. `report` is what is known
    /// of it; `done` is what the client is to know about what it asked for.
    pub(super) fn of_refused_write(words: &str, report: Option<&Report>, done: &str) -> Option<Self> {
        let unavailable = |what: &str, remedy: &str| {
            Self::unavailable(format!("{what}; {done}; {remedy}")).logged(format!("Redis answered: {words}"))
        };
        Some(match Refusal::of(words)? {
            Refusal::Full => {
                let detail = format!(
                    "Redis is full{}, so it takes no new jobs; {done}; running jobs finish and waiting ones are worked \
                     off, which makes room; else raise maxmemory or keep fewer finished jobs",
                    report.map(how_full).unwrap_or_default()
                );
                let problem = Self::new(ProblemKind::Full, detail).logged(format!("Redis answered: {words}"));
                problem.with(header::RETRY_AFTER, RETRY_AFTER.as_secs().into())
            }
            Refusal::CannotPersist => {
                unavailable("Redis cannot write to its disk and takes no changes", "make room on it; its log says more")
            }
            Refusal::ReadOnly => {
                unavailable("this Redis is a replica and takes no changes", "redis.url should lead to the master")
            }
            Refusal::TooFewReplicas => unavailable(
                "Redis has fewer replicas than min-replicas-to-write asks for and takes no changes",
                "it goes on when they are back",
            ),
            Refusal::MasterDown => {
                unavailable("this Redis is a replica that has lost its master", "redis.url should lead to the master")
            }
            Refusal::Loading => unavailable("Redis reads its files", "it answers when it has read them"),
            Refusal::NotPermitted => unavailable(
                "the user of jobsd may not do this in Redis",
                "give it the permissions that the README of jobsd names",
            ),
            Refusal::NoScript => return None,
        })
    }

    /// Our own fault: the client learns that it happened, the log what it was.
    pub(super) fn internal(log: impl Into<String>) -> Self {
        let detail = "the log of the daemon says what it was";
        Self { log: Some(log.into()), ..Self::new(ProblemKind::Internal, detail) }
    }

    #[must_use]
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    #[must_use]
    pub(super) fn standing_at(self, state: State) -> Self {
        Self { state: Some(state), ..self }
    }

    /// It happened in the middle: this many of so many things were done.
    #[must_use]
    pub(super) fn after(self, done: usize, of: usize) -> Self {
        let detail = format!("{}; {done} of {of} were done before", self.detail);
        Self { detail, ..self }
    }

    #[must_use]
    pub(super) fn logged(self, log: impl Into<String>) -> Self {
        Self { log: Some(log.into()), ..self }
    }

    pub(super) fn into_answer(self) -> Answer {
        let (status, slug, title) = self.kind.facts();
        let body = Body {
            r#type: format!("urn:jobsd:problem:{slug}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
            state: self.state,
            holder: self.holder.as_deref(),
        };
        let mut answer = json_of(status, "application/problem+json", &body);
        answer.headers_mut().extend(self.headers);
        answer
    }
}

/// In words that continue "Redis is full".
fn how_full(report: &Report) -> String {
    match (report.facts.memory.used, report.facts.memory.limit) {
        (Some(used), Some(limit @ 1..)) => {
            format!(" ({} of maxmemory {} when last looked at)", size(used), size(limit))
        }
        _ => String::new(),
    }
}
