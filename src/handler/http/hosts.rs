//! Hosts that could not be reached lately. A request to one is put off at once, so that a receiver that is gone does not
//! hold the slots of its queue while there are jobs for receivers that answer.
//!
//! Only what came to nothing counts: no connection, or no answer in time. The requests that found it out are attempts of
//! their jobs; to be put off costs none. Each node finds out by itself, and forgets with the first answer.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many requests in a row that came to nothing make a host one that is not asked for a while.
const IN_A_ROW: u32 = 3;
/// How long it is not asked the first time; it doubles up to the second with each trial that fails.
const LEFT_ALONE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// Hosts that are remembered. Beyond them it is as if each were new.
const MOST: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Hosts(Mutex<HashMap<String, Host>>);

#[derive(Debug, Default)]
struct Host {
    in_a_row: u32,
    /// It is left alone until then.
    until: Option<Instant>,
}

/// Why a request may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// As far as is known the host is there.
    Known,
    /// Its time is over; this one tries whether it is back.
    Trial,
}

impl Hosts {
    /// `Err`: it is left alone for so much longer. A trial that says nothing within `longest` is followed by another.
    pub(super) fn ask(&self, host: &str, now: Instant, longest: Duration) -> Result<Pass, Duration> {
        let mut hosts = self.lock();
        let Some((host, until)) = hosts.get_mut(host).and_then(|host| host.until.map(|until| (host, until))) else {
            return Ok(Pass::Known);
        };
        if now < until {
            return Err(until - now);
        }
        host.until = Some(now + longest);
        Ok(Pass::Trial)
    }

    pub(super) fn answered(&self, host: &str) {
        self.lock().remove(host);
    }

    /// What had begun before it was left alone says nothing new.
    pub(super) fn lost(&self, host: &str, pass: Pass, now: Instant) {
        let mut hosts = self.lock();
        if hosts.len() >= MOST && !hosts.contains_key(host) {
            hosts.retain(|_, host| host.until.is_some_and(|until| until > now));
            if hosts.len() >= MOST {
                return;
            }
        }
        let host = hosts.entry(host.to_owned()).or_default();
        if host.until.is_some() && pass == Pass::Known {
            return;
        }
        host.in_a_row = host.in_a_row.saturating_add(1);
        if let Some(more) = host.in_a_row.checked_sub(IN_A_ROW) {
            let span = LEFT_ALONE.0.saturating_mul(2_u32.saturating_pow(more)).min(LEFT_ALONE.1);
            host.until = Some(now + span);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        // Every use leaves each entry whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_host_is_left_alone_after_a_few_and_tried_again_by_one() {
        let (hosts, mut now) = (Hosts::default(), Instant::now());
        let ask = |now| hosts.ask("a", now, 10 * SECOND);
        for _ in 0..2 {
            hosts.lost("a", ask(now).expect("it is known"), now);
        }
        hosts.answered("a");
        for _ in 0..3 {
            assert_eq!(ask(now), Ok(Pass::Known), "an answer in between, and they are counted anew");
            hosts.lost("a", Pass::Known, now);
        }
        // Twenty that were on their way.
        (0..20).for_each(|_| hosts.lost("a", Pass::Known, now));
        for expected in [5, 10, 20, 40, 80, 160, 300, 300] {
            assert_eq!(ask(now), Err(expected * SECOND));
            assert_eq!(hosts.ask("b", now, SECOND), Ok(Pass::Known), "no other host is meant");
            now += expected * SECOND;
            assert_eq!(ask(now), Ok(Pass::Trial));
            assert_eq!(ask(now), Err(10 * SECOND), "one tries");
            hosts.lost("a", Pass::Trial, now);
        }
        now += 300 * SECOND;
        assert_eq!(ask(now), Ok(Pass::Trial));
        assert_eq!(ask(now + 10 * SECOND), Ok(Pass::Trial), "the one before was never heard of again");
        hosts.answered("a");
        assert_eq!(ask(now), Ok(Pass::Known));
    }

    #[test]
    fn not_more_hosts_are_remembered_than_are_bounded() {
        let (hosts, now) = (Hosts::default(), Instant::now());
        (0..2 * MOST).for_each(|n| hosts.lost(&n.to_string(), Pass::Known, now));
        assert!(hosts.lock().len() <= MOST);
        (0..2 * MOST).for_each(|n| (0..3).for_each(|_| hosts.lost(&format!("dead-{n}"), Pass::Known, now)));
        assert!(hosts.lock().len() <= MOST);
        assert!(hosts.ask("dead-0", now, SECOND).is_err(), "those that are left alone are kept");
    }
}
