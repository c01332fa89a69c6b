//! What each job is: drawn from the seed and its number alone, so that everybody who needs to know can work it out.

use std::time::Duration;

use super::random::Random;

/// A job's number; its id is made from it.
pub(super) type Number = u32;

/// How jobs are drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) seed: u64,
    pub(super) work: Duration,
    pub(super) lease: Duration,
}

/// One job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    /// How long an attempt takes.
    pub(super) takes: Duration,
    /// How long it waits until it is due.
    pub(super) delay: Duration,
    /// How many attempts fail before one succeeds.
    pub(super) failures: u32,
}

impl Load {
    pub(super) fn of(&self, number: Number) -> Work {
        let mut random = Random::of(self.seed, u64::from(number) << 1 | 1);
        // A length past the lease must not matter to anybody.
        let takes = if random.chance(2) { self.lease * 3 / 2 } else { random.span(self.work / 10..self.work * 2) };
        let ms = Duration::from_millis;
        let delay = if random.chance(15) { random.span(ms(200)..ms(2000)) } else { Duration::ZERO };
        Work { takes, delay, failures: u32::from(random.chance(5)) }
    }
}

pub(super) fn id(number: Number) -> String {
    format!("t{number}")
}

pub(super) fn number(id: &str) -> Option<Number> {
    id.strip_prefix('t')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_a_mix_and_always_the_same() {
        let load = Load { seed: 1, work: Duration::from_millis(40), lease: Duration::from_secs(3) };
        let works: Vec<Work> = (0..5000).map(|number| load.of(number)).collect();
        let share = |which: fn(&Work) -> bool| works.iter().filter(|work| which(work)).count();
        assert!((50..200).contains(&share(|work| work.takes > Duration::from_secs(3))));
        assert!((500..1000).contains(&share(|work| !work.delay.is_zero())));
        assert!((150..350).contains(&share(|work| work.failures > 0)));
        assert_eq!(works[17], load.of(17));
        assert_eq!(number(&id(17)), Some(17));
    }
}
