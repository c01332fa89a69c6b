//! One statement for many jobs: all rows at once, and where that is refused, halves of them, until each bad row has
//! failed alone.
//!
//! Every part is a transaction of its own, so a job's row is in exactly one that was committed, or in none.

use std::borrow::Borrow;
use std::fmt::Debug;
use std::ops::Range;

use serde_json::{Value, json};

use super::{Bound, Sql, SqlError, StatementResult};
use crate::config::{Dialect, MultiRow, Statement};

/// Values that one statement may bind: PostgreSQL's wire counts them in 16 bits, SQLite's default limit is half of that.
const MOST_VALUES: (usize, usize) = (65_535, 32_766);

/// A value of a row, owned or not: the arguments of a job are large and stay where they are.
pub(in crate::handler) trait Given: Borrow<Value> + Debug + Sync {}

impl<V: Borrow<Value> + Debug + Sync> Given for V {}

impl Sql {
    /// Runs `statement` once for each row of values; the results in the same order. A row that the database refuses
    /// takes no other with it, a connection that is lost only what was on its way; when the database cannot be reached, does
    /// not answer in time, or does not know the table, all that was not done fails.
    pub(in crate::handler) async fn run_rows(
        &self,
        statement: &Statement,
        form: &MultiRow,
        rows: &[Vec<impl Given>],
    ) -> Vec<Result<Value, SqlError>> {
        let mut results: Vec<Option<Result<Value, SqlError>>> = vec![None; rows.len()];
        let mut parts = self.parts(form, rows.len());
        while let Some(part) = parts.pop() {
            match self.insert(statement, form, &rows[part.clone()]).await {
                Ok(_) if part.len() > 1 => results[part].fill(Some(Ok(json!({"affected": 1, "rows": []})))),
                Ok(result) => results[part].fill(Some(Ok(result.into_value()))),
                Err(error) if part.len() > 1 && error.is_about_rows() => {
                    let middle = part.start + part.len() / 2;
                    parts.extend([middle..part.end, part.start..middle]);
                }
                // It would be the same for all others, at the cost of a wait each time.
                Err(error) if error.is_about_no_row() => {
                    let left = parts.drain(..).chain([part]).flatten();
                    left.for_each(|row| results[row] = Some(Err(error.clone())));
                }
                Err(error) => results[part].fill(Some(Err(error))),
            }
        }
        results.into_iter().map(|result| result.expect("every row is in one part")).collect()
    }

    /// One row as the operator wrote it, several as one statement, of which all rows must be new: where some are left
    /// out (DO NOTHING, a trigger), which ones they are can only be known one by one.
    async fn insert(
        &self,
        statement: &Statement,
        form: &MultiRow,
        rows: &[Vec<impl Given>],
    ) -> Result<StatementResult, SqlError> {
        match (self, rows) {
            (_, [row]) => {
                let bound = Bound { statement: statement.clone(), values: owned(row), rows: None };
                self.transact(vec![bound]).await
            }
            (Self::Postgres(postgres), rows) => postgres.run_rows(statement, form, rows).await,
            (Self::Sqlite(sqlite), rows) => sqlite.run(vec![bind(statement, form, rows)]).await,
        }
    }

    /// The rows in parts that one statement can hold, the last one first.
    fn parts(&self, form: &MultiRow, rows: usize) -> Vec<Range<usize>> {
        let most = match self.dialect() {
            Dialect::Postgres => MOST_VALUES.0,
            Dialect::Sqlite => MOST_VALUES.1,
        };
        let most = (most / form.names().max(1)).max(1);
        (0..rows).step_by(most).map(|start| start..rows.min(start + most)).rev().collect()
    }
}

/// All rows as one statement with placeholders of its own for each.
fn bind(statement: &Statement, form: &MultiRow, rows: &[Vec<impl Given>]) -> Bound {
    let values = rows.iter().flat_map(|row| owned(row)).collect();
    let sql = form.sql(rows.len());
    let statement = Statement { sql, names: Vec::new(), verb: statement.verb.clone(), multi_row: None };
    Bound { statement, values, rows: Some(rows.len() as u64) }
}

fn owned(row: &[impl Given]) -> Vec<Value> {
    row.iter().map(|value| value.borrow().clone()).collect()
}
