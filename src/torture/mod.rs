//! `jobsd torture`: jobs under faults, on the user's own Redis or a private one, and a verdict on what became of them.
//!
//! Starts nodes of this very program as child processes, puts jobs in over their HTTP ports, and keeps its own books of
//! what the jobs do ([`ledger`]), by a server that the jobs call ([`endpoint`]). Meanwhile [`strike`] makes the faults of
//! the [`fault`] plan. At the end [`reconcile`] reads every job's record, and [`verdict`] compares the two. Owns no part
//! of the daemon: it sees it from outside, as a client and as an operator with a `kill` command do.

mod client;
mod endpoint;
mod fault;
mod fleet;
mod ledger;
mod load;
mod options;
mod producer;
mod proxy;
mod random;
mod reconcile;
mod redis;
mod report;
mod strike;
mod verdict;

use std::fs::DirBuilder;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use options::Options;

use crate::job::QueueName;
use endpoint::Endpoint;
use fault::Planned;
use fleet::{Fleet, NodeError, Settings};
use ledger::Ledger;
use load::Load;
use options::Fsync;
use producer::Producer;
use reconcile::{Records, Unanswered};
use redis::{Redis, RedisError};
use report::Report;
use strike::{StrikeError, Striker};
use verdict::{Findings, Terms};

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
enum TortureError {
    #[error("create the folder {}: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("listen on the loopback interface: {0}")]
    Endpoint(io::Error),
    #[error("find this program: {0}")]
    Program(io::Error),
    #[error("receive signals: {0}")]
    Signals(io::Error),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Strike(#[from] StrikeError),
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error("come to a verdict: the run was interrupted")]
    Interrupted,
}

/// The only queue.
const QUEUE: &str = "work";
/// A line on the terminal that often.
const PROGRESS: Duration = Duration::from_secs(5);

/// Runs to the verdict, and says it by the exit code too: success means that every promise was kept.
pub(crate) async fn run(options: Options) -> ExitCode {
    let plan = match options.faults() {
        Ok(faults) => fault::plan(&faults, Duration::from_secs(options.seconds.into()), options.seed),
        Err(error) => {
            eprintln!("jobsd torture: cannot {error}");
            return ExitCode::from(USAGE);
        }
    };
    match torture(&options, plan).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("jobsd torture: failed to {error}");
            ExitCode::from(if matches!(error, TortureError::Redis(_)) { UNAVAILABLE } else { FAILED })
        }
    }
}

/// As clap ends the program.
const USAGE: u8 = 2;
const FAILED: u8 = 1;
/// EX_UNAVAILABLE.
const UNAVAILABLE: u8 = 69;

/// Says whether every promise was kept. Whatever becomes of the run, nothing of it stays but the logs of one that failed.
async fn torture(options: &Options, plan: Vec<Planned>) -> Result<bool, TortureError> {
    let stop = stop_on_signals()?;
    let started = Instant::now();
    let name = format!("jobsd-torture-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
    let folder = std::env::temp_dir().join(&name);
    let create = |source| TortureError::Folder { path: folder.clone(), source };
    DirBuilder::new().mode(0o700).create(&folder).map_err(create)?;
    let findings = in_folder(options, plan, &folder, &name, &stop).await;
    let broken = findings.as_ref().is_ok_and(|findings| !findings.broken.is_empty());
    if broken || matches!(findings, Err(TortureError::Node(_) | TortureError::Strike(_) | TortureError::Unanswered(_)))
    {
        eprintln!("the nodes' logs are in {}", folder.display());
    } else {
        // What cannot be deleted does not change the verdict.
        let _ = std::fs::remove_dir_all(&folder);
    }
    let report = Report { options, findings: &findings?, took: started.elapsed() };
    if options.json {
        println!("{}", report.json());
    } else {
        println!("{report}");
    }
    Ok(report.kept())
}

/// Everything between the start of Redis and its end.
async fn in_folder(
    options: &Options,
    plan: Vec<Planned>,
    folder: &Path,
    prefix: &str,
    stop: &CancellationToken,
) -> Result<Findings, TortureError> {
    let queue = QueueName::parse(QUEUE).expect("it is a valid name");
    let redis = Arc::new(match options.url() {
        Some(url) => Redis::at(url, prefix, &queue).await?,
        None => Redis::own(folder, options.appendfsync, prefix, &queue).await?,
    });
    let findings = on(options, plan, folder, prefix, &redis, stop).await;
    redis.clean_up().await?;
    findings
}

/// Everything between the start of the nodes and their end.
async fn on(
    options: &Options,
    plan: Vec<Planned>,
    folder: &Path,
    prefix: &str,
    redis: &Arc<Redis>,
    stop: &CancellationToken,
) -> Result<Findings, TortureError> {
    let load = Load { seed: options.seed, work: options.work, lease: options.lease };
    let ledger = Arc::new(Ledger::default());
    let endpoint = Endpoint::start(Arc::clone(&ledger), load).await.map_err(TortureError::Endpoint)?;
    let settings = Settings::new(options, folder, endpoint.address, prefix).map_err(TortureError::Program)?;
    let fleet = Arc::new(Fleet::start(settings, options.nodes, redis, &ledger).await?);
    let stage = Stage { options, load, fleet: &fleet, redis, ledger: &ledger };
    let played = tokio::select! {
        played = stage.play(plan) => played,
        () = stop.cancelled() => Err(TortureError::Interrupted),
    };
    fleet.end().await;
    endpoint.end().await;
    let forgetful = redis.fsync() == Some(Fsync::Everysec);
    let terms = Terms { load, lease: options.lease, timeout: fleet::timeout(options.lease), forgetful };
    Ok(verdict::judge(&ledger.close(), &played?, &terms))
}

/// Everything is up.
struct Stage<'s> {
    options: &'s Options,
    load: Load,
    fleet: &'s Arc<Fleet>,
    redis: &'s Arc<Redis>,
    ledger: &'s Arc<Ledger>,
}

impl Stage<'_> {
    /// Load and faults side by side until both are over, then the records.
    /// Dropped at any point, it leaves nothing running but the nodes.
    async fn play(&self, plan: Vec<Planned>) -> Result<Records, TortureError> {
        let enough = CancellationToken::new();
        let producer = Producer {
            fleet: Arc::clone(self.fleet),
            ledger: Arc::clone(self.ledger),
            load: self.load,
            rate: self.options.rate,
        };
        let producing = AbortOnDropHandle::new(tokio::spawn(producer.run(enough.clone())));
        let struck = tokio::select! {
            struck = self.strike(plan) => struck,
            never = self.tell_progress() => match never {},
        };
        enough.cancel();
        struck?;
        // It ends when all is accepted; a panic in it would show as jobs that were not.
        let _ = producing.await;
        let settled = reconcile::settle(self.fleet, self.ledger, self.options.lease);
        let numbers = tokio::select! {
            numbers = settled => numbers?,
            never = self.tell_progress() => match never {},
        };
        let sent = self.ledger.progress().sent;
        Ok(reconcile::records(self.fleet, numbers, u32::try_from(sent).expect("its numbers fit")).await?)
    }

    /// Makes the faults, for as long as the run is to last at least.
    async fn strike(&self, plan: Vec<Planned>) -> Result<(), StrikeError> {
        let least = Duration::from_secs(self.options.seconds.into());
        let (fleet, redis, ledger) = (Arc::clone(self.fleet), Arc::clone(self.redis), Arc::clone(self.ledger));
        let striker = Striker::new(fleet, redis, ledger, self.options);
        let struck = async { tokio::join!(striker.clone().run(plan), tokio::time::sleep(least)).0 };
        tokio::select! {
            struck = struck => struck,
            never = striker.watch() => match never {},
        }
    }

    async fn tell_progress(&self) -> std::convert::Infallible {
        if !io::stderr().is_terminal() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(PROGRESS).await;
            let now = self.ledger.progress();
            eprintln!("{} accepted, {} done, {} faults", now.accepted, now.done, now.strikes);
        }
    }
}

fn stop_on_signals() -> Result<CancellationToken, TortureError> {
    let stop = CancellationToken::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let (stop, mut asked) = (stop.clone(), signal(kind).map_err(TortureError::Signals)?);
        // It ends with the runtime: there is nothing to be joined.
        tokio::spawn(async move {
            asked.recv().await;
            stop.cancel();
        });
    }
    Ok(stop)
}
