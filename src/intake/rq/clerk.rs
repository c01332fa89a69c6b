//! Shows this node to RQ's clients and does what RQ's workers do beside running jobs: registers workers, shows what they
//! run and that they live, hears commands, cleans registries, and keeps the scheduler's times ([`super::scheduler`]).
//!
//! Nothing here moves a job of ours. What is written has a time to live, so it goes with us if we die; and a node that
//! does not read lists of RQ writes nothing at all.

use std::sync::Arc;
use std::time::Duration;

use redis::Pipeline;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::front::Front;
use super::roster::Badge;
use super::scheduler::{self, Held, Looked};
use super::tallies::LATE;
use super::{command, keys};
use crate::broker::{BrokerError, Change, PUBLISHED, Published, RqShown, RqTidied, RqTidying};
use crate::clock;
use crate::intake::{inflate::deflate, iso};
use crate::job::{JobId, QueueName, Request, Wire};
use crate::store::accepted;

/// Attempts that have just begun are gathered for so long; what ends meanwhile is never shown as running, which keeps the
/// short jobs of a busy queue cheap.
const GATHER: Duration = Duration::from_millis(20);
/// How often what runs gives a sign of life; RQ's own time.
const BEAT: Duration = Duration::from_secs(30);
/// How often all workers give one, and how long they are believed to live without, in seconds: two may be missed. Readers of
/// RQ's want no more; its own worker gives one every 405 s, and is believed for 480.
const WORKERS_BEAT: Duration = Duration::from_secs(240);
const WORKER_TTL: i64 = 540;
/// How often registries are cleaned: RQ's own time, and while RQ's own workers have jobs, which may be dead.
const TIDY: Duration = Duration::from_secs(600);
const TIDY_BESIDE: Duration = Duration::from_secs(30);
/// Further away than any daemon lives.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Pause after Redis did not answer.
const RETRY: Duration = Duration::from_secs(1);
/// A dead worker stays readable for a minute, as RQ's own.
const REMEMBERED: u64 = 60;
/// By this RQ's clients, and nodes of ours, know a worker as one of ours.
const VERSION: &str = concat!("jobsd ", env!("CARGO_PKG_VERSION"));

/// Why RQ says that a job failed whose worker is gone.
const ABANDONED: &str = "Moved to FailedJobRegistry, due to AbandonedJobError: its worker gave no more sign of life\n";

/// Runs until it is told to stop, and takes everything off that would be a lie then.
pub(crate) async fn run(front: Arc<Front>, stop: CancellationToken) {
    let mut clerk = Clerk::new(Arc::clone(&front));
    let notice = Arc::clone(&clerk.notice);
    let mut sizes = front.broker.overrides.changes();
    clerk.staff().await;
    while !stop.is_cancelled() {
        let next = clerk.next();
        tokio::select! {
            () = stop.cancelled() => {}
            () = front.broker.beginnings.told(Wire::Rq) => {
                tokio::time::sleep(GATHER).await;
                clerk.show().await;
            }
            () = front.tallies.counted.notified() => clerk.count_at = Instant::now() + LATE,
            Some(published) = clerk.heard.recv() => clerk.obey(&published).await,
            () = front.changed.notified() => clerk.staff().await,
            Ok(()) = sizes.changed() => clerk.staff().await,
            () = notice.notified() => clerk.look_at = Instant::now(),
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
    /// RQ's scheduled jobs, or its suspension, have changed.
    notice: Arc<Notify>,
    /// When each duty is due next.
    register_at: Instant,
    beat_at: Instant,
    workers_at: Instant,
    count_at: Instant,
    look_at: Instant,
    hold_at: Instant,
    tidy_at: Instant,
    suspended: bool,
    /// Workers that are to be registered, until Redis has taken them.
    unregistered: Vec<Badge>,
}

impl Clerk {
    fn new(front: Arc<Front>) -> Self {
        let (said, heard) = mpsc::channel(PUBLISHED);
        let now = Instant::now();
        Self {
            front,
            heard,
            said,
            notice: Arc::default(),
            register_at: now + FAR,
            beat_at: now + BEAT,
            workers_at: now + WORKERS_BEAT,
            count_at: now + BEAT,
            look_at: now,
            hold_at: now,
            // After the nodes on this Redis have said that they live.
            tidy_at: now + RETRY * 5,
            suspended: false,
            unregistered: Vec::new(),
        }
    }

    fn next(&self) -> Instant {
        let signs = [self.register_at, self.beat_at, self.workers_at, self.count_at];
        signs.into_iter().chain([self.look_at, self.hold_at, self.tidy_at]).min().expect("there are some")
    }

    /// Does what is due.
    async fn duties(&mut self) {
        let now = Instant::now();
        if now >= self.register_at {
            self.register().await;
        }
        if now >= self.beat_at {
            self.beat_at = now + BEAT;
            self.show().await;
            self.beat().await;
        }
        if now >= self.workers_at {
            self.workers_at = now + self.workers_beat().await;
        }
        if now >= self.count_at {
            self.count_at = now + BEAT;
            self.count().await;
        }
        if now >= self.hold_at {
            self.hold_at = now + scheduler::BEAT;
            self.hold().await;
        }
        if now >= self.look_at {
            self.look().await;
        }
        if now >= self.tidy_at {
            self.tidy_at = now + self.tidy().await;
        }
    }

    /// One worker for each slot that there is now.
    async fn staff(&mut self) {
        let Front { roster, config, broker, .. } = &*self.front;
        let staffing = roster.staff(&config.load().queues, &|queue| broker.concurrency(queue).max);
        if let Err(error) = say_goodbye(&self.front, &staffing.gone).await {
            tracing::debug!("workers that are gone stay on RQ's list until they expire: {error}");
        }
        self.unregistered.retain(|badge| !staffing.gone.contains(badge));
        self.unregistered.extend(staffing.come);
        self.register().await;
        let now = Instant::now();
        (self.hold_at, self.look_at, self.workers_at) = (now, now, now + WORKERS_BEAT);
    }

    async fn register(&mut self) {
        self.register_at = Instant::now() + FAR;
        if self.unregistered.is_empty() {
            return;
        }
        let address = self.address().await;
        let now = iso::rq(clock::now().to_utc());
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let mut pipeline = Pipeline::new();
        let state = if self.suspended { "suspended" } else { "idle" };
        for badge in &self.unregistered {
            let key = keys::worker(&badge.name);
            let queues = badge.queues.join(",");
            pipeline
                .del(&key)
                .del(keys::executions_of(&badge.name))
                .cmd("HSET")
                .arg(&key)
                .arg("birth")
                .arg(&now)
                .arg("last_heartbeat")
                .arg(&now);
            pipeline.arg("queues").arg(queues).arg("pid").arg(std::process::id()).arg("hostname").arg(&host);
            pipeline.arg("ip_address").arg(&address).arg("version").arg(VERSION).arg("python_version").arg("none");
            pipeline.arg("state").arg(state);
            pipeline.expire(&key, WORKER_TTL);
            for set in badge.sets() {
                pipeline.sadd(set, &key);
            }
        }
        match self.front.broker.store.link.send(&pipeline).await {
            Ok(replies) => {
                if let Some(error) = replies.into_iter().find_map(|reply| accepted(reply).err()) {
                    tracing::warn!("RQ's clients do not see this node's workers: failed to {error}");
                }
                self.unregistered.clear();
                let channels = self.front.roster.badges().iter().map(|badge| keys::channel(&badge.name)).collect();
                if let Err(error) = self.front.broker.watch.subscribe(Wire::Rq, channels, self.said.clone()).await {
                    tracing::warn!("commands of RQ's clients are not heard: failed to {error}");
                }
            }
            Err(error) => {
                tracing::debug!("RQ's workers are registered when Redis answers: {error}");
                self.register_at = Instant::now() + RETRY;
            }
        }
    }

    /// Our end of the connection to Redis, as RQ's workers name it.
    async fn address(&self) -> String {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("CLIENT").arg("INFO");
        let reply =
            self.front.broker.store.link.send(&pipeline).await.ok().and_then(|replies| replies.into_iter().next());
        let info: Option<String> =
            reply.and_then(|reply| accepted(reply).ok()).and_then(|r| redis::from_redis_value(r).ok());
        let found = info.as_deref().and_then(|info| info.split(' ').find_map(|field| field.strip_prefix("addr=")));
        found.unwrap_or("unknown").to_owned()
    }

    /// Signs of life of all workers. Returns after what time the next ones are due.
    async fn workers_beat(&mut self) -> Duration {
        let badges = self.front.roster.badges();
        let keys: Vec<String> = badges.iter().map(|badge| keys::worker(&badge.name)).collect();
        match self.front.broker.rq_alive(&keys, WORKER_TTL, clock::now()).await {
            Ok(alive) => {
                // One that Redis has lost meanwhile (its data is gone, or it was away for long) comes anew.
                let lost = badges.into_iter().zip(alive).filter(|(_, alive)| !alive);
                self.unregistered.extend(lost.map(|(badge, _)| badge));
                self.register_at = Instant::now();
                WORKERS_BEAT
            }
            Err(_) => RETRY,
        }
    }

    /// Tells what workers have done and no answer has told.
    async fn count(&self) {
        let (tallies, queues) = (self.front.tallies.due(&[]), self.front.roster.queues());
        if let (false, Some((_, queue))) = (tallies.is_empty(), queues.first())
            && let Err(error) = self.front.broker.rq_count(queue, &tallies, clock::now()).await
        {
            tracing::debug!("what RQ's workers have done is not counted: {error}");
        }
    }

    /// Shows the attempts that have begun. One whose producer has cancelled or deleted the job is ended.
    async fn show(&self) {
        self.front.hear_beginnings();
        for (queue, attempts) in self.front.roster.to_show() {
            let shown = match self.front.broker.rq_begin(&queue, &attempts, clock::now()).await {
                Ok(shown) => shown,
                Err(error) => {
                    tracing::debug!(%queue, "jobs are shown as running with the next sign of life: {error}");
                    self.front.roster.show_later(&attempts);
                    continue;
                }
            };
            let withdrawn = attempts.iter().zip(shown).filter(|(_, shown)| *shown == RqShown::Withdrawn);
            let ids: Vec<JobId> = withdrawn.map(|(attempt, _)| attempt.id.clone()).collect();
            self.withdraw(&queue, &ids).await;
        }
    }

    async fn withdraw(&self, queue: &QueueName, ids: &[JobId]) {
        if ids.is_empty() {
            return;
        }
        let reason = Some("its producer has cancelled or deleted it".to_owned());
        let request = Request { at: clock::now(), by: "RQ".to_owned(), reason };
        let change = Change::Cancel(request);
        if let Err(error) = self.front.broker.alter(queue, ids, &change, clock::now()).await {
            tracing::warn!(%queue, "jobs that their producers have cancelled run on: {error}");
        }
    }

    async fn beat(&self) {
        for (queue, attempts) in self.front.roster.shown() {
            match self.front.broker.rq_beat(&queue, &attempts, clock::now()).await {
                Ok(run) => {
                    for (attempt, _) in attempts.iter().zip(run).filter(|(_, runs)| !runs) {
                        self.front.roster.end(&attempt.id, attempt.token);
                    }
                }
                Err(error) => tracing::debug!(%queue, "no sign of life of running jobs: {error}"),
            }
        }
    }

    async fn obey(&self, published: &Published) {
        let worker = published.channel.strip_prefix(&keys::channel("")).unwrap_or_default().to_owned();
        command::obey(&self.front, published, &worker).await;
    }

    /// Looks for scheduled jobs that are due and for a suspension, and asks to be told of the next ones.
    async fn look(&mut self) {
        match scheduler::look(&self.front, &self.notice).await {
            Ok(Looked { suspended, next }) => {
                self.look_at = Instant::now() + next.map_or(FAR, |wait| wait.min(scheduler::BEAT));
                self.suspend(suspended).await;
            }
            Err(error) => {
                tracing::debug!("RQ's scheduled jobs wait until Redis answers: {error}");
                self.look_at = Instant::now() + RETRY;
            }
        }
    }

    /// Stays the scheduler, or becomes it: what is due then has nobody else.
    async fn hold(&mut self) {
        match scheduler::hold(&self.front).await {
            Ok(Held { more, others }) => {
                let now = Instant::now();
                if more {
                    self.look_at = now;
                }
                if others {
                    self.hold_at = now + scheduler::AGAIN;
                }
            }
            Err(error) => tracing::debug!("RQ's scheduler is somebody else until Redis answers: {error}"),
        }
    }

    /// Shows whether workers take jobs; that they do not is seen to where they are taken.
    async fn suspend(&mut self, suspended: bool) {
        if std::mem::replace(&mut self.suspended, suspended) == suspended {
            return;
        }
        tracing::info!("{}", if suspended { "RQ's workers are suspended" } else { "RQ's workers go on" });
        let running: Vec<String> = self.running_workers();
        let mut pipeline = Pipeline::new();
        for badge in self.front.roster.badges().iter().filter(|badge| !running.contains(&badge.name)) {
            pipeline.hset(keys::worker(&badge.name), "state", if suspended { "suspended" } else { "idle" });
        }
        if let Err(error) = self.front.broker.store.link.send(&pipeline).await {
            tracing::debug!("RQ's clients do not see whether its workers are suspended: {error}");
        }
    }

    fn running_workers(&self) -> Vec<String> {
        self.front.roster.shown().into_iter().flat_map(|(_, attempts)| attempts).map(|attempt| attempt.worker).collect()
    }

    /// Returns after what time to clean again.
    async fn tidy(&self) -> Duration {
        let mut theirs = 0;
        let abandoned = deflate(ABANDONED.as_bytes());
        for (nth, (rq, _)) in self.front.roster.queues().into_iter().enumerate() {
            let lock = keys::cleaning_lock(&rq);
            let what = RqTidying { lock: &lock, queue: &rq, abandoned: &abandoned, shared: nth == 0 };
            match self.front.broker.rq_tidy(what, clock::now()).await {
                Ok(RqTidied { given_back, failed, theirs: now }) => {
                    theirs += now;
                    if given_back + failed > 0 {
                        tracing::warn!(queue = rq, given_back, failed, "dead workers of RQ have left jobs behind");
                    }
                }
                Err(error) => tracing::debug!(queue = rq, "RQ's registries are cleaned later: {error}"),
            }
        }
        if let Err(error) = self.dismiss_the_dead().await {
            tracing::debug!("workers of dead nodes stay on RQ's list until they expire: {error}");
        }
        if theirs > 0 { TIDY_BESIDE } else { TIDY }
    }

    /// Takes the workers of nodes that are gone off RQ's lists.
    async fn dismiss_the_dead(&self) -> Result<(), BrokerError> {
        if self.front.roster.queues().is_empty() {
            return Ok(());
        }
        let broker = &self.front.broker;
        let now = clock::now();
        let living: Vec<String> = broker
            .nodes(now)
            .await?
            .into_iter()
            .filter(|(_, card)| now.since(card.lease_until) < broker.lease() * 2)
            .map(|(node, _)| node.to_string())
            .collect();
        let mut read = Pipeline::new();
        read.smembers(keys::WORKERS);
        let reply = accepted(broker.store.link.send(&read).await?.into_iter().next().unwrap_or(redis::Value::Nil))?;
        let workers: Vec<String> = redis::from_redis_value(reply).unwrap_or_default();
        let suspects: Vec<&str> = workers
            .iter()
            .filter_map(|key| key.strip_prefix(&keys::worker("")))
            .filter(|name| !living.iter().any(|node| belongs(name, node)))
            .collect();
        let mut pipeline = Pipeline::new();
        for name in &suspects {
            pipeline.cmd("HMGET").arg(keys::worker(name)).arg("version").arg("queues");
        }
        if suspects.is_empty() {
            return Ok(());
        }
        let mut dead = Vec::new();
        for (name, reply) in suspects.iter().zip(broker.store.link.send(&pipeline).await?) {
            let known: (Option<String>, Option<String>) = redis::from_redis_value(reply).unwrap_or_default();
            if known.0.is_some_and(|version| version.starts_with("jobsd ")) {
                let queues = known.1.unwrap_or_default().split(',').map(str::to_owned).collect();
                dead.push(Badge { name: (*name).to_owned(), queues });
            }
        }
        say_goodbye(&self.front, &dead).await
    }

    /// What was handed back is shown as waiting; the workers are dead, and the scheduler is somebody else.
    async fn leave(&mut self) {
        self.front.hear_beginnings();
        self.count().await;
        self.beat().await;
        if let Err(error) = say_goodbye(&self.front, &self.front.roster.badges()).await {
            tracing::debug!("this node's workers stay on RQ's list until they expire: {error}");
        }
        if let Err(error) = scheduler::resign(&self.front).await {
            tracing::debug!("RQ's next scheduler has to wait for the end of the lock: {error}");
        }
    }
}

/// Whether a worker is one of this node: `NODE.QUEUE.NUMBER`.
fn belongs(worker: &str, node: &str) -> bool {
    worker.strip_prefix(node).is_some_and(|rest| rest.starts_with('.'))
}

/// Workers that are gone: off the lists, and readable for a minute as dead.
pub(super) async fn say_goodbye(front: &Front, badges: &[Badge]) -> Result<(), BrokerError> {
    if badges.is_empty() {
        return Ok(());
    }
    let now = iso::rq(clock::now().to_utc());
    let mut pipeline = Pipeline::new();
    for badge in badges {
        let key = keys::worker(&badge.name);
        for set in badge.sets() {
            pipeline.srem(set, &key);
        }
        pipeline
            .del(keys::executions_of(&badge.name))
            .hset(&key, "death", &now)
            .expire(&key, i64::try_from(REMEMBERED).unwrap_or(i64::MAX));
    }
    front.broker.store.link.send(&pipeline).await?;
    Ok(())
}
