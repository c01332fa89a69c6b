//! Celery's message protocol 2 and its result documents, as bytes and values. Which lists and keys they live in, and
//! when, is not known here.

pub(crate) mod admission;
pub(crate) mod answer;
mod canvas;
mod envelope;
mod exception;
pub(crate) mod message;
pub(crate) mod produce;
pub(crate) mod refusal;
pub(crate) mod result;

#[cfg(test)]
mod tests;
