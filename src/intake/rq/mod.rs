//! RQ 2.0's job hash and its results, as bytes and values. Which keys they live in, and when, is not known here.

pub(crate) mod admission;
pub(crate) mod answer;
pub(crate) mod job;
pub(crate) mod keys;
mod payload;
pub(crate) mod produce;
pub(crate) mod result;

#[cfg(test)]
mod tests;
