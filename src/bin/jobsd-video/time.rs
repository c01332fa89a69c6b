//! Puts the times of one stream on the clock of the outputs, which starts where the container starts and never stands still.

use std::time::Duration;

use ffmpeg_next::{Rational, Rescale};

/// The unit of containers.
pub(crate) const MICROSECONDS: Rational = Rational(1, 1_000_000);

/// The clock of one stream, in the units of that stream.
#[derive(Debug)]
pub(crate) struct Clock {
    pub(crate) unit: Rational,
    start: i64,
    last: Option<i64>,
    /// Where the last piece ends.
    end: i64,
}

impl Clock {
    /// `container_start` in microseconds.
    pub(crate) fn new(unit: Rational, container_start: i64) -> Self {
        Self { unit, start: container_start.rescale(MICROSECONDS, unit), last: None, end: 0 }
    }

    /// The time of the next piece of the stream, invented as the end of the one before where it has none.
    pub(crate) fn place(&mut self, time: Option<i64>, duration: i64) -> i64 {
        let placed = time.map_or(self.end, |time| time.saturating_sub(self.start));
        self.end = self.end.max(placed.saturating_add(duration.max(0)));
        placed
    }

    /// Like `place`, but `None` for a piece that is not later than the one before: encoders and muxers refuse such.
    pub(crate) fn place_growing(&mut self, time: Option<i64>, duration: i64) -> Option<i64> {
        let placed = self.place(time, duration);
        if self.last.is_some_and(|last| placed <= last) {
            return None;
        }
        self.last = Some(placed);
        Some(placed)
    }

    /// How far the stream has come.
    pub(crate) fn reached(&self) -> Duration {
        duration(self.end, self.unit)
    }
}

/// A span of `value` units; what lies before zero counts as zero.
pub(crate) fn duration(value: i64, unit: Rational) -> Duration {
    Duration::from_micros(u64::try_from(value.rescale(unit, MICROSECONDS)).unwrap_or(0))
}

/// The opposite: a span in units.
pub(crate) fn units(span: Duration, unit: Rational) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX).rescale(MICROSECONDS, unit)
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock::new(Rational(1, 1000), 1_400_000)
    }

    #[test]
    fn starts_where_the_container_starts() {
        assert_eq!(clock().place(Some(1400), 40), 0);
    }

    #[test]
    fn a_piece_without_a_time_follows_the_one_before() {
        let mut clock = clock();
        assert_eq!(clock.place_growing(Some(1400), 40), Some(0));
        assert_eq!(clock.place_growing(None, 40), Some(40));
        assert_eq!(clock.reached(), Duration::from_millis(80));
    }

    #[test]
    fn a_piece_that_is_not_later_is_left_out() {
        let mut clock = clock();
        assert_eq!(clock.place_growing(Some(1500), 40), Some(100));
        assert_eq!(clock.place_growing(Some(1500), 40), None);
        assert_eq!(clock.place_growing(Some(1450), 40), None);
        assert_eq!(clock.place_growing(Some(1540), 40), Some(140));
    }
}
