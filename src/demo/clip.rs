//! The video that the demo's user uploads, made by Debian's `ffmpeg`, and what `ffprobe` says of a file.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

/// How long either program may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a program's complaint that are shown.
const COMPLAINT: usize = 400;

/// Why there is no clip, or nothing known of a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClipError {
    #[error(
        "start {0}, which the demo needs for its clip: it is not on PATH; install it (Debian: apt-get install ffmpeg)"
    )]
    NotInstalled(&'static str),
    #[error("start {program}: {source}")]
    Spawn { program: &'static str, source: io::Error },
    #[error("run {program}: it took longer than {PATIENCE:?}")]
    Late { program: &'static str },
    #[error("run {program}: it ended with {status}: {complaint}")]
    Failed { program: &'static str, status: std::process::ExitStatus, complaint: String },
    #[error("create the folder {}: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("read what ffprobe says of {}", .0.display())]
    Unreadable(PathBuf),
}

/// A video, and what is in it.
#[derive(Debug)]
pub(super) struct Clip {
    pub(super) path: PathBuf,
    pub(super) facts: String,
}

/// Makes three seconds of test picture and tone in `folder`.
pub(super) async fn make(folder: &Path) -> Result<Clip, ClipError> {
    std::fs::create_dir_all(folder).map_err(|source| ClipError::Folder { path: folder.to_owned(), source })?;
    let path = folder.join("clip.mp4");
    let mut command = Command::new("ffmpeg");
    command
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"])
        .args(["-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=30"])
        .args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"])
        .args(["-t", "3", "-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p"])
        .args(["-c:a", "aac", "-b:a", "128k", "-movflags", "+faststart"])
        .arg(&path);
    run("ffmpeg", command).await?;
    let facts = describe(&path).await?;
    Ok(Clip { path, facts })
}

/// Size of the picture, codecs, playing time, bytes: `1280x720, h264 + aac, 3.00 s, 412 KiB`.
pub(super) async fn describe(path: &Path) -> Result<String, ClipError> {
    let mut command = Command::new("ffprobe");
    command
        .args(["-loglevel", "error", "-of", "json"])
        .args(["-show_entries", "stream=codec_name,width,height:format=duration,size"])
        .arg(path);
    let output = run("ffprobe", command).await?;
    let probed = serde_json::from_slice(&output.stdout).ok().and_then(|probed| facts(&probed));
    probed.ok_or_else(|| ClipError::Unreadable(path.to_owned()))
}

fn facts(probed: &Value) -> Option<String> {
    let streams = probed["streams"].as_array()?;
    let (width, height) =
        streams.iter().find_map(|stream| Some((stream["width"].as_u64()?, stream["height"].as_u64()?)))?;
    let codecs: Vec<&str> = streams.iter().filter_map(|stream| stream["codec_name"].as_str()).collect();
    let bytes: u64 = probed["format"]["size"].as_str()?.parse().ok()?;
    // A picture has no playing time worth naming.
    let seconds = match streams.len() {
        1 => None,
        _ => probed["format"]["duration"].as_str().and_then(|seconds| seconds.parse::<f64>().ok()),
    };
    let time = seconds.map_or_else(String::new, |seconds| format!("{seconds:.2} s, "));
    Some(format!("{width}x{height}, {}, {time}{} KiB", codecs.join(" + "), bytes.div_ceil(1024)))
}

async fn run(program: &'static str, mut command: Command) -> Result<Output, ClipError> {
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = match tokio::time::timeout(PATIENCE, running).await {
        Err(_) => return Err(ClipError::Late { program }),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Err(ClipError::NotInstalled(program)),
        Ok(Err(source)) => return Err(ClipError::Spawn { program, source }),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(output);
    }
    let complaint: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(COMPLAINT).collect();
    Err(ClipError::Failed { program, status: output.status, complaint })
}
