//! The lock that guards hold: by it a daemon that starts knows that nothing is left of the programs of the one before.
//!
//! Each guard inherits an open file of its own, which is locked (flock, shared) before the guard starts; the kernel gives
//! it up with the guard, however that ends. Who starts on the state folder wants the lock alone for a moment, before the
//! first claim. There is no hand-over to be missed: from before a program starts until it is gone, somebody holds it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use tokio::time::Instant;

/// Guards need milliseconds as a rule, and give up on what cannot be killed after two seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("exec.lock")
}

fn open(state_dir: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path(state_dir))
}

/// For one guard. Never waits: a daemon that starts is alone on its folder, and claims nothing while it holds the lock.
pub(super) fn hold(state_dir: &Path) -> io::Result<File> {
    let file = open(state_dir)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared)?;
    Ok(file)
}

/// Returns when no guard of an earlier daemon on this state folder lives, or after a bounded time.
pub(crate) async fn until_guards_have_ended(state_dir: &Path) {
    // Without the file there was no guard; who cannot open it starts none either.
    let Ok(file) = open(state_dir) else { return };
    let (start, mut told) = (Instant::now(), false);
    while rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if start.elapsed() >= LONGEST_WAIT {
            tracing::warn!(
                "programs of the daemon before are still there after {LONGEST_WAIT:?}; jobs start beside them"
            );
            return;
        }
        if !told {
            tracing::info!("waiting for the programs of the daemon before to be ended");
            told = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_starts_waits_for_every_guard_and_not_for_ever() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let start = Instant::now();
        until_guards_have_ended(dir.path()).await;
        assert_eq!(start.elapsed(), Duration::ZERO, "there is none");
        let guards = [hold(dir.path()).expect("it is free"), hold(dir.path()).expect("guards share it")];
        let waiting = until_guards_have_ended(dir.path());
        tokio::pin!(waiting);
        for guard in guards {
            tokio::select! {
                () = &mut waiting => panic!("a guard lives"),
                () = tokio::time::sleep(Duration::from_secs(1)) => drop(guard),
            }
        }
        waiting.await;
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        let _stuck = hold(dir.path()).expect("it was given up");
        until_guards_have_ended(dir.path()).await;
        assert!(start.elapsed() >= LONGEST_WAIT);
    }
}
