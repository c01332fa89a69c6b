//! The result documents that `AsyncResult` reads, in Celery's own order of fields. The same bytes are stored and
//! published.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use crate::intake::iso;
use crate::intake::pyjson::{Dialect, dumps};

/// An exception as the client will raise it: `exc_module.exc_type(*exc_message)`.
///
/// A client constructs the class only if its module is already imported there, and makes up one of that name
/// otherwise; so failures without a class of their own are best told as a built-in one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exception {
    pub(crate) exc_type: String,
    pub(crate) exc_message: Vec<Value>,
    pub(crate) exc_module: String,
}

impl Exception {
    pub(crate) fn new(module: &str, class: &str, message: Vec<Value>) -> Self {
        Self { exc_type: class.to_owned(), exc_message: message, exc_module: module.to_owned() }
    }

    /// A failure that is only a sentence.
    pub(crate) fn runtime_error(message: &str) -> Self {
        Self::new("builtins", "RuntimeError", vec![message.into()])
    }

    /// No such task here.
    pub(crate) fn not_registered(task: &str) -> Self {
        Self::new("celery.exceptions", "NotRegistered", vec![task.into()])
    }

    /// The message itself is broken.
    pub(crate) fn invalid_task(reason: &str) -> Self {
        Self::new("celery.exceptions", "InvalidTaskError", vec![reason.into()])
    }

    /// A content type that is never read, such as pickle.
    pub(crate) fn content_disallowed(content_type: &str) -> Self {
        let message = format!("Refusing to deserialize disabled content of type {content_type}");
        Self::new("kombu.exceptions", "ContentDisallowed", vec![message.into()])
    }

    /// A chord whose header or body cannot end well.
    pub(crate) fn chord_error(message: &str) -> Self {
        Self::new("celery.exceptions", "ChordError", vec![message.into()])
    }

    fn revoked(revocation: Revocation) -> Self {
        Self::new("celery.exceptions", "TaskRevokedError", vec![revocation.message().into()])
    }

    /// The last line of a traceback, for an exception whose one argument is a sentence.
    pub(crate) fn to_line(&self) -> String {
        let message = self.exc_message.first().and_then(Value::as_str).unwrap_or_default();
        format!("{}.{}: {message}\n", self.exc_module, self.exc_type)
    }

    /// The form it has in results and in a chord's parts.
    pub(crate) fn to_value(&self) -> Value {
        json!({"exc_type": self.exc_type, "exc_message": self.exc_message, "exc_module": self.exc_module})
    }
}

/// Why a task never ran to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Revocation {
    Revoked,
    Expired,
}

impl Revocation {
    fn message(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

/// What is told of a task.
#[derive(Debug, Clone, Copy)]
pub(crate) enum State<'a> {
    Success {
        result: &'a Value,
        done: DateTime<Utc>,
    },
    Failure {
        exception: &'a Exception,
        traceback: Option<&'a str>,
        done: DateTime<Utc>,
    },
    /// It failed and will run again.
    Retry {
        exception: &'a Exception,
        traceback: Option<&'a str>,
    },
    Revoked {
        revocation: Revocation,
        done: DateTime<Utc>,
    },
}

impl State<'_> {
    /// Whether the task will not run again.
    pub(crate) fn has_ended(&self) -> bool {
        !matches!(self, Self::Retry { .. })
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Success { .. } => "SUCCESS",
            Self::Failure { .. } => "FAILURE",
            Self::Retry { .. } => "RETRY",
            Self::Revoked { .. } => "REVOKED",
        }
    }

    pub(crate) fn result(&self) -> Value {
        match self {
            Self::Success { result, .. } => (*result).clone(),
            Self::Failure { exception, .. } | Self::Retry { exception, .. } => exception.to_value(),
            Self::Revoked { revocation, .. } => Exception::revoked(*revocation).to_value(),
        }
    }

    fn traceback(&self) -> Option<&str> {
        match self {
            Self::Failure { traceback, .. } | Self::Retry { traceback, .. } => *traceback,
            Self::Success { .. } | Self::Revoked { .. } => None,
        }
    }

    fn done(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Success { done, .. } | Self::Failure { done, .. } | Self::Revoked { done, .. } => Some(*done),
            Self::Retry { .. } => None,
        }
    }
}

/// One result document.
#[derive(Debug, Clone)]
pub(crate) struct Document<'a> {
    pub(crate) task_id: &'a str,
    pub(crate) group: Option<&'a str>,
    pub(crate) parent_id: Option<&'a str>,
    /// What the task has published itself, each as `[["<id>", null], null]`.
    pub(crate) children: &'a [Value],
    pub(crate) state: State<'a>,
}

impl Document<'_> {
    /// The bytes to store and to publish.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut fields = Map::new();
        let mut field = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        field("status", self.state.name().into());
        field("result", self.state.result());
        field("traceback", self.state.traceback().into());
        field("children", self.children.into());
        field("date_done", self.state.done().map(iso::celery).into());
        if let Some(group) = self.group {
            field("group_id", group.into());
        }
        if let Some(parent) = self.parent_id {
            field("parent_id", parent.into());
        }
        field("task_id", self.task_id.into());
        dumps(&Value::Object(fields), Dialect::Kombu).into_bytes()
    }
}
