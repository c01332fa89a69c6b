//! Where a message is read: what both wires need to turn it into a job.

use super::limits::Limits;
use crate::config::Config;
use crate::job::{NodeId, QueueName, Timestamp};

/// Everything that turning a message into a job takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Desk<'a> {
    pub(crate) config: &'a Config,
    pub(crate) queue: &'a QueueName,
    pub(crate) node: &'a NodeId,
    pub(crate) limits: &'a Limits,
    pub(crate) now: Timestamp,
}
