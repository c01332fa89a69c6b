//! The `:name` parameters of an SQL statement: where a colon is one, and where it is text.
//!
//! Read over: 'strings', E'strings with \' in them', "names", $tag$ bodies $tag$, -- comments, /* comments */ and `::` casts.

/// The names behind the colons, in order, with repetitions.
pub(super) fn names(sql: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        if let Some(length) = opaque(rest, sql[..sql.len() - rest.len()].chars().next_back()) {
            rest = &rest[length..];
        } else if let Some(name) = rest.strip_prefix(':').and_then(name_at) {
            names.push(name.to_owned());
            rest = &rest[1 + name.len()..];
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    names
}

/// The length of what `text` begins with and that holds no parameter.
fn opaque(text: &str, before: Option<char>) -> Option<usize> {
    let until = |open: usize, close: &str| text[open..].find(close).map_or(text.len(), |at| open + at + close.len());
    let inside_a_word = before.is_some_and(is_of_name);
    match text.as_bytes() {
        [b':', b':', ..] => Some(2),
        [b'-', b'-', ..] => Some(until(2, "\n")),
        [b'/', b'*', ..] => Some(until(2, "*/")),
        [b'E' | b'e', b'\'', ..] if !inside_a_word => Some(2 + escaped(&text[2..])),
        [b'\'', ..] => Some(until(1, "'")),
        [b'"', ..] => Some(until(1, "\"")),
        [b'$', ..] if !inside_a_word => dollar_quoted(text),
        _ => None,
    }
}

/// The length of the rest of an E'…' string, in which a backslash hides the next character.
fn escaped(text: &str) -> usize {
    let mut hidden = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if hidden => hidden = false,
            '\\' => hidden = true,
            '\'' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of `$tag$ … $tag$`.
fn dollar_quoted(text: &str) -> Option<usize> {
    let end = 1 + text[1..].find('$')?;
    let tag = &text[..=end];
    let inner = &tag[1..end];
    if !inner.chars().all(is_of_name) || inner.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    Some(text[tag.len()..].find(tag).map_or(text.len(), |at| 2 * tag.len() + at))
}

fn name_at(text: &str) -> Option<&str> {
    let end = text.find(|c| !is_of_name(c)).unwrap_or(text.len());
    (end > 0 && !text.starts_with(|c: char| c.is_ascii_digit())).then(|| &text[..end])
}

fn is_of_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// Whether two statements stand where one may.
pub(super) fn holds_several(sql: &str) -> bool {
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        if let Some(length) = opaque(rest, sql[..sql.len() - rest.len()].chars().next_back()) {
            rest = &rest[length..];
            continue;
        }
        if first == ';' {
            return names_nothing(&rest[1..]).is_none();
        }
        rest = &rest[first.len_utf8()..];
    }
    false
}

/// `Some` when only spaces, semicolons and comments follow.
fn names_nothing(mut text: &str) -> Option<()> {
    loop {
        text = text.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
        if text.is_empty() {
            return Some(());
        }
        if !text.starts_with("--") && !text.starts_with("/*") {
            return None;
        }
        text = &text[opaque(text, None)?..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_told_from_text() {
        let cases: [(&str, &[&str]); 11] = [
            ("SELECT :a, :b_2 FROM t WHERE x = :a", &["a", "b_2", "a"]),
            ("SELECT ':a' || \":b\" || 'it''s :c' || :d", &["d"]),
            ("SELECT :a::jsonb, '{}'::jsonb", &["a"]),
            ("SELECT 1 -- :a\n, :b /* :c */", &["b"]),
            (r"SELECT E'it\'s :a', :b", &["b"]),
            ("SELECT name'x', $$ :a $$, $tag$ :b $$ $tag$, :c", &["c"]),
            ("SELECT '2026-01-01 10:30:00', x[1:2]", &[]),
            ("SELECT ':unclosed", &[]),
            (":é : :1", &[]),
            ("SELECT $1, :a, $2", &["a"]),
            ("", &[]),
        ];
        for (sql, expected) in cases {
            assert_eq!(names(sql), expected, "{sql}");
        }
    }

    #[test]
    fn a_final_semicolon_is_not_a_second_statement() {
        assert!(!holds_several("SELECT ';';  -- done; \n ;"));
        assert!(holds_several("DELETE FROM a; DELETE FROM b"));
    }
}
