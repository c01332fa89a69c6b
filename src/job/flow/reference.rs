//! Arguments that stand for the results of earlier jobs: `{"$result": "resize", "path": "/outputs/720p"}`.
//!
//! `path` is a JSON pointer into the result; without it the whole result is meant. A list of names stands for the list of
//! their results. References are found and checked when a flow is submitted, and replaced when the job becomes ready.

use serde_json::Value;

use crate::job::Args;

/// What marks a reference.
const MARK: &str = "$result";
const PATH: &str = "path";

/// One reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub from: Source,
    /// A JSON pointer; empty for the whole.
    path: String,
}

/// Whose result is meant, by the names in the flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    One(String),
    Several(Vec<String>),
}

impl Reference {
    /// `None` for a value that is none; else the reference, or what is wrong with it.
    pub(crate) fn read(value: &Value) -> Option<Result<Self, String>> {
        let object = value.as_object().filter(|object| object.contains_key(MARK))?;
        if let Some(stray) = object.keys().find(|key| !matches!(key.as_str(), MARK | PATH)) {
            return Some(Err(format!("a reference to a result has no field {stray:?}; it has {MARK:?} and {PATH:?}")));
        }
        let name = |value: &Value| value.as_str().map(str::to_owned);
        let from = match object.get(MARK) {
            Some(Value::Array(names)) if !names.is_empty() => {
                names.iter().map(name).collect::<Option<_>>().map(Source::Several)
            }
            Some(one) => name(one).map(Source::One),
            None => None,
        };
        let Some(from) = from else {
            return Some(Err(format!("{MARK:?} must be the name of a job of this flow, or a list of such names")));
        };
        let path = match object.get(PATH) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(path)) if path.is_empty() || path.starts_with('/') => path.clone(),
            Some(_) => {
                let detail =
                    format!("{PATH:?} must be a JSON pointer that begins with a slash, like \"/outputs/720p\"");
                return Some(Err(detail));
            }
        };
        Some(Ok(Self { from, path }))
    }

    pub(crate) fn names(&self) -> &[String] {
        match &self.from {
            Source::One(name) => std::slice::from_ref(name),
            Source::Several(names) => names,
        }
    }

    /// The value meant.
    fn value(&self, result: &impl Fn(&str) -> Result<Value, String>) -> Result<Value, String> {
        match &self.from {
            Source::One(name) => self.inside(name, result(name)?),
            Source::Several(names) => {
                names.iter().map(|name| self.inside(name, result(name)?)).collect::<Result<_, _>>().map(Value::Array)
            }
        }
    }

    fn inside(&self, name: &str, result: Value) -> Result<Value, String> {
        if self.path.is_empty() || result.is_null() {
            return Ok(result);
        }
        let found = result.pointer(&self.path).cloned();
        found.ok_or_else(|| format!("the result of {name:?} has nothing at {}", self.path))
    }
}

/// Whether a value stands for a result as a whole.
pub(crate) fn is_reference(value: &Value) -> bool {
    matches!(Reference::read(value), Some(Ok(_)))
}

/// Every reference in the arguments, with its place (a JSON pointer into them) and what is wrong with it.
pub(crate) fn find(args: &Args) -> Vec<(String, Result<Reference, String>)> {
    let mut found = Vec::new();
    for (name, value) in args {
        find_in(value, format!("/{}", escaped(name)), &mut found);
    }
    found
}

/// The same in any value.
pub(crate) fn find_in(value: &Value, place: String, found: &mut Vec<(String, Result<Reference, String>)>) {
    if let Some(reference) = Reference::read(value) {
        found.push((place, reference));
        return;
    }
    match value {
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                find_in(item, format!("{place}/{at}"), found);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                find_in(item, format!("{place}/{}", escaped(key)), found);
            }
        }
        _ => {}
    }
}

/// The arguments with every reference replaced by the value it stands for.
///
/// # Errors
/// In words, which reference stands for nothing.
pub(crate) fn resolved(args: &Args, result: &impl Fn(&str) -> Result<Value, String>) -> Result<Args, String> {
    args.iter().map(|(name, value)| Ok((name.clone(), replaced(value, result)?))).collect()
}

fn replaced(value: &Value, result: &impl Fn(&str) -> Result<Value, String>) -> Result<Value, String> {
    if let Some(reference) = Reference::read(value) {
        return reference?.value(result);
    }
    match value {
        Value::Array(items) => {
            items.iter().map(|item| replaced(item, result)).collect::<Result<_, _>>().map(Value::Array)
        }
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, item)| Ok((key.clone(), replaced(item, result)?)));
            pairs.collect::<Result<_, _>>().map(Value::Object)
        }
        plain => Ok(plain.clone()),
    }
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn args(value: Value) -> Args {
        value.as_object().cloned().expect("an object")
    }

    fn results(name: &str) -> Result<Value, String> {
        match name {
            "a" => Ok(json!({"outputs": {"720p": "/m/720.mp4"}, "n": 7})),
            "b" => Ok(json!(8)),
            other => Err(format!("{other} has no result")),
        }
    }

    #[test]
    fn references_are_found_and_replaced_wherever_they_stand() {
        let given = args(json!({
            "file": {"$result": "a", "path": "/outputs/720p"}, "all": [{"$result": ["a", "b"]}, 1], "plain": {"x": "y"},
        }));
        let places: Vec<String> = find(&given).into_iter().map(|(place, _)| place).collect();
        assert_eq!(places, ["/file", "/all/0"]);
        let whole = results("a").expect("it is there");
        let expected = json!({"file": "/m/720.mp4", "all": [[whole, 8], 1], "plain": {"x": "y"}});
        assert_eq!(resolved(&given, &results).map(Value::Object), Ok(expected));
        let missing = args(json!({"x": {"$result": "a", "path": "/outputs/480p"}}));
        assert_eq!(resolved(&missing, &results), Err("the result of \"a\" has nothing at /outputs/480p".to_owned()));
    }

    #[test]
    fn what_is_wrong_with_a_reference_is_told() {
        for (value, words) in [
            (json!({"$result": 1}), "must be the name of a job"),
            (json!({"$result": []}), "must be the name of a job"),
            (json!({"$result": "a", "pth": "/x"}), "no field \"pth\""),
            (json!({"$result": "a", "path": "x"}), "begins with a slash"),
        ] {
            let told = Reference::read(&value).expect("it is marked as one").expect_err("it is wrong");
            assert!(told.contains(words), "{told}");
        }
        assert_eq!(Reference::read(&json!({"result": "a"})), None);
    }
}
