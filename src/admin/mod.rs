//! The admin port: one listener for `curl`, browsers, probes, Prometheus and the HTTP API.
//!
//! Owns the listening socket, the connections and their bounds, and the way of a request: [`auth`], [`routes`], the
//! answer. Reads the store, enqueues and changes jobs through the broker, gives orders through [`Control`]; never runs a
//! job itself. Nothing a client does may cost more than its own connection.

mod alter;
mod answer;
mod auth;
mod bulk;
mod enqueue;
mod entry;
mod events;
mod exposition;
mod fields;
mod filter;
mod flow;
mod health;
mod job;
mod limits;
mod nodes;
mod notes;
mod overview;
mod page;
mod pauses;
mod problem;
mod queue;
mod reload;
mod request;
mod routes;
mod server;
mod stall;
mod stance;
mod table;
mod task;
#[cfg(test)]
mod tests;
mod who;
mod why;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::Broker;
use crate::clock;
use crate::config::Config;
use crate::control::Control;
use crate::job::Timestamp;
use crate::metrics::Metrics;
use routes::Routes;
use stall::StallGuard;

/// What the admin port shows and works with.
#[derive(Debug)]
pub(crate) struct AdminParts {
    /// Read anew for every request, so a reload is seen at once. Only `admin.listen` is fixed by [`Admin::bind`].
    pub config: Arc<ArcSwap<Config>>,
    pub broker: Arc<Broker>,
    pub metrics: Arc<Metrics>,
    pub control: Control,
    pub version: &'static str,
}

/// A bound admin port. Connections wait in the kernel until [`Admin::serve`] runs.
#[derive(Debug)]
pub(crate) struct Admin {
    listener: TcpListener,
    local: SocketAddr,
    shared: Arc<Shared>,
    limits: Limits,
}

/// What every connection works with.
#[derive(Debug)]
struct Shared {
    parts: AdminParts,
    routes: Routes,
    local: SocketAddr,
    started: Timestamp,
    /// One for each client that may follow a job at the same time.
    followers: Arc<Semaphore>,
    /// The port closes: who follows a job is let go.
    stop: CancellationToken,
}

/// What one client, and all of them, may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    connections: usize,
    /// From the end of one answer (or the connect) to the end of the next request's headers: slow headers and idle
    /// connections end here.
    headers: Duration,
    /// For reading one request's body.
    body: Duration,
    /// For making one answer.
    answer: Duration,
    /// How long the client may leave an answer unread.
    stall: Duration,
    /// For what is still being answered when the port closes.
    stop: Duration,
    /// Bytes of a request's line and headers.
    head_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            headers: Duration::from_secs(20),
            body: Duration::from_secs(20),
            answer: Duration::from_secs(60),
            stall: Duration::from_secs(20),
            stop: Duration::from_secs(5),
            head_bytes: 32 * 1024,
        }
    }
}

/// After an `accept` that failed for want of something (file descriptors, memory) that takes a while to come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Clients that follow jobs at the same time: the other connections stay for questions.
const FOLLOWERS: usize = 64;

const TURNED_AWAY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Retry-After: 1\r\nConnection: close\r\nContent-Length: 44\r\n\r\n\
    the admin port has too many connections now\n";

impl Admin {
    /// Takes the address, so that the daemon can fail early where it is taken. Port 0 takes any free one.
    ///
    /// # Errors
    /// The operating system's reason, to be shown beside `admin.listen`.
    pub(crate) async fn bind(listen: SocketAddr, parts: AdminParts) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let local = listener.local_addr()?;
        let (followers, stop) = (Arc::new(Semaphore::new(FOLLOWERS)), CancellationToken::new());
        let shared = Shared { parts, routes: Routes::new(), local, started: clock::now(), followers, stop };
        Ok(Self { listener, local, shared: Arc::new(shared), limits: Limits::default() })
    }

    /// Where it listens, with the real port.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Serves until it is told to stop, then finishes what is being answered, within a deadline.
    pub(crate) async fn serve(self, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let free = Arc::new(Semaphore::new(self.limits.connections));
        while let Some(stream) = self.next_connection(&stop).await {
            match Arc::clone(&free).try_acquire_owned() {
                Ok(permit) => {
                    let shared = Arc::clone(&self.shared);
                    connections.spawn(connection(stream, shared, self.limits, permit, stop.clone()));
                }
                Err(_) => turn_away(&stream),
            }
        }
        drop(self.listener);
        self.shared.stop.cancel();
        connections.close();
        connections.wait().await;
    }

    /// The next connection; `None` when it is time to stop.
    async fn next_connection(&self, stop: &CancellationToken) -> Option<TcpStream> {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return None,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => return Some(stream),
                Err(error) => {
                    tracing::warn!("accept a connection on the admin port: {error}");
                    tokio::select! {
                        () = stop.cancelled() => return None,
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
    }
}

/// One connection, from its first request to its end. Every wait in it has a deadline.
async fn connection(
    stream: TcpStream,
    shared: Arc<Shared>,
    limits: Limits,
    _permit: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { routes::answer(&shared, &limits, request).await }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.headers).max_buf_size(limits.head_bytes);
    let io = TokioIo::new(StallGuard::new(stream, limits.stall));
    let mut serving = std::pin::pin!(builder.serve_connection(io, service));
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(limits.stop, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = result {
        tracing::debug!("a connection of the admin port ended: {error}");
    }
}

/// Says so in one packet, without waiting: whoever floods the port must not cost anything.
fn turn_away(stream: &TcpStream) {
    let _ = stream.try_write(TURNED_AWAY);
    tracing::debug!("the admin port has too many connections; one was turned away");
}
