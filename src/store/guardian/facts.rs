//! What a Redis says of itself: the replies of INFO and CONFIG GET as values.
//!
//! Everything may be missing: a managed Redis hides CONFIG, a user may not be allowed to ask. What is missing is known
//! to be missing; nothing is guessed here.

use std::collections::HashMap;
use std::fmt;

/// The settings that INFO does not tell.
pub(super) const SETTINGS: [&str; 4] = ["appendfsync", "save", "stop-writes-on-bgsave-error", "min-replicas-to-write"];

/// A server, as far as it tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    pub server: Option<Server>,
    pub role: Option<Role>,
    pub memory: Memory,
    pub persistence: Persistence,
    /// `min-replicas-to-write`, and how many replicas are good enough for it now.
    pub min_replicas: Option<u64>,
    pub good_replicas: Option<u64>,
    /// What could not be asked, each with the reply of Redis.
    pub hidden: Vec<(String, String)>,
}

/// Which program it is, and how old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// `Redis`, `Valkey`, …
    pub product: String,
    pub version: String,
    /// The version of Redis whose commands it has: major and minor.
    pub commands: (u64, u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    Master { replicas: u64 },
    Replica { of: String, read_only: bool },
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Memory {
    /// Bytes that count against the limit.
    pub used: Option<u64>,
    /// `maxmemory`; zero means that there is no limit.
    pub limit: Option<u64>,
    pub policy: Option<Policy>,
}

/// `maxmemory-policy`: what goes when the memory is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Nothing: what would need more memory is refused.
    NoEviction,
    /// Keys that have a time to live.
    Volatile(String),
    /// Any key.
    AllKeys(String),
    Unknown(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Persistence {
    /// Whether the append-only file is on.
    pub aof: Option<bool>,
    /// `appendfsync`: `always`, `everysec`, `no`.
    pub fsync: Option<String>,
    /// `save`: pairs of seconds and changes; empty when no snapshots are taken.
    pub snapshots: Option<Vec<(u64, u64)>>,
    /// Changes since the last snapshot.
    pub unsaved: Option<u64>,
    pub aof_write_failed: bool,
    pub snapshot_failed: bool,
    /// `stop-writes-on-bgsave-error`.
    pub stops_writes: Option<bool>,
}

impl Facts {
    /// Reads the text of INFO and what CONFIG GET gave for each of [`SETTINGS`].
    pub(super) fn read(info: Result<&str, String>, settings: &HashMap<&'static str, Result<String, String>>) -> Self {
        let hidden = |(name, value): (&&str, &Result<String, String>)| {
            value.as_ref().err().map(|reason| ((*name).to_owned(), reason.clone()))
        };
        let mut facts = Self { hidden: settings.iter().filter_map(hidden).collect(), ..Self::default() };
        facts.hidden.sort();
        match info {
            Ok(text) => facts.read_info(&fields(text)),
            Err(reason) => facts.hidden.insert(0, ("INFO".to_owned(), reason)),
        }
        let setting = |name: &str| settings.get(name).and_then(|value| value.as_ref().ok()).map(String::as_str);
        facts.persistence.fsync = setting("appendfsync").map(str::to_owned);
        facts.persistence.snapshots = setting("save").map(snapshots);
        facts.persistence.stops_writes = setting("stop-writes-on-bgsave-error").map(|word| word == "yes");
        facts.min_replicas = setting("min-replicas-to-write").and_then(|number| number.parse().ok());
        facts
    }

    fn read_info(&mut self, info: &HashMap<&str, &str>) {
        let number = |name: &str| info.get(name).and_then(|text| text.parse::<u64>().ok());
        let flag = |name: &str| number(name).map(|flag| flag != 0);
        let failed = |name: &str| info.get(name) == Some(&"err");
        self.server = server(info);
        self.role = role(info);
        let outside = number("mem_not_counted_for_evict").unwrap_or(0);
        self.memory = Memory {
            used: number("used_memory").map(|used| used.saturating_sub(outside)),
            limit: number("maxmemory"),
            policy: info.get("maxmemory_policy").map(|word| Policy::of(word)),
        };
        self.persistence.aof = flag("aof_enabled");
        self.persistence.unsaved = number("rdb_changes_since_last_save");
        self.persistence.aof_write_failed = failed("aof_last_write_status");
        self.persistence.snapshot_failed = failed("rdb_last_bgsave_status");
        self.good_replicas = number("min_slaves_good_slaves");
    }
}

impl Policy {
    fn of(word: &str) -> Self {
        match word.split_once('-') {
            Some(("allkeys", _)) => Self::AllKeys(word.to_owned()),
            Some(("volatile", _)) => Self::Volatile(word.to_owned()),
            _ if word == "noeviction" => Self::NoEviction,
            _ => Self::Unknown(word.to_owned()),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEviction => f.write_str("noeviction"),
            Self::Volatile(word) | Self::AllKeys(word) | Self::Unknown(word) => f.write_str(word),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.product, self.version)
    }
}

/// The lines `name:value`.
fn fields(text: &str) -> HashMap<&str, &str> {
    text.lines().filter_map(|line| line.trim_end().split_once(':')).collect()
}

/// Forks tell the version of Redis that they stand for, and their own beside it.
fn server(info: &HashMap<&str, &str>) -> Option<Server> {
    let redis = *info.get("redis_version")?;
    let own = [("Valkey", "valkey_version"), ("Dragonfly", "dragonfly_version")];
    let own = own.into_iter().find_map(|(product, key)| Some((product, *info.get(key)?)));
    let (product, version) = own.unwrap_or(("Redis", redis));
    let mut numbers = redis.split('.').map(|number| number.parse().ok());
    let commands = (numbers.next().flatten()?, numbers.next().flatten()?);
    Some(Server { product: product.to_owned(), version: version.to_owned(), commands })
}

fn role(info: &HashMap<&str, &str>) -> Option<Role> {
    let text = |name: &str| info.get(name).copied().unwrap_or_default();
    match text("role") {
        "master" => Some(Role::Master { replicas: text("connected_slaves").parse().unwrap_or(0) }),
        "slave" | "replica" => Some(Role::Replica {
            of: format!("{}:{}", text("master_host"), text("master_port")),
            read_only: text("slave_read_only") != "0",
        }),
        _ => None,
    }
}

/// `3600 1 300 100`: pairs of seconds and changes.
fn snapshots(save: &str) -> Vec<(u64, u64)> {
    let numbers: Vec<u64> = save.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_are_known_by_their_own_names() {
        let server = |text: &str| server(&fields(text)).map(|server| (server.to_string(), server.commands));
        assert_eq!(server("redis_version:7.0.15\r\n"), Some(("Redis 7.0.15".into(), (7, 0))));
        let valkey = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n";
        assert_eq!(server(valkey), Some(("Valkey 8.0.1".into(), (7, 2))));
        assert_eq!(server("redis_version:unstable\r\n"), None);
        assert_eq!(server("# Server\r\n"), None);
    }

    #[test]
    fn save_points_are_pairs() {
        assert_eq!(snapshots("3600 1 300 100"), [(3600, 1), (300, 100)]);
        assert_eq!(snapshots(""), []);
    }
}
