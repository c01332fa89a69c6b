//! PostgreSQL: a bounded pool, one transaction a step, values bound as text.
//!
//! Text form lets the server read each value as the type it inferred for the placeholder, so one JSON value fits
//! `bigint`, `numeric(10,2)`, `timestamptz`, `uuid`, `jsonb` or an array without a cast. Rows come back through
//! `row_to_json`, for the same reason. Statements are prepared anew for each attempt: one kept over a change of the
//! schema would fail for as long as its connection lives.
//!
//! Many rows go in as one array of texts for each placeholder: a statement with a placeholder for each value of each row
//! is long to write, to parse and to plan.

use std::borrow::Cow;
use std::error::Error as _;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type};
use tokio_postgres::{CancelToken, Row, Statement, Transaction};

use super::bind::Scalar;
use super::tls::{self, Tls};
use super::{Bound, Class, MAX_ROWS, SetupError, SqlError, StatementResult};
use crate::config::{self, MultiRow, Secret};

/// How long the server may take to hear that a statement is no longer wanted.
const CANCEL_WAIT: Duration = Duration::from_secs(2);
/// What the client waits beyond the server's own statement timeout, which has the better message.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(in crate::handler) struct Postgres {
    pool: Pool,
    tls: Tls,
    timeout: Duration,
}

/// A connection on loan. When the attempt is dropped half-way it does not return to the pool: it is in a
/// transaction, perhaps in a statement, so the server is told to stop and the connection is closed.
struct Loan {
    connection: Option<Object>,
    cancel: CancelToken,
    tls: Tls,
}

impl Loan {
    /// The connection is between transactions again.
    fn give_back(mut self) {
        drop(self.connection.take());
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        drop(Object::take(connection));
        let (cancel, tls) = (self.cancel.clone(), self.tls.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // Its own short task, because a destructor cannot wait. It ends by itself within `CANCEL_WAIT`.
            runtime.spawn(tokio::time::timeout(CANCEL_WAIT, async move { tls.cancel(&cancel).await }));
        }
    }
}

impl Postgres {
    pub(super) fn new(url: &Secret, connections: usize, timeout: Duration) -> Result<Self, SetupError> {
        let (mut config, tls) = tls::connection(url.expose())?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(timeout);
        }
        if config.get_application_name().is_none() {
            config.application_name("jobsd");
        }
        let how = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match &tls {
            Tls::Off => Manager::from_config(config, tokio_postgres::NoTls, how),
            Tls::On(connector) => Manager::from_config(config, (**connector).clone(), how),
        };
        let limits = Timeouts { wait: Some(timeout), create: Some(timeout), recycle: Some(timeout) };
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .timeouts(limits)
            .build()
            .map_err(|error| SetupError::Pool(error.to_string()))?;
        Ok(Self { pool, tls, timeout })
    }

    pub(super) async fn run(&self, statements: Vec<Bound>) -> Result<StatementResult, SqlError> {
        let count = statements.len();
        self.transact(count, async |transaction| execute_all(transaction, &statements, self.timeout).await).await
    }

    /// The statement for all rows of values at once, each of which must be a new row of the table.
    pub(super) async fn run_rows(
        &self,
        statement: &config::Statement,
        form: &MultiRow,
        rows: &[Vec<Value>],
    ) -> Result<StatementResult, SqlError> {
        self.transact(1, async |transaction| {
            let changed = execute_rows(transaction, statement, form, rows).await;
            let result = StatementResult::changed(changed.map_err(|error| sorted(1, &error, self.timeout))?);
            result.must_have_changed(rows.len() as u64)?;
            Ok(result)
        })
        .await
    }

    /// One transaction on a connection of its own, around `work`, which runs `statements` statements.
    async fn transact(
        &self,
        statements: usize,
        work: impl AsyncFnOnce(&Transaction<'_>) -> Result<StatementResult, SqlError>,
    ) -> Result<StatementResult, SqlError> {
        let connection = self.pool.get().await.map_err(|error| SqlError::Connect(chain(&error)))?;
        let cancel = connection.cancel_token();
        let mut loan = Loan { connection: Some(connection), cancel, tls: self.tls.clone() };
        let work = async {
            let connection = loan.connection.as_mut().expect("the loan holds its connection until it is given back");
            transact(connection, statements, work, self.timeout).await
        };
        // The timeout is one statement's; all of them together may take their sum.
        let limit = self.timeout.saturating_mul(u32::try_from(statements).unwrap_or(u32::MAX)) + GRACE;
        match tokio::time::timeout(limit, work).await {
            Ok(Err(error @ SqlError::Lost(_))) => Err(error),
            Ok(result) => {
                loan.give_back();
                result
            }
            Err(_) => Err(SqlError::Timeout(self.timeout)),
        }
    }
}

async fn transact(
    connection: &mut Object,
    statements: usize,
    work: impl AsyncFnOnce(&Transaction<'_>) -> Result<StatementResult, SqlError>,
    timeout: Duration,
) -> Result<StatementResult, SqlError> {
    let lost = |error: tokio_postgres::Error| sorted(0, &error, timeout);
    let client: &mut tokio_postgres::Client = connection;
    let transaction = client.transaction().await.map_err(lost)?;
    let limit = format!("SET LOCAL statement_timeout = {}", timeout.as_millis().max(1));
    transaction.batch_execute(&limit).await.map_err(lost)?;
    match work(&transaction).await {
        Ok(result) => {
            // Deferred constraints are checked here.
            transaction.commit().await.map_err(|error| sorted(statements, &error, timeout))?;
            Ok(result)
        }
        Err(error) => {
            // Waiting for the rollback leaves the connection clean for the next loan.
            transaction.rollback().await.map_err(lost)?;
            Err(error)
        }
    }
}

async fn execute_all(
    transaction: &Transaction<'_>,
    statements: &[Bound],
    timeout: Duration,
) -> Result<StatementResult, SqlError> {
    let mut result = StatementResult::default();
    for (index, bound) in statements.iter().enumerate() {
        result = execute(transaction, bound).await.map_err(|error| match error {
            ExecuteError::Database(error) => sorted(index + 1, &error, timeout),
            ExecuteError::Column { name, kind } => SqlError::Refused {
                statement: index + 1,
                class: Class::Programming,
                message: format!("the column `{name}` of type {kind} cannot be read here; write `{name}::text`"),
                detail: None,
            },
        })?;
        bound.check(&result)?;
    }
    Ok(result)
}

enum ExecuteError {
    Database(tokio_postgres::Error),
    Column { name: String, kind: String },
}

impl From<tokio_postgres::Error> for ExecuteError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

async fn execute(transaction: &Transaction<'_>, bound: &Bound) -> Result<StatementResult, ExecuteError> {
    let values: Vec<AsText<'_>> = bound.values.iter().map(|value| AsText(Scalar::of(value))).collect();
    let params: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
    let plain = transaction.prepare(&bound.statement.sql).await?;
    if plain.columns().is_empty() {
        return Ok(StatementResult::changed(transaction.execute(&plain, &params).await?));
    }
    let (statement, as_json) = match rows_as_json(transaction, bound).await? {
        Some(statement) => (statement, true),
        None => (plain, false),
    };
    // A portal hands out the rows in portions, so a large result never stands in memory as a whole.
    let portal = transaction.bind(&statement, &params).await?;
    let mut result = StatementResult::default();
    loop {
        let rows = transaction.query_portal(&portal, MAX_ROWS as i32).await?;
        let last = rows.len() < MAX_ROWS;
        for row in rows {
            result.add_row(if as_json { parsed(row.try_get(0)?) } else { plain_row(&row)? });
        }
        if last {
            return Ok(result);
        }
    }
}

/// How many rows the statement changed, for the values of many jobs.
async fn execute_rows(
    transaction: &Transaction<'_>,
    statement: &config::Statement,
    form: &MultiRow,
    rows: &[Vec<Value>],
) -> Result<u64, tokio_postgres::Error> {
    // As the operator wrote it: what the server takes each placeholder for.
    let plain = transaction.prepare(&statement.sql).await?;
    let types: Vec<String> = plain.params().iter().map(type_name).collect();
    let Some(sql) = form.of_arrays(&types) else {
        let values: Vec<AsText<'_>> = rows.iter().flatten().map(|value| AsText(Scalar::of(value))).collect();
        let params: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        return transaction.execute(&form.sql(rows.len()), &params).await;
    };
    let texts = |(at, ty): (usize, &Type)| Texts { rows, at, ty: ty.clone() };
    let columns: Vec<Texts<'_>> = plain.params().iter().enumerate().map(texts).collect();
    let params: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| column as &(dyn ToSql + Sync)).collect();
    transaction.execute(&sql, &params).await
}

/// As it stands in a statement, whatever the search path is.
fn type_name(ty: &Type) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    format!("{}.{}", quoted(ty.schema()), quoted(ty.name()))
}

/// The statement as a source of JSON rows. `None` for what cannot stand inside another: SHOW, EXPLAIN, and a WITH that
/// itself changes data.
async fn rows_as_json(
    transaction: &Transaction<'_>,
    bound: &Bound,
) -> Result<Option<Statement>, tokio_postgres::Error> {
    // The line break ends a comment at the statement's end.
    let wrapped =
        format!("WITH jobsd_rows AS ({}\n) SELECT row_to_json(jobsd_rows)::text FROM jobsd_rows", bound.statement.sql);
    match bound.statement.verb.as_str() {
        "SELECT" | "VALUES" | "TABLE" | "INSERT" | "UPDATE" | "DELETE" => transaction.prepare(&wrapped).await.map(Some),
        "WITH" => {
            transaction.batch_execute("SAVEPOINT jobsd_wrap").await?;
            let prepared = transaction.prepare(&wrapped).await;
            let undo =
                if prepared.is_err() { "ROLLBACK TO jobsd_wrap; RELEASE jobsd_wrap" } else { "RELEASE jobsd_wrap" };
            transaction.batch_execute(undo).await?;
            Ok(prepared.ok())
        }
        _ => Ok(None),
    }
}

fn parsed(row: &str) -> Value {
    serde_json::from_str(row).unwrap_or_else(|_| json!(row))
}

/// A row in the server's binary form, for the types that need no knowledge of their own.
fn plain_row(row: &Row) -> Result<Value, ExecuteError> {
    let mut object = serde_json::Map::new();
    for (index, column) in row.columns().iter().enumerate() {
        let value = match *column.type_() {
            Type::BOOL => json!(row.try_get::<_, Option<bool>>(index)?),
            Type::INT2 => json!(row.try_get::<_, Option<i16>>(index)?),
            Type::INT4 => json!(row.try_get::<_, Option<i32>>(index)?),
            Type::INT8 => json!(row.try_get::<_, Option<i64>>(index)?),
            Type::FLOAT4 => json!(row.try_get::<_, Option<f32>>(index)?),
            Type::FLOAT8 => json!(row.try_get::<_, Option<f64>>(index)?),
            Type::JSON | Type::JSONB => row.try_get::<_, Option<Value>>(index)?.unwrap_or_default(),
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME => json!(row.try_get::<_, Option<String>>(index)?),
            ref other => return Err(ExecuteError::Column { name: column.name().to_owned(), kind: other.to_string() }),
        };
        object.insert(column.name().to_owned(), value);
    }
    Ok(Value::Object(object))
}

/// A value in PostgreSQL's text form, whatever the type of its placeholder.
#[derive(Debug)]
struct AsText<'a>(Scalar<'a>);

impl ToSql for AsText<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match text_form(&self.0, ty) {
            Some(text) => out.extend_from_slice(text.as_bytes()),
            None => return Ok(IsNull::Yes),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

/// The values at one place of all rows as a `text[]`: the text forms that each of them would have by itself for a
/// placeholder of type `ty`.
#[derive(Debug)]
struct Texts<'a> {
    rows: &'a [Vec<Value>],
    at: usize,
    ty: Type,
}

impl ToSql for Texts<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        const NULL: i32 = -1;
        // PostgreSQL's array_recv: dimensions, whether there are NULLs, the element's type; of each dimension the length
        // and the first index; then the elements with their lengths.
        let length = i32::try_from(self.rows.len())?;
        out.extend_from_slice(&1_i32.to_be_bytes());
        out.extend_from_slice(&1_i32.to_be_bytes());
        out.extend_from_slice(&Type::TEXT.oid().to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&1_i32.to_be_bytes());
        for row in self.rows {
            match text_form(&Scalar::of(&row[self.at]), &self.ty) {
                None => out.extend_from_slice(&NULL.to_be_bytes()),
                Some(text) => {
                    out.extend_from_slice(&i32::try_from(text.len())?.to_be_bytes());
                    out.extend_from_slice(text.as_bytes());
                }
            }
        }
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TEXT_ARRAY
    }

    tokio_postgres::types::to_sql_checked!();
}

/// `None` is NULL. A `json` or `jsonb` placeholder gets the value as JSON, so that a string stays a string there.
fn text_form<'a>(value: &'a Scalar<'a>, ty: &Type) -> Option<Cow<'a, str>> {
    let json = matches!(*ty, Type::JSON | Type::JSONB);
    Some(match value {
        Scalar::Null => return None,
        Scalar::Bool(true) => Cow::Borrowed("true"),
        Scalar::Bool(false) => Cow::Borrowed("false"),
        Scalar::Number(number) => number.to_string().into(),
        Scalar::Text(text) if json => json!(text).to_string().into(),
        Scalar::Text(text) => Cow::Borrowed(text),
        Scalar::Bytes(bytes) => hex(bytes).into(),
        Scalar::Json(Value::Array(items)) if matches!(ty.kind(), Kind::Array(_)) => array_literal(items).into(),
        Scalar::Json(value) => value.to_string().into(),
    })
}

/// The `bytea` of these bytes.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("\\x");
    bytes.iter().for_each(|byte| text.extend([digit(byte >> 4), digit(byte & 15)]));
    text
}

/// `{"a",NULL,{"b"}}`, with every element quoted.
fn array_literal(items: &[Value]) -> String {
    let element = |item: &Value| match item {
        Value::Null => "NULL".to_owned(),
        Value::Array(inner) => array_literal(inner),
        other => match text_form(&Scalar::of(other), &Type::TEXT) {
            Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            None => "NULL".to_owned(),
        },
    };
    format!("{{{}}}", items.iter().map(element).collect::<Vec<_>>().join(","))
}

/// Sorts an error by its SQLSTATE (PostgreSQL's appendix A). Statement 0 is our own preparation.
fn sorted(statement: usize, error: &tokio_postgres::Error, timeout: Duration) -> SqlError {
    let Some(db) = error.as_db_error() else {
        // A value that cannot be sent is ours to report as the statement's; everything else is the connection.
        return if error.is_closed()
            || statement == 0
            || error.source().is_some_and(|cause| cause.is::<std::io::Error>())
        {
            SqlError::Lost(chain(error))
        } else {
            SqlError::Refused { statement, class: Class::Data, message: chain(error), detail: None }
        };
    };
    let code = db.code();
    let class = match code.code().get(..2).unwrap_or_default() {
        _ if *code == SqlState::QUERY_CANCELED => return SqlError::Timeout(timeout),
        // The connection, and the server going down: the connection is of no further use.
        "08" => return SqlError::Lost(db.message().to_owned()),
        "57" => return SqlError::Lost(db.message().to_owned()),
        "23" => Class::Integrity,
        "22" => Class::Data,
        // Conflicts, locks, resources, read-only during a failover, and what the server could not do.
        "40" | "53" | "55" | "58" | "25" | "XX" => Class::Operational,
        _ => Class::Programming,
    };
    let details = [db.detail(), db.hint()];
    let detail = details.into_iter().flatten().collect::<Vec<_>>().join("\n");
    SqlError::Refused {
        statement,
        class,
        message: db.message().to_owned(),
        detail: (!detail.is_empty()).then_some(detail),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}
