//! Pauses as they are shown: what is held, by whom, since when and why.

use serde::Serialize;

use crate::broker::{Pause, Paused};
use crate::job::Request;
use crate::store::QueueView;

/// Who asked for something.
#[derive(Debug, Serialize)]
pub(super) struct ShownRequest {
    by: String,
    /// RFC 3339.
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct PausedTask {
    pub(super) task: String,
    by: String,
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl ShownRequest {
    pub(super) fn of(request: &Request) -> Self {
        Self { by: request.by.clone(), at: request.at.to_string(), reason: request.reason.clone() }
    }

    pub(super) fn at(&self) -> &str {
        &self.at
    }

    /// `by ann: wrong recipient`.
    pub(super) fn words(&self) -> String {
        let reason = self.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        format!("by {}{reason}", self.by)
    }
}

/// The pause of the whole queue, if it is paused, and those of tasks in it.
pub(super) fn of(view: &QueueView) -> (Option<ShownRequest>, Vec<PausedTask>) {
    let mut whole = None;
    let mut tasks = Vec::new();
    for Pause { paused, request } in view.pauses.iter().filter_map(|(field, note)| Pause::parse(field, note)) {
        match paused {
            Paused::Queue => whole = Some(ShownRequest::of(&request)),
            Paused::Task(task) => {
                let Request { at, by, reason } = request;
                tasks.push(PausedTask { task: task.to_string(), by, at: at.to_string(), reason });
            }
        }
    }
    tasks.sort_by(|a, b| a.task.cmp(&b.task));
    (whole, tasks)
}
