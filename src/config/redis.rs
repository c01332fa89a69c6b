//! `[redis]`: where Redis is, how it is reached, and what jobsd puts up with there.

use std::time::Duration;

use super::Secret;

/// `[redis]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Redis {
    pub url: RedisUrl,
    /// Certificates of our own choice; they count where the URL asks for TLS.
    pub tls: RedisTls,
    /// First part of every key of ours, before the colon. Default `jobsd`.
    pub prefix: String,
    /// Longest wait for the answer to one command.
    pub timeout: Duration,
    /// Whether jobsd starts on a Redis that deletes keys when it is full.
    pub accept_eviction: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RedisUrl {
    /// A private `redis-server`, started and supervised by the daemon in its state folder. It listens on a socket
    /// there, and on this port of the loopback address for producers that need one.
    Embedded { port: Option<u16> },
    /// `redis://`, `rediss://` or `redis+unix://`; it may hold a password.
    Url(Secret),
    /// `redis+sentinel://` or `rediss+sentinel://`: whoever the Sentinels call the master.
    Sentinels(Sentinels),
}

/// The Sentinels, and the master they watch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sentinels {
    /// Host and port of each, at least one.
    pub servers: Vec<(String, u16)>,
    /// The name under which they watch the master.
    pub master: String,
    pub database: i64,
    /// Whether the Sentinels and the master are spoken to in TLS.
    pub tls: bool,
    /// For the master.
    pub login: Login,
    /// For the Sentinels themselves.
    pub sentinel_login: Login,
}

/// Who we are to a server. Empty: nobody in particular.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Login {
    pub username: Option<String>,
    pub password: Option<Secret>,
}

/// Certificates as PEM text, read and checked.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct RedisTls {
    /// The authorities to trust instead of the public ones.
    pub authority: Option<String>,
    /// How we prove who we are.
    pub identity: Option<Identity>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Identity {
    pub certificate: String,
    pub key: Secret,
}
