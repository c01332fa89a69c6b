//! The value model of the foreign wires: plain JSON, and a *tagged* object for whatever JSON cannot hold.
//!
//! A tagged value has exactly two keys, `{"__type__": T, "__value__": V}`: kombu's own form, so the tags it knows pass
//! through Celery untouched. Only the decoders make tags: a producer's own object that happens to look like one arrives
//! as a tagged `dict`. The encoders turn tags back, so a value that is only echoed reaches the client as it left.
//!
//! | `__type__` | Python | `__value__` |
//! |---|---|---|
//! | `datetime` `date` `time` | `datetime.*` | ISO 8601 text; a zone becomes its offset, `fold` is dropped |
//! | `decimal` | `Decimal` | its text |
//! | `uuid` | `UUID` | `{"hex": "…32 digits…"}` |
//! | `base64` | `bytes` | base64 |
//! | `bytes` | `bytes` that are UTF-8 (kombu only) | the text |
//! | `bytearray` | `bytearray` | base64 |
//! | `timedelta` | `timedelta` | seconds as decimal text, `"86402.000003"` |
//! | `int` | an `int` beyond 64 bits | decimal text |
//! | `float` | `nan`, `inf`, `-inf` | that text |
//! | `surrogate` | `str` with lone surrogates | text in which each of those is `\udXXX` and a backslash is `\\` |
//! | `set` `frozenset` | the same | array, in the order written |
//! | `complex` | `complex` | `[real, imaginary]` |
//! | `range` `slice` | the same | `[start, stop, step]` |
//! | `dict` | `dict` whose keys are not all plain text | array of `[key, value]` pairs |
//! | `exception` | a built-in exception | `{"class": "ValueError", "args": […]}` |
//!
//! One way only: a tuple, list or deque is an array; an `OrderedDict`, `defaultdict` or `Counter` is an object; a path
//! is its text; an `HTTPStatus` is its number. A tuple inside a set or a key is a tuple again on the way back.

use serde_json::{Map, Value, json};

const TYPE: &str = "__type__";
const VALUE: &str = "__value__";

/// What a tagged value is; the table in the module's documentation says how each is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    Datetime,
    Date,
    Time,
    Decimal,
    Uuid,
    Base64,
    Bytes,
    Bytearray,
    Timedelta,
    Int,
    Float,
    Surrogate,
    Set,
    Frozenset,
    Complex,
    Range,
    Slice,
    Dict,
    Exception,
}

impl Tag {
    const ALL: [Self; 19] = [
        Self::Datetime,
        Self::Date,
        Self::Time,
        Self::Decimal,
        Self::Uuid,
        Self::Base64,
        Self::Bytes,
        Self::Bytearray,
        Self::Timedelta,
        Self::Int,
        Self::Float,
        Self::Surrogate,
        Self::Set,
        Self::Frozenset,
        Self::Complex,
        Self::Range,
        Self::Slice,
        Self::Dict,
        Self::Exception,
    ];

    /// The `__type__` text.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Datetime => "datetime",
            Self::Date => "date",
            Self::Time => "time",
            Self::Decimal => "decimal",
            Self::Uuid => "uuid",
            Self::Base64 => "base64",
            Self::Bytes => "bytes",
            Self::Bytearray => "bytearray",
            Self::Timedelta => "timedelta",
            Self::Int => "int",
            Self::Float => "float",
            Self::Surrogate => "surrogate",
            Self::Set => "set",
            Self::Frozenset => "frozenset",
            Self::Complex => "complex",
            Self::Range => "range",
            Self::Slice => "slice",
            Self::Dict => "dict",
            Self::Exception => "exception",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tag| tag.name() == name)
    }

    /// Whether kombu 5.4 itself reads and writes this form.
    pub(crate) fn is_kombu(self) -> bool {
        matches!(
            self,
            Self::Datetime | Self::Date | Self::Time | Self::Decimal | Self::Uuid | Self::Base64 | Self::Bytes
        )
    }

    /// The tagged object that holds `value`.
    pub(crate) fn hold(self, value: Value) -> Value {
        json!({ TYPE: self.name(), VALUE: value })
    }
}

/// The tag and what it holds, if `value` is a tagged object.
pub(crate) fn tagged(value: &Value) -> Option<(Tag, &Value)> {
    let map = value.as_object().filter(|map| map.len() == 2)?;
    Some((Tag::named(map.get(TYPE)?.as_str()?)?, map.get(VALUE)?))
}

/// A float; `nan` and the infinities are tagged.
pub(crate) fn float(number: f64) -> Value {
    let text = match serde_json::Number::from_f64(number) {
        Some(number) => return Value::Number(number),
        None if number.is_nan() => "nan",
        None if number > 0.0 => "inf",
        None => "-inf",
    };
    Tag::Float.hold(text.into())
}

/// An integer in decimal text; tagged if neither `i64` nor `u64` can hold it.
pub(crate) fn integer(decimal: String) -> Value {
    if let Ok(small) = decimal.parse::<i64>() {
        return small.into();
    }
    decimal.parse::<u64>().map_or_else(|_| Tag::Int.hold(decimal.into()), Value::from)
}

/// The object of these pairs; tagged as `dict` if a key is not plain text or if the object itself would look tagged.
pub(crate) fn object(pairs: Vec<(Value, Value)>) -> Value {
    if !pairs.iter().all(|(key, _)| key.is_string()) {
        return dict(pairs);
    }
    let mut map = Map::with_capacity(pairs.len());
    for (key, value) in pairs {
        if let Value::String(key) = key {
            map.insert(key, value);
        }
    }
    escape(map)
}

/// The object itself, unless it looks tagged: then a tagged `dict`, so that nothing but a decoder makes tags.
pub(crate) fn escape(map: Map<String, Value>) -> Value {
    let value = Value::Object(map);
    match value {
        Value::Object(map) if map.len() == 2 && map.contains_key(TYPE) && map.contains_key(VALUE) => {
            dict(map.into_iter().map(|(key, value)| (key.into(), value)).collect())
        }
        plain => plain,
    }
}

fn dict(pairs: Vec<(Value, Value)>) -> Value {
    Tag::Dict.hold(pairs.into_iter().map(|(key, value)| json!([key, value])).collect())
}

/// Python text given as code points: plain text, or tagged if lone surrogates are among them.
pub(crate) fn text(points: &[u32]) -> Value {
    match points.iter().map(|point| char::from_u32(*point)).collect::<Option<String>>() {
        Some(plain) => plain.into(),
        None => Tag::Surrogate.hold(escape_surrogates(points).into()),
    }
}

fn escape_surrogates(points: &[u32]) -> String {
    let mut out = String::new();
    for point in points {
        match char::from_u32(*point) {
            Some('\\') => out.push_str("\\\\"),
            Some(plain) => out.push(plain),
            None => out.push_str(&format!("\\u{point:04x}")),
        }
    }
    out
}

/// The code points of a `surrogate` value. An escape that the decoders do not write stands for itself.
pub(crate) fn code_points(escaped: &str) -> Vec<u32> {
    let mut points = Vec::new();
    let mut rest = escaped;
    while let Some(first) = rest.chars().next() {
        let (point, length) = escape_at(rest).unwrap_or((u32::from(first), first.len_utf8()));
        points.push(point);
        rest = &rest[length..];
    }
    points
}

/// The escape at the start of `text`: its code point and its length.
fn escape_at(text: &str) -> Option<(u32, usize)> {
    if text.starts_with("\\\\") {
        return Some((u32::from('\\'), 2));
    }
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let point = u32::from_str_radix(digits, 16).ok()?;
    (0xd800..0xe000).contains(&point).then_some((point, 6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surrogates_come_back() {
        let points: Vec<u32> = [0x61, 0xd800, 0x5c, 0x1f600, 0xdfff, 0x0].into();
        let value = text(&points);
        let (tag, held) = tagged(&value).expect("lone surrogates are tagged");
        assert_eq!((tag, held), (Tag::Surrogate, &json!("a\\ud800\\\\\u{1f600}\\udfff\0")));
        assert_eq!(code_points(held.as_str().expect("text")), points);
        assert_eq!(text(&[0x61, 0x5c]), json!("a\\"), "plain text is not escaped");
    }

    #[test]
    fn a_producers_lookalike_is_not_a_tag() {
        let lookalike = object(vec![("__type__".into(), "int".into()), ("__value__".into(), "5".into())]);
        assert_eq!(lookalike, json!({"__type__": "dict", "__value__": [["__type__", "int"], ["__value__", "5"]]}));
    }

    #[test]
    fn every_name_is_found_again() {
        for tag in Tag::ALL {
            assert_eq!(Tag::named(tag.name()), Some(tag));
        }
    }
}
