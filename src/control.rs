//! Reload and stop: how they reach the daemon, from signals and from the admin port, and what phase it is in.

use tokio::sync::{mpsc, oneshot, watch};

/// Where the daemon is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Running,
    /// No new claims; running jobs may finish until the deadline.
    Draining,
}

/// What somebody wants of the daemon.
#[derive(Debug)]
pub(crate) enum Order {
    /// Read the configuration again. The answer says what changed, or why nothing did.
    Reload(oneshot::Sender<Result<String, String>>),
    Stop,
}

/// The handle through which orders are given and the phase is read. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    orders: mpsc::Sender<Order>,
    phase: watch::Sender<Phase>,
}

/// Orders that wait; whoever gives more than these waits too.
const ORDERS: usize = 8;

impl Control {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel(ORDERS);
        (Self { orders, phase: watch::Sender::new(Phase::Starting) }, receiver)
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Asks for a reload and waits for its outcome, in words.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub(crate) async fn reload(&self) -> Result<String, String> {
        let (answer, outcome) = oneshot::channel();
        let stopping = || "the daemon is stopping".to_owned();
        self.orders.send(Order::Reload(answer)).await.map_err(|_| stopping())?;
        outcome.await.map_err(|_| stopping())?
    }

    /// Asks for an orderly stop. A daemon that is stopping already is not asked twice.
    pub(crate) async fn stop(&self) {
        let _ = self.orders.send(Order::Stop).await;
    }
}
