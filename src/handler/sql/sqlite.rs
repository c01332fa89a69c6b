//! SQLite: one file, one connection, one thread that owns it.
//!
//! The file is opened at the first step, in WAL mode, and the app's tables are created where they are missing
//! (`tables.sql`). The operator's statements may read and write tables, nothing that reaches outside the file: the
//! authorizer refuses ATTACH, PRAGMA and load_extension.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, Row, TransactionBehavior};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};

use super::bind::Scalar;
use super::{Bound, Class, SetupError, SqlError, StatementResult};

/// Requests that wait for the thread; more wait at its door.
const WAITING: usize = 64;
/// Longest wait for another process's write lock.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Virtual machine steps between two looks at the clock.
const STEPS_BETWEEN_LOOKS: i32 = 1000;

/// The door to the thread. The thread ends when the door is dropped and its last request is done.
#[derive(Debug)]
pub(in crate::handler) struct Sqlite {
    requests: mpsc::Sender<Request>,
    timeout: Duration,
}

#[derive(Debug)]
struct Request {
    statements: Vec<Bound>,
    timeout: Duration,
    /// Set when nobody waits for the reply any more.
    abandoned: Arc<AtomicBool>,
    reply: oneshot::Sender<Result<StatementResult, SqlError>>,
}

/// Says to the thread that its work is no longer wanted.
struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Sqlite {
    pub(super) fn new(path: PathBuf, timeout: Duration) -> Result<Self, SetupError> {
        let (requests, queue) = mpsc::channel(WAITING);
        std::thread::Builder::new()
            .name("jobsd-sqlite".into())
            .spawn(move || serve(&path, queue))
            .map_err(SetupError::Thread)?;
        Ok(Self { requests, timeout })
    }

    pub(super) async fn run(&self, statements: Vec<Bound>) -> Result<StatementResult, SqlError> {
        let abandon = Abandon(Arc::default());
        let (reply, answer) = oneshot::channel();
        let request = Request { statements, timeout: self.timeout, abandoned: abandon.0.clone(), reply };
        let gone = || SqlError::Lost("the SQLite thread has ended".into());
        self.requests.send(request).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// The thread's life: opens the file when first asked, and again when that failed.
fn serve(path: &Path, mut queue: mpsc::Receiver<Request>) {
    let mut connection = None;
    while let Some(request) = queue.blocking_recv() {
        if request.abandoned.load(Ordering::Relaxed) {
            continue;
        }
        if connection.is_none() {
            match open(path) {
                Ok(opened) => connection = Some(opened),
                Err(error) => {
                    let reason = format!("open {}: {error}", path.display());
                    let _ = request.reply.send(Err(SqlError::Connect(reason)));
                    continue;
                }
            }
        }
        let Some(open) = connection.as_mut() else { continue };
        let answer = perform(open, &request);
        // The receiver may have left in the meantime; then nobody needs the answer.
        let _ = request.reply.send(answer);
    }
}

fn open(path: &Path) -> Result<Connection, Box<dyn std::error::Error>> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(LOCK_WAIT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // In WAL mode NORMAL cannot corrupt the file; FULL also keeps the last commits through a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    events_know_their_jobs(&connection)?;
    connection.execute_batch(include_str!("tables.sql"))?;
    connection.authorizer(Some(inside_the_file))?;
    Ok(connection)
}

/// A file of an earlier jobsd has events without a column for the job that wrote them.
fn events_know_their_jobs(connection: &Connection) -> rusqlite::Result<()> {
    let columns = "SELECT coalesce(sum(name = 'job_id'), 1) FROM pragma_table_info('user_events')";
    if connection.query_row(columns, [], |row| row.get::<_, i64>(0))? == 0 {
        connection.execute_batch("ALTER TABLE user_events ADD COLUMN job_id TEXT")?;
    }
    Ok(())
}

/// All of the request's statements in one transaction, each under its deadline.
fn perform(connection: &mut Connection, request: &Request) -> Result<StatementResult, SqlError> {
    let deadline = Arc::new(Mutex::new(Instant::now() + request.timeout));
    let (watched, abandoned) = (deadline.clone(), request.abandoned.clone());
    let late = move || abandoned.load(Ordering::Relaxed) || Instant::now() >= *locked(&watched);
    let begin = |error| refused(0, &error, request.timeout);
    connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(late)).map_err(begin)?;
    // Taking the write lock at once means waiting for it here, not failing half-way when a read turns into a write.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(begin)?;
    let mut result = StatementResult::default();
    for (index, bound) in request.statements.iter().enumerate() {
        *locked(&deadline) = Instant::now() + request.timeout;
        let sort = |error| refused(index + 1, &error, request.timeout);
        let statement = transaction.prepare(&bound.statement.sql).map_err(sort).map_err(SqlError::when_prepared)?;
        result = execute(&transaction, statement, bound).map_err(sort)?;
        bound.check(&result)?;
    }
    if request.abandoned.load(Ordering::Relaxed) {
        return Err(SqlError::Lost("the attempt was stopped".into()));
    }
    transaction.commit().map_err(|error| refused(request.statements.len(), &error, request.timeout))?;
    Ok(result)
}

fn locked(deadline: &Mutex<Instant>) -> MutexGuard<'_, Instant> {
    deadline.lock().unwrap_or_else(PoisonError::into_inner)
}

fn execute(
    connection: &Connection,
    mut statement: rusqlite::Statement<'_>,
    bound: &Bound,
) -> rusqlite::Result<StatementResult> {
    for (index, value) in bound.values.iter().enumerate() {
        statement.raw_bind_parameter(index + 1, Scalar::of(value))?;
    }
    if statement.column_count() == 0 {
        let before = connection.total_changes();
        statement.raw_execute()?;
        // `changes` keeps the number of an earlier statement when this one is not a DML one.
        let changed = if connection.total_changes() == before { 0 } else { connection.changes() };
        return Ok(StatementResult::changed(changed));
    }
    let columns: Vec<(String, String)> = statement
        .columns()
        .map(|column| (column.name().to_owned(), column.decl_type().unwrap_or_default().to_ascii_uppercase()))
        .collect();
    let mut rows = statement.raw_query();
    let mut result = StatementResult::default();
    while let Some(row) = rows.next()? {
        result.add_row(row_value(row, &columns)?);
    }
    Ok(result)
}

fn inside_the_file(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Attach { .. } | AuthAction::Detach { .. } | AuthAction::Pragma { .. } => Authorization::Deny,
        AuthAction::Function { function_name } if function_name.eq_ignore_ascii_case("load_extension") => {
            Authorization::Deny
        }
        _ => Authorization::Allow,
    }
}

impl rusqlite::ToSql for Scalar<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Self::Bool(bool) => ToSqlOutput::from(*bool),
            Self::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => ToSqlOutput::from(integer),
                (None, Some(float)) if !number.is_u64() => ToSqlOutput::from(float),
                _ => ToSqlOutput::from(number.to_string()),
            },
            Self::Text(text) => ToSqlOutput::from(&**text),
            Self::Bytes(bytes) => ToSqlOutput::from(bytes.as_slice()),
            Self::Json(value) => ToSqlOutput::from(value.to_string()),
        })
    }
}

/// SQLite has no booleans and no JSON; the declared type of a column tells them apart from numbers and texts.
fn row_value(row: &Row<'_>, columns: &[(String, String)]) -> rusqlite::Result<Value> {
    let mut object = Map::new();
    for (index, (name, declared)) in columns.iter().enumerate() {
        let value = match (row.get_ref(index)?, declared.as_str()) {
            (ValueRef::Null, _) => Value::Null,
            (ValueRef::Integer(n @ 0..=1), "BOOLEAN" | "BOOL") => json!(n == 1),
            (ValueRef::Integer(n), _) => json!(n),
            (ValueRef::Real(n), _) => json!(n),
            (ValueRef::Text(text), "JSON" | "JSONB") => {
                serde_json::from_slice(text).unwrap_or_else(|_| json!(String::from_utf8_lossy(text)))
            }
            (ValueRef::Text(text), _) => json!(String::from_utf8_lossy(text)),
            (ValueRef::Blob(bytes), _) => json!(BASE64_STANDARD.encode(bytes)),
        };
        object.insert(name.clone(), value);
    }
    Ok(Value::Object(object))
}

fn refused(statement: usize, error: &rusqlite::Error, timeout: Duration) -> SqlError {
    let class = match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => return SqlError::Timeout(timeout),
        Some(ErrorCode::ConstraintViolation) => Class::Integrity,
        Some(ErrorCode::TypeMismatch | ErrorCode::TooBig | ErrorCode::ParameterOutOfRange) => Class::Data,
        Some(ErrorCode::Unknown | ErrorCode::AuthorizationForStatementDenied | ErrorCode::ApiMisuse) | None => {
            Class::Programming
        }
        Some(_) => Class::Operational,
    };
    let message = match (statement, class) {
        (0, _) => return SqlError::Lost(words(error)),
        (_, Class::Programming) if error.sqlite_error_code() == Some(ErrorCode::AuthorizationForStatementDenied) => {
            format!("{}: ATTACH, PRAGMA and load_extension are not allowed", words(error))
        }
        _ => words(error),
    };
    SqlError::Refused { statement, class, message, detail: None, whatever_the_values: false }
}

/// SQLite's own words, without rusqlite's frame around them.
fn words(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}
