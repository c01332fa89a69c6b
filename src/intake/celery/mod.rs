//! Celery: its messages, of protocol 2 and of protocol 1, and its result documents, as bytes and values; and this node as a
//! worker that Celery's clients see, ask and command.
//!
//! ```text
//! pump ──► admission ──► job                    events ──► `celery events`, Flower
//! reply ─► answer ─────► result                 clerk ◄──► request ─► inspect, command
//! both tell the front, which is what the clerk knows of them
//! ```

pub(crate) mod admission;
pub(crate) mod answer;
mod ask;
mod canvas;
mod clerk;
mod command;
mod envelope;
mod events;
mod exception;
mod front;
mod inspect;
mod keys;
pub(crate) mod message;
mod pool;
mod post;
pub(crate) mod produce;
mod protocol_1;
mod rate;
pub(crate) mod refusal;
mod request;
pub(crate) mod result;
mod revoked;
mod shown;
mod usage;

#[cfg(test)]
mod tests;

pub(crate) use clerk::run;
pub(crate) use front::Front;
