//! The `sql` handler: the operator's statements with the job's values bound by name.
//!
//! A step's statements run in one transaction; the last one's effect is the result. Values are bound, never spliced.
//! Owns what both databases share: names, the result's shape and bounds, and which errors another attempt can cure.

mod batch;
mod bind;
mod postgres;
mod sqlite;
mod tls;

use std::time::Duration;

use serde_json::{Value, json};

use super::Halt;
use crate::config::{Database, Dialect, Statement};
use crate::job::{Args, Failure};

/// Rows that a result can hold; further ones are counted only.
const MAX_ROWS: usize = 1000;
/// Bytes of JSON that a result's rows can hold; further rows are counted only.
const MAX_ROW_BYTES: usize = 1 << 20;

/// The database of `[database]`.
#[derive(Debug)]
pub(super) enum Sql {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

/// Why `[database]` cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("read `database.url`: {0}")]
    Url(String),
    #[error("use the certificate authority {path}: {reason}")]
    Authority { path: String, reason: String },
    #[error("start the SQLite thread: {0}")]
    Thread(std::io::Error),
    #[error("build the connection pool: {0}")]
    Pool(String),
}

/// Why a step's statements did not run. Statements are numbered from 1.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum SqlError {
    #[error("run statement {statement}: there is no value for `:{name}`; there are {}", listed(.known))]
    MissingValue { statement: usize, name: String, known: Vec<String> },
    #[error("run the statement for {expected} rows: it changed {changed}")]
    Uneven { expected: u64, changed: u64 },
    #[error("connect to the database: {0}")]
    Connect(String),
    #[error("run the statements: {0}")]
    Lost(String),
    #[error("run the statements: stopped after the database timeout of {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    #[error("run statement {statement}: {message}")]
    Refused {
        statement: usize,
        class: Class,
        message: String,
        detail: Option<String>,
        /// It was found before the database had seen any value, so it is the same for all rows.
        whatever_the_values: bool,
    },
}

/// The classes of PEP 249, which every Python producer knows; they name what the database objected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// A constraint: the row exists, the key is missing.
    Integrity,
    /// The statement: syntax, unknown table or column.
    Programming,
    /// A value: wrong form, out of range.
    Data,
    /// Not of the statement's making: a lock, a serialization conflict, a full disk.
    Operational,
}

impl Sql {
    pub(super) fn new(config: &Database) -> Result<Self, SetupError> {
        Ok(match config {
            Database::Sqlite { path, timeout } => Self::Sqlite(sqlite::Sqlite::new(path.clone(), *timeout)?),
            Database::Postgres { url, connections, timeout } => {
                Self::Postgres(postgres::Postgres::new(url, *connections, *timeout)?)
            }
        })
    }

    /// Runs the statements in one transaction and returns `{"affected": n, "rows": […]}` of the last: the rows it
    /// changed or, where it returns rows, how many; `"truncated": true` is added when not all rows are listed.
    pub(super) async fn run(&self, statements: &[Statement], named: &Named<'_>) -> Result<Value, SqlError> {
        Ok(self.transact(bind_names(statements, named)?).await?.into_value())
    }

    async fn transact(&self, bound: Vec<Bound>) -> Result<StatementResult, SqlError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.run(bound).await,
            Self::Postgres(postgres) => postgres.run(bound).await,
        }
    }

    fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// The first column of the rows that `query` returns.
    pub(super) async fn column(&self, query: &Statement, named: &Named<'_>) -> Result<Vec<Value>, SqlError> {
        let result = self.run(std::slice::from_ref(query), named).await?;
        let rows = result["rows"].as_array().cloned().unwrap_or_default();
        Ok(rows.iter().filter_map(|row| row.as_object()?.values().next().cloned()).collect())
    }
}

/// A statement with the values of its placeholders, in their order.
#[derive(Debug)]
struct Bound {
    statement: Statement,
    values: Vec<Value>,
    /// How many rows it must change; otherwise nothing of the transaction is kept.
    rows: Option<u64>,
}

impl Bound {
    fn check(&self, result: &StatementResult) -> Result<(), SqlError> {
        self.rows.map_or(Ok(()), |rows| result.must_have_changed(rows))
    }
}

fn bind_names(statements: &[Statement], named: &Named<'_>) -> Result<Vec<Bound>, SqlError> {
    let bind = |(index, statement): (usize, &Statement)| {
        Ok(Bound { statement: statement.clone(), values: values(index, statement, named)?, rows: None })
    };
    statements.iter().enumerate().map(bind).collect()
}

/// What statements may name.
#[derive(Debug)]
pub(super) struct Named<'a> {
    pub args: &'a Args,
    /// These win over arguments of the same name.
    pub more: Args,
}

impl<'a> Named<'a> {
    pub(super) fn args(args: &'a Args) -> Self {
        Self { args, more: Args::new() }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.more.get(name).or_else(|| self.args.get(name))
    }

    fn names(&self) -> Vec<String> {
        let more = self.more.keys().filter(|&name| !self.args.contains_key(name));
        self.args.keys().chain(more).cloned().collect()
    }
}

/// The values of the statement's placeholders, in their order; `index` is its place in its step.
pub(super) fn values(index: usize, statement: &Statement, named: &Named<'_>) -> Result<Vec<Value>, SqlError> {
    let value = |name: &String| {
        named.get(name).cloned().ok_or_else(|| SqlError::MissingValue {
            statement: index + 1,
            name: name.clone(),
            known: named.names(),
        })
    };
    statement.names.iter().map(value).collect()
}

/// What a statement did, inside its bounds.
#[derive(Debug, Default)]
struct StatementResult {
    affected: u64,
    rows: Vec<Value>,
    bytes: usize,
    truncated: bool,
}

impl StatementResult {
    fn changed(affected: u64) -> Self {
        Self { affected, ..Self::default() }
    }

    fn must_have_changed(&self, expected: u64) -> Result<(), SqlError> {
        let changed = self.affected;
        if changed == expected { Ok(()) } else { Err(SqlError::Uneven { expected, changed }) }
    }

    /// Counts a row, and keeps it while there is room.
    fn add_row(&mut self, row: Value) {
        self.affected += 1;
        self.bytes += if self.truncated { 0 } else { row.to_string().len() };
        self.truncated |= self.rows.len() >= MAX_ROWS || self.bytes > MAX_ROW_BYTES;
        if !self.truncated {
            self.rows.push(row);
        }
    }

    fn into_value(self) -> Value {
        let mut value = json!({"affected": self.affected, "rows": self.rows});
        if self.truncated {
            value["truncated"] = json!(true);
        }
        value
    }
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::Integrity => "IntegrityError",
            Self::Programming => "ProgrammingError",
            Self::Data => "DataError",
            Self::Operational => "OperationalError",
        }
    }
}

impl SqlError {
    /// A database that nobody can reach is no failure of the job: nothing of it was sent.
    pub(super) fn into_halt(self) -> Halt {
        let is_outage = matches!(self, Self::Connect(_));
        let error = Failure::from(self);
        if is_outage { Halt::Unavailable { error, retry_after: None } } else { Halt::Failed(error) }
    }

    /// Fewer rows may fare better.
    fn is_about_rows(&self) -> bool {
        match self {
            Self::Uneven { .. } => true,
            Self::Refused { class, whatever_the_values, .. } => *class != Class::Operational && !whatever_the_values,
            _ => false,
        }
    }

    /// Other rows would fare no better. A lost connection says nothing of them: the next one may be fine, and if nobody is
    /// there any more, they cost no attempt.
    fn is_about_no_row(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Timeout(_) => true,
            Self::Refused { whatever_the_values, .. } => *whatever_the_values,
            _ => false,
        }
    }

    /// The same, where preparing a statement has shown it.
    fn when_prepared(mut self) -> Self {
        if let Self::Refused { class: Class::Programming, whatever_the_values, .. } = &mut self {
            *whatever_the_values = true;
        }
        self
    }
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        let message = format!("failed to {error}");
        match error {
            SqlError::MissingValue { .. } => Self::never(Class::Programming.name(), message),
            SqlError::Uneven { .. } | SqlError::Connect(_) | SqlError::Lost(_) | SqlError::Timeout(_) => {
                Self::new(Class::Operational.name(), message)
            }
            SqlError::Refused { class, detail, .. } => {
                let failure = match class {
                    Class::Operational => Self::new(class.name(), message),
                    _ => Self::never(class.name(), message),
                };
                Self { detail, ..failure }
            }
        }
    }
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.iter().map(|name| format!("`:{name}`")).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests;
