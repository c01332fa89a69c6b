//! The output folder: files are written as `<name>.part` and get their names all together at the end, or not at all.
//!
//! Owns creating, sweeping, publishing and removing; what is in the files is for `mux` and `thumbnail`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::cancel;
use crate::failure::Failure;
use crate::protocol::ErrorKind;

const LOCK_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Holds the lock that keeps other runs out; the system lets go of it however this process ends.
    _lock: File,
}

impl Folder {
    /// The folder must exist and take files; that is found out now and not after an hour of work.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        match fs::metadata(path) {
            Err(error) => return Err(Failure::io("use the output folder", path, error)),
            Ok(facts) if !facts.is_dir() => {
                let message = format!("cannot use the output folder {}: it is not a folder", path.display());
                return Err(Failure::new(ErrorKind::Io, message));
            }
            Ok(_) => {}
        }
        let folder = Self { path: path.to_owned(), _lock: lock(path)? };
        folder.sweep()?;
        Part::create(&folder, "jobsd-video.writable").map(drop)?;
        Ok(folder)
    }

    /// Removes what a killed run has left. The lock is ours, so no part belongs to anyone alive.
    fn sweep(&self) -> Result<(), Failure> {
        let failed = |error| Failure::io("sweep", &self.path, error);
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "part") {
                fs::remove_file(&path).map_err(|error| Failure::io("remove", &path, error))?;
            }
        }
        Ok(())
    }

    /// Gives all parts their names. If one cannot have it, those published before it are removed again.
    pub(crate) fn publish(&self, parts: Vec<Part>) -> Result<(), Failure> {
        for part in &parts {
            part.sync()?;
        }
        let mut published = Vec::new();
        for part in parts {
            match part.publish() {
                Ok(path) => published.push(path),
                Err(failure) => {
                    published.iter().for_each(|path| remove(path));
                    return Err(failure);
                }
            }
        }
        let synced = File::open(&self.path).and_then(|folder| folder.sync_all());
        synced.map_err(|error| Failure::io("write", &self.path, error))
    }
}

/// A file in the making; it vanishes with this value unless it is published.
#[derive(Debug)]
pub(crate) struct Part {
    path: PathBuf,
    /// What it will be called.
    pub(crate) name: String,
    published: bool,
}

impl Part {
    /// `name` must be a plain file name.
    pub(crate) fn create(folder: &Folder, name: &str) -> Result<Self, Failure> {
        let path = folder.path.join(format!("{name}.part"));
        File::create(&path).map_err(|error| Failure::io("write", &path, error))?;
        Ok(Self { path, name: name.to_owned(), published: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> Result<u64, Failure> {
        fs::metadata(&self.path).map(|facts| facts.len()).map_err(|error| Failure::io("read", &self.path, error))
    }

    /// On the disk before it is called finished: a rename can survive a power cut that its file's contents do not.
    fn sync(&self) -> Result<(), Failure> {
        File::open(&self.path).and_then(|file| file.sync_all()).map_err(|error| Failure::io("write", &self.path, error))
    }

    fn publish(mut self) -> Result<PathBuf, Failure> {
        let path = self.path.with_file_name(&self.name);
        fs::rename(&self.path, &path).map_err(|error| Failure::io("write", &path, error))?;
        self.published = true;
        Ok(path)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.published {
            remove(&self.path);
        }
    }
}

/// Waits until no other run uses the folder: that may be another job of the same video, or an orphan that is about to notice.
/// How long is too long is for the caller to say, who can stop us.
fn lock(path: &Path) -> Result<File, Failure> {
    let failed = |error: io::Error| Failure::io("use the output folder", path, error);
    let folder = File::open(path).map_err(failed)?;
    loop {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(folder),
            Err(Errno::WOULDBLOCK) => thread::sleep(LOCK_INTERVAL),
            Err(error) => return Err(failed(error.into())),
        }
        cancel::check()?;
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        eprintln!("jobsd-video: cannot remove {}: {error}", path.display());
    }
}
