//! The whole program from outside: the real executable, real Redis, PostgreSQL and SMTP servers, and the unchanged
//! Python producers of tests/python.
//!
//! One module a promise. What they stand on is in [`bench`]: every server and process belongs to the test that started
//! it and ends with it, whatever becomes of the test.

mod analytics;
mod bad_input;
mod batch;
mod bench;
mod beside;
mod breaker;
mod cancel;
mod canvas;
mod causes;
mod celery;
mod celery_control;
mod check;
mod command_line;
mod conformance;
mod crash;
mod deliveries;
mod demand;
mod embedded;
mod flower;
mod flows;
mod limits;
mod mail;
mod mail_kills;
mod outage;
mod pause;
mod progress;
mod purge;
mod redis_access;
mod redis_refuses;
mod reload;
mod retries;
mod rq;
mod rq_dashboard;
mod scale;
mod schedule;
mod secrets;
mod sentinel;
mod slots;
mod stop;
mod torture;
mod unique;
mod why;
mod workload;
