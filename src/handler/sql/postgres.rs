//! PostgreSQL: a bounded pool, one transaction a step, values bound as text.
//!
//! Text form lets the server read each value as the type it inferred for the placeholder, so one JSON value fits
//! `bigint`, `numeric(10,2)`, `timestamptz`, `uuid`, `jsonb` or an array without a cast. Rows come back through
//! `row_to_json`, for the same reason. Statements are prepared anew for each attempt: one kept over a change of the
//! schema would fail for as long as its connection lives.
//!
//! Many rows go in as one array of texts for each placeholder: a statement with a placeholder for each value of each row
//! is long to write, to parse and to plan.

mod errors;
mod text;

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use serde_json::{Value, json};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{CancelToken, Row, Statement, Transaction};

use self::errors::{chain, sorted};
use self::text::{AsText, Texts};
use super::batch::Given;
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
        rows: &[Vec<impl Given>],
    ) -> Result<StatementResult, SqlError> {
        let sort = |error| sorted(1, &error, self.timeout);
        self.transact(1, async |transaction| {
            // As the operator wrote it: what the server takes each placeholder for.
            let plain = transaction.prepare(&statement.sql).await.map_err(sort).map_err(SqlError::when_prepared)?;
            let changed = execute_rows(transaction, plain.params(), form, rows).await;
            let result = StatementResult::changed(changed.map_err(sort)?);
            result.must_have_changed(rows.len() as u64)?;
            Ok(result)
        })
        .await
    }

    /// One transaction on a connection of its own, around `work`, which runs `statements` statements.
    ///
    /// A connection may have died in the pool without a sign, and the others there with it. Nothing was sent but BEGIN
    /// then, so a new one is made, once; and when that does not help, nobody was there to be asked.
    async fn transact<W: Work>(&self, statements: usize, work: W) -> Result<StatementResult, SqlError> {
        let work = match self.transact_on(self.lend().await?, statements, work).await {
            Ok(result) => return result,
            Err(NotBegun { work, .. }) => work,
        };
        self.pool.retain(|_, _| false);
        let again = self.transact_on(self.lend().await?, statements, work).await;
        again.unwrap_or_else(|NotBegun { reason, .. }| Err(SqlError::Connect(reason)))
    }

    async fn lend(&self) -> Result<Loan, SqlError> {
        let connection = self.pool.get().await.map_err(|error| SqlError::Connect(chain(&error)))?;
        let cancel = connection.cancel_token();
        Ok(Loan { connection: Some(connection), cancel, tls: self.tls.clone() })
    }

    async fn transact_on<W: Work>(
        &self,
        mut loan: Loan,
        statements: usize,
        work: W,
    ) -> Result<Result<StatementResult, SqlError>, NotBegun<W>> {
        let connection = loan.connection.as_mut().expect("the loan holds its connection until it is given back");
        let transaction = match tokio::time::timeout(self.timeout, begin(connection, self.timeout)).await {
            Ok(Ok(transaction)) => transaction,
            Ok(Err(error)) => return Err(NotBegun { work, reason: chain(&error) }),
            Err(_) => return Err(NotBegun { work, reason: "the server does not answer".to_owned() }),
        };
        // The timeout is one statement's; all of them together may take their sum.
        let limit = self.timeout.saturating_mul(u32::try_from(statements).unwrap_or(u32::MAX)) + GRACE;
        let done = tokio::time::timeout(limit, finish(transaction, statements, work, self.timeout)).await;
        Ok(match done {
            Ok(Err(error @ SqlError::Lost(_))) => Err(error),
            Ok(result) => {
                loan.give_back();
                result
            }
            Err(_) => Err(SqlError::Timeout(self.timeout)),
        })
    }
}

/// What is done in a transaction.
trait Work: AsyncFnOnce(&Transaction<'_>) -> Result<StatementResult, SqlError> {}

impl<F: AsyncFnOnce(&Transaction<'_>) -> Result<StatementResult, SqlError>> Work for F {}

/// The transaction has not begun, so its work is still to be done.
struct NotBegun<W> {
    work: W,
    reason: String,
}

async fn begin(connection: &mut Object, timeout: Duration) -> Result<Transaction<'_>, tokio_postgres::Error> {
    let client: &mut tokio_postgres::Client = connection;
    let transaction = client.transaction().await?;
    let limit = format!("SET LOCAL statement_timeout = {}", timeout.as_millis().max(1));
    transaction.batch_execute(&limit).await?;
    Ok(transaction)
}

/// What is lost before COMMIT has changed nothing, and costs an attempt all the same: it may be this very statement that
/// brings the server down. Once COMMIT is sent, nobody can tell.
async fn finish(
    transaction: Transaction<'_>,
    statements: usize,
    work: impl Work,
    timeout: Duration,
) -> Result<StatementResult, SqlError> {
    match work(&transaction).await {
        Ok(result) => match transaction.commit().await.map_err(|error| sorted(statements, &error, timeout)) {
            Ok(()) => Ok(result),
            Err(SqlError::Lost(reason)) => Err(SqlError::Lost(format!(
                "the answer to COMMIT was lost, so they may have had their effect: {reason}"
            ))),
            // Deferred constraints are checked here.
            Err(error) => Err(error),
        },
        Err(error) => {
            // Waiting for the rollback leaves the connection clean for the next loan. Where it does not come, the server rolls
            // back by itself, and the next loan finds a connection that cannot begin.
            let _ = transaction.rollback().await;
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
                whatever_the_values: true,
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
async fn execute_rows<V: Given>(
    transaction: &Transaction<'_>,
    types: &[Type],
    form: &MultiRow,
    rows: &[Vec<V>],
) -> Result<u64, tokio_postgres::Error> {
    let names: Vec<String> = types.iter().map(type_name).collect();
    let Some(sql) = form.of_arrays(&names) else {
        let values: Vec<AsText<'_>> = rows.iter().flatten().map(|value| AsText(Scalar::of(value.borrow()))).collect();
        let params: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        return transaction.execute(&form.sql(rows.len()), &params).await;
    };
    let texts = |(at, ty): (usize, &Type)| Texts { rows, at, ty: ty.clone() };
    let columns: Vec<Texts<'_, V>> = types.iter().enumerate().map(texts).collect();
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
