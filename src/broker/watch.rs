//! Wake-ups without polling: Redis tells when a key that somebody waits for has changed.
//!
//! A connection of its own reads the keys with client-side caching on (`CLIENT TRACKING`, Redis 6): reading a key arms
//! it, the next change of it sends one invalidation. So an idle node sends nothing but one check every few seconds, any
//! number of lists is watched by one connection, the lists are not touched, and a busy node, which does not wait,
//! gets no notices at all. Where the server does not know tracking (some proxies), everything waiting looks again
//! once a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Pipeline, PushInfo, PushKind, Value};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::job::{Timestamp, Wire};
use crate::store::{Connected, Link, LinkError, Store, accepted};

/// How often everything that is armed is armed again: this is what a lost notice or a dead connection costs at most.
const CHECK: Duration = Duration::from_secs(5);
/// The same where the server cannot notify.
const POLL: Duration = Duration::from_secs(1);

/// Watches keys for all pools and intakes of a node.
#[derive(Debug)]
pub(crate) struct Watch {
    link: Link,
    pushes: Mutex<Option<mpsc::UnboundedReceiver<PushInfo>>>,
    waiting: Mutex<HashMap<String, Vec<Arc<Notify>>>>,
    /// The generation of the link on which tracking was switched on; 0: none. Whether it worked.
    tracking: tokio::sync::Mutex<(u64, bool)>,
    channels: Mutex<Channels>,
}

/// What is published, and to whom it goes.
#[derive(Debug, Default)]
struct Channels {
    /// By the wire whose clients publish there.
    listeners: HashMap<Wire, Listener>,
    /// The generation of the link on which they were subscribed to.
    generation: u64,
}

#[derive(Debug)]
struct Listener {
    names: Vec<String>,
    sink: mpsc::Sender<Published>,
}

impl Channels {
    fn names(&self) -> Vec<String> {
        self.listeners.values().flat_map(|listener| listener.names.iter().cloned()).collect()
    }
}

/// Published messages that wait for one listener; clients say little, so more is a flood, which is not heard.
pub(crate) const PUBLISHED: usize = 1000;
/// A longer message is no command of a client.
const LONGEST: usize = 4 << 20;

/// A message on one of the channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    pub channel: String,
    pub message: Vec<u8>,
}

/// What arming found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Armed {
    /// One of the keys holds something already.
    pub ready: bool,
    /// When the first job of the timed keys becomes due.
    pub due: Option<Timestamp>,
}

impl Watch {
    pub(super) fn new(store: &Store) -> Self {
        let (sink, pushes) = mpsc::unbounded_channel();
        Self {
            link: store.listening_link(sink),
            pushes: Mutex::new(Some(pushes)),
            waiting: Mutex::default(),
            tracking: tokio::sync::Mutex::default(),
            channels: Mutex::default(),
        }
    }

    /// Arms the keys: `notify` is told at the next change of one of them. `filled` are keys whose existence means that
    /// there is something to do; `timed` are sorted sets whose first score is a due time; of `also` only changes are told.
    ///
    /// Arm first, then look for work, then wait: whatever comes after the look, the notice tells.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer; the caller looks again later.
    pub(crate) async fn arm(
        &self,
        notify: &Arc<Notify>,
        filled: &[String],
        timed: &[String],
        also: &str,
    ) -> Result<Armed, LinkError> {
        self.register(notify, filled);
        self.register(notify, timed);
        self.register(notify, std::slice::from_ref(&also.to_owned()));
        let mut pipeline = Pipeline::new();
        pipeline.cmd("EXISTS").arg(also);
        if !filled.is_empty() {
            pipeline.cmd("EXISTS").arg(filled);
        }
        for key in timed {
            pipeline.zrange_withscores(key, 0, 0);
        }
        let mut replies = self.send(&pipeline).await?.into_iter();
        let _armed = replies.next();
        let ready = !filled.is_empty() && matches!(replies.next(), Some(Value::Int(n)) if n > 0);
        let due = replies.filter_map(first_score).min();
        Ok(Armed { ready, due })
    }

    /// The fields of a hash; `notify` is told at its next change.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer; it is told all the same when there is a new connection.
    pub(crate) async fn read_hash(&self, notify: &Arc<Notify>, key: &str) -> Result<Vec<(String, String)>, LinkError> {
        self.register(notify, std::slice::from_ref(&key.to_owned()));
        let mut pipeline = Pipeline::new();
        pipeline.hgetall(key);
        let reply = self.send(&pipeline).await?.into_iter().next().unwrap_or(Value::Nil);
        redis::FromRedisValue::from_redis_value(reply).map_err(|_| LinkError::Unexpected { what: "a hash" })
    }

    /// Hears what clients of this wire publish on these channels from now on, instead of those named before. They are on the
    /// watch's own connection, and come back with it.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer or refuses; when there is a new connection it is tried again.
    pub(crate) async fn subscribe(
        &self,
        wire: Wire,
        names: Vec<String>,
        sink: mpsc::Sender<Published>,
    ) -> Result<(), LinkError> {
        {
            let mut channels = self.channels();
            channels.listeners.insert(wire, Listener { names, sink });
            channels.generation = 0;
        }
        let mut connected = self.link.connected().await?;
        self.subscribe_on(&mut connected).await
    }

    /// A channel that is not named any more is still heard until the next connection; its messages go nowhere.
    async fn subscribe_on(&self, connected: &mut Connected) -> Result<(), LinkError> {
        let names = {
            let mut channels = self.channels();
            let names = channels.names();
            if channels.generation == connected.generation || names.is_empty() {
                return Ok(());
            }
            channels.generation = connected.generation;
            names
        };
        self.link.subscribe_on(connected, &names).await
    }

    fn channels(&self) -> std::sync::MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a waiter.
    pub(crate) fn forget(&self, notify: &Arc<Notify>) {
        self.waiting().retain(|_, waiters| {
            waiters.retain(|waiter| !Arc::ptr_eq(waiter, notify));
            !waiters.is_empty()
        });
    }

    /// Passes notices on until it is told to stop. Run once for each watch.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let taken = self.pushes.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut pushes = taken.expect("a watch is run once");
        loop {
            let pause = if self.tracking.lock().await.1 { CHECK } else { POLL };
            tokio::select! {
                () = stop.cancelled() => return,
                Some(push) = pushes.recv() => self.pass_on(&push),
                () = tokio::time::sleep(pause) => self.check().await,
            }
        }
    }

    fn register(&self, notify: &Arc<Notify>, keys: &[String]) {
        let mut waiting = self.waiting();
        for key in keys {
            let waiters = waiting.entry(key.clone()).or_default();
            if !waiters.iter().any(|waiter| Arc::ptr_eq(waiter, notify)) {
                waiters.push(Arc::clone(notify));
            }
        }
    }

    fn pass_on(&self, push: &PushInfo) {
        match (&push.kind, push.data.first()) {
            (PushKind::Invalidate, Some(Value::Array(keys))) => {
                for key in keys {
                    if let Value::BulkString(name) = key {
                        self.wake(&String::from_utf8_lossy(name));
                    }
                }
            }
            (PushKind::Message, Some(Value::BulkString(channel))) => {
                if let Some(Value::BulkString(message)) = push.data.get(1)
                    && message.len() <= LONGEST
                {
                    self.hand_over(String::from_utf8_lossy(channel).into_owned(), message);
                }
            }
            // Everything was flushed, or the connection is gone: look for yourselves.
            (PushKind::Invalidate | PushKind::Disconnection, _) => self.wake_all(),
            _ => {}
        }
    }

    fn hand_over(&self, channel: String, message: &[u8]) {
        let channels = self.channels();
        let listener = channels.listeners.values().find(|listener| listener.names.contains(&channel));
        if let Some(listener) = listener {
            let published = Published { channel, message: message.to_owned() };
            // Whoever listened may have ended.
            if let Err(mpsc::error::TrySendError::Full(lost)) = listener.sink.try_send(published) {
                tracing::warn!(channel = lost.channel, "clients publish faster than is read: a message is not heard");
            }
        }
    }

    /// Arms every watched key again and finds out whether the connection lives.
    async fn check(&self) {
        let keys: Vec<String> = self.waiting().keys().cloned().collect();
        if keys.is_empty() && self.channels().names().is_empty() {
            return;
        }
        let mut pipeline = Pipeline::new();
        if keys.is_empty() {
            pipeline.cmd("PING");
        } else {
            pipeline.cmd("EXISTS").arg(&keys);
        }
        let found = self.send(&pipeline).await;
        let works = self.tracking.lock().await.1;
        match found {
            Ok(_) if works => {}
            Ok(_) => self.wake_all(),
            Err(error) => tracing::debug!("the watching connection: {error}"),
        }
    }

    async fn send(&self, pipeline: &Pipeline) -> Result<Vec<Value>, LinkError> {
        let mut connected = self.link.connected().await?;
        let mut tracking = self.tracking.lock().await;
        if tracking.0 != connected.generation {
            let mut switch = Pipeline::new();
            switch.cmd("CLIENT").arg("TRACKING").arg("ON");
            let reply = self.link.send_on(&mut connected, &switch).await?.into_iter().next().unwrap_or(Value::Nil);
            let works = match accepted(reply) {
                Ok(_) => true,
                Err(error) => {
                    tracing::warn!("Redis cannot notify of changes ({error}); looking every {POLL:?} instead");
                    false
                }
            };
            let first = tracking.0 == 0;
            *tracking = (connected.generation, works);
            if !first {
                // The new connection knows of no key that is waited for, and what changed since the old one fell silent
                // is unknown: look for yourselves, and arm again.
                self.wake_all();
            }
        }
        drop(tracking);
        if let Err(error) = self.subscribe_on(&mut connected).await {
            tracing::warn!("commands of foreign clients are not heard: failed to {error}");
        }
        self.link.send_on(&mut connected, pipeline).await?.into_iter().map(accepted).collect()
    }

    fn wake(&self, key: &str) {
        if let Some(waiters) = self.waiting().get(key) {
            for waiter in waiters {
                waiter.notify_one();
            }
        }
    }

    fn wake_all(&self) {
        for waiter in self.waiting().values().flatten() {
            waiter.notify_one();
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<Arc<Notify>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn first_score(reply: Value) -> Option<Timestamp> {
    let first: Vec<(String, f64)> = redis::FromRedisValue::from_redis_value(reply).ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "scores are milliseconds below 2^53")]
    first.first().map(|&(_, score)| Timestamp::from_millis(score.max(0.0) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::redis::RedisServer;

    const TIMEOUT: Duration = Duration::from_millis(300);

    /// Whoever notices first that the connection is dead opens another, which knows nothing of what the others wait for.
    #[tokio::test]
    async fn a_connection_that_another_waiter_replaces_costs_nobody_his_notice() {
        let redis = RedisServer::start();
        let store = Store::new(&redis.url(), "jobsd", TIMEOUT, &[]).expect("a valid URL");
        let watch = Arc::new(Watch::new(&store));
        let running = tokio::spawn({
            let watch = Arc::clone(&watch);
            async move { watch.run(CancellationToken::new()).await }
        });
        let (first, other) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (first_key, other_key) = (["first".to_owned()], ["other".to_owned()]);
        watch.arm(&first, &first_key, &[], "pauses").await.expect("Redis answers");
        redis.freeze();
        watch.arm(&other, &other_key, &[], "pauses").await.expect_err("Redis is frozen");
        redis.thaw();
        watch.arm(&other, &other_key, &[], "pauses").await.expect("Redis answers");
        let mut push = Pipeline::new();
        push.cmd("LPUSH").arg("first").arg("x");
        store.link.send(&push).await.expect("Redis answers");
        let told = async {
            while !watch.arm(&first, &first_key, &[], "pauses").await.is_ok_and(|armed| armed.ready) {
                first.notified().await;
            }
        };
        tokio::time::timeout(3 * CHECK, told).await.expect("told in time");
        running.abort();
    }
}
