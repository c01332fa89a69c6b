//! jobsd: one background-jobs daemon.

mod clock;
mod config;
mod handler;
mod job;
#[cfg(test)]
mod testing;

fn main() {}
