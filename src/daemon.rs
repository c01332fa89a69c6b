//! The composition root: builds every part once, starts them, reloads, and stops them in order.
//!
//! ```text
//! start   signals ─► state folder ─► Redis (embedded) ─► broker ─► admin port ─► pools, intake, scheduler, flows ─► READY
//! stop    scheduler, intake (no new work) ─► pools drain ─► answers ─► flows ─► leases end ─► admin port ─► Redis
//! ```
//! The order of the stop is the reverse of who needs whom: a job that drains needs Redis for its settle, its settle
//! needs the reply for its answer, and the admin port tells what goes on until the end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, AdminParts};
use crate::broker::{self, Broker, Override, Rates};
use crate::config::{self, Config, Problems, RedisUrl};
use crate::control::{Control, Order, Phase};
use crate::flows::Flows;
use crate::handler::{self, Handlers, HandlersError};
use crate::intake::Intake;
use crate::job::QueueName;
use crate::metrics::Metrics;
use crate::node::{Node, NodeError};
use crate::pool::{Keeper, Live, Shared, Supervisor};
use crate::scheduler::Scheduler;
use crate::store::{Embedded, EmbeddedError, Endpoint, Finding, Store, StoreError};

/// What a stop takes besides the drain: the hand-back, the last answers, the embedded Redis.
const HAND_OVER: Duration = Duration::from_secs(30);
/// Pause before the embedded Redis is started again after it died; doubles up to the second.
const REDIS_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{0}")]
    Config(#[from] Problems),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("listen on {address} (admin.listen): {source}")]
    Listen { address: std::net::SocketAddr, source: io::Error },
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("use this Redis: {}; {}", .0.sentence, .0.remedy)]
    Eviction(Finding),
    #[error(transparent)]
    Handlers(#[from] HandlersError),
    #[error("set up the signals: {0}")]
    Signals(io::Error),
}

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    source: Source,
    /// What it was started with: some keys take effect at a start only.
    started_with: Arc<Config>,
    config: Arc<ArcSwap<Config>>,
    shared: Arc<Shared>,
    supervisor: Supervisor,
    intake: Intake,
    keeper: Arc<Keeper>,
    pub control: Control,
    orders: mpsc::Receiver<Order>,
    /// What was set by hand.
    rates: watch::Receiver<Rates>,
    signals: Signals,
    parts: Parts,
    pub admin_address: std::net::SocketAddr,
    /// Held until the end: it is our lock on the state folder.
    _node: Node,
}

/// Where the configuration comes from when it is read again.
#[derive(Debug)]
pub(crate) enum Source {
    File(PathBuf),
    /// Built in memory, as for the demo: there is nothing to read again.
    Memory,
}

/// The parts that run by themselves, each with its own stop.
#[derive(Debug)]
struct Parts {
    scheduler: Part,
    flows: Part,
    keeper: Part,
    watch: Part,
    guardian: Part,
    follower: Part,
    admin: Part,
    redis: Option<Part>,
}

#[derive(Debug)]
struct Part {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Part {
    fn start<F: Future<Output = ()> + Send + 'static>(
        name: &'static str,
        run: impl FnOnce(CancellationToken) -> F,
    ) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(stop.clone()));
        Self { name, stop, task }
    }

    async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!("the {} ended with a panic: {error}", self.name);
        }
    }
}

/// Reads the configuration with the environment of the process.
///
/// # Errors
/// All problems of the file.
pub(crate) fn load(path: &Path) -> Result<config::Loaded, Problems> {
    config::load(path, &|name| std::env::var(name).ok())
}

impl Daemon {
    /// Builds and starts everything. When this returns, jobs run.
    ///
    /// # Errors
    /// [`StartError`]. A Redis that cannot be reached is none: the daemon runs and waits for it.
    pub(crate) async fn start(config: Config, source: Source) -> Result<Self, StartError> {
        // First of all: a signal that nobody receives yet would end the process on the spot.
        let signals = Signals::new().map_err(StartError::Signals)?;
        let node = Node::enter(&config.node.state_dir, &config.node.name)?;
        tracing::info!(node = %node.id, state = %config.node.state_dir.display(), "starting");
        let handlers = Arc::new(Handlers::new(&config)?);
        let (store, redis) = store(&config).await?;
        refuse_eviction(&store, config.redis.accept_eviction).await?;
        let store = Arc::new(store);
        let (broker, owed) = Broker::new(Arc::clone(&store), node.id.clone(), config.node.lease);
        let (broker, metrics) = (Arc::new(broker), Arc::new(Metrics::default()));
        let (control, orders) = Control::new();
        let current = Arc::new(config.clone());
        let config = Arc::new(ArcSwap::new(Arc::clone(&current)));

        let admin = match bind(&config, &broker, &metrics, &control).await {
            Ok(admin) => admin,
            Err(error) => {
                // Whoever tries again on another port starts a Redis on the same files.
                if let Some(redis) = redis {
                    redis.end().await;
                }
                return Err(error);
            }
        };
        let admin_address = admin.local_addr();
        let keeper = Arc::new(Keeper::new(Arc::clone(&broker), node.predecessor.clone()));
        let live = ArcSwap::from_pointee(Live { config: Arc::clone(&current), handlers });
        let shared = Arc::new(Shared { broker: Arc::clone(&broker), live, metrics: Arc::clone(&metrics) });
        let mut supervisor = Supervisor::new(Arc::clone(&shared), Arc::clone(&keeper));
        let mut intake = Intake::start(Arc::clone(&broker), Arc::clone(&config), metrics, control.clone(), owed);

        let scheduler = Scheduler::new(Arc::clone(&broker), Arc::clone(&config));
        // Before the first claim: its lease is reckoned by Redis's clock. Without Redis there is no claim either.
        if let Err(error) = broker.set_clock().await {
            tracing::debug!("the clock is set when Redis answers: {error}");
        }
        // Whoever held the folder before may have died with programs running, and their jobs are ours to run now.
        handler::until_guards_have_ended(&current.node.state_dir).await;
        supervisor.apply(&current);
        intake.start_missing(&current.queues);
        let (followed, guarded, accept_eviction) = (Arc::clone(&store.endpoint), store, current.redis.accept_eviction);
        let flows = Flows::new(Arc::clone(&broker), Arc::clone(&config));
        let (watched, beating) = (Arc::clone(&broker), Arc::clone(&keeper));
        let parts = Parts {
            scheduler: Part::start("scheduler", |stop| async move {
                if let Err(error) = scheduler.run(stop).await {
                    tracing::error!("the scheduler ended: {error}");
                }
            }),
            flows: Part::start("flows", |stop| flows.run(stop)),
            keeper: Part::start("keeper", |stop| async move { beating.run(stop).await }),
            watch: Part::start("watch", |stop| async move { watched.watch.run(stop).await }),
            guardian: Part::start("guardian", |stop| async move { guarded.guard(accept_eviction, stop).await }),
            follower: Part::start("follower", |stop| async move { followed.follow(stop).await }),
            admin: Part::start("admin port", |stop| admin.serve(stop)),
            redis,
        };
        control.enter(Phase::Running);
        tracing::info!(admin = %admin_address, queues = current.queues.len(), "running");
        Ok(Self {
            source,
            started_with: current,
            config,
            shared,
            supervisor,
            intake,
            keeper,
            control,
            orders,
            rates: broker.overrides.rates(),
            signals,
            parts,
            admin_address,
            _node: node,
        })
    }

    /// The broker, for who puts jobs in from inside the process.
    pub(crate) fn broker(&self) -> &Arc<Broker> {
        &self.shared.broker
    }

    /// Serves until it is told to stop, by SIGTERM, SIGINT or an order; reloads on SIGHUP.
    pub(crate) async fn serve(mut self) {
        notify(&[NotifyState::Ready]);
        let mut watchdog = Watchdog::new(Arc::clone(&self.keeper));
        loop {
            tokio::select! {
                asked = self.signals.next() => match asked {
                    Asked::Stop => break,
                    // The outcome is logged; nobody waits for it.
                    Asked::Reload => drop(self.reload().await),
                },
                Some(order) = self.orders.recv() => match order {
                    Order::Reload(answer) => self.reload_for(answer).await,
                    Order::Stop => break,
                },
                Ok(()) = self.rates.changed() => self.limit_rates(),
                () = watchdog.pet() => {}
            }
        }
        tokio::select! {
            () = self.stop() => {}
            () = async { loop { watchdog.pet().await } } => {}
        }
    }

    async fn reload_for(&mut self, answer: oneshot::Sender<Result<String, String>>) {
        let outcome = self.reload().await;
        // Whoever asked may have gone.
        let _ = answer.send(outcome);
    }

    /// Reads the configuration again; builds what is new before anything old is touched. A bad file changes nothing.
    async fn reload(&mut self) -> Result<String, String> {
        notify_reloading();
        let outcome = self.try_reload().await;
        match &outcome {
            Ok(changes) => tracing::info!("reloaded: {changes}"),
            Err(problems) => tracing::error!("nothing was changed, the configuration is not valid:\n{problems}"),
        }
        notify(&[NotifyState::Ready]);
        outcome
    }

    async fn try_reload(&mut self) -> Result<String, String> {
        let Source::File(path) = &self.source else {
            return Err("this daemon has no configuration file to read again".to_owned());
        };
        let loaded = load(path).map_err(|problems| problems.to_string())?;
        let new = Arc::new(loaded.config);
        let mut changes = config::diff(&self.config.load(), &new);
        changes.restart = config::diff(&self.started_with, &new).restart;
        let handlers = Handlers::new(&new).map_err(|error| error.to_string())?;
        self.shared.live.store(Arc::new(Live { config: Arc::clone(&new), handlers: Arc::new(handlers) }));
        self.config.store(Arc::clone(&new));
        let set = self.shared.broker.end_overrides();
        self.intake.end_stale(&new.queues).await;
        self.supervisor.apply(&new);
        self.intake.start_missing(&new.queues);
        Ok(format!("{changes}{}", no_longer_set(&set)))
    }

    /// Puts the rates that were set by hand into the configuration that is in force.
    fn limit_rates(&mut self) {
        let mut config = Config::clone(&self.config.load());
        for (task, rates) in self.rates.borrow_and_update().iter() {
            match config.with_rates(task, rates) {
                Ok(limited) => config = limited,
                // Whoever set it was told, unless a reload came between.
                Err(error) => tracing::warn!(%task, "its rate stays as it is: {error}"),
            }
        }
        let new = Arc::new(config);
        let handlers = Arc::clone(&self.shared.live.load().handlers);
        self.shared.live.store(Arc::new(Live { config: Arc::clone(&new), handlers }));
        self.config.store(Arc::clone(&new));
        self.supervisor.apply(&new);
    }

    async fn stop(self) {
        let Self { mut supervisor, mut intake, mut signals, parts, orders, control, config, _node, .. } = self;
        let drain = config.load().node.drain;
        tracing::info!("stopping: running jobs may finish within {drain:?}");
        control.enter(Phase::Draining);
        // Whoever asks for a reload now is told that it is too late.
        drop(orders);
        let longest = u32::try_from((drain + HAND_OVER).as_micros()).unwrap_or(u32::MAX);
        notify(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(longest)]);
        parts.scheduler.end().await;
        intake.stop_taking().await;
        tokio::select! {
            () = supervisor.drain(drain) => {}
            // Asked a second time: not even the deadline is waited for.
            () = signals.stop() => {
                tracing::info!("asked to stop again: handing everything back now");
                supervisor.drain(Duration::ZERO).await;
            }
        }
        intake.finish().await;
        parts.flows.end().await;
        parts.keeper.end().await;
        parts.watch.end().await;
        parts.guardian.end().await;
        parts.follower.end().await;
        parts.admin.end().await;
        if let Some(redis) = parts.redis {
            redis.end().await;
        }
        tracing::info!("stopped");
    }
}

/// Which numbers of slots the reload has set back to what the file says.
fn no_longer_set(set: &[(QueueName, Override)]) -> String {
    let was = set.iter().map(|(queue, Override { concurrency, .. })| format!("{queue} (it was {concurrency})"));
    let was: Vec<String> = was.collect();
    if was.is_empty() { String::new() } else { format!("; no longer set by hand: {}", was.join(", ")) }
}

async fn bind(
    config: &Arc<ArcSwap<Config>>,
    broker: &Arc<Broker>,
    metrics: &Arc<Metrics>,
    control: &Control,
) -> Result<Admin, StartError> {
    let address = config.load().admin.listen;
    let parts = AdminParts {
        config: Arc::clone(config),
        broker: Arc::clone(broker),
        metrics: Arc::clone(metrics),
        control: control.clone(),
        version: env!("CARGO_PKG_VERSION"),
    };
    Admin::bind(address, parts).await.map_err(|source| StartError::Listen { address, source })
}

/// The store; with the embedded Redis, also the task that keeps that alive.
async fn store(config: &Config) -> Result<(Store, Option<Part>), StartError> {
    let config::Redis { url, tls, prefix, timeout, .. } = &config.redis;
    let endpoint = match url {
        RedisUrl::Url(url) => Endpoint::at_url(url, tls)?,
        RedisUrl::Sentinels(sentinels) => Endpoint::behind(sentinels, tls, *timeout)?,
        RedisUrl::Embedded { port } => {
            let (folder, port) = (config.node.state_dir.clone(), *port);
            let server = Embedded::start(&folder, port).await?;
            let url = Embedded::url(&folder);
            tracing::info!(url = url.expose(), port, pid = server.pid(), "the embedded Redis runs");
            let store = Store::new(&url, prefix, *timeout, broker::scripts())?;
            let part = Part::start("embedded Redis", |stop| supervise(server, folder, port, stop));
            return Ok((store, Some(part)));
        }
    };
    Ok((Store::at(endpoint, prefix, *timeout, broker::scripts()), None))
}

/// The first look at Redis. One that would delete jobs is not used; one that does not answer is waited for, later.
async fn refuse_eviction(store: &Store, accepted: bool) -> Result<(), StartError> {
    match store.look(accepted).await {
        Ok(report) => report.refusal().map_or(Ok(()), |finding| Err(StartError::Eviction(finding.clone()))),
        Err(error) => {
            tracing::debug!("Redis is looked at when it answers: failed to {error}");
            Ok(())
        }
    }
}

/// Starts the embedded Redis again whenever it dies; its append-only file brings everything back.
async fn supervise(mut server: Embedded, folder: PathBuf, port: Option<u16>, stop: CancellationToken) {
    loop {
        let status = tokio::select! {
            () = stop.cancelled() => return server.stop().await,
            status = server.ended() => status,
        };
        tracing::error!("the embedded Redis ended by itself ({status}), starting it again");
        server = tokio::select! {
            () = stop.cancelled() => return,
            server = start_again(&folder, port) => server,
        };
    }
}

async fn start_again(folder: &Path, port: Option<u16>) -> Embedded {
    let mut pause = REDIS_PAUSE.0;
    loop {
        tokio::time::sleep(pause).await;
        match Embedded::start(folder, port).await {
            Ok(server) => return server,
            Err(error) => tracing::error!("failed to {error}"),
        }
        pause = (pause * 2).min(REDIS_PAUSE.1);
    }
}

#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}

/// What a signal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Stop,
    Reload,
}

/// What systemd's watchdog hears: that this process turns, and that its keeper does.
#[derive(Debug)]
struct Watchdog {
    keeper: Arc<Keeper>,
    interval: tokio::time::Interval,
    limit: Duration,
}

impl Watchdog {
    fn new(keeper: Arc<Keeper>) -> Self {
        // A day where systemd does not ask for any.
        let limit = sd_notify::watchdog_enabled().unwrap_or(Duration::from_secs(2 * 86_400));
        Self { keeper, interval: tokio::time::interval((limit / 2).max(Duration::from_millis(100))), limit }
    }

    /// Waits for the next time and gives a sign of life, unless the keeper's rounds stand still.
    async fn pet(&mut self) {
        self.interval.tick().await;
        let silence = self.keeper.since_last_round();
        if silence < self.limit {
            notify(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(
                "the keeper has not ended a round for {silence:?}: systemd's watchdog is not told that we live"
            );
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("systemd was not told: {error}");
    }
}

/// systemd 253 and later asks for the time with the word.
fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}
