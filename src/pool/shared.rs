//! What all pools of a node share, and how one of them is told to end.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::config::Config;
use crate::handler::Handlers;
use crate::metrics::Metrics;

/// What all pools of a node share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub broker: Arc<Broker>,
    pub live: ArcSwap<Live>,
    pub metrics: Arc<Metrics>,
}

/// The configuration in force and the handlers built from it: replaced together by a reload.
#[derive(Debug)]
pub(crate) struct Live {
    pub config: Arc<Config>,
    pub handlers: Arc<Handlers>,
}

/// How a pool is told to end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    /// No new claims; what runs may finish.
    pub drain: CancellationToken,
    /// What still runs is interrupted and handed back.
    pub abort: CancellationToken,
    /// The whole node ends: no other pool of the queue follows in this process.
    pub for_good: CancellationToken,
}
