//! Celery's messages, of protocol 2 and of protocol 1, and its result documents, as bytes and values. Which lists and keys they live in, and
//! when, is not known here.

pub(crate) mod admission;
pub(crate) mod answer;
mod canvas;
mod envelope;
mod exception;
pub(crate) mod message;
pub(crate) mod produce;
mod protocol_1;
pub(crate) mod refusal;
pub(crate) mod result;

#[cfg(test)]
mod tests;
