//! A private `redis-server` for one test: on a socket in a folder of its own, ended with the value.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::config::Secret;

const START_DEADLINE: Duration = Duration::from_secs(20);

/// A running server, with its data in memory only.
#[derive(Debug)]
pub(crate) struct RedisServer {
    folder: TempDir,
    child: Option<Child>,
}

impl RedisServer {
    pub(crate) fn start() -> Self {
        let mut server = Self { folder: TempDir::new().expect("a temporary folder"), child: None };
        server.restart();
        server
    }

    pub(crate) fn url(&self) -> Secret {
        Secret::new(format!("redis+unix://{}", self.socket().display()))
    }

    /// Ends the server at once, as a crash does. Clients are refused from here on.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is our child");
            child.wait().expect("it was killed");
            // A killed server leaves its socket behind.
            let _ = std::fs::remove_file(self.socket());
        }
    }

    /// Starts a new, empty server at the same address and waits until it answers.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--logfile", "redis.log", "--unixsocket"])
            .arg(self.socket())
            .arg("--dir")
            .arg(self.folder.path())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.child = Some(child);
        let deadline = Instant::now() + START_DEADLINE;
        while !self.answers() {
            assert!(Instant::now() < deadline, "redis-server did not answer within {START_DEADLINE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets the server neither answer nor end, as a stuck machine does, until [`RedisServer::thaw`].
    pub(crate) fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.as_ref().expect("the server runs");
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, signal).expect("it is our child");
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = UnixStream::connect(self.socket()) else { return false };
        let mut answer = [0; 7];
        stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut answer).is_ok() && answer == *b"+PONG\r\n"
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
