//! The command line, typed by ann.

use std::io::Write as _;
use std::process::{Output, Stdio};

use serde_json::Value;

use super::{Child, Daemon, Home};

/// What a command said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The same, if it ended well.
    #[track_caller]
    pub(crate) fn well(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

impl Home {
    /// `jobsd ARGS`, speaking with this daemon.
    #[track_caller]
    pub(crate) fn type_to(&self, daemon: &Daemon, args: &[&str]) -> Said {
        self.type_with(args, &[("JOBSD_URL", &format!("http://{}", daemon.admin))], "")
    }

    /// `jobsd ARGS` in this home, with these variables and this on standard input.
    #[track_caller]
    pub(crate) fn type_with(&self, args: &[&str], environment: &[(&str, &str)], input: &str) -> Said {
        let mut command = Child::command(env!("CARGO_BIN_EXE_jobsd"));
        command.args(args).current_dir(self.path(""));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("USER", "ann");
        command.envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        // It may not read it.
        let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
        let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Said { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
    }

    /// Enqueues by the command line; returns the job's id.
    #[track_caller]
    pub(crate) fn enqueue(&self, daemon: &Daemon, args: &[&str]) -> String {
        self.type_to(daemon, &[&["enqueue"], args].concat()).well().out.trim().to_owned()
    }
}
