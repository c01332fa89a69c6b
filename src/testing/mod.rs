//! What tests stand on: private servers on free ports, and the values that every handler's test needs.
//!
//! Every server belongs to the test that started it and ends with it.

pub(crate) mod attempt;
pub(crate) mod certificate;
pub(crate) mod dice;
pub(crate) mod fixture;
pub(crate) mod http;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod redis;
pub(crate) mod wait;
