//! Values as the text `json.dumps` writes with its default settings: `", "` and `": "` between, everything beyond
//! printable ASCII escaped, floats by their shortest `repr`.

use serde_json::Value;

use super::Dialect;
use crate::intake::pyrepr;
use crate::intake::tagged::{Tag, code_points, tagged};

/// The text of `value`. Tags that the dialect knows stay tagged objects; the others become the nearest JSON that
/// Python reads back: bare `NaN` and long integers, an array for a set, text for a time span.
pub(crate) fn dumps(value: &Value, dialect: Dialect) -> String {
    let mut writer = Writer { out: String::new(), dialect };
    writer.value(value);
    writer.out
}

struct Writer {
    out: String,
    dialect: Dialect,
}

impl Writer {
    fn value(&mut self, value: &Value) {
        if let Some((tag, held)) = tagged(value)
            && self.tagged(tag, held)
        {
            return;
        }
        match value {
            Value::Null => self.out.push_str("null"),
            Value::Bool(yes) => self.out.push_str(if *yes { "true" } else { "false" }),
            Value::Number(number) => self.out.push_str(&pyrepr::number(number)),
            Value::String(text) => self.text(text),
            Value::Array(items) => self.array(items),
            Value::Object(map) => self.pairs(map.iter(), |writer, key| writer.text(key)),
        }
    }

    fn array(&mut self, items: &[Value]) {
        self.out.push('[');
        for (index, item) in items.iter().enumerate() {
            self.comma(index);
            self.value(item);
        }
        self.out.push(']');
    }

    fn pairs<'v, K>(&mut self, pairs: impl Iterator<Item = (K, &'v Value)>, key: impl Fn(&mut Self, K)) {
        self.out.push('{');
        for (index, (name, value)) in pairs.enumerate() {
            self.comma(index);
            key(self, name);
            self.out.push_str(": ");
            self.value(value);
        }
        self.out.push('}');
    }

    fn comma(&mut self, index: usize) {
        if index > 0 {
            self.out.push_str(", ");
        }
    }

    /// Whether the tag was turned into something else than the tagged object itself.
    fn tagged(&mut self, tag: Tag, held: &Value) -> bool {
        match (tag, held) {
            (tag, _) if tag.is_kombu() && self.dialect == Dialect::Kombu => return false,
            (Tag::Int, Value::String(digits)) if is_integer(digits) => self.out.push_str(digits),
            (Tag::Float, Value::String(text)) => self.out.push_str(match text.as_str() {
                "inf" => "Infinity",
                "-inf" => "-Infinity",
                _ => "NaN",
            }),
            (Tag::Surrogate, Value::String(text)) => self.string(code_points(text).into_iter()),
            (Tag::Dict, Value::Array(pairs)) if pairs.iter().all(is_pair) => {
                self.pairs(pairs.iter().map(|pair| (&pair[0], &pair[1])), Self::key);
            }
            (Tag::Uuid, held) if held["hex"].is_string() => self.value(&held["hex"]),
            (_, held) => self.value(held),
        }
        true
    }

    /// A key as `json.dumps` makes text of it.
    fn key(&mut self, key: &Value) {
        let text = match key {
            Value::String(text) => text.clone(),
            Value::Null | Value::Bool(_) | Value::Number(_) => dumps(key, self.dialect),
            other => match tagged(other) {
                Some((Tag::Surrogate, _)) => return self.value(other),
                _ => dumps(other, self.dialect),
            },
        };
        self.string(text.chars().map(u32::from));
    }

    /// What needs no escape, which is nearly everything, goes over in one piece.
    fn text(&mut self, text: &str) {
        if text.bytes().all(|byte| matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\') {
            self.out.push('"');
            self.out.push_str(text);
            self.out.push('"');
        } else {
            self.string(text.chars().map(u32::from));
        }
    }

    fn string(&mut self, points: impl Iterator<Item = u32>) {
        self.out.push('"');
        for point in points {
            match point {
                0x22 => self.out.push_str("\\\""),
                0x5c => self.out.push_str("\\\\"),
                0x08 => self.out.push_str("\\b"),
                0x0c => self.out.push_str("\\f"),
                0x0a => self.out.push_str("\\n"),
                0x0d => self.out.push_str("\\r"),
                0x09 => self.out.push_str("\\t"),
                0x20..=0x7e => self.out.push(point as u8 as char),
                0x10000.. => {
                    let low = point - 0x10000;
                    self.unit(0xd800 + (low >> 10));
                    self.unit(0xdc00 + (low & 0x3ff));
                }
                _ => self.unit(point),
            }
        }
        self.out.push('"');
    }

    fn unit(&mut self, unit: u32) {
        self.out.push_str(&format!("\\u{unit:04x}"));
    }
}

fn is_pair(value: &Value) -> bool {
    value.as_array().is_some_and(|pair| pair.len() == 2)
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}
