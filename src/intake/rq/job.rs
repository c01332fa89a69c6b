//! An RQ job: its hash, read into what a job needs.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use thiserror::Error;

pub(crate) use super::payload::Serializer;
use super::payload::{Payload, PayloadError};
use super::webhook::{self, Webhook};
use crate::intake::iso;
use crate::intake::limits::Limits;

/// How long a job may run when its hash does not say.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(180);
/// How long the job and its result are kept after success when the hash does not say.
pub(crate) const DEFAULT_RESULT_TTL: Duration = Duration::from_secs(500);
/// How long the job is kept after failure when the hash does not say. RQ lets the stream of its results expire only if
/// the hash does say.
pub(crate) const DEFAULT_FAILURE_TTL: Duration = Duration::from_secs(31_536_000);

/// What the field `webhooks` should be.
const WEBHOOKS: &str = "a list of at most 20 webhooks of RQ in 16 KiB";

/// A job that can be run. Empty fields of the hash are `None`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RqJob {
    pub(crate) id: String,
    /// The dotted path the producer enqueued.
    pub(crate) func_name: String,
    /// Values as [`crate::intake::tagged`] holds them.
    pub(crate) args: Vec<Value>,
    pub(crate) kwargs: Map<String, Value>,
    /// Results must be written in the same.
    pub(crate) serializer: Serializer,
    pub(crate) options: Options,
}

/// What its producer asks for besides. Fields of the hash that nothing here needs are not read: what stands in them is no
/// reason to refuse a job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Options {
    /// The queue it was enqueued to.
    pub(crate) origin: Option<String>,
    pub(crate) status: Option<Status>,
    pub(crate) created_at: Option<DateTime<Utc>>,
    pub(crate) enqueued_at: Option<DateTime<Utc>>,
    /// How long it may run.
    pub(crate) timeout: Option<Lapse>,
    /// How long its result is kept; zero keeps nothing, not even the job.
    pub(crate) result_ttl: Option<Lapse>,
    pub(crate) failure_ttl: Option<Lapse>,
    pub(crate) retries_left: Option<u32>,
    pub(crate) retry_intervals: Vec<Duration>,
    /// Python functions to call when the job has ended, by their dotted paths.
    pub(crate) on_success: Option<String>,
    pub(crate) on_failure: Option<String>,
    pub(crate) on_stopped: Option<String>,
    /// RQ from 2.9 on calls addresses when the job has ended.
    pub(crate) webhooks: Vec<Webhook>,
    /// The key of which RQ from 2.9 on lets so many jobs stand in queues or run at a time. This one has its place.
    pub(crate) rate_limit: Option<String>,
}

/// A span of time that may be without end; -1 in the hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lapse {
    Never,
    After(Duration),
}

impl Lapse {
    /// The seconds as RQ writes them.
    pub(crate) fn seconds(self) -> i64 {
        match self {
            Self::Never => -1,
            Self::After(span) => i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        }
    }

    fn from_seconds(seconds: i64) -> Self {
        u64::try_from(seconds).map_or(Self::Never, |seconds| Self::After(Duration::from_secs(seconds)))
    }
}

/// What RQ says of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Queued,
    Finished,
    Failed,
    Started,
    Deferred,
    Scheduled,
    Stopped,
    Canceled,
    /// RQ from 2.4 on: made and not enqueued yet.
    Created,
    /// RQ from 2.9 on: held back by a rate limit of its own; and, what it waited for has ended, on its way to its queue.
    RateLimited,
    ReadyToEnqueue,
}

impl Status {
    const ALL: [Self; 11] = [
        Self::Queued,
        Self::Finished,
        Self::Failed,
        Self::Started,
        Self::Deferred,
        Self::Scheduled,
        Self::Stopped,
        Self::Canceled,
        Self::Created,
        Self::RateLimited,
        Self::ReadyToEnqueue,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Started => "started",
            Self::Deferred => "deferred",
            Self::Scheduled => "scheduled",
            Self::Stopped => "stopped",
            Self::Canceled => "canceled",
            Self::Created => "created",
            Self::RateLimited => "rate_limited",
            Self::ReadyToEnqueue => "ready_to_enqueue",
        }
    }
}

/// A job that cannot be run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    /// How long the failed job is to be kept, if the hash said.
    pub(crate) failure_ttl: Option<Lapse>,
    /// The Python class that the client is told.
    pub(crate) class: &'static str,
    /// One sentence, with the remedy.
    pub(crate) reason: String,
}

/// A field of the hash that does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the job's field {field} is {found:?}, which is not {expected}; enqueue it with an RQ client")]
struct BadField {
    field: &'static str,
    found: String,
    expected: &'static str,
}

impl RqJob {
    /// Reads the fields of `rq:job:<id>`.
    pub(crate) fn decode(id: &str, hash: &HashMap<String, Vec<u8>>, limits: &Limits) -> Result<Self, Box<Refusal>> {
        let fields = Fields(hash);
        let refuse = |class, reason: String| {
            let failure_ttl = fields.lapse("failure_ttl").unwrap_or_default();
            Box::new(Refusal { failure_ttl, class, reason })
        };
        let options = Options::read(fields).map_err(|error| refuse("ValueError", error.to_string()))?;
        let Some(data) = hash.get("data") else {
            return Err(refuse("ValueError", "the job has no data; enqueue it with an RQ client".to_owned()));
        };
        let payload = Payload::decode(data, limits).map_err(|error| refuse(class_of(&error), error.to_string()))?;
        Ok(Self {
            id: id.to_owned(),
            func_name: payload.func_name,
            args: payload.args,
            kwargs: payload.kwargs,
            serializer: payload.serializer,
            options,
        })
    }

    /// The `timeout` among the keyword arguments, if it is a whole number of seconds or -1. RQ 2 knows only
    /// `job_timeout=`, so `enqueue(f, timeout=300)` ends up here; whether that was meant is the caller's decision.
    pub(crate) fn stray_timeout(&self) -> Option<Lapse> {
        let seconds = self.kwargs.get("timeout")?.as_i64().filter(|seconds| *seconds > 0 || *seconds == -1)?;
        Some(Lapse::from_seconds(seconds))
    }
}

fn class_of(error: &PayloadError) -> &'static str {
    match error {
        PayloadError::Instance => "NotImplementedError",
        PayloadError::Inflate(_) | PayloadError::Pickle(_) | PayloadError::Json(_) | PayloadError::Shape => {
            "rq.exceptions.DeserializationError"
        }
    }
}

impl Options {
    fn read(fields: Fields<'_>) -> Result<Self, BadField> {
        Ok(Self {
            origin: fields.text("origin")?,
            status: fields.status()?,
            created_at: fields.instant("created_at")?,
            enqueued_at: fields.instant("enqueued_at")?,
            timeout: fields.lapse("timeout")?,
            result_ttl: fields.lapse("result_ttl")?,
            failure_ttl: fields.lapse("failure_ttl")?,
            retries_left: fields.number("retries_left")?.map(|left| u32::try_from(left).unwrap_or(0)),
            retry_intervals: fields.intervals()?,
            on_success: fields.text("success_callback_name")?,
            on_failure: fields.text("failure_callback_name")?,
            on_stopped: fields.text("stopped_callback_name")?,
            webhooks: fields.parse("webhooks", WEBHOOKS, webhook::read)?.unwrap_or_default(),
            rate_limit: fields.text("rate_limit_key")?,
        })
    }
}

/// The hash, field by field. An empty field is how RQ writes None.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a HashMap<String, Vec<u8>>);

impl<'a> Fields<'a> {
    fn str(self, field: &'static str) -> Result<Option<&'a str>, BadField> {
        let Some(bytes) = self.0.get(field).filter(|bytes| !bytes.is_empty()) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(bytes);
        text.map(Some).map_err(|_| bad(field, &String::from_utf8_lossy(bytes), "UTF-8 text"))
    }

    fn text(self, field: &'static str) -> Result<Option<String>, BadField> {
        Ok(self.str(field)?.map(str::to_owned))
    }

    fn parse<T>(
        self,
        field: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, BadField> {
        let Some(text) = self.str(field)? else {
            return Ok(None);
        };
        parse(text).map(Some).ok_or_else(|| bad(field, text, expected))
    }

    fn number(self, field: &'static str) -> Result<Option<i64>, BadField> {
        self.parse(field, "a whole number", |text| text.parse().ok())
    }

    fn lapse(self, field: &'static str) -> Result<Option<Lapse>, BadField> {
        Ok(self.number(field)?.map(Lapse::from_seconds))
    }

    fn instant(self, field: &'static str) -> Result<Option<DateTime<Utc>>, BadField> {
        self.parse(field, "a time such as 2026-01-31T10:00:00.000000Z", iso::parse_instant)
    }

    fn status(self) -> Result<Option<Status>, BadField> {
        self.parse("status", "a status of RQ", |text| Status::ALL.into_iter().find(|status| status.as_str() == text))
    }

    fn intervals(self) -> Result<Vec<Duration>, BadField> {
        let parse = |text: &str| serde_json::from_str::<Vec<u64>>(text).ok();
        let seconds = self.parse("retry_intervals", "a list of seconds", parse)?.unwrap_or_default();
        Ok(seconds.into_iter().map(Duration::from_secs).collect())
    }
}

fn bad(field: &'static str, found: &str, expected: &'static str) -> BadField {
    BadField { field, found: found.chars().take(100).collect(), expected }
}
