//! Shows this node to Celery's clients as a worker: says that it lives, sends its events, hears commands and answers them.
//!
//! A daemon that reads no list of Celery writes and hears nothing. While nobody listens, signs of life are rare: a client
//! that comes asks for one, and from then on they come as often as those of Celery's own worker.

use std::sync::Arc;
use std::time::Duration;

use redis::Pipeline;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::whole_seconds;
use super::command::{self, Done, nok};
use super::events::{BEAT, GATHER, Sign};
use super::front::Front;
use super::inspect::inspect;
use super::request::{self, Heard, Request};
use super::{keys, usage};
use crate::broker::{BrokerError, CeleryAttempt, PUBLISHED, Published};
use crate::clock;
use crate::config::Celery;
use crate::intake::limits::Limits;
use crate::job::Wire;
use crate::store::accepted;

/// How often a worker that nobody listens to says that it lives.
const ALONE: Duration = Duration::from_secs(30);
/// Attempts that have just begun are gathered for so long: what ends meanwhile is never shown as started.
const SETTLE: Duration = Duration::from_millis(20);
/// A reply that its client did not wait for goes after so many seconds.
const REPLY_KEPT: i64 = 60;
/// Pause after Redis did not answer.
const RETRY: Duration = Duration::from_secs(1);
/// Further away than any daemon lives.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Messages of remote control are small.
const MESSAGE: usize = 1 << 20;
/// What `freq` is in the sign of life that a client has asked for, as Celery's worker gives it.
const ASKED_FREQ: u64 = 5;

/// Runs until it is told to stop, and says goodbye then.
pub(crate) async fn run(front: Arc<Front>, stop: CancellationToken) {
    let mut clerk = Clerk::new(Arc::clone(&front));
    clerk.follow().await;
    while !stop.is_cancelled() {
        let next = clerk.beat_at.min(clerk.flush_at).min(clerk.show_at).min(clerk.follow_at);
        tokio::select! {
            () = stop.cancelled() => {}
            () = front.changed.notified() => clerk.follow().await,
            Some(published) = clerk.heard.recv() => clerk.hear(&published).await,
            () = front.events.stir.notified() => clerk.flush_at = clerk.flush_at.min(Instant::now() + GATHER),
            () = front.broker.beginnings.told(Wire::Celery) => clerk.show_at = clerk.show_at.min(Instant::now() + SETTLE),
            () = tokio::time::sleep_until(next) => clerk.duties().await,
        }
    }
    clerk.leave().await;
}

/// The duties, and when each is due.
struct Clerk {
    front: Arc<Front>,
    heard: mpsc::Receiver<Published>,
    said: mpsc::Sender<Published>,
    limits: Limits,
    /// The lists that clients were told are served; none where this node is no worker of Celery.
    lists: Vec<String>,
    /// Somebody heard the last sign of life.
    listened: bool,
    beat_at: Instant,
    flush_at: Instant,
    show_at: Instant,
    follow_at: Instant,
}

impl Clerk {
    fn new(front: Arc<Front>) -> Self {
        let (said, heard) = mpsc::channel(PUBLISHED);
        let far = Instant::now() + FAR;
        let limits = Limits { input: MESSAGE, ..Limits::default() };
        let (beat_at, flush_at, show_at, follow_at) = (far, far, far, far);
        let lists = Vec::new();
        Self { front, heard, said, limits, lists, listened: false, beat_at, flush_at, show_at, follow_at }
    }

    /// Does what is due.
    async fn duties(&mut self) {
        let now = Instant::now();
        if now >= self.follow_at {
            self.follow().await;
        }
        if now >= self.show_at {
            self.show_at = now + FAR;
            self.show().await;
        }
        if now >= self.flush_at {
            self.flush().await;
        }
        if now >= self.beat_at {
            self.beat(Sign::Heartbeat).await;
        }
    }

    /// Is a worker of Celery, or none, as the configuration says now.
    async fn follow(&mut self) {
        self.follow_at = Instant::now() + FAR;
        let lists = self.front.lists();
        if self.front.config.load().celery.events {
            self.front.events.want(true);
        }
        self.front.listen_for_beginnings();
        if lists == self.lists {
            return;
        }
        let done = if lists.is_empty() { self.close().await } else { self.open(&lists).await };
        match done {
            Ok(()) => {
                let (comes, goes) = (self.lists.is_empty(), lists.is_empty());
                self.lists = lists;
                if comes && !goes {
                    self.beat(Sign::Online).await;
                } else if goes {
                    self.beat_at = Instant::now() + FAR;
                }
            }
            Err(error) => {
                tracing::debug!("Celery's clients see this node when Redis answers: {error}");
                self.follow_at = Instant::now() + RETRY;
            }
        }
    }

    async fn open(&self, lists: &[String]) -> Result<(), BrokerError> {
        let channel = keys::control(self.front.broker.store.endpoint.database());
        if let Err(error) = self.front.broker.watch.subscribe(Wire::Celery, vec![channel], self.said.clone()).await {
            tracing::warn!("commands of Celery's clients are not heard: failed to {error}");
        }
        let mut pipeline = Pipeline::new();
        for list in lists {
            let (key, member) = keys::task_binding(list);
            pipeline.sadd(key, member);
        }
        let (key, member) = keys::control_binding(&self.front.events.worker);
        pipeline.sadd(key, member);
        self.send(&pipeline).await
    }

    /// Says goodbye. That lists are bound stays true: their producers write to them all the same.
    async fn close(&mut self) -> Result<(), BrokerError> {
        self.flush().await;
        self.beat(Sign::Offline).await;
        self.front.broker.watch.subscribe(Wire::Celery, Vec::new(), self.said.clone()).await?;
        let (key, member) = keys::control_binding(&self.front.events.worker);
        let mut pipeline = Pipeline::new();
        pipeline.srem(key, member);
        self.send(&pipeline).await
    }

    async fn leave(mut self) {
        self.show().await;
        if !self.lists.is_empty()
            && let Err(error) = self.close().await
        {
            tracing::debug!("Celery's clients notice by themselves that this node is gone: {error}");
        }
    }

    /// A sign of life. Commands of others than Redis are not waited for.
    async fn beat(&mut self, sign: Sign) {
        let fields = json!({
            "freq": BEAT.as_secs_f64(),
            "active": self.front.running(),
            "processed": self.front.tally().values().sum::<u64>(),
            "loadavg": usage::load(),
        });
        self.sign(sign, fields).await;
    }

    async fn sign(&mut self, sign: Sign, mut fields: Value) {
        let software =
            [("sw_ident", "jobsd".into()), ("sw_ver", env!("CARGO_PKG_VERSION").into()), ("sw_sys", system().into())];
        for (name, value) in software {
            fields[name] = value;
        }
        match self.front.events.sign(&self.front.broker.store, sign, clock::now(), fields).await {
            Ok(listened) => self.listened = listened,
            Err(error) => tracing::debug!("no sign of life for Celery's clients: {error}"),
        }
        self.front.listen_for_beginnings();
        self.beat_at = Instant::now() + if self.listened { BEAT } else { ALONE };
    }

    async fn flush(&mut self) {
        self.flush_at = Instant::now() + FAR;
        if let Err(error) = self.front.events.flush(&self.front.broker.store).await {
            tracing::debug!("events for Celery's clients are lost: {error}");
        }
        self.front.listen_for_beginnings();
    }

    /// Shows the attempts that have begun, where the configuration says so.
    async fn show(&mut self) {
        self.front.hear_beginnings();
        let begun = self.front.to_show();
        let Celery { track_started: true, result_expires, .. } = self.front.config.load().celery else { return };
        let keep = result_expires.map_or(0, whole_seconds);
        let attempts: Vec<CeleryAttempt> = begun.iter().filter_map(|begun| self.front.started(begun)).collect();
        if let Err(error) = self.front.broker.celery_begin(&attempts, keep).await {
            tracing::debug!("attempts are not shown as started: {error}");
        }
    }

    async fn hear(&mut self, published: &Published) {
        match request::read(&published.message, &self.front.events.worker, &self.limits) {
            Ok(Heard::Command(request)) => self.obey(&request).await,
            Ok(Heard::NotForUs) => {}
            Err(reason) => tracing::warn!("not a command of a Celery client, ignored: {reason}"),
        }
    }

    async fn obey(&mut self, request: &Request) {
        self.front.events.clock.hear(request.clock);
        if request.method == "heartbeat" {
            self.sign(Sign::Heartbeat, json!({"freq": ASKED_FREQ})).await;
        }
        let done = match inspect(&self.front, request).await {
            Ok(Some(answer)) => Ok(Done::Told(answer)),
            Ok(None) => command::obey(&self.front, request).await,
            Err(error) => Err(error),
        };
        let answer = match done {
            Ok(Done::Told(answer)) => answer,
            Ok(Done::Bye) => return self.shut_down().await,
            Ok(Done::Unknown) => {
                let method: String =
                    request.method.chars().filter(|c| c.is_alphanumeric() || *c == '_').take(100).collect();
                tracing::info!(method, "a Celery client asks for something that jobsd does not have");
                nok(&format!("KeyError('{method}')"))
            }
            Err(error) => {
                tracing::warn!(method = request.method, "a Celery client's command failed: failed to {error}");
                nok("RuntimeError('Redis did not answer jobsd; look at the log')")
            }
        };
        self.reply(request, &answer).await;
    }

    async fn reply(&self, request: &Request, answer: &Value) {
        let events = &self.front.events;
        let Some((list, message)) = request.reply(&events.worker, answer, events.clock.tick()) else { return };
        let mut pipeline = Pipeline::new();
        pipeline.lpush(&list, message).expire(&list, REPLY_KEPT);
        if let Err(error) = self.send(&pipeline).await {
            tracing::debug!(method = request.method, "a Celery client is not answered: {error}");
        }
    }

    /// The worker is the daemon: it stops as on SIGTERM.
    async fn shut_down(&self) {
        tracing::warn!("a Celery client has told this worker to shut down");
        self.front.control.stop().await;
    }

    async fn send(&self, pipeline: &Pipeline) -> Result<(), BrokerError> {
        for reply in self.front.broker.store.link.send(pipeline).await? {
            accepted(reply)?;
        }
        Ok(())
    }
}

fn system() -> String {
    rustix::system::uname().sysname().to_string_lossy().into_owned()
}
