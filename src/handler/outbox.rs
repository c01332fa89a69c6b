//! The outbox: a folder that takes what would be sent, one file a message.
//!
//! A reader of the folder sees complete files only: each is written under a hidden name, then renamed. Messages hold
//! links that are as good as passwords, so only the daemon's own user can read them.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::job::{JobId, Timestamp};

#[derive(Debug, thiserror::Error)]
#[error("write {}: {reason}", path.display())]
pub(super) struct OutboxError {
    path: PathBuf,
    reason: std::io::Error,
}

/// Writes `bytes` into `folder` (created when missing) as `name` and returns the file's path. A file of the same
/// name is replaced.
pub(super) async fn write(folder: &Path, name: String, bytes: Vec<u8>) -> Result<PathBuf, OutboxError> {
    let folder = folder.to_owned();
    let path = folder.join(&name);
    let shown = path.clone();
    tokio::task::spawn_blocking(move || write_now(&folder, &name, &bytes).map(|()| path))
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(|reason| OutboxError { path: shown, reason })
}

fn write_now(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    // A folder that is there keeps its mode: who may look into it is the operator's choice.
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let unfinished = folder.join(format!(".{name}.tmp"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, folder.join(name))
}

/// A file name that sorts by time and tells the job and its step: `20261123T103457158Z-<job>-<step>.eml`. A retry has
/// the same job and step and another time.
pub(super) fn file_name(now: Timestamp, job: &JobId, step: usize, ending: &str) -> String {
    format!("{}-{}-{step}.{ending}", now.to_utc().format("%Y%m%dT%H%M%S%3fZ"), safe(job.as_str()))
}

/// The id with every character that has a meaning in a path replaced, cut to what a file name can hold.
fn safe(id: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    id.chars().map(plain).take(150).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_foreign_job_id_cannot_leave_the_folder_and_nobody_else_reads_it() {
        let home = tempfile::tempdir().expect("a temp dir");
        let folder = home.path().join("outbox");
        let id = JobId::parse("../../etc/passwd").expect("a valid, if odd, id");
        let name = file_name(Timestamp::from_millis(1_795_430_097_158), &id, 0, "eml");
        assert_eq!(name, "20261123T103457158Z-.._.._etc_passwd-0.eml");
        let path = write(&folder, name, b"hello".to_vec()).await.expect("it is written");
        assert_eq!(path.parent(), Some(folder.as_path()));
        assert_eq!(std::fs::read(&path).expect("it is there"), b"hello");
        let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
        assert_eq!(std::fs::read_dir(&folder).expect("the folder").count(), 1, "no .tmp is left");
    }
}
