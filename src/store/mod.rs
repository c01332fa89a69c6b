//! What a job looks like at rest: the connection to Redis, the names of all keys, and the reads.
//!
//! Nothing here changes a job; that is the broker's work.

mod embedded;
mod endpoint;
mod flows;
mod guardian;
mod inspect;
mod keys;
mod limits;
mod line;
mod link;
mod notes;
mod page;
mod reads;
mod refusal;
mod sentinel;
mod standing;
mod trash;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use embedded::{Embedded, EmbeddedError};
pub(crate) use endpoint::Endpoint;
pub(crate) use flows::{FlowLine, FlowView};
pub(crate) use guardian::{Code, Finding, Memory, Persistence, Policy, Report, Role, Severity, size};
pub(crate) use inspect::{ActiveView, QueueView};
pub(crate) use keys::{ForeignList, Keys, QueueKeys, RQ_BASE, RQ_EXECUTION, RQ_SUSPENDED, celery_list, rq_job};
pub(crate) use limits::{Blocked, Bound, LimitView};
pub(crate) use line::{LineView, MESSAGES};
pub(crate) use link::{Connected, Link, LinkError, PushSink, accepted};
pub(crate) use page::{Entry, Listed, Order, Position, Span};
pub(crate) use refusal::Refusal;
pub(crate) use standing::{Place, Standing};
pub(crate) use trash::PurgeView;

use crate::config::{RedisTls, Secret};
use guardian::Guardian;
use reads::Reads;

/// The store: one shared connection for the hot path and a small pool for reads.
#[derive(Debug)]
pub(crate) struct Store {
    pub keys: Keys,
    /// Shared by everything that moves jobs. Commands of many tasks travel on it side by side; nothing that blocks does.
    pub link: Link,
    /// For the reads of the admin port and for work that may be slow: it can never delay a claim.
    reads: Reads,
    /// Where all of them connect to.
    pub endpoint: Arc<Endpoint>,
    guardian: Guardian,
    timeout: Duration,
}

/// Why a store cannot be built from its configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("read redis.url: {0}")]
    Url(redis::RedisError),
}

impl Store {
    /// The store at a URL, with the public authorities for its TLS.
    ///
    /// # Errors
    /// [`StoreError`] when the URL cannot be read.
    pub(crate) fn new(
        url: &Secret,
        prefix: &str,
        timeout: Duration,
        scripts: &'static [&'static str],
    ) -> Result<Self, StoreError> {
        Ok(Self::at(Endpoint::at_url(url, &RedisTls::default())?, prefix, timeout, scripts))
    }

    /// Prepares the connections; opens none yet. `scripts` are loaded into Redis on every new connection of the link, so
    /// a Redis that has lost them (restart, failover) has them again.
    pub(crate) fn at(endpoint: Endpoint, prefix: &str, timeout: Duration, scripts: &'static [&'static str]) -> Self {
        let endpoint = Arc::new(endpoint);
        let link = Link::new(Arc::clone(&endpoint), timeout, scripts);
        let reads = Reads::new(Arc::clone(&endpoint), timeout);
        Self { keys: Keys::new(prefix), link, reads, endpoint, guardian: Guardian::default(), timeout }
    }

    /// A further connection of its own for something that listens: pushes of the server go to `sink`.
    pub(crate) fn listening_link(&self, sink: PushSink) -> Link {
        Link::listening(Arc::clone(&self.endpoint), self.timeout, sink)
    }
}
