//! Pickles that mean harm, and noise. None may run anything, panic, or take more than the limits allow.

use serde_json::{Value, json};

use super::{DecodeError, decode};
use crate::intake::fuzz::pickles as seeds;
use crate::intake::limits::{Exceeded, Limits};
use crate::intake::python::{run, unhex};

fn refused(pickle: &[u8]) -> DecodeError {
    decode(pickle, &Limits::default()).expect_err("it is refused")
}

fn small() -> Limits {
    Limits { input: 1 << 16, nodes: 2000, text: 1 << 16, depth: 50 }
}

#[test]
fn calls_are_refused_by_name() {
    let cases: [(&[u8], &str); 8] = [
        (b"cos\nsystem\n(S'id'\ntR.", "os.system"),
        (b"cposix\nsystem\n(Vid\ntR.", "posix.system"),
        (b"cbuiltins\neval\n(V1+1\ntR.", "builtins.eval"),
        (b"c__builtin__\nexec\n(V1\ntR.", "__builtin__.exec"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.", "os.system"),
        (b"\x80\x04(\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85Rl.", "builtins.eval"),
        (b"\x80\x04\x8c\x0asubprocess\x8c\x05Popen\x93)\x81.", "subprocess.Popen"),
        (b"\x80\x04\x8c\x08builtins\x8c\x0cgetattr.evil\x93.", "builtins.getattr.evil"),
    ];
    for (pickle, class) in cases {
        assert_eq!(refused(pickle), DecodeError::ForeignClass(class.to_owned()));
    }
}

#[test]
fn getattr_reaches_nothing() {
    for pickle in [
        &b"cbuiltins\ngetattr\n(czoneinfo\nZoneInfo\nVno_cache\ntR."[..],
        b"cbuiltins\ngetattr\n(cdatetime\ndatetime\nV_unpickle\ntR.",
        b"cbuiltins\ngetattr\n(cbuiltins\ngetattr\nV__self__\ntR.",
    ] {
        assert_eq!(refused(pickle), DecodeError::Arguments { class: "getattr" });
    }
}

#[test]
fn lengths_that_lie_take_no_memory() {
    for pickle in [
        &b"X\xff\xff\xff\xffabc"[..],
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7fabc",
        b"B\xff\xff\xff\x7fabc",
        b"\x8b\xff\xff\xff\x7fabc",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xffN.",
        b"\x8c\xffabc",
        b"Vabc",
    ] {
        assert!(matches!(refused(pickle), DecodeError::Malformed { what: "it is cut off", .. }), "{pickle:?}");
    }
}

#[test]
fn deep_nesting_is_refused_and_dropped() {
    let depth = 200_000;
    for (open, close) in [(&b"]"[..], &b"a"[..]), (b"(", b"t"), (b"}K\x01", b"s"), (b"", b"\x85")] {
        let pickle = [open.repeat(depth), b"N".to_vec(), close.repeat(depth), b".".to_vec()].concat();
        assert_eq!(refused(&pickle), DecodeError::Exceeded(Exceeded::Depth(100)));
    }
    let lists = |depth| [b"]".repeat(depth), b"a".repeat(depth - 1), b".".to_vec()].concat();
    assert!(decode(&lists(100), &Limits::default()).is_ok());
    assert!(decode(&lists(101), &Limits::default()).is_err());
}

#[test]
fn what_is_read_can_be_stored_and_read_again() {
    // Tagged dicts nest three levels each, sets two.
    for layer in [&b"}K\x01"[..], b"}V__type__\n", b"\x8f("] {
        let close: &[u8] = if layer[0] == b'}' { b"s" } else { b"\x90" };
        let deepest = (1..=100).rev().find_map(|depth| {
            let pickle = [layer.repeat(depth), b"N".to_vec(), close.repeat(depth), b".".to_vec()].concat();
            decode(&pickle, &Limits::default()).ok()
        });
        let text = json!({"record": {"args": [deepest.expect("one level fits")]}}).to_string();
        serde_json::from_str::<Value>(&text).expect("the store reads it back");
    }
}

#[test]
fn shared_values_are_counted_each_time() {
    // Forty lists, each holding the one before it ten times.
    let mut laughs = b"(Vlol\nl\x94".to_vec();
    for index in 0..40 {
        laughs.extend(b"](");
        laughs.extend([b'h', index].repeat(10));
        laughs.extend(b"e\x94");
    }
    laughs.push(b'.');
    assert!(laughs.len() < 1200);
    assert_eq!(refused(&laughs), DecodeError::Exceeded(Exceeded::Nodes(500_000)));
    // One long string, a hundred thousand times.
    let text =
        [b"X\0\0\x10\0".to_vec(), b"x".repeat(1 << 20), b"\x94]("[..].to_vec(), b"h\0".repeat(100_000), b"e.".to_vec()];
    assert_eq!(refused(&text.concat()), DecodeError::Exceeded(Exceeded::Text(32 << 20)));
}

#[test]
fn floods_are_refused() {
    let flood = |unit: &[u8]| decode(&unit.repeat(60_000 / unit.len()), &small()).expect_err("it is refused");
    for unit in [&b"N"[..], b"(", b"]", b"}\x94", b"K\x01\x85", b"Np99\n"] {
        assert!(matches!(flood(unit), DecodeError::Exceeded(Exceeded::Nodes(_))), "{unit:?}");
    }
    // References cost no node, so the stack has a bound of its own.
    let references = [b"N\x94".to_vec(), b"h\0".repeat(30_000)].concat();
    assert!(matches!(decode(&references, &small()), Err(DecodeError::Exceeded(Exceeded::Nodes(_)))));
    // Neither does putting one value into many places of the memo.
    let memo: Vec<u8> = (0..9000_u32).flat_map(|index| [&b"r"[..], &index.to_le_bytes()].concat()).collect();
    let memo = [b"N".to_vec(), memo].concat();
    assert!(matches!(decode(&memo, &small()), Err(DecodeError::Exceeded(Exceeded::Nodes(_)))));
    assert_eq!(refused(&vec![b'N'; (16 << 20) + 1]), DecodeError::Exceeded(Exceeded::Input(16 << 20)));
    assert_eq!(refused(&[&b"L"[..], &b"9".repeat(5000), b"L\n."].concat()), DecodeError::LongInteger);
    assert_eq!(refused(&[&b"\x8b\x00\x10\x00\x00"[..], &[1; 4096], b"."].concat()), DecodeError::LongInteger);
}

#[test]
fn cycles_are_told() {
    let script = "
import pickle
a = []; a.append(a)
d = {}; d['self'] = [d]
t = ([],); t[0].append(t)
for value in (a, d, t):
    for protocol in range(6):
        print(pickle.dumps(value, protocol).hex())
";
    let printed = run(script, "");
    assert_eq!(printed.lines().count(), 18);
    for line in printed.lines() {
        assert_eq!(refused(&unhex(line)), DecodeError::Recursive);
    }
}

#[test]
fn other_opcodes_are_named() {
    let what = |pickle: &[u8]| refused(pickle).to_string();
    assert_eq!(
        what(b"Pid\n."),
        "it uses a persistent reference (opcode 0x50 at byte 0), which plain data does not need"
    );
    assert_eq!(
        what(b"\x80\x02U\x01a."),
        "it uses a string of Python 2 (opcode 0x55 at byte 2), which plain data does not need"
    );
    assert_eq!(what(b"\x80\x09N."), "it uses pickle protocol 9; protocols 0 to 5 are known");
    assert_eq!(what(b"\xff"), "it is not a pickle: an unknown opcode at byte 0");
    assert_eq!(what(b"a."), "it is not a pickle: the stack is empty at byte 1");
}

#[test]
fn every_truncation_is_refused() {
    for pickle in seeds() {
        for end in 0..pickle.len() {
            assert!(decode(&pickle[..end], &Limits::default()).is_err(), "{pickle:?} cut at {end}");
        }
    }
}
