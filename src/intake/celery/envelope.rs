//! kombu's envelope around a body: what encoding, compression and content type say, undone in that order.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::intake::inflate::{InflateError, inflate};
use crate::intake::limits::Limits;
use crate::intake::pyjson::{Dialect, ReadError, loads};

/// Why the body of an envelope cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum BodyError {
    #[error("the message has no text body; send it with a Celery client")]
    Missing,
    #[error("the body is not base64, though body_encoding says so; send it with a Celery client")]
    Base64,
    #[error("the body is compressed as {0:?}; set the producer's compression to \"zlib\" or none")]
    Compression(String),
    #[error("the body cannot be inflated: {0}")]
    Inflate(#[from] InflateError),
    #[error("the body has content type {0:?}; set task_serializer = \"json\" in the producer")]
    ContentType(String),
    #[error("the body cannot be read: {0}")]
    Json(#[from] ReadError),
}

/// The value of an envelope's body.
pub(super) fn body(envelope: &Map<String, Value>, limits: &Limits) -> Result<Value, BodyError> {
    let content_type = text(envelope.get("content-type")).unwrap_or("application/json");
    if !matches!(content_type, "application/json" | "json") {
        return Err(BodyError::ContentType(clip(content_type)));
    }
    let body = text(envelope.get("body")).ok_or(BodyError::Missing)?;
    let encoding = envelope.get("properties").and_then(|properties| text(properties.get("body_encoding")));
    let bytes = match encoding {
        Some("base64") => STANDARD.decode(body).map_err(|_| BodyError::Base64)?,
        _ => body.as_bytes().to_vec(),
    };
    let compression = envelope.get("headers").and_then(|headers| text(headers.get("compression")));
    let bytes = match compression {
        None | Some("") => bytes,
        Some("application/x-gzip" | "gzip" | "zlib") => inflate(&bytes, limits.input)?,
        Some(other) => return Err(BodyError::Compression(clip(other))),
    };
    Ok(loads(&bytes, Dialect::Kombu, limits)?)
}

fn text(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str)
}

/// Foreign text, cut to what fits a message.
fn clip(text: &str) -> String {
    text.chars().take(100).collect()
}
