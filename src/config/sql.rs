//! One SQL statement of the configuration: `:name` becomes the database's own placeholder, nothing else of it changes.
//!
//! Knows just enough of SQL's lexical rules to leave alone what only looks like a name: strings, quoted
//! identifiers, comments, dollar quotes, casts (`::`). Values never pass through here, so none can be spliced.

use std::ops::Range;

use super::multi_row::{Mark, MultiRow, Seen};

/// Whose lexical rules apply, and how its placeholders look (`$1` or `?1`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Postgres,
    Sqlite,
}

/// A statement ready to be prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    pub sql: String,
    /// The name behind placeholder 1, 2, …; each name once.
    pub names: Vec<String>,
    /// Its first word, in capitals.
    pub verb: String,
    /// The same for many rows at once, if it has such a form.
    pub multi_row: Option<MultiRow>,
}

/// Why a text is not one statement, and which bytes of it are meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub(crate) struct StatementError {
    pub problem: StatementProblem,
    pub place: Range<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StatementProblem {
    #[error("a {what} is not closed")]
    Unclosed { what: &'static str, close: String },
    #[error("one string holds several statements")]
    Several,
    #[error("the statement is empty")]
    Empty,
    #[error("`{0}` is not a placeholder here")]
    ForeignPlaceholder(String),
    #[error("`{0}` is not allowed in a statement")]
    Transaction(String),
}

impl Statement {
    /// # Errors
    /// [`StatementError`] when it is not exactly one whole statement that leaves the transaction alone.
    pub(crate) fn parse(text: &str, dialect: Dialect) -> Result<Self, StatementError> {
        let mut scanner = Scanner { rest: text, out: String::new(), names: Vec::new(), marks: Vec::new(), dialect };
        scanner.statement().map_err(|(problem, length)| {
            // Nothing is taken of what cannot be read, so the problem begins where the rest does.
            let start = text.len() - scanner.rest.len();
            StatementError { problem, place: start..start + length }
        })
    }
}

impl StatementProblem {
    /// What to do about it.
    pub(crate) fn help(&self) -> String {
        match self {
            Self::Unclosed { close, .. } => format!("end it with {close}"),
            Self::Several => "give a list, one statement each: [\"…\", \"…\"]".to_owned(),
            Self::Empty => "write what is to be done, as in \"DELETE FROM t WHERE id = :id\"".to_owned(),
            Self::ForeignPlaceholder(_) => {
                "write `:name`, the name of a parameter or of one of the `values`".to_owned()
            }
            Self::Transaction(_) => "remove it: all statements of a step run in one transaction already".to_owned(),
        }
    }
}

/// A problem, and how many bytes at the beginning of the rest it is about.
type Found = (StatementProblem, usize);

struct Scanner<'a> {
    rest: &'a str,
    out: String,
    names: Vec<String>,
    marks: Vec<Mark>,
    dialect: Dialect,
}

impl<'a> Scanner<'a> {
    fn statement(&mut self) -> Result<Statement, Found> {
        let mut verb = None;
        let mut ended = false;
        while let Some(first) = self.rest.chars().next() {
            if first.is_whitespace() {
                self.take(first.len_utf8());
            } else if self.rest.starts_with("--") || self.rest.starts_with("/*") {
                self.comment()?;
            } else if first == ';' {
                ended = true;
                self.rest = &self.rest[1..];
            } else if ended {
                return Err((StatementProblem::Several, self.rest.trim_end().len()));
            } else if verb.is_none() && first.is_ascii_alphabetic() {
                verb = Some(self.verb()?);
            } else {
                self.token(first)?;
            }
        }
        let verb = verb.ok_or((StatementProblem::Empty, 0))?;
        let (sql, names) = (std::mem::take(&mut self.out), std::mem::take(&mut self.names));
        let multi_row = MultiRow::of(&sql, &self.marks, names.len(), self.placeholder_mark());
        Ok(Statement { sql, names, verb, multi_row })
    }

    /// The first word, which says what the statement does.
    fn verb(&mut self) -> Result<String, Found> {
        let word = &self.rest[..name_len(self.rest)];
        let verb = word.to_ascii_uppercase();
        match verb.as_str() {
            "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE" => {
                Err((StatementProblem::Transaction(verb), word.len()))
            }
            _ => {
                self.mark(word.len(), Seen::Word);
                Ok(verb)
            }
        }
    }

    /// Moves `len` bytes from the input to the output, unchanged.
    fn take(&mut self, len: usize) {
        let (taken, rest) = self.rest.split_at(len);
        self.out.push_str(taken);
        self.rest = rest;
    }

    /// The same, and notes what it is.
    fn mark(&mut self, len: usize, what: Seen) {
        let start = self.out.len();
        self.take(len);
        self.marks.push(Mark { place: start..self.out.len(), what });
    }

    fn placeholder_mark(&self) -> char {
        if self.dialect == Dialect::Postgres { '$' } else { '?' }
    }

    fn token(&mut self, first: char) -> Result<(), Found> {
        let postgres = self.dialect == Dialect::Postgres;
        match first {
            '\'' => return self.quoted('\'', false, "string"),
            '"' => return self.quoted('"', false, "quoted name"),
            '`' if !postgres => return self.quoted('`', false, "quoted name"),
            '[' if !postgres => return self.quoted(']', false, "quoted name"),
            'e' | 'E' if postgres && self.rest[1..].starts_with('\'') => {
                self.take(1);
                return self.quoted('\'', true, "string");
            }
            '$' if postgres => return self.dollar(),
            '?' | '$' | '@' | '#' if !postgres => return Err(self.foreign(1 + name_len(&self.rest[1..]))),
            ':' if self.rest.starts_with("::") => self.take(2),
            ':' if parameter_len(&self.rest[1..]) > 0 => self.placeholder(),
            '(' => self.mark(1, Seen::Open),
            ')' => self.mark(1, Seen::Close),
            c if starts_name(c) => self.mark(name_len(self.rest), Seen::Word),
            c => self.take(c.len_utf8()),
        }
        Ok(())
    }

    /// A placeholder of `length` bytes that is the database's, not ours.
    fn foreign(&self, length: usize) -> Found {
        (StatementProblem::ForeignPlaceholder(self.rest[..length].to_owned()), length)
    }

    /// From the opening character to its closing one, which stands for itself when doubled.
    fn quoted(&mut self, close: char, backslash: bool, what: &'static str) -> Result<(), Found> {
        let mut chars = self.rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            if backslash && c == '\\' {
                chars.next();
            } else if c == close && chars.next_if(|&(_, next)| next == close).is_none() {
                self.take(at + c.len_utf8());
                return Ok(());
            }
        }
        Err(self.unclosed(what, close, 1))
    }

    /// What begins here with a mark of `length` bytes and has no end.
    fn unclosed(&self, what: &'static str, close: impl ToString, length: usize) -> Found {
        (StatementProblem::Unclosed { what, close: close.to_string() }, length)
    }

    /// A line comment, or a block comment; PostgreSQL nests the latter.
    fn comment(&mut self) -> Result<(), Found> {
        if self.rest.starts_with("--") {
            self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
            return Ok(());
        }
        let mut depth = 0_u32;
        let mut at = 0;
        while let Some(two) = self.rest.as_bytes().get(at..at + 2) {
            match two {
                b"/*" if depth == 0 || self.dialect == Dialect::Postgres => (depth, at) = (depth + 1, at + 2),
                b"*/" => (depth, at) = (depth - 1, at + 2),
                _ => at += 1,
            }
            if depth == 0 {
                self.take(at);
                return Ok(());
            }
        }
        Err(self.unclosed("comment", "*/", 2))
    }

    /// `$tag$ … $tag$`, where the tag may be empty.
    fn dollar(&mut self) -> Result<(), Found> {
        let after = &self.rest[1..];
        if after.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.foreign(1 + name_len(after)));
        }
        let tag_len = name_len(after);
        if !after[tag_len..].starts_with('$') {
            self.take(1);
            return Ok(());
        }
        let mark = &self.rest[..tag_len + 2];
        let body = &self.rest[mark.len()..];
        let end = body.find(mark).ok_or_else(|| self.unclosed("dollar-quoted string", mark, mark.len()))?;
        self.take(2 * mark.len() + end);
        Ok(())
    }

    fn placeholder(&mut self) {
        let len = parameter_len(&self.rest[1..]);
        let name = &self.rest[1..=len];
        let number = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        let start = self.out.len();
        self.out.push(self.placeholder_mark());
        self.out.push_str(&(number + 1).to_string());
        self.marks.push(Mark { place: start..self.out.len(), what: Seen::Placeholder(number) });
        self.rest = &self.rest[1 + len..];
    }
}

fn starts_name(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

/// Parameters have ASCII names that begin with no digit; 0 where there is none.
fn parameter_len(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

fn name_len(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres(sql: &str) -> (String, Vec<String>) {
        let scanned = Statement::parse(sql, Dialect::Postgres).unwrap_or_else(|error| panic!("{sql}: {error}"));
        (scanned.sql, scanned.names)
    }

    #[test]
    fn names_become_numbers_each_once() {
        let (sql, names) = postgres("INSERT INTO t VALUES (:a, :b, :a::jsonb)");
        assert_eq!((sql.as_str(), names), ("INSERT INTO t VALUES ($1, $2, $1::jsonb)", vec!["a".into(), "b".into()]));
        let scanned = Statement::parse("SELECT :a, :_b2", Dialect::Sqlite).expect("it scans");
        assert_eq!(scanned.sql, "SELECT ?1, ?2");
    }

    #[test]
    fn what_only_looks_like_a_name_stays() {
        for sql in [
            "SELECT ':no', 'it''s :no'",
            r"SELECT E'\' :no', e'\\'",
            "SELECT \":no\", \"a\"\":no\"",
            "SELECT 1 -- :no\n",
            "SELECT 1 /* :no /* :no */ :no */",
            "SELECT $$ :no $$, $tag$ $$ :no $tag$",
            "SELECT x::text, a[1:2], y := 2, a[b:é]",
            "SELECT type'x', make'\\', 'é:no'",
        ] {
            assert_eq!(postgres(sql), (sql.to_owned(), Vec::new()), "{sql}");
        }
        for sql in ["SELECT [:no], `:no`", "SELECT 1 /* /* :no */"] {
            assert_eq!(Statement::parse(sql, Dialect::Sqlite).expect("it scans").sql, sql);
        }
    }

    #[test]
    fn the_verb_is_the_first_word() {
        for (sql, verb) in [("-- why\n (select 1)", "SELECT"), ("with a as (select 1) select 2", "WITH")] {
            assert_eq!(Statement::parse(sql, Dialect::Postgres).expect("it scans").verb, verb);
        }
    }

    #[test]
    fn one_whole_statement_that_leaves_the_transaction_alone() {
        assert_eq!(postgres("SELECT 1; -- done").0, "SELECT 1 -- done");
        assert_eq!(postgres("SELECT ';';  -- done; \n ;").0, "SELECT ';'  -- done; \n ");
        for (sql, meant, problem) in [
            ("SELECT 1; DELETE FROM t ", "DELETE FROM t", "one string holds several statements"),
            ("SELECT 'a', 'x", "'", "a string is not closed"),
            (r"SELECT E'x\'", "'", "a string is not closed"),
            ("SELECT \"x", "\"", "a quoted name is not closed"),
            ("SELECT $a$ $b$", "$a$", "a dollar-quoted string is not closed"),
            ("SELECT /* /* x */", "/*", "a comment is not closed"),
            ("  -- nothing", "", "the statement is empty"),
            ("SELECT $12", "$12", "`$12` is not a placeholder here"),
            ("commit", "commit", "`COMMIT` is not allowed in a statement"),
        ] {
            assert_eq!(refused(sql, Dialect::Postgres), (problem.to_owned(), meant), "{sql}");
        }
        for (sql, meant, problem) in [
            ("SELECT ?", "?", "`?` is not a placeholder here"),
            ("SELECT @a, 1", "@a", "`@a` is not a placeholder here"),
            ("SELECT [x", "[", "a quoted name is not closed"),
            ("SELECT `x", "`", "a quoted name is not closed"),
        ] {
            assert_eq!(refused(sql, Dialect::Sqlite), (problem.to_owned(), meant), "{sql}");
        }
        let second = Statement::parse("SELECT 'a', 'x", Dialect::Postgres).expect_err("it is refused");
        assert_eq!((second.place, second.problem.help()), (12..13, "end it with '".to_owned()));
    }

    fn refused(sql: &str, dialect: Dialect) -> (String, &str) {
        let error = Statement::parse(sql, dialect).expect_err("it is refused");
        (error.to_string(), &sql[error.place])
    }
}
