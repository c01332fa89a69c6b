//! The secrets of one job, and how they are kept out of what is shown of it.
//!
//! Masking the arguments is not enough: a mail server's refusal, a failing program's output or a result may repeat a
//! value that came in as a secret argument, as it was or escaped for a link or for JSON.

use serde_json::Value;

use crate::config::{MASK, Task, mask, masked};
use crate::job::Args;

/// Shorter values stand everywhere by chance; masking them would make a text unreadable and hide nothing.
const SHORTEST: usize = 3;

/// The arguments as they may be shown, and what must not be.
#[derive(Debug)]
pub(super) struct Secrets {
    /// Every way in which a secret may be written, longest first: none is left over by masking a part of it.
    texts: Vec<String>,
}

impl Secrets {
    /// Masks the arguments; remembers what was masked. A task that is not configured any more still has its
    /// arguments' names.
    pub(super) fn of(task: Option<&Task>, args: &Args) -> (Self, Value) {
        let shown = match task {
            Some(task) => mask(task, args),
            None => args.iter().map(|(name, value)| (name.clone(), masked(name, value))).collect(),
        };
        let mut texts = Vec::new();
        for (name, value) in args {
            collect(value, shown.get(name), &mut texts);
        }
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        texts.dedup();
        let secrets = Self { texts };
        // One argument may repeat another: a link that holds the token.
        let shown = secrets.value(&Value::Object(shown));
        (secrets, shown)
    }

    pub(super) fn text(&self, text: &str) -> String {
        self.texts.iter().fold(text.to_owned(), |text, secret| text.replace(secret, MASK))
    }

    /// A value with every text in it masked, and whatever is called like a secret.
    pub(super) fn value(&self, value: &Value) -> Value {
        self.inside(&masked("", value))
    }

    fn inside(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => Value::Array(items.iter().map(|item| self.inside(item)).collect()),
            Value::Object(map) => {
                Value::Object(map.iter().map(|(key, inner)| (self.text(key), self.inside(inner))).collect())
            }
            Value::Number(number) if self.texts.contains(&number.to_string()) => MASK.into(),
            plain => plain.clone(),
        }
    }
}

/// Walks a value and its masked form side by side; what differs at a leaf was a secret.
fn collect(value: &Value, shown: Option<&Value>, texts: &mut Vec<String>) {
    match (value, shown) {
        (value, Some(shown)) if value == shown => {}
        (Value::Array(items), Some(Value::Array(shown))) => {
            for (item, shown) in items.iter().zip(shown) {
                collect(item, Some(shown), texts);
            }
        }
        (Value::Object(map), Some(Value::Object(shown))) => {
            for (key, item) in map {
                collect(item, shown.get(key), texts);
            }
        }
        (secret, _) => leaves(secret, texts),
    }
}

fn leaves(secret: &Value, texts: &mut Vec<String>) {
    match secret {
        Value::String(text) => add(text, texts),
        Value::Number(number) => add(&number.to_string(), texts),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, texts)),
        Value::Object(map) => map.values().for_each(|item| leaves(item, texts)),
        Value::Null | Value::Bool(_) => {}
    }
}

fn add(secret: &str, texts: &mut Vec<String>) {
    if secret.chars().count() < SHORTEST {
        return;
    }
    texts.push(secret.to_owned());
    let quoted = Value::from(secret).to_string();
    for form in [percent_encoded(secret), quoted.trim_matches('"').to_owned()] {
        if form != secret {
            texts.push(form);
        }
    }
}

/// As it stands in the query of a link (RFC 3986: everything but unreserved characters).
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_masked_wherever_it_is_repeated() {
        let args = json!({
            "reset_token": "s3cr+t/\"x",
            "pin": {"password": 4711, "secret": ["ab", "inner-secret"]},
            "note": "see https://x/?token=s3cr%2Bt%2F%22x and s3cr+t/\"x"
        });
        let (secrets, shown) = Secrets::of(None, args.as_object().expect("an object"));
        assert_eq!(
            shown,
            json!({
                "reset_token": "***",
                "pin": {"password": "***", "secret": "***"},
                "note": "see https://x/?token=*** and ***"
            })
        );
        assert_eq!(secrets.text(r#"{"t":"s3cr+t/\"x"} 4711 inner-secret ab"#), r#"{"t":"***"} *** *** ab"#);
        let result = json!({"n": 4711, "m": 4712, "list": ["inner-secret!"], "api_key": "unknown so far"});
        assert_eq!(secrets.value(&result), json!({"n": "***", "m": 4712, "list": ["***!"], "api_key": "***"}));
    }
}
