//! How Python prints a value: `repr` as RQ uses it for a job's description, and Celery's bounded variant, which does
//! not escape strings, for `argsrepr` and `kwargsrepr`. Both are for people; nothing parses them.

use serde_json::{Map, Number, Value};

use super::tagged::{Tag, code_points, tagged};

/// Celery prints at most this many characters …
const CELERY_LENGTH: usize = 1024;
/// … and this many levels.
const CELERY_DEPTH: usize = 3;

/// `repr(value)`. Which characters count as printable follows Unicode's separators and controls, not its whole table.
pub(crate) fn repr(value: &Value) -> String {
    let mut printer = Printer { out: String::new(), style: Style::Python };
    printer.value(value, 1);
    printer.out
}

/// Celery's print of positional arguments, a tuple.
pub(crate) fn celery_args(args: &[Value]) -> String {
    celery_print(|printer| printer.sequence(args, Brackets::Tuple, 1))
}

/// Celery's print of keyword arguments.
pub(crate) fn celery_kwargs(kwargs: &Map<String, Value>) -> String {
    celery_print(|printer| printer.map(kwargs, 1))
}

/// Celery's print of what a task has returned.
pub(crate) fn celery_result(result: &Value) -> String {
    celery_print(|printer| printer.value(result, 1))
}

fn celery_print(print: impl FnOnce(&mut Printer)) -> String {
    let mut printer = Printer { out: String::new(), style: Style::Celery };
    print(&mut printer);
    printer.out
}

/// A JSON number as Python prints it.
pub(crate) fn number(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => float_repr(float),
        _ => number.to_string(),
    }
}

/// `repr` of a finite float: the shortest digits that read back, in scientific form outside of 1e-4 … 1e16.
fn float_repr(float: f64) -> String {
    let scientific = format!("{float:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("{:e} prints an exponent");
    let exponent: i32 = exponent.parse().expect("{:e} prints a decimal exponent");
    if (-4..16).contains(&exponent) {
        // Rust's Debug form keeps ".0", and its own switch to an exponent lies at the same place above.
        let plain = format!("{float}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Python,
    Celery,
}

#[derive(Clone, Copy)]
enum Brackets {
    List,
    Tuple,
}

struct Printer {
    out: String,
    style: Style,
}

impl Printer {
    fn value(&mut self, value: &Value, depth: usize) {
        match value {
            Value::Null => self.out.push_str("None"),
            Value::Bool(yes) => self.out.push_str(if *yes { "True" } else { "False" }),
            Value::Number(value) => self.out.push_str(&number(value)),
            Value::String(text) => self.string(text),
            Value::Array(items) => self.sequence(items, Brackets::List, depth),
            Value::Object(map) => match tagged(value) {
                Some((tag, held)) => self.tagged(tag, held, depth),
                None => self.map(map, depth),
            },
        }
    }

    fn sequence(&mut self, items: &[Value], brackets: Brackets, depth: usize) {
        let (open, close) = match brackets {
            Brackets::List => ('[', "]"),
            Brackets::Tuple if items.len() == 1 => ('(', ",)"),
            Brackets::Tuple => ('(', ")"),
        };
        self.out.push(open);
        self.items(items, depth, |printer, item| printer.value(item, depth + 1));
        self.out.push_str(close);
    }

    fn map(&mut self, map: &Map<String, Value>, depth: usize) {
        self.out.push('{');
        self.items(map, depth, |printer, (key, value)| {
            printer.string(key);
            printer.out.push_str(": ");
            printer.value(value, depth + 1);
        });
        self.out.push('}');
    }

    /// The items of one container, cut short where Celery would.
    fn items<I: IntoIterator>(&mut self, items: I, depth: usize, mut print: impl FnMut(&mut Self, I::Item)) {
        for (index, item) in items.into_iter().enumerate() {
            if self.style == Style::Celery && depth > CELERY_DEPTH {
                return self.out.push_str("...");
            }
            if index > 0 {
                self.out.push_str(", ");
            }
            if self.room() == 0 {
                return self.out.push_str("...");
            }
            print(self, item);
        }
    }

    /// Bytes that may still be printed.
    fn room(&self) -> usize {
        match self.style {
            Style::Python => usize::MAX,
            Style::Celery => CELERY_LENGTH.saturating_sub(self.out.len()),
        }
    }

    fn tagged(&mut self, tag: Tag, held: &Value, depth: usize) {
        match (tag, held) {
            (Tag::Int | Tag::Float, Value::String(text)) => self.out.push_str(text),
            (Tag::Surrogate, Value::String(text)) => self.points(&code_points(text)),
            (Tag::Decimal, _) => self.call("Decimal", held, depth),
            (Tag::Uuid, _) => self.call("UUID", &held["hex"], depth),
            _ => self.call(tag.name(), held, depth),
        }
    }

    fn call(&mut self, name: &str, argument: &Value, depth: usize) {
        self.out.push_str(name);
        self.out.push('(');
        self.value(argument, depth + 1);
        self.out.push(')');
    }

    fn string(&mut self, text: &str) {
        match self.style {
            Style::Celery => {
                let cut = text.char_indices().nth(self.room()).map_or(text.len(), |(at, _)| at);
                self.out.push('\'');
                self.out.push_str(&text[..cut].replace('\'', "\\'"));
                self.out.push_str(if cut < text.len() { "...'" } else { "'" });
            }
            Style::Python => self.points(&text.chars().map(u32::from).collect::<Vec<_>>()),
        }
    }

    fn points(&mut self, points: &[u32]) {
        let has = |quote: char| points.contains(&u32::from(quote));
        let quote = if has('\'') && !has('"') { '"' } else { '\'' };
        self.out.push(quote);
        for point in points {
            match char::from_u32(*point) {
                Some('\n') => self.out.push_str("\\n"),
                Some('\r') => self.out.push_str("\\r"),
                Some('\t') => self.out.push_str("\\t"),
                Some('\\') => self.out.push_str("\\\\"),
                Some(character) if character == quote => self.out.extend(['\\', character]),
                Some(character) if is_printable(character) => self.out.push(character),
                _ => self.escape(*point),
            }
        }
        self.out.push(quote);
    }

    fn escape(&mut self, point: u32) {
        self.out.push_str(&match point {
            0..=0xff => format!("\\x{point:02x}"),
            0x100..=0xffff => format!("\\u{point:04x}"),
            _ => format!("\\U{point:08x}"),
        });
    }
}

/// Controls, separators other than the space, format characters and private use are escaped.
fn is_printable(character: char) -> bool {
    let hidden = matches!(character,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff0}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..);
    character == ' ' || !(hidden || character.is_control() || character.is_whitespace())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn celery_prints_bounded() {
        assert_eq!(celery_args(&[]), "()");
        assert_eq!(celery_args(&[json!("it's"), json!(1)]), r"('it\'s', 1)");
        assert_eq!(celery_args(&[json!({"a": {"b": {"c": 1}}})]), "({'a': {'b': {...}}},)");
        assert_eq!(celery_args(&[json!([1, null, true, 1.5])]), "([1, None, True, 1.5],)");
        let long: Vec<Value> = (0..2000).map(Value::from).collect();
        let printed = celery_args(&long);
        assert!(printed.len() < 1100 && printed.ends_with(", ...)"), "{printed}");
        assert!(celery_args(&[json!({"k": "x".repeat(5000)})]).len() < 1100);
    }

    #[test]
    fn strings_are_quoted_as_python_does() {
        assert_eq!(repr(&json!("it's")), r#""it's""#);
        assert_eq!(repr(&json!("\"it's\"")), r#"'"it\'s"'"#);
        assert_eq!(repr(&json!("ü\u{1f600}\n\u{7f}\u{a0}\u{2028}\\")), "'ü\u{1f600}\\n\\x7f\\xa0\\u2028\\\\'");
    }
}
