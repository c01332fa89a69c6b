//! A private PostgreSQL 15 on a free loopback port.

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{Child, free_port, until};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

#[derive(Debug)]
pub(crate) struct Postgres {
    _process: Child,
    dir: TempDir,
    port: u16,
}

impl Postgres {
    /// Makes a cluster, starts its server and waits until it takes connections.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        give_away(dir.path());
        let data = dir.path().join("data");
        let mut initdb = unprivileged("initdb");
        initdb
            .args(["--auth=trust", "--username=jobsd", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data);
        let made = initdb.output().expect("initdb starts");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let mut server = unprivileged("postgres");
        server.arg("-D").arg(&data).args(["-F", "-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-k"]);
        let log = std::fs::File::create(dir.path().join("log")).expect("a log file");
        let process = Child::spawn(server.arg(dir.path()).stdout(Stdio::null()).stderr(log));
        let server = Self { _process: process, dir, port };
        until(format_args!("PostgreSQL in {}", server.dir.path().display()), || server.is_ready().then_some(()));
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://jobsd@127.0.0.1:{}/postgres", self.port)
    }

    /// Runs statements by `psql`; rows as lines, columns parted by `|`.
    #[track_caller]
    pub(crate) fn sql(&self, statements: &str) -> String {
        let psql = Command::new(format!("{PROGRAMS}/psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statements, &self.url()])
            .output()
            .expect("psql starts");
        assert!(psql.status.success(), "{statements}: {}", String::from_utf8_lossy(&psql.stderr));
        String::from_utf8_lossy(&psql.stdout).trim().to_owned()
    }

    fn is_ready(&self) -> bool {
        let mut asked = Command::new(format!("{PROGRAMS}/pg_isready"));
        asked.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        asked.status().expect("pg_isready starts").success()
    }
}

/// PostgreSQL refuses to run as root, so a test that does lends it the folder and the name of `nobody`.
fn give_away(dir: &Path) {
    if rustix::process::geteuid().is_root() {
        let given = Command::new("chown").args(["-R", "nobody:nogroup"]).arg(dir).status();
        assert!(given.expect("chown starts").success());
    }
}

fn unprivileged(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
    }
    command.args(["--pdeathsig=KILL", "--"]).arg(format!("{PROGRAMS}/{program}"));
    command.current_dir("/");
    command
}
