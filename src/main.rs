//! jobsd: one background-jobs daemon for a Python web app, in place of Celery workers, Celery beat and RQ workers.
//!
//! One real job, from end to end. A FastAPI process calls `send_welcome_email.delay(…)`, and Celery pushes a message to
//! the Redis list `emails`. The [`broker`]'s watch hears of it; the pump in [`intake`], which knows from the pool's
//! demand that a slot is free, takes the message into the in-flight record, reads it, binds its arguments to the
//! parameters that `jobsd.toml` declares ([`config`]), and admits it: it is a pending job now. The [`pool`] of the queue
//! claims it under a fencing token, runs the task's steps by their [`handler`]s, and hands the outcome to
//! [`job::decide()`], which says what follows: completed, another attempt, or dead. The next round trip settles that in
//! Redis and brings new claims. Because a foreign producer waits, the settle also wrote a debt into the outbox;
//! [`intake`]'s reply pays it with the result document that `AsyncResult.get()` reads.
//!
//! If the process dies anywhere on this way, the job stands in exactly one set in Redis, and another node, or this one
//! after its restart, goes on from there. [`store`] names the keys, [`scheduler`] turns cron entries into jobs, [`flows`] starts jobs
//! that follow others,
//! [`admin`] shows and takes in, [`cli`] speaks with it from a terminal, and [`daemon`] puts all parts together.

mod admin;
mod broker;
mod cli;
mod clock;
mod config;
mod control;
mod daemon;
mod demo;
mod flows;
mod handler;
mod intake;
mod job;
mod metrics;
mod node;
mod pool;
mod scheduler;
mod store;
#[cfg(test)]
mod testing;
mod torture;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use config::{Config, Log, LogFormat, Problems};
use daemon::{Daemon, Source, StartError};
use handler::Handlers;

/// Exit codes, after sysexits(3) where it has one.
mod exit {
    pub(crate) const FAILED: u8 = 1;
    /// EX_CONFIG.
    pub(crate) const CONFIG: u8 = 78;
}

/// One background-jobs daemon: runs Celery and RQ producers' jobs, schedules, mail, push, SQL and video.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground.
    Run {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Read the configuration and report every problem of it. Exit code 78 when there are any.
    Check {
        #[command(flatten)]
        config: ConfigFile,
        /// The problems as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run everything on this machine alone, put one job through each kind of work, and show what came of it.
    Demo {
        /// Exit when the jobs are done, instead of leaving the admin port up until Ctrl-C.
        #[arg(long)]
        once: bool,
        /// Where everything is put. Default: a fresh folder below ./state.
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },
    Torture(torture::Options),
    #[command(flatten)]
    Verb(Box<cli::Verb>),
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(short = 'c', long = "config", env = "JOBSD_CONFIG", default_value = "jobsd.toml", value_name = "FILE")]
    path: PathBuf,
}

fn main() -> ExitCode {
    handler::guard_if_told(std::env::args_os());
    let cli = Cli::parse();
    // Every TLS client of the process uses this one provider. It fails only when one was installed before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match cli.command {
        Command::Run { config } => run(&config.path),
        Command::Check { config, json } => check(&config.path, json),
        Command::Demo { once, dir } => runtime().block_on(demo::run(once, dir)),
        Command::Torture(options) => runtime().block_on(torture::run(options)),
        Command::Verb(verb) => runtime().block_on(cli::run(*verb)),
    }
}

fn run(path: &Path) -> ExitCode {
    let loaded = match daemon::load(path) {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(exit::CONFIG);
        }
    };
    if let Err(error) = log_to_stderr(&loaded.config.log) {
        eprintln!("jobsd: read log.level: {error}");
        return ExitCode::from(exit::CONFIG);
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let source = Source::File(path.to_owned());
    let ended = runtime().block_on(async {
        Daemon::start(loaded.config, source).await?.serve().await;
        Ok(())
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("failed to {error}");
            ExitCode::from(match error {
                StartError::Config(_) | StartError::Handlers(_) | StartError::Store(_) | StartError::Eviction(_) => {
                    exit::CONFIG
                }
                _ => exit::FAILED,
            })
        }
    }
}

fn check(path: &Path, json: bool) -> ExitCode {
    let outcome = daemon::load(path).and_then(|loaded| {
        prepared(path, &loaded.config)?;
        Ok(loaded)
    });
    if json {
        let found = match &outcome {
            Ok(loaded) => &loaded.warnings,
            Err(problems) => &problems.diagnostics,
        };
        println!("{}", serde_json::json!({"valid": outcome.is_ok(), "diagnostics": found}));
    } else {
        match &outcome {
            Ok(loaded) => {
                loaded.warnings.iter().for_each(|warning| println!("{warning}"));
                println!("{}: valid", path.display());
            }
            Err(problems) => eprintln!("{problems}"),
        }
    }
    match outcome {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(exit::CONFIG),
    }
}

/// Reads what the configuration points to (mail templates, certificates, credentials) as a start would, so that a file
/// is valid only if jobsd starts with it.
fn prepared(path: &Path, config: &Config) -> Result<(), Problems> {
    let failed = |error| {
        let help = "mend what it names, or the keys that name it; jobsd does not start like this";
        Problems::without_place(path, format!("failed to {error}"), help)
    };
    Handlers::new(config).map(drop).map_err(failed)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the system gives threads and epoll")
}

fn log_to_stderr(log: &Log) -> Result<(), tracing_subscriber::filter::ParseError> {
    // The cron library reports every step of its own at info; an explicit word on it in log.level still counts.
    let filter = tracing_subscriber::EnvFilter::builder().parse(format!("tokio_cron_scheduler=warn,{}", log.level))?;
    // Colours are for a terminal; a file or the journal would keep their escape codes.
    let colours = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
