//! The results that a client holds: of a task, or of a group, each with what came before it.

use serde_json::{Value, json};

/// A result, as `children` and saved groups tell it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) id: String,
    parent: Option<Box<Self>>,
    /// Of a group.
    pub(super) members: Option<Vec<Self>>,
}

impl Node {
    pub(super) fn task(id: &str) -> Self {
        Self { id: id.to_owned(), parent: None, members: None }
    }

    pub(super) fn group(id: &str, members: Vec<Self>) -> Self {
        Self { id: id.to_owned(), parent: None, members: Some(members) }
    }

    /// Puts `earlier` before the first that this one follows.
    pub(super) fn follow(&mut self, earlier: Self) {
        match &mut self.parent {
            Some(parent) => parent.follow(earlier),
            None => self.parent = Some(Box::new(earlier)),
        }
    }

    /// `[[id, parent], members]`, as `as_tuple` gives it.
    pub(super) fn to_value(&self) -> Value {
        let parent = self.parent.as_ref().map_or(Value::Null, |parent| parent.to_value());
        let members = self.members.as_ref().map(|members| members.iter().map(Self::to_value).collect::<Vec<_>>());
        json!([[self.id, parent], members])
    }
}
