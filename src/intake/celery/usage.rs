//! What this process and its machine use, in the terms of Python's `resource` and `os` modules.

use serde_json::{Value, json};

/// A tick of the kernel's clock, in which it tells times: 1/100 s wherever Linux runs today.
const TICK: f64 = 0.01;

/// Load averages over 1, 5 and 15 minutes, to two digits. Asked by sysinfo(2): a service may be hidden from /proc/loadavg.
pub(super) fn load() -> [f64; 3] {
    #[expect(clippy::cast_precision_loss, reason = "fixed-point numbers of 16 binary digits, far below 2^53")]
    rustix::system::sysinfo().loads.map(|load| (load as f64 / 65_536.0 * 100.0).round() / 100.0)
}

/// As `resource.getrusage`, as far as /proc says it; zero for the rest.
pub(super) fn usage() -> Value {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the program's name in parentheses, which may hold anything; those behind it are numbers.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u32>().ok()).unwrap_or(0);
    json!({
        "utime": f64::from(number(11)) * TICK,
        "stime": f64::from(number(12)) * TICK,
        "maxrss": largest(),
        "ixrss": 0,
        "idrss": 0,
        "isrss": 0,
        "minflt": number(7),
        "majflt": number(9),
        "nswap": 0,
        "inblock": 0,
        "oublock": 0,
        "msgsnd": 0,
        "msgrcv": 0,
        "nsignals": 0,
        "nvcsw": 0,
        "nivcsw": 0,
    })
}

/// The most memory that this process has had, in KiB.
fn largest() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_uses_something() {
        let usage = usage();
        assert!(usage["maxrss"].as_u64().is_some_and(|kib| kib > 1000), "{usage}");
        assert!(usage["minflt"].as_u64().is_some_and(|faults| faults > 0), "{usage}");
        assert!(load().iter().all(|load| (0.0..100_000.0).contains(load)));
    }
}
