//! A private `redis-server` that can be killed, stopped and started again on the same port and files.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Child, free_port, until};

#[derive(Debug)]
pub(crate) struct Redis {
    dir: TempDir,
    port: u16,
    settings: Vec<String>,
    password: Option<String>,
    process: Option<Child>,
}

impl Redis {
    /// A running server that forgets everything when it is killed.
    pub(crate) fn start() -> Self {
        let mut server = Self::absent(&["--save", "", "--appendonly", "no"], None);
        server.start_again();
        server
    }

    /// A running server that has written to disk whatever it has acknowledged.
    pub(crate) fn durable() -> Self {
        let mut server = Self::absent(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"], None);
        server.start_again();
        server
    }

    /// A running server with these settings besides.
    pub(crate) fn with_settings(settings: &[&str]) -> Self {
        let mut server = Self::absent(&[&["--save", "", "--appendonly", "no"], settings].concat(), None);
        server.start_again();
        server
    }

    pub(crate) fn with_password(password: &str) -> Self {
        let settings = ["--save", "", "--appendonly", "no", "--requirepass", password];
        let mut server = Self::absent(&settings, Some(password.to_owned()));
        server.start_again();
        server
    }

    /// A server that is not there yet: [`Redis::start_again`] starts it on the port that its URL names.
    pub(crate) fn not_yet_started() -> Self {
        Self::absent(&["--save", "", "--appendonly", "no"], None)
    }

    fn absent(settings: &[&str], password: Option<String>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        Self { dir, port: free_port(), settings, password, process: None }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        match &self.password {
            Some(password) => format!("redis://:{password}@127.0.0.1:{}/0", self.port),
            None => format!("redis://127.0.0.1:{}/0", self.port),
        }
    }

    pub(crate) fn client(&self) -> redis::Connection {
        until(format_args!("redis-server to answer:\n{}", self.log()), || self.try_client())
    }

    pub(crate) fn try_client(&self) -> Option<redis::Connection> {
        let client = redis::Client::open(self.url()).expect("a valid URL");
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(2)).ok()?;
        // While it loads its file it takes connections and refuses every command.
        redis::cmd("PING").query::<String>(&mut connection).ok()?;
        Some(connection)
    }

    pub(crate) fn start_again(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log")).expect("a log file");
        let mut command = Child::command("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--dir"]).arg(self.dir.path());
        command.args(&self.settings).stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        self.process = Some(Child::spawn(&mut command));
        drop(self.client());
    }

    /// As the kernel ends one that is out of memory.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Lets it neither answer nor end, as behind a network that drops its packets, until [`Redis::thaw`].
    pub(crate) fn freeze(&self) {
        self.process.as_ref().expect("it runs").signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.process.as_ref().expect("it runs").signal(Signal::CONT);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}
