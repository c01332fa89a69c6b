//! One picture of the video as a JPEG: caught on the way of a transcoding, or sought on its own.

use std::fs;
use std::time::Duration;

use ffmpeg::{Dictionary, Error, Packet, Rational, codec, color, encoder, format, frame};
use ffmpeg_next as ffmpeg;

use crate::failure::Failure;
use crate::ffi;
use crate::geometry::Size;
use crate::graph::{PictureGraph, Pixels, Shape};
use crate::output::{Folder, Part};
use crate::pictures::{Decoding, no_picture};
use crate::probe::{self, PictureStream};
use crate::protocol::{ErrorKind, InputFacts, Picture, Report};
use crate::report::Reporter;
use crate::request::{Job, Thumbnail};
use crate::time::{self, millis};

const FILE: &str = "thumbnail.jpg";

/// 1 is best, 31 is worst; at 3 no artefacts are seen.
const QUALITY: i32 = 3;

/// Mode `thumbnail`: seeks, decodes as little as possible, and makes nothing but the JPEG.
pub(crate) fn run(job: &Job, wish: Thumbnail, reporter: &mut Reporter) -> Result<Report, Failure> {
    let folder = Folder::open(&job.output_dir)?;
    let found = match look_from(job, wish, Some(wish.at), reporter)? {
        Some(found) => Some(found),
        // Not every file can be sought in, and behind the end nothing is found: then all of it is decoded.
        None => look_from(job, wish, None, reporter)?,
    };
    let found = found.ok_or_else(no_picture)?;
    let (part, picture) = found.snapshot.write(&folder, &found.stream)?.ok_or_else(no_picture)?;
    folder.publish(vec![part])?;
    Ok(Report { outputs: Vec::new(), thumbnail: Some(picture), input: found.input, decode_errors: found.errors })
}

struct Found {
    snapshot: Snapshot,
    stream: PictureStream,
    input: InputFacts,
    errors: u64,
}

/// Decodes from `start` (or from the beginning) until the wish is fulfilled; `None` if that gives no picture at all.
fn look_from(
    job: &Job,
    wish: Thumbnail,
    start: Option<Duration>,
    reporter: &mut Reporter,
) -> Result<Option<Found>, Failure> {
    let (media, mut reader) = probe::open(&job.input, &job.limits)?;
    if start.is_some_and(|time| reader.seek(time, &media).is_err()) {
        return Ok(None);
    }
    let input = media.facts();
    let Some(stream) = media.picture else {
        return Err(Failure::new(ErrorKind::Unsupported, "the file holds no pictures, only sound"));
    };
    let mut decoding = Decoding::open(&stream, media.start, job)?;
    let mut snapshot = Snapshot::new(wish, stream.unit);
    while !snapshot.is_taken()
        && let Some(packet) = reader.next_packet()?
    {
        if packet.stream() == stream.index {
            decoding.take(&packet, |frame| snapshot.offer(frame))?;
            reporter.progress(decoding.reached(), media.stated_duration);
        }
    }
    if !snapshot.is_taken() {
        decoding.finish(|frame| snapshot.offer(frame))?;
    }
    let errors = reader.errors + decoding.errors;
    Ok((!snapshot.is_empty()).then_some(Found { snapshot, stream, input, errors }))
}

/// Keeps the newest picture until the wished one has come.
pub(crate) struct Snapshot {
    wish: Thumbnail,
    unit: Rational,
    frame: Option<frame::Video>,
    taken: bool,
}

impl Snapshot {
    /// `unit` is that of the pictures' times.
    pub(crate) fn new(wish: Thumbnail, unit: Rational) -> Self {
        Self { wish, unit, frame: None, taken: false }
    }

    /// Never fails; the signature is that of everything that takes decoded pictures.
    pub(crate) fn offer(&mut self, frame: frame::Video) -> Result<(), Failure> {
        if !self.taken {
            self.taken = self.time_of(&frame) >= self.wish.at;
            self.frame = Some(frame);
        }
        Ok(())
    }

    fn is_taken(&self) -> bool {
        self.taken
    }

    fn is_empty(&self) -> bool {
        self.frame.is_none()
    }

    /// Encodes the picture; `None` if there was none.
    pub(crate) fn write(self, folder: &Folder, stream: &PictureStream) -> Result<Option<(Part, Picture)>, Failure> {
        let Some(frame) = &self.frame else { return Ok(None) };
        let stored = Size { width: frame.width(), height: frame.height() };
        let shown = stored.shown(stream.pixel_aspect, stream.rotation.is_quarter_turn());
        let size = shown.with_width(self.wish.max_width.unwrap_or(shown.width));
        let scaled = scale(frame, stream, size)?;
        let jpeg = encode(&scaled).map_err(|error| Failure::internal("encoding the thumbnail", error))?;
        let part = Part::create(folder, FILE)?;
        let data = jpeg.data().unwrap_or_default();
        fs::write(part.path(), data).map_err(|error| Failure::io("write", part.path(), error))?;
        let picture = Picture {
            file: FILE.to_owned(),
            width: size.width,
            height: size.height,
            at_ms: millis(self.time_of(frame)),
            beyond_end: !self.taken,
        };
        Ok(Some((part, picture)))
    }

    fn time_of(&self, frame: &frame::Video) -> Duration {
        time::duration(frame.pts().unwrap_or(0), self.unit)
    }
}

/// The picture alone goes through a graph of its own, so that no thumbnail branch runs along for the whole video.
fn scale(frame: &frame::Video, stream: &PictureStream, size: Size) -> Result<frame::Video, Failure> {
    let shape = Shape::of(frame, stream.pixel_aspect, stream.interlaced);
    let mut graph = PictureGraph::new(shape, stream.unit, stream.rotation, &[size], Pixels::Jpeg, 1)?;
    graph.push(frame)?;
    graph.finish()?;
    let mut scaled = None;
    graph.pull(stream.unit, |_, frame| {
        scaled = Some(frame);
        Ok(())
    })?;
    scaled.ok_or_else(|| Failure::new(ErrorKind::Internal, "scaling the thumbnail gave no picture"))
}

fn encode(frame: &frame::Video) -> Result<Packet, Error> {
    let codec = encoder::find(codec::Id::MJPEG).ok_or(Error::EncoderNotFound)?;
    let mut encoder = codec::Context::new_with_codec(codec).encoder().video()?;
    encoder.set_width(frame.width());
    encoder.set_height(frame.height());
    encoder.set_format(format::Pixel::YUVJ420P);
    encoder.set_color_range(color::Range::JPEG);
    encoder.set_time_base(Rational(1, 25));
    ffi::set_quality_scale(&mut encoder, QUALITY);
    ffi::open_encoder(&mut encoder, &codec, Dictionary::new())?;
    encoder.send_frame(frame)?;
    encoder.send_eof()?;
    let mut packet = Packet::empty();
    encoder.receive_packet(&mut packet)?;
    Ok(packet)
}
