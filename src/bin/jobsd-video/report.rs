//! Writes our lines to whoever started us, on a descriptor that no library knows, and turns the end of a run into an exit code.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::cancel;
use crate::failure::Failure;
use crate::ffi;
use crate::protocol::{Error, ErrorKind, Event, Progress, Report};
use crate::time::millis;

/// The caller's mistake, as in sysexits.h.
pub(crate) const EXIT_USAGE: u8 = 64;

const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Reporter {
    out: File,
    last_progress: Option<Instant>,
}

impl Reporter {
    /// Takes stdout away: afterwards descriptor 1 is stderr, and only this value reaches the reader.
    pub(crate) fn take_stdout() -> io::Result<Self> {
        let out = io::stdout().as_fd().try_clone_to_owned()?;
        ffi::redirect_stdout_to_stderr()?;
        Ok(Self { out: out.into(), last_progress: None })
    }

    /// May be called as often as one likes; at most five lines a second are written.
    pub(crate) fn progress(&mut self, done: Duration, total: Option<Duration>) {
        if self.last_progress.is_some_and(|last| last.elapsed() < PROGRESS_INTERVAL) {
            return;
        }
        self.last_progress = Some(Instant::now());
        let progress = Progress { done_ms: millis(done), total_ms: total.map(millis) };
        if self.write(&Event::Progress(progress)).is_err() {
            // Nobody reads any more, so nobody wants the outcome. Above all an orphan must not go on writing into a folder
            // that the next attempt is about to use.
            cancel::request();
        }
    }

    /// The last line and the exit code.
    pub(crate) fn finish(mut self, outcome: Result<Report, Failure>) -> ExitCode {
        let (event, code) = match outcome {
            Ok(report) => (Event::Result(report), 0),
            Err(Failure { kind, message }) => {
                eprintln!("jobsd-video: {message}");
                (Event::Error(Error { kind, message }), exit_code(kind))
            }
        };
        match self.write(&event) {
            Ok(()) => ExitCode::from(code),
            Err(_) => ExitCode::from(exit_code(ErrorKind::Io)),
        }
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.out.write_all(&line)
    }
}

fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::UnreadableInput | ErrorKind::Truncated | ErrorKind::Unsupported | ErrorKind::Limit => 2,
        ErrorKind::Request => EXIT_USAGE,
        ErrorKind::Internal => 70,
        ErrorKind::Io => 75,
        ErrorKind::Cancelled => 143,
    }
}
