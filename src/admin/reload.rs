//! `POST /api/v1/reload`: has the daemon read its configuration again, and says what came of it.

use hyper::StatusCode;
use serde::Serialize;

use super::answer::{Answer, json};
use super::problem::{Problem, ProblemKind};
use crate::control::Control;

/// What changed, in words.
#[derive(Serialize)]
struct Reloaded {
    reloaded: String,
}

/// Waits for the daemon's word. A file with mistakes changes nothing; they are the problem's detail.
pub(super) async fn answer(control: &Control) -> Result<Answer, Problem> {
    let refused = |reason| Problem::new(ProblemKind::ReloadRefused, reason);
    let reloaded = control.reload().await.map_err(refused)?;
    Ok(json(StatusCode::OK, &Reloaded { reloaded }))
}
