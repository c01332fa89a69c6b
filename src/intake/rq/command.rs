//! What RQ's clients publish to workers: `stop-job` (from RQ 3.0 on also `stop-execution`), `kill-horse`, `shutdown`.

use serde_json::Value;

use super::answer::Ask;
use super::front::Front;
use super::registration::say_goodbye;
use crate::broker::{BrokerError, Change, Published};
use crate::clock;
use crate::job::{JobId, QueueName};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    StopJob(String),
    KillHorse,
    Shutdown,
}

impl Command {
    /// Reads `{"command": "stop-job", "job_id": "…"}`; `None` for what RQ's own worker passes over too.
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let message: Value = serde_json::from_slice(message).ok()?;
        match message.get("command")?.as_str()? {
            // A job has one execution at a time, so its id says enough.
            "stop-job" | "stop-execution" => Some(Self::StopJob(message.get("job_id")?.as_str()?.to_owned())),
            "kill-horse" => Some(Self::KillHorse),
            "shutdown" => Some(Self::Shutdown),
            _ => None,
        }
    }
}

/// Does what a worker was told.
pub(super) async fn obey(front: &Front, published: &Published, worker: &str) {
    let Some(command) = Command::read(&published.message) else {
        return tracing::warn!(worker, "an RQ client has sent a command that is unknown here");
    };
    front.hear_beginnings();
    let done = match &command {
        Command::StopJob(id) => end(front, front.roster.queue_of(id).into_iter().collect(), Ask::Stop).await,
        Command::KillHorse => end(front, front.roster.jobs_of(worker), Ask::Kill).await,
        Command::Shutdown => shut_down(front, worker).await,
    };
    match done {
        Ok(()) => tracing::info!(worker, "told by an RQ client: {command:?}"),
        Err(error) => tracing::error!(worker, "{command:?} of an RQ client failed: {error}"),
    }
}

/// Ends jobs that run here. One that has just ended is left as it is.
async fn end(front: &Front, jobs: Vec<(QueueName, JobId)>, ask: Ask) -> Result<(), BrokerError> {
    for (queue, id) in jobs {
        let now = clock::now();
        front.broker.alter(&queue, &[id], &Change::Cancel(ask.request(now)), now).await?;
    }
    Ok(())
}

/// A worker that was told to stop takes no more jobs until the daemon starts again; the others go on.
async fn shut_down(front: &Front, worker: &str) -> Result<(), BrokerError> {
    match front.roster.retire(worker) {
        Some(badge) => say_goodbye(front, &[badge]).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_rq_sends_them() {
        let stop = br#"{"command": "stop-job", "job_id": "s1"}"#;
        assert_eq!(Command::read(stop), Some(Command::StopJob("s1".to_owned())));
        let execution = br#"{"command": "stop-execution", "job_id": "s1", "execution_id": "jobsd"}"#;
        assert_eq!(Command::read(execution), Some(Command::StopJob("s1".to_owned())));
        assert_eq!(Command::read(br#"{"command": "kill-horse"}"#), Some(Command::KillHorse));
        assert_eq!(Command::read(br#"{"command": "shutdown"}"#), Some(Command::Shutdown));
        for other in [&b"\xff"[..], b"[]", b"{}", br#"{"command": "stop-job"}"#, br#"{"command": 3}"#] {
            assert_eq!(Command::read(other), None);
        }
    }
}
