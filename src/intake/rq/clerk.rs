//! Shows this node to RQ's clients and does what RQ's workers do beside running jobs: registers workers, shows what they
//! run and that they live, hears commands, cleans registries, and keeps the scheduler's times ([`super::scheduler`]).
//!
//! Nothing here moves a job of ours. What is written has a time to live, so it goes with us if we die; and a node that
//! does not read lists of RQ writes nothing at all.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::front::Front;
use super::roster::Badge;
use super::scheduler::{self, Held, Looked};
use super::tallies::LATE;
use super::{command, keys, registration};
use crate::broker::{Change, PUBLISHED, Published, RqShown, RqTidied, RqTidying};
use crate::clock;
use crate::intake::inflate::deflate;
use crate::job::{JobId, QueueName, Request, Wire};

/// Attempts that have just begun are gathered for so long; what ends meanwhile is never shown as running, which keeps the
/// short jobs of a busy queue cheap.
const GATHER: Duration = Duration::from_millis(20);
/// How often what runs gives a sign of life; RQ's own time.
const BEAT: Duration = Duration::from_secs(30);
/// How often all workers give one: two may be missed before they are believed to be dead. Readers of RQ's want no more; its
/// own worker gives one every 405 s.
const WORKERS_BEAT: Duration = Duration::from_secs(240);
/// How often registries are cleaned: RQ's own time, and while RQ's own workers have jobs, which may be dead.
const TIDY: Duration = Duration::from_secs(600);
const TIDY_BESIDE: Duration = Duration::from_secs(30);
/// Further away than any daemon lives.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Pause after Redis did not answer.
const RETRY: Duration = Duration::from_secs(1);

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
        if let Err(error) = registration::say_goodbye(&self.front, &staffing.gone).await {
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
        if let Err(error) = registration::register(&self.front, &self.unregistered, self.suspended).await {
            tracing::debug!("RQ's workers are registered when Redis answers: {error}");
            self.register_at = Instant::now() + RETRY;
            return;
        }
        self.unregistered.clear();
        let channels = self.front.roster.badges().iter().map(|badge| keys::channel(&badge.name)).collect();
        if let Err(error) = self.front.broker.watch.subscribe(Wire::Rq, channels, self.said.clone()).await {
            tracing::warn!("commands of RQ's clients are not heard: failed to {error}");
        }
    }

    /// Signs of life of all workers; the lost ones come anew. Returns after what time the next ones are due.
    async fn workers_beat(&mut self) -> Duration {
        match registration::beat(&self.front).await {
            Ok(lost) => {
                self.unregistered.extend(lost);
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
        if let Err(error) = registration::show_waiting(&self.front, suspended).await {
            tracing::debug!("RQ's clients do not see whether its workers are suspended: {error}");
        }
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
        if let Err(error) = registration::dismiss_the_dead(&self.front).await {
            tracing::debug!("workers of dead nodes stay on RQ's list until they expire: {error}");
        }
        if theirs > 0 { TIDY_BESIDE } else { TIDY }
    }

    /// What was handed back is shown as waiting; the workers are dead, and the scheduler is somebody else.
    async fn leave(&mut self) {
        self.front.hear_beginnings();
        self.count().await;
        self.beat().await;
        if let Err(error) = registration::say_goodbye(&self.front, &self.front.roster.badges()).await {
            tracing::debug!("this node's workers stay on RQ's list until they expire: {error}");
        }
        if let Err(error) = scheduler::resign(&self.front).await {
            tracing::debug!("RQ's next scheduler has to wait for the end of the lock: {error}");
        }
    }
}
