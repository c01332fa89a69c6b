//! Finds `:name` in a statement and puts the database's own placeholder there; nothing else of the statement changes.
//!
//! Knows just enough of SQL's lexical rules to leave alone what only looks like a name: strings, quoted
//! identifiers, comments, dollar quotes, casts (`::`). Values never pass through here, so none can be spliced.

/// Whose lexical rules apply, and how its placeholders look (`$1` or `?1`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Postgres,
    Sqlite,
}

/// A statement ready to be prepared.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    pub(super) sql: String,
    /// The name behind placeholder 1, 2, …; each name once.
    pub(super) names: Vec<String>,
    /// Its first word, in capitals.
    pub(super) verb: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScanError {
    #[error("a {0} is not closed")]
    Unclosed(&'static str),
    #[error("it holds several statements; write them as separate entries of `statements`")]
    Several,
    #[error("it is empty")]
    Empty,
    #[error("`{0}` is not a placeholder here; write `:name`")]
    ForeignPlaceholder(String),
    #[error("`{0}` is not allowed: all statements of a step already run in one transaction")]
    Transaction(String),
}

/// # Errors
/// [`ScanError`] when it is not exactly one whole statement that leaves the transaction alone.
pub(super) fn scan(statement: &str, dialect: Dialect) -> Result<Scanned, ScanError> {
    let mut scanner = Scanner { rest: statement, out: String::new(), names: Vec::new(), dialect };
    let mut verb = None;
    let mut ended = false;
    while let Some(first) = scanner.rest.chars().next() {
        if first.is_whitespace() {
            scanner.take(first.len_utf8());
        } else if scanner.rest.starts_with("--") || scanner.rest.starts_with("/*") {
            scanner.comment()?;
        } else if ended {
            return Err(ScanError::Several);
        } else if first == ';' {
            ended = true;
            scanner.rest = &scanner.rest[1..];
        } else {
            let word = scanner.token(first)?;
            if verb.is_none() && word.starts_with(|c: char| c.is_ascii_alphabetic()) {
                verb = Some(word.to_ascii_uppercase());
            }
        }
    }
    let verb = verb.ok_or(ScanError::Empty)?;
    if matches!(verb.as_str(), "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE") {
        return Err(ScanError::Transaction(verb));
    }
    Ok(Scanned { sql: scanner.out, names: scanner.names, verb })
}

struct Scanner<'a> {
    rest: &'a str,
    out: String,
    names: Vec<String>,
    dialect: Dialect,
}

impl<'a> Scanner<'a> {
    /// Moves `len` bytes from the input to the output, unchanged.
    fn take(&mut self, len: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(len);
        self.out.push_str(taken);
        self.rest = rest;
        taken
    }

    fn token(&mut self, first: char) -> Result<&'a str, ScanError> {
        let postgres = self.dialect == Dialect::Postgres;
        match first {
            '\'' => self.quoted('\'', false, "string"),
            '"' => self.quoted('"', false, "quoted name"),
            '`' if !postgres => self.quoted('`', false, "quoted name"),
            '[' if !postgres => self.quoted(']', false, "quoted name"),
            'e' | 'E' if postgres && self.rest[1..].starts_with('\'') => {
                self.take(1);
                self.quoted('\'', true, "string")
            }
            '$' if postgres => self.dollar(),
            '?' | '$' | '@' | '#' if !postgres => {
                Err(ScanError::ForeignPlaceholder(self.rest.chars().take(20).collect()))
            }
            ':' if self.rest.starts_with("::") => Ok(self.take(2)),
            ':' if parameter_len(&self.rest[1..]) > 0 => {
                self.placeholder();
                Ok("")
            }
            c if starts_name(c) => Ok(self.take(name_len(self.rest))),
            c => Ok(self.take(c.len_utf8())),
        }
    }

    /// From the opening character to its closing one, which stands for itself when doubled.
    fn quoted(&mut self, close: char, backslash: bool, what: &'static str) -> Result<&'a str, ScanError> {
        let mut chars = self.rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            if backslash && c == '\\' {
                chars.next();
            } else if c == close && chars.next_if(|&(_, next)| next == close).is_none() {
                return Ok(self.take(at + c.len_utf8()));
            }
        }
        Err(ScanError::Unclosed(what))
    }

    /// A line comment, or a block comment; PostgreSQL nests the latter.
    fn comment(&mut self) -> Result<(), ScanError> {
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
        Err(ScanError::Unclosed("comment"))
    }

    /// `$tag$ … $tag$`, where the tag may be empty.
    fn dollar(&mut self) -> Result<&'a str, ScanError> {
        let after = &self.rest[1..];
        if after.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(ScanError::ForeignPlaceholder(
                self.rest.chars().take_while(|&c| c == '$' || c.is_ascii_digit()).collect(),
            ));
        }
        let tag_len = name_len(after);
        if !after[tag_len..].starts_with('$') {
            return Ok(self.take(1));
        }
        let mark = &self.rest[..tag_len + 2];
        let body = &self.rest[mark.len()..];
        let end = body.find(mark).ok_or(ScanError::Unclosed("dollar-quoted string"))?;
        Ok(self.take(2 * mark.len() + end))
    }

    fn placeholder(&mut self) {
        let len = parameter_len(&self.rest[1..]);
        let name = &self.rest[1..=len];
        let number = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        self.out.push(if self.dialect == Dialect::Postgres { '$' } else { '?' });
        self.out.push_str(&(number + 1).to_string());
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
        let scanned = scan(sql, Dialect::Postgres).unwrap_or_else(|error| panic!("{sql}: {error}"));
        (scanned.sql, scanned.names)
    }

    #[test]
    fn names_become_numbers_each_once() {
        let (sql, names) = postgres("INSERT INTO t VALUES (:a, :b, :a::jsonb)");
        assert_eq!((sql.as_str(), names), ("INSERT INTO t VALUES ($1, $2, $1::jsonb)", vec!["a".into(), "b".into()]));
        let scanned = scan("SELECT :a, :_b2", Dialect::Sqlite).expect("it scans");
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
            assert_eq!(scan(sql, Dialect::Sqlite).expect("it scans").sql, sql);
        }
    }

    #[test]
    fn the_verb_is_the_first_word() {
        for (sql, verb) in [("-- why\n (select 1)", "SELECT"), ("with a as (select 1) select 2", "WITH")] {
            assert_eq!(scan(sql, Dialect::Postgres).expect("it scans").verb, verb);
        }
    }

    #[test]
    fn one_whole_statement_that_leaves_the_transaction_alone() {
        assert_eq!(postgres("SELECT 1; -- done").0, "SELECT 1 -- done");
        let refused = |sql, dialect| scan(sql, dialect).expect_err("it is refused").to_string();
        for (sql, error) in [
            ("SELECT 1; DELETE FROM t", "it holds several statements; write them as separate entries of `statements`"),
            ("SELECT 'x", "a string is not closed"),
            ("SELECT $a$ $b$", "a dollar-quoted string is not closed"),
            ("SELECT /* x", "a comment is not closed"),
            ("  -- nothing", "it is empty"),
            ("SELECT $1", "`$1` is not a placeholder here; write `:name`"),
            ("commit", "`COMMIT` is not allowed: all statements of a step already run in one transaction"),
        ] {
            assert_eq!(refused(sql, Dialect::Postgres), error, "{sql}");
        }
        assert_eq!(refused("SELECT ?", Dialect::Sqlite), "`?` is not a placeholder here; write `:name`");
    }
}
