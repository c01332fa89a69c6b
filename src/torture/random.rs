//! Numbers that look random and are the same for the same seed: a plan of faults can be run again.

use std::ops::Range;
use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One of its own for each `number`, whatever was drawn before.
    pub(super) fn of(seed: u64, number: u64) -> Self {
        Self(Self(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95)).next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A place in a list of this length, which is not empty.
    pub(super) fn below(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).expect("a list's length is a number of 64 bits");
        usize::try_from(self.next() % length).expect("it is below a list's length")
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub(super) fn span(&mut self, range: Range<Duration>) -> Duration {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let (start, end) = (micros(range.start), micros(range.end));
        Duration::from_micros(start + self.next() % (end - start).max(1))
    }

    /// Brings the list into a random order.
    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let draw = |seed| -> Vec<u64> {
            std::iter::repeat_with({
                let mut r = Random::new(seed);
                move || r.next()
            })
            .take(5)
            .collect()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let mut order: Vec<u32> = (0..50).collect();
        Random::new(7).shuffle(&mut order);
        assert_ne!(order, (0..50).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..50).collect::<Vec<_>>(), "nothing is lost in a shuffle");
    }

    #[test]
    fn spans_stay_in_their_range() {
        let mut random = Random::new(3);
        let range = Duration::from_millis(5)..Duration::from_millis(9);
        assert!((0..1000).all(|_| range.contains(&random.span(range.clone()))));
    }
}
