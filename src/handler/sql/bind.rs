//! What a JSON value is to a database: tagged values are the text or bytes they stand for.
//!
//! The tags are kombu's (Celery 5.4): an object of exactly `__type__` and `__value__`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Number, Value};

/// A value as it is bound.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    /// A number in decimal, however large.
    Number(&'a Number),
    Text(Cow<'a, str>),
    Bytes(Vec<u8>),
    /// An object or array.
    Json(&'a Value),
}

impl<'a> Scalar<'a> {
    pub(super) fn of(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(bool) => Self::Bool(*bool),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::Text(Cow::Borrowed(text)),
            Value::Object(_) | Value::Array(_) => untagged(value).unwrap_or(Self::Json(value)),
        }
    }
}

/// What `{"__type__": …, "__value__": …}` stands for: dates, times, decimals and UUIDs are their text.
fn untagged(value: &Value) -> Option<Scalar<'_>> {
    let object = value.as_object().filter(|object| object.len() == 2)?;
    let kind = object.get("__type__")?.as_str()?;
    match (kind, object.get("__value__")?) {
        ("base64", Value::String(text)) => BASE64_STANDARD.decode(text).ok().map(Scalar::Bytes),
        ("uuid", Value::Object(uuid)) => {
            uuid.get("hex").and_then(Value::as_str).map(|hex| Scalar::Text(Cow::Borrowed(hex)))
        }
        (_, Value::String(text)) => Some(Scalar::Text(Cow::Borrowed(text))),
        (_, Value::Number(number)) => Some(Scalar::Number(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tagged_values_are_what_they_stand_for() {
        let tagged = |kind: &str, value: Value, expected: Scalar<'_>| {
            assert_eq!(Scalar::of(&json!({"__type__": kind, "__value__": value})), expected, "{kind}");
        };
        tagged("datetime", json!("2026-11-23T10:00:00+00:00"), Scalar::Text("2026-11-23T10:00:00+00:00".into()));
        tagged("decimal", json!("12.50"), Scalar::Text("12.50".into()));
        tagged("uuid", json!({"hex": "00ff"}), Scalar::Text("00ff".into()));
        tagged("base64", json!("AP8="), Scalar::Bytes(vec![0, 255]));
        let plain = json!({"__type__": "x", "__value__": "y", "more": 1});
        assert_eq!(Scalar::of(&plain), Scalar::Json(&plain));
    }
}
