//! The nodes: child processes of this very program, each with a configuration, a state folder and a proxy of its own.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::client::Client;
use super::ledger::{Ledger, Life};
use super::options::Options;
use super::proxy::Proxy;
use super::redis::{Redis, node_name};

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodeError {
    #[error("write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("find a free port of the loopback interface: {0}")]
    Port(io::Error),
    #[error("start {}: {source}", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error("start a node: {reason}; the end of its log {}:\n{tail}", log.display())]
    Start { reason: String, log: PathBuf, tail: String },
    #[error("signal a node: {0}")]
    Signal(io::Error),
    #[error("wait for a node: {0}")]
    Wait(io::Error),
}

/// What all nodes have in common.
#[derive(Debug)]
pub(super) struct Settings {
    program: PathBuf,
    folder: PathBuf,
    endpoint: SocketAddr,
    prefix: String,
    lease: Duration,
    concurrency: u16,
}

#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) nodes: Vec<Arc<Place>>,
    pub(super) client: Client,
}

/// A node's place: what stays when its process goes.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) admin: SocketAddr,
    pub(super) proxy: Option<Proxy>,
    /// Whoever does something to the node holds it.
    pub(super) process: Arc<Mutex<Process>>,
}

/// A node's process, and what it needs to be started again.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) life: Life,
    child: Child,
    number: usize,
    /// Grows with every fresh state folder.
    state: u32,
    start: Arc<Start>,
}

/// How a node is started.
#[derive(Debug)]
struct Start {
    settings: Arc<Settings>,
    ledger: Arc<Ledger>,
    client: Client,
    admin: SocketAddr,
    redis_url: String,
}

/// Until a started node answers.
const START: Duration = Duration::from_secs(30);
/// How long a node lets its jobs run on after SIGTERM.
pub(super) const DRAIN: Duration = Duration::from_secs(1);
/// A stop takes that long and what a hand-over takes.
const STOP: Duration = Duration::from_secs(40);
/// What is shown of a log.
const TAIL: usize = 2000;

impl Settings {
    pub(super) fn new(options: &Options, folder: &Path, endpoint: SocketAddr, prefix: &str) -> io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            folder: folder.to_owned(),
            endpoint,
            prefix: prefix.to_owned(),
            lease: options.lease,
            concurrency: options.concurrency,
        })
    }

    /// A wait for Redis is well below the lease, as with the defaults.
    fn timeout(&self) -> Duration {
        timeout(self.lease)
    }

    fn config(&self, admin: SocketAddr, life: Life, state: &Path) -> String {
        let (endpoint, concurrency, prefix) = (self.endpoint, self.concurrency, &self.prefix);
        let [timeout, lease, drain] = [self.timeout(), self.lease, DRAIN].map(|span| format!("{}ms", span.as_millis()));
        let (name, state, life) = (node_name(life), toml_text(state), life.0);
        format!(
            r#"redis = {{ url = "${{JOBSD_TORTURE_REDIS}}", prefix = "{prefix}", timeout = "{timeout}" }}
node = {{ name = "{name}", state_dir = {state}, lease = "{lease}", drain = "{drain}" }}
admin = {{ listen = "{admin}" }}
[queues.work]
concurrency = {concurrency}
retry = {{ limit = 5, backoff = "fixed", delay = "500ms", jitter = 0.0 }}
# Whatever is done to the nodes, no job is to blame for it.
crash_limit = 1000
keep_completed = {{ age = "7d", count = 10000000, bytes = "1024GiB" }}
keep_dead = {{ age = "7d", count = 10000000, bytes = "1024GiB" }}
[tasks.work]
queue = "work"
params = {{ n = "int" }}
http = {{ method = "POST", url = "http://{endpoint}/{life}/{{{{ n }}}}" }}
"#
        )
    }
}

/// The nodes' `redis.timeout` for this lease.
pub(super) fn timeout(lease: Duration) -> Duration {
    (lease / 3).min(Duration::from_secs(5))
}

/// A path as a text of TOML, with nothing in it for `${VAR}`.
fn toml_text(path: &Path) -> String {
    toml::Value::String(path.to_string_lossy().replace('$', "$$")).to_string()
}

impl Fleet {
    /// Starts so many nodes; they answer when this returns.
    pub(super) async fn start(
        settings: Settings,
        count: u16,
        redis: &Redis,
        ledger: &Arc<Ledger>,
    ) -> Result<Self, NodeError> {
        let (settings, client) = (Arc::new(settings), Client::new());
        let mut nodes = Vec::new();
        for number in 0..usize::from(count) {
            let proxy = match redis.upstream() {
                Some(upstream) => Some(Proxy::start(upstream, Arc::clone(&redis.open)).await.map_err(NodeError::Port)?),
                None => None,
            };
            let start = Start {
                settings: Arc::clone(&settings),
                ledger: Arc::clone(ledger),
                client: client.clone(),
                admin: free_address().map_err(NodeError::Port)?,
                redis_url: redis.url_by(proxy.as_ref().map(|proxy| proxy.address)),
            };
            let admin = start.admin;
            let process = Arc::new(Mutex::new(Process::start(Arc::new(start), number, 0).await?));
            nodes.push(Arc::new(Place { admin, proxy, process }));
        }
        Ok(Self { nodes, client })
    }

    /// Asks the nodes one after another, from the `turn`-th on, until one gives something.
    pub(super) async fn ask<T, F: Future<Output = Option<T>>>(
        &self,
        turn: usize,
        ask: impl Fn(SocketAddr) -> F,
    ) -> Option<T> {
        for step in 0..self.nodes.len() {
            let node = &self.nodes[(turn + step) % self.nodes.len()];
            if let Some(answer) = ask(node.admin).await {
                return Some(answer);
            }
        }
        None
    }

    /// Ends all nodes at once, in order.
    pub(super) async fn end(&self) {
        for node in &self.nodes {
            let process = node.process.lock().await;
            // One that has ended is as good; one that was stopped hears nothing until it goes on.
            let _ = process.signal(Signal::TERM);
            let _ = process.signal(Signal::CONT);
        }
        for node in &self.nodes {
            let _ = node.process.lock().await.wait().await;
            if let Some(proxy) = &node.proxy {
                proxy.end().await;
            }
        }
    }
}

impl Place {
    /// The node's process, when nobody is busy with it.
    pub(super) fn take(&self) -> Option<OwnedMutexGuard<Process>> {
        Arc::clone(&self.process).try_lock_owned().ok()
    }
}

impl Process {
    async fn start(start: Arc<Start>, number: usize, state: u32) -> Result<Self, NodeError> {
        let life = start.ledger.live();
        let child = spawn(&start, number, state, life)?;
        let mut process = Self { life, child, number, state, start };
        process.wait_until_it_answers().await?;
        Ok(process)
    }

    /// Starts a new process in the place of one that has ended.
    pub(super) async fn start_again(&mut self, fresh: bool) -> Result<(), NodeError> {
        let state = self.state + u32::from(fresh);
        *self = Self::start(Arc::clone(&self.start), self.number, state).await?;
        Ok(())
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), NodeError> {
        let ended = || NodeError::Signal(io::Error::other("it has ended by itself"));
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).ok_or_else(ended)?;
        kill_process(pid, signal).map_err(|error| NodeError::Signal(error.into()))
    }

    /// How it ended; after a while it is killed.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus, NodeError> {
        let status = match tokio::time::timeout(STOP, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                let _ = self.child.start_kill();
                self.child.wait().await
            }
        };
        self.start.ledger.die(self.life);
        status.map_err(NodeError::Wait)
    }

    async fn wait_until_it_answers(&mut self) -> Result<(), NodeError> {
        let deadline = Instant::now() + START;
        while !self.start.client.lives(self.start.admin).await {
            let ended = self.child.try_wait().map_err(NodeError::Wait)?;
            let reason = match ended {
                Some(status) => format!("it ended at once ({status})"),
                None if Instant::now() > deadline => format!("it did not answer within {START:?}"),
                None => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
            };
            let log = log(&self.start.settings.folder, self.number);
            let text = fs::read_to_string(&log).unwrap_or_default();
            let tail = text.get(text.len().saturating_sub(TAIL)..).unwrap_or(&text).to_owned();
            return Err(NodeError::Start { reason, log, tail });
        }
        Ok(())
    }
}

fn spawn(start: &Start, number: usize, state: u32, life: Life) -> Result<Child, NodeError> {
    let settings = &start.settings;
    let config = settings.folder.join(format!("node{number}.toml"));
    let state = settings.folder.join(format!("node{number}-state{state}"));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| NodeError::Write { path, source }
    };
    fs::write(&config, settings.config(start.admin, life, &state)).map_err(failed(&config))?;
    let log = log(&settings.folder, number);
    let log = File::options().create(true).append(true).open(&log).map_err(failed(&log))?;
    let mut command = Command::new(&settings.program);
    command.args(["run", "-c"]).arg(&config);
    // A URL may hold a password: it stands in no file.
    command.env("JOBSD_TORTURE_REDIS", &start.redis_url).env_remove("NOTIFY_SOCKET");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    // A signal from the terminal is for the torturer, which ends its nodes itself.
    command.process_group(0);
    // SAFETY: prctl is async-signal-safe and takes no pointer here.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    command.spawn().map_err(|source| NodeError::Spawn { program: settings.program.clone(), source })
}

fn log(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("node{number}.log"))
}

/// A port that is free, and that the kernel gives to nobody else while the node is down: below those that it gives to
/// outgoing connections.
fn free_address() -> io::Result<SocketAddr> {
    let mut last = io::Error::other("none was tried");
    for _ in 0..1000 {
        let port = 12_000 + u16::try_from(uuid::Uuid::new_v4().as_u128() % 20_000).expect("below 20,000");
        match std::net::TcpListener::bind(("127.0.0.1", port)).and_then(|listener| listener.local_addr()) {
            Ok(address) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}
