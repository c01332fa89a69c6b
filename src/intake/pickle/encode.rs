//! Values into a pickle of protocol 4, without frames or memo: the same value gives the same bytes. Tags become the
//! objects they stand for, so what a task echoes is to its client what it sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{Datelike, NaiveDate, NaiveTime, TimeDelta, Timelike};
use serde_json::{Number, Value};

use super::globals::exception;
use super::text::surrogates_written;
use crate::intake::bigint;
use crate::intake::iso::{Stamp, parse_time};
use crate::intake::tagged::{Tag, code_points, tagged};

/// The pickle of `value`. A tagged object whose content does not fit its tag is pickled as the plain object it is.
pub(crate) fn encode(value: &Value) -> Vec<u8> {
    let mut encoder = Encoder { out: vec![0x80, 4] };
    encoder.value(value, Sequences::Lists);
    encoder.out.push(b'.');
    encoder.out
}

/// What an array is: inside of sets and keys everything must be hashable, so it is a tuple there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sequences {
    Lists,
    Tuples,
}

struct Encoder {
    out: Vec<u8>,
}

impl Encoder {
    fn value(&mut self, value: &Value, sequences: Sequences) {
        match value {
            Value::Null => self.out.push(b'N'),
            Value::Bool(yes) => self.out.push(if *yes { 0x88 } else { 0x89 }),
            Value::Number(number) => self.number(number),
            Value::String(text) => self.text(text.as_bytes()),
            Value::Array(items) if sequences == Sequences::Tuples => self.tuple(items),
            Value::Array(items) => self.list(items),
            Value::Object(map) => {
                let start = self.out.len();
                if let Some((tag, held)) = tagged(value)
                    && self.tagged(tag, held, sequences).is_some()
                {
                    return;
                }
                // What a tag that does not fit has left behind is taken back.
                self.out.truncate(start);
                self.object(map);
            }
        }
    }

    fn object(&mut self, map: &serde_json::Map<String, Value>) {
        self.out.push(b'}');
        if map.is_empty() {
            return;
        }
        self.out.push(b'(');
        for (key, value) in map {
            self.text(key.as_bytes());
            self.value(value, Sequences::Lists);
        }
        self.out.push(b'u');
    }

    fn list(&mut self, items: &[Value]) {
        self.out.push(b']');
        if items.is_empty() {
            return;
        }
        self.out.push(b'(');
        for item in items {
            self.value(item, Sequences::Lists);
        }
        self.out.push(b'e');
    }

    fn tuple(&mut self, items: &[Value]) {
        self.out.push(b'(');
        for item in items {
            self.value(item, Sequences::Tuples);
        }
        self.out.push(b't');
    }

    fn number(&mut self, number: &Number) {
        match (number.as_i64(), number.as_f64()) {
            (Some(int), _) => self.int(int),
            (None, Some(float)) if number.is_f64() => self.float(float),
            _ => {
                let bytes = bigint::from_decimal(&number.to_string()).expect("a JSON number here is a u64");
                self.long(&bytes);
            }
        }
    }

    fn int(&mut self, int: i64) {
        if let Ok(small) = i32::try_from(int) {
            self.out.push(b'J');
            self.out.extend(small.to_le_bytes());
        } else {
            self.long(&int.to_le_bytes());
        }
    }

    fn long(&mut self, bytes: &[u8]) {
        if let Ok(length) = u8::try_from(bytes.len()) {
            self.out.extend([0x8a, length]);
        } else {
            self.out.push(0x8b);
            self.length32(bytes.len());
        }
        self.out.extend(bytes);
    }

    fn float(&mut self, float: f64) {
        self.out.push(b'G');
        self.out.extend(float.to_be_bytes());
    }

    fn text(&mut self, utf8: &[u8]) {
        self.out.push(b'X');
        self.length32(utf8.len());
        self.out.extend(utf8);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.out.push(b'B');
        self.length32(bytes.len());
        self.out.extend(bytes);
    }

    fn length32(&mut self, length: usize) {
        let length = u32::try_from(length).expect("results are bounded far below 4 GiB");
        self.out.extend(length.to_le_bytes());
    }

    fn class(&mut self, module: &str, name: &str) {
        self.text(module.as_bytes());
        self.text(name.as_bytes());
        self.out.push(0x93);
    }

    /// `class(argument)`.
    fn call1(&mut self, module: &str, name: &str, argument: impl FnOnce(&mut Self)) {
        self.class(module, name);
        argument(self);
        self.out.extend([0x85, b'R']);
    }

    /// Writes the object a tag stands for; `None`, with anything written, if the content does not fit the tag.
    fn tagged(&mut self, tag: Tag, held: &Value, sequences: Sequences) -> Option<()> {
        match tag {
            Tag::Datetime => self.datetime(Stamp::parse(held.as_str()?)?)?,
            Tag::Date => self.date(Stamp::parse(held.as_str()?)?.local.date())?,
            Tag::Time => self.time(held.as_str()?)?,
            Tag::Timedelta => self.timedelta(span(held.as_str()?)?),
            Tag::Decimal => {
                let text = held.as_str()?;
                self.call1("decimal", "Decimal", |encoder| encoder.text(text.as_bytes()));
            }
            Tag::Uuid => {
                let hex = held["hex"].as_str()?;
                self.call1("uuid", "UUID", |encoder| encoder.text(hex.as_bytes()));
            }
            Tag::Base64 => self.bytes(&STANDARD.decode(held.as_str()?).ok()?),
            Tag::Bytes => self.bytes(held.as_str()?.as_bytes()),
            Tag::Bytearray => {
                let bytes = STANDARD.decode(held.as_str()?).ok()?;
                self.call1("builtins", "bytearray", |encoder| encoder.bytes(&bytes));
            }
            Tag::Int => self.long(&bigint::from_decimal(held.as_str()?)?),
            Tag::Float => self.float(match held.as_str()? {
                "nan" => f64::NAN,
                "inf" => f64::INFINITY,
                "-inf" => f64::NEG_INFINITY,
                _ => return None,
            }),
            Tag::Surrogate => self.text(&surrogates_written(&code_points(held.as_str()?))),
            Tag::Set => self.set(held.as_array()?),
            Tag::Frozenset => self.frozenset(held.as_array()?),
            Tag::Complex => self.call_tuple("complex", held.as_array().filter(|parts| parts.len() == 2)?, sequences),
            Tag::Range => self.call_tuple("range", held.as_array().filter(|parts| parts.len() == 3)?, sequences),
            Tag::Slice => self.call_tuple("slice", held.as_array().filter(|parts| parts.len() == 3)?, sequences),
            Tag::Dict => self.dict(held.as_array()?)?,
            Tag::Exception => {
                let class = exception(held["class"].as_str()?)?;
                self.call_tuple(class, held["args"].as_array()?, Sequences::Lists);
            }
        }
        Some(())
    }

    fn datetime(&mut self, stamp: Stamp) -> Option<()> {
        self.class("datetime", "datetime");
        let date = date_bytes(stamp.local.date())?;
        let packed = [&date[..], &time_bytes(stamp.local.time())].concat();
        self.bytes(&packed);
        self.reduce_with_offset(stamp.offset)
    }

    fn date(&mut self, date: NaiveDate) -> Option<()> {
        let packed = date_bytes(date)?;
        self.call1("datetime", "date", |encoder| encoder.bytes(&packed));
        Some(())
    }

    fn time(&mut self, text: &str) -> Option<()> {
        let (time, offset) = parse_time(text)?;
        self.class("datetime", "time");
        self.bytes(&time_bytes(time));
        self.reduce_with_offset(offset)
    }

    /// Ends the call of a class whose packed bytes are on the stack.
    fn reduce_with_offset(&mut self, offset: Option<TimeDelta>) -> Option<()> {
        match offset {
            None => self.out.extend([0x85, b'R']),
            Some(offset) => {
                self.call1("datetime", "timezone", |encoder| encoder.timedelta(offset));
                self.out.extend([0x86, b'R']);
            }
        }
        Some(())
    }

    fn timedelta(&mut self, delta: TimeDelta) {
        let micros = i64::from(delta.subsec_micros());
        self.class("datetime", "timedelta");
        self.int(0);
        self.int(delta.num_seconds());
        self.int(micros);
        self.out.extend([0x87, b'R']);
    }

    fn set(&mut self, items: &[Value]) {
        self.out.extend([0x8f, b'(']);
        for item in items {
            self.value(item, Sequences::Tuples);
        }
        self.out.push(0x90);
    }

    fn frozenset(&mut self, items: &[Value]) {
        self.out.push(b'(');
        for item in items {
            self.value(item, Sequences::Tuples);
        }
        self.out.push(0x91);
    }

    /// A built-in class called with these arguments.
    fn call_tuple(&mut self, class: &str, args: &[Value], sequences: Sequences) {
        self.class("builtins", class);
        self.out.push(b'(');
        for arg in args {
            self.value(arg, sequences);
        }
        self.out.extend([b't', b'R']);
    }

    fn dict(&mut self, pairs: &[Value]) -> Option<()> {
        self.out.extend([b'}', b'(']);
        for pair in pairs {
            let [key, value] = &pair.as_array()?[..] else {
                return None;
            };
            self.value(key, Sequences::Tuples);
            self.value(value, Sequences::Lists);
        }
        self.out.push(b'u');
        Some(())
    }
}

/// Year in two bytes, month, day.
fn date_bytes(date: NaiveDate) -> Option<[u8; 4]> {
    let [high, low] = u16::try_from(date.year()).ok()?.to_be_bytes();
    Some([high, low, u8::try_from(date.month()).ok()?, u8::try_from(date.day()).ok()?])
}

/// Hour, minute, second, microseconds in three bytes.
fn time_bytes(time: NaiveTime) -> [u8; 6] {
    let [_, high, middle, low] = (time.nanosecond() / 1000).to_be_bytes();
    [time.hour() as u8, time.minute() as u8, time.second() as u8, high, middle, low]
}

/// A time span from decimal seconds.
fn span(text: &str) -> Option<TimeDelta> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 6 || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let micros: i64 = format!("{fraction:0<6}").parse().ok()?;
    let delta = TimeDelta::try_seconds(whole.parse().ok()?)?.checked_add(&TimeDelta::microseconds(micros))?;
    Some(if text.starts_with('-') { -delta } else { delta })
}
