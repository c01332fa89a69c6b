//! `unique` of a task: which of its jobs are the same to it, and what becomes of the second one.

use serde_json::{Map, Value};

use super::{RenderError, Template};
use crate::job::{Args, Unique, UniqueKey, UniqueRule};

/// What makes the jobs of a task unique.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TaskUnique {
    /// Sees the arguments and `vars`.
    pub key: Template,
    pub rule: UniqueRule,
}

impl TaskUnique {
    /// What makes the job with these arguments unique. `None`: the key comes out empty, and so it is not.
    ///
    /// # Errors
    /// [`RenderError`] when the key cannot be worked out.
    pub(crate) fn of(&self, args: &Args, vars: &Map<String, Value>) -> Result<Option<Unique>, RenderError> {
        Ok(self.key_of(args, vars)?.map(|key| Unique { key, rule: self.rule }))
    }

    /// # Errors
    /// [`RenderError`] when the key cannot be worked out.
    pub(crate) fn key_of(&self, args: &Args, vars: &Map<String, Value>) -> Result<Option<UniqueKey>, RenderError> {
        let mut values = args.clone();
        values.insert("vars".to_owned(), Value::Object(vars.clone()));
        let text = self.key.render(&Value::Object(values))?;
        Ok(Some(text.trim()).filter(|text| !text.is_empty()).map(UniqueKey::new))
    }
}
