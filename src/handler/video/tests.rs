//! Paths, sizes and times; and runs with a script in the helper's place that follows its protocol.

use std::os::unix::fs::symlink;

use super::*;
use crate::config::Step;
use crate::handler::Handlers;
use crate::job::{Outcome, Retryable};
use crate::testing::attempt::{self, failure};
use crate::testing::fixture::{self, template};

/// A world with an upload, a secret outside the roots, and a helper that keeps its request and then does `script`.
fn world(script: &str) -> (tempfile::TempDir, config::Config) {
    let dir = tempfile::tempdir().expect("a temp dir");
    let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("it is written");
    std::fs::create_dir_all(dir.path().join("uploads/2026")).expect("the uploads");
    file("uploads/2026/clip.mp4", "a clip");
    file("secret.mp4", "a secret");
    let path = dir.path().display();
    file("helper.sh", &format!("#!/bin/sh\nPATH=/usr/bin:/bin\nrequest={path}/request\ncat > $request\n{script}\n"));
    // Copied by another process: a file that a fork of this one still has open for writing cannot be started.
    let copied =
        std::process::Command::new("install").args(["-m", "755", "helper.sh", "helper"]).current_dir(&dir).status();
    assert!(copied.expect("install starts").success());
    symlink(dir.path().join("secret.mp4"), dir.path().join("uploads/link.mp4")).expect("a link");
    symlink("2026/clip.mp4", dir.path().join("uploads/inside.mp4")).expect("a link");
    let mut config = fixture::config(dir.path());
    config.video.helper = Some(dir.path().join("helper"));
    (dir, config)
}

fn step(mode: VideoMode) -> VideoStep {
    VideoStep {
        mode,
        input: template("{{ path }}"),
        id: template("{{ id }}"),
        quality: fixture::value(json!("{{ options.quality }}")),
        thumbnail_at: template("00:00:01.000"),
    }
}

async fn process(config: &config::Config, path: &str, id: &str) -> Outcome {
    fixture::tls_provider();
    let handlers = Handlers::new(config).expect("the handlers are built");
    let args = json!({"path": path, "id": id, "options": {"quality": ["720p", "480p"]}});
    let task = fixture::task(vec![Step::Video(step(VideoMode::Transcode))]);
    attempt::perform(&handlers, &task, args).await
}

/// Makes the files where the request says, then answers.
fn good() -> String {
    let out = |name: &str, height: u32| {
        json!({"name": name, "file": format!("{name}.mp4"), "width": height * 16 / 9, "height": height, "duration_ms": 2000,
            "video_codec": "h264", "audio_codec": null, "bytes": 5})
    };
    let report = json!({"result": {
        "outputs": [out("720p", 720), out("480p", 480)],
        "thumbnail": {"file": "thumbnail.jpg", "width": 1280, "height": 720, "at_ms": 1000, "beyond_end": false},
        "input": {"duration_ms": 2000, "width": 1920, "height": 1080, "rotation": 0, "video_codec": "h264", "audio_codec": null},
        "decode_errors": 0,
    }});
    format!(
        "out=$(sed 's/.*\"output_dir\":\"\\([^\"]*\\)\".*/\\1/' $request)\n\
         for f in 720p.mp4 480p.mp4 thumbnail.jpg; do echo data > $out/$f; done\n\
         echo '{{\"progress\":{{\"done_ms\":1000,\"total_ms\":2000}}}}'\ncat <<'END'\n{report}\nEND\n"
    )
}

#[tokio::test]
async fn outputs_are_published_under_the_videos_id() {
    let (dir, config) = world(&good());
    for path in ["2026/clip.mp4", "inside.mp4", &format!("file://{}/uploads/2026/clip.mp4", dir.path().display())] {
        let outcome = process(&config, path, "v 1/../x").await;
        let Outcome::Success(result) = outcome else { panic!("{path}: {outcome:?}") };
        let folder = folder_name("v 1/../x").expect("a folder");
        assert_eq!(result["outputs"]["thumbnail"], format!("https://cdn.test/videos/{folder}/thumbnail.jpg"));
        assert_eq!(
            (&result["video_id"], &result["duration"], &result["renditions"][1]["height"]),
            (&json!("v 1/../x"), &json!(2.0), &json!(480))
        );
        let mut files: Vec<String> = std::fs::read_dir(config.video.output_root.join(&folder))
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        files.sort();
        assert_eq!(files, ["480p.mp4", "720p.mp4", "thumbnail.jpg"], "the workplace is gone");
    }
    let request = dir.path().join("request");
    let request: protocol::Request =
        serde_json::from_slice(&std::fs::read(request).expect("the request")).expect("the protocol");
    assert!(request.input.ends_with("/uploads/2026/clip.mp4"), "{}", request.input);
    assert_eq!(request.thumbnail, Some(protocol::Thumbnail { at_ms: 1000, max_width: Some(THUMBNAIL_WIDTH) }));
    assert_eq!(request.renditions.iter().map(|one| one.height).collect::<Vec<_>>(), [720, 480]);
    assert_eq!(request.limits.max_duration_ms, 3_600_000);
}

/// The helper's answer to a song is a success of its own kind; the job asked for a video.
#[tokio::test]
async fn a_song_is_no_video_and_a_failure_leaves_no_folder() {
    let report = json!({"result": {
        "outputs": [{"name": "audio", "file": "audio.mp4", "width": null, "height": null, "duration_ms": 2000,
            "video_codec": null, "audio_codec": "aac", "bytes": 5}],
        "thumbnail": null,
        "input": {"duration_ms": 2000, "width": null, "height": null, "rotation": 0, "video_codec": null, "audio_codec": "mp3"},
        "decode_errors": 0,
    }});
    let (_dir, config) = world(&format!(
        "out=$(sed 's/.*\"output_dir\":\"\\([^\"]*\\)\".*/\\1/' $request)\necho data > $out/audio.mp4\ncat <<'END'\n{report}\nEND\n"
    ));
    let failed = failure(process(&config, "2026/clip.mp4", "31").await);
    assert_eq!((failed.kind.as_str(), failed.retry), ("VideoUnreadable", Retryable::Never));
    assert_eq!(failed.message, "failed to process the video: it holds sound only");
    let folder = config.video.output_root.join("31");
    assert!(!folder.exists(), "an empty folder is left");

    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("720p.mp4"), "of an earlier job").expect("written");
    failure(process(&config, "2026/clip.mp4", "31").await);
    let left: Vec<_> = std::fs::read_dir(&folder).expect("the folder is still there").collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn no_path_leads_out_of_the_input_roots() {
    let (dir, config) = world("exit 1");
    let secret = dir.path().join("secret.mp4").display().to_string();
    let roots = dir.path().join("uploads").display().to_string();
    for path in [
        "../secret.mp4",
        "2026/../../secret.mp4",
        "link.mp4",
        &secret,
        &format!("file://{secret}"),
        "/etc/passwd",
        "/no/such/file",
    ] {
        let failed = failure(process(&config, path, "1").await);
        assert_eq!(failed.message, format!("failed to read the input `{path}`: it lies outside input_roots ({roots})"));
        assert_eq!((failed.kind.as_str(), failed.retry), ("VideoInputOutsideRoots", Retryable::Never));
    }
    let failed = failure(process(&config, "2026/later.mp4", "1").await);
    assert_eq!((failed.kind.as_str(), failed.retry), ("VideoInputMissing", Retryable::ByPolicy), "{}", failed.message);
    assert!(!dir.path().join("request").exists(), "the helper was never asked");
}

#[tokio::test]
async fn the_helpers_errors_are_sorted() {
    for (kind, code, name, retry) in [
        ("unreadable_input", 2, "VideoUnreadable", Retryable::Never),
        ("truncated", 2, "VideoTruncated", Retryable::Never),
        ("unsupported", 2, "VideoUnsupported", Retryable::Never),
        ("limit", 2, "VideoTooLarge", Retryable::Never),
        ("request", 64, "VideoRequestRefused", Retryable::Never),
        ("io", 75, "VideoIoError", Retryable::ByPolicy),
        ("cancelled", 143, "VideoCancelled", Retryable::ByPolicy),
        ("internal", 70, "VideoHelperBug", Retryable::ByPolicy),
    ] {
        let script = format!(
            "echo libav says >&2; echo '{{\"error\":{{\"kind\":\"{kind}\",\"message\":\"it is so\"}}}}'; exit {code}"
        );
        let (_dir, config) = world(&script);
        let failed = failure(process(&config, "2026/clip.mp4", "1").await);
        assert_eq!((failed.kind.as_str(), failed.retry), (name, retry));
        assert_eq!(failed.message, "failed to process the video: it is so");
        assert_eq!(failed.detail.as_deref(), Some("libav says\n"));
    }
    let (_dir, config) = world("kill -SEGV $$");
    let failed = failure(process(&config, "2026/clip.mp4", "1").await);
    assert_eq!(
        failed.message,
        "failed to process the video: the helper was ended by signal 11 (SIGSEGV) without an answer"
    );
    assert_eq!(failed.retry, Retryable::ByPolicy);
}

#[test]
fn times_are_read_as_people_write_them() {
    let millis = |text: &str| timestamp(text).map(|span| span.as_millis()).ok();
    for (text, expected) in [
        ("00:00:01.000", Some(1000)),
        ("01:02:03.5", Some(3_723_500)),
        ("2:05", Some(125_000)),
        ("1.5", Some(1500)),
        ("0", Some(0)),
        ("", None),
        ("-1", None),
        ("NaN", None),
        ("1:2:3:4", None),
        ("a:1", None),
    ] {
        assert_eq!(millis(text), expected, "{text:?}");
    }
}

#[test]
fn sizes_are_checked() {
    let names =
        |quality: Value| renditions(&quality).map(|wanted| wanted.into_iter().map(|one| one.name).collect::<Vec<_>>());
    assert_eq!(names(json!(["720p", "480p", "720p"])).expect("valid"), ["720p", "480p"]);
    assert_eq!(names(json!("360p")).expect("valid"), ["360p"]);
    for bad in
        [json!([]), json!(["hd"]), json!(["../../x720p"]), json!([720]), json!({}), json!(["9000p"]), json!(["0p"])]
    {
        assert!(names(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn two_ids_never_share_a_folder() {
    let folder = |id: &str| folder_name(id).expect("a folder");
    assert_eq!(folder("abc-1.2_3"), "abc-1.2_3");
    assert_eq!(folder("v 1/../x"), format!("v_1_.._x-{:016x}", fnv("v 1/../x")));
    for (one, other) in [("a/b", "a_b"), ("a/b", "a?b"), ("../x", "..x"), (&"x".repeat(200), &"x".repeat(201))] {
        assert_ne!(folder(one), folder(other));
    }
    assert!(!folder("..").starts_with('.') && !folder(".hidden").starts_with('.'));
    assert!(folder_name(" ").is_err());
}
