//! Chance for tests, the same at every run: what it finds can be repeated.
//!
//! Hostile arguments are made of it, as many as `JOBSD_HOSTILE` says, or as few as a test run has time for.

use std::ops::Range;

/// Marsaglia's xorshift.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new() -> Self {
        Self(0x5eed_1234_5678_9abc)
    }

    pub(crate) fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 1).expect("64 bits") % sides
    }

    pub(crate) fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A few pieces, one behind the other.
    pub(crate) fn text(&mut self, pieces: &[&str]) -> String {
        (0..=self.below(6)).map(|_| self.one_of(pieces)).collect()
    }
}

/// How many hostile arguments a test tries; `usual` where nobody asked for more.
pub(crate) fn hostile(usual: usize) -> Range<usize> {
    0..std::env::var("JOBSD_HOSTILE").map_or(usual, |text| text.parse().expect("a number"))
}
