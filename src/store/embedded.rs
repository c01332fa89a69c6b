//! The private `redis-server` of `redis.url = "embedded"`: started in the state folder, reached over a socket, ended
//! with the daemon.
//!
//! Real Redis, with its append-only file on, so what was accepted survives a crash of both. Supervising it (starting
//! it again when it dies) is the daemon's loop around [`Embedded::start`].

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::FlockOperation;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::config::Secret;

/// How long a fresh server may take to load its append-only file and answer.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long it may take to write everything out when asked to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// Socket paths are limited to 107 bytes by the kernel (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

#[derive(Debug, thiserror::Error)]
pub(crate) enum EmbeddedError {
    #[error("create the folder {path} for the embedded Redis: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error(
        "start redis-server: it is not on PATH; install it (Debian: apt-get install redis-server) or set redis.url"
    )]
    NotInstalled,
    #[error("start redis-server: {0}")]
    Spawn(io::Error),
    #[error("start the embedded redis-server: it ended at once ({status}): {reason}; its log is {log}")]
    Ended { status: String, reason: String, log: PathBuf },
    #[error("start the embedded redis-server: it did not answer within {0:?}")]
    Silent(Duration),
    #[error("start the embedded redis-server: one that a killed daemon left behind still runs after {0:?}")]
    Busy(Duration),
    #[error(
        "start the embedded redis-server: the path of its socket has {0} bytes, at most {MAX_SOCKET_PATH} work; choose a shorter node.state_dir"
    )]
    SocketPath(usize),
}

/// A running private server. Dropping it ends the server at once; [`Embedded::stop`] lets it write out first.
#[derive(Debug)]
pub(crate) struct Embedded {
    child: Child,
    socket: PathBuf,
}

impl Embedded {
    /// The folder of the server inside the state folder.
    pub(crate) fn folder(state_dir: &Path) -> PathBuf {
        state_dir.join("redis")
    }

    /// The URL under which clients on this machine reach it.
    pub(crate) fn url(state_dir: &Path) -> Secret {
        Secret::new(socket_url(&socket(state_dir)))
    }

    /// Starts the server and waits until it answers. With a `port` it listens on the loopback address too.
    ///
    /// A server that a killed daemon left behind is waited for: until it has written everything out and is gone, its
    /// files and its socket are its own.
    ///
    /// # Errors
    /// [`EmbeddedError`], with the remedy in its words.
    pub(crate) async fn start(state_dir: &Path, port: Option<u16>) -> Result<Self, EmbeddedError> {
        let folder = Self::folder(state_dir);
        std::fs::create_dir_all(&folder).map_err(|source| EmbeddedError::Folder { path: folder.clone(), source })?;
        let folder = folder.canonicalize().map_err(|source| EmbeddedError::Folder { path: folder.clone(), source })?;
        let socket = socket(state_dir);
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(EmbeddedError::SocketPath(socket.as_os_str().len()));
        }
        let lock = lock(&folder).await?;
        // Nobody listens on it any more; a client must not take it for the new server's.
        let _ = std::fs::remove_file(&socket);
        let child = spawn(&folder, &socket, port, &lock)?;
        let mut server = Self { child, socket };
        server.wait_until_it_answers(&folder).await?;
        Ok(server)
    }

    /// The server's process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Completes when the server has ended by itself.
    pub(crate) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Asks the server to write everything out and end; kills it when it takes too long.
    pub(crate) async fn stop(mut self) {
        if let Some(pid) =
            self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw)
        {
            // It may have ended already; then there is nobody to tell.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(STOP_DEADLINE, self.child.wait()).await.is_err() {
            tracing::warn!("the embedded redis-server did not stop within {STOP_DEADLINE:?}, killing it");
            let _ = self.child.kill().await;
        }
    }

    /// Ends the server as a crash does, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        // It fails only when the server has ended already.
        let _ = self.child.kill().await;
    }

    async fn wait_until_it_answers(&mut self, folder: &Path) -> Result<(), EmbeddedError> {
        let mut deadline = Instant::now() + START_DEADLINE;
        let client = redis::Client::open(socket_url(&self.socket))
            .map_err(|error| EmbeddedError::Spawn(io::Error::other(error)))?;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                let log = folder.join("redis.log");
                return Err(EmbeddedError::Ended { status: status.to_string(), reason: last_warning(&log), log });
            }
            match ping(&client).await {
                Ok(()) => return Ok(()),
                // It reads a large append-only file: it lives, and will answer.
                Err(error) if error.code() == Some("LOADING") => deadline = Instant::now() + START_DEADLINE,
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(EmbeddedError::Silent(START_DEADLINE))
    }
}

async fn ping(client: &redis::Client) -> redis::RedisResult<()> {
    let mut connection = client.get_multiplexed_async_connection().await?;
    redis::cmd("PING").query_async(&mut connection).await
}

/// The lock on the server's files. The server inherits it, so it is held until the server itself is gone, however that
/// comes about.
async fn lock(folder: &Path) -> Result<File, EmbeddedError> {
    let path = folder.join("redis.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|source| EmbeddedError::Folder { path, source })?;
    let deadline = Instant::now() + STOP_DEADLINE;
    while rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() >= deadline {
            return Err(EmbeddedError::Busy(STOP_DEADLINE));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(file)
}

fn socket(state_dir: &Path) -> PathBuf {
    let folder = Embedded::folder(state_dir);
    folder.canonicalize().unwrap_or(folder).join("redis.sock")
}

/// The socket as a URL; what has a meaning in URLs is escaped.
fn socket_url(socket: &Path) -> String {
    let path = socket.display().to_string().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
    format!("redis+unix://{path}")
}

/// The last line of a server's log that is a warning, which is where Redis says why it cannot start.
fn last_warning(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let warning = text.lines().rev().find_map(|line| line.split_once(" # ").map(|(_, words)| words.to_owned()));
    warning.unwrap_or_else(|| "it gave no reason".to_owned())
}

fn spawn(folder: &Path, socket: &Path, port: Option<u16>, lock: &File) -> Result<Child, EmbeddedError> {
    let lock = lock.as_raw_fd();
    let mut command = Command::new("redis-server");
    command
        .args([
            "--port",
            &port.unwrap_or(0).to_string(),
            "--bind",
            "127.0.0.1",
            "--unixsocketperm",
            "700",
            "--daemonize",
            "no",
            "--save",
            "",
        ])
        .args(["--appendonly", "yes", "--appendfsync", "everysec", "--aof-use-rdb-preamble", "yes"])
        .args(["--maxmemory-policy", "noeviction", "--loglevel", "notice", "--logfile", "redis.log"])
        .arg("--unixsocket")
        .arg(socket)
        .arg("--dir")
        .arg(folder)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A signal from the terminal is for the daemon, which stops its Redis last, when nothing needs it any more.
        .process_group(0)
        .kill_on_drop(true);
    // SAFETY: prctl and fcntl are async-signal-safe and take no pointers here; the lock is open until after the spawn.
    unsafe {
        command.pre_exec(move || {
            // Nothing of ours outlives a killed daemon. The server writes everything out on SIGTERM; until it is gone,
            // the lock that it inherits keeps the next one away.
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) == 0 && libc::fcntl(lock, libc::F_SETFD, 0) == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        });
    }
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => EmbeddedError::NotInstalled,
        _ => EmbeddedError::Spawn(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn call(url: &Secret, command: &[&str]) -> redis::RedisResult<String> {
        let mut connection = redis::Client::open(url.expose())?.get_multiplexed_async_connection().await?;
        redis::cmd(command[0]).arg(&command[1..]).query_async(&mut connection).await
    }

    /// What used to happen: the next server read the append-only file while the last one still wrote to it, and the last
    /// one, going away, removed the next one's socket.
    #[tokio::test]
    async fn a_server_that_was_left_behind_is_waited_for() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let url = Embedded::url(state.path());
        for round in 0..5 {
            let left = Embedded::start(state.path(), None).await.expect("redis-server is installed");
            let pid = rustix::process::Pid::from_raw(left.pid().expect("it runs").cast_signed()).expect("a pid");
            // It hangs, as under load, and is told to end.
            rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("it is our child");
            let next = tokio::spawn({
                let folder = state.path().to_owned();
                async move { Embedded::start(&folder, None).await }
            });
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is our child");
            let child = tokio::spawn(async move {
                let mut left = left;
                left.ended().await
            });
            tokio::task::yield_now().await;
            assert!(!next.is_finished(), "its files are not free");
            rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("it is our child");
            child.await.expect("it ends");
            let next = next.await.expect("no panic").expect("it starts");
            let key = format!("round-{round}");
            call(&url, &["SET", &key, "kept"]).await.expect("the socket is the new server's");
            for earlier in 0..=round {
                let kept = call(&url, &["GET", &format!("round-{earlier}")]).await.expect("it answers");
                assert_eq!(kept, "kept", "round {earlier} was lost by round {round}");
            }
            next.stop().await;
        }
    }
}
