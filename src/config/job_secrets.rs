//! The secrets of one job, and how they are kept out of whatever is shown of it.
//!
//! A secret is an argument of a parameter that the task calls secret, and whatever is called like a secret at any depth
//! ([`is_sensitive`]). Masking the arguments is not enough: a mail server's refusal, a failing program's output or a
//! result may repeat them. A job's own result goes to its producer as it is, who knows the secret.

use serde_json::Value;

use super::Task;
use super::escape::replace_all_forms;
use super::sensitive::is_sensitive;
use crate::job::Args;

/// What stands for a secret wherever people can see it.
const MASK: &str = "***";
/// Shorter values stand everywhere by chance; masking them would make a text unreadable and hide nothing.
const SHORTEST: usize = 3;
/// Secrets that are looked for in a text. With more of them the text is hidden as a whole, which takes no time.
const MOST: usize = 1000;

/// What must not be shown of a job.
#[derive(Debug)]
pub(crate) struct JobSecrets {
    /// Longest first: none is left over by masking a part of it.
    texts: Vec<String>,
    args: Value,
}

impl JobSecrets {
    /// A task that is not configured any more still has its arguments' names to go by.
    pub(crate) fn of(task: Option<&Task>, args: &Args) -> Self {
        let is_secret = |name: &str| {
            let params = task.into_iter().flat_map(|task| &task.params);
            params.filter(|param| param.secret).any(|param| param.name == name)
        };
        let hidden = |name: &str, value| if is_secret(name) { MASK.into() } else { masked(name, value) };
        let shown: Args = args.iter().map(|(name, value)| (name.clone(), hidden(name, value))).collect();
        let mut texts = Vec::new();
        for (name, value) in args {
            collect(value, shown.get(name), &mut texts);
        }
        texts.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        texts.dedup();
        let mut secrets = Self { texts, args: Value::Null };
        // One argument may repeat another: a link that holds the token.
        secrets.args = secrets.inside(&Value::Object(shown));
        secrets
    }

    /// The arguments as they may be shown.
    pub(crate) fn args(&self) -> &Value {
        &self.args
    }

    /// A text with every secret in it masked, as it is or escaped.
    pub(crate) fn text(&self, text: &str) -> String {
        if self.texts.len() > MOST {
            return MASK.to_owned();
        }
        self.texts.iter().fold(text.to_owned(), |text, secret| replace_all_forms(&text, secret, MASK))
    }

    /// A value with every text in it masked, and whatever is called like a secret.
    pub(crate) fn value(&self, value: &Value) -> Value {
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

/// A value that stands under `name`: `***` when the name says that it is a secret, and so at any depth.
fn masked(name: &str, value: &Value) -> Value {
    match value {
        Value::Null => Value::Null,
        _ if is_sensitive(name) => MASK.into(),
        Value::Object(map) => Value::Object(map.iter().map(|(key, inner)| (key.clone(), masked(key, inner))).collect()),
        Value::Array(items) => Value::Array(items.iter().map(|item| masked("", item)).collect()),
        plain => plain.clone(),
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
    let mut add = |text: String| {
        if text.chars().count() < SHORTEST {
            return;
        }
        if text.contains('\n') {
            // The log of a job has it line by line.
            let lines = text.lines().map(str::trim).filter(|line| line.chars().count() >= SHORTEST);
            texts.extend(lines.map(str::to_owned));
        }
        texts.push(text);
    };
    match secret {
        Value::String(text) => add(text.clone()),
        Value::Number(number) => add(number.to_string()),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, texts)),
        Value::Object(map) => map.values().for_each(|item| leaves(item, texts)),
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Param;
    use crate::testing::fixture;

    fn secrets(secret_params: &[&str], args: Value) -> JobSecrets {
        let param = |name: &&str| Param { secret: true, ..fixture::param(name) };
        let task = Task { params: secret_params.iter().map(param).collect(), ..fixture::task(Vec::new()) };
        JobSecrets::of(Some(&task), &fixture::job(args).args)
    }

    #[test]
    fn arguments_are_masked_at_any_depth() {
        let args = json!({
            "code": {"pin": [1, "x"]},
            "data": {"Password": "hunter2", "list": [{"api_key": {"x": "hunter3"}}], "plain": 1, "reset_token": null},
            "X-API-Key": "hunter4"
        });
        let expected = json!({
            "code": "***",
            "data": {"Password": "***", "list": [{"api_key": "***"}], "plain": 1, "reset_token": null},
            "X-API-Key": "***"
        });
        assert_eq!(secrets(&["code"], args).args(), &expected);
    }

    #[test]
    fn a_secret_is_masked_wherever_it_is_repeated() {
        let args = json!({
            "reset_token": "s3cr+t/\"x",
            "pin": {"password": 4711, "secret": ["ab", "inner-secret"]},
            "note": "see https://x/?token=s3cr%2Bt%2F%22x and s3cr+t/\"x"
        });
        let secrets = JobSecrets::of(None, args.as_object().expect("an object"));
        assert_eq!(
            secrets.args(),
            &json!({
                "reset_token": "***",
                "pin": {"password": "***", "secret": "***"},
                "note": "see https://x/?token=*** and ***"
            })
        );
        assert_eq!(secrets.text(r#"{"t":"s3cr+t/\"x"} 4711 inner-secret ab"#), r#"{"t":"***"} *** *** ab"#);
        assert_eq!(secrets.text("<a href='/?t=s3cr&#43;t/&quot;x'>"), "<a href='/?t=***'>");
        let result = json!({"n": 4711, "m": 4712, "list": ["inner-secret!"], "api_key": "unknown so far"});
        assert_eq!(secrets.value(&result), json!({"n": "***", "m": 4712, "list": ["***!"], "api_key": "***"}));
    }

    #[test]
    fn a_secret_inside_another_leaves_nothing_over() {
        let key = "-----BEGIN KEY-----\nMIIEvQ\n-----END KEY-----";
        let lines = secrets(&["key"], json!({"key": key})).text("the key is\nMIIEvQ\nand that is it");
        assert_eq!(lines, "the key is\n***\nand that is it");
        let secrets = secrets(&["code"], json!({"code": {"parts": ["abcd", "abcdef", "x"]}, "name": "Ann"}));
        assert_eq!(secrets.text("Ann sent abcd, abcdef, x"), "Ann sent ***, ***, x");
    }

    #[test]
    fn with_too_many_secrets_nothing_is_shown() {
        let many: Vec<String> = (0..=MOST).map(|number| format!("secret-{number}")).collect();
        let secrets = secrets(&["codes"], json!({"codes": many, "name": "Ann"}));
        assert_eq!(secrets.text("secret-7 and more"), "***");
        assert_eq!(secrets.args(), &json!({"***": "***"}));
    }
}
