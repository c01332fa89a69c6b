//! The verbs of the command line that speak with a running daemon, by its HTTP API.
//!
//! What a job or a queue is and what may be done to it is the daemon's to say; here its words are put into tables, and its
//! refusals into exit codes. Only [`offline`] goes to Redis itself, for the time when no daemon runs, and [`email`] needs
//! no daemon at all.

mod alter;
mod client;
mod email;
mod enqueue;
mod flow;
mod follow;
mod jobs;
mod node;
mod offline;
mod output;
mod queue;
mod scale;
mod why;

use std::process::ExitCode;

use clap::Subcommand;

use client::At;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Put a job in; prints its id.
    Enqueue(enqueue::Enqueue),
    /// Show one job with its attempts and errors.
    Job(jobs::ShowJob),
    /// Show what a job has said while it ran: the output of its program, and its log.
    Log(follow::Log),
    /// Say in one sentence why a job does not run, where it runs, or how it ended.
    Why(why::Why),
    /// List jobs: those next in line first, or the latest.
    Jobs(jobs::ListJobs),
    /// Show a flow, or submit, cancel or retry one.
    Flow(flow::Flow),
    /// List flows, the latest first.
    Flows(flow::ListFlows),
    /// List the queues with their counts.
    Queues(queue::ListQueues),
    /// List the tasks and their parameters.
    Tasks(queue::ListTasks),
    /// List the nodes on this Redis.
    Nodes(node::ListNodes),
    /// Hold a queue, or a task, back on all nodes. What runs goes on.
    Pause(queue::Pause),
    /// End a pause, or the drain of a node.
    Resume(queue::Resume),
    /// Pause a queue, or have a node claim nothing more, and wait until nothing of it runs if asked to.
    Drain(queue::Drain),
    /// Set how many jobs of a queue may run at once on the node that answers, until its next reload or restart.
    Scale(scale::Scale),
    /// Take everything that waits out of a queue. It can be taken back for 30 minutes.
    Purge(queue::Purge),
    /// Take a purge back.
    Undo(queue::Undo),
    /// Run ended jobs again, by id or by filter.
    Retry(alter::Retry),
    /// End jobs that wait or run, by id or by filter.
    Cancel(alter::Cancel),
    /// Delete jobs that do not run, by id or by filter.
    Delete(alter::Delete),
    /// Make jobs that wait for their time due now.
    Promote(alter::Promote),
    /// Look at mails without sending them.
    #[command(subcommand)]
    Email(email::Email),
}

/// Why a verb was not done.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// What was typed makes no sense.
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Config(String),
    /// The daemon, or the thing itself, said no.
    #[error("{0}")]
    Failed(String),
    /// It was said already; only the exit code is left.
    #[error("some of it was not done")]
    Told,
}

impl CliError {
    /// After sysexits(3) where it has one.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Told => 1,
            Self::Usage(_) => 2,
            // EX_UNAVAILABLE
            Self::Unreachable(_) => 69,
            // EX_CONFIG
            Self::Config(_) => 78,
        }
    }
}

/// Does what was typed; says what came of it.
pub(crate) async fn run(verb: Verb) -> ExitCode {
    let done = match verb {
        Verb::Enqueue(verb) => verb.run().await,
        Verb::Job(verb) => verb.run().await,
        Verb::Log(verb) => verb.run().await,
        Verb::Why(verb) => verb.run().await,
        Verb::Jobs(verb) => verb.run().await,
        Verb::Flow(verb) => verb.run().await,
        Verb::Flows(verb) => verb.run().await,
        Verb::Queues(verb) => verb.run().await,
        Verb::Tasks(verb) => verb.run().await,
        Verb::Nodes(verb) => verb.run().await,
        Verb::Pause(verb) => verb.run().await,
        Verb::Resume(verb) => verb.run().await,
        Verb::Drain(verb) => verb.run().await,
        Verb::Scale(verb) => verb.run().await,
        Verb::Purge(verb) => verb.run().await,
        Verb::Undo(verb) => verb.run().await,
        Verb::Retry(verb) => verb.run().await,
        Verb::Cancel(verb) => verb.run().await,
        Verb::Delete(verb) => verb.run().await,
        Verb::Promote(verb) => verb.run().await,
        Verb::Email(verb) => verb.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, CliError::Told) {
                eprintln!("jobsd: {error}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Where the daemon is, and the form of the answer.
#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    at: At,
    /// The answer as JSON.
    #[arg(long)]
    json: bool,
}
