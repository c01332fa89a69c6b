//! RQ 2.0's job hash and its results, as bytes and values. Which keys they live in, and when, is not known here.

pub(crate) mod job;
mod payload;
pub(crate) mod produce;
pub(crate) mod result;

#[cfg(test)]
mod tests;
