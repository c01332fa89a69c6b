//! Reads the one request from stdin and turns it into a [`Job`], which cannot be wrong any more.

use std::io::Read;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::failure::Failure;
use crate::geometry::Size;
use crate::protocol::{self, AudioSettings, ErrorKind, Mode, Rendition, Request, VideoSettings};
use crate::time::millis;

/// A request has a few hundred bytes.
const MAX_BYTES: u64 = 1 << 20;
const MAX_RENDITIONS: usize = 16;
const MAX_NAME: usize = 64;
/// What H.264 can describe.
const SIDES: std::ops::RangeInclusive<u32> = 2..=16384;
/// More threads than this do not make decoding faster in a way that anyone would notice.
const MAX_AUTO_THREADS: usize = 4;

/// A checked request.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) input: PathBuf,
    pub(crate) output_dir: PathBuf,
    pub(crate) work: Work,
    pub(crate) limits: Limits,
    pub(crate) decoder_threads: usize,
}

#[derive(Debug)]
pub(crate) enum Work {
    Transcode(Transcode),
    Thumbnail(Thumbnail),
}

#[derive(Debug)]
pub(crate) struct Transcode {
    pub(crate) renditions: Vec<Rendition>,
    pub(crate) thumbnail: Option<Thumbnail>,
    pub(crate) video: VideoSettings,
    pub(crate) audio: AudioSettings,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Thumbnail {
    pub(crate) at: Duration,
    pub(crate) max_width: Option<u32>,
}

#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) max_pixels: u64,
    max_duration: Duration,
    min_decoded_fraction: f64,
}

impl Job {
    pub(crate) fn read(stdin: impl Read) -> Result<Self, Failure> {
        let mut text = Vec::new();
        stdin
            .take(MAX_BYTES + 1)
            .read_to_end(&mut text)
            .map_err(|error| Failure::io("read", Path::new("stdin"), error))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(bad(format!("the request is larger than {MAX_BYTES} bytes")));
        }
        let request = serde_json::from_slice(&text)
            .map_err(|error| bad(format!("the request is not what jobsd-video reads: {error}")))?;
        Self::check(request)
    }

    fn check(request: Request) -> Result<Self, Failure> {
        Ok(Self {
            input: absolute("input", request.input)?,
            output_dir: absolute("output_dir", request.output_dir)?,
            limits: Limits::check(&request.limits)?,
            decoder_threads: match request.decoder_threads {
                0 => (processors() / 2).clamp(1, MAX_AUTO_THREADS),
                threads => threads.into(),
            },
            work: match request.mode {
                Mode::Transcode => Work::Transcode(Transcode {
                    renditions: check_renditions(request.renditions)?,
                    thumbnail: request.thumbnail.map(Thumbnail::check).transpose()?,
                    video: check_video(request.video)?,
                    audio: check_audio(request.audio)?,
                }),
                Mode::Thumbnail => Work::Thumbnail(match request.thumbnail {
                    Some(thumbnail) => Thumbnail::check(thumbnail)?,
                    None => return Err(bad("mode thumbnail needs `thumbnail`, for example {\"at_ms\":1000}")),
                }),
            },
        })
    }
}

impl Thumbnail {
    fn check(wish: protocol::Thumbnail) -> Result<Self, Failure> {
        match wish.max_width {
            Some(width) if !SIDES.contains(&width) => {
                Err(bad(format!("thumbnail.max_width {width} is not between 2 and 16384")))
            }
            max_width => Ok(Self { at: Duration::from_millis(wish.at_ms), max_width }),
        }
    }
}

impl Limits {
    fn check(limits: &protocol::Limits) -> Result<Self, Failure> {
        if limits.max_pixels == 0 || limits.max_duration_ms == 0 {
            return Err(bad("limits.max_pixels and limits.max_duration_ms must be more than 0"));
        }
        if !(0.0..=1.0).contains(&limits.min_decoded_fraction) {
            return Err(bad("limits.min_decoded_fraction must be between 0 and 1"));
        }
        Ok(Self {
            max_pixels: limits.max_pixels,
            max_duration: Duration::from_millis(limits.max_duration_ms),
            min_decoded_fraction: limits.min_decoded_fraction,
        })
    }

    pub(crate) fn max_pixels_signed(&self) -> i64 {
        i64::try_from(self.max_pixels).unwrap_or(i64::MAX)
    }

    pub(crate) fn check_size(&self, Size { width, height }: Size) -> Result<(), Failure> {
        if u64::from(width) * u64::from(height) <= self.max_pixels {
            return Ok(());
        }
        let message =
            format!("pictures of {width}x{height} are larger than the {} pixels that are taken", self.max_pixels);
        Err(Failure::new(ErrorKind::Limit, message))
    }

    pub(crate) fn check_duration(&self, duration: Duration) -> Result<(), Failure> {
        if duration <= self.max_duration {
            return Ok(());
        }
        let message = format!("{} is longer than the {} that are taken", seconds(duration), seconds(self.max_duration));
        Err(Failure::new(ErrorKind::Limit, message))
    }

    /// Fails with `truncated` where too little of what was stated could be decoded. A quarter of a second is never missed:
    /// in a short clip a single picture would decide.
    pub(crate) fn check_whole(&self, stated: Duration, decoded: Duration) -> Result<(), Failure> {
        let missing = stated.saturating_sub(decoded);
        if missing <= Duration::from_millis(250)
            || decoded.as_secs_f64() >= stated.as_secs_f64() * self.min_decoded_fraction
        {
            return Ok(());
        }
        let message =
            format!("the file is incomplete: only {} of {} could be decoded", seconds(decoded), seconds(stated));
        Err(Failure::new(ErrorKind::Truncated, message))
    }

    /// Fails where the times of the pictures jump back so far that too many of them have no place: what would come out is a
    /// fraction of the video, for example of two recordings that were glued together.
    pub(crate) fn check_order(&self, decoded: u64, placed: u64) -> Result<(), Failure> {
        if placed as f64 >= decoded as f64 * self.min_decoded_fraction {
            return Ok(());
        }
        let message = format!("the times of the pictures jump back: only {placed} of {decoded} have a place");
        Err(Failure::new(ErrorKind::Unsupported, message))
    }
}

/// Processors this process may use.
pub(crate) fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::new(ErrorKind::Request, message)
}

fn seconds(duration: Duration) -> String {
    format!("{}.{} s", duration.as_secs(), millis(duration) % 1000 / 100)
}

/// Absolute, so that the folder in which the helper was started does not matter, and free of what C cannot hold.
fn absolute(key: &str, path: String) -> Result<PathBuf, Failure> {
    match path.starts_with('/') && !path.contains('\0') {
        true => Ok(PathBuf::from(path)),
        false => Err(bad(format!("`{key}` must be an absolute path, not {path:?}"))),
    }
}

fn check_renditions(renditions: Vec<Rendition>) -> Result<Vec<Rendition>, Failure> {
    if renditions.is_empty() || renditions.len() > MAX_RENDITIONS {
        return Err(bad(format!("mode transcode needs 1 to {MAX_RENDITIONS} renditions, not {}", renditions.len())));
    }
    for (position, Rendition { name, height }) in renditions.iter().enumerate() {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > MAX_NAME || name.starts_with('.') || !name.chars().all(plain) {
            return Err(bad(format!(
                "the rendition name {name:?} cannot be a file name: use letters, digits, -, _ and ."
            )));
        }
        if renditions[..position].iter().any(|other| other.name == *name) {
            return Err(bad(format!("the rendition name {name:?} is used twice")));
        }
        if !SIDES.contains(height) {
            return Err(bad(format!("the height {height} of rendition {name:?} is not between 2 and 16384")));
        }
    }
    Ok(renditions)
}

fn check_video(settings: VideoSettings) -> Result<VideoSettings, Failure> {
    match settings.crf {
        1..=51 => Ok(settings),
        crf => Err(bad(format!("video.crf {crf} is not between 1 and 51"))),
    }
}

fn check_audio(settings: AudioSettings) -> Result<AudioSettings, Failure> {
    match settings.bit_rate {
        16_000..=512_000 => Ok(settings),
        rate => Err(bad(format!("audio.bit_rate {rate} is not between 16000 and 512000 bits a second"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Job, Failure> {
        Job::check(serde_json::from_str(text).expect("the JSON fits the shape"))
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let job =
            read(r#"{"input":"/i","output_dir":"/o","mode":"transcode","renditions":[{"name":"a","height":720}]}"#);
        let job = job.expect("the request is complete");
        let Work::Transcode(work) = job.work else { panic!("mode transcode") };
        assert_eq!((work.video.crf, work.audio.bit_rate), (23, 128_000));
        assert!((1..=4).contains(&job.decoder_threads));
    }

    #[test]
    fn what_nobody_could_carry_out_is_refused() {
        for (text, expected) in [
            (
                r#"{"input":"i","output_dir":"/o","mode":"thumbnail","thumbnail":{"at_ms":0}}"#,
                "`input` must be an absolute path",
            ),
            (r#"{"input":"/i","output_dir":"/o","mode":"thumbnail"}"#, "needs `thumbnail`"),
            (r#"{"input":"/i","output_dir":"/o","mode":"transcode"}"#, "needs 1 to 16 renditions"),
            (
                r#"{"input":"/i","output_dir":"/o","mode":"transcode","renditions":[{"name":"../x","height":720}]}"#,
                "cannot be a file name",
            ),
            (
                r#"{"input":"/i","output_dir":"/o","mode":"transcode","renditions":[{"name":"a","height":720},{"name":"a","height":480}]}"#,
                "used twice",
            ),
            (
                r#"{"input":"/i","output_dir":"/o","mode":"transcode","renditions":[{"name":"a","height":720}],"video":{"crf":0}}"#,
                "video.crf 0",
            ),
        ] {
            let failure = read(text).expect_err(text);
            assert_eq!(failure.kind, ErrorKind::Request);
            assert!(failure.message.contains(expected), "{}", failure.message);
        }
    }

    #[test]
    fn truncation_forgives_a_quarter_of_a_second() {
        let limits = Limits::check(&protocol::Limits::default()).expect("the defaults are valid");
        let ms = Duration::from_millis;
        assert!(limits.check_whole(ms(500), ms(260)).is_ok());
        assert!(limits.check_whole(ms(10_000), ms(9_000)).is_ok());
        assert!(limits.check_whole(ms(10_000), ms(8_999)).is_err());
    }
}
