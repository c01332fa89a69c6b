//! What the user asks for: the size of the load, the faults and how many of each, and on which Redis.

use std::time::Duration;

use clap::ValueEnum;

use super::fault::Fault;

/// Run jobs under faults on a Redis, and count what was lost, doubled or late. Exit code 1 when a promise is broken.
///
/// Starts nodes of this very program as child processes, puts jobs in over their HTTP ports, keeps its own books of what
/// the jobs did, and breaks what the options say. Without any option for faults it makes some of each kind that the Redis
/// allows.
#[derive(Debug, clap::Args)]
#[command(args_override_self = true)]
pub(crate) struct Options {
    /// `own`: a private redis-server in a temporary folder. Or the URL of a Redis that is up: all keys are in a prefix of
    /// their own and are deleted at the end.
    #[arg(long, default_value = "own", value_name = "URL")]
    pub(super) redis: String,
    /// When the own Redis writes its append-only file out to the disk.
    #[arg(long, value_enum, default_value_t = Fsync::Everysec, value_name = "WHEN")]
    pub(super) appendfsync: Fsync,
    /// Nodes on the Redis.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub(super) nodes: u16,
    /// Nodes that are never killed, stopped or ended. With 0 a fleet may restart as a whole again and again, and nobody
    /// lives long enough to see that the others are dead.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(super) steady: u16,
    /// Jobs that each node runs at the same time.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) concurrency: u16,
    /// Jobs put in each second.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(super) rate: u32,
    /// How long a usual job takes. One in fifty takes one and a half leases, whatever this says.
    #[arg(long, default_value = "40ms", value_parser = humantime::parse_duration)]
    pub(super) work: Duration,
    /// The faults are spread over this time; the load goes on until the last of them.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(super) seconds: u32,
    /// The nodes' lease.
    #[arg(long, default_value = "3s", value_parser = lease)]
    pub(super) lease: Duration,
    /// The same seed gives the same jobs and the same faults at the same times.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    #[command(flatten)]
    faults: Faults,
    /// The report as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// How many of each.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Faults")]
struct Faults {
    /// SIGKILL of a node, which is started again on the same or on a fresh state folder.
    #[arg(long, value_name = "N")]
    kills: Option<u32>,
    /// SIGSTOP of a node for longer than its lease, then SIGCONT: its late results must be refused.
    #[arg(long, value_name = "N")]
    stops: Option<u32>,
    /// SIGTERM of a node with jobs running.
    #[arg(long, value_name = "N")]
    terms: Option<u32>,
    /// All of a node's connections to Redis are reset; on the own Redis also `CLIENT KILL` of everybody's.
    #[arg(long, value_name = "N")]
    resets: Option<u32>,
    /// A node's connections to Redis go dead without a word: what is sent, or what is answered, is swallowed.
    #[arg(long, value_name = "N")]
    blackholes: Option<u32>,
    /// `kill -9` of the own Redis, which is started again.
    #[arg(long, value_name = "N")]
    redis_kills: Option<u32>,
    /// An orderly restart of the own Redis.
    #[arg(long, value_name = "N")]
    redis_restarts: Option<u32>,
    /// `SCRIPT FLUSH` on the own Redis.
    #[arg(long, value_name = "N")]
    script_flushes: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Fsync {
    Always,
    Everysec,
}

impl Fsync {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Everysec => "everysec",
        }
    }
}

/// The value of `--redis` for a private server.
const OWN: &str = "own";
/// Jobs in one run. Their records are kept to the end.
const LARGEST: u64 = 5_000_000;
/// The most of one fault.
const MOST: u32 = 100_000;

/// What cannot be done as asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum OptionsError {
    #[error("use --{option} on {redis}: it would harm the other users of that Redis; leave it out, or use --redis own")]
    NotOwn { option: &'static str, redis: &'static str },
    #[error("use --{option} over TLS: the connections cannot be led through a proxy; leave it out, or use redis://")]
    Tls { option: &'static str },
    #[error("use --{option} {given}: {MOST} is the most")]
    Many { option: &'static str, given: u32 },
    #[error("use --rate {rate} for {seconds} s: {LARGEST} jobs are the most that are counted one by one")]
    Large { rate: u32, seconds: u32 },
    #[error("use --steady {steady} of --nodes {nodes}: none is left to be struck")]
    Steady { steady: u16, nodes: u16 },
}

impl Options {
    /// The URL of the user's Redis; `None` for one of our own.
    pub(super) fn url(&self) -> Option<&str> {
        (self.redis != OWN).then_some(self.redis.as_str())
    }

    /// How many of each fault. Where nothing is said of any, some of each that this Redis allows.
    pub(super) fn faults(&self) -> Result<Vec<(Fault, u32)>, OptionsError> {
        let asked = self.asked();
        if self.steady >= self.nodes {
            return Err(OptionsError::Steady { steady: self.steady, nodes: self.nodes });
        }
        if u64::from(self.rate) * u64::from(self.seconds) > LARGEST {
            return Err(OptionsError::Large { rate: self.rate, seconds: self.seconds });
        }
        let usual = asked.iter().all(|(.., count)| count.is_none());
        let mut faults = Vec::new();
        for (fault, option, count) in asked {
            let refusal = self.refusal(fault, option);
            let count = if usual && refusal.is_none() { fault.usual() } else { count.unwrap_or(0) };
            match refusal {
                Some(refusal) if count > 0 => return Err(refusal),
                _ if count > MOST => return Err(OptionsError::Many { option, given: count }),
                _ => faults.push((fault, count)),
            }
        }
        Ok(faults)
    }

    fn asked(&self) -> [(Fault, &'static str, Option<u32>); 8] {
        let faults = &self.faults;
        [
            (Fault::Kill, "kills", faults.kills),
            (Fault::Stop, "stops", faults.stops),
            (Fault::Term, "terms", faults.terms),
            (Fault::Reset, "resets", faults.resets),
            (Fault::Blackhole, "blackholes", faults.blackholes),
            (Fault::RedisKill, "redis-kills", faults.redis_kills),
            (Fault::RedisRestart, "redis-restarts", faults.redis_restarts),
            (Fault::ScriptFlush, "script-flushes", faults.script_flushes),
        ]
    }

    fn refusal(&self, fault: Fault, option: &'static str) -> Option<OptionsError> {
        let url = self.url()?;
        match fault {
            Fault::Kill | Fault::Stop | Fault::Term => None,
            Fault::Reset | Fault::Blackhole => url.starts_with("rediss:").then_some(OptionsError::Tls { option }),
            Fault::RedisKill | Fault::RedisRestart | Fault::ScriptFlush => {
                Some(OptionsError::NotOwn { option, redis: "a Redis that is not our own" })
            }
        }
    }
}

/// As the configuration bounds `node.lease`.
fn lease(text: &str) -> Result<Duration, String> {
    let lease = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let bounds = Duration::from_secs(3)..=Duration::from_secs(600);
    if bounds.contains(&lease) { Ok(lease) } else { Err("a lease is 3s to 10m".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(line: &str) -> Options {
        Line::try_parse_from(std::iter::once("torture").chain(line.split_whitespace())).expect("a valid line").options
    }

    fn count(line: &str, fault: Fault) -> u32 {
        let faults = options(line).faults().expect("it can be done");
        faults.iter().find(|(of, _)| *of == fault).map_or(0, |(_, count)| *count)
    }

    #[test]
    fn without_a_word_about_faults_there_are_some_of_each() {
        assert!(count("", Fault::Kill) > 0 && count("", Fault::RedisKill) > 0);
        assert_eq!(count("--redis redis://h/0", Fault::RedisKill), 0, "not on the user's Redis");
        assert!(count("--redis redis://h/0", Fault::Reset) > 0);
        assert_eq!((count("--kills 7", Fault::Kill), count("--kills 7", Fault::Stop)), (7, 0));
        assert_eq!(count("--kills 0", Fault::Kill), 0);
    }

    #[test]
    fn what_would_harm_others_is_refused() {
        for (line, words) in [
            ("--redis redis://h/0 --redis-kills 1", "other users"),
            ("--redis redis://h/0 --script-flushes 1", "other users"),
            ("--redis rediss://h/0 --resets 1", "TLS"),
            ("--kills 200000", "the most"),
            ("--nodes 1", "none is left"),
            ("--rate 20000 --seconds 3600", "5000000 jobs"),
        ] {
            let refusal = options(line).faults().expect_err(line).to_string();
            assert!(refusal.contains(words), "{line}: {refusal}");
        }
    }
}
