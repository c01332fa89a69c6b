//! A run that is stopped, killed or forgotten leaves no file that looks finished.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{Bench, check_mp4, finish, run, start, wait_for};

/// Takes far longer than a test waits, if nobody ends it.
fn slow(bench: &Bench) -> Value {
    let clip = bench.coded("long.mp4", "1280x720", 8, &["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac"]);
    let mut request = bench.request(&clip, &[("720p", 720), ("480p", 480)]);
    request["video"] = json!({"preset": "veryslow", "crf": 1});
    request["thumbnail"] = json!({"at_ms": 0});
    request
}

fn start_slow(bench: &Bench) -> Child {
    let child = start(Command::new(env!("CARGO_BIN_EXE_jobsd-video")), &slow(bench).to_string());
    let growing = || std::fs::metadata(bench.output("480p.mp4.part")).is_ok_and(|part| part.len() > 0);
    wait_for("the files to grow", growing);
    assert_eq!(bench.outputs(), ["480p.mp4.part", "720p.mp4.part"]);
    child
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("the helper is alive");
}

#[test]
fn told_to_stop_it_tidies_up() {
    for stop in [Signal::TERM, Signal::INT] {
        let bench = Bench::new();
        let child = start_slow(&bench);
        signal(&child, stop);
        let run = finish(child);
        assert_eq!(run.error("cancelled", 143), "the work was stopped before it was finished");
        assert!(bench.outputs().is_empty(), "{:?}", bench.outputs());
    }
}

#[test]
fn killed_it_leaves_parts_which_the_next_run_sweeps() {
    let bench = Bench::new();
    let mut child = start_slow(&bench);
    signal(&child, Signal::KILL);
    assert_eq!(child.wait().expect("it is dead").code(), None);
    assert_eq!(bench.outputs(), ["480p.mp4.part", "720p.mp4.part"]);
    let clip = bench.clip("320x240", 1);
    run(&bench.request(&clip, &[("240p", 240)])).result();
    assert_eq!(bench.outputs(), ["240p.mp4"]);
}

/// A daemon that was killed reads no more, and its next life will want the folder.
#[test]
fn forgotten_it_ends_by_itself() {
    let bench = Bench::new();
    let mut child = start_slow(&bench);
    drop(child.stdout.take());
    let code = child.wait().expect("it ends").code();
    assert_eq!(code, Some(75));
    assert!(bench.outputs().is_empty(), "{:?}", bench.outputs());
}

#[test]
fn two_runs_in_one_folder_take_turns() {
    let bench = Bench::new();
    let clip = bench.clip("320x240", 2);
    let request = bench.request(&clip, &[("a", 240)]).to_string();
    let helper = || start(Command::new(env!("CARGO_BIN_EXE_jobsd-video")), &request);
    let children = [helper(), helper(), helper()];
    for child in children {
        finish(child).result();
    }
    assert_eq!(bench.outputs(), ["a.mp4"]);
    check_mp4(&bench.output("a.mp4"), Some((320, 240)), true, 2.0, 0.04);
}

#[test]
fn progress_is_read_while_it_works() {
    let bench = Bench::new();
    let mut child = start_slow(&bench);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut done = Vec::new();
    while done.len() < 3 {
        let line = lines.next().expect("more lines").expect("text");
        let line: Value = serde_json::from_str(&line).expect("JSON");
        done.push(line["progress"]["done_ms"].as_u64().expect("progress"));
    }
    assert!(done.is_sorted() && done[2] > 0 && done[2] < 8000, "{done:?}");
    signal(&child, Signal::TERM);
    let last = lines.map(|line| line.expect("text")).last().expect("an error");
    assert!(last.contains("\"cancelled\""), "{last}");
    assert_eq!(child.wait().expect("it ends").code(), Some(143));
}
