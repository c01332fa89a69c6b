//! `jobsd log`, and `--follow`: what a job says of itself, as it says it.
//!
//! The daemon sends events; when the connection breaks, the next one goes on behind the last line that came.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::client::{Client, escaped};
use super::output::{cell, line};
use super::{CliError, Common, output};

/// A daemon that has nothing to say sends a comment every ten seconds.
const SILENCE: Duration = Duration::from_secs(45);
/// How long a daemon that is gone, as in a restart, is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Log {
    /// The job's id.
    id: String,
    /// Go on until the job has ended.
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    common: Common,
}

/// One event of the daemon.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    name: String,
    data: Value,
}

/// The events of one job.
struct Events {
    client: Client,
    path: String,
    response: Option<reqwest::Response>,
    /// What came and is no whole event yet.
    rest: Vec<u8>,
    /// The id of the last event.
    last: String,
    lost_since: Option<Instant>,
}

impl Log {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.common.at.connect()?;
        if self.follow {
            return Events::of(client, &self.id).print_lines(self.common.json).await;
        }
        let job = client.get(&format!("/api/v1/jobs/{}", escaped(&self.id))).await?;
        if self.common.json {
            output::json(
                &json!({"id": job["id"], "progress": job["progress"], "log": job.get("log").unwrap_or(&json!([]))}),
            );
        } else if job["log"].is_array() {
            output::print(&client.text(&format!("/api/v1/jobs/{}/log", escaped(&self.id))).await?);
        } else {
            eprintln!("jobsd: the job has said nothing so far");
        }
        Ok(())
    }
}

/// Tells what happens to the job until it has ended. A job that did not complete is a failure.
pub(super) async fn follow(common: &Common, id: &str) -> Result<(), CliError> {
    let mut events = Events::of(common.at.connect()?, id);
    while let Some(event) = events.next().await? {
        if common.json {
            event.print_json();
        } else if let Some(words) = event.words() {
            line(&words);
        }
        match event.name.as_str() {
            "end" if event.data["state"] == "completed" => return Ok(()),
            "end" | "gone" => return Err(CliError::Told),
            _ => {}
        }
    }
    Ok(())
}

impl Event {
    /// Reads one: `None` for a comment or a word to the browser.
    fn parse(block: &str) -> Option<(Self, Option<String>)> {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let data = serde_json::from_str(field("data")?).ok()?;
        Some((Self { name: field("event")?.to_owned(), data }, field("id").map(str::to_owned)))
    }

    fn print_json(&self) {
        output::print(&format!("{}\n", json!({"event": self.name, "data": self.data})));
    }

    /// The event for people; nothing for one that says nothing to them.
    fn words(&self) -> Option<String> {
        let data = &self.data;
        Some(match self.name.as_str() {
            "state" if data["state"] == "active" => {
                format!("active: attempt {} on {}", data["attempt"], cell(&data["node"]))
            }
            "state" => match &data["due"] {
                Value::String(due) => format!("{} since or until {due}", cell(&data["state"])),
                _ => cell(&data["state"]),
            },
            "progress" => output::progress(data),
            "line" => format!("  | {}", cell(&data["text"])),
            "left_out" => format!("  | … {} lines left out", data["lines"]),
            "end" => match data["cause"].as_str() {
                Some(cause) => format!("{}: {cause}", cell(&data["state"])),
                None => cell(&data["state"]),
            },
            "gone" => cell(&data["detail"]),
            _ => return None,
        })
    }
}

impl Events {
    fn of(client: Client, id: &str) -> Self {
        let path = format!("/api/v1/jobs/{}/events", escaped(id));
        Self { client, path, response: None, rest: Vec::new(), last: String::new(), lost_since: None }
    }

    async fn print_lines(mut self, json: bool) -> Result<(), CliError> {
        while let Some(event) = self.next().await? {
            match event.name.as_str() {
                _ if json => event.print_json(),
                "line" => line(&cell(&event.data["text"])),
                "left_out" => line(&format!("… {} lines left out", event.data["lines"])),
                _ => {}
            }
            if matches!(event.name.as_str(), "end" | "gone") {
                break;
            }
        }
        Ok(())
    }

    /// The next event; `None` when there is nothing more to come.
    async fn next(&mut self) -> Result<Option<Event>, CliError> {
        loop {
            if let Some(block) = self.block() {
                if let Some((event, id)) = Event::parse(&block) {
                    self.last = id.unwrap_or_default();
                    return Ok(Some(event));
                }
                continue;
            }
            if self.response.is_none() {
                match self.client.events(&self.path, &self.last).await {
                    Ok(None) => return Ok(None),
                    Ok(response) => self.response = response,
                    // It was there before: it may be restarting.
                    Err(error) => match (&error, self.lost_since) {
                        (CliError::Unreachable(_), Some(since)) if since.elapsed() < PATIENCE => {
                            tokio::time::sleep(AGAIN).await;
                        }
                        _ => return Err(error),
                    },
                }
                continue;
            }
            let Some(response) = &mut self.response else { continue };
            match tokio::time::timeout(SILENCE, response.chunk()).await {
                Ok(Ok(Some(bytes))) => {
                    self.lost_since = None;
                    self.rest.extend_from_slice(&bytes);
                }
                _ => {
                    self.response = None;
                    self.rest.clear();
                    self.lost_since.get_or_insert_with(Instant::now);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// What stands before the next empty line.
    fn block(&mut self) -> Option<String> {
        let end = self.rest.windows(2).position(|two| two == b"\n\n")?;
        let block: Vec<u8> = self.rest.drain(..end + 2).collect();
        Some(String::from_utf8_lossy(&block).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_and_put_into_words() {
        let told = |name: &str, data: Value| Event { name: name.to_owned(), data }.words();
        let (event, id) = Event::parse("event: line\nid: 7\ndata: {\"text\":\"a\"}\n\n").expect("an event");
        assert_eq!((event.words().as_deref(), id.as_deref()), (Some("  | a"), Some("7")));
        assert_eq!(Event::parse(": still there\n\n"), None);
        assert_eq!(Event::parse("retry: 2000\n\n"), None);
        let progress = json!({"step": 1, "steps": 2, "percent": 40, "message": "resizing"});
        assert_eq!(told("progress", progress).as_deref(), Some("step 1 of 2, 40 %, resizing"));
        assert_eq!(told("end", json!({"state": "dead", "cause": "crash-loop"})).as_deref(), Some("dead: crash-loop"));
        assert_eq!(told("tomorrow", json!({})), None);
    }
}
