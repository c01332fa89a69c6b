//! `jobsd demo`: the whole daemon with nothing around it, and one job of each kind through it.
//!
//! The shipped configuration runs on a private Redis, SQLite and outbox folders; the jobs go in as the Python
//! application's Celery and RQ clients put them, and the answers are read as those clients read them. Owns what is
//! shown and what counts as done; the daemon that does the work is the real one.

mod artefacts;
mod clip;
mod place;
mod producer;
mod report;
mod workload;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinError;

use crate::config::Config;
use crate::daemon::{Daemon, Source, StartError};
use crate::job::{JobId, QueueName, State};
use crate::store::{Embedded, Store};
use artefacts::{Artefact, ArtefactError, Artefacts};
use clip::{Clip, ClipError};
use place::{Place, PlaceError};
use producer::{Answer, Producer, ProducerError, Ticket};
use report::Report;
use workload::Work;

/// How long one job may take until the demo gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a job without an answer is looked at: it may have failed and wait for another attempt.
const LOOK: Duration = Duration::from_millis(500);

/// Why the demo did not come to its end.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Clip(#[from] ClipError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("talk to the demo's Redis: {0}")]
    Producer(#[from] ProducerError),
    #[error("finish the job {task}: {reason}; the daemon's log is {}", log.display())]
    Job { task: &'static str, reason: String, log: PathBuf },
    #[error(transparent)]
    Artefact(#[from] ArtefactError),
    #[error("write the report: {0}")]
    Report(#[from] io::Error),
    #[error("listen for the end of the terminal: {0}")]
    Signals(io::Error),
    #[error("show everything: it was told to stop before")]
    Interrupted,
    #[error("run the daemon: {0}")]
    Panicked(#[from] JoinError),
}

/// What the running demo works with.
struct Stage {
    place: Place,
    config: Config,
    admin: SocketAddr,
    clip: Clip,
    store: Arc<Store>,
}

/// A job that is done, and what it left.
struct Done {
    work: Work,
    id: String,
    /// As its producer reads it.
    state: String,
    took: Duration,
    artefacts: Vec<Artefact>,
}

/// Runs the demo to its end, which with `once` comes when the jobs are done. `dir` takes everything that it makes.
pub(crate) async fn run(once: bool, dir: Option<PathBuf>) -> ExitCode {
    match demo(once, dir).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("jobsd demo: failed to {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(once: bool, dir: Option<PathBuf>) -> Result<(), DemoError> {
    let place = Place::choose(dir)?;
    let mut report = Report::default();
    report.opening(&place)?;
    let mut config = place.config()?;
    place.log_to_file(&config.log.level)?;
    let clip = clip::make(&place.uploads()).await?;
    // A closed terminal means an end, not a reload: nobody would see that the demo still runs.
    let mut terminal_gone = signal(SignalKind::hangup()).map_err(DemoError::Signals)?;

    let daemon = start(&mut config, &mut report).await?;
    let stage = Stage { place, config, admin: daemon.admin_address, clip, store: Arc::clone(&daemon.broker().store) };
    let control = daemon.control.clone();
    let mut serving = tokio::spawn(daemon.serve());
    let shown = tokio::select! {
        shown = show(&stage, &mut report, once) => shown,
        ended = &mut serving => return Err(early(ended)),
    };
    if !once && shown.is_ok() {
        tokio::select! {
            ended = &mut serving => return closed(ended, &mut report, &stage),
            _ = terminal_gone.recv() => {}
        }
    }
    control.stop().await;
    let ended = serving.await;
    shown?;
    closed(ended, &mut report, &stage)
}

/// Starts the daemon; on any free port when something else, such as another demo, has the usual one.
async fn start(config: &mut Config, report: &mut Report) -> Result<Daemon, DemoError> {
    match Daemon::start(config.clone(), Source::Memory).await {
        Err(StartError::Listen { address, source }) if source.kind() == io::ErrorKind::AddrInUse => {
            report.note(&format!("another program listens on {address}: the admin port takes a free one"))?;
            config.admin.listen.set_port(0);
            Ok(Daemon::start(config.clone(), Source::Memory).await?)
        }
        started => Ok(started?),
    }
}

type Ended = Result<(), JoinError>;

fn early(ended: Ended) -> DemoError {
    match ended {
        Ok(()) => DemoError::Interrupted,
        Err(panic) => panic.into(),
    }
}

fn closed(ended: Ended, report: &mut Report, stage: &Stage) -> Result<(), DemoError> {
    ended?;
    Ok(report.closing(&stage.place)?)
}

/// Puts the jobs in, one after another, and tells what comes of each.
async fn show(stage: &Stage, report: &mut Report, once: bool) -> Result<(), DemoError> {
    report.started(stage)?;
    let mut producer = Producer::connect(&Embedded::url(&stage.config.node.state_dir)).await?;
    let artefacts = Artefacts::new(&stage.place, &stage.config.video.public_url)?;
    let works = workload::all(&stage.clip.path);
    let mut done = Vec::with_capacity(works.len());
    for (at, work) in works.iter().enumerate() {
        report.job(at + 1, works.len(), work)?;
        let sent = Instant::now();
        let ticket = producer.put(work).await?;
        report.sent(&ticket)?;
        let (state, result) = answer(stage, &mut producer, work, &ticket).await?;
        let took = sent.elapsed();
        report.answered(&state, &result, took)?;
        let left = artefacts.left_by(work, &ticket.id, &result).await?;
        report.artefacts(&left)?;
        done.push(Done { work: work.clone(), id: ticket.id, state, took, artefacts: left });
    }
    report.summary(&done, stage)?;
    report.further(&done, stage, once)?;
    Ok(())
}

/// Waits for the answer that a producer waits for. A job whose first attempt failed is not waited for: its next one may
/// be minutes away, and what is wrong is known.
async fn answer(
    stage: &Stage,
    producer: &mut Producer,
    work: &Work,
    ticket: &Ticket,
) -> Result<(String, serde_json::Value), DemoError> {
    let failed = |reason| DemoError::Job { task: work.task, reason, log: stage.place.log() };
    let late = || failed(format!("there is no answer after {} s", PATIENCE.as_secs()));
    let answer = tokio::select! {
        answer = tokio::time::timeout(PATIENCE, producer.answer(ticket)) => answer.map_err(|_| late())??,
        reason = first_failure(&stage.store, work, ticket) => return Err(failed(reason)),
    };
    match answer {
        Answer::Done { state, result } => Ok((state, result)),
        Answer::Failed { state, reason } => Err(failed(format!("{state}, {reason}"))),
    }
}

/// Completes when the job waits for another attempt, with the reason of the failed one.
async fn first_failure(store: &Store, work: &Work, ticket: &Ticket) -> String {
    let queue = QueueName::parse(work.queue).expect("the demo's queues have valid names");
    let id = JobId::parse(&ticket.id).expect("a UUID is a valid id");
    loop {
        tokio::time::sleep(LOOK).await;
        // An error is the daemon's to log; the wait for the answer has its own end.
        if let Ok(Some(view)) = store.job(&id, std::slice::from_ref(&queue)).await
            && view.state() == State::Retry
            && let Some(mishap) = view.history.mishaps.last()
        {
            return format!("{}: {}", mishap.name, mishap.message);
        }
    }
}
