//! Python's JSON into values. The parser recurses, but never deeper than the limit on nesting.

use serde_json::{Map, Value};
use thiserror::Error;

use super::Dialect;
use crate::intake::bigint::MAX_DIGITS;
use crate::intake::limits::{Budget, Exceeded, Limits};
use crate::intake::tagged;

/// Why a text is not a value. Offsets count bytes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    #[error("it is not UTF-8 text")]
    NotText,
    #[error("it is not JSON: {expected} was expected at byte {at}")]
    Syntax { expected: &'static str, at: usize },
    #[error("it holds an integer of more than {MAX_DIGITS} digits, which Python itself refuses")]
    LongInteger,
}

/// The value of a whole JSON document.
pub(crate) fn loads(document: &[u8], dialect: Dialect, limits: &Limits) -> Result<Value, ReadError> {
    limits.admit(document)?;
    let text = std::str::from_utf8(document).map_err(|_| ReadError::NotText)?;
    let mut parser = Parser { text, at: 0, dialect, budget: Budget::new(limits), escaped: false };
    let value = parser.value(1)?;
    parser.skip_space();
    if parser.at < text.len() {
        return Err(parser.expected("the end"));
    }
    if parser.escaped && height(&value) > limits.depth {
        return Err(Exceeded::Depth(limits.depth).into());
    }
    Ok(value)
}

/// A word of JSON or of Python's, and what it means.
type Word = (&'static str, fn() -> Value);

struct Parser<'a> {
    text: &'a str,
    at: usize,
    dialect: Dialect,
    budget: Budget<'a>,
    /// An object became a tagged `dict`, which nests deeper than what was read.
    escaped: bool,
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Result<Value, ReadError> {
        self.budget.node(depth)?;
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.word(),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, ReadError> {
        self.at += 1;
        let mut items = Vec::new();
        if self.accept(b']') {
            return Ok(items.into());
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.accept(b']') {
                return Ok(items.into());
            }
            self.require(b',', "',' or ']'")?;
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, ReadError> {
        self.at += 1;
        let mut plain = Map::new();
        // Filled from the first key on that is not plain text.
        let mut pairs: Option<Vec<(Value, Value)>> = None;
        if self.accept(b'}') {
            return Ok(plain.into());
        }
        let mut length = 0;
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.expected("a quoted key"));
            }
            let key = self.string()?;
            self.require(b':', "':'")?;
            let value = self.value(depth + 1)?;
            length += 1;
            match (key, &mut pairs) {
                (Value::String(key), None) => drop(plain.insert(key, value)),
                (key, Some(pairs)) => pairs.push((key, value)),
                (key, None) => {
                    let before = std::mem::take(&mut plain).into_iter().map(|(key, value)| (key.into(), value));
                    pairs = Some(before.chain([(key, value)]).collect());
                }
            }
            if self.accept(b'}') {
                let value = pairs.map_or_else(|| tagged::escape(plain), tagged::object);
                return Ok(self.finish_object(value, length));
            }
            self.require(b',', "',' or '}'")?;
        }
    }

    /// kombu's own tagged objects stay as they are; any other object that looks tagged is escaped.
    fn finish_object(&mut self, value: Value, length: usize) -> Value {
        let Some((tagged::Tag::Dict, held)) = tagged::tagged(&value) else {
            return value;
        };
        if self.dialect == Dialect::Kombu
            && length == 2
            && let Some(original) = unescaped(held)
            && tagged::tagged(&original).is_some_and(|(tag, _)| tag.is_kombu())
        {
            return original;
        }
        self.escaped = true;
        value
    }

    fn string(&mut self) -> Result<Value, ReadError> {
        self.at += 1;
        let mut plain = String::new();
        // Filled from the first lone surrogate on.
        let mut points: Option<Vec<u32>> = None;
        loop {
            let run = self.run();
            match &mut points {
                Some(points) => points.extend(run.chars().map(u32::from)),
                None => plain.push_str(run),
            }
            self.budget.text(run.len())?;
            match self.peek() {
                Some(b'"') => break self.at += 1,
                Some(b'\\') => {
                    let point = self.escape()?;
                    self.budget.text(1)?;
                    match (char::from_u32(point), &mut points) {
                        (Some(character), None) => plain.push(character),
                        (_, Some(points)) => points.push(point),
                        (None, None) => {
                            points = Some(plain.chars().map(u32::from).chain([point]).collect());
                        }
                    }
                }
                _ => return Err(self.expected("a closing quote")),
            }
        }
        Ok(points.map_or_else(|| plain.into(), |points| tagged::text(&points)))
    }

    /// Everything up to the next quote, backslash or control character.
    fn run(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let length = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn escape(&mut self) -> Result<u32, ReadError> {
        let kind = self.text.as_bytes().get(self.at + 1).copied();
        let point = match kind {
            Some(byte @ (b'"' | b'\\' | b'/')) => u32::from(byte),
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => 10,
            Some(b'r') => 13,
            Some(b't') => 9,
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.expected("an escape")),
        };
        self.at += 2;
        Ok(point)
    }

    /// `\uXXXX`, or two of them that are a surrogate pair.
    fn unicode_escape(&mut self) -> Result<u32, ReadError> {
        let high = self.hex4(self.at).ok_or_else(|| self.expected("an escape of four hexadecimal digits"))?;
        self.at += 6;
        if !(0xd800..0xdc00).contains(&high) {
            return Ok(high);
        }
        match self.hex4(self.at) {
            Some(low @ 0xdc00..0xe000) => {
                self.at += 6;
                Ok(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
            }
            _ => Ok(high),
        }
    }

    /// The digits of a `\uXXXX` at `at`.
    fn hex4(&self, at: usize) -> Option<u32> {
        let digits = self.text.get(at..at + 6)?.strip_prefix("\\u")?;
        digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
    }

    fn number(&mut self) -> Result<Value, ReadError> {
        if self.text[self.at..].starts_with("-I") {
            return self.word();
        }
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        let whole = self.digits()?;
        if whole > 1 && self.text.as_bytes()[self.at - whole] == b'0' {
            self.at -= whole - 1;
            return Err(self.expected("a number without leading zeros"));
        }
        let fractional = self.fraction()?;
        let text = &self.text[start..self.at];
        self.budget.text(text.len())?;
        if fractional {
            // Rust reads what overflows as infinity, as Python does.
            return Ok(tagged::float(text.parse().map_err(|_| self.expected("a number"))?));
        }
        if whole > MAX_DIGITS { Err(ReadError::LongInteger) } else { Ok(tagged::integer(text.to_owned())) }
    }

    /// Skips `.123` and `e-4`; whether there was either.
    fn fraction(&mut self) -> Result<bool, ReadError> {
        let start = self.at;
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(self.at > start)
    }

    fn digits(&mut self) -> Result<usize, ReadError> {
        let count = self.text[self.at..].bytes().take_while(u8::is_ascii_digit).count();
        self.at += count;
        if count == 0 { Err(self.expected("a digit")) } else { Ok(count) }
    }

    fn word(&mut self) -> Result<Value, ReadError> {
        let words: [Word; 6] = [
            ("null", || Value::Null),
            ("true", || true.into()),
            ("false", || false.into()),
            ("NaN", || tagged::float(f64::NAN)),
            ("Infinity", || tagged::float(f64::INFINITY)),
            ("-Infinity", || tagged::float(f64::NEG_INFINITY)),
        ];
        let rest = &self.text[self.at..];
        let Some((word, value)) = words.into_iter().find(|(word, _)| rest.starts_with(word)) else {
            return Err(self.expected("a value"));
        };
        self.at += word.len();
        Ok(value())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn accept(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn require(&mut self, byte: u8, expected: &'static str) -> Result<(), ReadError> {
        if self.accept(byte) { Ok(()) } else { Err(self.expected(expected)) }
    }

    fn expected(&self, expected: &'static str) -> ReadError {
        ReadError::Syntax { expected, at: self.at }
    }
}

/// The object a tagged `dict` was made of, if its keys are plain text.
fn unescaped(pairs: &Value) -> Option<Value> {
    let pair = |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].clone()));
    pairs.as_array()?.iter().map(pair).collect::<Option<Map<_, _>>>().map(Value::Object)
}

/// How deep a value nests. It recurses; what was read is at most three times as deep as the limit.
fn height(value: &Value) -> usize {
    let deepest = match value {
        Value::Array(items) => items.iter().map(height).max(),
        Value::Object(map) => map.values().map(height).max(),
        _ => None,
    };
    1 + deepest.unwrap_or(0)
}
