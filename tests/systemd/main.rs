//! The unit file `systemd/jobsd.service`, judged by systemd's own tools.
//!
//! `systemd-analyze` works without a running systemd. It exits 0 on unknown keys and groups, so every word it prints about
//! the unit counts as a failure. A unit that is wrong on purpose shows that each judge can say no.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const UNIT: &str = include_str!("../../systemd/jobsd.service");

/// What `systemd-analyze security` may say at most, on its scale from 0 (safe) to 10 (exposed).
const EXPOSURE_LIMIT: f64 = 2.0;

#[test]
fn verify_has_nothing_to_say() {
    let complaints = verify(UNIT);
    assert!(complaints.is_empty(), "systemd-analyze verify says:\n{}", complaints.join("\n"));
}

#[test]
fn verify_would_report_an_unknown_key() {
    let complaints = verify(&UNIT.replace("ProtectHome=", "ProtectHouse="));
    assert!(complaints.iter().any(|line| line.contains("ProtectHouse")), "got {complaints:?}");
}

#[test]
fn verify_would_report_an_unknown_system_call() {
    let complaints = verify(&UNIT.replace("landlock_add_rule", "landlock_add_ruin"));
    assert!(complaints.iter().any(|line| line.contains("landlock_add_ruin")), "got {complaints:?}");
}

#[test]
fn exposure_is_low() {
    let (passed, exposure) = exposure(UNIT);
    println!("exposure of jobsd.service: {exposure} (limit {EXPOSURE_LIMIT})");
    assert!(passed && exposure <= EXPOSURE_LIMIT, "exposure {exposure}, limit {EXPOSURE_LIMIT}");
}

#[test]
fn exposure_of_an_unprotected_unit_is_not() {
    let (passed, exposure) = exposure("[Service]\nExecStart=/usr/bin/jobsd run\n");
    assert!(!passed && exposure > 9.0, "an empty unit got {exposure}");
}

/// A filter without these turns Landlock off in the transcoder without a word, see the unit's comment.
#[test]
fn system_call_filter_allows_the_sandbox_of_the_transcoder() {
    let allowed: Vec<&str> = values("SystemCallFilter").filter(|value| !value.starts_with('~')).collect();
    for call in ["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp"] {
        assert!(allowed.iter().any(|list| list.split(' ').any(|name| name == call)), "{call} is not in {allowed:?}");
    }
}

#[test]
fn a_bad_configuration_is_not_started_again() {
    assert_eq!(values("RestartPreventExitStatus").collect::<Vec<_>>(), ["78"]);
}

/// `systemctl status` shows the path, so whoever follows the README has the file.
#[test]
fn the_documentation_is_installed() {
    let readme = include_str!("../../README.md");
    let installs = readme.lines().filter_map(|line| line.strip_prefix("sudo install ")?.split(' ').next_back());
    let installed: Vec<&str> = installs.collect();
    let named: Vec<&str> = values("Documentation").flat_map(|list| list.split(' ')).collect();
    assert!(!named.is_empty());
    for path in named.iter().filter_map(|place| place.strip_prefix("file://")) {
        assert!(installed.contains(&path), "{path} is not among {installed:?}");
    }
}

/// All values of one key of the unit, in order.
fn values(key: &str) -> impl Iterator<Item = &'static str> {
    let start = format!("{key}=");
    UNIT.lines().filter_map(move |line| line.strip_prefix(&start))
}

/// The lines that `systemd-analyze verify` prints about the unit; other units of this machine may have their own troubles.
fn verify(unit: &str) -> Vec<String> {
    let (_folder, path) = installed(unit);
    let output = analyze(&["verify", "--man=no"], &path);
    let mut complaints: Vec<String> =
        text(&output).lines().filter(|line| line.contains("jobsd")).map(str::to_owned).collect();
    if !output.status.success() {
        complaints.push(format!("{}: {}", output.status, text(&output)));
    }
    complaints
}

/// Whether the unit stays under the limit in systemd's own opinion, and the number it printed.
fn exposure(unit: &str) -> (bool, f64) {
    let (_folder, path) = installed(unit);
    // The threshold is in tenths.
    let threshold = format!("--threshold={}", EXPOSURE_LIMIT * 10.0);
    let output = analyze(&["security", "--offline=true", "--no-pager", &threshold], &path);
    let printed = text(&output);
    let number = printed
        .lines()
        .find_map(|line| line.split_once("exposure level for jobsd.service: ")?.1.split(' ').next()?.parse().ok());
    (output.status.success(), number.unwrap_or_else(|| panic!("no exposure level in:\n{printed}")))
}

/// The unit in a folder of its own, starting the executable of this build, which unlike /usr/bin/jobsd is there.
fn installed(unit: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let path = folder.path().join("jobsd.service");
    std::fs::write(&path, unit.replace("/usr/bin/jobsd", env!("CARGO_BIN_EXE_jobsd"))).expect("the folder is writable");
    (folder, path)
}

fn analyze(arguments: &[&str], unit: &Path) -> Output {
    Command::new("systemd-analyze")
        .args(arguments)
        .arg(unit)
        // The words are compared, so they must be the untranslated ones.
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap_or_else(|error| panic!("systemd-analyze does not start ({error}); Debian's package is `systemd`"))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
