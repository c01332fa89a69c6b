//! Who this process is: its node id, and its hold on the state folder.
//!
//! The folder is locked for as long as the process lives, by a lock that the kernel releases with it. Whoever gets the
//! lock on the same machine therefore knows that the node named in it is dead, and may take over its jobs at once instead
//! of waiting for its leases to end.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use crate::job::NodeId;

/// How long a lock that another process holds is waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// This process's place among the nodes.
#[derive(Debug)]
pub(crate) struct Node {
    pub id: NodeId,
    /// The node that held the state folder before.
    pub predecessor: Option<NodeId>,
    /// Open for as long as we live: closing it gives the lock up.
    _lock: File,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    #[error("use the state folder {path}: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("use the state folder {path}: another jobsd runs on it ({holder}); give each its own node.state_dir")]
    Held { path: PathBuf, holder: String },
}

impl Node {
    /// Locks the folder, which is created when it is missing, under a node id that no other process has.
    ///
    /// # Errors
    /// [`NodeError`] when the folder cannot be used or another process holds it.
    pub(crate) fn enter(state_dir: &Path, name: &str) -> Result<Self, NodeError> {
        let folder = |source| NodeError::Folder { path: state_dir.to_owned(), source };
        // What is in it (arguments, mails) is for nobody else.
        DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(folder)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(state_dir.join("node.lock"))
            .map_err(folder)?;
        let locked = lock_alone(&lock);
        let mut written = String::new();
        lock.read_to_string(&mut written).map_err(folder)?;
        let written = written.trim().to_owned();
        if !locked {
            return Err(NodeError::Held { path: state_dir.to_owned(), holder: written });
        }
        let id = new_id(name);
        let machine = machine();
        lock.rewind().and_then(|()| lock.set_len(0)).and_then(|()| write!(lock, "{id} {machine}")).map_err(folder)?;
        Ok(Self { id, predecessor: predecessor(&written, &machine), _lock: lock })
    }
}

/// Whether the lock is ours; tries for a moment. A daemon that was killed while it started a child may leave it to that
/// child until the child's exec, which closes it.
fn lock_alone(file: &File) -> bool {
    let start = Instant::now();
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return true,
            Err(_) if start.elapsed() >= LONGEST_WAIT => return false,
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// The node named in the lock, if it ran on this machine. In a folder that was copied from another machine it may be
/// alive there.
fn predecessor(written: &str, machine: &str) -> Option<NodeId> {
    let (node, on) = written.split_once(' ')?;
    if on == machine { NodeId::parse(node).ok() } else { None }
}

/// systemd's id of this machine (machine-id(5)); empty where there is none.
fn machine() -> String {
    std::fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned()
}

/// The name, cut to what a node id may hold, and eight hexadecimal digits that no other start has.
fn new_id(name: &str) -> NodeId {
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') { c } else { '-' })
        .take(100)
        .collect();
    NodeId::parse(&format!("{name}-{}", &unique[..8])).expect("a cleaned name and hexadecimal digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_folder_is_refused_and_a_left_one_names_its_predecessor() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let first = Node::enter(folder.path(), "vps").expect("the first one gets it");
        let refused = Node::enter(folder.path(), "vps").expect_err("it is held");
        assert!(refused.to_string().contains(first.id.as_str()), "{refused}");
        let first_id = first.id.clone();
        drop(first);
        let second = Node::enter(folder.path(), "vps").expect("it is free again");
        assert_eq!(second.predecessor, Some(first_id.clone()));
        assert_ne!(second.id, first_id, "every start is a node of its own");
    }

    /// As by a child between its fork and its exec, when its daemon is killed in that moment.
    #[test]
    fn a_lock_that_is_held_for_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let killed = Node::enter(folder.path(), "vps").expect("the first one gets it");
        let inherited = killed._lock.try_clone().expect("a copy of the open file");
        drop(killed);
        let exec = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(inherited);
        });
        Node::enter(folder.path(), "vps").expect("it waits for the exec");
        exec.join().expect("no panic");
    }

    #[test]
    fn a_copied_folder_names_no_predecessor() {
        assert_eq!(predecessor("vps-1234 here", "here"), NodeId::parse("vps-1234").ok());
        assert_eq!(predecessor("vps-1234 elsewhere", "here"), None);
        assert_eq!(predecessor("", ""), None);
    }
}
