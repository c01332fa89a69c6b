//! A proxy between one node and Redis that can break the node's connections: by a reset, or by swallowing what is sent.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where Redis is.
#[derive(Debug, Clone)]
pub(super) enum Upstream {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// What happens to every connection that is open when it is said; later ones are not concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Reset,
    /// Neither side hears the other any more.
    Swallow,
    /// Redis hears the node, and the node does not hear Redis: claims are made that nobody learns of.
    SwallowAnswers,
}

#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    orders: watch::Sender<Option<Order>>,
    /// When a connection was last made through to Redis.
    connected: watch::Receiver<Option<Instant>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What the connections of a proxy share.
#[derive(Debug, Clone)]
struct Route {
    upstream: Upstream,
    /// Whether Redis may be reached at all.
    open: Arc<AtomicBool>,
    orders: watch::Receiver<Option<Order>>,
    connected: watch::Sender<Option<Instant>>,
    stop: CancellationToken,
}

const PAUSE: Duration = Duration::from_millis(20);

impl Proxy {
    /// While `open` is false, connections are refused.
    pub(super) async fn start(upstream: Upstream, open: Arc<AtomicBool>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (orders, heard) = watch::channel(None);
        let (made, connected) = watch::channel(None);
        let (address, stop, tasks) = (listener.local_addr()?, CancellationToken::new(), TaskTracker::new());
        let route = Route { upstream, open, orders: heard, connected: made, stop: stop.clone() };
        tasks.spawn(accept(listener, route, tasks.clone()));
        Ok(Self { address, orders, connected, stop, tasks })
    }

    pub(super) fn order(&self, order: Order) {
        self.orders.send_replace(Some(order));
    }

    /// When the node's latest connection to Redis was made.
    pub(super) fn connected(&self) -> Option<Instant> {
        *self.connected.borrow()
    }

    pub(super) async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn accept(listener: TcpListener, route: Route, tasks: TaskTracker) {
    loop {
        tokio::select! {
            () = route.stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tasks.spawn(connect(stream, route.clone()))),
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
        }
    }
}

/// Leads the connection through to Redis; drops it where there is none.
async fn connect(node: TcpStream, mut route: Route) {
    route.orders.mark_unchanged();
    if !route.open.load(Ordering::Relaxed) {
        return;
    }
    let _ = node.set_nodelay(true);
    match &route.upstream {
        Upstream::Tcp(host, port) => {
            let Ok(redis) = TcpStream::connect((host.as_str(), *port)).await else { return };
            let _ = redis.set_nodelay(true);
            relay(node, redis.into_split(), route).await;
        }
        Upstream::Unix(path) => {
            let Ok(redis) = UnixStream::connect(path).await else { return };
            relay(node, redis.into_split(), route).await;
        }
    }
}

/// Carries bytes both ways until either side ends, or an order ends both.
async fn relay(mut node: TcpStream, redis: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin), mut route: Route) {
    route.connected.send_replace(Some(Instant::now()));
    let (deaf, dumb) = (AtomicBool::new(false), AtomicBool::new(false));
    let (from_node, to_node) = node.split();
    let reset = {
        let mut asking = std::pin::pin!(carry(from_node, redis.1, &deaf));
        let mut answering = std::pin::pin!(carry(redis.0, to_node, &dumb));
        loop {
            tokio::select! {
                () = asking.as_mut() => break false,
                () = answering.as_mut() => break false,
                () = route.stop.cancelled() => break false,
                Ok(()) = route.orders.changed() => match *route.orders.borrow_and_update() {
                    Some(Order::Reset) => break true,
                    Some(order) => {
                        dumb.store(true, Ordering::Relaxed);
                        deaf.store(order == Order::Swallow, Ordering::Relaxed);
                    }
                    None => {}
                },
            }
        }
    };
    if reset {
        // Closed like this, the kernel sends RST in place of FIN.
        let _ = node.set_zero_linger();
    }
}

/// Carries bytes one way until there are no more; throws them away while `swallow` says so.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, swallow: &AtomicBool) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if !swallow.load(Ordering::Relaxed) && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        address
    }

    async fn proxy() -> Proxy {
        let server = echo().await;
        let upstream = Upstream::Tcp(server.ip().to_string(), server.port());
        Proxy::start(upstream, Arc::new(AtomicBool::new(true))).await.expect("a port is free")
    }

    async fn said_back(stream: &mut TcpStream) -> io::Result<bool> {
        stream.write_all(b"hello").await?;
        let mut answer = [0; 5];
        match tokio::time::timeout(Duration::from_millis(300), stream.read_exact(&mut answer)).await {
            Ok(read) => read.map(|_| answer == *b"hello"),
            Err(_) => Ok(false),
        }
    }

    #[tokio::test]
    async fn bytes_go_through_until_a_reset() {
        let proxy = proxy().await;
        let mut stream = TcpStream::connect(proxy.address).await.expect("it listens");
        assert!(said_back(&mut stream).await.expect("it goes through"));
        assert!(proxy.connected().is_some());
        proxy.order(Order::Reset);
        let broken = stream.read(&mut [0; 5]).await.expect_err("it was reset, not closed");
        assert_eq!(broken.kind(), io::ErrorKind::ConnectionReset);
        let mut later = TcpStream::connect(proxy.address).await.expect("it listens");
        assert!(said_back(&mut later).await.expect("an earlier order does not concern it"));
        proxy.end().await;
    }

    #[tokio::test]
    async fn a_dead_connection_is_silent_and_stays_open() {
        for order in [Order::Swallow, Order::SwallowAnswers] {
            let proxy = proxy().await;
            let mut stream = TcpStream::connect(proxy.address).await.expect("it listens");
            assert!(said_back(&mut stream).await.expect("it goes through"));
            proxy.order(order);
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(!said_back(&mut stream).await.expect("it is not closed"), "{order:?}");
            proxy.end().await;
        }
    }
}
