//! Readers of single values: numbers, spans of time, sizes, choices, paths, templates, plain data.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Number, Value};
use toml::de::{DeInteger, DeValue};

use super::diagnostic::{nearest, quoted};
use super::document::{Item, Table, Text};
use crate::config::{Template, ValueTemplate};

const SECOND: Duration = Duration::from_secs(1);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A mean year, which is shown as "1year".
pub(super) const YEAR: Duration = Duration::from_secs(31_557_600);
/// Bounds of what must not be zero and does not wait longer than a week.
pub(super) const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=DAY.saturating_mul(7);
/// Bounds of a wait for a server's answer.
pub(super) const ANSWER: RangeInclusive<Duration> = Duration::from_millis(10)..=SECOND.saturating_mul(3600);

const A_DURATION: &str = "a duration such as \"5m\" or \"1h 30m\"";

impl Table<'_> {
    pub(super) fn integer<N: TryFrom<i64>>(&self, key: &'static str, default: N, bounds: RangeInclusive<i64>) -> N {
        self.get(key)
            .and_then(|item| item.integer(bounds))
            .and_then(|number| N::try_from(number).ok())
            .unwrap_or(default)
    }

    pub(super) fn duration(&self, key: &'static str, default: Duration, bounds: RangeInclusive<Duration>) -> Duration {
        self.get(key).and_then(|item| item.duration(bounds)).unwrap_or(default)
    }

    pub(super) fn boolean(&self, key: &'static str, default: bool) -> bool {
        self.get(key).and_then(|item| item.boolean()).unwrap_or(default)
    }

    pub(super) fn choice<T: Copy>(&self, key: &'static str, default: T, choices: &[(&str, T)]) -> T {
        self.get(key).and_then(|item| item.choice(choices)).unwrap_or(default)
    }

    pub(super) fn path(&self, key: &'static str, example: &str) -> Option<PathBuf> {
        let item = self.get(key)?;
        item.filled_text(&format!("a path such as \"{example}\"")).map(|text| PathBuf::from(text.text))
    }
}

impl Item<'_> {
    /// An integer within bounds. A string in which a variable stands may hold one too: `"${PORT:-25}"`.
    pub(super) fn integer(&self, bounds: RangeInclusive<i64>) -> Option<i64> {
        let expected = format!("an integer from {} to {}", bounds.start(), bounds.end());
        let number = match self.value {
            DeValue::Integer(integer) => i64_of(integer),
            DeValue::String(_) => self.variable::<i64>(&expected)?,
            _ => {
                self.mismatch(&expected);
                return None;
            }
        };
        match number.filter(|number| bounds.contains(number)) {
            Some(number) => Some(number),
            None => {
                self.mismatch(&expected);
                None
            }
        }
    }

    pub(super) fn number(&self, bounds: RangeInclusive<f64>) -> Option<f64> {
        let expected = format!("a number from {} to {}", bounds.start(), bounds.end());
        let number = match self.value {
            DeValue::Integer(integer) => integer.as_str().parse().ok(),
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::String(_) => self.variable::<f64>(&expected)?,
            _ => None,
        };
        let number = number.filter(|number| bounds.contains(number));
        if number.is_none() {
            self.mismatch(&expected);
        }
        number
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        let value = match self.value {
            DeValue::Boolean(value) => Some(*value),
            DeValue::String(_) => self.variable::<bool>("true or false")?,
            _ => None,
        };
        if value.is_none() {
            self.mismatch("true or false");
        }
        value
    }

    /// The number in a string that holds a variable. `None` when it was reported, `Some(None)` when it does not parse.
    #[expect(clippy::option_option, reason = "the outer one says that the problem is reported already")]
    fn variable<T: FromStr>(&self, expected: &str) -> Option<Option<T>> {
        let text = self.text(expected)?;
        if !text.interpolated {
            return Some(None);
        }
        let parsed = text.text.trim().parse().ok();
        if parsed.is_none() {
            self.error(
                format!("expected {expected}, the variable gives {}", quoted(&text.text)),
                format!("give the environment variable of `{}` another value", self.path),
            );
            return None;
        }
        Some(parsed)
    }

    pub(super) fn duration(&self, bounds: RangeInclusive<Duration>) -> Option<Duration> {
        if let DeValue::Integer(number) = self.value {
            self.error(
                format!("expected {A_DURATION}, found the integer {number}"),
                format!("write the unit: \"{number}s\" for seconds, \"{number}m\" for minutes"),
            );
            return None;
        }
        let text = self.filled_text(A_DURATION)?;
        let duration = match humantime::parse_duration(&text.text) {
            Ok(duration) => duration,
            Err(error) => {
                let message = format!("{} is not a duration: {error}", quoted(&text.text));
                self.error(message, "write numbers with units: ms, s, m, h, d, w, as in \"1h 30m\"");
                return None;
            }
        };
        if !bounds.contains(&duration) {
            let (least, most) = (show(*bounds.start()), show(*bounds.end()));
            self.error(
                format!("`{}` is {}, allowed is {least} to {most}", self.path, show(duration)),
                format!("choose a duration from {least} to {most}"),
            );
            return None;
        }
        Some(duration)
    }

    /// A number of bytes: an integer, or a string with a unit.
    pub(super) fn size(&self, bounds: RangeInclusive<u64>) -> Option<u64> {
        const EXPECTED: &str = "a size such as \"1MiB\", \"512KiB\" or a number of bytes";
        let bytes = match self.value {
            DeValue::Integer(integer) => i64_of(integer).and_then(|bytes| u64::try_from(bytes).ok()),
            _ => parse_size(&self.filled_text(EXPECTED)?.text),
        };
        let Some(bytes) = bytes else {
            self.mismatch(EXPECTED);
            return None;
        };
        if !bounds.contains(&bytes) {
            let allowed = format!("{} to {} bytes", bounds.start(), bounds.end());
            let message = format!("`{}` is {bytes} bytes, allowed is {allowed}", self.path);
            self.error(message, format!("choose a size of {allowed}"));
            return None;
        }
        Some(bytes)
    }

    /// One of a closed set of words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let expected = format!("one of \"{}\"", words.join("\", \""));
        let text = self.text(&expected)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text.text) {
            return Some(*value);
        }
        let help = match nearest(&text.text, words.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("choose {expected}"),
        };
        self.error(format!("expected {expected}, found {}", quoted(&text.text)), help);
        None
    }

    /// An array of strings that are not empty.
    pub(super) fn texts(&self, example: &str) -> Vec<Text> {
        let items = self.array(&format!("an array of strings such as {example}")).unwrap_or_default();
        items.iter().filter_map(|item| item.filled_text("a string")).collect()
    }

    pub(super) fn template(&self) -> Option<Template> {
        let text = self.text("a text, which may hold {{ parameters }}")?;
        match Template::parse(&text.text) {
            Ok(template) => Some(template),
            // The parser may quote what a variable gave, and that may be a secret.
            Err(_) if text.interpolated => {
                self.error("with its variables filled in, the template cannot be read", TEMPLATE_HELP);
                None
            }
            Err(error) => {
                self.error(format!("the template cannot be read: {error}"), TEMPLATE_HELP);
                None
            }
        }
    }

    pub(super) fn value_template(&self) -> Option<ValueTemplate> {
        match ValueTemplate::parse(self.value()?) {
            Ok(template) => Some(template),
            Err(error) => {
                self.error(format!("a template in `{}` cannot be read: {error}", self.path), TEMPLATE_HELP);
                None
            }
        }
    }

    /// The value as plain data, with the variables of its strings filled in.
    pub(super) fn value(&self) -> Option<Value> {
        Some(match self.value {
            DeValue::String(_) => Value::String(self.text("a string")?.text),
            DeValue::Integer(integer) => Value::Number(self.json_integer(integer)?),
            DeValue::Float(float) => Value::Number(self.json_float(float.as_str())?),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Datetime(value) => Value::String(value.to_string()),
            DeValue::Array(_) => self.array("an array")?.iter().map(Item::value).collect::<Option<_>>()?,
            DeValue::Table(_) => Value::Object(self.object()?),
        })
    }

    /// A table as plain data. All its entries are read, so that each problem is reported.
    pub(super) fn object(&self) -> Option<Map<String, Value>> {
        let entries = self.table()?.entries();
        let values: Vec<_> = entries.into_iter().map(|(key, item)| (key.name, item.value())).collect();
        values.into_iter().map(|(name, value)| Some((name, value?))).collect()
    }

    fn json_integer(&self, integer: &DeInteger<'_>) -> Option<Number> {
        let number = i64_of(integer);
        if number.is_none() {
            self.error(format!("the integer {integer} is too large"), "write it as a string");
        }
        number.map(Number::from)
    }

    fn json_float(&self, text: &str) -> Option<Number> {
        let number = text.parse().ok().and_then(Number::from_f64);
        if number.is_none() {
            self.error(format!("the number {text} has no JSON form"), "write a finite number");
        }
        number
    }
}

const TEMPLATE_HELP: &str = "expressions stand in {{ … }}, statements in {% … %}";

fn i64_of(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

/// A duration as people write it.
pub(super) fn show(duration: Duration) -> String {
    if duration.is_zero() {
        "0s".into()
    } else {
        humantime::format_duration(duration).to_string().replace("days", "d").replace("day", "d")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_units() {
        let cases = [
            ("1024", Some(1024)),
            ("1MiB", Some(1_048_576)),
            ("2 MB", Some(2_000_000)),
            ("MiB", None),
            ("1 parsec", None),
            ("99999999999GiB", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }
}
