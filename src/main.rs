//! jobsd: one background-jobs daemon.

mod clock;
mod config;
mod job;

fn main() {}
