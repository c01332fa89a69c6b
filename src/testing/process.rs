//! Processes that scripts of tests start, by the ids that they write into files.

use std::path::Path;

use super::wait::until;

/// The process id that a script writes into `file`.
pub(crate) async fn pid_in(file: &Path) -> i32 {
    until("a process id", || std::fs::read_to_string(file).ok()?.trim().parse().ok()).await
}

/// A zombie has ended, though its parent has not looked yet.
pub(crate) fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}
