//! The same checks, made by a producer's own clients, against the real workers and against jobsd: both columns are
//! printed, and every row is equal or its difference is explained.
//!
//! A suite is a Python program that prints a line of JSON for each row and does not know who works for it. `DIFFERENCES`
//! of a suite names the rows that differ, each with its reason; the README tells users the same.

mod celery;
mod rq;
mod table;

pub(crate) use rq::worker;
use table::{Row, compare};
