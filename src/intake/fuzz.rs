//! Noise for the decoders that read what anybody may put into Redis: whatever comes in, nothing panics, nothing runs, and
//! what is taken stays within the limits.
//!
//! A test run makes some thousands of each; `JOBSD_FUZZ=10000000` as many as one likes, `JOBSD_FUZZ_SEED` other ones.

mod celery;
mod rq;
mod zlib;

use std::time::Instant;

use serde_json::Value;

use super::limits::Limits;

pub(super) use rq::pickles;

/// Small bounds, so that what breaks them is found soon.
fn limits() -> Limits {
    Limits { input: 1 << 16, nodes: 2000, text: 1 << 16, depth: 50 }
}

/// Calls `read`, which makes noise and says whether it could be read; some must be readable, or the noise is too wild to
/// find anything.
fn fuzz(name: &str, usual: u64, mut read: impl FnMut(&mut Random) -> bool) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (long, executions) = (number("JOBSD_FUZZ").is_some(), number("JOBSD_FUZZ").unwrap_or(usual));
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ number("JOBSD_FUZZ_SEED").unwrap_or(0));
    let (begun, before, mut readable) = (Instant::now(), peak(), 0_u64);
    for _ in 0..executions {
        readable += u64::from(read(&mut random));
    }
    let grown = peak().saturating_sub(before);
    println!(
        "{name}: {executions} executions in {:.0?}, {readable} readable, 0 panics; {grown} KiB more than before at most",
        begun.elapsed()
    );
    assert!(readable > executions / 1000, "the noise is too wild: {readable} were readable");
    // Only alone: other tests take memory too.
    assert!(!long || grown < 64 << 10, "it took {grown} KiB");
}

/// The most memory that the process has ever had, in KiB (proc(5), `VmHWM`).
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("it is among them");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
}

/// How many values there are in this one, and how deep they nest.
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

/// A tag adds at most three values to the one that was paid for, and two levels.
fn is_within(value: &Value, limits: &Limits) -> bool {
    let (nodes, height) = measure(value);
    nodes <= 4 * limits.nodes && height <= limits.depth + 2
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

    /// One of the seeds with some mutations, parts of others among them.
    fn noise(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let seed = seeds[self.below(seeds.len())].clone();
        self.noise_in(seed, seeds)
    }

    fn noise_in(&mut self, mut bytes: Vec<u8>, seeds: &[Vec<u8>]) -> Vec<u8> {
        for _ in 0..=self.below(6) {
            self.mutate(&mut bytes, seeds);
        }
        bytes
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
