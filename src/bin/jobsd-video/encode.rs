//! One thread for each file: encodes the pictures of its rung and writes them with the sound.
//!
//! The thread that decodes feeds all of them through short queues, so the slowest encoder sets the pace and memory stays bounded.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ffmpeg::util::error::EAGAIN;
use ffmpeg::{Dictionary, Error, Packet, Rational, codec, color, encoder, format, frame, picture};
use ffmpeg_next as ffmpeg;

use crate::cancel;
use crate::colours::Colours;
use crate::failure::Failure;
use crate::ffi;
use crate::geometry::{Rung, Size};
use crate::mux::{Mp4, SoundTrack};
use crate::output::{Folder, Part};
use crate::probe::PictureStream;
use crate::protocol::{ErrorKind, Preset, VideoSettings};
use crate::request::processors;

/// Pieces on the way to one encoder: about eight pictures with their sound.
const QUEUE: usize = 16;

/// What travels to a file.
enum Piece {
    Picture(frame::Video),
    Sound(Packet),
    /// Everything has been sent. A queue that closes without it means that the run has failed elsewhere.
    End,
}

/// A file that is complete but has not got its name yet.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) part: Part,
    pub(crate) length: Duration,
}

/// All files of a run, each with its thread.
pub(crate) struct Files {
    files: Vec<FileThread>,
}

struct FileThread {
    queue: SyncSender<Piece>,
    /// Ends with `None` where the run failed elsewhere.
    thread: JoinHandle<Result<Option<Written>, Failure>>,
}

impl Files {
    pub(crate) fn with_pictures(
        folder: &Folder,
        stream: &PictureStream,
        colours: Colours,
        rungs: &[Rung],
        settings: &VideoSettings,
        sound: Option<&SoundTrack>,
    ) -> Result<Self, Failure> {
        let mut files = Self { files: Vec::new() };
        for rung in rungs {
            let encoder = PictureEncoder::open(stream, rung.size, colours, settings, rungs.len())?;
            let part = Part::create(folder, &rung.file)?;
            files.files.push(FileThread::start(Mp4::create(part, Some(&encoder), sound)?, Some(encoder))?);
        }
        Ok(files)
    }

    pub(crate) fn only_sound(folder: &Folder, name: &str, sound: &SoundTrack) -> Result<Self, Failure> {
        let part = Part::create(folder, name)?;
        Ok(Self { files: vec![FileThread::start(Mp4::create(part, None, Some(sound))?, None)?] })
    }

    pub(crate) fn send_picture(&self, index: usize, frame: frame::Video) -> Result<(), Failure> {
        self.files[index].send(Piece::Picture(frame))
    }

    /// The same sound goes into every file.
    pub(crate) fn send_sound(&self, packet: &Packet) -> Result<(), Failure> {
        self.files.iter().try_for_each(|file| file.send(Piece::Sound(packet.clone())))
    }

    /// Waits until all files are complete; in the order of the rungs.
    pub(crate) fn finish(mut self) -> Result<Vec<Written>, Failure> {
        let ends: Result<(), Failure> = self.files.iter().try_for_each(|file| file.send(Piece::End));
        let mut written = Vec::new();
        let mut failure = ends.err();
        for outcome in self.join() {
            match outcome {
                Ok(file) => written.extend(file),
                Err(reason) => failure = Some(reason),
            }
        }
        failure.map_or(Ok(written), Err)
    }

    /// Ends all threads without finishing the files. If one of them has failed, that is the reason why `failure` came up.
    pub(crate) fn abandon(mut self, failure: Failure) -> Failure {
        self.join().into_iter().find_map(Result::err).unwrap_or(failure)
    }

    fn join(&mut self) -> Vec<Result<Option<Written>, Failure>> {
        // All queues are closed before the first thread is waited for, so that none goes on for nothing.
        let threads: Vec<_> = self.files.drain(..).map(|file| file.thread).collect();
        let panicked = |_| Err(Failure::new(ErrorKind::Internal, "an encoder has panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    }
}

/// However a run fails, no thread outlives it: a thread owns a part, and the part must be gone before the process is.
impl Drop for Files {
    fn drop(&mut self) {
        self.join();
    }
}

impl FileThread {
    fn start(mut file: Mp4, mut encoder: Option<PictureEncoder>) -> Result<Self, Failure> {
        let (queue, pieces) = sync_channel(QUEUE);
        let thread = thread::Builder::new()
            .name("encode".to_owned())
            .spawn(move || match write_pieces(&mut file, encoder.as_mut(), &pieces)? {
                End::Complete => file.finish().map(|(part, length)| Some(Written { part, length })),
                End::Abandoned => Ok(None),
            })
            .map_err(|error| Failure::new(ErrorKind::Io, format!("cannot start a thread: {error}")))?;
        Ok(Self { queue, thread })
    }

    /// Waits while the queue is full. Fails when the thread has ended, which it does early only with a reason of its own.
    fn send(&self, piece: Piece) -> Result<(), Failure> {
        self.queue.send(piece).map_err(|_| Failure::new(ErrorKind::Internal, "an encoder has ended early"))
    }
}

enum End {
    Complete,
    Abandoned,
}

fn write_pieces(
    file: &mut Mp4,
    mut encoder: Option<&mut PictureEncoder>,
    pieces: &Receiver<Piece>,
) -> Result<End, Failure> {
    for piece in pieces {
        cancel::check()?;
        match piece {
            Piece::Sound(packet) => file.write_sound(packet)?,
            Piece::Picture(frame) => {
                let encoder = encoder.as_deref_mut().expect("pictures are only sent to files that have an encoder");
                encoder.encode(frame, |packet| file.write_picture(packet))?;
            }
            Piece::End => {
                if let Some(encoder) = encoder {
                    encoder.finish(|packet| file.write_picture(packet))?;
                }
                return Ok(End::Complete);
            }
        }
    }
    Ok(End::Abandoned)
}

/// x264.
pub(crate) struct PictureEncoder {
    encoder: encoder::video::Video,
    unit: Rational,
    rate: Rational,
    usual_duration: i64,
}

impl PictureEncoder {
    /// `rungs` encoders share the processors.
    fn open(
        stream: &PictureStream,
        size: Size,
        colours: Colours,
        settings: &VideoSettings,
        rungs: usize,
    ) -> Result<Self, Failure> {
        let failed = |error| Failure::internal("opening the H.264 encoder", error);
        let codec = encoder::find_by_name("libx264").ok_or_else(|| failed(Error::EncoderNotFound))?;
        // Made for this codec, or x264's own defaults would not apply.
        let mut encoder = codec::Context::new_with_codec(codec).encoder().video().map_err(failed)?;
        encoder.set_width(size.width);
        encoder.set_height(size.height);
        encoder.set_format(format::Pixel::YUV420P);
        encoder.set_aspect_ratio(Rational(1, 1));
        encoder.set_color_range(color::Range::MPEG);
        encoder.set_colorspace(colours.space);
        encoder.set_color_primaries(colours.primaries);
        encoder.set_color_transfer_characteristic(colours.transfer);
        encoder.set_time_base(stream.unit);
        encoder.set_frame_rate(Some(stream.rate));
        ffi::set_global_header(&mut encoder);
        let options = [
            ("preset", preset(settings.preset).to_owned()),
            ("crf", settings.crf.to_string()),
            ("profile", "high".to_owned()),
            ("threads", threads(rungs)),
        ];
        let options: Dictionary<'_> = options.iter().map(|(key, value)| (*key, value.as_str())).collect();
        if let Some(option) = ffi::open_encoder(&mut encoder, &codec, options).map_err(failed)? {
            return Err(Failure::new(
                ErrorKind::Internal,
                format!("the H.264 encoder does not know the option {option}"),
            ));
        }
        Ok(Self { encoder, unit: stream.unit, rate: stream.rate, usual_duration: stream.usual_duration() })
    }

    pub(crate) fn context(&self) -> &codec::Context {
        &self.encoder
    }

    pub(crate) fn unit(&self) -> Rational {
        self.unit
    }

    pub(crate) fn rate(&self) -> Rational {
        self.rate
    }

    fn encode(
        &mut self,
        mut frame: frame::Video,
        take: impl FnMut(Packet) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        // Decoded frames remember what kind they were in the source, and x264 would obey.
        frame.set_kind(picture::Type::None);
        self.encoder.send_frame(&frame).map_err(encoding)?;
        drop(frame);
        self.drain(take)
    }

    fn finish(&mut self, take: impl FnMut(Packet) -> Result<(), Failure>) -> Result<(), Failure> {
        self.encoder.send_eof().map_err(encoding)?;
        self.drain(take)
    }

    fn drain(&mut self, mut take: impl FnMut(Packet) -> Result<(), Failure>) -> Result<(), Failure> {
        loop {
            cancel::check()?;
            let mut packet = Packet::empty();
            match self.encoder.receive_packet(&mut packet) {
                Ok(()) => {
                    if packet.duration() == 0 {
                        // libx264 leaves it out; without it the last picture of a file has no length.
                        packet.set_duration(self.usual_duration);
                    }
                    take(packet)?;
                }
                Err(Error::Eof | Error::Other { errno: EAGAIN }) => return Ok(()),
                Err(error) => return Err(encoding(error)),
            }
        }
    }
}

fn encoding(error: Error) -> Failure {
    Failure::internal("encoding the pictures", error)
}

/// x264 takes half as many threads again as there are processors. On a large machine the rungs share that out; on a small
/// one they may overlap, because an encoder often waits.
fn threads(rungs: usize) -> String {
    match processors() {
        0..=4 => "auto".to_owned(),
        processors => (processors * 3 / 2 / rungs).max(2).to_string(),
    }
}

fn preset(preset: Preset) -> &'static str {
    match preset {
        Preset::Ultrafast => "ultrafast",
        Preset::Superfast => "superfast",
        Preset::Veryfast => "veryfast",
        Preset::Faster => "faster",
        Preset::Fast => "fast",
        Preset::Medium => "medium",
        Preset::Slow => "slow",
        Preset::Slower => "slower",
        Preset::Veryslow => "veryslow",
    }
}
