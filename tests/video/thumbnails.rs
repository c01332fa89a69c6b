//! A thumbnail on its own, at a time, behind the end, of anything.

use serde_json::json;

use crate::harness::{Bench, check_plays, pixel, probe, run};

/// Red for a second, then green, then blue, with few points from which decoding can start.
fn colours(bench: &Bench, name: &str, codec: &[&str]) -> std::path::PathBuf {
    let source = "color=red:size=320x240:rate=25:duration=1[a];color=lime:size=320x240:rate=25:duration=1[b];\
                  color=blue:size=320x240:rate=25:duration=1[c];[a][b][c]concat=n=3";
    let mut arguments = vec!["-f", "lavfi", "-i", source];
    arguments.extend(codec);
    arguments.extend(["-pix_fmt", "yuv420p"]);
    bench.make(name, &arguments)
}

const H264: &[&str] = &["-c:v", "libx264", "-preset", "ultrafast", "-g", "250"];
const VP8: &[&str] = &["-c:v", "libvpx", "-deadline", "realtime"];

#[test]
fn the_first_picture_at_or_after_the_time() {
    for (name, codec) in [("clip.mp4", H264), ("clip.webm", VP8), ("clip.ts", H264)] {
        for (at, shown, dominant) in [(0, 0, 0), (1000, 1000, 1), (1010, 1040, 1), (2500, 2520, 2)] {
            let bench = Bench::new();
            let clip = colours(&bench, name, codec);
            let run = run(&bench.thumbnail_request(&clip, at));
            let thumbnail = &run.result()["thumbnail"];
            assert_eq!(thumbnail["at_ms"], shown, "{name}");
            assert_eq!(thumbnail["beyond_end"], false);
            assert_eq!(run.result()["outputs"], json!([]));
            let colour = pixel(&bench.output("thumbnail.jpg"), 160, 120);
            let brightest = (0..3).max_by_key(|&channel| colour[channel]);
            assert_eq!(brightest, Some(dominant), "{name} at {at}: {colour:?}");
            assert_eq!(bench.outputs(), ["thumbnail.jpg"]);
        }
    }
}

#[test]
fn behind_the_end_it_is_the_last_picture() {
    for (name, codec) in [("clip.mp4", H264), ("clip.webm", VP8), ("clip.ts", H264)] {
        let bench = Bench::new();
        let clip = colours(&bench, name, codec);
        let mut request = bench.thumbnail_request(&clip, 60_000);
        let alone = run(&request);
        request["mode"] = json!("transcode");
        request["renditions"] = json!([{"name": "a", "height": 120}]);
        let on_the_way = run(&request);
        for run in [alone, on_the_way] {
            let thumbnail = &run.result()["thumbnail"];
            assert_eq!((&thumbnail["beyond_end"], &thumbnail["at_ms"]), (&json!(true), &json!(2960)), "{name}");
            assert_eq!((&thumbnail["width"], &thumbnail["height"]), (&json!(320), &json!(240)));
        }
        let [r, g, b] = pixel(&bench.output("thumbnail.jpg"), 160, 120);
        assert!(b > 200 && r < 60 && g < 60);
    }
}

#[test]
fn it_is_an_ordinary_jpeg() {
    let bench = Bench::new();
    let clip = bench.clip("640x360", 1);
    let mut request = bench.thumbnail_request(&clip, 0);
    request["thumbnail"]["max_width"] = json!(200);
    run(&request).result();
    let jpeg = bench.output("thumbnail.jpg");
    check_plays(&jpeg);
    let stream = &probe(&jpeg)["streams"][0];
    let seen = ["codec_name", "pix_fmt"].map(|key| stream[key].as_str());
    assert_eq!(seen, [Some("mjpeg"), Some("yuvj420p")]);
    assert_eq!((stream["width"].as_u64(), stream["height"].as_u64()), (Some(200), Some(112)));
}

#[test]
fn sound_has_no_picture() {
    let bench = Bench::new();
    let clip = bench.coded("clip.m4a", "320x240", 1, &["-vn", "-c:a", "aac"]);
    let run = run(&bench.thumbnail_request(&clip, 0));
    assert_eq!(run.error("unsupported", 2), "the file holds no pictures, only sound");
    assert!(bench.outputs().is_empty());
}
