//! One shared connection to Redis that heals itself: every call has a deadline, and a connection that broke it is
//! thrown away, so the next call opens a new one. So is one to a server that turns out to be a replica, or that the
//! endpoint has left for another.
//!
//! Not a library's reconnecting manager, because a call that timed out must also cost the connection: behind a network
//! that drops packets silently, the old one would answer never.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, ProtocolVersion, PushInfo, Value};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::refusal::Refusal;

/// A server that says of itself that it is not the one is asked once more no sooner than this.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Where the pushes of a listening connection go.
pub(crate) type PushSink = mpsc::UnboundedSender<PushInfo>;

/// Why a call to Redis gave nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("connect to Redis: {}", explained(.0))]
    Connect(redis::RedisError),
    #[error(
        "connect to Redis: {0}: the server ended the connection at its first words; if it asks for a certificate of \
         ours, set redis.cert_file and redis.key_file"
    )]
    Anonymous(redis::RedisError),
    #[error("find the master {name:?} of Redis: no Sentinel names it ({reasons})")]
    NoMaster { name: String, reasons: String },
    #[error("connect to Redis: the Sentinels name {address}, which says that it is a {role}")]
    NotMaster { address: String, role: String },
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
    /// The endpoint's, when it was opened.
    epoch: u64,
    opened: Instant,
}

#[derive(Debug)]
pub(crate) struct Link {
    endpoint: Arc<Endpoint>,
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
    connected: Option<Connected>,
}

impl Link {
    pub(super) fn new(endpoint: Arc<Endpoint>, timeout: Duration, scripts: &'static [&'static str]) -> Self {
        Self {
            endpoint,
            timeout,
            scripts,
            sink: None,
            slot: Mutex::default(),
            broken: AtomicU64::new(0),
            lost: AtomicBool::new(false),
        }
    }

    pub(super) fn listening(endpoint: Arc<Endpoint>, timeout: Duration, sink: PushSink) -> Self {
        Self { sink: Some(sink), ..Self::new(endpoint, timeout, &[]) }
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

    /// Asks for what is published on these channels, on a connection that the caller holds. It comes as pushes.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub(crate) async fn subscribe_on(&self, connected: &mut Connected, channels: &[String]) -> Result<(), LinkError> {
        let result = match tokio::time::timeout(self.timeout, connected.connection.subscribe(channels)).await {
            Err(_) => Err(LinkError::Timeout(self.timeout)),
            Ok(Err(error)) if error.is_io_error() || error.is_timeout() => Err(LinkError::Broken(error)),
            Ok(Err(error)) => return Err(LinkError::Refused(error.to_string())),
            Ok(Ok(())) => return Ok(()),
        };
        self.discard(connected.generation);
        result
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
        match &result {
            Err(_) => self.discard(connected.generation),
            Ok(replies) => replies.iter().filter_map(refusal_of).for_each(|refusal| self.heed(connected, refusal)),
        }
        result
    }

    /// What follows from a refusal, besides the caller's failure.
    fn heed(&self, connected: &Connected, refusal: Refusal) {
        // A script that Redis does not know means that it was restarted or emptied behind this connection:
        // connecting again loads them all.
        if refusal == Refusal::NoScript {
            self.discard(connected.generation);
        }
        if refusal.leads_elsewhere() && connected.opened.elapsed() >= SECOND_LOOK {
            self.discard(connected.generation);
            self.endpoint.leave(connected.epoch);
        }
        if refusal.concerns_the_guardian() {
            self.endpoint.alarm.notify_one();
        }
    }

    /// The live connection, opened if there is none.
    ///
    /// # Errors
    /// [`LinkError`] when Redis cannot be reached or refuses us.
    pub(crate) async fn connected(&self) -> Result<Connected, LinkError> {
        let mut slot = self.slot.lock().await;
        if let Some(connected) = &slot.connected
            && connected.generation > self.broken.load(Ordering::Relaxed)
            && connected.epoch == self.endpoint.epoch()
        {
            return Ok(connected.clone());
        }
        let (connection, epoch) = match tokio::time::timeout(self.timeout, self.open()).await {
            Err(_) => return Err(LinkError::ConnectTimeout(self.timeout)),
            Ok(opened) => opened?,
        };
        slot.generation += 1;
        let connected = Connected { connection, generation: slot.generation, epoch, opened: Instant::now() };
        slot.connected = Some(connected.clone());
        if slot.generation > 1 {
            // Another server, or the same with other settings.
            self.endpoint.alarm.notify_one();
        }
        Ok(connected)
    }

    /// The connection of this generation is not to be used again.
    fn discard(&self, generation: u64) {
        self.broken.fetch_max(generation, Ordering::Relaxed);
    }

    /// A new connection, and the epoch of the endpoint in which it was opened.
    async fn open(&self) -> Result<(MultiplexedConnection, u64), LinkError> {
        // Our own deadlines stand above the library's, whose default of half a second would cut slow scripts off.
        let mut config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let found = self.endpoint.find().await?;
        let mut client = found.client;
        if let Some(sink) = &self.sink {
            config = config.set_push_sender(sink.clone());
            client = resp3(&client).map_err(LinkError::Connect)?;
        }
        let mut connection =
            client.get_multiplexed_async_connection_with_config(&config).await.map_err(LinkError::Connect)?;
        self.endpoint.verify(&mut connection).await?;
        if !self.scripts.is_empty() {
            let mut load = Pipeline::new();
            for script in self.scripts {
                load.cmd("SCRIPT").arg("LOAD").arg(script);
            }
            let replies = connection
                .send_packed_commands(&load, 0, self.scripts.len())
                .await
                .map_err(|error| self.endpoint.explain(error))?;
            if let Some(refusal) = replies.iter().find_map(refusal) {
                return Err(LinkError::Refused(refusal));
            }
        }
        Ok((connection, found.epoch))
    }
}

/// The same server in protocol 3, the only one in which it can push.
fn resp3(client: &redis::Client) -> redis::RedisResult<redis::Client> {
    let info = client.get_connection_info().clone();
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    redis::Client::open(info.set_redis_settings(settings))
}

/// The library's words, with the remedy where it names none.
fn explained(error: &redis::RedisError) -> String {
    let words = error.to_string();
    // What an authority of the same name but another key gives is a bad signature.
    if words.contains("UnknownIssuer") || words.contains("BadSignature") {
        return format!(
            "{words}: the server's certificate is from an authority that is not trusted; name its PEM file in redis.ca_file"
        );
    }
    words
}

fn refusal_of(reply: &Value) -> Option<Refusal> {
    refusal(reply).and_then(|words| Refusal::of(&words))
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
