//! The Redis under torture: one of our own, which can be killed, or the user's, of which only one prefix is touched.
//!
//! Looks into Redis by itself in one place: which jobs a node held when it died.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, FromRedisValue};
use reqwest::Url;
use tokio::sync::Mutex;

use super::ledger::Life;
use super::load::{self, Number};
use super::options::Fsync;
use super::proxy::Upstream;
use crate::job::QueueName;
use crate::store::{Embedded, EmbeddedError, Keys, QueueKeys};

/// Why Redis cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum RedisError {
    #[error("read --redis: {0}")]
    Url(String),
    #[error("reach Redis: {0}")]
    Unreachable(#[from] redis::RedisError),
    #[error("reach Redis: no answer within {PATIENCE:?}")]
    Silent,
    #[error(transparent)]
    Own(#[from] EmbeddedError),
}

#[derive(Debug)]
pub(super) struct Redis {
    client: redis::Client,
    url: Url,
    keys: QueueKeys,
    prefix: String,
    own: Option<Own>,
    /// Whether the nodes may reach it. It is closed while the own Redis does not yet write as it is asked to.
    pub(super) open: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Own {
    folder: PathBuf,
    fsync: Fsync,
    server: Mutex<Option<Embedded>>,
}

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Keys deleted in one call.
const SCAN: usize = 1000;

impl Redis {
    /// The user's Redis, which must answer.
    pub(super) async fn at(url: &str, prefix: &str, queue: &QueueName) -> Result<Self, RedisError> {
        let redis = Self::new(url, prefix, queue, None)?;
        redis.call(&["PING"]).await?;
        redis.open.store(true, Ordering::Relaxed);
        Ok(redis)
    }

    /// A server of our own in this folder.
    pub(super) async fn own(folder: &Path, fsync: Fsync, prefix: &str, queue: &QueueName) -> Result<Self, RedisError> {
        let own = Own { folder: folder.to_owned(), fsync, server: Mutex::new(None) };
        // The folder of the socket must be there before its path can be told.
        let server = Embedded::start(folder, None).await?;
        let redis = Self::new(Embedded::url(folder).expose(), prefix, queue, Some(own))?;
        redis.welcome(server).await?;
        Ok(redis)
    }

    fn new(url: &str, prefix: &str, queue: &QueueName, own: Option<Own>) -> Result<Self, RedisError> {
        let client = redis::Client::open(url).map_err(|error| RedisError::Url(error.to_string()))?;
        let url = Url::parse(url).map_err(|error| RedisError::Url(error.to_string()))?;
        let keys = Keys::new(prefix).queue(queue);
        Ok(Self { client, url, keys, prefix: prefix.to_owned(), own, open: Arc::default() })
    }

    pub(super) fn fsync(&self) -> Option<Fsync> {
        self.own.as_ref().map(|own| own.fsync)
    }

    /// Where a proxy can lead to; `None` over TLS, where a proxy in between is what TLS is there to prevent.
    pub(super) fn upstream(&self) -> Option<Upstream> {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) => Some(Upstream::Tcp(host.clone(), *port)),
            ConnectionAddr::Unix(path) => Some(Upstream::Unix(path.clone())),
            _ => None,
        }
    }

    /// The URL that a node is given: the same login and database, by way of its proxy.
    pub(super) fn url_by(&self, proxy: Option<std::net::SocketAddr>) -> String {
        let Some(proxy) = proxy else { return self.url.to_string() };
        let settings = self.client.get_connection_info().redis_settings();
        let mut url = Url::parse(&format!("redis://{proxy}/{}", settings.db())).expect("an address makes a URL");
        // Both fail only for URLs that cannot have a login.
        let _ = url.set_username(settings.username().unwrap_or_default());
        let _ = url.set_password(settings.password());
        url.to_string()
    }

    /// Who holds which job, as Redis sees it.
    pub(super) async fn held(&self) -> Result<Vec<(Number, Life)>, RedisError> {
        let active: Vec<(String, String)> = self.read(redis::cmd("HGETALL").arg(&self.keys.active)).await?;
        Ok(active.iter().filter_map(|(id, holder)| Some((load::number(id)?, holding_life(holder)?))).collect())
    }

    /// The jobs that this life of a node holds.
    pub(super) async fn held_by(&self, life: Life) -> Result<Vec<Number>, RedisError> {
        Ok(self.held().await?.into_iter().filter(|(_, holder)| *holder == life).map(|(job, _)| job).collect())
    }

    pub(super) async fn kill_clients(&self) -> Result<(), RedisError> {
        self.call(&["CLIENT", "KILL", "TYPE", "normal"]).await
    }

    pub(super) async fn flush_scripts(&self) -> Result<(), RedisError> {
        self.call(&["SCRIPT", "FLUSH"]).await
    }

    /// `kill -9`, and after `pause` a new start on the same files.
    pub(super) async fn kill(&self, pause: Duration) -> Result<(), RedisError> {
        self.down(pause, true).await
    }

    /// An orderly stop, and after `pause` a new start on the same files.
    pub(super) async fn restart(&self, pause: Duration) -> Result<(), RedisError> {
        self.down(pause, false).await
    }

    async fn down(&self, pause: Duration, at_once: bool) -> Result<(), RedisError> {
        let Some(own) = &self.own else { return Ok(()) };
        self.open.store(false, Ordering::Relaxed);
        let server = own.server.lock().await.take();
        match server {
            Some(server) if at_once => server.kill().await,
            Some(server) => server.stop().await,
            None => {}
        }
        tokio::time::sleep(pause).await;
        self.welcome(Embedded::start(&own.folder, None).await?).await
    }

    /// The own server answers: it is told how to write, and then the nodes may have it.
    async fn welcome(&self, server: Embedded) -> Result<(), RedisError> {
        let Some(own) = &self.own else { return Ok(()) };
        *own.server.lock().await = Some(server);
        self.call(&["CONFIG", "SET", "appendfsync", own.fsync.as_str()]).await?;
        self.open.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Deletes everything under the prefix, and ends the own server.
    pub(super) async fn clean_up(&self) -> Result<(), RedisError> {
        if let Some(own) = &self.own {
            if let Some(server) = own.server.lock().await.take() {
                server.kill().await;
            }
            return Ok(());
        }
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{}:*", self.prefix)).arg("COUNT").arg(SCAN);
            let (next, keys): (u64, Vec<String>) = self.read(&scan).await?;
            if !keys.is_empty() {
                self.read::<()>(redis::cmd("UNLINK").arg(keys)).await?;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    async fn call(&self, command: &[&str]) -> Result<(), RedisError> {
        self.read(redis::cmd(command[0]).arg(&command[1..])).await
    }

    /// On a connection of its own: whatever breaks connections does not break this.
    async fn read<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, RedisError> {
        let reading = async {
            let mut connection: MultiplexedConnection = self.client.get_multiplexed_async_connection().await?;
            connection.set_response_timeout(PATIENCE);
            command.query_async(&mut connection).await
        };
        Ok(tokio::time::timeout(PATIENCE, reading).await.map_err(|_| RedisError::Silent)??)
    }
}

/// What a node is called in this life; its id is this, a hyphen and some digits.
pub(super) fn node_name(life: Life) -> String {
    format!("life{}", life.0)
}

/// The node in `token node started`, the value of an active job.
fn holding_life(holder: &str) -> Option<Life> {
    let (name, _) = holder.split(' ').nth(1)?.split_once('-')?;
    Some(Life(name.strip_prefix("life")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_known_by_its_name() {
        let holder = format!("17 {}-1f0e22aa 1700000000000", node_name(Life(42)));
        assert_eq!(holding_life(&holder), Some(Life(42)));
        assert_eq!(holding_life("17 vps-1f0e22aa 1700000000000"), None);
    }
}
