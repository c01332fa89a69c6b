//! The edge to whoever starts the helper: bad requests, bad folders, and a person at a terminal.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::{Bench, finish, run, run_text, start};

const HELPER: &str = env!("CARGO_BIN_EXE_jobsd-video");

#[test]
fn a_bad_request_is_answered() {
    let bench = Bench::new();
    for (request, expected) in [
        (String::new(), "EOF while parsing"),
        ("{\"input\": ".to_owned(), "EOF while parsing"),
        ("[]".to_owned(), "invalid length"),
        (
            json!({"input": "/a", "output_dir": "/b", "mode": "transcode", "hight": 720}).to_string(),
            "unknown field `hight`",
        ),
        (json!({"input": "/a", "output_dir": "/b", "mode": "dance"}).to_string(), "unknown variant `dance`"),
        (
            json!({"input": "http://x/a.mp4", "output_dir": "/b", "mode": "thumbnail"}).to_string(),
            "must be an absolute path",
        ),
        (json!({"input": "/a\u{0}b", "output_dir": "/b", "mode": "thumbnail"}).to_string(), "must be an absolute path"),
        (bench.request(&bench.path("x"), &[("../a", 720)]).to_string(), "cannot be a file name"),
        (" ".repeat(2 << 20), "larger than 1048576 bytes"),
    ] {
        let run = run_text(&request);
        let message = run.error("request", 64);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_person_is_told_how_to_use_it() {
    let arguments = Command::new(HELPER).arg("--help").stdin(Stdio::null()).output().expect("it starts");
    // `script` gives it a terminal.
    let terminal =
        Command::new("script").args(["-qec", HELPER, "/dev/null"]).stdin(Stdio::null()).output().expect("it starts");
    for (output, text) in [(&arguments, &arguments.stderr), (&terminal, &terminal.stdout)] {
        assert_eq!(output.status.code(), Some(64));
        assert!(String::from_utf8_lossy(text).contains("reads one request, a JSON document, from stdin"));
    }
    assert!(arguments.stdout.is_empty());
}

#[test]
fn an_unusable_folder_is_the_worlds_fault() {
    let bench = Bench::new();
    let clip = bench.clip("320x240", 1);
    let file = bench.path("file");
    fs::write(&file, "").expect("a file");
    // Nobody can make files in /proc/self, not even root.
    for folder in ["/nowhere/at/all", "/proc/self", file.to_str().expect("a path")] {
        let mut request = bench.request(&clip, &[("a", 240)]);
        request["output_dir"] = json!(folder);
        let run = run(&request);
        assert!(run.error("io", 75).contains(folder), "{run:#?}");
    }
}

#[test]
fn a_full_disk_is_the_worlds_fault() {
    let bench = Bench::new();
    let clip = bench.clip("640x360", 3);
    let mut request = bench.request(&clip, &[("a", 360)]);
    request["video"]["crf"] = json!(1);
    // A limit on the size of files, in units of 512 or 1024 bytes, fails as a full disk does.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 200; exec \"$0\"", HELPER]);
    let run = finish(start(command, &request.to_string()));
    assert!(run.error("io", 75).contains("a.mp4.part"), "{run:#?}");
    assert!(bench.outputs().is_empty(), "{:?}", bench.outputs());
}

#[test]
fn outputs_are_replaced() {
    let bench = Bench::new();
    let clip = bench.clip("320x240", 1);
    fs::write(bench.output("a.mp4"), "old").expect("an old output");
    fs::write(bench.output("other.mp4"), "mine").expect("a file of someone else");
    run(&bench.request(&clip, &[("a", 240)])).result();
    assert_eq!(bench.outputs(), ["a.mp4", "other.mp4"]);
    assert!(fs::metadata(bench.output("a.mp4")).expect("the output").len() > 1000);
    assert_eq!(fs::read(bench.output("other.mp4")).expect("the other file"), b"mine");
}
