//! Against Python's own `json`.

use serde_json::{Value, json};

use super::{Dialect, ReadError, dumps, loads};
use crate::intake::limits::{Exceeded, Limits};
use crate::intake::python::run;

fn read(text: &str, dialect: Dialect) -> Result<Value, ReadError> {
    loads(text.as_bytes(), dialect, &Limits::default())
}

fn tag(name: &str, value: Value) -> Value {
    json!({"__type__": name, "__value__": value})
}

/// Python expressions and the values they arrive as in plain JSON.
fn cases() -> Vec<(&'static str, Value)> {
    vec![
        (
            "[None, True, False, 0, -1, 2**63-1, -2**63, 2**64-1]",
            json!([null, true, false, 0, -1, i64::MAX, i64::MIN, u64::MAX]),
        ),
        (
            "[2**64, -2**70]",
            json!([tag("int", json!("18446744073709551616")), tag("int", json!("-1180591620717411303424"))]),
        ),
        ("10**4299", tag("int", json!(format!("1{}", "0".repeat(4299))))),
        (
            "[1.5, -0.0, 1e16, 1e15, 1e22, 1.5e-5, 0.0001, 0.00012345, 5e-324, 1.7976931348623157e308, 123456.789]",
            json!([1.5, -0.0, 1e16, 1e15, 1e22, 1.5e-5, 0.0001, 0.000_123_45, 5e-324, f64::MAX, 123_456.789]),
        ),
        (
            "[float('nan'), float('inf'), -float('inf')]",
            json!([tag("float", json!("nan")), tag("float", json!("inf")), tag("float", json!("-inf"))]),
        ),
        (
            "'\\x00\\x1f \\x7f\"\\\\/\\b\\f\\n\\r\\tü☃😀\\u2028'",
            json!("\0\u{1f} \u{7f}\"\\/\u{8}\u{c}\n\r\tü☃😀\u{2028}"),
        ),
        ("'a\\ud800b\\udfff\\\\'", tag("surrogate", json!("a\\ud800b\\udfff\\\\"))),
        ("{}", json!({})),
        ("[[], [[]], {'': {'a': []}}]", json!([[], [[]], {"": {"a": []}}])),
        ("{'\\udc00': 1, 'b': 2}", tag("dict", json!([[tag("surrogate", json!("\\udc00")), 1], ["b", 2]]))),
        (
            "{'__type__': 'datetime', '__value__': 'x'}",
            tag("dict", json!([["__type__", "datetime"], ["__value__", "x"]])),
        ),
        ("{'__type__': 'x', '__value__': 1, 'more': 2}", json!({"__type__": "x", "__value__": 1, "more": 2})),
    ]
}

#[test]
fn what_python_dumps_is_read_and_written_alike() {
    let script = "
import sys, json
sys.set_int_max_str_digits(0)
for line in sys.stdin:
    value = eval(json.loads(line))
    print(json.dumps(value))
";
    let input: String = cases().iter().map(|(expression, _)| json!(expression).to_string() + "\n").collect();
    let printed = run(script, &input);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), cases().len());
    for ((expression, expected), line) in cases().iter().zip(lines) {
        assert_eq!(read(line, Dialect::Plain).as_ref(), Ok(expected), "{expression}");
        assert_eq!(dumps(expected, Dialect::Plain), line, "{expression}");
    }
}

#[test]
fn kombus_objects_pass_and_others_cannot_pose_as_tags() {
    let date = json!({"__type__": "datetime", "__value__": "2024-05-06T07:08:09"});
    let text = r#"{"__type__": "datetime", "__value__": "2024-05-06T07:08:09"}"#;
    assert_eq!(read(text, Dialect::Kombu), Ok(date.clone()));
    assert_eq!(dumps(&date, Dialect::Kombu), text);
    assert_eq!(dumps(&date, Dialect::Plain), "\"2024-05-06T07:08:09\"");
    let posing = r#"{"__type__": "exception", "__value__": 1}"#;
    let escaped = tag("dict", json!([["__type__", "exception"], ["__value__", 1]]));
    assert_eq!(read(posing, Dialect::Kombu), Ok(escaped.clone()));
    assert_eq!(dumps(&escaped, Dialect::Kombu), posing);
}

#[test]
fn a_tag_that_json_has_no_word_for_becomes_the_nearest() {
    for (value, text) in [
        (tag("set", json!([1, 2])), "[1, 2]"),
        (tag("timedelta", json!("1.5")), "\"1.5\""),
        (tag("complex", json!([1.0, 2.0])), "[1.0, 2.0]"),
        (tag("uuid", json!({"hex": "ab"})), "\"ab\""),
        (tag("int", json!("1; import os")), "\"1; import os\""),
        (
            tag("dict", json!([[1, 2], [null, 3], [true, 4], [1.5, 5], [[1], 6]])),
            r#"{"1": 2, "null": 3, "true": 4, "1.5": 5, "[1]": 6}"#,
        ),
    ] {
        assert_eq!(dumps(&value, Dialect::Plain), text);
    }
}

#[test]
fn other_text_is_refused_where_it_goes_wrong() {
    let wrong = |text: &str| read(text, Dialect::Plain).expect_err(text).to_string();
    for (text, at) in [
        ("", "a value was expected at byte 0"),
        ("[1,]", "a value was expected at byte 3"),
        ("{1: 2}", "a quoted key was expected at byte 1"),
        ("{\"a\" 2}", "':' was expected at byte 5"),
        ("[1 2]", "',' or ']' was expected at byte 3"),
        ("\"abc", "a closing quote was expected at byte 4"),
        ("\"a\nb\"", "a closing quote was expected at byte 2"),
        ("\"\\x\"", "an escape was expected at byte 1"),
        ("\"\\u12g4\"", "an escape of four hexadecimal digits was expected at byte 1"),
        ("\"\\u1é\"", "an escape of four hexadecimal digits was expected at byte 1"),
        ("01", "a number without leading zeros was expected at byte 1"),
        ("-", "a digit was expected at byte 1"),
        ("1.", "a digit was expected at byte 2"),
        ("1e", "a digit was expected at byte 2"),
        ("nul", "a value was expected at byte 0"),
        ("1 2", "the end was expected at byte 2"),
    ] {
        assert_eq!(wrong(text), format!("it is not JSON: {at}"), "{text}");
    }
    assert_eq!(read(&"9".repeat(4301), Dialect::Plain), Err(ReadError::LongInteger));
    assert_eq!(read("1e999", Dialect::Plain), Ok(tag("float", json!("inf"))), "as Python reads it");
}

#[test]
fn depth_and_numbers_of_values_are_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(read(&nested(100), Dialect::Plain).is_ok());
    assert_eq!(read(&nested(101), Dialect::Plain), Err(Exceeded::Depth(100).into()));
    assert_eq!(read(&"[".repeat(200_000), Dialect::Plain), Err(Exceeded::Depth(100).into()));
    // Each of these becomes a tagged dict, three levels deep.
    let posing = |depth: usize| "{\"__type__\": 1, \"__value__\": ".repeat(depth) + "1" + &"}".repeat(depth);
    assert!(read(&posing(33), Dialect::Plain).is_ok());
    assert_eq!(read(&posing(34), Dialect::Plain), Err(Exceeded::Depth(100).into()));
    let many = format!("[{}1]", "1,".repeat(500_000));
    assert_eq!(read(&many, Dialect::Plain), Err(Exceeded::Nodes(500_000).into()));
}

#[test]
fn every_truncation_and_every_changed_byte_is_survived() {
    let text = r#"{"a": [1, -2.5e3, "x\ud83d\ude00\ud800", NaN, null], "__type__": "date", "__value__": {"b": true}}"#;
    for end in 0..text.len() {
        assert!(read(&text[..end], Dialect::Kombu).is_err(), "cut at {end}");
    }
    for at in 0..text.len() {
        for byte in 0..=255 {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = byte;
            if let Ok(value) = loads(&changed, Dialect::Kombu, &Limits::default()) {
                let again = dumps(&value, Dialect::Kombu);
                assert_eq!(read(&again, Dialect::Kombu), Ok(value), "{again}");
            }
        }
    }
}
