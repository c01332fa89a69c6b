//! The `data` field of a job: `(function, instance, args, kwargs)` in the producer's serializer, deflated.

use serde_json::{Map, Value};
use thiserror::Error;

use crate::intake::inflate::{InflateError, inflate};
use crate::intake::limits::Limits;
use crate::intake::pickle;
use crate::intake::pyjson::{self, Dialect};
use crate::intake::tagged::tagged;

/// How a producer writes arguments, and so how it reads results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serializer {
    Pickle,
    Json,
}

impl Serializer {
    /// Each payload shows its own: a pickle starts with 0x80 (protocols 0 and 1, which no RQ producer uses, with
    /// something else), a JSON list with a bracket.
    fn of(payload: &[u8]) -> Self {
        if payload.trim_ascii_start().starts_with(b"[") { Self::Json } else { Self::Pickle }
    }
}

/// Why a payload cannot become a call.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum PayloadError {
    #[error("the job's data cannot be inflated: {0}")]
    Inflate(InflateError),
    #[error("the job's pickle cannot be used: {0}")]
    Pickle(#[from] pickle::DecodeError),
    #[error("the job's JSON cannot be used: {0}")]
    Json(#[from] pyjson::ReadError),
    #[error("the job's data is not (function, instance, args, kwargs); enqueue it with an RQ client")]
    Shape,
    #[error("the job calls a method of an object, which cannot be run outside Python; enqueue a function instead")]
    Instance,
}

/// What a job calls.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Payload {
    pub(super) serializer: Serializer,
    pub(super) func_name: String,
    pub(super) args: Vec<Value>,
    pub(super) kwargs: Map<String, Value>,
}

impl Payload {
    pub(super) fn decode(data: &[u8], limits: &Limits) -> Result<Self, PayloadError> {
        let inflated = match inflate(data, limits.input) {
            Ok(inflated) => inflated,
            // RQ itself reads data that was never deflated.
            Err(InflateError::NotZlib) if !data.starts_with(b"x") => data.to_vec(),
            Err(error) => return Err(PayloadError::Inflate(error)),
        };
        let serializer = Serializer::of(&inflated);
        let value = match serializer {
            Serializer::Pickle => pickle::decode(&inflated, limits)?,
            Serializer::Json => pyjson::loads(&inflated, Dialect::Plain, limits)?,
        };
        Self::from_value(serializer, value)
    }

    fn from_value(serializer: Serializer, value: Value) -> Result<Self, PayloadError> {
        let Value::Array(parts) = value else {
            return Err(PayloadError::Shape);
        };
        let [func_name, instance, args, kwargs] = <[Value; 4]>::try_from(parts).map_err(|_| PayloadError::Shape)?;
        if !instance.is_null() {
            return Err(PayloadError::Instance);
        }
        match (func_name, args, kwargs) {
            (Value::String(func_name), Value::Array(args), kwargs @ Value::Object(_)) if tagged(&kwargs).is_none() => {
                let Value::Object(kwargs) = kwargs else {
                    return Err(PayloadError::Shape);
                };
                Ok(Self { serializer, func_name, args, kwargs })
            }
            _ => Err(PayloadError::Shape),
        }
    }
}
