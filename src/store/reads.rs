//! The pool of connections for reads, at the server where the link is.
//!
//! When the endpoint's epoch grows, the pool is left for a new one; what its connections are asked belongs to the
//! reads themselves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_redis::{Connection, Manager, Pool, PoolError};
use redis::{AsyncConnectionConfig, ErrorKind, RedisError};

use super::LinkError;
use super::endpoint::{Endpoint, Found};

/// Connections at the same time.
const CONNECTIONS: usize = 4;

#[derive(Debug)]
pub(super) struct Reads {
    endpoint: Arc<Endpoint>,
    timeout: Duration,
    /// With the epoch that it belongs to.
    pool: Mutex<Option<(u64, Pool)>>,
}

impl Reads {
    pub(super) fn new(endpoint: Arc<Endpoint>, timeout: Duration) -> Self {
        Self { endpoint, timeout, pool: Mutex::default() }
    }

    /// A connection that answers.
    ///
    /// # Errors
    /// [`PoolError`] when there is none within the timeout.
    pub(super) async fn get(&self) -> Result<Connection, PoolError> {
        let pool = match self.pool_of(self.endpoint.epoch()) {
            Some(pool) => pool,
            None => {
                let finding = tokio::time::timeout(self.timeout, self.endpoint.current());
                let found = finding.await.unwrap_or(Err(LinkError::ConnectTimeout(self.timeout)));
                self.renew(found.map_err(|error| unreachable(&error))?)?
            }
        };
        pool.get().await
    }

    fn pool_of(&self, epoch: u64) -> Option<Pool> {
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.as_ref().filter(|(of, _)| *of == epoch).map(|(_, pool)| pool.clone())
    }

    fn renew(&self, found: Found) -> Result<Pool, PoolError> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(Some(self.timeout));
        let manager = Manager::new_with_config(found.client.get_connection_info().clone(), config)?;
        let building = Pool::builder(manager)
            .max_size(CONNECTIONS)
            .wait_timeout(Some(self.timeout))
            .create_timeout(Some(self.timeout))
            .recycle_timeout(Some(self.timeout))
            .runtime(deadpool_redis::Runtime::Tokio1);
        let pool = building.build().expect("a pool with deadlines has a runtime for them");
        *self.pool.lock().unwrap_or_else(PoisonError::into_inner) = Some((found.epoch, pool.clone()));
        Ok(pool)
    }
}

fn unreachable(error: &LinkError) -> PoolError {
    PoolError::Backend(RedisError::from((ErrorKind::Io, "no server", error.to_string())))
}
