//! How much later than usual claims come. Windows of limits are reckoned by the time that a claim was sent with: what starts
//! much later than that may start too soon before what comes next. What is a claim's usual way does no harm, because the
//! others have it too.

use std::time::Duration;

/// The usual way may have become longer: what is usual grows by a part of itself, and by this at least, with every claim.
const GROWTH: (u32, Duration) = (8, Duration::from_millis(1));

/// Learns how long claims of a queue usually take.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    usual: Option<Duration>,
}

impl Lateness {
    /// How much longer than usual this one took.
    pub(super) fn of(&mut self, took: Duration) -> Duration {
        let (part, least) = GROWTH;
        let usual = self.usual.map_or(took, |usual| took.min(usual + (usual / part).max(least)));
        self.usual = Some(usual);
        took - usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn what_takes_longer_than_before_is_late_until_it_is_usual() {
        let mut lateness = Lateness::default();
        assert_eq!(lateness.of(ms(150)), ms(0), "of the first one nothing is known");
        assert_eq!(lateness.of(ms(1)), ms(0));
        assert_eq!(lateness.of(ms(301)), ms(299));
        assert_eq!(lateness.of(ms(1)), ms(0));
        let late = (0..100).take_while(|_| lateness.of(ms(150)) > ms(50)).count();
        assert!((10..60).contains(&late), "{late} times");
    }
}
