//! Against a real Python: what it writes at every protocol is read, what is written here it reads back.

use serde_json::{Value, json};

use super::{DecodeError, decode, dumps_call, encode};
use crate::intake::limits::Limits;
use crate::intake::python::{hex, run, unhex};

const IMPORTS: &str = "\
import sys, json, pickle, datetime, zoneinfo, http, pathlib
from decimal import Decimal
from uuid import UUID
from collections import OrderedDict, defaultdict, Counter, deque
from datetime import timedelta, timezone
";

/// A Python expression, the value it arrives as, and what Python has when that value is sent back ("" for the same).
fn cases() -> Vec<(&'static str, Value, &'static str)> {
    let tag = |name: &str, value: Value| json!({"__type__": name, "__value__": value});
    vec![
        ("None", json!(null), ""),
        ("[True, False]", json!([true, false]), ""),
        (
            "[0, 1, -1, 255, 256, 65535, 65536, 2**31-1, -2**31, 2**31, 2**63-1, -2**63, 2**64-1]",
            json!([
                0,
                1,
                -1,
                255,
                256,
                65535,
                65536,
                i32::MAX,
                i32::MIN,
                2_147_483_648_i64,
                i64::MAX,
                i64::MIN,
                u64::MAX
            ]),
            "",
        ),
        ("2**64", tag("int", json!("18446744073709551616")), ""),
        ("-2**100", tag("int", json!("-1267650600228229401496703205376")), ""),
        ("3**2000", tag("int", json!(three_to_the_2000())), ""),
        ("[1.5, -0.0, 1e308, 5e-324, 0.1]", json!([1.5, -0.0, 1e308, 5e-324, 0.1]), ""),
        ("float('nan')", tag("float", json!("nan")), ""),
        ("[float('inf'), -float('inf')]", json!([tag("float", json!("inf")), tag("float", json!("-inf"))]), ""),
        ("'ün😀\\x00\\n\\\\u0041'", json!("ün😀\0\n\\u0041"), ""),
        ("'a\\ud800\\\\'", tag("surrogate", json!("a\\ud800\\\\")), ""),
        ("'x' * 70000", json!("x".repeat(70000)), ""),
        ("b''", tag("base64", json!("")), ""),
        ("b'\\x00\\xff'", tag("base64", json!("AP8=")), ""),
        ("bytes(range(256)) * 2", tag("base64", json!(all_bytes_twice())), ""),
        ("bytearray(b'ab')", tag("bytearray", json!("YWI=")), ""),
        ("bytearray()", tag("bytearray", json!("")), ""),
        ("()", json!([]), "[]"),
        ("(1, (2, 3), (4, 5, 6, 7))", json!([1, [2, 3], [4, 5, 6, 7]]), "[1, [2, 3], [4, 5, 6, 7]]"),
        ("{'a': [{'b': {}}], '': None}", json!({"a": [{"b": {}}], "": null}), ""),
        ("list(range(2500))", json!((0..2500).collect::<Vec<_>>()), ""),
        ("{1: 'a', (2, 3): [4], None: 5}", tag("dict", json!([[1, "a"], [[2, 3], [4]], [null, 5]])), ""),
        ("{'\\udc80': 1}", tag("dict", json!([[tag("surrogate", json!("\\udc80")), 1]])), ""),
        ("{'__type__': 'int', '__value__': '5'}", tag("dict", json!([["__type__", "int"], ["__value__", "5"]])), ""),
        ("{7}", tag("set", json!([7])), ""),
        ("set()", tag("set", json!([])), ""),
        ("{(1, frozenset([2]))}", tag("set", json!([[1, tag("frozenset", json!([2]))]])), ""),
        ("frozenset()", tag("frozenset", json!([])), ""),
        ("1+2j", tag("complex", json!([1.0, 2.0])), ""),
        ("range(0, 9, 2)", tag("range", json!([0, 9, 2])), ""),
        ("slice(1, None)", tag("slice", json!([1, null, null])), ""),
        ("Decimal('1.10')", tag("decimal", json!("1.10")), ""),
        ("Decimal('-Infinity')", tag("decimal", json!("-Infinity")), ""),
        (
            "UUID('12345678-1234-5678-1234-567812345678')",
            tag("uuid", json!({"hex": "12345678123456781234567812345678"})),
            "",
        ),
        ("UUID(int=5)", tag("uuid", json!({"hex": "00000000000000000000000000000005"})), ""),
        ("datetime.datetime(2024, 5, 6, 7, 8, 9, 123456)", tag("datetime", json!("2024-05-06T07:08:09.123456")), ""),
        ("datetime.datetime(2024, 5, 6, tzinfo=timezone.utc)", tag("datetime", json!("2024-05-06T00:00:00+00:00")), ""),
        (
            "datetime.datetime(2024, 5, 6, tzinfo=timezone(timedelta(hours=-5, seconds=1), 'X'))",
            tag("datetime", json!("2024-05-06T00:00:00-04:59:59")),
            "datetime.datetime(2024, 5, 6, tzinfo=timezone(timedelta(hours=-5, seconds=1)))",
        ),
        (
            "datetime.datetime(2024, 7, 6, tzinfo=zoneinfo.ZoneInfo('America/Nassau'))",
            tag("datetime", json!("2024-07-06T00:00:00-04:00")),
            "datetime.datetime(2024, 7, 6, tzinfo=timezone(timedelta(hours=-4)))",
        ),
        ("datetime.datetime.min", tag("datetime", json!("0001-01-01T00:00:00")), ""),
        ("datetime.datetime.max", tag("datetime", json!("9999-12-31T23:59:59.999999")), ""),
        ("datetime.date(2024, 2, 29)", tag("date", json!("2024-02-29")), ""),
        ("datetime.time(1, 2, 3)", tag("time", json!("01:02:03")), ""),
        ("datetime.time(1, 2, 3, 4, timezone.utc)", tag("time", json!("01:02:03.000004+00:00")), ""),
        ("timedelta(days=1, seconds=2, microseconds=3)", tag("timedelta", json!("86402.000003")), ""),
        ("timedelta(microseconds=-1)", tag("timedelta", json!("-0.000001")), ""),
        ("timedelta(days=100)", tag("timedelta", json!("8640000")), ""),
        ("timedelta()", tag("timedelta", json!("0")), ""),
        ("timedelta.max", tag("timedelta", json!("86399999999999.999999")), ""),
        ("timedelta.min", tag("timedelta", json!("-86399999913600")), ""),
        ("ValueError('x', 1)", tag("exception", json!({"class": "ValueError", "args": ["x", 1]})), ""),
        (
            "UnicodeDecodeError('utf8', b'x', 0, 1, 'bad')",
            tag(
                "exception",
                json!({"class": "UnicodeDecodeError", "args": ["utf8", tag("base64", json!("eA==")), 0, 1, "bad"]}),
            ),
            "",
        ),
        ("OrderedDict([('b', 1), ('a', 2)])", json!({"b": 1, "a": 2}), "{'b': 1, 'a': 2}"),
        ("defaultdict(list, {'a': [1]})", json!({"a": [1]}), "{'a': [1]}"),
        ("Counter('aab')", json!({"a": 2, "b": 1}), "{'a': 2, 'b': 1}"),
        ("deque([1, 2], 5)", json!([1, 2]), "[1, 2]"),
        ("pathlib.PurePosixPath('/a/b')", json!("/a/b"), "'/a/b'"),
        ("pathlib.PurePosixPath('a/b')", json!("a/b"), "'a/b'"),
        ("http.HTTPStatus(404)", json!(404), "404"),
        ("(lambda x: [x, x, {'k': x}])([1])", json!([[1], [1], {"k": [1]}]), ""),
    ]
}

fn three_to_the_2000() -> String {
    run("print(3**2000)", "").trim().to_owned()
}

fn all_bytes_twice() -> String {
    use base64::Engine as _;
    let bytes: Vec<u8> = (0..=255).chain(0..=255).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn what_python_pickles_is_read_at_every_protocol() {
    let script = format!(
        "{IMPORTS}
for line in sys.stdin:
    value = eval(json.loads(line))
    print(*[pickle.dumps(value, protocol).hex() for protocol in range(6)])
"
    );
    let input: String = cases().iter().map(|(expression, ..)| json!(expression).to_string() + "\n").collect();
    let printed = run(&script, &input);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), cases().len());
    for ((expression, expected, _), line) in cases().iter().zip(lines) {
        let pickles: Vec<&str> = line.split(' ').collect();
        assert_eq!(pickles.len(), 6);
        for (protocol, pickle) in pickles.iter().enumerate() {
            let value = decode(&unhex(pickle), &Limits::default());
            assert_eq!(value.as_ref(), Ok(expected), "{expression} at protocol {protocol}");
        }
    }
}

#[test]
fn python_reads_back_what_is_encoded() {
    // repr tells types, signs of zero and nan apart, where == does not.
    let script = format!(
        "{IMPORTS}
for line in sys.stdin:
    expression, pickled = json.loads(line)
    wanted, got = eval(expression), pickle.loads(bytes.fromhex(pickled))
    if type(wanted) is not type(got) or repr(wanted) != repr(got):
        print(f'{{expression}}: {{got!r}}')
"
    );
    let back = |expression: &'static str, back: &'static str| {
        if back.is_empty() { expression } else { back }
    };
    let line = |(expression, value, other): &(&'static str, Value, &'static str)| {
        json!([back(expression, other), hex(&encode(value))]).to_string() + "\n"
    };
    let input: String = cases().iter().map(line).collect();
    assert_eq!(run(&script, &input), "");
}

#[test]
fn what_is_encoded_is_read_here_too() {
    for (expression, value, _) in cases() {
        assert_eq!(decode(&encode(&value), &Limits::default()), Ok(value), "{expression}");
    }
}

#[test]
fn a_tag_that_does_not_fit_is_pickled_as_the_object_it_is() {
    let plain = |tag: &str, held: Value| json!({"__type__": tag, "__value__": held});
    for value in [
        plain("datetime", json!("tomorrow")),
        plain("uuid", json!(5)),
        plain("exception", json!({"class": "os.system", "args": ["id"]})),
        plain("exception", json!({"class": "eval", "args": ["id"]})),
        plain("dict", json!([[1, 2], [3]])),
        plain("range", json!([1, 2])),
        plain("base64", json!("!")),
        plain("int", json!("12x")),
        plain("no such tag", json!(1)),
    ] {
        let read = "import sys, json, pickle; print(json.dumps(pickle.loads(bytes.fromhex(sys.stdin.read()))))";
        let got: Value = serde_json::from_str(&run(read, &hex(&encode(&value)))).expect("JSON");
        assert_eq!(got, value);
    }
}

#[test]
fn a_producers_pickle_is_cpythons_byte_for_byte() {
    let long =
        |prefix: &str, count: usize| (0..count).map(|index| json!(format!("{prefix}{index:05}"))).collect::<Vec<_>>();
    let many: serde_json::Map<String, Value> = (0..2001).map(|index| (format!("key{index}"), json!(index))).collect();
    let calls: Vec<(Vec<Value>, Value)> = vec![
        (vec![], json!({})),
        (vec![json!(1), json!("two")], json!({"three": 3})),
        (
            vec![json!(1), json!(2), json!(3), json!(4)],
            json!({"alpha": [], "beta": {}, "gamma": [1], "delta": {"eps": null}}),
        ),
        (
            vec![json!([0, 255, 256, 65535, 65536, -1, i32::MIN, i64::MAX, i64::MIN, u64::MAX, 1.5, true, false])],
            json!({}),
        ),
        (vec![json!("é".repeat(200)), json!("y".repeat(65535))], json!({})),
        (vec![json!("z".repeat(65536)), json!("after"), json!("w".repeat(300_000))], json!({"key": "v".repeat(255)})),
        (vec![json!(long("item", 1000)), json!(long("more", 1001)), json!(long("most", 20_000))], json!({})),
        (vec![], Value::Object(many)),
    ];
    let script = "
import sys, json, pickle
for line in sys.stdin:
    args, kwargs, ours = json.loads(line)
    theirs = pickle.dumps(('module.function', None, tuple(args), kwargs), 5)
    if theirs.hex() != ours:
        at = next(i for i, (a, b) in enumerate(zip(theirs, bytes.fromhex(ours))) if a != b)
        print(f'{str(args)[:40]} {str(kwargs)[:40]} differ at {at}: {theirs[at - 8:at + 12]} {bytes.fromhex(ours)[at - 8:at + 12]}')
";
    let line = |(args, kwargs): &(Vec<Value>, Value)| {
        let map = kwargs.as_object().expect("an object");
        json!([args, kwargs, hex(&dumps_call("module.function", args, map))]).to_string() + "\n"
    };
    assert_eq!(run(script, &calls.iter().map(line).collect::<String>()), "");
}

#[test]
fn a_time_skipped_or_repeated_has_pythons_offset() {
    let script = format!(
        "{IMPORTS}
nassau = zoneinfo.ZoneInfo('America/Nassau')
for day, hour in ((10, 2), (11, 2)):
    for fold in (0, 1):
        month, day = (3, 10) if day == 10 else (11, 3)
        moment = datetime.datetime(2024, month, day, 1 if month == 11 else hour, 30, tzinfo=nassau, fold=fold)
        print(moment.isoformat(), pickle.dumps(moment, 5).hex())
"
    );
    let printed = run(&script, "");
    assert_eq!(printed.lines().count(), 4);
    for line in printed.lines() {
        let (text, pickle) = line.split_once(' ').expect("two columns");
        let expected = json!({"__type__": "datetime", "__value__": text});
        assert_eq!(decode(&unhex(pickle), &Limits::default()), Ok(expected));
    }
}

#[test]
fn an_object_of_the_producers_own_is_named() {
    let script = "
import sys, pickle, types
module = types.ModuleType('shop.models')
class Order: pass
Order.__module__, Order.__qualname__ = 'shop.models', 'Order'
module.Order = Order
sys.modules['shop'], sys.modules['shop.models'] = types.ModuleType('shop'), module
for protocol in range(6):
    print(pickle.dumps([1, {'order': Order()}], protocol).hex())
";
    for pickle in run(script, "").lines() {
        let error = decode(&unhex(pickle), &Limits::default()).expect_err("it is refused");
        assert_eq!(error, DecodeError::ForeignClass("shop.models.Order".to_owned()));
        assert_eq!(
            error.to_string(),
            "it holds an object of class shop.models.Order, which cannot be run outside Python; pass plain data instead"
        );
    }
}
