//! A proxy before PostgreSQL that cuts the connection at a chosen message of the client's.
//!
//! It knows of the protocol only where a message ends: after the first one each has a type, and a length that counts itself.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What happens at the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The server does not get it.
    Unsent,
    /// The server gets it, and the client no answer.
    Unanswered,
    /// Nothing passes any more, and nobody is told: a firewall that has forgotten the connection.
    Silent,
}

pub(super) struct Cutter {
    pub(super) port: u16,
    plan: Arc<Mutex<Plan>>,
    _connections: JoinSet<()>,
}

#[derive(Default)]
struct Plan {
    /// How many messages pass before it happens.
    cut: Option<(usize, Cut)>,
}

impl Cutter {
    pub(super) async fn before(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let plan: Arc<Mutex<Plan>> = Arc::default();
        let mut tasks = JoinSet::new();
        let shared = plan.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let plan = shared.clone();
                connections.spawn(async move {
                    // A connection that ends in the middle is what this is for.
                    let _ = pass(client, server, &plan).await;
                });
            }
        });
        Self { port, plan, _connections: tasks }
    }

    /// From now on so many messages pass, and the next one is cut; the connections after that one are whole.
    pub(super) fn cut_after(&self, messages: usize, how: Cut) {
        self.plan.lock().expect("nobody panics with it").cut = Some((messages, how));
    }

    /// Whether there was so much to say at all. Nothing is cut from now on.
    pub(super) fn has_cut(&self) -> bool {
        self.plan.lock().expect("nobody panics with it").cut.take().is_none()
    }
}

impl Plan {
    fn next(&mut self) -> Option<Cut> {
        let (left, how) = self.cut?;
        self.cut = left.checked_sub(1).map(|left| (left, how));
        (left == 0).then_some(how)
    }
}

async fn pass(client: TcpStream, server: u16, plan: &Mutex<Plan>) -> std::io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut answers = JoinSet::new();
    answers.spawn(
        async move { tokio::io::copy(&mut from_server, &mut to_client).await.map(|_| (from_server, to_client)) },
    );
    to_server.write_all(&message(&mut from_client, false).await?).await?;
    loop {
        let message = message(&mut from_client, true).await?;
        let cut = plan.lock().expect("nobody panics with it").next();
        match cut {
            None => to_server.write_all(&message).await?,
            Some(Cut::Unsent) => return Ok(()),
            Some(Cut::Unanswered) => {
                // The client's side is closed; the server's stays until it has read what was sent.
                answers.shutdown().await;
                to_server.write_all(&message).await?;
                return to_server.shutdown().await;
            }
            Some(Cut::Silent) => {
                // The client gives up one day, and both ends close.
                while from_client.read(&mut [0; 1024]).await? > 0 {}
                return Ok(());
            }
        }
    }
}

/// The next message as it came.
async fn message(from: &mut OwnedReadHalf, has_type: bool) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(has_type) + 4];
    from.read_exact(&mut message).await?;
    let length: [u8; 4] = message[message.len() - 4..].try_into().expect("four bytes");
    let whole = usize::from(has_type) + u32::from_be_bytes(length) as usize;
    let known = message.len();
    message.resize(whole, 0);
    from.read_exact(&mut message[known..]).await?;
    Ok(message)
}
