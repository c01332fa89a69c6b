//! The nodes on one Redis: what each says of itself, and what each is told.

use redis::{FromRedisValue, Pipeline, Value};
use serde::{Deserialize, Serialize};

use super::{Broker, BrokerError, Outage, Override, Scaled};
use crate::job::{NodeId, QueueName, Timestamp};
use crate::store::accepted;

/// What a node says of itself with every heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeCard {
    pub version: String,
    pub host: String,
    pub pid: u32,
    pub started: Timestamp,
    pub seen: Timestamp,
    /// Until then its claims are its own.
    pub lease_until: Timestamp,
    pub queues: Vec<NodeQueue>,
    /// What all of them together may run at a time, where the node has a bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<usize>,
    /// It claims nothing more: it was told to drain, or it is stopping.
    pub draining: bool,
}

/// A queue as a node serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeQueue {
    pub queue: QueueName,
    pub concurrency: usize,
    pub running: usize,
    /// Why it waits there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outage: Option<Outage>,
    /// Who has set the number of its slots there.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "override")]
    pub set: Option<Override>,
    /// Where the number of its slots follows the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaled: Option<Scaled>,
}

/// What a node can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeOrder {
    /// Claim nothing more; what runs goes on.
    Drain,
}

/// A node that was not seen for this many leases is forgotten.
const FORGOTTEN_AFTER: u32 = 240;

impl Broker {
    /// Says that this node lives, and hears what it was told.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer.
    pub(crate) async fn present(&self, card: &NodeCard) -> Result<Option<NodeOrder>, BrokerError> {
        let text = serde_json::to_string(card).map_err(|error| BrokerError::Encode(error.to_string()))?;
        let (nodes, orders) = (self.store.keys.nodes(), self.store.keys.orders());
        let mut pipeline = Pipeline::new();
        pipeline.hset(nodes, self.node.as_str(), text).hget(orders, self.node.as_str());
        let mut replies = self.store.link.send(&pipeline).await?.into_iter();
        // A full Redis refuses this; the leases, which matter, are renewed elsewhere.
        let _ = replies.next();
        let order = accepted(replies.next().unwrap_or(Value::Nil))?;
        Ok(matches!(order, Value::BulkString(word) if word == b"drain").then_some(NodeOrder::Drain))
    }

    /// Takes a node off the list: this one, when it ends, or one that is known to be dead.
    ///
    /// # Errors
    /// [`BrokerError`]: it stays on the list, as not seen any more.
    pub(crate) async fn leave(&self, node: &NodeId) -> Result<(), BrokerError> {
        let mut pipeline = Pipeline::new();
        pipeline.hdel(self.store.keys.nodes(), node.as_str()).hdel(self.store.keys.orders(), node.as_str());
        self.store.link.send(&pipeline).await?;
        Ok(())
    }

    /// All nodes that were seen lately, living or not.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer.
    pub(crate) async fn nodes(&self, now: Timestamp) -> Result<Vec<(NodeId, NodeCard)>, BrokerError> {
        let mut pipeline = Pipeline::new();
        pipeline.hgetall(self.store.keys.nodes());
        let reply = accepted(super::script::only(self.store.link.send(&pipeline).await?)?)?;
        let unexpected = |_| BrokerError::Answer { script: "HGETALL", expected: "nodes" };
        let found: Vec<(String, String)> = FromRedisValue::from_redis_value(reply).map_err(unexpected)?;
        let mut nodes = Vec::new();
        for (id, card) in found {
            let (Ok(id), Ok(card)) = (NodeId::parse(&id), serde_json::from_str::<NodeCard>(&card)) else { continue };
            if now.since(card.seen) > self.lease() * FORGOTTEN_AFTER {
                self.leave(&id).await?;
            } else {
                nodes.push((id, card));
            }
        }
        nodes.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(nodes)
    }

    /// Tells a node something, or takes back what it was told. It hears with its next heartbeat.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it.
    pub(crate) async fn order(&self, node: &NodeId, order: Option<NodeOrder>) -> Result<(), BrokerError> {
        let orders = self.store.keys.orders();
        let mut pipeline = Pipeline::new();
        match order {
            Some(NodeOrder::Drain) => pipeline.hset(orders, node.as_str(), "drain"),
            None => pipeline.hdel(orders, node.as_str()),
        };
        accepted(super::script::only(self.store.link.send(&pipeline).await?)?)?;
        Ok(())
    }
}
