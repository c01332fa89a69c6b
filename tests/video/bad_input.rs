//! What is not a whole video is refused with a reason, and leaves nothing behind.

use std::fs;
use std::os::unix::net::UnixListener;

use serde_json::json;

use crate::harness::{Bench, check_mp4, run};

#[test]
fn what_is_no_media_file_is_refused() {
    let random: Vec<u8> = (0..200_000_u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8).collect();
    let ffconcat = b"ffconcat version 1.0\nfile 'clip.mp4'\n";
    let playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/secret.ts\n#EXT-X-ENDLIST\n";
    let text = "This is a letter and not a video at all.\n".repeat(500);
    for (what, content, kind) in [
        ("nothing", &b""[..], "unreadable_input"),
        ("random bytes", &random, "unreadable_input"),
        ("a text", text.as_bytes(), "unreadable_input"),
        ("a concat list", ffconcat, "unsupported"),
        ("a playlist", playlist, "unsupported"),
    ] {
        for mode in ["transcode", "thumbnail"] {
            let bench = Bench::new();
            bench.clip("320x240", 1);
            let input = bench.path("upload.mp4");
            fs::write(&input, content).expect("the file is written");
            let mut request = bench.request(&input, &[("a", 240)]);
            request["mode"] = json!(mode);
            request["thumbnail"] = json!({"at_ms": 0});
            let run = run(&request);
            run.error(kind, 2);
            assert!(bench.outputs().is_empty(), "{what}: {:?}", bench.outputs());
        }
    }
}

#[test]
fn a_file_without_its_index_is_refused() {
    let bench = Bench::new();
    let clip = bench.coded("clip.mp4", "320x240", 2, &["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac"]);
    let bytes = fs::read(&clip).expect("the clip");
    fs::write(&clip, &bytes[..bytes.len() / 2]).expect("half of it");
    run(&bench.request(&clip, &[("a", 240)])).error("unreadable_input", 2);
    assert!(bench.outputs().is_empty());
}

#[test]
fn half_a_file_is_no_quiet_half_video() {
    for (name, codecs) in [
        ("clip.mp4", &["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", "-movflags", "+faststart"][..]),
        ("clip.mkv", &["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "libopus"]),
    ] {
        let bench = Bench::new();
        let clip = bench.coded(name, "320x240", 3, codecs);
        let bytes = fs::read(&clip).expect("the clip");
        fs::write(&clip, &bytes[..bytes.len() / 2]).expect("half of it");
        let mut request = bench.request(&clip, &[("a", 240)]);
        request["thumbnail"] = json!({"at_ms": 0});
        let refused = run(&request);
        let message = refused.error("truncated", 2);
        assert!(message.starts_with("the file is incomplete: only 1.") && message.contains(" of 3.0 s"), "{message}");
        assert!(bench.outputs().is_empty());
        request["limits"] = json!({"min_decoded_fraction": 0.0});
        let taken = run(&request);
        let length = taken.result()["outputs"][0]["duration_ms"].as_f64().expect("a length") / 1000.0;
        assert!(length > 1.0 && length < 2.0, "{length}");
        check_mp4(&bench.output("a.mp4"), Some((320, 240)), true, length, 0.05);
    }
}

/// Only the first of two recordings has a place on the clock; to take it for the whole would lose the second quietly.
#[test]
fn glued_recordings_are_not_taken_for_one() {
    let bench = Bench::new();
    let clip = bench.coded("clip.ts", "320x240", 2, &["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac"]);
    let once = fs::read(&clip).expect("the clip");
    fs::write(&clip, [&once[..], &once[..]].concat()).expect("twice the clip");
    let run = run(&bench.request(&clip, &[("a", 240)]));
    assert_eq!(run.error("unsupported", 2), "the times of the pictures jump back: only 60 of 120 have a place");
    assert!(bench.outputs().is_empty());
}

#[test]
fn damage_is_counted_and_survived() {
    let bench = Bench::new();
    let clip = bench.coded(
        "clip.mp4",
        "320x240",
        3,
        &["-c:v", "libx264", "-preset", "ultrafast", "-an", "-movflags", "+faststart"],
    );
    let mut bytes = fs::read(&clip).expect("the clip");
    let (start, length) = (bytes.len() / 3, bytes.len());
    for position in (start..length).step_by(length / 200) {
        bytes[position] ^= 0x55;
    }
    fs::write(&clip, &bytes).expect("the damaged clip");
    let run = run(&bench.request(&clip, &[("a", 240)]));
    assert!(run.result()["decode_errors"].as_u64() > Some(0), "{run:#?}");
    check_mp4(&bench.output("a.mp4"), Some((320, 240)), false, 3.0, 0.3);
}

#[test]
fn limits_are_kept() {
    let bench = Bench::new();
    let clip = bench.clip("640x360", 2);
    for (limits, expected) in [
        (json!({"max_pixels": 100_000}), "pictures of 640x360 are larger than the 100000 pixels that are taken"),
        (json!({"max_duration_ms": 1500}), "2.0 s is longer than the 1.5 s that are taken"),
    ] {
        let mut request = bench.request(&clip, &[("a", 240)]);
        request["limits"] = limits;
        assert_eq!(run(&request).error("limit", 2), expected);
        assert!(bench.outputs().is_empty());
    }
}

#[test]
fn only_regular_files_are_opened() {
    let bench = Bench::new();
    let missing = run(&bench.request(&bench.path("missing.mp4"), &[("a", 240)]));
    assert!(missing.error("unreadable_input", 2).starts_with("there is no file /"));
    run(&bench.request(&bench.path("out"), &[("a", 240)])).error("unreadable_input", 2);
    let _socket = UnixListener::bind(bench.path("socket.mp4")).expect("a socket");
    run(&bench.request(&bench.path("socket.mp4"), &[("a", 240)])).error("unreadable_input", 2);
}

#[test]
fn an_input_cannot_name_other_files() {
    let bench = Bench::new();
    bench.clip("320x240", 1);
    let list = bench.path("list.mp4");
    fs::write(&list, format!("ffconcat version 1.0\nfile '{}'\n", bench.path("clip.mp4").display())).expect("the list");
    run(&bench.request(&list, &[("a", 240)])).error("unsupported", 2);
    // A name that looks like an address is a file name like any other.
    let odd = bench.path("http:pipe:0,crypto+file|concat.mp4");
    fs::copy(bench.path("clip.mp4"), &odd).expect("a copy");
    run(&bench.request(&odd, &[("a", 240)])).result();
}
