//! Every kind of input that people upload comes out as MP4 that plays everywhere.

use std::fs;

use serde_json::json;

use crate::harness::{Bench, check_mp4, check_plays, command, picture_times, pixel, probe, run};

const FRAME: f64 = 1.0 / 30.0;

#[test]
fn two_renditions_and_a_thumbnail_from_one_pass() {
    let bench = Bench::new();
    let clip = bench.clip("1280x720", 3);
    let mut request = bench.request(&clip, &[("720p", 720), ("480p", 480)]);
    request["thumbnail"] = json!({"at_ms": 1000, "max_width": 320});
    let run = run(&request);
    let result = run.result();
    check_mp4(&bench.output("720p.mp4"), Some((1280, 720)), true, 3.0, FRAME);
    check_mp4(&bench.output("480p.mp4"), Some((854, 480)), true, 3.0, FRAME);
    check_plays(&bench.output("thumbnail.jpg"));
    assert_eq!(bench.outputs(), ["480p.mp4", "720p.mp4", "thumbnail.jpg"]);
    assert_eq!(
        result["thumbnail"],
        json!({"file": "thumbnail.jpg", "width": 320, "height": 180, "at_ms": 1000, "beyond_end": false})
    );
    assert_eq!(
        result["input"],
        json!({"duration_ms": 3000, "width": 1280, "height": 720, "rotation": 0, "video_codec": "h264", "audio_codec": "aac"})
    );
    assert_eq!(result["decode_errors"], 0);
    let bytes = fs::metadata(bench.output("480p.mp4")).expect("the file").len();
    assert_eq!(
        result["outputs"][1],
        json!({"name": "480p", "file": "480p.mp4", "width": 854, "height": 480, "duration_ms": 3000,
               "video_codec": "h264", "audio_codec": "aac", "bytes": bytes})
    );
    // One pass means that no picture is lost or doubled either.
    assert_eq!(picture_times(&bench.output("720p.mp4")).len(), 90);
    let total: Vec<_> = run.lines.iter().filter_map(|line| line["progress"]["total_ms"].as_u64()).collect();
    assert!(!total.is_empty() && total.iter().all(|&total| total == 3000), "{run:#?}");
}

#[test]
fn aac_is_copied_bit_by_bit() {
    let bench = Bench::new();
    let clip = bench.clip("320x240", 2);
    run(&bench.request(&clip, &[("a", 240)])).result();
    let sound = |path: &std::path::Path| {
        command(
            "ffmpeg",
            &["-v", "error", "-i", path.to_str().expect("a path"), "-map", "a", "-c", "copy", "-f", "md5", "-"],
        )
        .0
    };
    assert_eq!(sound(&clip), sound(&bench.output("a.mp4")));
}

#[test]
fn nothing_grows_and_equal_rungs_collapse() {
    let bench = Bench::new();
    let clip = bench.clip("320x240", 2);
    let run = run(&bench.request(&clip, &[("720p", 720), ("480p", 480), ("120p", 120)]));
    let outputs = run.result()["outputs"].as_array().expect("outputs");
    let seen: Vec<_> = outputs.iter().map(|o| (o["name"].as_str(), o["file"].as_str(), o["height"].as_u64())).collect();
    assert_eq!(
        seen,
        [
            (Some("720p"), Some("480p.mp4"), Some(240)),
            (Some("480p"), Some("480p.mp4"), Some(240)),
            (Some("120p"), Some("120p.mp4"), Some(120)),
        ]
    );
    assert_eq!(bench.outputs(), ["120p.mp4", "480p.mp4"]);
    check_mp4(&bench.output("480p.mp4"), Some((320, 240)), true, 2.0, FRAME);
    check_mp4(&bench.output("120p.mp4"), Some((160, 120)), true, 2.0, FRAME);
}

#[test]
fn the_short_side_is_the_rung() {
    let bench = Bench::new();
    let clip = bench.clip("360x640", 2);
    run(&bench.request(&clip, &[("240p", 240)])).result();
    check_mp4(&bench.output("240p.mp4"), Some((240, 426)), true, 2.0, FRAME);
}

#[test]
fn odd_sides_and_full_colour_become_even_and_420() {
    let bench = Bench::new();
    let clip = bench.coded(
        "clip.mkv",
        "427x241",
        2,
        &["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv444p", "-an"],
    );
    run(&bench.request(&clip, &[("a", 480)])).result();
    check_mp4(&bench.output("a.mp4"), Some((426, 240)), false, 2.0, FRAME);
}

/// Red on the left as stored: turned clockwise it is on top. The `ffmpeg` command means the other direction by `rotate`.
#[test]
fn a_turned_phone_gives_an_upright_picture() {
    for (angle, rotation, (width, height), red, blue) in [
        ("270", 90, (240, 320), (120, 20), (120, 300)),
        ("180", 180, (320, 240), (300, 120), (20, 120)),
        ("90", 270, (240, 320), (120, 300), (120, 20)),
    ] {
        let bench = Bench::new();
        let halves =
            "color=red:size=160x240:rate=30:duration=1[l];color=blue:size=160x240:rate=30:duration=1[r];[l][r]hstack";
        let flat = bench.make(
            "flat.mp4",
            &["-f", "lavfi", "-i", halves, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"],
        );
        let turn = format!("rotate={angle}");
        let flat = flat.to_str().expect("a path");
        let clip = bench.make("clip.mp4", &["-i", flat, "-c", "copy", "-metadata:s:v:0", &turn]);
        let mut request = bench.request(&clip, &[("a", 240)]);
        request["thumbnail"] = json!({"at_ms": 0});
        let run = run(&request);
        assert_eq!(run.result()["input"]["rotation"], rotation);
        assert_eq!(run.result()["input"]["width"], 320, "as stored");
        check_mp4(&bench.output("a.mp4"), Some((width, height)), false, 1.0, FRAME);
        for file in ["a.mp4", "thumbnail.jpg"] {
            let [r, _, b] = pixel(&bench.output(file), red.0, red.1);
            assert!(r > 200 && b < 60, "{angle}: {file} is not red at {red:?}");
            let [r, _, b] = pixel(&bench.output(file), blue.0, blue.1);
            assert!(b > 200 && r < 60, "{angle}: {file} is not blue at {blue:?}");
        }
    }
}

#[test]
fn uneven_times_are_kept() {
    let bench = Bench::new();
    let clip = bench.make(
        "clip.mkv",
        &[
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=320x240:rate=30:duration=3",
            "-vf",
            "select='lt(n,30)+not(mod(n,7))'",
            "-vsync",
            "vfr",
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
        ],
    );
    run(&bench.request(&clip, &[("a", 240)])).result();
    let (before, after) = (picture_times(&clip), picture_times(&bench.output("a.mp4")));
    assert!(before.len() > 35 && before.len() < 50, "the clip is not uneven");
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        assert!((before - before.min(0.0) - after).abs() < 0.002, "{before} became {after}");
    }
}

#[test]
fn pictures_without_sound() {
    let bench = Bench::new();
    let clip = bench.coded("clip.mp4", "320x240", 2, &["-c:v", "libx264", "-preset", "ultrafast", "-an"]);
    let run = run(&bench.request(&clip, &[("a", 240)]));
    assert!(run.result()["outputs"][0]["audio_codec"].is_null());
    check_mp4(&bench.output("a.mp4"), Some((320, 240)), false, 2.0, FRAME);
}

#[test]
fn sound_without_pictures() {
    for (name, codecs) in [
        ("clip.m4a", &["-vn", "-c:a", "aac"][..]),
        ("clip.mp3", &["-vn", "-c:a", "libmp3lame"]),
        ("clip.wav", &["-vn", "-c:a", "pcm_s16le", "-ac", "1", "-ar", "44100"]),
    ] {
        let bench = Bench::new();
        let clip = bench.coded(name, "320x240", 2, codecs);
        let mut request = bench.request(&clip, &[("720p", 720)]);
        request["thumbnail"] = json!({"at_ms": 0});
        let run = run(&request);
        let result = run.result();
        assert!(result["thumbnail"].is_null());
        assert_eq!(result["outputs"].as_array().map(Vec::len), Some(1));
        let output = &result["outputs"][0];
        assert_eq!((output["name"].as_str(), output["file"].as_str()), (Some("audio"), Some("audio.mp4")));
        assert!(output["width"].is_null() && output["video_codec"].is_null());
        check_mp4(&bench.output("audio.mp4"), None, true, 2.0, 0.08);
        assert_eq!(bench.outputs(), ["audio.mp4"]);
    }
}

#[test]
fn a_cover_picture_is_no_video() {
    let bench = Bench::new();
    let cover =
        bench.make("cover.jpg", &["-f", "lavfi", "-i", "testsrc2=size=64x64:rate=1:duration=1", "-frames:v", "1"]);
    let cover = cover.to_str().expect("a path");
    let clip = bench.make(
        "song.mp3",
        &[
            "-f",
            "lavfi",
            "-i",
            "sine=duration=2",
            "-i",
            cover,
            "-map",
            "0",
            "-map",
            "1",
            "-c:a",
            "libmp3lame",
            "-c:v",
            "copy",
            "-id3v2_version",
            "3",
        ],
    );
    let run = run(&bench.request(&clip, &[("720p", 720)]));
    assert_eq!(run.result()["outputs"][0]["name"], "audio");
}

#[test]
fn old_television_becomes_square_and_progressive() {
    let bench = Bench::new();
    let clip = bench.make(
        "clip.ts",
        &[
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=720x576:rate=50:duration=2",
            "-f",
            "lavfi",
            "-i",
            "sine=sample_rate=48000:duration=2",
            "-vf",
            "interlace=lowpass=off,setsar=64/45",
            "-c:v",
            "mpeg2video",
            "-b:v",
            "6M",
            "-flags",
            "+ilme+ildct",
            "-c:a",
            "mp2",
        ],
    );
    let run = run(&bench.request(&clip, &[("720p", 720), ("480p", 480)]));
    assert_eq!(run.result()["input"]["video_codec"], "mpeg2video");
    check_mp4(&bench.output("720p.mp4"), Some((1024, 576)), true, 2.0, 0.04);
    check_mp4(&bench.output("480p.mp4"), Some((854, 480)), true, 2.0, 0.04);
    let combed = |path: &std::path::Path| {
        let (_, text) = command(
            "ffmpeg",
            &["-nostdin", "-i", path.to_str().expect("a path"), "-vf", "idet", "-an", "-f", "null", "-"],
        );
        let line = text.lines().find(|line| line.contains("Multi frame detection")).expect("idet reports").to_owned();
        let number = |key: &str| -> u32 {
            let rest = line.split(key).nth(1).expect("the key is there");
            rest.split_whitespace().next().expect("a number").parse().expect("a number")
        };
        (number("TFF:") + number("BFF:"), number("Progressive:"))
    };
    let (before, after) = (combed(&clip), combed(&bench.output("720p.mp4")));
    assert!(before.0 > before.1, "the clip is not interlaced: {before:?}");
    assert!(after.0 * 5 < after.1, "still combed: {after:?}");
}

#[test]
fn other_codecs_and_containers() {
    for (name, codecs) in [
        ("clip.webm", &["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"][..]),
        (
            "hevc10.mp4",
            &[
                "-c:v",
                "libx265",
                "-preset",
                "ultrafast",
                "-x265-params",
                "log-level=error",
                "-pix_fmt",
                "yuv420p10le",
                "-c:a",
                "aac",
            ],
        ),
        ("surround.mov", &["-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "ac3", "-ac", "6"]),
        ("clip.avi", &["-c:v", "mpeg4", "-c:a", "libmp3lame"]),
        ("mono.mov", &["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "pcm_s16le", "-ac", "1", "-ar", "44100"]),
        ("clip.ts", &["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac"]),
        ("clip.gif", &["-an"]),
    ] {
        let bench = Bench::new();
        let clip = bench.coded(name, "320x240", 2, codecs);
        let run = run(&bench.request(&clip, &[("a", 240)]));
        let sound = run.result()["outputs"][0]["audio_codec"] == "aac";
        assert_eq!(sound, name != "clip.gif");
        check_mp4(&bench.output("a.mp4"), Some((320, 240)), sound, 2.0, 0.06);
        let pictures = picture_times(&bench.output("a.mp4")).len();
        assert_eq!(pictures, picture_times(&clip).len(), "{name}");
    }
}

/// A camera that was switched over: encoders cannot change their size, so the second half is scaled to that of the first.
#[test]
fn a_change_of_size_on_the_way() {
    let bench = Bench::new();
    let codecs = ["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac"];
    let first = bench.coded("first.ts", "320x240", 2, &codecs);
    let second = bench.coded("second.ts", "640x480", 2, &[&codecs[..], &["-output_ts_offset", "2"]].concat());
    let both = [fs::read(first).expect("the first"), fs::read(second).expect("the second")].concat();
    fs::write(bench.path("clip.ts"), both).expect("the clip");
    run(&bench.request(&bench.path("clip.ts"), &[("a", 240)])).result();
    let output = bench.output("a.mp4");
    assert_eq!(picture_times(&output).len(), 120);
    let stream = &probe(&output)["streams"][0];
    assert_eq!((stream["width"].as_u64(), stream["height"].as_u64()), (Some(320), Some(240)));
}

/// Browsers record so: no duration is stated, and none may be demanded.
#[test]
fn a_recording_that_does_not_say_how_long_it_is() {
    let bench = Bench::new();
    let codecs = ["-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libopus", "-f", "webm", "-live", "1"];
    let clip = bench.coded("clip.webm", "320x240", 2, &codecs);
    assert!(probe(&clip)["format"]["duration"].is_null(), "the clip says how long it is");
    let run = run(&bench.request(&clip, &[("a", 240)]));
    assert!(run.result()["input"]["duration_ms"].is_null());
    check_mp4(&bench.output("a.mp4"), Some((320, 240)), true, 2.0, FRAME);
}

/// A grey of half the signal in the two curves of high dynamic range, and how bright it has to be on an ordinary screen. Taken
/// as it stands it would be 128.
#[test]
fn high_dynamic_range_becomes_ordinary() {
    for (curve, brightness) in [("smpte2084", 170..=190), ("arib-std-b67", 135..=155)] {
        let bench = Bench::new();
        let labels = format!("log-level=error:colorprim=bt2020:transfer={curve}:colormatrix=bt2020nc");
        let clip = bench.make(
            "clip.mp4",
            &[
                "-f",
                "lavfi",
                "-i",
                "color=0x808080:size=320x240:rate=30:duration=1",
                "-pix_fmt",
                "yuv420p10le",
                "-c:v",
                "libx265",
                "-preset",
                "ultrafast",
                "-x265-params",
                &labels,
                "-color_primaries",
                "bt2020",
                "-color_trc",
                curve,
                "-colorspace",
                "bt2020nc",
            ],
        );
        let mut request = bench.request(&clip, &[("a", 240)]);
        request["thumbnail"] = json!({"at_ms": 0});
        run(&request).result();
        check_mp4(&bench.output("a.mp4"), Some((320, 240)), false, 1.0, FRAME);
        let stream = &probe(&bench.output("a.mp4"))["streams"][0];
        let labels =
            ["color_transfer", "color_primaries", "color_space", "color_range"].map(|key| stream[key].as_str());
        assert_eq!(labels, [Some("bt709"), Some("bt709"), Some("bt709"), Some("tv")]);
        for file in ["a.mp4", "thumbnail.jpg"] {
            let [red, green, blue] = pixel(&bench.output(file), 160, 120);
            assert!(brightness.contains(&green), "{curve}: {file} is {green}");
            assert!(red.abs_diff(green) < 5 && blue.abs_diff(green) < 5, "{curve}: {file} is tinted");
        }
    }
}

/// What phones write beside the video says where it was taken.
#[test]
fn private_facts_are_left_behind() {
    let bench = Bench::new();
    let clip = bench.coded(
        "clip.mp4",
        "320x240",
        1,
        &[
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-an",
            "-metadata",
            "location=+25.0443-077.3504/",
            "-metadata",
            "title=secret",
        ],
    );
    assert!(probe(&clip)["format"]["tags"]["location"].is_string(), "the clip has no location");
    run(&bench.request(&clip, &[("a", 240)])).result();
    let tags = probe(&bench.output("a.mp4"))["format"]["tags"].to_string();
    assert!(!tags.contains("077.3504") && !tags.contains("secret"), "{tags}");
}
