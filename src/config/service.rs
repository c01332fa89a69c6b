//! The parts of the configuration that exist once: the node, the admin port and the services handlers use.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Dialect, Secret, Statement};

/// `[node]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// Default: the host name.
    pub name: String,
    /// Where the daemon keeps what must outlive it. Default: `$STATE_DIRECTORY`, else `./state`.
    pub state_dir: PathBuf,
    /// How long running jobs may go on after SIGTERM before they are handed back.
    pub drain: Duration,
    /// How long a claim outlives its node's last sign of life. Default 15 s.
    pub lease: Duration,
    pub slots: SlotRules,
}

/// `concurrency`, `order` and `starve_after` of `[node]`: what all queues share, and who comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotRules {
    /// Attempts that run at the same time on this node, over all queues. `None`: only the queues have bounds.
    pub bound: Option<usize>,
    pub order: SlotOrder,
}

/// Which of the queues that wait for a slot of the node gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotOrder {
    /// Each in proportion to its weight.
    Weighted,
    /// The heaviest, but before it any that has waited for this long.
    Strict { starve_after: Duration },
}

/// `[celery]`: what clients of Celery find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Celery {
    /// How long results are kept. `None`: for ever.
    pub result_expires: Option<Duration>,
}

impl Default for Celery {
    fn default() -> Self {
        Self { result_expires: Some(Duration::from_secs(86_400)) }
    }
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Log {
    pub format: LogFormat,
    /// A filter as tracing-subscriber reads it: `info`, `jobsd=debug,info`.
    pub level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Admin {
    pub listen: SocketAddr,
    /// Asked of every request except `/livez` and `/readyz`. Must be set where `listen` is not a loopback address.
    pub token: Option<Secret>,
    /// Largest request body, in bytes.
    pub max_body: usize,
}

/// `[database]`: what the `sql` handler talks to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Database {
    /// A file; the tables of the app are created in it when they are missing.
    Sqlite { path: PathBuf, timeout: Duration },
    /// `postgres://…`; the tables are the app's own.
    Postgres { url: Secret, connections: usize, timeout: Duration },
}

impl Database {
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite { .. } => Dialect::Sqlite,
            Self::Postgres { .. } => Dialect::Postgres,
        }
    }
}

/// `[push]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Push {
    pub provider: PushProvider,
    /// A query for the device tokens of a user; its one parameter is `:user_id`, its first column the token.
    pub tokens_query: Option<Statement>,
    /// What is done with a token that the provider does not know any more: `:token`, and `:user_id` if it likes.
    pub remove_device: Option<Statement>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PushProvider {
    /// One `.json` file for each message, in the form FCM takes, in this folder; nothing is sent.
    Outbox {
        folder: PathBuf,
    },
    /// FCM HTTP v1 with a service account's key file.
    Fcm {
        credentials: PathBuf,
        endpoint: String,
        timeout: Duration,
    },
    OneSignal(OneSignal),
}

/// `[push.onesignal]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OneSignal {
    pub app_id: String,
    pub api_key: Secret,
    pub endpoint: String,
    pub timeout: Duration,
    pub target: OneSignalTarget,
}

/// Whom a request to OneSignal names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OneSignalTarget {
    /// The user, by the alias under which OneSignal knows the app's user ids; it finds the devices itself.
    User { alias: String },
    /// The subscriptions that `tokens_query` gives.
    Devices,
}

/// `[video]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Video {
    /// The `jobsd-video` executable. `None`: the one beside `jobsd`.
    pub helper: Option<PathBuf>,
    /// Inputs must lie in one of these folders, after links are resolved. Default: `uploads` in the state folder.
    pub input_roots: Vec<PathBuf>,
    pub output_root: PathBuf,
    /// What the URL of an output starts with; the path below `output_root` follows.
    pub public_url: String,
    pub preset: String,
    pub crf: u8,
    /// Largest input picture, in pixels.
    pub max_pixels: u64,
    /// Longest input.
    pub max_duration: Duration,
}
