//! `jobsd demo`.

use std::path::PathBuf;
use std::process::ExitCode;

pub(crate) async fn run(_once: bool, _dir: Option<PathBuf>) -> ExitCode {
    ExitCode::SUCCESS
}
