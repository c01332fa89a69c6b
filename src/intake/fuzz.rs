//! Noise for the decoders that read what anybody may put into Redis: whatever comes in, nothing panics, nothing runs, and
//! what is taken stays within the limits.
//!
//! A test run makes some thousands of each; `JOBSD_FUZZ=10000000` as many as one likes, `JOBSD_FUZZ_SEED` other ones.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::Value;

use super::inflate::deflate;
use super::limits::Limits;
use super::pickle::{decode, encode};
use super::python::{run, unhex};
use super::rq::job::RqJob;

/// Small bounds, so that what breaks them is found soon.
fn limits() -> Limits {
    Limits { input: 1 << 16, nodes: 2000, text: 1 << 16, depth: 50 }
}

/// Gives `read` mutations of the seeds. It says whether it could read what it got; some must be readable, or the
/// mutations are too wild to find anything.
fn fuzz(name: &str, usual: u64, seeds: &[Vec<u8>], mut read: impl FnMut(&[u8]) -> bool) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (long, executions) = (number("JOBSD_FUZZ").is_some(), number("JOBSD_FUZZ").unwrap_or(usual));
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ number("JOBSD_FUZZ_SEED").unwrap_or(0));
    let (begun, before, mut readable) = (Instant::now(), peak(), 0_u64);
    for _ in 0..executions {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(6) {
            random.mutate(&mut bytes, seeds);
        }
        readable += u64::from(read(&bytes));
    }
    let grown = peak().saturating_sub(before);
    println!(
        "{name}: {executions} executions in {:.0?}, {readable} readable, 0 panics; {grown} KiB more than before at most",
        begun.elapsed()
    );
    assert!(readable > executions / 1000, "the mutations are too wild: {readable} were readable");
    // Only alone: other tests take memory too.
    assert!(!long || grown < 64 << 10, "it took {grown} KiB");
}

/// The most memory that the process has ever had, in KiB (proc(5), `VmHWM`).
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("it is among them");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
}

#[test]
fn noise_in_pickles_stays_within_the_limits() {
    let limits = limits();
    fuzz("pickle", 200_000, &pickles(), |pickle| {
        let Ok(value) = decode(pickle, &limits) else { return false };
        let (nodes, height) = measure(&value);
        // A tag adds at most three nodes to the one that was paid for, and two levels.
        assert!(nodes <= 4 * limits.nodes && height <= limits.depth + 2, "{pickle:?}");
        encode(&value);
        true
    });
}

/// The mutations are made of the payload, which is then deflated; and of the zlib stream itself.
#[test]
fn noise_in_the_jobs_of_rq_stays_within_the_limits() {
    let limits = limits();
    let json: [&[u8]; 2] =
        [b"[\"app.f\", null, [1, \"\\u00fc\", [2.5, null]], {\"k\": [true]}]", b"[\"f\", null, [], {}]"];
    let mut seeds: Vec<Vec<u8>> = pickles().into_iter().chain(json.map(<[u8]>::to_vec)).collect();
    seeds.extend(seeds.clone().iter().map(|payload| deflate(payload)));
    let mut nth = 0_u64;
    fuzz("RQ job", 100_000, &seeds, |payload| {
        nth += 1;
        let data = if nth.is_multiple_of(2) { deflate(payload) } else { payload.to_vec() };
        let hash = HashMap::from([("data".to_owned(), data), ("timeout".to_owned(), b"180".to_vec())]);
        RqJob::decode("id", &hash, &limits).is_ok()
    });
}

/// Small pickles that use every opcode the decoder knows.
pub(super) fn pickles() -> Vec<Vec<u8>> {
    let script = "
import pickle, datetime, uuid, decimal, collections, zoneinfo
shared = ['s']
values = [
    ('m.f', None, (1, 'two', 3.0, None, True), {'a': [shared, shared], 'b': {'c': b'd', 'e': 2**70}}),
    [datetime.datetime(2024, 5, 6, tzinfo=zoneinfo.ZoneInfo('America/Nassau')), datetime.timedelta(1), uuid.UUID(int=7)],
    [{1, 2}, frozenset([3]), bytearray(b'x'), decimal.Decimal('1.1'), collections.OrderedDict(a=1), 1j, range(3), ValueError(1)],
    {1: (), 'k': (1, 2), None: [-1, 300, 70000, 'u\\u1234', '\\ud800']},
]
for value in values:
    for protocol in range(6):
        print(pickle.dumps(value, protocol).hex())
";
    run(script, "").lines().map(unhex).collect()
}

fn measure(value: &Value) -> (usize, usize) {
    let children: Vec<(usize, usize)> = match value {
        Value::Array(items) => items.iter().map(measure).collect(),
        Value::Object(map) => map.values().map(measure).collect(),
        _ => Vec::new(),
    };
    let nodes = children.iter().map(|(nodes, _)| nodes).sum::<usize>();
    let height = children.iter().map(|(_, height)| *height).max().unwrap_or(0);
    (nodes + 1, height + 1)
}

/// xorshift64*: the same noise in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(bytes.len() + 1);
        let byte = self.next() as u8;
        match self.below(6) {
            0 => bytes.insert(at, byte),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            // Parts of another one.
            5 => {
                let other = &seeds[self.below(seeds.len())];
                let from = self.below(other.len() + 1);
                let run: Vec<u8> = other[from..].iter().copied().take(1 + self.below(40)).collect();
                bytes.splice(at..at, run);
            }
            2 => bytes.truncate(at.max(1)),
            3 => {
                let run: Vec<u8> = bytes[at..].iter().copied().take(8).collect();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, run);
            }
            _ if at < bytes.len() => bytes[at] = byte,
            _ => bytes.push(byte),
        }
        if bytes.is_empty() {
            bytes.push(byte);
        }
    }
}
