//! What the entries of `rq:results:<id>` hold.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::payload::Serializer;
use crate::intake::inflate::{deflate, inflate};
use crate::intake::limits::Limits;
use crate::intake::pickle;
use crate::intake::pyjson::{Dialect, dumps};

/// The field `return_value`, which is left out when the job returned nothing.
pub(crate) fn return_value(value: &Value, serializer: Serializer) -> Option<String> {
    if value.is_null() {
        return None;
    }
    let bytes = match serializer {
        Serializer::Pickle => pickle::encode(value),
        Serializer::Json => dumps(value, Dialect::Plain).into_bytes(),
    };
    Some(STANDARD.encode(bytes))
}

/// The field `exc_string`. The text should end as a traceback does, `Class: message` and a newline.
pub(crate) fn exc_string(text: &str) -> String {
    STANDARD.encode(deflate(text.as_bytes()))
}

/// What the field `return_value` holds for a producer whose serializer is the default one; `None` when it is unreadable.
pub(crate) fn read_return_value(field: &str) -> Option<Value> {
    let pickled = STANDARD.decode(field).ok()?;
    pickle::decode(&pickled, &Limits::default()).ok()
}

/// The text in the field `exc_string`; `None` when it is unreadable.
pub(crate) fn read_exc_string(field: &str) -> Option<String> {
    let deflated = STANDARD.decode(field).ok()?;
    String::from_utf8(inflate(&deflated, Limits::default().input).ok()?).ok()
}
