//! The pictures of a run: decoded once, put on the clock of the outputs, and scaled for every rung.

use std::time::Duration;

use ffmpeg::util::error::EAGAIN;
use ffmpeg::{Error, Packet, decoder, frame};
use ffmpeg_next as ffmpeg;

use crate::colours::Colours;
use crate::failure::Failure;
use crate::geometry::Size;
use crate::graph::{PictureGraph, Pixels, Shape};
use crate::probe::PictureStream;
use crate::protocol::ErrorKind;
use crate::request::{Job, Limits};
use crate::time::Clock;

/// Decodes one stream of pictures.
pub(crate) struct Decoding {
    decoder: decoder::Video,
    clock: Clock,
    usual_duration: i64,
    /// Pictures that were decoded.
    decoded: u64,
    /// Those among them that could be placed on the clock.
    placed: u64,
    /// Damaged packets and pictures.
    pub(crate) errors: u64,
}

impl Decoding {
    /// `start` in microseconds: where the container's clock starts.
    pub(crate) fn open(stream: &PictureStream, start: i64, job: &Job) -> Result<Self, Failure> {
        Ok(Self {
            decoder: stream.open_decoder(&job.limits, job.decoder_threads)?,
            clock: Clock::new(stream.unit, start),
            usual_duration: stream.usual_duration(),
            decoded: 0,
            placed: 0,
            errors: 0,
        })
    }

    /// How the outputs are to be labelled.
    pub(crate) fn output_colours(&self) -> Colours {
        Colours::of_stream(&self.decoder).of_output()
    }

    /// One packet in; every picture that comes out of it has a time that is later than the one before.
    pub(crate) fn take(
        &mut self,
        packet: &Packet,
        give: impl FnMut(frame::Video) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if self.decoder.send_packet(packet).is_err() {
            self.errors += 1;
        }
        self.drain(give)
    }

    pub(crate) fn finish(&mut self, give: impl FnMut(frame::Video) -> Result<(), Failure>) -> Result<(), Failure> {
        self.decoder.send_eof().map_err(|error| Failure::internal("decoding the pictures", error))?;
        self.drain(give)
    }

    /// Fails where the input has no pictures to speak of.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), Failure> {
        match self.decoded {
            0 => Err(no_picture()),
            decoded => limits.check_order(decoded, self.placed),
        }
    }

    /// How far the pictures have come.
    pub(crate) fn reached(&self) -> Duration {
        self.clock.reached()
    }

    fn drain(&mut self, mut give: impl FnMut(frame::Video) -> Result<(), Failure>) -> Result<(), Failure> {
        loop {
            let mut frame = frame::Video::empty();
            match self.decoder.receive_frame(&mut frame) {
                Ok(()) => {
                    if let Some(frame) = self.place(frame) {
                        give(frame)?;
                    }
                }
                Err(Error::Eof | Error::Other { errno: EAGAIN }) => return Ok(()),
                Err(error @ Error::Other { errno: libc::ENOMEM }) => {
                    return Err(Failure::internal("decoding the pictures", error));
                }
                Err(_) => self.errors += 1,
            }
        }
    }

    /// Decoders patch damaged pictures up and say so only in passing: those count as errors too.
    fn place(&mut self, mut frame: frame::Video) -> Option<frame::Video> {
        self.decoded += 1;
        if frame.has_decode_errors() || frame.is_corrupt() {
            self.errors += 1;
        }
        let duration = match frame.packet().duration {
            stated @ 1.. => stated,
            _ => self.usual_duration,
        };
        let time = self.clock.place_growing(frame.timestamp(), duration)?;
        self.placed += 1;
        frame.set_pts(Some(time));
        Some(frame)
    }
}

pub(crate) fn no_picture() -> Failure {
    Failure::new(ErrorKind::UnreadableInput, "not one of the file's pictures can be decoded")
}

/// Scales decoded pictures for all rungs, through as many graphs as the stream has shapes.
pub(crate) struct Scaling<'a> {
    stream: &'a PictureStream,
    limits: &'a Limits,
    sizes: Vec<Size>,
    threads: usize,
    graph: Option<(Shape, PictureGraph)>,
}

impl<'a> Scaling<'a> {
    pub(crate) fn new(stream: &'a PictureStream, job: &'a Job, sizes: Vec<Size>) -> Self {
        Self { stream, limits: &job.limits, sizes, threads: job.decoder_threads, graph: None }
    }

    pub(crate) fn take(
        &mut self,
        frame: &frame::Video,
        mut give: impl FnMut(usize, frame::Video) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let interlaced = self.graph.as_ref().map_or(self.stream.interlaced, |(shape, _)| shape.is_interlaced());
        let shape = Shape::of(frame, self.stream.pixel_aspect, interlaced);
        if self.graph.as_ref().is_none_or(|(old, _)| *old != shape) {
            self.limits.check_size(shape.size())?;
            self.finish(&mut give)?;
            let Self { stream, sizes, threads, .. } = self;
            let graph = PictureGraph::new(shape, stream.unit, stream.rotation, sizes, Pixels::Video, *threads)?;
            self.graph = Some((shape, graph));
        }
        let (_, graph) = self.graph.as_mut().expect("made above");
        graph.push(frame)?;
        graph.pull(self.stream.unit, give)
    }

    pub(crate) fn finish(
        &mut self,
        give: impl FnMut(usize, frame::Video) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match &mut self.graph {
            None => Ok(()),
            Some((_, graph)) => {
                graph.finish()?;
                graph.pull(self.stream.unit, give)
            }
        }
    }
}
