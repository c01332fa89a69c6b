//! How short the machine is of CPU and memory, as the kernel tells it (pressure stall information, Linux 4.20).
//!
//! It is told for the whole machine, and, by control groups, for what surrounds this process: a container or a service
//! with limits of its own chokes while the machine idles. The highest number that can be read counts. Where none can,
//! the kernel or the sandbox shows none, which is said once.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The kernel's averages move every two seconds.
const FRESH: Duration = Duration::from_secs(1);
const CGROUPS: &str = "/sys/fs/cgroup";

/// Shares of the last ten seconds, in percent, in which something waited; `None` where nobody tells.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Reading {
    pub(super) cpu: Option<f64>,
    pub(super) memory: Option<f64>,
}

/// The meter of this machine, for all pools.
#[derive(Debug)]
pub(super) struct Pressure {
    cpu: Vec<PathBuf>,
    memory: Vec<PathBuf>,
    last: Mutex<Option<(Instant, Reading)>>,
}

impl Pressure {
    pub(super) fn new() -> Self {
        let group = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::at(Path::new("/proc/pressure"), &own_group(Path::new(CGROUPS), &group))
    }

    fn at(machine: &Path, group: &Path) -> Self {
        let files = |what: &str| {
            let folders = [group, Path::new(CGROUPS)].map(|folder| folder.join(format!("{what}.pressure")));
            [machine.join(what)].into_iter().chain(folders).collect()
        };
        Self { cpu: files("cpu"), memory: files("memory"), last: Mutex::default() }
    }

    pub(super) fn now(&self) -> Reading {
        // A panic while it was locked cannot have left it half-changed.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, reading)) = *last
            && at.elapsed() < FRESH
        {
            return reading;
        }
        let reading = Reading { cpu: highest(&self.cpu), memory: highest(&self.memory) };
        if last.is_none() && reading == Reading::default() {
            tracing::info!("nobody tells the pressure on CPU and memory here: queues grow without regard to it");
        }
        *last = Some((Instant::now(), reading));
        reading
    }
}

/// The folder of our own group in the unified hierarchy: the line `0::/path` of /proc/self/cgroup.
fn own_group(root: &Path, groups: &str) -> PathBuf {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    root.join(path)
}

fn highest(files: &[PathBuf]) -> Option<f64> {
    let shares = files.iter().filter_map(|file| some_avg10(&std::fs::read_to_string(file).ok()?));
    shares.reduce(f64::max)
}

/// `some avg10=1.53 avg60=0.87 avg300=0.73 total=1234`: the share of time in which at least one task waited.
fn some_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let share = line.split(' ').find_map(|part| part.strip_prefix("avg10="))?;
    share.parse().ok().filter(|share| (0.0..=100.0).contains(share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_share_that_can_be_read_counts() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
        write("cpu", "some avg10=24.66 avg60=25.55 avg300=21.61 total=6656893508\nfull avg10=0.00 avg60=0.00\n");
        write("cpu.pressure", "some avg10=93.10 avg60=25.55 avg300=21.61 total=1\n");
        let files = ["cpu", "cpu.pressure", "missing"].map(|name| dir.path().join(name));
        assert_eq!((highest(&files), highest(&files[..1]), highest(&files[2..])), (Some(93.1), Some(24.66), None));
        for broken in ["", "full avg10=1.00", "some avg60=1.00", "some avg10=many", "some avg10=NaN", "some avg10=-1"] {
            assert_eq!(some_avg10(broken), None, "{broken}");
        }
    }

    #[test]
    fn our_own_group_is_found() {
        let own = |groups: &str| own_group(Path::new("/cg"), groups);
        assert_eq!(own("0::/system.slice/jobsd.service\n"), Path::new("/cg/system.slice/jobsd.service"));
        assert_eq!(own("4:memory:/x\n0::/\n"), Path::new("/cg/"));
        assert_eq!(own(""), Path::new("/cg/"));
    }
}
