//! The real `jobsd`, in a folder of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{Child, Redis, until};

/// A folder with a configuration and a state: where daemons run, one after another.
#[derive(Debug)]
pub(crate) struct Home {
    folder: TempDir,
    environment: Vec<(String, String)>,
}

/// The shipped jobsd.toml with some of its texts replaced, each of which must be in it.
#[track_caller]
pub(crate) fn shipped(changes: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobsd.toml");
    let text = fs::read_to_string(path).expect("the shipped file is there");
    let own =
        [("#listen = \"127.0.0.1:9180\"", "listen = \"127.0.0.1:0\""), ("#format = \"text\"", "format = \"json\"")];
    own.iter().chain(changes).fold(text, |text, (from, to)| {
        assert!(text.contains(from), "jobsd.toml does not say {from}");
        text.replace(from, to)
    })
}

impl Home {
    /// A home with this configuration. The parts that no test is about stand before it: a state folder, an admin port
    /// of the kernel's choice, logs that can be read back, and the shortest lease there is.
    pub(crate) fn new(redis: &Redis, config: &str) -> Self {
        Self::on(&redis.url(), config)
    }

    pub(crate) fn on(redis_url: &str, config: &str) -> Self {
        let home = Self::with_whole(String::new());
        home.rewrite(redis_url, config);
        home
    }

    /// A home whose configuration is all the test's own.
    pub(crate) fn with_whole(config: String) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("jobsd.toml"), config).expect("it can be written");
        Self { folder, environment: Vec::new() }
    }

    #[must_use]
    pub(crate) fn with_env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn rewrite(&self, redis_url: &str, config: &str) {
        let lease = if config.contains("node.lease") { "" } else { "node.lease = \"3s\"\n" };
        let text = format!(
            "redis.url = \"{redis_url}\"\nnode.state_dir = \"state\"\n{lease}\
             admin.listen = \"127.0.0.1:0\"\nlog.format = \"json\"\n{config}"
        );
        fs::write(self.config(), text).expect("it can be written");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("jobsd.toml")
    }

    /// A daemon that has said that it runs.
    #[track_caller]
    pub(crate) fn start(&self) -> Daemon {
        let mut daemon = self.spawn();
        daemon.wait_until_running();
        daemon
    }

    /// A daemon that may well refuse to start.
    #[track_caller]
    pub(crate) fn spawn(&self) -> Daemon {
        let log = self.new_log();
        let stderr = fs::File::create(&log).expect("a log file");
        let mut command = Child::command(env!("CARGO_BIN_EXE_jobsd"));
        command.args(["run", "--config", "jobsd.toml"]).current_dir(self.folder.path());
        // Nothing of the developer's own environment takes part.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(stderr.try_clone().expect("a file")).stderr(stderr);
        Daemon { process: Child::spawn(&mut command), log, admin: SocketAddr::from(([127, 0, 0, 1], 0)) }
    }

    /// Everything that daemons of this home have ever written, in the order of their starts.
    pub(crate) fn logs(&self) -> String {
        (1..).map_while(|n| fs::read_to_string(self.path(&format!("{n}.log"))).ok()).collect()
    }

    fn new_log(&self) -> PathBuf {
        let paths = (1..).map(|n| self.path(&format!("{n}.log")));
        paths.into_iter().find(|path| !path.exists()).expect("numbers do not end")
    }
}

/// A running daemon; dropping it kills it. When the test fails, its log is shown.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Child,
    log: PathBuf,
    pub(crate) admin: SocketAddr,
}

impl Daemon {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn wait_for_log(&mut self, words: &str) {
        until(format_args!("the log to say {words:?}"), || {
            assert!(self.log().contains(words) || self.process.ended().is_none(), "it ended without saying {words:?}");
            self.log().contains(words).then_some(())
        });
    }

    #[track_caller]
    fn wait_until_running(&mut self) {
        let line = until("the daemon to run", || {
            let ended = self.process.ended();
            let line = self.lines().into_iter().find(|line| line["fields"]["message"] == "running");
            assert!(line.is_some() || ended.is_none(), "it ended at its start: {ended:?}");
            line
        });
        let address = line["fields"]["admin"].as_str().expect("it says where its admin port is");
        self.admin = address.parse().expect("an address");
    }

    /// The lines of the log that are JSON; a line that is being written is not.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    #[track_caller]
    pub(crate) fn assert_alive(&mut self) {
        assert_eq!(self.process.ended(), None, "the daemon has ended");
    }

    /// The processor time it has used so far, its threads together. The kernel counts it in hundredths of a second.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("it runs");
        // The name of the program stands in parentheses; utime and stime are the 14th and 15th field.
        let fields = stat.rsplit_once(')').expect("a name in parentheses").1.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 10)
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.process.kill();
    }

    pub(crate) fn reload(&self) {
        self.process.signal(Signal::HUP);
    }

    /// SIGSTOP: it stands still until it is killed.
    pub(crate) fn freeze(&self) {
        self.process.signal(Signal::STOP);
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// SIGTERM, and how it ended.
    #[track_caller]
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.terminate();
        self.wait()
    }

    /// How it ended by itself.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.wait(Duration::from_secs(60)).expect("the daemon ends within a minute")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the end of the log of jobsd {}", self.process.id());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
