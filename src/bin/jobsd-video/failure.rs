//! Why a run failed: whose fault it is, and one sentence for the person whose video it is.
//!
//! Owns how an error of libav or of the file system becomes one of ours. Which exit code follows is for `report` to know.

use std::io;
use std::path::Path;

use ffmpeg_next as ffmpeg;

use crate::protocol::ErrorKind;

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "the work was stopped before it was finished")
    }

    /// The input could not be opened or decoded.
    pub(crate) fn input(kind: ErrorKind, message: &str, error: ffmpeg::Error) -> Self {
        Self::general(error).unwrap_or_else(|| Self::new(kind, format!("{message} ({error})")))
    }

    /// Something that only our own code can have got wrong.
    pub(crate) fn internal(doing: &str, error: ffmpeg::Error) -> Self {
        Self::general(error).unwrap_or_else(|| Self::new(ErrorKind::Internal, format!("{doing} failed ({error})")))
    }

    /// A file that is being written; libav passes on what the system said.
    pub(crate) fn output(path: &Path, error: ffmpeg::Error) -> Self {
        match error {
            ffmpeg::Error::Other { errno } if errno != libc::EINVAL && errno != libc::ENOMEM => {
                Self::io("write", path, io::Error::from_raw_os_error(errno))
            }
            _ => Self::internal(&format!("writing {}", path.display()), error),
        }
    }

    pub(crate) fn io(verb: &str, path: &Path, error: io::Error) -> Self {
        Self::new(ErrorKind::Io, format!("cannot {verb} {}: {error}", path.display()))
    }

    /// What means the same wherever libav says it.
    fn general(error: ffmpeg::Error) -> Option<Self> {
        match error {
            ffmpeg::Error::Exit => Some(Self::cancelled()),
            // Memory is what the resource limits of this process allow, and a retry would need as much again.
            ffmpeg::Error::Other { errno: libc::ENOMEM } => {
                Some(Self::new(ErrorKind::Limit, "the video needs more memory than it is allowed to take"))
            }
            _ => None,
        }
    }
}
