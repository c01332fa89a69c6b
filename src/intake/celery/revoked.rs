//! Ids that clients have revoked: their messages are refused when they come.
//!
//! As Celery's worker this node remembers 50,000 of them for three hours; unlike that worker it also keeps them in Redis, so
//! a restart forgets none. Every node hears every revocation, and all write the same.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{FromRedisValue, Pipeline};
use tokio::sync::OnceCell;

use crate::broker::BrokerError;
use crate::job::Timestamp;
use crate::store::{Store, accepted};

/// As Celery's `REVOKES_MAX` and `REVOKE_EXPIRES`.
const MOST: usize = 50_000;
const REMEMBERED: Duration = Duration::from_secs(3 * 3600);
/// Ids in one command.
const TOGETHER: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Revoked {
    known: Mutex<Known>,
    /// Filled from Redis once.
    loaded: OnceCell<()>,
}

#[derive(Debug, Default)]
struct Known {
    until: HashMap<String, Timestamp>,
    order: BTreeSet<(Timestamp, String)>,
}

impl Revoked {
    /// Reads what was revoked before this process started, once.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it; until then nobody knows who was revoked.
    pub(super) async fn load(&self, store: &Store, now: Timestamp) -> Result<(), BrokerError> {
        let load = || async {
            let mut pipeline = Pipeline::new();
            let key = store.keys.revoked();
            pipeline.cmd("ZRANGEBYSCORE").arg(key).arg(now.as_millis()).arg("+inf").arg("WITHSCORES");
            let reply = store.link.send(&pipeline).await?.into_iter().next().unwrap_or(redis::Value::Nil);
            let unexpected = |_| BrokerError::Answer { script: "ZRANGEBYSCORE", expected: "ids and times" };
            let found: Vec<(String, u64)> = FromRedisValue::from_redis_value(accepted(reply)?).map_err(unexpected)?;
            let mut known = self.known();
            found.into_iter().for_each(|(id, until)| known.add(id, Timestamp::from_millis(until)));
            Ok(())
        };
        self.loaded.get_or_try_init(load).await.map(|&()| ())
    }

    /// These are revoked from now on. What Redis does not take is remembered until the next start.
    pub(super) async fn add(&self, store: &Store, ids: &[String], now: Timestamp) {
        let until = now.after(REMEMBERED);
        {
            let mut known = self.known();
            ids.iter().for_each(|id| known.add(id.clone(), until));
        }
        let (key, mut pipeline) = (store.keys.revoked(), Pipeline::new());
        for some in ids.chunks(TOGETHER) {
            pipeline.cmd("ZADD").arg(&key);
            for id in some {
                pipeline.arg(until.as_millis()).arg(id);
            }
        }
        pipeline.cmd("ZREMRANGEBYSCORE").arg(&key).arg("-inf").arg(now.as_millis());
        pipeline.cmd("ZREMRANGEBYRANK").arg(&key).arg(0).arg(-1 - i64::try_from(MOST).unwrap_or(i64::MAX - 1));
        pipeline.cmd("PEXPIRE").arg(&key).arg(u64::try_from(REMEMBERED.as_millis()).unwrap_or(u64::MAX));
        let told = store
            .link
            .send(&pipeline)
            .await
            .and_then(|replies| replies.into_iter().try_for_each(|reply| accepted(reply).map(drop)));
        if let Err(error) = told {
            tracing::warn!("what Celery's clients have revoked is forgotten by a restart: failed to {error}");
        }
    }

    pub(super) fn contains(&self, id: &str, now: Timestamp) -> bool {
        self.known().until.get(id).is_some_and(|until| *until > now)
    }

    /// The ids, those revoked last at the end.
    pub(super) fn ids(&self, now: Timestamp) -> Vec<String> {
        let known = self.known();
        known.order.iter().filter(|(until, _)| *until > now).map(|(_, id)| id.clone()).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing in here panics between two changes that belong together.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn add(&mut self, id: String, until: Timestamp) {
        if let Some(before) = self.until.insert(id.clone(), until) {
            self.order.remove(&(before, id.clone()));
        }
        self.order.insert((until, id));
        while self.order.len() > MOST {
            if let Some((_, oldest)) = self.order.pop_first() {
                self.until.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room() {
        let mut known = Known::default();
        let at = |n: usize| Timestamp::from_millis(1000 + n as u64);
        (0..MOST + 2).for_each(|n| known.add(format!("id-{n}"), at(n)));
        known.add("id-2".to_owned(), at(MOST + 10));
        known.add("one more".to_owned(), at(MOST + 11));
        assert_eq!((known.until.len(), known.order.len()), (MOST, MOST));
        assert!(known.until.contains_key("id-2"), "revoked again");
        for gone in ["id-0", "id-1", "id-3"] {
            assert!(!known.until.contains_key(gone), "{gone}");
        }
    }
}
