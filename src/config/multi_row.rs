//! An `INSERT … VALUES (…)` with the values of one job, as one statement for many jobs.
//!
//! The row of the statement is repeated as it is written, with placeholders of its own for each job: values never pass
//! through here. What would mean something else for many rows at once has no such form: RETURNING, DO UPDATE, a
//! SELECT among the values.

use std::ops::Range;

/// What the scanner of statements has seen, by its place in the statement that it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) place: Range<usize>,
    pub(super) what: Seen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Word,
    Open,
    Close,
    /// The placeholder of the name at this index.
    Placeholder(usize),
}

/// The parts of the statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MultiRow {
    /// Up to the row, with its word VALUES.
    head: String,
    /// Bytes of the head before that word.
    before_values: usize,
    /// Texts of the row, each with the index of the name whose placeholder follows it.
    row: Vec<(String, Option<usize>)>,
    tail: String,
    /// What a placeholder begins with.
    mark: char,
    names: usize,
    /// Among its values is the word DEFAULT, which only VALUES understands.
    has_default: bool,
}

impl MultiRow {
    /// `None` when the statement has no form for many rows.
    pub(super) fn of(sql: &str, marks: &[Mark], names: usize, mark: char) -> Option<Self> {
        let word = |mark: &Mark| sql[mark.place.clone()].to_ascii_uppercase();
        let is_word = |mark: &Mark, text: &str| mark.what == Seen::Word && word(mark) == text;
        let open = row_start(marks, |mark| is_word(mark, "VALUES"))?;
        let close = open + closing(&marks[open..])?;
        let (before, inside, after) = (&marks[..open], &marks[open..=close], &marks[close + 1..]);
        let gap = &sql[before.last()?.place.end..marks[open].place.start];
        let (head, tail) = (&sql[..marks[open].place.start], &sql[marks[close].place.end..]);
        let fits = is_word(marks.first()?, "INSERT")
            && gap.trim().is_empty()
            && !before.iter().chain(after).any(|mark| matches!(mark.what, Seen::Placeholder(_)))
            && !inside.iter().any(|mark| is_word(mark, "SELECT"))
            && (tail.trim().is_empty() || does_nothing(tail, after, &word));
        fits.then(|| Self {
            head: head.to_owned(),
            before_values: before[before.len() - 1].place.start,
            row: row(sql, marks[open].place.start..marks[close].place.end, inside),
            tail: tail.to_owned(),
            mark,
            names,
            has_default: inside.iter().any(|mark| is_word(mark, "DEFAULT")),
        })
    }

    /// The statement for so many rows. The placeholders of one row follow those of the row before it.
    pub(crate) fn sql(&self, rows: usize) -> String {
        let mut sql = self.head.clone();
        for row in 0..rows {
            sql.push_str(if row == 0 { "" } else { ", " });
            for (text, name) in &self.row {
                sql.push_str(text);
                if let Some(name) = name {
                    sql.push(self.mark);
                    sql.push_str(&(row * self.names + name + 1).to_string());
                }
            }
        }
        sql.push_str(&self.tail);
        sql
    }

    /// The statement for any number of rows, in PostgreSQL's words: each placeholder is a `text[]` with the values of all
    /// rows, of which the server makes the types that the placeholders of the single row have. `None` when this row
    /// cannot be written so.
    pub(crate) fn of_arrays(&self, types: &[String]) -> Option<String> {
        if types.is_empty() || types.len() != self.names || self.has_default {
            return None;
        }
        let mut sql = format!("{}SELECT ", &self.head[..self.before_values]);
        let last = self.row.len() - 1;
        for (at, (text, name)) in self.row.iter().enumerate() {
            // Without the parentheses around the row.
            sql.push_str(&text[usize::from(at == 0)..text.len() - usize::from(at == last)]);
            if let Some(name) = name {
                sql.push_str(&format!("(jobsd_rows.v{}::{})", name + 1, types[*name]));
            }
        }
        let numbers = 1..=self.names;
        let arrays: Vec<String> = numbers.clone().map(|n| format!("{}{n}::text[]", self.mark)).collect();
        let columns: Vec<String> = numbers.map(|n| format!("v{n}")).collect();
        sql.push_str(&format!(" FROM unnest({}) AS jobsd_rows ({})", arrays.join(", "), columns.join(", ")));
        sql.push_str(&self.tail);
        Some(sql)
    }

    /// Values that a row binds.
    pub(crate) fn names(&self) -> usize {
        self.names
    }
}

/// Where the parenthesis opens that follows the word VALUES outside all others.
fn row_start(marks: &[Mark], is_values: impl Fn(&Mark) -> bool) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, mark) in marks.iter().enumerate() {
        match mark.what {
            Seen::Open => depth += 1,
            Seen::Close => depth = depth.checked_sub(1)?,
            Seen::Word if depth == 0 && is_values(mark) => {
                return marks.get(at + 1).filter(|next| next.what == Seen::Open).map(|_| at + 1);
            }
            Seen::Word | Seen::Placeholder(_) => {}
        }
    }
    None
}

/// Where the parenthesis closes that opens first.
fn closing(marks: &[Mark]) -> Option<usize> {
    let mut depth = 0_usize;
    marks.iter().position(|mark| {
        match mark.what {
            Seen::Open => depth += 1,
            Seen::Close => depth = depth.saturating_sub(1),
            Seen::Word | Seen::Placeholder(_) => {}
        }
        depth == 0
    })
}

/// `ON CONFLICT … DO NOTHING`, directly behind the row.
fn does_nothing(tail: &str, marks: &[Mark], word: &impl Fn(&Mark) -> String) -> bool {
    let words: Vec<String> = marks.iter().filter(|mark| mark.what == Seen::Word).map(word).collect();
    let ends = |start: &[&str], end: &[&str]| {
        words.iter().take(start.len()).eq(start) && words[words.len().saturating_sub(end.len())..].iter().eq(end)
    };
    tail.trim_start().to_ascii_uppercase().starts_with("ON") && ends(&["ON", "CONFLICT"], &["DO", "NOTHING"])
}

fn row(sql: &str, place: Range<usize>, marks: &[Mark]) -> Vec<(String, Option<usize>)> {
    let mut pieces = Vec::new();
    let mut at = place.start;
    for mark in marks {
        if let Seen::Placeholder(name) = mark.what {
            pieces.push((sql[at..mark.place.start].to_owned(), Some(name)));
            at = mark.place.end;
        }
    }
    pieces.push((sql[at..place.end].to_owned(), None));
    pieces
}

#[cfg(test)]
mod tests {
    use crate::config::{Dialect, Statement};

    fn two_rows(sql: &str, dialect: Dialect) -> Option<String> {
        let statement = Statement::parse(sql, dialect).unwrap_or_else(|error| panic!("{sql}: {error}"));
        statement.multi_row.map(|form| form.sql(2))
    }

    #[test]
    fn the_row_is_repeated_with_placeholders_of_its_own() {
        for (sql, expected) in [
            ("INSERT INTO t VALUES (:a, :b)", "INSERT INTO t VALUES ($1, $2), ($3, $4)"),
            (
                "insert into t (a, b)\nvalues (coalesce(:a, 0), ':b', :a::jsonb, now())  ",
                "insert into t (a, b)\nvalues (coalesce($1, 0), ':b', $1::jsonb, now()), (coalesce($2, 0), ':b', $2::jsonb, now())  ",
            ),
            (
                "INSERT INTO \"values\" (a) VALUES (:a) ON CONFLICT (a) DO NOTHING;",
                "INSERT INTO \"values\" (a) VALUES ($1), ($2) ON CONFLICT (a) DO NOTHING",
            ),
            ("INSERT INTO t VALUES (')', $$(:x$$, :a)", "INSERT INTO t VALUES (')', $$(:x$$, $1), (')', $$(:x$$, $2)"),
            ("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1), (1)"),
        ] {
            assert_eq!(two_rows(sql, Dialect::Postgres).as_deref(), Some(expected), "{sql}");
        }
        let sqlite = two_rows("INSERT OR IGNORE INTO [t] VALUES (:a, :b, :a)", Dialect::Sqlite);
        assert_eq!(sqlite.as_deref(), Some("INSERT OR IGNORE INTO [t] VALUES (?1, ?2, ?1), (?3, ?4, ?3)"));
    }

    #[test]
    fn arrays_hold_the_values_of_all_rows() {
        let of_arrays = |sql: &str, types: &[&str]| {
            let types: Vec<String> = types.iter().map(|&name| name.to_owned()).collect();
            Statement::parse(sql, Dialect::Postgres).expect("it parses").multi_row.expect("a form").of_arrays(&types)
        };
        let plain = "INSERT INTO t (a, b) VALUES (:a, coalesce(:b, 'x', :a::text)) ON CONFLICT DO NOTHING";
        let expected = "INSERT INTO t (a, b) SELECT (jobsd_rows.v1::int4), coalesce((jobsd_rows.v2::text), 'x', \
                        (jobsd_rows.v1::int4)::text) FROM unnest($1::text[], $2::text[]) AS jobsd_rows (v1, v2) \
                        ON CONFLICT DO NOTHING";
        assert_eq!(of_arrays(plain, &["int4", "text"]).as_deref(), Some(expected));
        for sql in ["INSERT INTO t VALUES (:a, DEFAULT)", "INSERT INTO t VALUES (1)"] {
            assert_eq!(of_arrays(sql, &["int4"]), None, "{sql}");
        }
    }

    #[test]
    fn what_would_mean_something_else_has_no_such_form() {
        for sql in [
            "UPDATE t SET a = :a",
            "DELETE FROM t WHERE a IN (VALUES (:a))",
            "WITH x AS (SELECT 1) INSERT INTO t VALUES (:a)",
            "INSERT INTO t SELECT :a",
            "INSERT INTO t SELECT * FROM (VALUES (:a)) AS v",
            "INSERT INTO t DEFAULT VALUES",
            "INSERT INTO t VALUES (:a), (:b)",
            "INSERT INTO t VALUES ((SELECT count(*) FROM t), :a)",
            "INSERT INTO t VALUES (:a) RETURNING id",
            "INSERT INTO t VALUES (:a) ON CONFLICT DO NOTHING RETURNING id",
            "INSERT INTO t VALUES (:a) ON CONFLICT (a) DO UPDATE SET b = 1",
            "INSERT INTO t VALUES (:a) ON CONFLICT (a) WHERE a = :b DO NOTHING",
            "INSERT INTO t VALUES (:a) -- one",
        ] {
            assert_eq!(two_rows(sql, Dialect::Postgres), None, "{sql}");
        }
    }
}
