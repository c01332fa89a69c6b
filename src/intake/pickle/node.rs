//! What the pickle machine builds: nodes in an arena that refer to each other by index. An index is all there is to
//! copy or to drop, so no pickle, however deep or cyclic, makes us recurse.

use chrono::TimeDelta;
use chrono_tz::Tz;

use super::globals::Known;
use crate::intake::limits::{Exceeded, Limits};
use crate::intake::tagged::Tag;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeId(u32);

impl NodeId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// Beyond `i64`, in decimal.
    BigInt(String),
    Float(f64),
    Text(String),
    /// Text with lone surrogates, as its code points.
    Points(Vec<u32>),
    Bytes(Vec<u8>),
    Bytearray(Vec<u8>),
    /// A finished value that its tag holds as text: dates, decimals.
    Tagged(Tag, String),
    /// A finished UUID.
    Uuid(u128),
    /// A UUID before its state arrives.
    BlankUuid,
    Timedelta(TimeDelta),
    Zone(Zone),
    Tuple(Vec<NodeId>),
    List(Vec<NodeId>),
    Dict(Vec<(NodeId, NodeId)>),
    Set(Vec<NodeId>),
    Frozenset(Vec<NodeId>),
    /// `complex`, `range`, `slice`: a tag around a tuple.
    Around(Tag, NodeId),
    /// A built-in exception and the tuple of its arguments.
    Exception(&'static str, NodeId),
    Class(Known),
}

/// A `tzinfo`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Zone {
    Fixed(TimeDelta),
    Named(Tz),
}

/// All nodes of one pickle.
#[derive(Debug)]
pub(super) struct Arena {
    nodes: Vec<Node>,
    limit: usize,
}

impl Arena {
    pub(super) fn new(limits: &Limits) -> Self {
        // Class references and argument tuples are nodes too, but never become values.
        Self { nodes: Vec::new(), limit: limits.nodes.saturating_mul(2) }
    }

    pub(super) fn push(&mut self, node: Node) -> Result<NodeId, Exceeded> {
        if self.nodes.len() >= self.limit {
            return Err(Exceeded::Nodes(self.limit));
        }
        let id = u32::try_from(self.nodes.len()).map_err(|_| Exceeded::Nodes(self.limit))?;
        self.nodes.push(node);
        Ok(NodeId(id))
    }

    pub(super) fn get(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The items of a tuple.
    pub(super) fn tuple(&self, id: NodeId) -> Option<&[NodeId]> {
        match self.get(id) {
            Node::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// The items of any sequence or set.
    pub(super) fn items(&self, id: NodeId) -> Option<&[NodeId]> {
        match self.get(id) {
            Node::Tuple(items) | Node::List(items) | Node::Set(items) | Node::Frozenset(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn text(&self, id: NodeId) -> Option<&str> {
        match self.get(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn bytes(&self, id: NodeId) -> Option<&[u8]> {
        match self.get(id) {
            Node::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn int(&self, id: NodeId) -> Option<i64> {
        match self.get(id) {
            Node::Int(int) => Some(*int),
            _ => None,
        }
    }
}
