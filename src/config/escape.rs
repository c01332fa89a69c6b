//! How a text is found again where another program wrote it into a link, into JSON or into HTML.
//!
//! Programs differ in what they escape and how (`%2f` or `%2F`, `/` or `\/`, `&#39;` or `&#x27;`); every form counts.
//! Knows forms only, not what is worth finding.

/// One way of writing a text. A text is escaped in one way as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// Links and forms: RFC 3986, and a plus sign for a space.
    Percent,
    /// Strings of JSON: RFC 8259.
    Json,
    /// HTML's text and attributes: the named characters that every escaping function uses, and numbers.
    Html,
}

/// Every place in `text` where `wanted` stands, as it is or escaped, becomes `instead`.
pub(super) fn replace_all_forms(text: &str, wanted: &str, instead: &str) -> String {
    // These are escaped by nobody.
    if wanted.chars().all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c)) {
        return text.replace(wanted, instead);
    }
    // As it is comes last: it can be the beginning of its own escaped form.
    [Escape::Percent, Escape::Json, Escape::Html]
        .into_iter()
        .fold(text.to_owned(), |text, escape| escape.replace(&text, wanted, instead))
        .replace(wanted, instead)
}

impl Escape {
    fn replace(self, text: &str, wanted: &str, instead: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (written, length) = match self.length_of(wanted, rest) {
                Some(length) => (instead, length),
                None => (&rest[..first.len_utf8()], first.len_utf8()),
            };
            out.push_str(written);
            rest = &rest[length..];
        }
        out
    }

    /// How many bytes `wanted` takes at the beginning of `text`. `None` when something else stands there.
    fn length_of(self, wanted: &str, text: &str) -> Option<usize> {
        wanted.chars().try_fold(0, |at, character| Some(at + self.length_of_one(character, &text[at..])?))
    }

    fn length_of_one(self, character: char, text: &str) -> Option<usize> {
        // A character is never its own escape's beginning, so there is nothing to go back to.
        if !text.starts_with(self.mark()) {
            let plus = self == Self::Percent && character == ' ' && text.starts_with('+');
            return (plus || text.starts_with(character)).then(|| text.chars().next().map_or(0, char::len_utf8));
        }
        match self {
            Self::Percent => percent(character, text),
            Self::Json => json(character, text),
            Self::Html => html(character, text),
        }
    }

    /// What an escaped character begins with.
    fn mark(self) -> char {
        match self {
            Self::Percent => '%',
            Self::Json => '\\',
            Self::Html => '&',
        }
    }
}

/// `%C3%A9`: the bytes of UTF-8.
fn percent(character: char, text: &str) -> Option<usize> {
    character.encode_utf8(&mut [0; 4]).bytes().try_fold(0, |at, byte| {
        let digits = text.get(at..)?.strip_prefix('%')?.get(..2)?;
        (u8::from_str_radix(digits, 16) == Ok(byte)).then_some(at + 3)
    })
}

/// `\"`, `\n`, or `\u00e9`: the units of UTF-16.
fn json(character: char, text: &str) -> Option<usize> {
    let short = match character {
        '"' | '\\' | '/' => Some(character),
        '\u{8}' => Some('b'),
        '\u{c}' => Some('f'),
        '\n' => Some('n'),
        '\r' => Some('r'),
        '\t' => Some('t'),
        _ => None,
    };
    if short.is_some_and(|short| text[1..].starts_with(short)) {
        return Some(2);
    }
    character.encode_utf16(&mut [0; 2]).iter().try_fold(0, |at, &unit| {
        let digits = text.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        (u16::from_str_radix(digits, 16) == Ok(unit)).then_some(at + 6)
    })
}

/// `&amp;`, `&#38;` or `&#x26;`.
fn html(character: char, text: &str) -> Option<usize> {
    /// Longest number of a character: `x10FFFF` or `1114111`, after `&#`.
    const LONGEST: usize = 9;
    let end = text.bytes().take(LONGEST + 1).position(|byte| byte == b';')?;
    let stands_for = match &text[1..end] {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        number => {
            let number = number.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    };
    (stands_for == Some(character)).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a/b+c d\"é'&<😀";

    #[test]
    fn every_form_is_found() {
        for written in [
            SECRET,
            // Python's urllib.parse.quote and quote_plus, JavaScript's encodeURIComponent, and small digits.
            "a/b%2Bc%20d%22%C3%A9%27%26%3C%F0%9F%98%80",
            "a%2Fb%2Bc+d%22%C3%A9%27%26%3C%F0%9F%98%80",
            "a%2Fb%2Bc%20d%22%C3%A9'%26%3C%F0%9F%98%80",
            "a%2fb%2bc%20d%22%c3%a9%27%26%3c%f0%9f%98%80",
            // Python's json.dumps with and without ASCII only, PHP's json_encode, Go's encoding/json.
            r#"a/b+c d\"\u00e9'&<\ud83d\ude00"#,
            r#"a/b+c d\"é'&<😀"#,
            r#"a\/b+c d\"\u00e9'&<\ud83d\ude00"#,
            r#"a/b+c d\"é'\u0026\u003c😀"#,
            // Python's html.escape, MiniJinja, Go's html/template.
            "a/b+c d&quot;é&#x27;&amp;&lt;😀",
            "a&#x2f;b+c d&quot;é&#x27;&amp;&lt;😀",
            "a/b&#43;c d&#34;é&#39;&amp;&lt;😀",
        ] {
            let text = format!("é%: {written}|{written}\\&");
            assert_eq!(replace_all_forms(&text, SECRET, "***"), "é%: ***|***\\&", "{written}");
        }
    }

    #[test]
    fn what_is_something_else_stays() {
        for text in
            ["", "%", "a%2", "a%é", "a\\", "a\\u00é9", "a&", "a&#;", "a&#x110000;b", "a&é;", "a&#+47;", "a/b+c d"]
        {
            assert_eq!(replace_all_forms(text, SECRET, "***"), text, "{text}");
        }
    }

    #[test]
    fn a_text_made_of_marks_is_found_too() {
        for (wanted, written) in [("50%25", "50%2525"), ("a\\\\b", r"a\\\\b"), ("&amp;&", "&amp;amp;&amp;")] {
            assert_eq!(replace_all_forms(written, wanted, "***"), "***", "{wanted}");
            assert_eq!(replace_all_forms(wanted, wanted, "***"), "***", "{wanted}");
        }
    }
}
