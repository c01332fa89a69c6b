//! jobsd: one background-jobs daemon.

mod broker;
mod clock;
mod config;
mod control;
mod handler;
mod intake;
mod job;
mod metrics;
mod node;
mod pool;
mod scheduler;
mod store;
#[cfg(test)]
mod testing;

fn main() {}
