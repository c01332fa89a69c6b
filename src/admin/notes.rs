//! What jobs say of themselves, as it is shown; and `GET /api/v1/jobs/{id}/log`.

use hyper::StatusCode;
use serde::Serialize;

use super::Shared;
use super::answer::{Answer, text};
use super::job;
use super::problem::Problem;
use crate::config::Config;
use crate::job::{Line, Notes, Progress, Section, Source};

/// How far an attempt is.
#[derive(Debug, Serialize)]
pub(super) struct ShownProgress<'a> {
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    /// Of a task that has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<usize>,
    at: String,
}

/// What one attempt has said.
#[derive(Debug, Serialize)]
pub(super) struct ShownSection<'a> {
    attempt: u32,
    node: &'a str,
    started: String,
    /// Lines that are not kept; they stood before those that are.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<u64>,
    lines: Vec<ShownLine<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct ShownLine<'a> {
    at: String,
    source: Source,
    text: &'a str,
}

/// The progress of the attempt that spoke last.
pub(super) fn progress(notes: &Notes) -> Option<ShownProgress<'_>> {
    let section = notes.latest()?;
    let Progress { at, percent, message, step } = section.progress.as_ref()?;
    Some(ShownProgress {
        attempt: section.attempt,
        percent: *percent,
        message: message.as_deref(),
        step: step.map(|(step, _)| step),
        steps: step.map(|(_, steps)| steps),
        at: at.to_string(),
    })
}

/// Everything that is kept, attempt by attempt.
pub(super) fn sections(notes: &Notes) -> Vec<ShownSection<'_>> {
    notes.sections.iter().filter(|section| section.left_out > 0 || !section.lines.is_empty()).map(section).collect()
}

fn section(section: &Section) -> ShownSection<'_> {
    ShownSection {
        attempt: section.attempt,
        node: section.node.as_str(),
        started: section.started.to_string(),
        left_out: Some(section.left_out).filter(|left_out| *left_out > 0),
        lines: section.lines.iter().map(line).collect(),
    }
}

pub(super) fn line(line: &Line) -> ShownLine<'_> {
    ShownLine { at: line.at.to_string(), source: line.source, text: &line.text }
}

/// `GET /api/v1/jobs/{id}/log`: empty for a job that has said nothing.
pub(super) async fn answer(shared: &Shared, config: &Config, id: &str) -> Result<Answer, Problem> {
    let standing = job::find(shared, config, id).await?;
    let (store, job) = (&shared.parts.broker.store, &standing.job);
    let notes = store.notes(&job.queue, &job.id).await.map_err(|error| Problem::of_read(&error))?;
    Ok(text(StatusCode::OK, notes.text()))
}
