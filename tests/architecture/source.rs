//! One source file as the rules see it: words, marks and string literals with their lines; no comments.
//!
//! This is a lexer for exactly what the rules ask, not for Rust: numbers and operators come out as single marks.

/// What a rule can look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier or keyword; raw identifiers come without `r#`.
    Word(String),
    /// The text between the quotes of any kind of string literal, escapes left as written.
    Text(String),
    /// `::`
    Colons,
    /// Any other character that is not white space.
    Mark(char),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// The tokens of a Rust source text.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: source, line: 1, tokens: Vec::new() };
    while let Some(next) = lexer.rest.chars().next() {
        lexer.step(next);
    }
    lexer.tokens
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn step(&mut self, next: char) {
        if self.rest.starts_with("//") {
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.take(end);
        } else if self.rest.starts_with("/*") {
            self.block_comment();
        } else if let Some((hashes, quote)) = raw_string_start(self.rest) {
            self.take(quote + 1);
            self.text_until(&format!("\"{}", "#".repeat(hashes)));
        } else if let Some(quote) = string_start(self.rest) {
            self.take(quote + 1);
            self.escaped_text();
        } else if next == '\'' {
            self.character_or_lifetime();
        } else if next == '_' || next.is_alphabetic() {
            self.word();
        } else if self.rest.starts_with("::") {
            self.push(Kind::Colons);
            self.take(2);
        } else {
            if !next.is_whitespace() {
                self.push(Kind::Mark(next));
            }
            self.take(next.len_utf8());
        }
    }

    fn word(&mut self) {
        let rest = self.rest.strip_prefix("r#").unwrap_or(self.rest);
        let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
        self.push(Kind::Word(rest[..end].to_owned()));
        self.take(self.rest.len() - rest.len() + end);
    }

    /// Block comments nest in Rust.
    fn block_comment(&mut self) {
        let mut depth = 0;
        loop {
            if self.rest.starts_with("/*") {
                depth += 1;
                self.take(2);
            } else if self.rest.starts_with("*/") {
                depth -= 1;
                self.take(2);
            } else {
                let Some(next) = self.rest.chars().next() else {
                    return;
                };
                self.take(next.len_utf8());
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn escaped_text(&mut self) {
        let mut escaped = false;
        let end = self.rest.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        self.text_of_length(end, 1);
    }

    fn text_until(&mut self, end: &str) {
        self.text_of_length(self.rest.find(end), end.len());
    }

    fn text_of_length(&mut self, length: Option<usize>, closing: usize) {
        let length = length.unwrap_or(self.rest.len());
        self.push(Kind::Text(self.rest[..length].to_owned()));
        self.take((length + closing).min(self.rest.len()));
    }

    /// `'x'` and `'\n'` are characters and vanish; of a lifetime its name stays as a word.
    fn character_or_lifetime(&mut self) {
        let mut characters = self.rest.char_indices().skip(1);
        let length = match (characters.next(), characters.next()) {
            // From the character after the backslash on, the next quote closes.
            (Some((_, '\\')), Some((at, escaped))) => {
                let after = at + escaped.len_utf8();
                self.rest[after..].find('\'').map_or(self.rest.len(), |quote| after + quote + 1)
            }
            (Some(_), Some((at, '\''))) => at + 1,
            _ => 1,
        };
        self.take(length);
    }

    fn push(&mut self, kind: Kind) {
        self.tokens.push(Token { kind, line: self.line });
    }

    fn take(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.rest = rest;
    }
}

/// For `r"`, `br#"` and their like: the number of hashes and where the quote stands.
fn raw_string_start(rest: &str) -> Option<(usize, usize)> {
    let prefix = ["r", "br", "cr"]
        .into_iter()
        .find(|prefix| rest.strip_prefix(prefix).is_some_and(|after| after.trim_start_matches('#').starts_with('"')))?;
    let hashes = rest[prefix.len()..].chars().take_while(|c| *c == '#').count();
    Some((hashes, prefix.len() + hashes))
}

/// For `"`, `b"` and `c"`: where the quote stands.
fn string_start(rest: &str) -> Option<usize> {
    ["", "b", "c"]
        .into_iter()
        .find(|prefix| rest.strip_prefix(prefix).is_some_and(|after| after.starts_with('"')))
        .map(str::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens of one line, written the short way: words bare, texts in angle quotes.
    fn short(source: &str) -> String {
        let written = tokens(source).into_iter().map(|token| match token.kind {
            Kind::Word(word) => word,
            Kind::Text(text) => format!("<{text}>"),
            Kind::Colons => "::".to_owned(),
            Kind::Mark(mark) => mark.to_string(),
        });
        written.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_vanish_and_literals_stay_whole() {
        for (source, expected) in [
            ("a // crate::b\nc", "a c"),
            ("a /* x /* crate::b */ y */ c", "a c"),
            (r#"f("crate::b // no", c)"#, "f ( <crate::b // no> , c )"),
            (r#"("a\"b\\", c)"#, r#"( <a\"b\\> , c )"#),
            (r##"(r#"a"b"#, c)"##, r#"( <a"b> , c )"#),
            (r#"(b"a", br"\", c"z", r"")"#, r"( <a> , <\> , <z> , <> )"),
            ("fn f<'a>(x: &'a str) { '\"' }", "fn f < a > ( x : & a str ) { }"),
            (r"['\'', '\\', '\u{7f}', b'x', 'é'] y", "[ , , , b , ] y"),
            ("r#type::x", "type :: x"),
            ("/* never closed", ""),
            ("\"never closed", "<never closed>"),
        ] {
            assert_eq!(short(source), expected, "from {source}");
        }
    }

    #[test]
    fn lines_are_counted_through_comments_and_texts() {
        let lines: Vec<usize> = tokens("a\n/* \n */ b \"x\ny\" c").into_iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 3, 3, 4]);
    }
}
