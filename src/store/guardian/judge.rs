//! What the facts about a Redis mean for the jobs in it: a pure function from facts to findings.

use std::time::Duration;

use super::facts::{Facts, Memory, Policy, Role};

/// What was found. A closed set: dashboards and alerts go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Code {
    VersionTooOld,
    EvictionDeletesJobs,
    EvictionDeletesResults,
    Replica,
    TooFewReplicas,
    AofWriteFailed,
    SnapshotFailed,
    MemoryFull,
    MemoryLow,
    NoPersistence,
    SnapshotsOnly,
    SyncLeftToSystem,
    SyncEverySecond,
    SlowRoundTrip,
    FailoverMayLose,
    NotChecked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Good to know.
    Info,
    /// Jobs or results are at risk when something else goes wrong.
    Warning,
    /// Jobs are lost or refused.
    Error,
}

/// One thing that is to be known about this Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub code: Code,
    pub severity: Severity,
    /// Whether no job can be run for as long.
    pub stops_work: bool,
    /// What is the case, and what it means.
    pub sentence: String,
    /// What to do about it.
    pub remedy: String,
}

/// The oldest Redis that has all commands: HRANDFIELD came with 6.2.
const OLDEST: (u64, u64) = (6, 2);
/// A round trip that costs more than this is felt in every job.
const SLOW: Duration = Duration::from_millis(50);
/// Share of the limit, in percent, from which the memory is low.
const LOW: u64 = 80;

impl Code {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::VersionTooOld => "version-too-old",
            Self::EvictionDeletesJobs => "eviction-deletes-jobs",
            Self::EvictionDeletesResults => "eviction-deletes-results",
            Self::Replica => "replica",
            Self::TooFewReplicas => "too-few-replicas",
            Self::AofWriteFailed => "aof-write-failed",
            Self::SnapshotFailed => "snapshot-failed",
            Self::MemoryFull => "memory-full",
            Self::MemoryLow => "memory-low",
            Self::NoPersistence => "no-persistence",
            Self::SnapshotsOnly => "snapshots-only",
            Self::SyncLeftToSystem => "sync-left-to-system",
            Self::SyncEverySecond => "sync-every-second",
            Self::SlowRoundTrip => "slow-round-trip",
            Self::FailoverMayLose => "failover-may-lose",
            Self::NotChecked => "not-checked",
        }
    }
}

impl Severity {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl Finding {
    fn new(code: Code, severity: Severity, sentence: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, severity, stops_work: false, sentence: sentence.into(), remedy: remedy.into() }
    }

    fn stopping(self, stops_work: bool) -> Self {
        Self { stops_work, ..self }
    }
}

/// Everything that is to be known, the worst first. `round_trip` is a median; `accept_eviction` is the operator's word
/// that jobs may be deleted.
pub(crate) fn judge(facts: &Facts, round_trip: Option<Duration>, accept_eviction: bool) -> Vec<Finding> {
    let mut findings: Vec<Finding> = [
        version(facts),
        eviction(&facts.memory, accept_eviction),
        role(facts),
        too_few_replicas(facts),
        aof_write(facts),
        snapshot(facts),
        memory(&facts.memory),
        persistence(facts),
        slow(round_trip),
        failover(facts),
        not_checked(facts),
    ]
    .into_iter()
    .flatten()
    .collect();
    findings.sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.code));
    findings
}

fn version(facts: &Facts) -> Option<Finding> {
    let server = facts.server.as_ref().filter(|server| server.commands < OLDEST)?;
    let sentence = format!("{server} is too old: jobsd needs the commands of Redis 6.2 (HRANDFIELD)");
    Some(Finding::new(Code::VersionTooOld, Severity::Error, sentence, "upgrade Redis to 6.2 or later"))
}

/// What has no time to live is ours: the jobs. What has one are results of Celery and RQ, and RQ's jobs with a `ttl`.
fn eviction(memory: &Memory, accepted: bool) -> Option<Finding> {
    let noeviction = "set maxmemory-policy noeviction in redis.conf (at once: CONFIG SET maxmemory-policy noeviction)";
    let limited = memory.limit != Some(0);
    let limit = match memory.limit {
        Some(limit @ 1..) => format!(" (maxmemory {})", size(limit)),
        _ => String::new(),
    };
    match memory.policy.as_ref()? {
        Policy::AllKeys(policy) if limited => {
            let severity = if accepted { Severity::Warning } else { Severity::Error };
            let sentence = format!(
                "maxmemory-policy is {policy}: when its memory is full{limit}, Redis deletes jobs, waiting and running \
                 ones, without a trace"
            );
            let remedy = format!("{noeviction}; where losing jobs is acceptable, redis.accept_eviction = true");
            Some(Finding::new(Code::EvictionDeletesJobs, severity, sentence, remedy))
        }
        Policy::AllKeys(policy) => {
            let sentence = format!(
                "maxmemory-policy is {policy}; nothing is deleted for want of a maxmemory, with one jobs would be"
            );
            Some(Finding::new(Code::EvictionDeletesJobs, Severity::Warning, sentence, noeviction))
        }
        Policy::Volatile(policy) if limited => {
            let sentence = format!(
                "maxmemory-policy is {policy}: when its memory is full{limit}, Redis deletes results of Celery and RQ, \
                 and waiting RQ jobs that have a ttl, before their time; jobs that jobsd has taken are kept"
            );
            Some(Finding::new(Code::EvictionDeletesResults, Severity::Warning, sentence, noeviction))
        }
        _ => None,
    }
}

fn role(facts: &Facts) -> Option<Finding> {
    let Role::Replica { of, read_only } = facts.role.as_ref()? else { return None };
    let sentence = match read_only {
        true => format!("this Redis is a replica of {of} and takes no changes: no job can be accepted or run"),
        false => format!("this Redis is a replica of {of}: what is written here is lost at its next synchronisation"),
    };
    let remedy = "point redis.url at the master, or at its Sentinels (redis+sentinel://…)";
    Some(Finding::new(Code::Replica, Severity::Error, sentence, remedy).stopping(*read_only))
}

fn too_few_replicas(facts: &Facts) -> Option<Finding> {
    let (least, good) = (facts.min_replicas?, facts.good_replicas?);
    (good < least).then(|| {
        let sentence = format!(
            "min-replicas-to-write is {least} and {good} replicas keep up: Redis takes no changes, no job can be \
             accepted or run"
        );
        let remedy = "bring the replicas back, or lower min-replicas-to-write";
        Finding::new(Code::TooFewReplicas, Severity::Error, sentence, remedy).stopping(true)
    })
}

fn aof_write(facts: &Facts) -> Option<Finding> {
    let failed = facts.persistence.aof == Some(true) && facts.persistence.aof_write_failed;
    failed.then(|| {
        let sentence = "Redis failed to write its append-only file and takes no changes (MISCONF): no job can be \
                        accepted or run";
        let remedy = "look into the log of Redis and make room on its disk; it goes on by itself";
        Finding::new(Code::AofWriteFailed, Severity::Error, sentence, remedy).stopping(true)
    })
}

fn snapshot(facts: &Facts) -> Option<Finding> {
    let state = &facts.persistence;
    let taken = state.snapshots.as_ref().is_none_or(|points| !points.is_empty());
    if !state.snapshot_failed || !taken {
        return None;
    }
    let (what, stops) = match (state.stops_writes, &state.snapshots) {
        (Some(false), _) => ("a crash of Redis loses more with every change", false),
        (Some(true), Some(_)) => ("it takes no changes (MISCONF), no job can be accepted or run", true),
        _ => ("it may take no changes (MISCONF) until one succeeds", false),
    };
    let sentence = format!("the last snapshot of Redis failed: {what}");
    let remedy = "look into the log of Redis and make room on its disk (or its memory for the fork), then BGSAVE";
    Some(Finding::new(Code::SnapshotFailed, Severity::Error, sentence, remedy).stopping(stops))
}

fn memory(memory: &Memory) -> Option<Finding> {
    let (used, limit) = (memory.used?, memory.limit.filter(|limit| *limit > 0)?);
    // Whoever deletes keys is always full; that is told elsewhere.
    if matches!(memory.policy, Some(Policy::AllKeys(_))) {
        return None;
    }
    let of = format!("{} of {} (maxmemory)", size(used), size(limit));
    let remedy = "raise maxmemory, keep fewer finished jobs (keep_completed, keep_dead), or add workers to the backlog";
    if used >= limit {
        let sentence =
            format!("Redis is full, {of}: new jobs are refused, running ones finish and waiting ones are still taken");
        return Some(Finding::new(Code::MemoryFull, Severity::Error, sentence, remedy));
    }
    let percent = u64::try_from(u128::from(used) * 100 / u128::from(limit)).unwrap_or(100);
    (percent >= LOW).then(|| {
        let sentence = format!("Redis is {percent} % full, {of}: when it is full, new jobs are refused");
        Finding::new(Code::MemoryLow, Severity::Warning, sentence, remedy)
    })
}

fn persistence(facts: &Facts) -> Option<Finding> {
    let state = &facts.persistence;
    let aof = "turn the append-only file on: appendonly yes in redis.conf (at once: CONFIG SET appendonly yes)";
    match (state.aof?, state.snapshots.as_deref()) {
        (true, _) => sync(state.fsync.as_deref()?),
        (false, Some([])) => {
            let sentence = "Redis writes nothing to disk: a crash or a restart of it loses every job";
            Some(Finding::new(Code::NoPersistence, Severity::Warning, sentence, aof))
        }
        (false, Some(points)) => {
            let longest = points.iter().map(|(seconds, _)| *seconds).max().unwrap_or(0);
            let longest = humantime::format_duration(Duration::from_secs(longest));
            let now = state.unsaved.map_or_else(String::new, |changes| format!("; {changes} changes are unsaved now"));
            let sentence = format!(
                "Redis takes snapshots only: a crash of it loses the jobs since the last one, up to {longest}{now}"
            );
            Some(Finding::new(Code::SnapshotsOnly, Severity::Warning, sentence, aof))
        }
        (false, None) => {
            let sentence = "the append-only file of Redis is off: a crash of it loses jobs, all of them unless it takes \
                            snapshots, which it does not tell";
            Some(Finding::new(Code::SnapshotsOnly, Severity::Warning, sentence, aof))
        }
    }
}

fn sync(fsync: &str) -> Option<Finding> {
    let always = "appendfsync always loses nothing that was accepted, and costs throughput";
    match fsync {
        "everysec" => {
            let sentence = "the append-only file is synced every second: a power failure loses up to the last second of \
                            accepted jobs, a crash of Redis alone none";
            Some(Finding::new(Code::SyncEverySecond, Severity::Info, sentence, always))
        }
        "no" => {
            let sentence = "when the append-only file reaches the disk is left to the system: a power failure loses up \
                            to about 30 seconds of accepted jobs";
            let remedy = format!("set appendfsync everysec; {always}");
            Some(Finding::new(Code::SyncLeftToSystem, Severity::Warning, sentence, remedy))
        }
        _ => None,
    }
}

fn slow(round_trip: Option<Duration>) -> Option<Finding> {
    let round_trip = round_trip.filter(|round_trip| *round_trip > SLOW)?;
    let sentence =
        format!("a round trip to Redis takes {} ms (median): every job waits for some", round_trip.as_millis());
    Some(Finding::new(Code::SlowRoundTrip, Severity::Warning, sentence, "run jobsd near its Redis, in the same zone"))
}

fn failover(facts: &Facts) -> Option<Finding> {
    let replicated = matches!(facts.role, Some(Role::Master { replicas: 1.. }));
    (replicated && facts.min_replicas == Some(0)).then(|| {
        let sentence = "a failover loses the jobs that no replica had yet: the master accepts without waiting for one";
        let remedy = "set min-replicas-to-write 1 and min-replicas-max-lag 10, so that a master that is cut off stops \
                      accepting";
        Finding::new(Code::FailoverMayLose, Severity::Info, sentence, remedy)
    })
}

fn not_checked(facts: &Facts) -> Option<Finding> {
    let (_, reason) = facts.hidden.first()?;
    let names: Vec<&str> = facts.hidden.iter().map(|(name, _)| name.as_str()).collect();
    let sentence = format!("Redis does not tell {} ({reason}): what follows from it was not checked", names.join(", "));
    let remedy = "nothing, if the provider hides it; else let the user of jobsd run INFO and CONFIG GET";
    Some(Finding::new(Code::NotChecked, Severity::Info, sentence, remedy))
}

/// A number of bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// The facts of a Redis 7 with AOF on every write, which leaves nothing to say, after `changes` of INFO and CONFIG.
    fn facts(changes: &[(&str, &str)]) -> Facts {
        let mut info: Vec<(&str, &str)> = vec![
            ("redis_version", "7.0.15"),
            ("role", "master"),
            ("connected_slaves", "0"),
            ("used_memory", "1048576"),
            ("maxmemory", "104857600"),
            ("maxmemory_policy", "noeviction"),
            ("aof_enabled", "1"),
            ("aof_last_write_status", "ok"),
            ("rdb_last_bgsave_status", "ok"),
            ("rdb_changes_since_last_save", "42"),
        ];
        let mut settings: HashMap<&'static str, Result<String, String>> = [
            ("appendfsync", "always"),
            ("save", ""),
            ("stop-writes-on-bgsave-error", "yes"),
            ("min-replicas-to-write", "0"),
        ]
        .map(|(name, value)| (name, Ok(value.to_owned())))
        .into();
        for &(name, value) in changes {
            match settings.get_mut(name) {
                Some(setting) if value == "(hidden)" => *setting = Err("NOPERM no".to_owned()),
                Some(setting) => *setting = Ok(value.to_owned()),
                None => info.push((name, value)),
            }
        }
        let text: String = info.iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect();
        Facts::read(Ok(&text), &settings)
    }

    /// Code, severity and whether it stops work, of everything found.
    fn found(changes: &[(&str, &str)]) -> Vec<(Code, Severity, bool)> {
        let findings = judge(&facts(changes), None, false);
        assert!(findings.iter().all(|finding| !finding.sentence.is_empty() && !finding.remedy.is_empty()));
        findings.iter().map(|finding| (finding.code, finding.severity, finding.stops_work)).collect()
    }

    #[test]
    fn each_setting_is_judged_by_what_it_does_to_jobs() {
        use Code::*;
        use Severity::*;
        let full = ("used_memory", "104857600");
        let hidden = [("save", "(hidden)"), ("stop-writes-on-bgsave-error", "(hidden)")];
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a [(Code, Severity, bool)]);
        let cases: &[Case<'_>] = &[
            (&[], &[]),
            (&[("redis_version", "6.2.0")], &[]),
            (&[("redis_version", "6.0.16")], &[(VersionTooOld, Error, false)]),
            (&[("maxmemory_policy", "allkeys-lru")], &[(EvictionDeletesJobs, Error, false)]),
            (&[("maxmemory_policy", "allkeys-lru"), full], &[(EvictionDeletesJobs, Error, false)]),
            (&[("maxmemory_policy", "allkeys-random"), ("maxmemory", "0")], &[(EvictionDeletesJobs, Warning, false)]),
            (&[("maxmemory_policy", "volatile-ttl")], &[(EvictionDeletesResults, Warning, false)]),
            (&[("maxmemory_policy", "volatile-lru"), ("maxmemory", "0")], &[]),
            (&[("role", "slave")], &[(Replica, Error, true)]),
            (&[("role", "slave"), ("slave_read_only", "0")], &[(Replica, Error, false)]),
            (&[("connected_slaves", "1")], &[(FailoverMayLose, Info, false)]),
            (&[("connected_slaves", "1"), ("min-replicas-to-write", "1"), ("min_slaves_good_slaves", "1")], &[]),
            (&[("min-replicas-to-write", "1"), ("min_slaves_good_slaves", "0")], &[(TooFewReplicas, Error, true)]),
            (&[("aof_last_write_status", "err")], &[(AofWriteFailed, Error, true)]),
            (&[("rdb_last_bgsave_status", "err")], &[]),
            (&[("rdb_last_bgsave_status", "err"), ("save", "60 1")], &[(SnapshotFailed, Error, true)]),
            (
                &[("rdb_last_bgsave_status", "err"), ("save", "60 1"), ("stop-writes-on-bgsave-error", "no")],
                &[(SnapshotFailed, Error, false)],
            ),
            (
                &[("rdb_last_bgsave_status", "err"), hidden[0], hidden[1]],
                &[(SnapshotFailed, Error, false), (NotChecked, Info, false)],
            ),
            (&[full], &[(MemoryFull, Error, false)]),
            (&[("used_memory", "83886080")], &[(MemoryLow, Warning, false)]),
            (&[("used_memory", "83886079")], &[]),
            (&[("used_memory", "83886080"), ("mem_not_counted_for_evict", "1000000")], &[]),
            (&[full, ("maxmemory", "0")], &[]),
            (&[("aof_enabled", "0")], &[(NoPersistence, Warning, false)]),
            (&[("aof_enabled", "0"), ("save", "3600 1 60 1000")], &[(SnapshotsOnly, Warning, false)]),
            (&[("aof_enabled", "0"), hidden[0]], &[(SnapshotsOnly, Warning, false), (NotChecked, Info, false)]),
            (&[("appendfsync", "everysec")], &[(SyncEverySecond, Info, false)]),
            (&[("appendfsync", "no")], &[(SyncLeftToSystem, Warning, false)]),
            (&[("appendfsync", "(hidden)")], &[(NotChecked, Info, false)]),
        ];
        for (changes, expected) in cases {
            assert_eq!(found(changes), *expected, "{changes:?}");
        }
    }

    #[test]
    fn losing_jobs_may_be_accepted() {
        let facts = facts(&[("maxmemory_policy", "allkeys-lfu")]);
        let findings = judge(&facts, None, true);
        assert_eq!((findings[0].code, findings[0].severity), (Code::EvictionDeletesJobs, Severity::Warning));
    }

    #[test]
    fn a_slow_round_trip_is_told_with_its_time() {
        let median = |millis| judge(&facts(&[]), Some(Duration::from_millis(millis)), false);
        assert_eq!(median(50), []);
        assert!(median(51)[0].sentence.contains("51 ms"));
    }

    #[test]
    fn sentences_say_what_would_be_lost() {
        let sentence = |changes: &[(&str, &str)]| judge(&facts(changes), None, false).remove(0).sentence;
        let snapshots = sentence(&[("aof_enabled", "0"), ("save", "3600 1 300 100")]);
        assert!(snapshots.ends_with("up to 1h; 42 changes are unsaved now"), "{snapshots}");
        assert!(sentence(&[("used_memory", "104857601")]).contains("100.0 MiB of 100.0 MiB (maxmemory)"));
        assert!(sentence(&[("aof_enabled", "0")]).ends_with("loses every job"));
    }

    #[test]
    fn a_server_that_tells_nothing_gives_one_finding() {
        let hidden = |name| (name, Err("NOPERM no".to_owned()));
        let settings = super::super::facts::SETTINGS.map(hidden).into();
        let findings = judge(&Facts::read(Err("NOPERM no".to_owned()), &settings), None, false);
        let codes: Vec<Code> = findings.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, [Code::NotChecked]);
        assert!(findings[0].sentence.starts_with("Redis does not tell INFO, appendfsync, "), "{findings:?}");
    }

    #[test]
    fn sizes_are_for_people() {
        for (bytes, shown) in [(0, "0 bytes"), (1023, "1023 bytes"), (MIB * 3 / 2, "1.5 MiB"), (MIB << 11, "2.0 GiB")] {
            assert_eq!(size(bytes), shown);
        }
    }
}
