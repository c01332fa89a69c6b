//! Child processes: one program in its own process group, fed once, read within bounds, gone without remains.
//!
//! Owns the life of the group, from the start to the last member's end. When the leader ends, whatever it left
//! running is killed; when the attempt is dropped, the group gets SIGTERM, a short grace, then SIGKILL; when the daemon
//! itself is killed, the kernel kills the leader (PDEATHSIG). Does not know what the program's output means.
//!
//! The kernel sends PDEATHSIG when the *thread* that started the child ends. The runtime's workers live as long as the
//! daemon, so [`run`] must be awaited on them, never on a thread of `spawn_blocking`.

use std::ffi::OsString;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::process::{Child, ChildStdin};

use super::lines::{Heard, Lines};
use crate::job::Source;

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(3);
/// What a guard needs to end those that it guards, when it is told to do so at once.
const GUARD: Duration = Duration::from_secs(3);
/// What a process that left the group can still hold up our reading of its inherited pipes.
const DRAIN: Duration = Duration::from_secs(2);

/// A program to run. Its environment is `env` and nothing else.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) dir: Option<PathBuf>,
    pub(super) stdin: Vec<u8>,
    pub(super) stdout: Keep,
    pub(super) stderr: Keep,
}

/// Which part of an output is kept, in bytes. The rest is read and thrown away, so that the program never blocks on it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Keep {
    First(usize),
    Last(usize),
}

/// Is told each line of an output as it comes, with the bytes that it had beyond what is told, and says whether the line
/// belongs to what is kept.
pub(super) type Hear<'a> = &'a (dyn Fn(Source, &[u8], u64) -> Heard + Sync);

/// A program that has ended.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) status: ExitStatus,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
}

/// What was kept of an output.
#[derive(Debug)]
pub(super) struct Output {
    keep: Keep,
    pub(super) bytes: Vec<u8>,
    pub(super) cut: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ChildError {
    #[error("start {}: {reason}", path.display())]
    Start { path: PathBuf, reason: std::io::Error },
    #[error("follow {}: {reason}", path.display())]
    Follow { path: PathBuf, reason: std::io::Error },
}

/// Runs the program to its end. Dropping the future ends the whole process group.
pub(super) async fn run(program: Program, hear: Hear<'_>) -> Result<Finished, ChildError> {
    follow(program, None, hear).await
}

/// As [`run`], for a program that guards others: SIGTERM and SIGINT tell it to end them, in peace or at once, and SIGKILL
/// is for the guard that does not. It alone inherits these files, under the numbers that they have here.
pub(super) async fn run_guard(
    program: Program,
    inherited: Vec<OwnedFd>,
    hear: Hear<'_>,
) -> Result<Finished, ChildError> {
    follow(program, Some(inherited), hear).await
}

async fn follow(program: Program, guard: Option<Vec<OwnedFd>>, hear: Hear<'_>) -> Result<Finished, ChildError> {
    let follow = |reason| ChildError::Follow { path: program.path.clone(), reason };
    let mut group = Group::start(&program, guard)?;
    let leader = group.leader();
    let mut out = Output::new(program.stdout);
    let mut err = Output::new(program.stderr);
    {
        // Our ends of the pipes stay with the child: a program that is told to stop may still want to say something.
        let Child { stdin, stdout, stderr, .. } = &mut leader.child;
        let reading =
            async { tokio::join!(out.read(stdout, Source::Stdout, hear), err.read(stderr, Source::Stderr, hear)) };
        let pipes = async { tokio::join!(feed(stdin.take(), &program.stdin), reading) };
        tokio::pin!(pipes);
        // The program may close its pipes long before it ends, or end while others hold them open.
        let closed = tokio::select! {
            _ = &mut pipes => true,
            ended = ended(&leader.pidfd) => { ended.map_err(follow)?; false }
        };
        ended(&leader.pidfd).await.map_err(follow)?;
        kill_group(leader.pid, Signal::KILL);
        if !closed {
            let _ = tokio::time::timeout(DRAIN, pipes).await;
        }
    }
    let status = leader.reap().await.map_err(follow)?;
    Ok(Finished { status, stdout: out, stderr: err })
}

/// The group, until its leader is reaped. Only while the leader is not reaped is the group's id certainly ours.
struct Group {
    leader: Option<Leader>,
}

struct Leader {
    child: Child,
    pid: Pid,
    /// Readable once the process has ended, reaped or not.
    pidfd: AsyncFd<OwnedFd>,
    reaped: bool,
    /// It has others to end before it may be killed.
    guard: bool,
}

impl Group {
    /// What a guard inherits is closed here with the start, so that from then on it is open for as long as the guard lives.
    fn start(program: &Program, guard: Option<Vec<OwnedFd>>) -> Result<Self, ChildError> {
        let fail = |reason| ChildError::Start { path: program.path.clone(), reason };
        let mut command = tokio::process::Command::new(&program.path);
        command.args(&program.args).env_clear().envs(program.env.iter().cloned()).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(dir) = &program.dir {
            command.current_dir(dir);
        }
        let parent = rustix::process::getpid();
        let inherited: Vec<RawFd> = guard.iter().flatten().map(|file| file.as_raw_fd()).collect();
        // SAFETY: between fork and exec the closure makes a few system calls and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                for number in &inherited {
                    if libc::fcntl(*number, libc::F_SETFD, 0) != 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                // The daemon may have died before the call above took effect.
                if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::CHILD.into()) }
            });
        }
        let child = command.spawn().map_err(fail)?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.expect("a child that was just started and never waited for has an id");
        match watch(pid) {
            Ok(pidfd) => Ok(Self { leader: Some(Leader { child, pid, pidfd, reaped: false, guard: guard.is_some() }) }),
            Err(error) => {
                kill_group(pid, Signal::KILL);
                Err(fail(error))
            }
        }
    }

    fn leader(&mut self) -> &mut Leader {
        self.leader.as_mut().expect("the leader is taken only when the group is dropped")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(leader) = self.leader.take().filter(|leader| !leader.reaped) else { return };
        kill_group(leader.pid, Signal::TERM);
        // Its own short task, because a destructor cannot wait. Should the runtime end first, it drops the task and with it
        // the leader, whose destructor kills at once.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(leader.stop());
        }
    }
}

impl Leader {
    /// Waits out the grace, listening to what the program still says, then kills what is left.
    async fn stop(mut self) {
        let mut nothing = (Output::new(Keep::First(0)), Output::new(Keep::First(0)));
        let Child { stdout, stderr, .. } = &mut self.child;
        tokio::select! {
            _ = async { tokio::join!(nothing.0.drain(stdout), nothing.1.drain(stderr), std::future::pending::<()>()) } => {}
            _ = tokio::time::timeout(GRACE, ended(&self.pidfd)) => {}
        }
        if self.guard {
            kill_group(self.pid, Signal::INT);
            let _ = tokio::time::timeout(GUARD, ended(&self.pidfd)).await;
        }
        kill_group(self.pid, Signal::KILL);
        let _ = self.reap().await;
    }

    async fn reap(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.reaped = true;
        Ok(status)
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !self.reaped {
            kill_group(self.pid, if self.guard { Signal::INT } else { Signal::KILL });
        }
    }
}

async fn ended(pidfd: &AsyncFd<OwnedFd>) -> std::io::Result<()> {
    pidfd.readable().await.map(|_| ())
}

/// That nobody is left is no error.
fn kill_group(leader: Pid, signal: Signal) {
    let _ = rustix::process::kill_process_group(leader, signal);
}

impl Output {
    fn new(keep: Keep) -> Self {
        Self { keep, bytes: Vec::new(), cut: false }
    }

    /// Reads to the end; a broken pipe is an end too.
    async fn read(&mut self, pipe: &mut Option<impl AsyncRead + Unpin>, source: Source, hear: Hear<'_>) {
        let Some(pipe) = pipe else { return };
        let (mut chunk, mut lines) = (vec![0; 16 * 1024], Lines::default());
        let mut tell = |line: &[u8], beyond| hear(source, line, beyond);
        while let Ok(len @ 1..) = pipe.read(&mut chunk).await {
            lines.feed(&chunk[..len], &mut tell, &mut |bytes| self.add(bytes));
        }
        lines.finish(&mut tell, &mut |bytes| self.add(bytes));
    }

    /// Reads to the end, and nobody listens.
    async fn drain(&mut self, pipe: &mut Option<impl AsyncRead + Unpin>) {
        let Some(pipe) = pipe else { return };
        let mut chunk = vec![0; 16 * 1024];
        while let Ok(len @ 1..) = pipe.read(&mut chunk).await {
            self.add(&chunk[..len]);
        }
    }

    fn add(&mut self, chunk: &[u8]) {
        match self.keep {
            Keep::First(limit) => {
                let room = limit.saturating_sub(self.bytes.len()).min(chunk.len());
                self.bytes.extend_from_slice(&chunk[..room]);
                self.cut |= room < chunk.len();
            }
            Keep::Last(limit) => {
                self.bytes.extend_from_slice(chunk);
                let surplus = self.bytes.len().saturating_sub(limit);
                self.bytes.drain(..surplus);
                self.cut |= surplus > 0;
            }
        }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

fn watch(pid: Pid) -> std::io::Result<AsyncFd<OwnedFd>> {
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    // SAFETY: an `OwnedFd` is the same open file for as long as it lives.
    unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.map_err(|error| error.into_parts().1)
}

/// A program that does not read its input to the end is free to do so.
async fn feed(stdin: Option<ChildStdin>, bytes: &[u8]) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(bytes).await;
        let _ = stdin.shutdown().await;
    }
}

/// `signal 9 (SIGKILL)`.
pub(super) fn signal_name(number: i32) -> String {
    let name = match number {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return format!("signal {number}"),
    };
    format!("signal {number} ({name})")
}

#[cfg(test)]
mod tests;
