//! RQ's job hash and its results, as bytes and values; and RQ's workers as its clients see them, one for each slot.
//!
//! `job`, `payload`, `produce` and `result` turn bytes into values and back; `admission` and `answer` say what becomes of a
//! message and what its producer is told; `callback` and `webhook` make the jobs that follow its end. `front` is this node towards RQ's clients: `roster` knows who runs what, `clerk`
//! shows it, hears commands and cleans up, `registration` lists the workers, and `scheduler` does what RQ's own does.

pub(crate) mod admission;
pub(crate) mod answer;
mod callback;
mod clerk;
mod command;
mod follow_up;
mod front;
pub(crate) mod job;
pub(crate) mod keys;
mod payload;
pub(crate) mod produce;
mod registration;
pub(crate) mod result;
mod roster;
mod scheduler;
mod tallies;
mod webhook;

pub(crate) use clerk::run;
pub(crate) use front::Front;

use crate::broker::Withdrawn;

/// How a job says that its producer has cancelled it.
pub(crate) const WITHDRAWN: Withdrawn = Withdrawn("status", "canceled");

#[cfg(test)]
mod tests;
