//! What can be done to nodes and to Redis, and when: the plan, made from the seed before anything starts.

use std::time::Duration;

use serde::Serialize;

use super::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fault {
    Kill,
    Stop,
    Term,
    Reset,
    Blackhole,
    RedisKill,
    RedisRestart,
    ScriptFlush,
}

/// One fault of the plan. Everything about it that is left to chance is drawn from `random`.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) at: Duration,
    pub(super) fault: Fault,
    pub(super) random: Random,
}

impl Fault {
    /// How many a run of half a minute makes when the user says nothing.
    pub(super) fn usual(self) -> u32 {
        match self {
            Self::Kill => 10,
            Self::Stop | Self::Blackhole => 2,
            Self::Term | Self::RedisKill | Self::ScriptFlush => 3,
            Self::Reset => 10,
            Self::RedisRestart => 1,
        }
    }

    /// In the words of the report.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL of a node",
            Self::Stop => "SIGSTOP past the lease",
            Self::Term => "SIGTERM of a node",
            Self::Reset => "reset of connections",
            Self::Blackhole => "connection gone dead",
            Self::RedisKill => "kill -9 of Redis",
            Self::RedisRestart => "restart of Redis",
            Self::ScriptFlush => "SCRIPT FLUSH",
        }
    }
}

/// The faults in the order of their times, spread over `span` but for its first and last twentieth.
pub(super) fn plan(faults: &[(Fault, u32)], span: Duration, seed: u64) -> Vec<Planned> {
    let mut random = Random::new(seed);
    let mut kinds: Vec<Fault> = faults.iter().flat_map(|&(fault, count)| (0..count).map(move |_| fault)).collect();
    random.shuffle(&mut kinds);
    let mut times: Vec<Duration> = kinds.iter().map(|_| random.span(span / 20..span - span / 20)).collect();
    times.sort_unstable();
    let planned = kinds.into_iter().zip(times).zip(0..);
    planned.map(|((fault, at), number)| Planned { at, fault, random: Random::of(seed, number) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_holds_what_was_asked_for_and_can_be_made_again() {
        let faults = [(Fault::Kill, 20), (Fault::Reset, 5), (Fault::Stop, 0)];
        let make = |seed| plan(&faults, Duration::from_secs(60), seed);
        let first = make(1);
        let count = |fault| first.iter().filter(|planned| planned.fault == fault).count();
        assert_eq!((count(Fault::Kill), count(Fault::Reset), count(Fault::Stop)), (20, 5, 0));
        assert!(first.is_sorted_by_key(|planned| planned.at));
        assert!(first.iter().all(|planned| (3..57).contains(&planned.at.as_secs())));
        let times = |plan: &[Planned]| plan.iter().map(|planned| (planned.at, planned.fault)).collect::<Vec<_>>();
        assert_eq!(times(&first), times(&make(1)));
        assert_ne!(times(&first), times(&make(2)));
    }
}
