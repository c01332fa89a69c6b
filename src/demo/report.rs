//! What the demo prints: plain lines, readable while it happens and afterwards.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::artefacts::{Artefact, Kind};
use super::place::Place;
use super::producer::Ticket;
use super::workload::Work;
use super::{Done, Stage};
use crate::store::Embedded;

/// Characters of a result that are shown.
const RESULT: usize = 200;

/// The report on standard output. Every call writes through: whoever waits sees what has happened.
#[derive(Debug)]
pub(super) struct Report {
    out: io::Stdout,
}

impl Default for Report {
    fn default() -> Self {
        Self { out: io::stdout() }
    }
}

impl Report {
    pub(super) fn opening(&mut self, place: &Place) -> io::Result<()> {
        self.line(&format!("jobsd demo: everything stays on this machine, in {}", place.folder.display()))?;
        match &place.note {
            Some(note) => self.note(note),
            None => Ok(()),
        }
    }

    pub(super) fn note(&mut self, note: &str) -> io::Result<()> {
        self.line(&format!("note: {note}"))
    }

    /// The daemon runs.
    pub(super) fn started(&mut self, stage: &Stage) -> io::Result<()> {
        self.line("")?;
        self.entry("Redis", &format!("{}, private", Embedded::url(&stage.config.node.state_dir).expose()))?;
        self.entry("SQLite", &stage.place.database().display().to_string())?;
        self.entry("admin", &format!("http://{}/", stage.admin))?;
        self.entry("log", &stage.place.log().display().to_string())?;
        self.entry("clip", &format!("{}, {}", stage.clip.path.display(), stage.clip.facts))
    }

    pub(super) fn job(&mut self, number: usize, of: usize, work: &Work) -> io::Result<()> {
        self.line("")?;
        self.line(&format!("[{number}/{of}] {} > {}", work.queue, work.task))
    }

    pub(super) fn sent(&mut self, ticket: &Ticket) -> io::Result<()> {
        self.entry("sent", &ticket.how)
    }

    pub(super) fn answered(&mut self, state: &str, result: &Value, took: Duration) -> io::Result<()> {
        let mut text: String = result.to_string().chars().take(RESULT + 1).collect();
        if text.chars().count() > RESULT {
            text = text.chars().take(RESULT).chain("…".chars()).collect();
        }
        self.entry("answer", &format!("{state} after {}: {text}", time(took)))
    }

    pub(super) fn artefacts(&mut self, artefacts: &[Artefact]) -> io::Result<()> {
        for artefact in artefacts {
            if artefact.kind == Kind::Row {
                self.entry(&artefact.name, &artefact.facts)?;
            } else {
                self.entry(&artefact.name, &artefact.path.display().to_string())?;
                self.entry("", &artefact.facts)?;
            }
        }
        Ok(())
    }

    /// One line a job, the totals, and the rows.
    pub(super) fn summary(&mut self, done: &[Done], stage: &Stage) -> io::Result<()> {
        self.line("")?;
        self.line(&format!("{:<18}{:<34}{:<8}{:<10}{:>8}", "queue", "task", "wire", "state", "time"))?;
        for done in done {
            let work = &done.work;
            self.line(&format!(
                "{:<18}{:<34}{:<8}{:<10}{:>8}",
                work.queue,
                work.task,
                work.wire(),
                done.state,
                time(done.took)
            ))?;
        }
        let count =
            |kind| done.iter().flat_map(|done| &done.artefacts).filter(|artefact| artefact.kind == kind).count();
        self.line(&format!(
            "{} jobs done: {} mails, {} push message, {} rows, {} videos, {} picture",
            done.len(),
            count(Kind::Mail),
            count(Kind::Push),
            count(Kind::Row),
            count(Kind::Video),
            count(Kind::Picture),
        ))?;
        self.line("")?;
        self.line(&format!("Rows in {}", stage.place.database().display()))?;
        for row in done.iter().flat_map(|done| &done.artefacts).filter(|artefact| artefact.kind == Kind::Row) {
            self.line(&format!("  {}", row.facts))?;
        }
        Ok(())
    }

    /// What to do next.
    pub(super) fn further(&mut self, done: &[Done], stage: &Stage, once: bool) -> io::Result<()> {
        self.line("")?;
        if once {
            return Ok(());
        }
        let (admin, socket) = (stage.admin, Embedded::folder(&stage.config.node.state_dir).join("redis.sock"));
        let last = done.last().map(|done| done.id.as_str()).unwrap_or_default();
        self.line("Look further, in another terminal:")?;
        self.line(&format!("  curl {admin}/"))?;
        self.line(&format!("  curl {admin}/health/queues"))?;
        self.line(&format!("  curl {admin}/metrics"))?;
        self.line(&format!("  curl {admin}/api/v1/jobs/{last}"))?;
        self.line(&format!(
            "  curl {admin}/api/v1/jobs -H 'content-type: application/json' -d '{}'",
            r#"{"task": "send_welcome_email", "args": {"user_email": "ann@example.com", "user_name": "Ann", "username": "ann1"}}"#,
        ))?;
        self.line(&format!("  redis-cli -s {}", quoted(&socket)))?;
        self.line("From Python, this Redis is:")?;
        self.line(&format!("  Celery   redis+socket://{}", socket.display()))?;
        self.line(&format!("  RQ       unix://{}", socket.display()))?;
        self.line("")?;
        self.line("jobsd runs on. Ctrl-C ends it.")
    }

    pub(super) fn closing(&mut self, place: &Place) -> io::Result<()> {
        self.line(&format!("Stopped. Everything it made is still in {}", place.folder.display()))
    }

    /// Something with its name before it.
    fn entry(&mut self, name: &str, text: &str) -> io::Result<()> {
        self.line(&format!("  {name:<9} {text}"))
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }
}

fn time(took: Duration) -> String {
    match took.as_secs() {
        0 => format!("{} ms", took.as_millis()),
        _ => format!("{:.1} s", took.as_secs_f64()),
    }
}

/// The path as a shell wants it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
