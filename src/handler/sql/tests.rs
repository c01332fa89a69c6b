//! The `sql` handler on both databases: SQLite in a file, PostgreSQL 15 as a private server.

mod cutter;
mod hostile;
mod loss;
mod types;

use std::path::Path;

use serde_json::json;

use super::*;
use crate::config::{Dialect, Secret};
use crate::job::Retryable;
use crate::testing::{fixture, postgres, wait};

const SECONDS: Duration = Duration::from_secs(10);

fn sqlite(dir: &Path) -> Sql {
    Sql::new(&Database::Sqlite { path: dir.join("deep/app.db"), timeout: SECONDS }).expect("it is built")
}

fn postgres_at(url: &str, timeout: Duration) -> Sql {
    fixture::tls_provider();
    let config = Database::Postgres { url: Secret::new(url), connections: 2, timeout };
    Sql::new(&config).expect("it is built")
}

async fn run(sql: &Sql, statements: &[&str], named: Value) -> Result<Value, SqlError> {
    let dialect = match sql {
        Sql::Sqlite(_) => Dialect::Sqlite,
        Sql::Postgres(_) => Dialect::Postgres,
    };
    let parse = |text: &&str| Statement::parse(text, dialect).unwrap_or_else(|error| panic!("{text}: {error}"));
    let statements: Vec<Statement> = statements.iter().map(parse).collect();
    sql.run(&statements, &Named::args(named.as_object().expect("named values are an object"))).await
}

async fn rows(sql: &Sql, statement: &str) -> Value {
    run(sql, &[statement], json!({})).await.expect("it runs")["rows"].clone()
}

fn failure(result: Result<Value, SqlError>) -> Failure {
    result.expect_err("it fails").into()
}

const HOSTILE: &str = "Robert'); DROP TABLE notifications; -- :user_id $1 ?";

#[tokio::test]
async fn sqlite_binds_and_never_splices() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let sql = sqlite(dir.path());
    let insert = "INSERT INTO notifications (user_id, notification_type, content, created_at) VALUES (:user_id, 'like', :content, :at)";
    let at = json!({"__type__": "datetime", "__value__": "2026-08-01T00:00:00+00:00"});
    let done = run(&sql, &[insert], json!({"user_id": "42", "content": HOSTILE, "at": at})).await.expect("it runs");
    assert_eq!(done, json!({"affected": 1, "rows": []}));
    let stored = rows(&sql, "SELECT user_id, content, created_at, is_read FROM notifications").await;
    let expected =
        json!([{"user_id": 42, "content": HOSTILE, "created_at": "2026-08-01T00:00:00+00:00", "is_read": false}]);
    assert_eq!(stored, expected);

    run(
        &sql,
        &["INSERT INTO user_events (user_id, event_type, event_data) VALUES (1, 'x', :data)"],
        json!({"data": {"a": [1, null]}}),
    )
    .await
    .expect("it runs");
    assert_eq!(rows(&sql, "SELECT event_data FROM user_events").await, json!([{"event_data": {"a": [1, null]}}]));
}

#[tokio::test]
async fn sqlite_runs_all_statements_or_none() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let sql = sqlite(dir.path());
    let like = "INSERT INTO likes (user_id, post_id) VALUES (1, 1)";
    let failed = failure(run(&sql, &[like, like], json!({})).await);
    assert_eq!(failed.message, "failed to run statement 2: UNIQUE constraint failed: likes.user_id, likes.post_id");
    assert_eq!((failed.kind.as_str(), failed.retry), ("IntegrityError", Retryable::Never));
    assert_eq!(rows(&sql, "SELECT count(*) AS n FROM likes").await, json!([{"n": 0}]));
    let done = run(&sql, &[like, "DELETE FROM likes"], json!({})).await.expect("it runs");
    assert_eq!(done["affected"], 1);
    let done = run(&sql, &["CREATE TABLE more (a)"], json!({})).await.expect("it runs");
    assert_eq!(done["affected"], 0, "the count of the statement before is not repeated");
}

#[tokio::test]
async fn sqlite_says_what_is_wrong() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let sql = sqlite(dir.path());
    for (statement, message) in [
        ("SELEC 1", "near \"SELEC\": syntax error"),
        ("SELECT wrong FROM likes", "no such column: wrong"),
        ("SELECT * FROM nowhere", "no such table: nowhere"),
        ("SELECT :who", "there is no value for `:who`; there are `:user_id`"),
        ("ATTACH '/etc/passwd' AS x", "not authorized: ATTACH, PRAGMA and load_extension are not allowed"),
        ("PRAGMA journal_mode = DELETE", "not authorized: ATTACH, PRAGMA and load_extension are not allowed"),
    ] {
        let failed = failure(run(&sql, &[statement], json!({"user_id": 1})).await);
        assert_eq!(failed.message, format!("failed to run statement 1: {message}"), "{statement}");
        assert_eq!((failed.kind.as_str(), failed.retry), ("ProgrammingError", Retryable::Never), "{statement}");
    }
    let failed = failure(run(&sql, &["SELECT load_extension('x')"], json!({})).await);
    assert_eq!(failed.retry, Retryable::Never, "{}", failed.message);
}

#[tokio::test]
async fn sqlite_stops_at_its_timeout_and_goes_on() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let config = Database::Sqlite { path: dir.path().join("app.db"), timeout: Duration::from_millis(100) };
    let sql = Sql::new(&config).expect("it is built");
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let failed = failure(run(&sql, &[endless], json!({})).await);
    assert_eq!(failed.message, "failed to run the statements: stopped after the database timeout of 100ms");
    assert_eq!(failed.retry, Retryable::ByPolicy);
    assert_eq!(rows(&sql, "SELECT 1 AS one").await, json!([{"one": 1}]));
}

#[tokio::test]
async fn sqlite_drops_what_nobody_waits_for() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let sql = Sql::new(&Database::Sqlite { path: dir.path().join("app.db"), timeout: Duration::from_secs(600) })
        .expect("it is built");
    let endless =
        "INSERT INTO posts (user_id) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let started = tokio::time::timeout(Duration::from_millis(200), run(&sql, &[endless], json!({}))).await;
    assert!(started.is_err(), "it would run for ever");
    let left = tokio::time::timeout(SECONDS, rows(&sql, "SELECT count(*) AS n FROM posts")).await;
    assert_eq!(left.expect("the thread is free again"), json!([{"n": 0}]));
}

#[tokio::test]
async fn a_result_holds_a_thousand_rows() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let sql = sqlite(dir.path());
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) SELECT i FROM n";
    let result = run(&sql, &[many], json!({})).await.expect("it runs");
    assert_eq!((result["affected"].as_u64(), result["truncated"].as_bool()), (Some(1500), Some(true)));
    assert_eq!(result["rows"].as_array().map(Vec::len), Some(1000));
}

const TABLE: &str = "CREATE TABLE thing (id bigint PRIMARY KEY, at timestamptz, price numeric(10,2), ok boolean, data jsonb, \
    ref uuid, name varchar(20), tags text[], raw bytea)";

#[tokio::test]
async fn postgres_takes_each_value_as_the_type_it_needs() {
    let server = postgres::Server::start();
    let sql = postgres_at(&server.url(), SECONDS);
    run(&sql, &[TABLE], json!({})).await.expect("the table is made");
    let values = json!({
        "id": "9007199254740993",
        "at": {"__type__": "datetime", "__value__": "2026-11-23T10:00:00+00:00"},
        "price": {"__type__": "decimal", "__value__": "12.50"},
        "ok": true,
        "data": {"k": ["v", null, 1.5]},
        "ref": {"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000abc"}},
        "name": "O'Neil \\ \"x\"",
        "tags": ["a,b", "c\"d\\", null],
        "raw": {"__type__": "base64", "__value__": "AP8="},
    });
    let insert = "INSERT INTO thing VALUES (:id, :at, :price, :ok, :data, :ref, :name, :tags, :raw) RETURNING *";
    let result = run(&sql, &[insert], values).await.expect("it runs");
    assert_eq!(result["affected"], 1);
    let row = &result["rows"][0];
    assert_eq!(row["id"], json!(9_007_199_254_740_993_u64));
    assert_eq!(
        (&row["price"], &row["ok"], &row["data"]),
        (&json!(12.5), &json!(true), &json!({"k": ["v", null, 1.5]}))
    );
    assert_eq!(row["ref"], "00000000-0000-0000-0000-000000000abc");
    assert_eq!((&row["name"], &row["tags"]), (&json!("O'Neil \\ \"x\""), &json!(["a,b", "c\"d\\", null])));
    assert_eq!(row["raw"], "\\x00ff");

    let again = json!({"id": 2, "at": null, "text": HOSTILE});
    let insert = "INSERT INTO thing (id, at, data, name) VALUES (:id, :at, :text, left(:text, 5))";
    let refused = failure(run(&sql, &[insert], again.clone()).await);
    assert!(refused.message.contains("inconsistent types deduced"), "one name, one type: {}", refused.message);
    let insert = "INSERT INTO thing (id, at, data) VALUES (:id, :at, :text)";
    run(&sql, &[insert], again).await.expect("it runs");
    let found =
        run(&sql, &["SELECT data, at FROM thing WHERE id = ANY(:ids)"], json!({"ids": [2, 3]})).await.expect("it runs");
    assert_eq!(found["rows"], json!([{"data": HOSTILE, "at": null}]), "a text in a jsonb column is a JSON text");

    let gone = "WITH gone AS (DELETE FROM thing RETURNING id) SELECT count(*) AS n FROM gone";
    assert_eq!(rows(&sql, gone).await, json!([{"n": 2}]));
    assert_eq!(
        rows(&sql, "WITH a AS (SELECT now() AS t) SELECT t IS NOT NULL AS set FROM a -- done").await,
        json!([{"set": true}])
    );
    let many = run(&sql, &["SELECT generate_series(1, 2500) AS i"], json!({})).await.expect("it runs");
    assert_eq!((many["affected"].as_u64(), many["rows"].as_array().map(Vec::len)), (Some(2500), Some(1000)));
}

#[tokio::test]
async fn postgres_errors_are_sorted() {
    let server = postgres::Server::start();
    let sql = postgres_at(&server.url(), Duration::from_millis(300));
    run(&sql, &["CREATE TABLE t (a int PRIMARY KEY)"], json!({})).await.expect("the table is made");
    let once = "INSERT INTO t VALUES (1)";
    for (statements, kind, message) in [
        (vec!["SELEC 1"], "ProgrammingError", "run statement 1: syntax error at or near \"SELEC\""),
        (vec!["SELECT b FROM t"], "ProgrammingError", "run statement 1: column \"b\" does not exist"),
        (
            vec![once, once],
            "IntegrityError",
            "run statement 2: duplicate key value violates unique constraint \"t_pkey\"",
        ),
        (
            vec!["SELECT 1 WHERE 'x'::int = 1"],
            "DataError",
            "run statement 1: invalid input syntax for type integer: \"x\"",
        ),
    ] {
        let failed = failure(run(&sql, &statements, json!({})).await);
        assert_eq!((failed.kind.as_str(), failed.message.as_str()), (kind, format!("failed to {message}").as_str()));
        assert_eq!(failed.retry, Retryable::Never);
    }
    let failed = failure(run(&sql, &["SELECT :n::int"], json!({"n": "many"})).await);
    assert_eq!((failed.kind.as_str(), failed.retry), ("DataError", Retryable::Never), "{}", failed.message);
    let failed = failure(run(&sql, &["SELECT pg_sleep(60)"], json!({})).await);
    assert_eq!(failed.message, "failed to run the statements: stopped after the database timeout of 300ms");
    assert_eq!(failed.retry, Retryable::ByPolicy);
    assert_eq!(rows(&sql, "SELECT count(*) AS n FROM t").await, json!([{"n": 0}]), "every failed step was rolled back");
    let failed = failure(run(&sql, &["SELECT pg_terminate_backend(pg_backend_pid())"], json!({})).await);
    assert_eq!((failed.kind.as_str(), failed.retry), ("OperationalError", Retryable::ByPolicy), "{}", failed.message);
    assert_eq!(rows(&sql, "SELECT 1 AS one").await, json!([{"one": 1}]), "a new connection takes its place");
    drop(server);
    let failed = failure(run(&sql, &["SELECT 1"], json!({})).await);
    assert_eq!((failed.kind.as_str(), failed.retry), ("OperationalError", Retryable::ByPolicy), "{}", failed.message);
}

#[tokio::test]
async fn postgres_cancels_what_nobody_waits_for() {
    let server = postgres::Server::start();
    let sql = postgres_at(&server.url(), Duration::from_secs(600));
    let watcher = postgres_at(&server.url(), SECONDS);
    let running = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(599)%' AND state = 'active' AND pid <> pg_backend_pid()";
    let sleeping = async { run(&sql, &["SELECT pg_sleep(599)"], json!({})).await };
    let seen = async {
        while rows(&watcher, running).await == json!([]) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = sleeping => panic!("it sleeps for ten minutes"),
        done = tokio::time::timeout(SECONDS, seen) => done.expect("the statement is seen running"),
    }
    let ended = async {
        while rows(&watcher, running).await != json!([]) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SECONDS, ended).await.expect("the server was told to stop");
    assert_eq!(rows(&sql, "SELECT 1 AS one").await, json!([{"one": 1}]));
}

#[tokio::test]
async fn postgres_is_encrypted_when_the_url_asks() {
    let server = postgres::Server::start();
    let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let authority = server.certificate();
    let verified = format!("?sslmode=verify-full&sslrootcert={}", authority.display());
    for (asked, encrypted) in
        [("", false), ("?sslmode=prefer", true), ("?ssl=require", true), (verified.as_str(), true)]
    {
        let sql = postgres_at(&format!("{}{asked}", server.url()), SECONDS);
        assert_eq!(rows(&sql, query).await, json!([{"ssl": encrypted}]), "{asked}");
    }
    let stranger = postgres_at(&format!("{}?sslmode=verify-full", server.url()), SECONDS);
    let failed = failure(run(&stranger, &["SELECT 1"], json!({})).await);
    assert!(failed.message.contains("certificate"), "{}", failed.message);
}

#[tokio::test]
async fn the_sqlite_file_is_looked_for_again() {
    let dir = tempfile::tempdir().expect("a temp dir");
    std::fs::write(dir.path().join("deep"), "in the way").expect("a file is written");
    let sql = sqlite(dir.path());
    let failed = failure(run(&sql, &["SELECT 1 AS one"], json!({})).await);
    assert_eq!((failed.kind.as_str(), failed.retry), ("OperationalError", Retryable::ByPolicy), "{}", failed.message);
    std::fs::remove_file(dir.path().join("deep")).expect("the file is removed");
    assert_eq!(rows(&sql, "SELECT 1 AS one").await, json!([{"one": 1}]));
    wait::until("the file", || dir.path().join("deep/app.db").exists().then_some(())).await;
}

/// Rows of `(n, words)`, of which those without words break a constraint.
fn batch(dialect: Dialect, rows: &[(i64, Option<&str>)]) -> (Statement, Vec<Vec<Value>>) {
    let text = "INSERT INTO batch_rows (n, words) VALUES (:n, :words) ON CONFLICT DO NOTHING";
    let statement = Statement::parse(text, dialect).expect("it parses");
    (statement, rows.iter().map(|(n, words)| vec![json!(n), json!(words)]).collect())
}

async fn insert(sql: &Sql, rows: &[(i64, Option<&str>)]) -> Vec<Result<Value, Failure>> {
    let (statement, rows) = batch(sql.dialect(), rows);
    let form = statement.multi_row.as_ref().expect("it has a form for many rows");
    sql.run_rows(&statement, form, &rows).await.into_iter().map(|result| result.map_err(Failure::from)).collect()
}

/// 500 rows with one bad one, a repeated one and a hostile one; then only bad ones.
async fn a_bad_row_fails_alone(sql: &Sql) {
    run(sql, &["CREATE TABLE batch_rows (n INTEGER PRIMARY KEY, words TEXT NOT NULL)"], json!({}))
        .await
        .expect("a table");
    let mut all: Vec<(i64, Option<&str>)> = (0..500).map(|n| (n, Some("fine"))).collect();
    all[321].1 = None;
    all[44].1 = Some(HOSTILE);
    all[401].0 = 400;
    let results = insert(sql, &all).await;
    assert_eq!(results.len(), 500);
    for (n, result) in results.iter().enumerate() {
        match (n, result) {
            (321, Err(failed)) => assert_eq!(failed.kind, "IntegrityError", "{}", failed.message),
            (401, Ok(done)) => assert_eq!(*done, json!({"affected": 0, "rows": []}), "it was there already"),
            (321, Ok(_)) => panic!("the bad row was taken"),
            (_, result) => assert_eq!(*result, Ok(json!({"affected": 1, "rows": []})), "row {n}"),
        }
    }
    let stored = "SELECT count(*) AS n, sum(CASE WHEN words = 'fine' THEN 0 ELSE 1 END) AS others FROM batch_rows";
    assert_eq!(rows(sql, stored).await, json!([{"n": 498, "others": 1}]));
    let failed = insert(sql, &[(1000, None), (1001, None), (1002, None)]).await;
    assert!(failed.iter().all(|result| result.as_ref().is_err_and(|failed| failed.retry == Retryable::Never)));
    assert!(insert(sql, &[]).await.is_empty());
}

#[tokio::test]
async fn sqlite_fails_the_bad_row_of_a_batch_alone() {
    let dir = tempfile::tempdir().expect("a temp dir");
    a_bad_row_fails_alone(&sqlite(dir.path())).await;
}

#[tokio::test]
async fn postgres_fails_the_bad_row_of_a_batch_alone() {
    let server = postgres::Server::start();
    let sql = postgres_at(&server.url(), SECONDS);
    a_bad_row_fails_alone(&sql).await;

    // Values that a type refuses, and columns that are no texts.
    let table = "CREATE TABLE events (id bigint, at timestamptz, data jsonb, tags text[], price numeric(10,2))";
    run(&sql, &[table], json!({})).await.expect("a table");
    let text = "INSERT INTO events VALUES (:id, :at, :data, :tags, :price)";
    let statement = Statement::parse(text, Dialect::Postgres).expect("it parses");
    let row =
        |id: Value| vec![id, json!("2026-08-01T00:00:00Z"), json!({"a": ["b"]}), json!(["x", "y"]), json!("12.50")];
    let given: Vec<Vec<Value>> = [json!(1), json!("two"), json!(3), json!("\u{0}")].into_iter().map(row).collect();
    let form = statement.multi_row.as_ref().expect("it has a form for many rows");
    let results = sql.run_rows(&statement, form, &given).await;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, false]);
    let failed = Failure::from(results[1].clone().expect_err("it is no number"));
    assert_eq!((failed.kind.as_str(), failed.retry), ("DataError", Retryable::Never), "{}", failed.message);
    let stored = rows(&sql, "SELECT id, data, tags, price::text AS price FROM events ORDER BY id").await;
    let expected = |id: i64| json!({"id": id, "data": {"a": ["b"]}, "tags": ["x", "y"], "price": "12.50"});
    assert_eq!(stored, json!([expected(1), expected(3)]));
}

#[tokio::test]
async fn more_values_than_a_statement_holds_are_several_statements() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let sql = sqlite(dir.path());
    let names: Vec<String> = (0..100).map(|n| format!("c{n}")).collect();
    let list = |mark: &str| names.iter().map(|name| format!("{mark}{name}")).collect::<Vec<_>>().join(", ");
    run(&sql, &[&format!("CREATE TABLE wide ({})", list(""))], json!({})).await.expect("a table");
    let text = format!("INSERT INTO wide VALUES ({})", list(":"));
    let statement = Statement::parse(&text, Dialect::Sqlite).expect("it parses");
    let form = statement.multi_row.as_ref().expect("it has a form for many rows");
    let given: Vec<Vec<Value>> = (0..500).map(|n| vec![json!(n); 100]).collect();
    assert!(sql.run_rows(&statement, form, &given).await.iter().all(Result::is_ok));
    assert_eq!(rows(&sql, "SELECT count(*) AS n, sum(c99) AS s FROM wide").await, json!([{"n": 500, "s": 124_750}]));
}

#[tokio::test]
async fn a_database_that_is_away_is_asked_once_for_a_batch() {
    let sql = postgres_at("postgres://nobody@127.0.0.1:1/none", SECONDS);
    let given: Vec<(i64, Option<&str>)> = (0..500).map(|n| (n, Some("fine"))).collect();
    let (statement, rows) = batch(Dialect::Postgres, &given);
    let results = sql.run_rows(&statement, statement.multi_row.as_ref().expect("a form"), &rows).await;
    assert_eq!(results.len(), 500);
    for error in results {
        let Halt::Unavailable { error, .. } = error.expect_err("nobody is there").into_halt() else {
            panic!("an outage")
        };
        assert_eq!(error.kind, "OperationalError");
    }
}
