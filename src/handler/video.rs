//! The `video` handler: finds the input, has the helper `jobsd-video` do the work, publishes its files.
//!
//! Owns which paths a job may read and write: the input must lie in an input root once all links are resolved, the
//! outputs go to one folder below the output root. The helper works in a hidden folder beside the published files, and
//! each file moves to its place by one rename, so a reader never sees half a video.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::child::{self, ChildError, Finished, Keep, Program};
use super::lines::Heard;
use super::video_protocol as protocol;
use super::video_protocol::{ErrorKind, Event, Mode};
use super::{Notepad, Run};
use crate::clock;
use crate::config::{self, RenderError, VideoMode, VideoStep};
use crate::job::{Failure, Source};

const HELPER: &str = "jobsd-video";
/// Bytes of the helper's output that are kept: its last line is the answer.
const MAX_ANSWER: usize = 64 * 1024;
/// Bytes of libav's words that a failure holds.
const MAX_STDERR: usize = 8 * 1024;
/// Renditions of one job.
const MAX_RENDITIONS: usize = 8;
const THUMBNAIL_WIDTH: u32 = 1280;

/// Video as `[video]` wants it.
#[derive(Debug)]
pub(super) struct Video {
    helper: Option<PathBuf>,
    input_roots: Vec<PathBuf>,
    output_root: PathBuf,
    public_url: String,
    settings: protocol::VideoSettings,
    limits: protocol::Limits,
}

/// Why `[video]` cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("read `video.preset`: `{0}` is not a preset of x264")]
    Preset(String),
}

/// Why there is no video.
#[derive(Debug, thiserror::Error)]
pub(super) enum VideoError {
    #[error("{0}")]
    Render(#[from] RenderError),
    #[error("find the helper {HELPER}: it is not beside jobsd and not in ../libexec/jobsd; `video.helper` can name it")]
    NoHelper,
    #[error("read the video's `{what}`: {reason}")]
    Argument { what: &'static str, reason: String },
    #[error("find the input `{0}`: there is no such file in the input roots")]
    NoInput(String),
    #[error("read the input `{input}`: it lies outside input_roots ({roots})")]
    Outside { input: String, roots: String },
    #[error("prepare the output folder {}: {reason}", path.display())]
    Output { path: PathBuf, reason: std::io::Error },
    #[error("{0}")]
    Child(#[from] ChildError),
    #[error("process the video: {message}")]
    Refused { kind: ErrorKind, message: String, stderr: String },
    #[error("process the video: the helper {how} without an answer")]
    Died { how: String, stderr: String },
}

/// A folder for one run, gone when the run is over.
struct Workplace {
    path: PathBuf,
    /// The folder of published files, in which it lies.
    published: PathBuf,
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // Best effort: a run of the same job clears what is left.
        let _ = std::fs::remove_dir_all(&self.path);
        // Refused, and rightly, where anything is published.
        let _ = std::fs::remove_dir(&self.published);
    }
}

impl Video {
    /// The folders and the helper are looked for when a job needs them: a daemon without videos needs none.
    pub(super) fn new(config: &config::Video) -> Result<Self, SetupError> {
        let preset =
            serde_json::from_value(json!(config.preset)).map_err(|_| SetupError::Preset(config.preset.clone()))?;
        let millis = u64::try_from(config.max_duration.as_millis()).unwrap_or(u64::MAX);
        Ok(Self {
            helper: config.helper.clone(),
            input_roots: config.input_roots.clone(),
            output_root: config.output_root.clone(),
            public_url: config.public_url.trim_end_matches('/').to_owned(),
            settings: protocol::VideoSettings { preset, crf: config.crf },
            limits: protocol::Limits {
                max_pixels: config.max_pixels,
                max_duration_ms: millis,
                ..protocol::Limits::default()
            },
        })
    }

    /// Returns `{"video_id", "outputs": {"720p": url, …, "thumbnail": url}, "renditions": [{name, file, width, height,
    /// duration, bytes}], "duration", "processed_at"}`, durations in seconds.
    pub(super) async fn process(&self, step: &VideoStep, run: &Run<'_>) -> Result<Value, VideoError> {
        let values = run.context.values();
        let id = step.id.render(values)?;
        let folder = folder_name(&id)?;
        let input = self.find_input(&step.input.render(values)?)?;
        let published = self.output_root.join(&folder);
        let workplace = workplace(published, run)?;
        let request = self.request(step, run, &input, &workplace.path)?;
        let finished =
            child::run(self.program(&request)?, &|source, line, beyond| hear(run.notepad, source, line, beyond))
                .await?;
        let report = report(&finished)?;
        has_pictures(&report)?;
        publish(&workplace, &report)?;
        Ok(self.result(&id, &folder, &report))
    }

    /// The input, resolved: a file inside one of the input roots.
    fn find_input(&self, given: &str) -> Result<PathBuf, VideoError> {
        let path = Path::new(given.strip_prefix("file://").unwrap_or(given));
        let roots: Vec<PathBuf> = self.input_roots.iter().filter_map(|root| root.canonicalize().ok()).collect();
        let candidates: Vec<PathBuf> = match path.is_absolute() {
            true => vec![path.to_owned()],
            false => roots.iter().map(|root| root.join(path)).collect(),
        };
        let mut outside = path.is_absolute() && !roots.iter().any(|root| path.starts_with(root));
        for candidate in candidates {
            let Ok(resolved) = candidate.canonicalize() else { continue };
            if roots.iter().any(|root| resolved.starts_with(root)) {
                return Ok(resolved);
            }
            outside = true;
        }
        // A path outside is refused in the same words whether it exists or not: it is nobody's business.
        match outside {
            true => Err(VideoError::Outside { input: given.to_owned(), roots: self.roots() }),
            false => Err(VideoError::NoInput(given.to_owned())),
        }
    }

    fn roots(&self) -> String {
        self.input_roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", ")
    }

    fn request(
        &self,
        step: &VideoStep,
        run: &Run<'_>,
        input: &Path,
        folder: &Path,
    ) -> Result<protocol::Request, VideoError> {
        let values = run.context.values();
        let at = timestamp(&step.thumbnail_at.render(values)?)?;
        let (mode, renditions) = match step.mode {
            VideoMode::Transcode => (Mode::Transcode, renditions(&step.quality.render(values)?)?),
            VideoMode::Thumbnail => (Mode::Thumbnail, Vec::new()),
        };
        let utf8 = |what, path: &Path| {
            path.to_str()
                .map(str::to_owned)
                .ok_or_else(|| VideoError::Argument { what, reason: "the path is not UTF-8".into() })
        };
        let at_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        Ok(protocol::Request {
            input: utf8("input", input)?,
            output_dir: utf8("output_root", folder)?,
            mode,
            renditions,
            thumbnail: Some(protocol::Thumbnail { at_ms, max_width: Some(THUMBNAIL_WIDTH) }),
            video: self.settings.clone(),
            audio: protocol::AudioSettings::default(),
            limits: self.limits.clone(),
            decoder_threads: 0,
        })
    }

    fn program(&self, request: &protocol::Request) -> Result<Program, VideoError> {
        let stdin = serde_json::to_vec(request)
            .map_err(|error| VideoError::Argument { what: "request", reason: error.to_string() })?;
        Ok(Program {
            path: self.helper.clone().or_else(installed_helper).ok_or(VideoError::NoHelper)?,
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            stdin,
            stdout: Keep::Last(MAX_ANSWER),
            stderr: Keep::Last(MAX_STDERR),
        })
    }

    fn result(&self, id: &str, folder: &str, report: &protocol::Report) -> Value {
        let url = |file: &str| json!(format!("{}/{folder}/{file}", self.public_url));
        let seconds = |millis: u64| Duration::from_millis(millis).as_secs_f64();
        let mut outputs: Map<String, Value> =
            report.outputs.iter().map(|output| (output.name.clone(), url(&output.file))).collect();
        if let Some(picture) = &report.thumbnail {
            outputs.insert("thumbnail".into(), url(&picture.file));
        }
        let rendition = |output: &protocol::Output| {
            json!({
                "name": output.name,
                "file": output.file,
                "width": output.width,
                "height": output.height,
                "duration": seconds(output.duration_ms),
                "bytes": output.bytes,
            })
        };
        json!({
            "video_id": id,
            "outputs": outputs,
            "renditions": report.outputs.iter().map(rendition).collect::<Vec<_>>(),
            "duration": report.input.duration_ms.map(seconds),
            "processed_at": clock::now().to_string(),
        })
    }
}

/// Beside `jobsd`, else in `../libexec/jobsd` as a package installs it.
fn installed_helper() -> Option<PathBuf> {
    let jobsd = std::env::current_exe().ok()?;
    let bin = jobsd.parent()?;
    [bin.join(HELPER), bin.join("../libexec/jobsd").join(HELPER)].into_iter().find(|path| path.is_file())
}

/// A fresh folder of this job's own inside the folder of published files.
fn workplace(published: PathBuf, run: &Run<'_>) -> Result<Workplace, VideoError> {
    let name = folder_name(&format!("{}-{}", run.job.id, run.step))?;
    let path = published.join(format!(".work-{name}"));
    let fail = |reason| VideoError::Output { path: path.clone(), reason };
    match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    std::fs::create_dir_all(&path).map_err(fail)?;
    // The helper wants an absolute path; resolving it here also shows that the folder is reachable.
    let path = path.canonicalize().map_err(fail)?;
    Ok(Workplace { path, published })
}

/// The helper makes a sound file of an input without pictures; to whoever asked for a video that is none.
fn has_pictures(report: &protocol::Report) -> Result<(), VideoError> {
    match report.thumbnail.is_some() || report.outputs.iter().any(|output| output.height.is_some()) {
        true => Ok(()),
        false => Err(VideoError::Refused {
            kind: ErrorKind::UnreadableInput,
            message: "it holds sound only".into(),
            stderr: String::new(),
        }),
    }
}

fn publish(workplace: &Workplace, report: &protocol::Report) -> Result<(), VideoError> {
    let (from, to) = (&workplace.path, &workplace.published);
    let files =
        report.outputs.iter().map(|output| &output.file).chain(report.thumbnail.iter().map(|picture| &picture.file));
    let mut moved: Vec<&str> = Vec::new();
    for file in files {
        // Renditions that came out equal share a file.
        if moved.contains(&file.as_str()) {
            continue;
        }
        let fail = |reason| VideoError::Output { path: to.join(file), reason };
        std::fs::rename(from.join(file), to.join(file)).map_err(fail)?;
        moved.push(file);
    }
    Ok(())
}

/// A line of the helper, as it comes: its answer, how far it is, or libav's words.
fn hear(notepad: &Notepad, source: Source, line: &[u8], beyond: u64) -> Heard {
    match (source, serde_json::from_slice(line)) {
        (Source::Stdout, Ok(Event::Progress(protocol::Progress { done_ms, total_ms }))) => {
            let percent = total_ms.filter(|total| *total > 0).map(|total| done_ms.saturating_mul(100) / total);
            let clock = |millis: u64| humantime::format_duration(Duration::from_secs(millis / 1000)).to_string();
            let of = total_ms.map_or(String::new(), |total| format!(" of {}", clock(total)));
            let percent = percent.map(|percent| u8::try_from(percent).unwrap_or(100));
            notepad.progress(percent, Some(&format!("{}{of} transcoded", clock(done_ms))));
            Heard::Taken
        }
        (Source::Stdout, _) => Heard::Kept,
        _ => {
            notepad.output(source, line, beyond);
            Heard::Kept
        }
    }
}

/// The helper's last line.
fn report(finished: &Finished) -> Result<protocol::Report, VideoError> {
    let answer = finished.stdout.text();
    let last = answer.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    match serde_json::from_str(last) {
        Ok(Event::Result(report)) if finished.status.success() => Ok(report),
        Ok(Event::Error(error)) => {
            Err(VideoError::Refused { kind: error.kind, message: error.message, stderr: finished.stderr.text() })
        }
        Ok(Event::Result(_) | Event::Progress(_)) | Err(_) => {
            let how = match (finished.status.code(), finished.status.signal()) {
                (Some(code), _) => format!("ended with exit code {code}"),
                (None, Some(signal)) => format!("was ended by {}", child::signal_name(signal)),
                (None, None) => "ended".to_owned(),
            };
            Err(VideoError::Died { how, stderr: finished.stderr.text() })
        }
    }
}

/// A folder name out of an id: one that had to be changed gets a mark of what it was, so that two ids never share a
/// folder.
fn folder_name(id: &str) -> Result<String, VideoError> {
    const LONGEST: usize = 100;
    if id.trim().is_empty() {
        return Err(VideoError::Argument { what: "id", reason: "it is empty".into() });
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let safe: String = id.chars().map(plain).take(LONGEST).collect();
    let safe = if safe.starts_with('.') { format!("_{safe}") } else { safe };
    Ok(if safe == id { safe } else { format!("{safe}-{:016x}", fnv(id)) })
}

/// FNV-1a, 64 bits: the same in every build, which the standard library's hasher does not promise.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// `["720p", "480p"]`, or one of them as a text.
fn renditions(quality: &Value) -> Result<Vec<protocol::Rendition>, VideoError> {
    let bad = |reason: String| VideoError::Argument { what: "quality", reason };
    let names: Vec<&str> = match quality {
        Value::String(name) => vec![name],
        Value::Array(names) => {
            let names =
                names.iter().map(|name| name.as_str().ok_or_else(|| bad(format!("{name} is not a text like `720p`"))));
            names.collect::<Result<_, _>>()?
        }
        other => return Err(bad(format!("{other} is not a list like `[\"720p\", \"480p\"]`"))),
    };
    if names.is_empty() || names.len() > MAX_RENDITIONS {
        return Err(bad(format!("it lists {} sizes; 1 to {MAX_RENDITIONS} are possible", names.len())));
    }
    let rendition = |name: &str| {
        let height =
            name.strip_suffix('p').and_then(|height| height.parse().ok()).filter(|height| (16..=4320).contains(height));
        let height = height.ok_or_else(|| bad(format!("`{name}` is not a size like `720p`, from 16p to 4320p")))?;
        Ok::<_, VideoError>(protocol::Rendition { name: name.to_owned(), height })
    };
    let mut wanted: Vec<protocol::Rendition> = Vec::new();
    for name in names {
        if !wanted.iter().any(|known| known.name == name) {
            wanted.push(rendition(name)?);
        }
    }
    Ok(wanted)
}

/// Seconds, `MM:SS` or `HH:MM:SS.mmm`.
fn timestamp(text: &str) -> Result<Duration, VideoError> {
    let bad = || VideoError::Argument {
        what: "thumbnail_at",
        reason: format!("`{text}` is not a time like `00:00:01.000` or `1.5`"),
    };
    let mut parts = text.trim().rsplit(':');
    let seconds: f64 = parts.next().and_then(|part| part.parse().ok()).ok_or_else(bad)?;
    let mut total = Duration::try_from_secs_f64(seconds).map_err(|_| bad())?;
    for unit in [60, 3600] {
        let Some(part) = parts.next() else { return Ok(total) };
        let count: u32 = part.parse().map_err(|_| bad())?;
        total = total.saturating_add(Duration::from_secs(unit).saturating_mul(count));
    }
    if parts.next().is_some() { Err(bad()) } else { Ok(total) }
}

impl From<VideoError> for Failure {
    fn from(error: VideoError) -> Self {
        let message = format!("failed to {error}");
        match error {
            VideoError::Render(error) => error.into(),
            VideoError::NoHelper | VideoError::Child(_) => Self::new("VideoHelperError", message),
            VideoError::Argument { .. } => Self::never("BadArguments", message),
            // The upload may still be on its way.
            VideoError::NoInput(_) => Self::new("VideoInputMissing", message),
            VideoError::Outside { .. } => Self::never("VideoInputOutsideRoots", message),
            VideoError::Output { .. } => Self::new("VideoOutputError", message),
            VideoError::Refused { kind, stderr, .. } => said(refused(kind, message), stderr),
            VideoError::Died { stderr, .. } => said(Self::new("VideoHelperDied", message), stderr),
        }
    }
}

/// With libav's own words, where there are any.
fn said(failure: Failure, stderr: String) -> Failure {
    if stderr.is_empty() { failure } else { failure.with_detail(stderr) }
}

fn refused(kind: ErrorKind, message: String) -> Failure {
    match kind {
        ErrorKind::UnreadableInput => Failure::never("VideoUnreadable", message),
        ErrorKind::Truncated => Failure::never("VideoTruncated", message),
        ErrorKind::Unsupported => Failure::never("VideoUnsupported", message),
        ErrorKind::Limit => Failure::never("VideoTooLarge", message),
        ErrorKind::Request => Failure::never("VideoRequestRefused", message),
        ErrorKind::Io => Failure::new("VideoIoError", message),
        ErrorKind::Cancelled => Failure::new("VideoCancelled", message),
        ErrorKind::Internal => Failure::new("VideoHelperBug", message),
    }
}

#[cfg(test)]
mod tests;
