//! Groups of real processes, and that none of them is left.

use std::time::Instant;

use super::*;
use crate::testing::process::{lives, pid_in};
use crate::testing::wait::until;

fn shell(script: &str) -> Program {
    Program {
        path: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env: vec![("PATH".into(), std::env::var_os("PATH").unwrap_or_default())],
        dir: None,
        stdin: Vec::new(),
        stdout: Keep::First(1024),
        stderr: Keep::Last(16),
    }
}

async fn quietly(program: Program) -> Result<Finished, ChildError> {
    run(program, &|_, _, _| Heard::Kept).await
}

#[tokio::test]
async fn dropping_ends_the_whole_group_even_if_it_ignores_sigterm() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let (child, grandchild) = (dir.path().join("child"), dir.path().join("grandchild"));
    let script = format!(
        "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > {}; while :; do sleep 1; done' & echo $$ > {}; wait; sleep 600",
        grandchild.display(),
        child.display()
    );
    let running = tokio::spawn(quietly(shell(&script)));
    let pids = [pid_in(&child).await, pid_in(&grandchild).await];
    assert!(pids.into_iter().all(lives));
    running.abort();
    for pid in pids {
        until("the process to end", || (!lives(pid)).then_some(())).await;
    }
}

#[tokio::test]
async fn dropping_gives_the_program_time_to_clean_up() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let (started, cleaned) = (dir.path().join("started"), dir.path().join("cleaned"));
    let script = format!(
        "trap 'echo yes > {}; exit 1' TERM; echo $$ > {}; while :; do sleep 0.05; done",
        cleaned.display(),
        started.display()
    );
    let running = tokio::spawn(quietly(shell(&script)));
    let pid = pid_in(&started).await;
    running.abort();
    until("the clean-up", || cleaned.exists().then_some(())).await;
    until("the process to end", || (!lives(pid)).then_some(())).await;
}

#[test]
fn the_end_of_the_runtime_ends_the_group_at_once() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let file = dir.path().join("pid");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let script = format!("trap '' TERM; echo $$ > {}; while :; do sleep 1; done", file.display());
    let pid = runtime.block_on(async {
        tokio::spawn(quietly(shell(&script)));
        pid_in(&file).await
    });
    assert!(lives(pid));
    drop(runtime);
    let deadline = Instant::now() + Duration::from_secs(10);
    while lives(pid) {
        assert!(Instant::now() < deadline, "the process outlives the runtime");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test]
async fn what_the_leader_leaves_running_is_killed() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let file = dir.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; echo done", file.display());
    let finished = quietly(shell(&script)).await.expect("it runs");
    assert_eq!((finished.status.code(), finished.stdout.text().as_str()), (Some(0), "done\n"));
    let pid = pid_in(&file).await;
    until("the left process to end", || (!lives(pid)).then_some(())).await;
}

#[tokio::test]
async fn a_process_that_left_the_group_cannot_hold_us_up() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let file = dir.path().join("pid");
    let script = format!(
        "setsid sh -c 'echo $$ > {}; exec sleep 600' & while [ ! -s {} ]; do sleep 0.01; done; echo done",
        file.display(),
        file.display()
    );
    let finished = tokio::time::timeout(Duration::from_secs(20), quietly(shell(&script)))
        .await
        .expect("it returns")
        .expect("it runs");
    assert_eq!(finished.stdout.text(), "done\n");
    let pid = Pid::from_raw(pid_in(&file).await).expect("a process id");
    rustix::process::kill_process(pid, Signal::KILL).expect("the runaway is ours to end");
}

#[tokio::test]
async fn input_that_nobody_reads_and_pipes_closed_early_are_no_failure() {
    let mut program = shell("exec >&- 2>&-; sleep 0.1; exit 3");
    program.stdin = vec![b'x'; 1 << 20];
    let finished = quietly(program).await.expect("it runs");
    assert_eq!(finished.status.code(), Some(3));
}

#[tokio::test]
async fn each_output_keeps_its_part() {
    let finished = quietly(shell("seq 1000; seq 1000 >&2")).await.expect("it runs");
    assert!(finished.stdout.cut && finished.stdout.bytes.len() == 1024 && finished.stdout.text().starts_with("1\n2\n"));
    assert!(finished.stderr.cut);
    assert_eq!(finished.stderr.text(), "97\n998\n999\n1000\n");
}
