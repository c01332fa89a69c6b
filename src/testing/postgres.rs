//! A private PostgreSQL 15 on a free loopback port, with a certificate of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::certificate;

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

pub(crate) struct Server {
    dir: TempDir,
    port: u16,
    process: Child,
}

impl Server {
    /// Makes a cluster, starts its server and waits until it takes connections.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temp dir");
        certificate::make(dir.path());
        give_away(dir.path());
        let data = dir.path().join("data");
        let made = unprivileged("initdb")
            .args(["--auth=trust", "--username=jobsd", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .output()
            .expect("initdb starts");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let socket = dir.path().to_str().expect("a UTF-8 path").to_owned();
        let process = unprivileged("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-F", "-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-k", &socket, "-c", "ssl=on"])
            .arg("-c")
            .arg(format!("ssl_cert_file={socket}/server.crt"))
            .arg("-c")
            .arg(format!("ssl_key_file={socket}/server.key"))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log")).expect("a log file"))
            .spawn()
            .expect("postgres starts");
        let mut server = Self { dir, port, process };
        server.wait_until_ready();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://jobsd@127.0.0.1:{}/postgres", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The server's own certificate, which is its authority too.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.dir.path().join("server.crt")
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let port = self.port.to_string();
        loop {
            let asked =
                Command::new(format!("{PROGRAMS}/pg_isready")).args(["-q", "-h", "127.0.0.1", "-p", &port]).status();
            if asked.expect("pg_isready starts").success() {
                return;
            }
            let ended = self.process.try_wait().expect("the server is our child");
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "postgres is not ready: {}", log());
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.process.id().cast_signed()) {
            // SIGQUIT: stop at once; nobody needs the data.
            let _ = rustix::process::kill_process(pid, Signal::QUIT);
        }
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// PostgreSQL refuses to run as root, so a test that does lends it the folder and the name of `nobody`.
fn give_away(dir: &Path) {
    if rustix::process::geteuid().is_root() {
        let given = Command::new("chown").args(["-R", "nobody:nogroup"]).arg(dir).status();
        assert!(given.expect("chown starts").success());
    }
}

fn unprivileged(program: &str) -> Command {
    let path = format!("{PROGRAMS}/{program}");
    if !rustix::process::geteuid().is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig=KILL", "--", &path]);
    command.current_dir("/");
    command
}
