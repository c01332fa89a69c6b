//! SQL statements in the file: read for the database that `[database]` names, each mistake told at its place.

use super::document::Item;
use crate::config::{Dialect, Statement};

impl Item<'_> {
    /// One statement, as the database will get it. `expected` is what a message asks for where there is none.
    pub(super) fn statement(&self, dialect: Dialect, expected: &str) -> Option<Statement> {
        let text = self.filled_text(expected)?.text;
        if text.contains("{{") {
            self.error("a template in a statement", "bind the value as `:name`, and compute it in the step's `values`");
            return None;
        }
        match Statement::parse(&text, dialect) {
            Ok(statement) => Some(statement),
            Err(error) => {
                self.error_within(&text, error.place, error.problem.to_string(), error.problem.help());
                None
            }
        }
    }
}
