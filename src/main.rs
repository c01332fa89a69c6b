//! jobsd: one background-jobs daemon.

mod broker;
mod clock;
mod config;
mod control;
mod job;
mod metrics;
mod store;

fn main() {}
