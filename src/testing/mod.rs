//! What the tests of several modules share: real servers, private to one test.

mod redis;

pub(crate) use redis::RedisServer;
