//! Failures without secrets: servers and programs like to repeat what they were given, and a failure goes into the
//! record, the logs and the producer's result.
//!
//! Which arguments are secret is the configuration's to say; here their texts are taken out of what others said.

use serde_json::Value;

use crate::config::{MASK, Task, mask};
use crate::job::{Args, Failure};

/// Anything shorter is no secret, and replacing it everywhere would make the failure unreadable.
const SHORTEST: usize = 4;

/// The failure with the text of every secret argument replaced.
pub(super) fn without_secrets(mut failure: Failure, task: &Task, args: &Args) -> Failure {
    let mut secrets = Vec::new();
    collect(&Value::Object(args.clone()), &Value::Object(mask(task, args)), &mut secrets);
    // A secret that is a part of another must not be replaced first.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    for secret in secrets.iter().filter(|secret| secret.len() >= SHORTEST) {
        failure.message = failure.message.replace(secret, MASK);
        failure.detail = failure.detail.map(|detail| detail.replace(secret, MASK));
    }
    failure
}

/// Every scalar of `real` that `shown` hides.
fn collect(real: &Value, shown: &Value, secrets: &mut Vec<String>) {
    match (real, shown) {
        (Value::Object(real), Value::Object(shown)) => {
            for (key, value) in real {
                collect(value, shown.get(key).unwrap_or(&Value::Null), secrets);
            }
        }
        (Value::Array(real), Value::Array(shown)) => {
            real.iter().zip(shown).for_each(|(value, shown)| collect(value, shown, secrets));
        }
        // Hidden as a whole: everything inside is secret.
        (Value::Object(real), hidden) => real.values().for_each(|value| collect(value, hidden, secrets)),
        (Value::Array(real), hidden) => real.iter().for_each(|value| collect(value, hidden, secrets)),
        (Value::String(text), Value::String(shown)) if shown == MASK => secrets.push(text.clone()),
        (Value::Number(number), Value::String(shown)) if shown == MASK => secrets.push(number.to_string()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Param;
    use crate::testing::fixture;

    #[test]
    fn secrets_are_replaced_at_any_depth_and_nothing_else() {
        let mut task = fixture::task(Vec::new());
        task.params = vec![Param { secret: true, ..fixture::param("code") }, fixture::param("context")];
        let args = fixture::job(json!({
            "code": {"pin": 123_456, "parts": ["abcd", "abcdef", "x"]},
            "context": {"name": "Ann Lee", "password": "hunter22"},
        }))
        .args;
        let said = "Ann Lee sent 123456, abcd, abcdef, x and hunter22";
        let failure = without_secrets(Failure::new("X", said).with_detail(said), &task, &args);
        assert_eq!(failure.message, "Ann Lee sent ***, ***, ***, x and ***");
        assert_eq!(failure.detail.as_deref(), Some(failure.message.as_str()));
    }
}
