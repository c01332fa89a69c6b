//! What the daemon and its helper executable `jobsd-video` say to each other.
//!
//! Owns the shapes only: no input, no output, nothing else of this crate, so that both executables can include this one file.
//! The helper reads one [`Request`] (a JSON document) from stdin up to its end, writes [`Event`]s to stdout, one JSON document a
//! line, and ends. Every run ends with exactly one `result` or `error` line; `progress` lines before it come at most five times
//! a second. What libav has to say goes to stderr and is for people only.
//!
//! | exit code | meaning | last line | again? |
//! |---|---|---|---|
//! | 0 | done | `result` | |
//! | 2 | the input's fault: `unreadable_input`, `truncated`, `unsupported`, `limit` | `error` | never |
//! | 64 | the caller's fault: `request`, or no request at all (then there is no line) | `error` | never |
//! | 70 | a bug of the helper: `internal` | `error` | rarely helps |
//! | 75 | the world's fault: `io` | `error` | yes |
//! | 143 | told to stop by SIGTERM or SIGINT: `cancelled` | `error` | yes |
//!
//! A helper that dies by a signal writes no last line.

use serde::{Deserialize, Serialize};

/// One piece of work. Everything from `video` on may be left out of the JSON and then has the default shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// Absolute path of the media file. Only ever opened as a local regular file, never as a URL or a playlist.
    pub(crate) input: String,
    /// Absolute path of an existing folder that takes the outputs. A run waits while another one uses the folder, and removes
    /// the `.part` files that a killed one has left there.
    pub(crate) output_dir: String,
    pub(crate) mode: Mode,
    /// The wanted sizes, any order; empty in mode `thumbnail`.
    #[serde(default)]
    pub(crate) renditions: Vec<Rendition>,
    /// Required in mode `thumbnail`; in mode `transcode` it is taken on the way, from the same decoding.
    #[serde(default)]
    pub(crate) thumbnail: Option<Thumbnail>,
    #[serde(default)]
    pub(crate) video: VideoSettings,
    #[serde(default)]
    pub(crate) audio: AudioSettings,
    #[serde(default)]
    pub(crate) limits: Limits,
    /// Threads of the decoder and of the scaler; 0 chooses by the number of processors, at most 4.
    #[serde(default)]
    pub(crate) decoder_threads: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    Transcode,
    Thumbnail,
}

/// One wanted size, e.g. `{"name":"720p","height":720}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rendition {
    /// Becomes the file name `<name>.mp4`: 1 to 64 letters, digits, `-`, `_` and `.`, not beginning with `.`.
    pub(crate) name: String,
    /// Pixels of the *short side* as shown, so `720` is 1280x720 or, held upright, 720x1280. A smaller picture keeps its size.
    pub(crate) height: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Thumbnail {
    /// The first picture at or after this time is taken, the last one if the video is shorter.
    pub(crate) at_ms: u64,
    /// Pixels; a wider picture is scaled down, a narrower one keeps its size.
    #[serde(default)]
    pub(crate) max_width: Option<u32>,
}

/// How pictures are encoded: H.264 High, 4:2:0, 8 bits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct VideoSettings {
    pub(crate) preset: Preset,
    /// Constant rate factor of x264, 1 (best) to 51 (smallest).
    pub(crate) crf: u8,
}

impl Default for VideoSettings {
    fn default() -> Self {
        Self { preset: Preset::Veryfast, crf: 23 }
    }
}

/// The presets of x264, from quick to thorough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Preset {
    Ultrafast,
    Superfast,
    Veryfast,
    Faster,
    Fast,
    Medium,
    Slow,
    Slower,
    Veryslow,
}

/// How sound is encoded: AAC-LC, at most two channels. Sound that already is that is copied untouched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AudioSettings {
    /// Bits a second for stereo; mono gets half.
    pub(crate) bit_rate: u32,
}

impl Default for AudioSettings {
    fn default() -> Self {
        Self { bit_rate: 128_000 }
    }
}

/// What an input may cost before it is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Width times height of the pictures as stored.
    pub(crate) max_pixels: u64,
    pub(crate) max_duration_ms: u64,
    /// An input of which less than this part of its stated duration can be decoded is `truncated`; 0 takes whatever is there.
    pub(crate) min_decoded_fraction: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_pixels: 8192 * 4320, max_duration_ms: 4 * 60 * 60 * 1000, min_decoded_fraction: 0.9 }
    }
}

/// One line from the helper: `{"progress":{…}}`, `{"result":{…}}` or `{"error":{…}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Event {
    Progress(Progress),
    Result(Report),
    Error(Error),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// How far into the input decoding has come.
    pub(crate) done_ms: u64,
    /// The stated duration of the input; `null` where it states none.
    pub(crate) total_ms: Option<u64>,
}

/// What was made. All files are in `output_dir`, complete and under their final names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// One entry for each rendition asked for, in that order. Names whose sizes came out equal share one `file`.
    /// An input without pictures gives one entry named `audio`, in `audio.mp4`. Empty in mode `thumbnail`.
    pub(crate) outputs: Vec<Output>,
    pub(crate) thumbnail: Option<Picture>,
    pub(crate) input: InputFacts,
    /// Damaged packets and pictures that were left out or patched up.
    pub(crate) decode_errors: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Output {
    pub(crate) name: String,
    /// File name inside `output_dir`.
    pub(crate) file: String,
    /// Pixels; `null` for `audio`.
    pub(crate) width: Option<u32>,
    pub(crate) height: Option<u32>,
    pub(crate) duration_ms: u64,
    /// `h264`, or `null` for `audio`.
    pub(crate) video_codec: Option<String>,
    /// `aac`, or `null` where the input has no sound.
    pub(crate) audio_codec: Option<String>,
    pub(crate) bytes: u64,
}

/// A JPEG, `thumbnail.jpg`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Picture {
    pub(crate) file: String,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// The time of the picture that was taken.
    pub(crate) at_ms: u64,
    /// The video ends before the time that was asked for, and this is its last picture.
    pub(crate) beyond_end: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InputFacts {
    pub(crate) duration_ms: Option<u64>,
    /// Pixels as stored, before rotation and before making them square; `null` without pictures.
    pub(crate) width: Option<u32>,
    pub(crate) height: Option<u32>,
    /// Degrees clockwise by which the pictures have to be turned to stand upright: 0, 90, 180 or 270.
    pub(crate) rotation: u16,
    pub(crate) video_codec: Option<String>,
    pub(crate) audio_codec: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Error {
    pub(crate) kind: ErrorKind,
    /// One sentence for the person whose video it is.
    pub(crate) message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorKind {
    /// Not a media file, or too damaged to be opened.
    UnreadableInput,
    /// The input ends long before its stated duration.
    Truncated,
    /// A media file of a kind that is not taken.
    Unsupported,
    /// The input is larger than [`Limits`] allow.
    Limit,
    /// The request itself cannot be carried out by anyone.
    Request,
    /// Reading or writing failed.
    Io,
    /// Told to stop.
    Cancelled,
    /// A bug.
    Internal,
}
