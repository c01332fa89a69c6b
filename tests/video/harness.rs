//! Starts `jobsd-video`, and looks at what it has written with `ffprobe` and `ffmpeg`.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A folder with a place for inputs and one for outputs.
pub(crate) struct Bench {
    folder: TempDir,
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) lines: Vec<Value>,
    /// Shown where an assertion fails.
    #[expect(dead_code, reason = "read by Debug only")]
    stderr: String,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("out")).expect("the output folder");
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn output(&self, name: &str) -> PathBuf {
        self.path("out").join(name)
    }

    /// The names in the output folder, sorted.
    pub(crate) fn outputs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("out")).expect("the output folder is there");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name")).collect();
        names.sort();
        names
    }

    /// A request to transcode with everything quick; change it as the test needs.
    pub(crate) fn request(&self, input: &Path, rungs: &[(&str, u32)]) -> Value {
        let renditions: Vec<Value> =
            rungs.iter().map(|(name, height)| json!({"name": name, "height": height})).collect();
        json!({
            "input": input, "output_dir": self.path("out"), "mode": "transcode", "renditions": renditions,
            "video": {"preset": "superfast", "crf": 28},
        })
    }

    pub(crate) fn thumbnail_request(&self, input: &Path, at_ms: u64) -> Value {
        json!({"input": input, "output_dir": self.path("out"), "mode": "thumbnail", "thumbnail": {"at_ms": at_ms}})
    }
}

impl Run {
    /// The only line that is a result.
    #[track_caller]
    pub(crate) fn result(&self) -> &Value {
        assert_eq!(self.code, Some(0), "{self:#?}");
        &self.last()["result"]
    }

    /// Checks kind and exit code of the only line that is an error, and gives its message.
    #[track_caller]
    pub(crate) fn error(&self, kind: &str, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:#?}");
        let error = &self.last()["error"];
        assert_eq!(error["kind"], kind, "{self:#?}");
        let message = error["message"].as_str().expect("a message");
        assert!(!message.contains('\n') && message.len() > 15, "not a sentence: {message}");
        message
    }

    #[track_caller]
    fn last(&self) -> &Value {
        let (last, before) = self.lines.split_last().expect("at least one line");
        for line in before {
            assert!(line["progress"]["done_ms"].is_u64(), "not progress: {line}");
        }
        last
    }
}

/// Runs one request to its end.
#[track_caller]
pub(crate) fn run(request: &Value) -> Run {
    run_text(&request.to_string())
}

#[track_caller]
pub(crate) fn run_text(request: &str) -> Run {
    finish(start(Command::new(env!("CARGO_BIN_EXE_jobsd-video")), request))
}

/// Starts a command that becomes `jobsd-video`, and hands it the request.
pub(crate) fn start(mut command: Command, request: &str) -> Child {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("jobsd-video starts");
    match child.stdin.take().expect("piped").write_all(request.as_bytes()) {
        // What is far too long it does not read to the end.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        outcome => outcome.expect("it reads its stdin"),
    }
    child
}

#[track_caller]
pub(crate) fn finish(child: Child) -> Run {
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("the lines are UTF-8");
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")));
    Run {
        code: output.status.code(),
        lines: lines.collect(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The output of a command that must succeed.
#[track_caller]
pub(crate) fn command(program: &str, arguments: &[&str]) -> (String, String) {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program} (Debian package ffmpeg) does not start: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}\n{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// What ffprobe says of a file: `streams`, `format`.
#[track_caller]
pub(crate) fn probe(path: &Path) -> Value {
    let path = path.to_str().expect("a plain path");
    let (json, _) = command("ffprobe", &["-v", "error", "-show_streams", "-show_format", "-of", "json", path]);
    serde_json::from_str(&json).expect("ffprobe writes JSON")
}

/// The times at which the pictures of a file are shown, in seconds.
#[track_caller]
pub(crate) fn picture_times(path: &Path) -> Vec<f64> {
    let path = path.to_str().expect("a plain path");
    let entries = ["-v", "error", "-select_streams", "v:0", "-show_entries", "frame=pts_time", "-of", "csv=p=0", path];
    let (text, _) = command("ffprobe", &entries);
    let numbers = text.lines().map(|line| line.trim_matches(',')).filter(|line| !line.is_empty());
    numbers.map(|number| number.parse().unwrap_or_else(|_| panic!("not a time: {number}"))).collect()
}

/// The colour of one pixel of the first picture: red, green, blue.
#[track_caller]
pub(crate) fn pixel(path: &Path, x: u32, y: u32) -> [u8; 3] {
    let crop = format!("format=rgb24,crop=1:1:{x}:{y}");
    let output = Command::new("ffmpeg")
        .args([
            "-v",
            "error",
            "-i",
            path.to_str().expect("a plain path"),
            "-frames:v",
            "1",
            "-vf",
            &crop,
            "-f",
            "rawvideo",
            "-",
        ])
        .stdin(Stdio::null())
        .output()
        .expect("ffmpeg starts");
    output.stdout.try_into().unwrap_or_else(|bytes| panic!("not one pixel: {bytes:?}"))
}

/// What every MP4 of ours must be. `audio` and `size` say which streams it has.
#[track_caller]
pub(crate) fn check_mp4(path: &Path, size: Option<(u64, u64)>, audio: bool, seconds: f64, tolerance: f64) {
    let facts = probe(path);
    let streams = facts["streams"].as_array().expect("streams");
    let of = |kind: &str| streams.iter().find(|stream| stream["codec_type"] == kind);
    assert_eq!(streams.len(), usize::from(size.is_some()) + usize::from(audio), "{facts:#}");
    if let Some((width, height)) = size {
        let video = of("video").unwrap_or_else(|| panic!("no pictures: {facts:#}"));
        let seen =
            ["codec_name", "profile", "pix_fmt", "sample_aspect_ratio", "field_order"].map(|key| video[key].as_str());
        assert_eq!(seen, [Some("h264"), Some("High"), Some("yuv420p"), Some("1:1"), Some("progressive")], "{video:#}");
        assert_eq!((video["width"].as_u64(), video["height"].as_u64()), (Some(width), Some(height)));
        assert!(video["side_data_list"].is_null(), "a rotation is left: {video:#}");
    }
    if audio {
        let sound = of("audio").unwrap_or_else(|| panic!("no sound: {facts:#}"));
        assert_eq!((sound["codec_name"].as_str(), sound["profile"].as_str()), (Some("aac"), Some("LC")));
        assert!(sound["channels"].as_u64() <= Some(2));
    }
    let length: f64 = facts["format"]["duration"].as_str().expect("a duration").parse().expect("a number");
    assert!((length - seconds).abs() <= tolerance, "{length} s instead of {seconds} s (±{tolerance})");
    let atoms = atoms(path);
    let position =
        |name: &str| atoms.iter().position(|atom| atom == name).unwrap_or_else(|| panic!("no {name} in {atoms:?}"));
    assert!(position("moov") < position("mdat"), "the index is not in front: {atoms:?}");
    check_plays(path);
}

/// Decoding everything brings up nothing to complain about.
#[track_caller]
pub(crate) fn check_plays(path: &Path) {
    let (_, complaints) =
        command("ffmpeg", &["-v", "error", "-i", path.to_str().expect("a plain path"), "-f", "null", "-"]);
    assert_eq!(complaints, "", "{}", path.display());
}

/// The top-level boxes of an MP4.
fn atoms(path: &Path) -> Vec<String> {
    let bytes = fs::read(path).expect("the file is there");
    let (mut at, mut names) = (0, Vec::new());
    while let Some(head) = bytes.get(at..at + 8) {
        let size = u32::from_be_bytes(head[..4].try_into().expect("four bytes")) as usize;
        names.push(String::from_utf8_lossy(&head[4..]).into_owned());
        assert!(size >= 8, "a box of {size} bytes");
        at += size;
    }
    names
}
