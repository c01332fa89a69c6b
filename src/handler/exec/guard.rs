//! The guard: a process between the daemon and a program, so that nothing of the program is left when it is over.
//!
//! The kernel tells a process of the death of its parent (PDEATHSIG), but only the one; and a process that leaves its
//! group escapes whoever kills the group. So jobsd starts itself as a guard, and the guard starts the program. Orphans of
//! its descendants become its own children (PR_SET_CHILD_SUBREAPER), so it can end all of them: when the program has
//! ended, when it is told to stop, and when the daemon has died, even by SIGKILL. After such a death that takes as long as
//! the guard needs to be scheduled, milliseconds as a rule; a program may come to its end in them.
//!
//! It also sets what only a process itself can: the user, and limits of resources. (Control groups would bound a whole
//! tree, but the shipped unit gives the daemon none of its own to divide, on purpose.) Runs without a runtime, and holds
//! none of the program's pipes.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::config::{ExecLimits, ExecUser};

/// The word by which jobsd knows that it is to be a guard.
pub(super) const VERB: &str = "exec-guard";
/// Between SIGTERM and SIGKILL; less than the daemon waits before it kills the guard.
const GRACE: Duration = Duration::from_millis(2500);
/// How long a tree that forks faster than it is killed is fought.
const KILLING: Duration = Duration::from_secs(2);
/// Seconds of CPU between the signal that a program may hear and the one that it may not.
const CPU_GRACE: u64 = 5;

/// What a guard is to do, as the daemon tells it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Where the report goes.
    pub(super) report: RawFd,
    /// The lock that is held until nothing of the program is left.
    pub(super) lock: RawFd,
    pub(super) daemon: u32,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) memory: Option<u64>,
    pub(super) cpu: Option<u64>,
    pub(super) files: Option<u64>,
}

/// What became of the program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    Ended {
        /// As wait(2) has it.
        status: i32,
        /// KiB of the largest of its processes.
        peak: u64,
    },
    NotStarted {
        errno: i32,
    },
}

impl Order {
    pub(super) fn new(user: Option<ExecUser>, limits: &ExecLimits) -> Self {
        Self {
            report: -1,
            lock: -1,
            daemon: std::process::id(),
            uid: user.map(|user| user.uid),
            gid: user.map(|user| user.gid),
            memory: limits.memory,
            cpu: limits.cpu.map(|cpu| cpu.as_secs().max(1)),
            files: limits.files,
        }
    }
}

/// Is the guard, if this process was started as one; then there is nothing else to do.
pub(crate) fn guard_if_told(mut args: impl Iterator<Item = OsString>) {
    if args.nth(1).as_deref() != Some(OsStr::new(VERB)) {
        return;
    }
    let order = args.next().and_then(|order| serde_json::from_str(order.to_str()?).ok());
    let (Some(order), Some(program)) = (order, args.next()) else {
        eprintln!("jobsd: {VERB} is for jobsd itself");
        std::process::exit(64);
    };
    Guard::begin(&order).guard(&order, &program, args);
    std::process::exit(0);
}

struct Guard {
    report: OwnedFd,
    /// Open for as long as we live.
    _lock: OwnedFd,
    signals: libc::sigset_t,
    daemon: Option<Pid>,
}

impl Guard {
    fn begin(order: &Order) -> Self {
        // SAFETY: the daemon made these descriptors for us, and nothing else in this process knows of them.
        let [report, lock] = unsafe { [order.report, order.lock].map(|number| OwnedFd::from_raw_fd(number)) };
        // The program is not to inherit them.
        for file in [&report, &lock] {
            let _ = rustix::io::fcntl_setfd(file, rustix::io::FdFlags::CLOEXEC);
        }
        // SAFETY: an all-zero set is a valid one to be filled, and the calls only write to it.
        let signals = unsafe {
            let mut signals: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut signals);
            // SIGHUP comes when the daemon dies while we stand still, and must not end us before what we guard.
            for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                libc::sigaddset(&raw mut signals, signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut());
            signals
        };
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
        let daemon = i32::try_from(order.daemon).ok().and_then(Pid::from_raw);
        Self { report, _lock: lock, signals, daemon }
    }

    fn guard(self, order: &Order, program: &OsStr, args: impl Iterator<Item = OsString>) {
        let child = match start(order, program, args) {
            Ok(child) => child,
            Err(error) => return self.tell(&Report::NotStarted { errno: error.raw_os_error().unwrap_or(0) }),
        };
        let_go_of_the_pipes();
        let status = self.watch(child);
        end_all(None);
        if let Some(status) = status {
            self.tell(&Report::Ended { status: status.into_raw(), peak: peak() });
        }
    }

    /// Waits for the program's end; `None` when the daemon has gone, so that there is nobody to tell.
    fn watch(&self, child: Pid) -> Option<ExitStatus> {
        let mut deadline = None;
        loop {
            // Looked at before each wait: the death of the daemon may have come before we asked to be told of it.
            if rustix::process::getppid() != self.daemon {
                // The largest part at once, before anything else is looked at: another daemon may be about to start it anew.
                let _ = rustix::process::kill_process_group(child, Signal::KILL);
                return None;
            }
            if let Some(status) = reap(Some(child)) {
                return Some(status);
            }
            match self.signal(deadline) {
                Some(libc::SIGTERM) if rustix::process::getppid() == self.daemon => {
                    let _ = rustix::process::kill_process_group(child, Signal::TERM);
                    deadline.get_or_insert_with(|| Instant::now() + GRACE);
                }
                // At once, or the grace is over.
                Some(libc::SIGINT) | None => return end_all(Some(child)),
                Some(_) => {}
            }
        }
    }

    /// The next signal; `None` at the deadline.
    fn signal(&self, deadline: Option<Instant>) -> Option<i32> {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let wait = left.map(|left| libc::timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: i64::from(left.subsec_nanos()),
            });
            let wait = wait.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            // SAFETY: both pointers are to values that outlive the call, or null, which means without a limit.
            let signal = unsafe { libc::sigtimedwait(&raw const self.signals, std::ptr::null_mut(), wait) };
            if signal > 0 {
                return Some(signal);
            }
            if std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN) {
                return None;
            }
        }
    }

    fn tell(self, report: &Report) {
        let text = serde_json::to_vec(report).expect("numbers can be written as JSON");
        // Nobody there to read it is no concern of ours.
        let _ = std::fs::File::from(self.report).write_all(&text);
    }
}

fn start(order: &Order, program: &OsStr, args: impl Iterator<Item = OsString>) -> std::io::Result<Pid> {
    let mut command = Command::new(program);
    command.args(args).process_group(0);
    // With a user the standard library drops the further groups of the daemon's.
    if let Some(gid) = order.gid {
        command.gid(gid);
    }
    if let Some(uid) = order.uid {
        command.uid(uid);
    }
    let limits = [
        (libc::RLIMIT_CORE, Some((0, 0))),
        (libc::RLIMIT_DATA, order.memory.map(|bytes| (bytes, bytes))),
        (libc::RLIMIT_CPU, order.cpu.map(|seconds| (seconds, seconds + CPU_GRACE))),
        (libc::RLIMIT_NOFILE, order.files.map(|files| (files, files))),
    ];
    let guard = rustix::process::getpid();
    // SAFETY: between fork and exec the closure makes system calls only, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            for (resource, limit) in limits {
                let Some((soft, hard)) = limit else { continue };
                let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
                if libc::setrlimit(resource, &raw const limit) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            // After the change of user, which would undo it.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if rustix::process::getppid() == Some(guard) { Ok(()) } else { Err(rustix::io::Errno::CHILD.into()) }
        });
    }
    let child = command.spawn()?;
    Ok(Pid::from_raw(child.id().cast_signed()).expect("a child that was just started has an id"))
}

/// Whoever reads the program's output is to see its end.
fn let_go_of_the_pipes() {
    let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") else { return };
    for number in 0..=2 {
        // SAFETY: the numbers are those of our own standard streams, which nothing in this process uses from here on.
        unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&null), number) };
    }
}

/// Reaps whatever has ended; the program's status if it is among them.
fn reap(child: Option<Pid>) -> Option<ExitStatus> {
    let mut found = None;
    loop {
        let mut status = 0;
        // SAFETY: the pointer is to a value that outlives the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return found;
        }
        if child.is_some_and(|child| pid == child.as_raw_nonzero().get()) {
            found = Some(ExitStatus::from_raw(status));
        }
    }
}

/// Kills every descendant; the status of `child` if it was one of them. Those that lose their parent in this become our
/// children, and are found on the next way round.
fn end_all(child: Option<Pid>) -> Option<ExitStatus> {
    let deadline = Instant::now() + KILLING;
    let mut found = None;
    loop {
        let children = children();
        for pid in &children {
            let _ = rustix::process::kill_process(*pid, Signal::KILL);
        }
        found = found.or(reap(child));
        if children.is_empty() || Instant::now() >= deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Our own children. A process of one thread, so that of its task.
fn children() -> Vec<Pid> {
    let pid = rustix::process::getpid().as_raw_nonzero();
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// KiB of the largest process that was ever ours.
fn peak() -> u64 {
    // SAFETY: an all-zero value is a valid one to be filled, and the call only writes to it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    u64::try_from(usage.ru_maxrss).unwrap_or(0)
}
