//! One shared connection to Redis that heals itself: every call has a deadline, and a connection that broke it is
//! thrown away, so the next call opens a new one.
//!
//! Not a library's reconnecting manager, because a call that timed out must also cost the connection: behind a network
//! that drops packets silently, the old one would answer never.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, ProtocolVersion, PushInfo, Value};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

/// Where the pushes of a listening connection go.
pub(crate) type PushSink = mpsc::UnboundedSender<PushInfo>;

/// Why a call to Redis gave nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("connect to Redis: {0}")]
    Connect(redis::RedisError),
    #[error("connect to Redis: no answer within {0:?}")]
    ConnectTimeout(Duration),
    #[error("wait for Redis: no answer within {0:?}")]
    Timeout(Duration),
    /// The connection broke: whether the commands ran is unknown.
    #[error("talk to Redis: {0}")]
    Broken(redis::RedisError),
    /// Redis understood and refused.
    #[error("Redis answered: {0}")]
    Refused(String),
    /// Redis answered in a form that this version does not know.
    #[error("Redis answered {what} with something unexpected")]
    Unexpected { what: &'static str },
}

/// The live connection of a link, and which one in its life it is.
#[derive(Debug, Clone)]
pub(crate) struct Connected {
    connection: MultiplexedConnection,
    /// Grows with every new connection: two calls with the same number used the same one.
    pub generation: u64,
}

#[derive(Debug)]
pub(crate) struct Link {
    client: redis::Client,
    timeout: Duration,
    scripts: &'static [&'static str],
    sink: Option<PushSink>,
    slot: Mutex<Slot>,
    /// The latest generation that is known to be broken. Beside the slot, because whoever finds out must not wait for
    /// somebody who is connecting.
    broken: AtomicU64,
    /// Whether the last call failed: the loss and the return of Redis are each told once, by the shared link.
    lost: AtomicBool,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u64,
    connection: Option<MultiplexedConnection>,
}

impl Link {
    pub(super) fn new(client: redis::Client, timeout: Duration, scripts: &'static [&'static str]) -> Self {
        Self {
            client,
            timeout,
            scripts,
            sink: None,
            slot: Mutex::default(),
            broken: AtomicU64::new(0),
            lost: AtomicBool::new(false),
        }
    }

    pub(super) fn listening(client: redis::Client, timeout: Duration, sink: PushSink) -> Self {
        Self {
            client,
            timeout,
            scripts: &[],
            sink: Some(sink),
            slot: Mutex::default(),
            broken: AtomicU64::new(0),
            lost: AtomicBool::new(false),
        }
    }

    /// The deadline of one call, connecting aside.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends the commands in one round trip, within one deadline that covers connecting too: whoever waits for another's
    /// attempt to connect does not come late with an old time in its arguments. Each command has its own reply; one that
    /// Redis refused stands as [`Value::ServerError`] in its place.
    ///
    /// # Errors
    /// [`LinkError`] when no replies came. The commands may have run all the same.
    pub(crate) async fn send(&self, commands: &Pipeline) -> Result<Vec<Value>, LinkError> {
        let deadline = Instant::now() + self.timeout;
        let connected = tokio::time::timeout_at(deadline, self.connected()).await;
        let result = match connected.unwrap_or(Err(LinkError::ConnectTimeout(self.timeout))) {
            Ok(mut connected) => self.send_by(deadline, &mut connected, commands).await,
            Err(error) => Err(error),
        };
        self.tell(&result);
        result
    }

    fn tell(&self, result: &Result<Vec<Value>, LinkError>) {
        match result {
            Ok(_) => {
                if self.lost.swap(false, Ordering::Relaxed) {
                    tracing::info!("Redis is back");
                }
            }
            Err(error) => {
                if !self.lost.swap(true, Ordering::Relaxed) {
                    tracing::error!("Redis is lost, waiting for it: failed to {error}");
                }
            }
        }
    }

    /// As [`Link::send`], on a connection that the caller holds.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub(crate) async fn send_on(
        &self,
        connected: &mut Connected,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, LinkError> {
        self.send_by(Instant::now() + self.timeout, connected, commands).await
    }

    async fn send_by(
        &self,
        deadline: Instant,
        connected: &mut Connected,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, LinkError> {
        let call = connected.connection.send_packed_commands(commands, 0, commands.len());
        let result = match tokio::time::timeout_at(deadline, call).await {
            Err(_) => Err(LinkError::Timeout(self.timeout)),
            Ok(Err(error)) => Err(LinkError::Broken(error)),
            Ok(Ok(replies)) => Ok(replies),
        };
        // A script that Redis does not know means that it was restarted or emptied behind this connection:
        // connecting again loads them all.
        let lost = match &result {
            Err(_) => true,
            Ok(replies) => replies.iter().any(is_noscript),
        };
        if lost {
            self.discard(connected.generation);
        }
        result
    }

    /// The live connection, opened if there is none.
    ///
    /// # Errors
    /// [`LinkError`] when Redis cannot be reached or refuses us.
    pub(crate) async fn connected(&self) -> Result<Connected, LinkError> {
        let mut slot = self.slot.lock().await;
        if let Some(connection) = &slot.connection
            && slot.generation > self.broken.load(Ordering::Relaxed)
        {
            return Ok(Connected { connection: connection.clone(), generation: slot.generation });
        }
        let connection = match tokio::time::timeout(self.timeout, self.open()).await {
            Err(_) => return Err(LinkError::ConnectTimeout(self.timeout)),
            Ok(opened) => opened?,
        };
        slot.generation += 1;
        slot.connection = Some(connection.clone());
        Ok(Connected { connection, generation: slot.generation })
    }

    /// The connection of this generation is not to be used again.
    fn discard(&self, generation: u64) {
        self.broken.fetch_max(generation, Ordering::Relaxed);
    }

    async fn open(&self) -> Result<MultiplexedConnection, LinkError> {
        // Our own deadlines stand above the library's, whose default of half a second would cut slow scripts off.
        let mut config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let mut client = self.client.clone();
        if let Some(sink) = &self.sink {
            config = config.set_push_sender(sink.clone());
            client = resp3(&client).map_err(LinkError::Connect)?;
        }
        let mut connection =
            client.get_multiplexed_async_connection_with_config(&config).await.map_err(LinkError::Connect)?;
        if !self.scripts.is_empty() {
            let mut load = Pipeline::new();
            for script in self.scripts {
                load.cmd("SCRIPT").arg("LOAD").arg(script);
            }
            let replies =
                connection.send_packed_commands(&load, 0, self.scripts.len()).await.map_err(LinkError::Connect)?;
            if let Some(refusal) = replies.iter().find_map(refusal) {
                return Err(LinkError::Refused(refusal));
            }
        }
        Ok(connection)
    }
}

/// The same server in protocol 3, the only one in which it can push.
fn resp3(client: &redis::Client) -> redis::RedisResult<redis::Client> {
    let info = client.get_connection_info().clone();
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    redis::Client::open(info.set_redis_settings(settings))
}

fn is_noscript(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

/// The refusal in a reply, as Redis worded it.
fn refusal(reply: &Value) -> Option<String> {
    match reply {
        Value::ServerError(error) => Some(match error.details() {
            Some(details) => format!("{} {details}", error.code()),
            None => error.code().to_owned(),
        }),
        _ => None,
    }
}

/// Turns a reply that is a refusal into an error.
///
/// # Errors
/// [`LinkError::Refused`] with Redis's own words.
pub(crate) fn accepted(reply: Value) -> Result<Value, LinkError> {
    match refusal(&reply) {
        Some(words) => Err(LinkError::Refused(words)),
        None => Ok(reply),
    }
}
