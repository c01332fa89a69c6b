//! What a job looks like at rest: the connection to Redis, the names of all keys, and the reads.
//!
//! Nothing here changes a job; that is the broker's work.

mod embedded;
mod inspect;
mod keys;
mod link;
mod page;
mod standing;
mod trash;

use std::time::Duration;

pub(crate) use embedded::{Embedded, EmbeddedError};
pub(crate) use inspect::{ActiveView, QueueView};
pub(crate) use keys::{ForeignList, Keys, QueueKeys};
pub(crate) use link::{Link, LinkError, PushSink, accepted};
pub(crate) use page::{Entry, Listed, Order, Position, Span};
pub(crate) use standing::{Place, Standing};
pub(crate) use trash::PurgeView;

use crate::config::Secret;

/// The store: one shared connection for the hot path and a small pool for reads.
#[derive(Debug)]
pub(crate) struct Store {
    pub keys: Keys,
    /// Shared by everything that moves jobs. Commands of many tasks travel on it side by side; nothing that blocks does.
    pub link: Link,
    /// For the reads of the admin port and for work that may be slow: it can never delay a claim.
    reads: deadpool_redis::Pool,
    client: redis::Client,
    timeout: Duration,
}

/// Why a store cannot be built from its configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("read redis.url: {0}")]
    Url(redis::RedisError),
    #[error("build the pool of Redis connections: {0}")]
    Pool(String),
}

/// Connections in the pool for reads.
const READ_CONNECTIONS: usize = 4;

impl Store {
    /// Checks the URL and prepares the connections; opens none yet. `scripts` are loaded into Redis on every new
    /// connection of the link, so a Redis that has lost them (restart, failover) has them again.
    ///
    /// # Errors
    /// [`StoreError`] when the URL cannot be read.
    pub(crate) fn new(
        url: &Secret,
        prefix: &str,
        timeout: Duration,
        scripts: &'static [&'static str],
    ) -> Result<Self, StoreError> {
        let client = redis::Client::open(url.expose()).map_err(StoreError::Url)?;
        let reads = deadpool_redis::Config::from_url(url.expose())
            .builder()
            .map_err(|error| StoreError::Pool(error.to_string()))?
            .max_size(READ_CONNECTIONS)
            .wait_timeout(Some(timeout))
            .create_timeout(Some(timeout))
            .recycle_timeout(Some(timeout))
            .runtime(deadpool_redis::Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Pool(error.to_string()))?;
        let link = Link::new(client.clone(), timeout, scripts);
        Ok(Self { keys: Keys::new(prefix), link, reads, client, timeout })
    }

    /// A further connection of its own for something that listens: pushes of the server go to `sink`.
    pub(crate) fn listening_link(&self, sink: PushSink) -> Link {
        Link::listening(self.client.clone(), self.timeout, sink)
    }
}
