//! The Lua scripts by name, and how one is called.

use std::sync::LazyLock;

use redis::{FromRedisValue, Pipeline, Value};

use super::BrokerError;
use crate::store::{LinkError, accepted};

/// `NAME with LIBRARY…` is a script before which files of `scripts/lib/` stand.
macro_rules! scripts {
    ($($name:ident $(with $($library:ident)+)?),* $(,)?) => {
        /// One transition each; see the header of the file.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(non_camel_case_types, reason = "the variants are the names of the files")]
        pub(super) enum Script { $($name),* }

        /// The source of every script.
        pub(super) const SCRIPTS: &[&str] = &[$(concat!(
            $($(include_str!(concat!("scripts/lib/", stringify!($library), ".lua")),)+)?
            include_str!(concat!("scripts/", stringify!($name), ".lua"))
        )),*];

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

scripts!(
    admit with unique, adopt, answer, claim with windows limits lines turns, discard, enqueue,
    enqueue_unique with unique, fire with unique, flow_advance, flow_bury, flow_cancel, flow_create, flow_prune,
    flow_reopen, flow_rest, heartbeat, keep with draws, move_jobs with unique, note with draws, promote, prune, purge,
    reap with draws, release with unique, restore, resume, retire, rq_alive, rq_answer with rq_waiting,
    rq_beat with rq_running, rq_begin with rq_running, rq_due with rq_waiting, rq_hold, rq_tidy with rq_waiting,
    settle with draws, shrink, take,
);

#[cfg(not(debug_assertions))]
static LOADED: LazyLock<Vec<&str>> = LazyLock::new(|| SCRIPTS.to_vec());
#[cfg(debug_assertions)]
static LOADED: LazyLock<Vec<&str>> = LazyLock::new(|| super::sabotage::scripts(SCRIPTS));

/// The scripts as Redis gets them, for [`crate::store::Store::new`].
pub(crate) fn scripts() -> &'static [&'static str] {
    &LOADED
}

/// The SHA-1 of each script, by which Redis knows it once it is loaded.
static HASHES: LazyLock<Vec<String>> =
    LazyLock::new(|| scripts().iter().map(|source| redis::Script::new(source).get_hash().to_owned()).collect());

impl Script {
    pub(super) fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    /// Starts a call in the pipeline; the arguments follow by `.arg(…)`.
    pub(super) fn call<'p>(self, pipeline: &'p mut Pipeline, keys: &[&str]) -> &'p mut Pipeline {
        pipeline.cmd("EVALSHA").arg(&HASHES[self as usize]).arg(keys.len()).arg(keys)
    }

    /// Reads the reply of a call.
    pub(super) fn reply<T: FromRedisValue>(self, reply: Value, expected: &'static str) -> Result<T, BrokerError> {
        T::from_redis_value(accepted(reply)?).map_err(|_| BrokerError::Answer { script: self.name(), expected })
    }
}

/// The only reply of a pipeline of one call.
pub(super) fn only(replies: Vec<Value>) -> Result<Value, LinkError> {
    replies.into_iter().next().ok_or(LinkError::Unexpected { what: "a call" })
}
