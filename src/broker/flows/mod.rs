//! Flows: how they go on when their jobs end.
//!
//! A flow is written down whole when it is submitted; its jobs are put into their queues one by one, as they become
//! ready. Whatever ends a job of a flow also writes a word for the flow, in the same transition ([`words`]). Any node
//! takes the words and does what follows from them ([`advance`]), and any node puts the jobs that have become ready into
//! their queues ([`start`]). So each thing that is still to be done stands in Redis until it is done: a word in its
//! list, a ready job in its set, a flow among those that are due.
//!
//! What if we die in between? Before a script: the word, or the ready job, is still there for the next one. After it: what
//! follows is there in its place. None of the steps can be done twice, because each begins by taking away what it is about.
//!
//! The keys of a flow and of the queues of its jobs are touched by one script, so they must lie on one server: unlike
//! queues alone, flows do not spread over a Redis Cluster.

pub(super) mod advance;
mod alter;
mod create;
mod prune;
mod start;
pub(super) mod words;

pub(crate) use alter::{FlowCancelled, FlowRetried};
pub(crate) use create::FlowCreated;
pub(crate) use start::{ReadyFlow, ReadyJob};
