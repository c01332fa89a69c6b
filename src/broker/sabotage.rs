//! Builds that are broken on purpose, so that `jobsd torture` can be shown to find what it is there to find. Debug builds
//! only, and only where JOBSD_SABOTAGE names one; tests/sabotage runs them all.
//!
//! Each is a mistake that other job systems have shipped. Scripts are broken by replacing their text, and a test says so
//! when a changed script no longer holds the text to be replaced.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::Pipeline;

use super::exchange::holder;
use super::{Broker, Claim, Settlement};
use crate::job::QueueName;

/// Which promise is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sabotage {
    /// `settle` does not look at the token: results of lost leases are applied.
    NoFence,
    /// A job is acknowledged by its claim, before its work is done: a crash loses it.
    EarlyAck,
    /// Results are gathered for a while before they are settled: a crash does finished jobs again.
    LateAck,
    /// What dead nodes hold is never taken over.
    NoReap,
    /// Waiting jobs are claimed in any order: some starve.
    Unsorted,
    /// A job is popped in one round trip and marked as claimed in the next one: a crash between the two loses it.
    TornClaim,
}

const ALL: [(&str, Sabotage); 6] = [
    ("no-fence", Sabotage::NoFence),
    ("early-ack", Sabotage::EarlyAck),
    ("late-ack", Sabotage::LateAck),
    ("no-reap", Sabotage::NoReap),
    ("unsorted", Sabotage::Unsorted),
    ("torn-claim", Sabotage::TornClaim),
];

/// What the environment asks for.
static CHOSEN: LazyLock<Option<Sabotage>> = LazyLock::new(|| {
    let name = std::env::var("JOBSD_SABOTAGE").ok()?;
    let found = ALL.iter().find(|(known, _)| *known == name);
    // A run that is not broken, although it was to be, would prove nothing.
    Some(found.unwrap_or_else(|| panic!("JOBSD_SABOTAGE is {name:?}; known are {ALL:?}")).1)
});

/// How long a late acknowledgement takes.
const LATE: Duration = Duration::from_secs(4);
/// The second round trip of a torn claim, to a Redis that is some way off.
const ROUND_TRIP: Duration = Duration::from_millis(20);

const FENCE: (&str, &str) = ("local drawn = drawn_by(holder, ARGV[at + 1])", "local drawn = ''");
const MARK: (&str, &str) = ("if #active > 0 then", "if false then");

impl Sabotage {
    /// The text in one of the scripts and what replaces it.
    fn patches(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::NoFence => &[FENCE],
            Self::EarlyAck => &[FENCE, MARK],
            Self::LateAck => &[],
            Self::NoReap => {
                &[("elseif node == nil or not leases[node] or expired_nodes[node] then", "elseif false then")]
            }
            Self::Unsorted => &[
                ("ids = redis.call('ZRANGE', KEYS[1], 0, want - 1)", "ids = redis.call('ZRANDMEMBER', KEYS[1], want)"),
                ("redis.call('ZREMRANGEBYRANK', KEYS[1], 0, #ids - 1)", "redis.call('ZREM', KEYS[1], unpack(ids))"),
            ],
            Self::TornClaim => &[MARK],
        }
    }
}

/// The scripts as this process uses them.
pub(super) fn scripts(sources: &'static [&'static str]) -> Vec<&'static str> {
    let patches = CHOSEN.map_or(&[][..], Sabotage::patches);
    sources.iter().map(|source| patched(source, patches)).collect()
}

fn patched(source: &'static str, patches: &[(&str, &str)]) -> &'static str {
    let broken = patches.iter().fold(source.to_owned(), |text, (from, to)| text.replace(from, to));
    // Once in a process, and a few kilobytes.
    if broken == source { source } else { broken.leak() }
}

/// Settlements wait here until they are late.
static HELD_BACK: Mutex<Vec<(Instant, Settlement)>> = Mutex::new(Vec::new());

/// What is settled now. A round trip that would be empty is left as it was.
pub(super) fn hold_back(settlements: Vec<Settlement>, want: usize) -> Vec<Settlement> {
    if *CHOSEN != Some(Sabotage::LateAck) || want == 0 {
        return settlements;
    }
    let mut held = HELD_BACK.lock().unwrap_or_else(PoisonError::into_inner);
    held.extend(settlements.into_iter().map(|settlement| (Instant::now(), settlement)));
    held.extract_if(.., |(since, _)| since.elapsed() > LATE).map(|(_, settlement)| settlement).collect()
}

impl Broker {
    /// The second half of a torn claim.
    pub(super) async fn mark(&self, queue: &QueueName, claims: &[Claim]) {
        if *CHOSEN != Some(Sabotage::TornClaim) || claims.is_empty() {
            return;
        }
        tokio::time::sleep(ROUND_TRIP).await;
        let mut pipeline = Pipeline::new();
        pipeline.cmd("HSET").arg(self.keys(queue).active);
        for claim in claims {
            pipeline.arg(claim.job.id.as_str()).arg(holder(claim.token, &self.node, claim.started));
        }
        // What becomes of it is what this is about.
        let _ = self.store.link.send(&pipeline).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::SCRIPTS;
    use super::*;

    #[test]
    fn every_patch_still_breaks_a_script() {
        for (name, sabotage) in ALL {
            for patch in sabotage.patches() {
                let broken = SCRIPTS.iter().filter(|source| patched(source, &[*patch]) != **source).count();
                assert_eq!(broken, 1, "{name}: {:?} should stand in exactly one script", patch.0);
            }
        }
    }
}
