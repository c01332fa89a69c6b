//! `jobsd-video`: the transcoder of jobsd, started by it for one job at a time. The only code that touches libav.
//!
//! A run is a straight line: read the request from stdin → close the doors → do the work → report. Being a process of its
//! own, it can be limited, sandboxed and killed, and a codec that crashes on a hostile file takes nothing with it.
//!
//! `protocol` says what is read and written, `request` and `report` read and write it. `probe` opens the input; `transcode`
//! and `thumbnail` are the two kinds of work; `pictures`, `sound`, `graph`, `encode` and `mux` are their stages, in the order
//! in which data passes; `output` makes files appear complete or not at all. All unsafe code is in `ffi`.

mod cancel;
mod colours;
mod encode;
mod failure;
mod ffi;
mod geometry;
mod graph;
mod mux;
mod output;
mod pictures;
mod probe;
#[path = "../../handler/video_protocol.rs"]
mod protocol;
mod report;
mod request;
mod rotation;
mod sound;
mod thumbnail;
mod time;
mod transcode;

use std::io::{self, IsTerminal};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::failure::Failure;
use crate::protocol::{ErrorKind, Report};
use crate::report::{EXIT_USAGE, Reporter};
use crate::request::{Job, Work};

const USAGE: &str = "\
jobsd-video is started by jobsd and reads one request, a JSON document, from stdin:

  jobsd-video <<'END'
  {\"input\": \"/videos/clip.mov\", \"output_dir\": \"/videos/out\", \"mode\": \"transcode\",
   \"renditions\": [{\"name\": \"720p\", \"height\": 720}, {\"name\": \"480p\", \"height\": 480}],
   \"thumbnail\": {\"at_ms\": 1000}}
  END

It writes progress and one result or error to stdout, as JSON, one a line.
Exit codes: 0 done, 2 the input is at fault, 64 the request is, 70 a bug, 75 try again later, 143 stopped.";

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 || io::stdin().is_terminal() {
        eprintln!("{USAGE}");
        return ExitCode::from(EXIT_USAGE);
    }
    let mut reporter = match Reporter::take_stdout() {
        Ok(reporter) => reporter,
        Err(error) => {
            eprintln!("jobsd-video: cannot take stdout: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| run(&mut reporter)));
    reporter.finish(outcome.unwrap_or_else(|_| Err(Failure::new(ErrorKind::Internal, "jobsd-video has panicked"))))
}

fn run(reporter: &mut Reporter) -> Result<Report, Failure> {
    let job = Job::read(io::stdin().lock())?;
    close_the_doors()?;
    match &job.work {
        Work::Transcode(work) => transcode::run(&job, work, reporter),
        Work::Thumbnail(wish) => thumbnail::run(&job, *wish, reporter),
    }
}

/// What this process gives up before it looks at a file that a stranger has made. Here a sandbox belongs: from now on only the
/// input is read, only the output folder is read and written, and nothing else is opened, started or connected to.
fn close_the_doors() -> Result<(), Failure> {
    let failed = |what: &str, error: io::Error| Failure::new(ErrorKind::Io, format!("cannot {what}: {error}"));
    // A dump of this process would hold the stranger's pictures.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|error| failed("forbid core dumps", error.into()))?;
    cancel::listen().map_err(|error| failed("listen to signals", error))?;
    ffmpeg_next::init().map_err(|error| Failure::internal("starting libav", error))?;
    ffmpeg_next::log::set_level(ffmpeg_next::log::Level::Error);
    Ok(())
}
