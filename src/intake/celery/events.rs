//! Events: what this node does, as `celery events` and Flower hear it.
//!
//! Those of the worker itself say that it lives. Those of tasks are written only while a client wants them and somebody
//! listens, are gathered for a moment and sent together; an event that finds no room is lost, a job never waits for one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{FromRedisValue, Pipeline};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::keys;
use super::post::{Lamport, envelope};
use crate::broker::BrokerError;
use crate::intake::pyjson::{Dialect, dumps};
use crate::job::Timestamp;
use crate::store::{Store, accepted};

/// Events of tasks are gathered for so long.
pub(super) const GATHER: Duration = Duration::from_millis(50);
/// How often a worker says that it lives, and says that it says so.
pub(super) const BEAT: Duration = Duration::from_secs(2);
/// Events that wait; on a Redis that does not answer there may be more, and those are lost.
const WAITING: usize = 20_000;
/// Events in one message.
const TOGETHER: usize = 500;
const EXCHANGE: &str = "celeryev";

/// The events of one node.
#[derive(Debug)]
pub(super) struct Events {
    /// Who this node is to Celery's clients.
    pub(super) worker: String,
    pub(super) clock: Lamport,
    database: i64,
    /// A client has asked for events of tasks, or the configuration has.
    wanted: AtomicBool,
    /// Somebody heard the last message; without that nothing is written until a sign of life finds somebody.
    heard: AtomicBool,
    waiting: Mutex<Vec<String>>,
    lost: AtomicU64,
    /// There is something to send.
    pub(super) stir: Notify,
}

/// What a worker says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sign {
    Online,
    Heartbeat,
    Offline,
}

impl Sign {
    fn word(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Heartbeat => "heartbeat",
            Self::Offline => "offline",
        }
    }
}

impl Events {
    pub(super) fn new(worker: String, database: i64) -> Self {
        Self {
            worker,
            clock: Lamport::default(),
            database,
            wanted: AtomicBool::new(false),
            heard: AtomicBool::new(false),
            waiting: Mutex::default(),
            lost: AtomicU64::new(0),
            stir: Notify::new(),
        }
    }

    /// Whether events of tasks are written.
    pub(super) fn flow(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) && self.heard.load(Ordering::Relaxed)
    }

    /// Somebody wants events of tasks, or does not any more. Says what was before.
    pub(super) fn want(&self, wanted: bool) -> bool {
        self.wanted.swap(wanted, Ordering::Relaxed)
    }

    /// A client is there, who may listen.
    pub(super) fn expect_listener(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Notes an event of a task; `fields` are those besides what every event has.
    pub(super) fn task(&self, kind: &str, at: Timestamp, fields: Value) {
        let event = dumps(&self.event(&format!("task-{kind}"), at, fields), Dialect::Plain);
        let mut waiting = self.waiting();
        if waiting.len() < WAITING {
            waiting.push(event);
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        drop(waiting);
        self.stir.notify_one();
    }

    /// Sends the events of tasks that wait.
    ///
    /// # Errors
    /// [`BrokerError`]: those are lost.
    pub(super) async fn flush(&self, store: &Store) -> Result<(), BrokerError> {
        let waiting = std::mem::take(&mut *self.waiting());
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(lost, "events for Celery's clients came faster than Redis takes them");
        }
        for together in waiting.chunks(TOGETHER) {
            let body = format!("[{}]", together.join(", "));
            self.heard.store(self.publish(store, "task.multi", &body).await? > 0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Says something of the worker itself; `fields` are those besides what every event has. Says whether anybody heard.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer.
    pub(super) async fn sign(
        &self,
        store: &Store,
        sign: Sign,
        at: Timestamp,
        fields: Value,
    ) -> Result<bool, BrokerError> {
        let word = sign.word();
        let event = self.event(&format!("worker-{word}"), at, fields);
        let heard = self.publish(store, &format!("worker.{word}"), &dumps(&event, Dialect::Plain)).await? > 0;
        if heard {
            self.expect_listener();
        }
        Ok(heard)
    }

    fn event(&self, kind: &str, at: Timestamp, fields: Value) -> Value {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of this age, below 2^53")]
        let seconds = at.as_millis() as f64 / 1000.0;
        let mut event = Map::new();
        let own =
            json!({"hostname": self.worker, "utcoffset": 0, "pid": std::process::id(), "clock": self.clock.tick()});
        for part in [own, fields, json!({"timestamp": seconds, "type": kind})] {
            if let Value::Object(part) = part {
                event.extend(part);
            }
        }
        Value::Object(event)
    }

    /// Says how many heard it.
    async fn publish(&self, store: &Store, routing_key: &str, body: &str) -> Result<u64, BrokerError> {
        let message = envelope(body, &json!({"hostname": self.worker}), EXCHANGE, routing_key);
        let mut pipeline = Pipeline::new();
        pipeline.cmd("PUBLISH").arg(keys::events(self.database, routing_key)).arg(message);
        let reply = store.link.send(&pipeline).await?.into_iter().next().unwrap_or(redis::Value::Nil);
        let unexpected = |_| BrokerError::Answer { script: "PUBLISH", expected: "a count" };
        FromRedisValue::from_redis_value(accepted(reply)?).map_err(unexpected)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<String>> {
        // Every use is a single operation.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
