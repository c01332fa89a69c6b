//! What the tests stand on: servers, the daemon, producers, and what can be seen of jobs from outside.

mod child;
mod cli;
mod daemon;
mod far_world;
mod http;
mod jobs;
mod mail_provider;
mod moto;
mod port;
mod postgres;
mod python;
mod redis;
mod sentinels;
mod smtp;
mod wait;
mod wire;
pub(crate) mod work;

pub(crate) use child::Child;
pub(crate) use daemon::{Daemon, Home, shipped};
pub(crate) use far_world::FarWorld;
pub(crate) use http::{Answer, get, get_with, post};
pub(crate) use jobs::{Jobs, reason};
pub(crate) use mail_provider::{Accepted, MailProvider};
pub(crate) use moto::Moto;
pub(crate) use port::free_port;
pub(crate) use postgres::Postgres;
pub(crate) use python::{Python, one};
pub(crate) use redis::Redis;
pub(crate) use sentinels::Sentinels;
pub(crate) use smtp::Smtp;
pub(crate) use wait::{until, until_within};
pub(crate) use wire::{celery_message, envelope, push, random_id};
