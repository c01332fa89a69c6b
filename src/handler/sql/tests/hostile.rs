//! Hostile arguments on both databases: each value arrives as it was, in a row of its own, and nothing else happens.

use super::*;
use crate::testing::dice::{Dice, hostile};

/// Values that go in by one statement, as a batch or as the parameters of one job.
const AT_ONCE: usize = 250;

const PIECES: [&str; 44] = [
    "'",
    "''",
    "\"",
    "\\",
    "\\'",
    "`",
    ";",
    "--",
    "/*",
    "*/",
    "#",
    "$$",
    "$1",
    "$x$",
    "?1",
    "?",
    ":text",
    ":id",
    "@a",
    "%s",
    "%",
    "_",
    "(",
    ")",
    "{",
    "}",
    ",",
    "NULL",
    "E'",
    "::int",
    "\\x00ff",
    "{{ vars }}",
    "{% raw %}",
    "'; DROP TABLE victims; --",
    "' OR '1'='1",
    "') UNION SELECT secret FROM victims --",
    "1; SELECT pg_sleep(60)",
    "' || (DELETE FROM victims) || '",
    "load_extension('/tmp/x')",
    "ATTACH 'x' AS y",
    "\n",
    "\r\n\t\u{1}\u{1a}\u{7f}",
    "\u{202e}\u{feff}ü",
    "😀",
];

/// A text, now and then a long one, or one with the byte that PostgreSQL cannot keep.
fn text(dice: &mut Dice) -> String {
    match dice.below(50) {
        0 => dice.text(&PIECES).repeat(200),
        1 => format!("{}\u{0}{}", dice.text(&PIECES), dice.text(&PIECES)),
        _ => dice.text(&PIECES),
    }
}

/// A document with hostile texts for keys and leaves.
fn document(dice: &mut Dice, depth: usize) -> Value {
    match dice.below(if depth < 4 { 7 } else { 4 }) {
        0 => Value::Null,
        1 => json!(dice.below(2) == 0),
        2 => json!(dice.below(1_000_000)),
        3 => json!(text(dice)),
        4 => (0..dice.below(4)).map(|_| document(dice, depth + 1)).collect(),
        _ => Value::Object((0..dice.below(4)).map(|_| (text(dice), document(dice, depth + 1))).collect()),
    }
}

fn holds_nul(value: &Value) -> bool {
    value.to_string().replace("\\\\", "").contains("\\u0000")
}

/// The batch takes them all but those that the database cannot keep, and gives back the same.
async fn as_rows(sql: &Sql, dice: &mut Dice) -> usize {
    let statement = Statement::parse("INSERT INTO kept (id, words, doc) VALUES (:id, :words, :doc)", sql.dialect());
    let statement = statement.expect("it parses");
    let postgres = sql.dialect() == Dialect::Postgres;
    let given: Vec<Vec<Value>> = (0..AT_ONCE)
        .map(|n| {
            // An array of texts may be a text[] elsewhere; an object of two fields with these names is a tagged value.
            let doc = json!({"doc": document(dice, 0)});
            vec![json!(n), json!(text(dice)), doc]
        })
        .collect();
    let form = statement.multi_row.as_ref().expect("it has a form for many rows");
    let results = sql.run_rows(&statement, form, &given).await;
    let mut expected = Vec::new();
    for (row, result) in given.iter().zip(results) {
        if postgres && row.iter().any(holds_nul) {
            assert_eq!(failure(result).kind, "DataError", "{row:?}");
        } else {
            result.unwrap_or_else(|error| panic!("{row:?}: {error}"));
            expected.push(json!({"id": row[0], "words": row[1], "doc": row[2]}));
        }
    }
    assert_eq!(rows(sql, "SELECT id, words, doc FROM kept ORDER BY id").await, Value::Array(expected));
    run(sql, &["DELETE FROM kept"], json!({})).await.expect("it runs");
    2 * AT_ONCE
}

/// All of them as parameters of one statement, in the places that statements have for them.
async fn as_parameters(sql: &Sql, dice: &mut Dice) -> usize {
    let clean = |dice: &mut Dice| text(dice).replace('\u{0}', "0");
    let texts: Vec<String> = (0..AT_ONCE).map(|_| clean(dice)).collect();
    let column = |n: usize| match n % 4 {
        0 => format!("CAST(:p{n} AS text) AS c{n}"),
        1 => format!("coalesce(nullif('x', 'x'), CAST(:p{n} AS text)) AS c{n} -- :p{n}'\n"),
        2 => format!("CASE WHEN 'it''s :p{n}' <> CAST(:p{n} AS text) THEN CAST(:p{n} AS text) END AS c{n}"),
        _ => format!("(SELECT max(v) FROM (SELECT CAST(:p{n} AS text) AS v) AS \"it's :p{n}\") AS c{n}"),
    };
    let columns: Vec<String> = (0..AT_ONCE).map(column).collect();
    // With the line break, the comment that a column ends with does not swallow the comma.
    let select = format!("SELECT {}", columns.join("\n, "));
    let named: Value = texts
        .iter()
        .enumerate()
        .map(|(n, text)| (format!("p{n}"), json!(text)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let result = run(sql, &[&select], named).await.expect("it runs");
    for (n, text) in texts.iter().enumerate() {
        assert_eq!(result["rows"][0][format!("c{n}")], json!(text), "column {n}");
    }
    AT_ONCE
}

async fn nothing_else_happens(sql: &Sql, of_texts: [&str; 2], schema: &str) {
    run(sql, &["CREATE TABLE victims (secret text)", "INSERT INTO victims VALUES ('s3cret')"], json!({}))
        .await
        .expect("a table");
    run(
        sql,
        &[&format!("CREATE TABLE kept (id integer PRIMARY KEY, words {}, doc {})", of_texts[0], of_texts[1])],
        json!({}),
    )
    .await
    .expect("a table");
    let before = rows(sql, schema).await;
    let (mut dice, count, mut tried) = (Dice::new(), hostile(6_000).end, 0);
    while tried < count {
        tried += as_rows(sql, &mut dice).await + as_parameters(sql, &mut dice).await;
    }
    assert_eq!(rows(sql, "SELECT secret FROM victims").await, json!([{"secret": "s3cret"}]));
    assert_eq!(rows(sql, schema).await, before, "the tables are those that there were");
    println!("{tried} hostile values on {:?}: each arrived as it was, or was refused alone", sql.dialect());
}

#[tokio::test]
async fn hostile_values_are_only_values_on_sqlite() {
    let dir = tempfile::tempdir().expect("a temp dir");
    nothing_else_happens(&sqlite(dir.path()), ["text", "json"], "SELECT name, sql FROM sqlite_schema ORDER BY name")
        .await;
}

#[tokio::test]
async fn hostile_values_are_only_values_on_postgres() {
    let server = postgres::Server::start();
    let schema =
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2";
    nothing_else_happens(&postgres_at(&server.url(), Duration::from_secs(60)), ["text", "jsonb"], schema).await;
}
