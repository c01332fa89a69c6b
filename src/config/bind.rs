//! A call of a task: positional and keyword arguments against its parameters, by Python's rules and in its words.
//!
//! Producers are Python programs; whoever reads the failure there knows these sentences.

use serde_json::{Map, Value};

use super::{Param, ParamType, Task};
use crate::job::Args;

/// Longest address that mail servers take.
const EMAIL_LENGTH: usize = 254;
/// 2^63: a float of this size or more was no integer of 64 bits.
const BEYOND: f64 = 9_223_372_036_854_775_808.0;

/// Why a call does not fit a task. Holds names and types, never an argument's value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BindError {
    #[error("{task}() got an unexpected keyword argument '{name}'")]
    Unexpected { task: String, name: String },
    #[error("{task}() got multiple values for argument '{name}'")]
    Multiple { task: String, name: String },
    #[error("{task}() takes {} but {given} {} given", takes(*.least, *.most), if *.given == 1 { "was" } else { "were" })]
    TooMany { task: String, least: usize, most: usize, given: usize },
    #[error("{task}() missing {} required positional argument{}: {}", .names.len(), plural(.names.len()), listed(.names))]
    Missing { task: String, names: Vec<String> },
    #[error("{task}() argument '{name}' must be {expected}, not {found}")]
    Type { task: String, name: String, expected: &'static str, found: &'static str },
}

/// The arguments of a call by parameter name, in the order of the parameters, defaults filled in.
///
/// # Errors
/// [`BindError`]: the first mistake that Python would report, then the first argument of a wrong type.
pub(crate) fn bind(task: &Task, positional: &[Value], keyword: Map<String, Value>) -> Result<Args, BindError> {
    bind_except(task, positional, keyword, |_| false)
}

/// The same, where values that are still `open` fit any type: they stand for something that is not known yet.
///
/// # Errors
/// As [`bind`].
pub(crate) fn bind_except(
    task: &Task,
    positional: &[Value],
    mut keyword: Map<String, Value>,
    open: impl Fn(&Value) -> bool,
) -> Result<Args, BindError> {
    let name = || task.name.to_string();
    let (rest, keywords) = (star(task, ParamType::Rest), star(task, ParamType::Keywords));
    let plain = task.params.iter().filter(|param| !param.kind.is_star()).count();
    for given in keyword.keys() {
        match position(task, given) {
            None if keywords.is_none() => return Err(BindError::Unexpected { task: name(), name: given.clone() }),
            None => {}
            // By name, a star takes all that it holds at once.
            Some(at) if at >= plain => {}
            Some(at) if at < positional.len() => {
                return Err(BindError::Multiple { task: name(), name: given.clone() });
            }
            Some(_) => {}
        }
    }
    if positional.len() > plain && rest.is_none() {
        let least = task.params.iter().filter(|param| param.required).count();
        return Err(BindError::TooMany { task: name(), least, most: plain, given: positional.len() });
    }
    let (own, left_over) = positional.split_at(positional.len().min(plain));
    let mut given: Vec<Option<Value>> = own.iter().cloned().map(Some).collect();
    given.extend(task.params.iter().skip(own.len()).map(|param| keyword.remove(&param.name)));
    if let Some(at) = rest.filter(|_| !left_over.is_empty()) {
        given[at] = Some(left_over.into());
    }
    if let Some(at) = keywords.filter(|_| !keyword.is_empty()) {
        given[at] = Some(keyword.into());
    }
    let pairs = || task.params.iter().zip(&given);
    let missing: Vec<String> = pairs()
        .filter(|(param, value)| param.required && value.is_none())
        .map(|(param, _)| param.name.clone())
        .collect();
    if !missing.is_empty() {
        return Err(BindError::Missing { task: name(), names: missing });
    }
    task.params
        .iter()
        .zip(given)
        .map(|(param, value)| match value {
            Some(value) if open(&value) => Ok((param.name.clone(), value)),
            value => Ok((param.name.clone(), argument(task, param, value)?)),
        })
        .collect()
}

fn position(task: &Task, name: &str) -> Option<usize> {
    task.params.iter().position(|param| param.name == name)
}

/// The place of the star of this kind, if the task has one.
fn star(task: &Task, kind: ParamType) -> Option<usize> {
    task.params.iter().position(|param| param.kind == kind)
}

fn argument(task: &Task, param: &Param, value: Option<Value>) -> Result<Value, BindError> {
    let value = match value {
        None => return Ok(param.default.clone()),
        // `None` for an optional parameter is how Python leaves it out.
        Some(Value::Null) if !param.required => return Ok(param.default.clone()),
        Some(value) => value,
    };
    let found = described(param.kind, &value);
    fit(param.kind, value).map_err(|expected| BindError::Type {
        task: task.name.to_string(),
        name: param.name.clone(),
        expected,
        found,
    })
}

/// The value in the form that a parameter of this type has; else what was expected.
///
/// A tagged value (`{"__type__": "uuid", "__value__": …}`) fits a type that its text or number fits, and becomes it.
pub(super) fn fit(kind: ParamType, value: Value) -> Result<Value, &'static str> {
    if kind == ParamType::Any {
        return Ok(value);
    }
    let value = untagged(value);
    let (fits, expected) = match kind {
        ParamType::String => (value.is_string(), "a string"),
        ParamType::Email => (value.as_str().is_some_and(is_email), "a mail address"),
        ParamType::Int => (is_integer(&value), "an integer"),
        ParamType::Number => (value.is_number(), "a number"),
        ParamType::Bool => (value.is_boolean(), "a boolean"),
        ParamType::Object | ParamType::Keywords => (value.is_object(), "an object"),
        ParamType::Array | ParamType::Rest => (value.is_array(), "an array"),
        ParamType::Id => (value.is_string() || is_integer(&value), "an id (an integer or a string)"),
        ParamType::Any => (true, "anything"),
    };
    if fits { Ok(value) } else { Err(expected) }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64()
}

/// What is inside a tagged value when that is plain: the text of a date, the hex digits of a UUID.
fn untagged(value: Value) -> Value {
    let inside = match &value {
        Value::Object(map) if map.len() == 2 && map.contains_key("__type__") => map.get("__value__"),
        _ => None,
    };
    match inside {
        Some(plain @ (Value::String(_) | Value::Number(_))) => plain.clone(),
        Some(Value::Object(uuid)) => match uuid.get("hex") {
            Some(hex @ Value::String(_)) => hex.clone(),
            _ => value,
        },
        _ => value,
    }
}

/// One `@` with something on both sides and nothing that could start a second header line. Whether the address exists
/// is for its server to say.
fn is_email(text: &str) -> bool {
    let clean = text.len() <= EMAIL_LENGTH
        && !text.contains(|c: char| c.is_control() || c.is_whitespace() || "<>,;:\"()[]\\".contains(c));
    let mut parts = text.split('@');
    let sides = (parts.next(), parts.next(), parts.next());
    clean && matches!(sides, (Some(local), Some(domain), None) if !local.is_empty() && !domain.is_empty())
}

/// The type in the words of JSON, which is what travelled.
fn described(wanted: ParamType, value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        number @ Value::Number(_) if is_integer(number) => "an integer",
        // JSON's reader keeps an integer of more than 64 bits as a float.
        number @ Value::Number(_) if number.as_f64().is_some_and(|number| number.abs() >= BEYOND) => {
            "a number that is too large for 64 bits"
        }
        Value::Number(_) => "a number with a fraction",
        Value::String(_) if wanted == ParamType::Email => "another text",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(map) if map.contains_key("__type__") => "a value of this special type",
        Value::Object(_) => "an object",
    }
}

fn takes(least: usize, most: usize) -> String {
    if least == most {
        format!("{most} positional argument{}", plural(most))
    } else {
        format!("from {least} to {most} positional arguments")
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// `'a'`, `'a' and 'b'`, `'a', 'b', and 'c'`.
fn listed(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [one, two] => format!("{one} and {two}"),
        [front @ .., last] => format!("{}, and {last}", front.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::BatchRule;
    use crate::job::{QueueName, TaskName};

    fn param(name: &str, kind: ParamType) -> Param {
        Param { name: name.into(), kind, required: true, default: Value::Null, secret: false }
    }

    fn optional(name: &str, kind: ParamType, default: Value) -> Param {
        Param { required: false, default, ..param(name, kind) }
    }

    fn task(params: Vec<Param>) -> Task {
        Task {
            name: TaskName::parse("send").expect("a name"),
            names: vec![],
            queue: QueueName::parse("emails").expect("a name"),
            params,
            timeout: None,
            retry: None,
            expires: None,
            limits: vec![],
            unique: None,
            batch: BatchRule::AsQueue,
            steps: vec![],
            result: None,
        }
    }

    fn welcome() -> Task {
        task(vec![
            param("to", ParamType::Email),
            param("name", ParamType::String),
            optional("options", ParamType::Object, json!({"a": 1})),
        ])
    }

    fn call(task: &Task, positional: Value, keyword: Value) -> Result<Value, String> {
        let positional = positional.as_array().expect("an array").clone();
        let keyword = keyword.as_object().expect("an object").clone();
        bind(task, &positional, keyword).map(Value::Object).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_find_their_parameters() {
        let full = json!({"to": "a@b.c", "name": "Ann", "options": {"a": 1}});
        let task = welcome();
        assert_eq!(call(&task, json!(["a@b.c", "Ann"]), json!({})), Ok(full.clone()));
        assert_eq!(call(&task, json!([]), json!({"name": "Ann", "to": "a@b.c"})), Ok(full.clone()));
        assert_eq!(call(&task, json!(["a@b.c"]), json!({"name": "Ann", "options": null})), Ok(full));
        let bound = bind(&task, &[], json!({"name": "Ann", "to": "a@b.c"}).as_object().expect("an object").clone());
        assert_eq!(bound.expect("it fits").keys().collect::<Vec<_>>(), ["to", "name", "options"], "positional order");
    }

    /// The sentences are those that CPython 3.11 prints for the same calls.
    #[test]
    fn mistakes_are_told_in_pythons_words() {
        let task = welcome();
        let none = super::tests::task(vec![]);
        let one = super::tests::task(vec![param("a", ParamType::Any)]);
        let four = super::tests::task(["a", "b", "c", "d"].map(|name| param(name, ParamType::Any)).to_vec());
        let cases = [
            (&task, json!(["a@b.c"]), json!({}), "send() missing 1 required positional argument: 'name'"),
            (&task, json!([]), json!({}), "send() missing 2 required positional arguments: 'to' and 'name'"),
            (&four, json!([1]), json!({}), "send() missing 3 required positional arguments: 'b', 'c', and 'd'"),
            (&task, json!(["a@b.c"]), json!({"nam": 1}), "send() got an unexpected keyword argument 'nam'"),
            (&task, json!(["a@b.c"]), json!({"to": "x@y.z"}), "send() got multiple values for argument 'to'"),
            (&task, json!([1, 2, 3, 4]), json!({}), "send() takes from 2 to 3 positional arguments but 4 were given"),
            (&none, json!([1]), json!({}), "send() takes 0 positional arguments but 1 was given"),
            (&one, json!([1, 2]), json!({}), "send() takes 1 positional argument but 2 were given"),
        ];
        for (task, positional, keyword, expected) in cases {
            assert_eq!(call(task, positional, keyword), Err(expected.to_owned()));
        }
    }

    #[test]
    fn stars_take_what_is_left_over() {
        let rest = optional("rest", ParamType::Rest, json!([]));
        let keywords = optional("more", ParamType::Keywords, json!({}));
        let both = task(vec![param("a", ParamType::Any), rest.clone(), keywords.clone()]);
        let cases = [
            (json!([1]), json!({}), json!({"a": 1, "rest": [], "more": {}})),
            (json!([1, 2, null]), json!({"k": 3}), json!({"a": 1, "rest": [2, null], "more": {"k": 3}})),
            (json!([]), json!({"k": 3, "a": 1}), json!({"a": 1, "rest": [], "more": {"k": 3}})),
            (json!([]), json!({"more": {"k": 3}, "rest": [2], "a": 1}), json!({"a": 1, "rest": [2], "more": {"k": 3}})),
        ];
        for (positional, keyword, expected) in cases {
            assert_eq!(call(&both, positional, keyword), Ok(expected));
        }
        let wrong = [
            (&both, json!([1]), json!({"a": 2}), "send() got multiple values for argument 'a'"),
            (&both, json!([]), json!({}), "send() missing 1 required positional argument: 'a'"),
            (&both, json!([1]), json!({"rest": 2}), "send() argument 'rest' must be an array, not an integer"),
        ];
        for (task, positional, keyword, expected) in wrong {
            assert_eq!(call(task, positional, keyword), Err(expected.to_owned()));
        }
        let only = |star| task(vec![param("a", ParamType::Any), star]);
        let error = call(&only(rest), json!([1, 2]), json!({"k": 3})).expect_err("no keywords");
        assert_eq!(error, "send() got an unexpected keyword argument 'k'");
        let error = call(&only(keywords), json!([1, 2]), json!({})).expect_err("no rest");
        assert_eq!(error, "send() takes 1 positional argument but 2 were given");
    }

    #[test]
    fn types_are_checked_and_values_never_shown() {
        let error = call(&welcome(), json!(["hunter2", "Ann"]), json!({})).expect_err("no address");
        assert_eq!(error, "send() argument 'to' must be a mail address, not another text");
        let huge = serde_json::from_str(r#"[[99999999999999999999999], [-9300000000000000000], [1.5]]"#).expect("JSON");
        let Value::Array(huge) = huge else { unreachable!("it is written as one") };
        let found = [
            "a number that is too large for 64 bits",
            "a number that is too large for 64 bits",
            "a number with a fraction",
        ];
        let one = task(vec![param("user_id", ParamType::Id)]);
        for (call_with, found) in huge.into_iter().zip(found) {
            let error = call(&one, call_with, json!({})).expect_err("no id");
            assert_eq!(error, format!("send() argument 'user_id' must be an id (an integer or a string), not {found}"));
        }
        let id = |value| fit(ParamType::Id, value);
        assert_eq!(id(json!(7)), Ok(json!(7)));
        assert_eq!(id(json!({"__type__": "uuid", "__value__": {"hex": "ab"}})), Ok(json!("ab")));
        assert!(id(json!(1.5)).is_err() && id(json!(true)).is_err() && id(json!(null)).is_err());
        assert!(fit(ParamType::Int, json!(1.0)).is_err());
        assert!(fit(ParamType::Number, json!(1.0)).is_ok());
        let date = json!({"__type__": "date", "__value__": "2026-01-01"});
        assert_eq!(fit(ParamType::Any, date.clone()), Ok(date.clone()));
        assert_eq!(fit(ParamType::String, date), Ok(json!("2026-01-01")));
    }

    #[test]
    fn an_address_cannot_carry_a_second_header() {
        for good in ["a@b", "a.b+c@example.org", "ü@exämple.org"] {
            assert!(is_email(good), "{good}");
        }
        let long = format!("{}@b.c", "a".repeat(300));
        for bad in ["", "a", "@b", "a@", "a@b@c", "a b@c", "a@b\r\nBcc: x@y", "A <a@b>", "a@b,c@d", &long] {
            assert!(!is_email(bad), "{bad:?}");
        }
    }
}
