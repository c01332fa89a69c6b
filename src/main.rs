//! jobsd: one background-jobs daemon.

mod admin;
mod broker;
mod clock;
mod config;
mod control;
mod job;
mod metrics;
mod store;
#[cfg(test)]
mod testing;

fn main() {}
