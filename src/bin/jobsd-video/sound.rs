//! The sound of a run: copied where it already is what we would make, otherwise decoded, resampled and encoded, once for all
//! files. Either way only what could be decoded gets through.

use std::time::Duration;

use ffmpeg::util::error::EAGAIN;
use ffmpeg::{Dictionary, Error, Packet, Rational, Rescale, codec, decoder, encoder, format, frame};
use ffmpeg_next as ffmpeg;

use crate::failure::Failure;
use crate::ffi;
use crate::graph::SoundGraph;
use crate::mux::SoundTrack;
use crate::probe::SoundStream;
use crate::protocol::{AudioSettings, ErrorKind};
use crate::time::Clock;

/// Rates of AAC that players are sure to play; anything else is resampled to 48 kHz.
const RATES: &[u32] = &[16_000, 22_050, 24_000, 32_000, 44_100, 48_000];

pub(crate) struct Sound {
    /// Of the stream in the input.
    pub(crate) index: usize,
    clock: Clock,
    path: Path,
    /// Damaged packets that were left out.
    pub(crate) errors: u64,
}

enum Path {
    Copy(Copying),
    Encode(Box<Encoding>),
}

struct Copying {
    track: SoundTrack,
    /// What is copied is decoded all the same, for a hundredth of the work: nobody shall hear the noise of a damaged packet.
    decoder: decoder::Audio,
}

struct Encoding {
    decoder: decoder::Audio,
    /// Made for the shape of the frames that come, and made again when that changes.
    graph: Option<(Shape, SoundGraph)>,
    encoder: encoder::audio::Encoder,
    rate: u32,
    channels: i32,
    /// Where the sound that was encoded so far ends, in the encoder's unit; `None` before the first.
    end: Option<i64>,
}

#[derive(PartialEq)]
struct Shape {
    rate: u32,
    format: format::Sample,
    channels: u16,
    layout: u64,
}

impl Sound {
    pub(crate) fn open(stream: &SoundStream, start: i64, settings: &AudioSettings) -> Result<Self, Failure> {
        let facts = ffi::sound_parameters(&stream.parameters);
        if facts.channels < 1 || facts.sample_rate < 1 {
            return Err(Failure::new(ErrorKind::UnreadableInput, "the file does not say how its sound is stored"));
        }
        let path = match facts.low_complexity_aac && facts.channels <= 2 {
            true => Path::Copy(Copying {
                track: SoundTrack { parameters: stream.parameters.clone(), unit: stream.unit },
                decoder: stream.open_decoder()?,
            }),
            false => Path::Encode(Box::new(Encoding::open(stream, facts, settings)?)),
        };
        Ok(Self { index: stream.index, clock: Clock::new(stream.unit, start), path, errors: 0 })
    }

    /// What the files must know before the first packet.
    pub(crate) fn track(&self) -> SoundTrack {
        match &self.path {
            Path::Copy(copying) => copying.track.clone(),
            Path::Encode(encoding) => {
                SoundTrack { parameters: codec::Parameters::from(&encoding.encoder), unit: encoding.unit() }
            }
        }
    }

    /// One packet of the input in, any number for the files out.
    pub(crate) fn take(
        &mut self,
        packet: Packet,
        mut give: impl FnMut(Packet) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match &mut self.path {
            Path::Copy(copying) => match copying.take(&mut self.clock, packet) {
                Some(packet) => give(packet),
                None => {
                    self.errors += 1;
                    Ok(())
                }
            },
            Path::Encode(encoding) => {
                if encoding.decoder.send_packet(&packet).is_err() {
                    self.errors += 1;
                }
                encoding.drain_decoder(&mut self.clock, &mut self.errors, &mut give)
            }
        }
    }

    pub(crate) fn finish(&mut self, mut give: impl FnMut(Packet) -> Result<(), Failure>) -> Result<(), Failure> {
        match &mut self.path {
            Path::Copy(_) => Ok(()),
            Path::Encode(encoding) => {
                encoding.decoder.send_eof().map_err(|error| Failure::internal("decoding the sound", error))?;
                encoding.drain_decoder(&mut self.clock, &mut self.errors, &mut give)?;
                encoding.finish_graph(&mut give)?;
                encoding.encoder.send_eof().map_err(encoding_failed)?;
                encoding.drain_encoder(&mut give)
            }
        }
    }

    /// How far the sound has come.
    pub(crate) fn reached(&self) -> Duration {
        self.clock.reached()
    }
}

impl Copying {
    /// The packet on the clock of the outputs; `None` if it is damaged or out of order.
    fn take(&mut self, clock: &mut Clock, mut packet: Packet) -> Option<Packet> {
        if packet.is_corrupt() || !self.decodes(&packet) {
            return None;
        }
        let lag = packet.pts().zip(packet.dts()).map_or(0, |(pts, dts)| pts.saturating_sub(dts));
        let dts = clock.place_growing(packet.dts().or(packet.pts()), packet.duration())?;
        packet.set_dts(Some(dts));
        packet.set_pts(Some(dts.saturating_add(lag)));
        Some(packet)
    }

    fn decodes(&mut self, packet: &Packet) -> bool {
        let mut whole = packet.size() > 0 && self.decoder.send_packet(packet).is_ok();
        let mut frame = frame::Audio::empty();
        loop {
            match self.decoder.receive_frame(&mut frame) {
                Ok(()) => {}
                Err(Error::Eof | Error::Other { errno: EAGAIN }) => return whole,
                Err(_) => whole = false,
            }
        }
    }
}

impl Encoding {
    fn open(stream: &SoundStream, facts: ffi::SoundParameters, settings: &AudioSettings) -> Result<Self, Failure> {
        let decoder = stream.open_decoder()?;
        let channels = facts.channels.min(2);
        let rate = u32::try_from(facts.sample_rate).ok().filter(|rate| RATES.contains(rate)).unwrap_or(48_000);
        let codec = encoder::find(codec::Id::AAC).ok_or_else(|| encoding_failed(Error::EncoderNotFound))?;
        let mut encoder = codec::Context::new_with_codec(codec).encoder().audio().map_err(encoding_failed)?;
        encoder.set_rate(i32::try_from(rate).expect("48000 at most"));
        encoder.set_format(format::Sample::F32(format::sample::Type::Planar));
        encoder.set_bit_rate(usize::try_from(settings.bit_rate).expect("checked to be small") * channels as usize / 2);
        encoder.set_time_base(Rational(1, i32::try_from(rate).expect("48000 at most")));
        ffi::set_channels(&mut encoder, channels);
        ffi::set_global_header(&mut encoder);
        ffi::open_encoder(&mut encoder, &codec, Dictionary::new()).map_err(encoding_failed)?;
        Ok(Self { decoder, graph: None, encoder: encoder::audio::Encoder(encoder), rate, channels, end: None })
    }

    fn unit(&self) -> Rational {
        Rational(1, i32::try_from(self.rate).expect("48000 at most"))
    }

    fn drain_decoder(
        &mut self,
        clock: &mut Clock,
        errors: &mut u64,
        give: &mut impl FnMut(Packet) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            let mut frame = frame::Audio::empty();
            match self.decoder.receive_frame(&mut frame) {
                Ok(()) => self.filter(frame, clock, give)?,
                Err(Error::Eof | Error::Other { errno: EAGAIN }) => return Ok(()),
                Err(_) => *errors += 1,
            }
        }
    }

    fn filter(
        &mut self,
        mut frame: frame::Audio,
        clock: &mut Clock,
        give: &mut impl FnMut(Packet) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let rate = i32::try_from(frame.rate().max(1)).unwrap_or(i32::MAX);
        let length = (frame.samples() as i64).rescale(Rational(1, rate), clock.unit);
        let time = clock.place(frame.timestamp(), length);
        frame.set_pts(Some(time));
        let shape = Shape::of(&frame);
        if self.graph.as_ref().is_none_or(|(old, _)| *old != shape) {
            self.finish_graph(give)?;
            let samples = self.encoder.frame_size();
            self.graph = Some((shape, SoundGraph::new(&frame, clock.unit, self.rate, self.channels, samples)?));
        }
        let (_, graph) = self.graph.as_mut().expect("made above");
        graph.push(&frame)?;
        self.encode(give)
    }

    fn finish_graph(&mut self, give: &mut impl FnMut(Packet) -> Result<(), Failure>) -> Result<(), Failure> {
        match &mut self.graph {
            None => Ok(()),
            Some((_, graph)) => {
                graph.finish()?;
                self.encode(give)
            }
        }
    }

    fn encode(&mut self, give: &mut impl FnMut(Packet) -> Result<(), Failure>) -> Result<(), Failure> {
        while let Some((_, graph)) = &mut self.graph
            && let Some(frame) = graph.pull()?
        {
            // A graph keeps its own times in order, but after a change of shape the next one may start too early.
            let start = frame.pts().or(self.end).unwrap_or(0);
            if self.end.is_some_and(|end| start < end) {
                continue;
            }
            self.end = Some(start + frame.samples() as i64);
            self.encoder.send_frame(&frame).map_err(encoding_failed)?;
            self.drain_encoder(give)?;
        }
        Ok(())
    }

    fn drain_encoder(&mut self, give: &mut impl FnMut(Packet) -> Result<(), Failure>) -> Result<(), Failure> {
        loop {
            let mut packet = Packet::empty();
            match self.encoder.receive_packet(&mut packet) {
                Ok(()) => give(packet)?,
                Err(Error::Eof | Error::Other { errno: EAGAIN }) => return Ok(()),
                Err(error) => return Err(encoding_failed(error)),
            }
        }
    }
}

impl Shape {
    fn of(frame: &frame::Audio) -> Self {
        Self {
            rate: frame.rate(),
            format: frame.format(),
            channels: frame.channels(),
            layout: frame.channel_layout().bits(),
        }
    }
}

fn encoding_failed(error: Error) -> Failure {
    Failure::internal("encoding the sound", error)
}
