//! One signature of Celery's canvas: a call that is to be made later, or a chain, group or chord of such calls.
//!
//! It stays the object that the producer wrote, so that it is published again as it came, with whatever is not known
//! here.

use serde_json::{Map, Value, json};
use thiserror::Error;

/// A signature. Its fields may be missing, as long as there is a name of a task.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Signature(Map<String, Value>);

/// What a signature does when its turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Task,
    Chain,
    Group,
    Chord,
}

/// Why a value is no signature.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Malformed {
    #[error("a signature is not an object")]
    NotAnObject,
    #[error("a signature names no task")]
    Nameless,
    #[error("the {field} of the signature of {task} is not {expected}")]
    Field { task: String, field: &'static str, expected: &'static str },
    #[error("there are more than {0} signatures in it; send smaller ones")]
    TooMany(usize),
    #[error("its chords would unfold to more than {0} bytes; pass a reference to the data, not the data")]
    TooLarge(usize),
}

impl Signature {
    /// A signature, looked at from outside only.
    pub(super) fn read(value: &Value) -> Result<Self, Malformed> {
        let map = value.as_object().ok_or(Malformed::NotAnObject)?;
        let task: String = match map.get("task") {
            Some(Value::String(task)) if !task.is_empty() => task.chars().take(100).collect(),
            _ => return Err(Malformed::Nameless),
        };
        let fits = |field: &'static str, expected, test: fn(&Value) -> bool| match map.get(field) {
            None | Some(Value::Null) => Ok(()),
            Some(value) if test(value) => Ok(()),
            Some(_) => Err(Malformed::Field { task: task.clone(), field, expected }),
        };
        fits("args", "a list", Value::is_array)?;
        fits("kwargs", "an object", Value::is_object)?;
        fits("options", "an object", Value::is_object)?;
        fits("subtask_type", "a text", Value::is_string)?;
        Ok(Self(map.clone()))
    }

    /// A group that Celery makes itself of several.
    pub(super) fn group(tasks: Vec<Self>) -> Self {
        Self::made("celery.group", "group", &json!({"tasks": values(tasks)}))
    }

    /// What becomes of a group that something follows in a chain.
    pub(super) fn chord(header: Self, body: Self) -> Self {
        let kwargs = json!({"kwargs": {}, "header": header.into_value(), "body": body.into_value()});
        Self::made("celery.chord", "chord", &kwargs)
    }

    fn made(task: &str, kind: &str, kwargs: &Value) -> Self {
        let made = json!({
            "task": task, "args": [], "kwargs": kwargs, "options": {}, "subtask_type": kind, "immutable": false,
        });
        match made {
            Value::Object(map) => Self(map),
            _ => unreachable!("it is written as an object"),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self.0.get("subtask_type").and_then(Value::as_str) {
            Some("chain") => Kind::Chain,
            Some("group") => Kind::Group,
            Some("chord") => Kind::Chord,
            // `celery.map` and its like are tasks that Celery's workers have.
            _ => Kind::Task,
        }
    }

    pub(super) fn task(&self) -> &str {
        self.0.get("task").and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn args(&self) -> &[Value] {
        self.0.get("args").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    pub(super) fn kwargs(&self) -> Map<String, Value> {
        self.0.get("kwargs").and_then(Value::as_object).cloned().unwrap_or_default()
    }

    pub(super) fn is_immutable(&self) -> bool {
        self.0.get("immutable").is_some_and(|value| *value == Value::Bool(true))
    }

    pub(super) fn options(&self) -> Option<&Map<String, Value>> {
        self.0.get("options").and_then(Value::as_object)
    }

    pub(super) fn options_mut(&mut self) -> &mut Map<String, Value> {
        let options = self.0.entry("options").or_insert_with(|| Value::Object(Map::new()));
        if !options.is_object() {
            *options = Value::Object(Map::new());
        }
        options.as_object_mut().expect("it was made one")
    }

    /// An option that is there and not null.
    pub(super) fn option(&self, name: &str) -> Option<&Value> {
        self.options()?.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.option(name)?.as_str()
    }

    /// These arguments before its own, unless it takes none.
    pub(super) fn merged_args(&self, before: &[Value]) -> Vec<Value> {
        let before = if self.is_immutable() { &[] } else { before };
        before.iter().chain(self.args()).cloned().collect()
    }

    pub(super) fn set_args(&mut self, args: Vec<Value>) {
        self.0.insert("args".to_owned(), Value::Array(args));
    }

    /// Its own options and those given over them; what holds a group together cannot be given another value.
    pub(super) fn merged_options(&self, given: &Map<String, Value>) -> Map<String, Value> {
        let mut options = self.options().cloned().unwrap_or_default();
        let stamped: Vec<Value> = options.get("stamped_headers").and_then(Value::as_array).cloned().unwrap_or_default();
        for (name, value) in given {
            let fixed =
                matches!(name.as_str(), "group_id" | "stamped_headers") || stamped.iter().any(|own| own == name);
            if !(fixed && options.contains_key(name)) {
                options.insert(name.clone(), value.clone());
            }
        }
        options
    }

    /// The members of a chain or group.
    pub(super) fn tasks(&self) -> Result<Vec<Self>, Malformed> {
        self.list("tasks")
    }

    pub(super) fn set_tasks(&mut self, tasks: Vec<Self>) {
        self.set_kwarg("tasks", values(tasks));
    }

    /// The members of a chord's header, which may be written as a group, a chain or a single task.
    pub(super) fn header(&self) -> Result<Vec<Self>, Malformed> {
        match self.header_signature()? {
            None => self.list("header"),
            Some(header) => match header.kind() {
                Kind::Group | Kind::Chain => header.tasks(),
                Kind::Task | Kind::Chord => Ok(vec![header]),
            },
        }
    }

    /// The id of the group that a chord's header is, once it has one.
    pub(super) fn header_id(&self) -> Option<String> {
        let header = self.header_signature().ok().flatten().filter(|header| header.kind() == Kind::Group);
        let own = header.and_then(|header| header.text("task_id").map(str::to_owned));
        own.or_else(|| self.text("task_id").map(str::to_owned))
    }

    fn header_signature(&self) -> Result<Option<Self>, Malformed> {
        self.kwarg("header").filter(|header| header.is_object()).map(Self::read).transpose()
    }

    /// What follows a chord's header.
    pub(super) fn body(&self) -> Result<Self, Malformed> {
        Self::read(self.kwarg("body").unwrap_or(&Value::Null))
    }

    pub(super) fn set_kwarg(&mut self, name: &str, value: Value) {
        if let Some(Value::Object(kwargs)) = self.0.get_mut("kwargs") {
            kwargs.insert(name.to_owned(), value);
        }
    }

    fn kwarg(&self, name: &str) -> Option<&Value> {
        self.0.get("kwargs")?.get(name)
    }

    fn list(&self, field: &'static str) -> Result<Vec<Self>, Malformed> {
        match self.kwarg(field) {
            Some(Value::Array(items)) => items.iter().map(Self::read).collect(),
            _ => Err(Malformed::Field { task: self.task().to_owned(), field, expected: "a list of signatures" }),
        }
    }

    /// What an option lists: nothing, one value, or several.
    pub(super) fn signatures(&self, option: &str) -> Result<Vec<Self>, Malformed> {
        listed(self.option(option)).map(Self::read).collect()
    }

    /// Adds to an option that is a list.
    pub(super) fn extend(&mut self, option: &str, more: Vec<Value>) {
        let mut list: Vec<Value> = listed(self.option(option)).cloned().collect();
        list.extend(more.into_iter().filter(|value| !value.is_null()));
        self.options_mut().insert(option.to_owned(), Value::Array(list));
    }

    pub(super) fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

pub(super) fn values(signatures: Vec<Signature>) -> Value {
    signatures.into_iter().map(Signature::into_value).collect()
}

/// Celery's own reading of what may be one value or a list of them.
pub(super) fn listed(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    let items: &[Value] = match value {
        None | Some(Value::Null) => &[],
        Some(Value::Array(items)) => items,
        Some(one) => std::slice::from_ref(one),
    };
    items.iter()
}
