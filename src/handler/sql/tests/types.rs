//! The types of an application's models in batches on PostgreSQL: what a batch stores is what each of its jobs would have
//! stored alone, and a value that a type refuses fails its own job only.

use super::*;

const ROWS: usize = 500;

/// As SQLAlchemy makes them: a native enum with a quoted name in a schema of its own, domains, arrays, `timezone=True`.
const MODEL: [&str; 6] = [
    "CREATE SCHEMA app",
    "CREATE TYPE app.\"EventKind\" AS ENUM ('CLICK', 'page view', 'O''Neil \"x\" \\ {,}')",
    "CREATE DOMAIN email AS varchar(80) CHECK (VALUE LIKE '%@%')",
    "CREATE DOMAIN document AS jsonb CHECK (VALUE IS NULL OR jsonb_typeof(VALUE) <> 'number')",
    "CREATE TABLE one (id bigint PRIMARY KEY, kind app.\"EventKind\", kinds app.\"EventKind\"[], email email, \
        document document, raw bytea, ref uuid, price numeric(10,2), small smallint CHECK (small <> 13), ratio double precision, \
        data jsonb, plain json, tags text[], grid int[], at timestamptz, day date, span interval, ok boolean, \
        name varchar(20), code char(4), address inet, words text)",
    "CREATE TABLE many (LIKE one INCLUDING ALL)",
];

/// Each column's values that its type takes.
fn columns() -> Vec<(&'static str, Vec<Value>)> {
    let tagged = |kind: &str, value: Value| json!({"__type__": kind, "__value__": value});
    vec![
        ("kind", vec![json!("CLICK"), json!("page view"), json!("O'Neil \"x\" \\ {,}")]),
        ("kinds", vec![json!([]), json!(["CLICK", null]), json!(["page view", "O'Neil \"x\" \\ {,}"])]),
        ("email", vec![json!("a@b.test"), json!("'; DROP TABLE one; --@")]),
        ("document", vec![json!("a text"), json!({"a": [1, null]}), json!([1]), json!(true)]),
        ("raw", vec![tagged("base64", json!("AP8nIlxc")), tagged("base64", json!("")), json!("\\x00ff")]),
        (
            "ref",
            vec![
                tagged("uuid", json!({"hex": "00000000000000000000000000000abc"})),
                json!("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"),
            ],
        ),
        ("price", vec![tagged("decimal", json!("12.505")), json!(99_999_999.99), json!(-1), json!("NaN")]),
        ("small", vec![json!(-32_768), json!(32_767), json!("7")]),
        ("ratio", vec![json!(1.5e-300), json!(0.1), json!("-Infinity"), json!(9_007_199_254_740_993_u64)]),
        (
            "data",
            vec![json!("null"), json!("it's"), json!({"k": ["v", null, 1.5, {"x": "\\ \" '"}]}), json!(3), json!("")],
        ),
        ("plain", vec![json!({"b": 1, "a": 2}), json!("text"), json!([])]),
        (
            "tags",
            vec![json!([]), json!(["a,b", "c\"d\\", null, "NULL", "", "{}", " x "]), json!([["a", "b"], ["c", "d"]])],
        ),
        ("grid", vec![json!([1, 2]), json!([[1], [2]]), json!("{7,8}")]),
        (
            "at",
            vec![
                tagged("datetime", json!("2026-11-23T10:00:00+05:30")),
                json!("2026-03-29T02:30:00"),
                json!("infinity"),
                json!("0044-03-15 00:00:00 BC"),
            ],
        ),
        ("day", vec![tagged("date", json!("2024-02-29")), json!("infinity")]),
        ("span", vec![json!("1 day 2:03:04"), json!("P1Y2M")]),
        ("ok", vec![json!(true), json!(false), json!("yes"), json!("f")]),
        ("name", vec![json!(HOSTILE.get(..20)), json!("ü".repeat(20)), json!("trailing   "), json!(7)]),
        ("code", vec![json!("ab"), json!("abcd"), json!("")]),
        ("address", vec![json!("::1"), json!("10.0.0.0/8")]),
        (
            "words",
            vec![
                json!(""),
                json!(HOSTILE),
                json!("line\nline\u{1}\u{7f}\u{202e}😀"),
                json!({"a": 1}),
                json!([1]),
                json!(1.0),
            ],
        ),
    ]
}

/// What each type, or a constraint of the table, refuses; and the class of the failure.
fn refused() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("kind", json!("click"), "DataError"),
        ("kinds", json!(["CLICK", "click"]), "DataError"),
        ("email", json!("nobody"), "IntegrityError"),
        ("document", json!(5), "IntegrityError"),
        ("raw", json!("\\xZZ"), "DataError"),
        ("ref", json!("no-uuid"), "DataError"),
        ("price", json!(100_000_000), "DataError"),
        ("small", json!(13), "IntegrityError"),
        ("small", json!(32_768), "DataError"),
        ("ratio", json!("1e999"), "DataError"),
        ("data", json!({"a": "b\u{0}c"}), "DataError"),
        ("tags", json!([["a", "b"], ["c"]]), "DataError"),
        ("grid", json!(["x"]), "DataError"),
        ("at", json!("2026-02-30T00:00:00Z"), "DataError"),
        ("at", json!("yesterdayish"), "DataError"),
        ("day", json!("2025-02-29"), "DataError"),
        ("span", json!("a while"), "DataError"),
        ("ok", json!("perhaps"), "DataError"),
        ("name", json!("x".repeat(21)), "DataError"),
        ("address", json!("1.2.3.400"), "DataError"),
        ("words", json!("a\u{0}b"), "DataError"),
        ("id", json!(null), "IntegrityError"),
        ("id", json!("9223372036854775808"), "DataError"),
        ("id", json!(0), "IntegrityError"),
    ]
}

fn insert_into(table: &str) -> Statement {
    let names: Vec<&str> = std::iter::once("id").chain(columns().into_iter().map(|(name, _)| name)).collect();
    let text = format!("INSERT INTO {table} ({}) VALUES (:{})", names.join(", "), names.join(", :"));
    Statement::parse(&text, Dialect::Postgres).expect("it parses")
}

/// Rows in which each value of each column occurs, and NULLs of each.
fn good_rows(count: usize) -> Vec<Vec<Value>> {
    let columns = columns();
    let value =
        |row: usize, column: usize, of: &[Value]| of.get((row + column) % (of.len() + 1)).cloned().unwrap_or_default();
    let row = |n: usize| {
        let values = columns.iter().enumerate().map(|(at, (_, of))| value(n, at, of));
        std::iter::once(json!(n)).chain(values).collect()
    };
    (0..count).map(row).collect()
}

async fn stored(sql: &Sql, what: &str) -> Value {
    rows(sql, what).await[0]["n"].clone()
}

#[tokio::test]
async fn a_batch_stores_what_its_jobs_would_have_stored_alone() {
    let server = postgres::Server::start();
    let sql = postgres_at(&server.url(), SECONDS);
    run(&sql, &MODEL, json!({})).await.expect("the model is made");
    let good = good_rows(ROWS);
    let (one, many) = (insert_into("one"), insert_into("many"));
    let form = many.multi_row.as_ref().expect("it has a form for many rows");
    let results = sql.run_rows(&many, form, &good).await;
    assert!(results.iter().all(Result::is_ok), "{:?}", results.iter().find(|result| result.is_err()));
    assert_eq!(stored(&sql, "SELECT count(DISTINCT xmin::text) AS n FROM many").await, 1, "in one statement");
    for row in good.iter().take(60) {
        let named = one.names.iter().cloned().zip(row.iter().cloned()).collect();
        sql.run(std::slice::from_ref(&one), &Named::args(&named)).await.expect("it runs alone");
    }
    let difference =
        "SELECT count(*) AS n FROM (SELECT one::text FROM one EXCEPT SELECT many::text FROM many) AS other";
    assert_eq!(stored(&sql, difference).await, 0);
    assert_eq!(stored(&sql, "SELECT count(*) AS n FROM one").await, 60);
}

#[tokio::test]
async fn each_kind_of_bad_value_fails_alone_among_hundreds() {
    let server = postgres::Server::start();
    let sql = postgres_at(&server.url(), SECONDS);
    run(&sql, &MODEL, json!({})).await.expect("the model is made");
    let many = insert_into("many");
    let form = many.multi_row.as_ref().expect("it has a form for many rows");
    for (n, (column, value, kind)) in refused().into_iter().enumerate() {
        let bad = (n * 37 + 1) % ROWS;
        let mut given = good_rows(ROWS);
        let at = many.names.iter().position(|name| name == column).expect("a column");
        given[bad][at] = value.clone();
        let results = sql.run_rows(&many, form, &given).await;
        for (row, result) in results.into_iter().enumerate() {
            match result {
                Ok(_) => assert_ne!(row, bad, "{column} took {value}"),
                Err(error) => {
                    assert_eq!(row, bad, "{column} = {value} has failed another row: {error}");
                    let failure = Failure::from(error);
                    assert_eq!((failure.kind.as_str(), failure.retry), (kind, Retryable::Never), "{}", failure.message);
                }
            }
        }
        assert_eq!(stored(&sql, "SELECT count(*) AS n FROM many").await, ROWS - 1, "{column} = {value}");
        run(&sql, &["DELETE FROM many"], json!({})).await.expect("it runs");
    }
    println!("{} kinds of bad values, each alone among {ROWS} rows", refused().len());
}

/// It used to be tried with halves of the rows, a thousand times.
#[tokio::test]
async fn a_missing_table_is_found_once_for_all() {
    let server = postgres::Server::start();
    let sql = postgres_at(&server.url(), SECONDS);
    let many = insert_into("many");
    let results = sql.run_rows(&many, many.multi_row.as_ref().expect("a form"), &good_rows(ROWS)).await;
    let failures: Vec<Failure> = results.into_iter().filter_map(Result::err).map(Failure::from).collect();
    assert!(failures.len() == ROWS && failures.iter().all(|failure| failure.retry == Retryable::Never));
    drop(sql);
    let watcher = postgres_at(&server.url(), SECONDS);
    let rolled_back = "SELECT xact_rollback AS n FROM pg_stat_database WHERE datname = current_database()";
    let known = async {
        while stored(&watcher, rolled_back).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SECONDS, known).await.expect("the server counts what it has rolled back");
    assert_eq!(stored(&watcher, rolled_back).await, 1);
}
