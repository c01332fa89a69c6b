//! Writes encoded packets into one MP4 file with its index in front, so that it plays while it loads.

use std::time::Duration;

use ffmpeg::format::context::Output;
use ffmpeg::{Dictionary, Packet, Rational, codec, format};
use ffmpeg_next as ffmpeg;

use crate::encode::PictureEncoder;
use crate::failure::Failure;
use crate::ffi;
use crate::output::Part;
use crate::protocol::ErrorKind;
use crate::time;

/// What the muxer must know of the sound; the packets themselves come later.
#[derive(Clone)]
pub(crate) struct SoundTrack {
    pub(crate) parameters: codec::Parameters,
    pub(crate) unit: Rational,
}

pub(crate) struct Mp4 {
    output: Output,
    part: Part,
    picture: Option<Track>,
    sound: Option<Track>,
}

/// One stream of the file: its index, the unit in which packets come, the unit that the muxer has chosen.
struct Track {
    index: usize,
    from: Rational,
    to: Rational,
    end: Duration,
}

impl Mp4 {
    pub(crate) fn create(
        part: Part,
        picture: Option<&PictureEncoder>,
        sound: Option<&SoundTrack>,
    ) -> Result<Self, Failure> {
        let failed = |error| Failure::output(part.path(), error);
        let url = format!("file:{}", part.path().display());
        let mut output = format::output_as(&url, "mp4").map_err(failed)?;
        let picture = picture.map(|encoder| add_picture(&mut output, encoder)).transpose().map_err(failed)?;
        let sound = sound.map(|track| add_sound(&mut output, track)).transpose().map_err(failed)?;
        let leftover = output.write_header_with(Dictionary::from_iter([("movflags", "+faststart")])).map_err(failed)?;
        if let Some((option, _)) = leftover.iter().next() {
            return Err(Failure::new(ErrorKind::Internal, format!("the MP4 muxer does not know the option {option}")));
        }
        drop(leftover);
        let mut file = Self { output, part, picture, sound };
        file.read_units_back();
        Ok(file)
    }

    /// In the encoder's unit.
    pub(crate) fn write_picture(&mut self, packet: Packet) -> Result<(), Failure> {
        write(&mut self.output, self.picture.as_mut(), &self.part, packet)
    }

    /// In the unit of the [`SoundTrack`].
    pub(crate) fn write_sound(&mut self, packet: Packet) -> Result<(), Failure> {
        write(&mut self.output, self.sound.as_mut(), &self.part, packet)
    }

    /// Writes the index and moves it to the front. Gives back the file and how long it plays.
    pub(crate) fn finish(mut self) -> Result<(Part, Duration), Failure> {
        self.output.write_trailer().map_err(|error| Failure::output(self.part.path(), error))?;
        let end = |track: &Option<Track>| track.as_ref().map_or(Duration::ZERO, |track| track.end);
        let length = end(&self.picture).max(end(&self.sound));
        Ok((self.part, length))
    }

    /// The header has fixed the units, and they need not be the ones that were asked for.
    fn read_units_back(&mut self) {
        for track in [&mut self.picture, &mut self.sound].into_iter().flatten() {
            let stream = self.output.stream(track.index).expect("the track was added to this file");
            track.to = stream.time_base();
        }
    }
}

fn add_picture(output: &mut Output, encoder: &PictureEncoder) -> Result<Track, ffmpeg::Error> {
    let mut stream = output.add_stream_with(encoder.context())?;
    stream.set_time_base(encoder.unit());
    stream.set_avg_frame_rate(encoder.rate());
    Ok(Track { index: stream.index(), from: encoder.unit(), to: encoder.unit(), end: Duration::ZERO })
}

fn add_sound(output: &mut Output, track: &SoundTrack) -> Result<Track, ffmpeg::Error> {
    let mut parameters = track.parameters.clone();
    ffi::clear_codec_tag(&mut parameters);
    let mut stream = output.add_stream(None::<codec::codec::Codec>)?;
    stream.set_parameters(parameters);
    stream.set_time_base(track.unit);
    Ok(Track { index: stream.index(), from: track.unit, to: track.unit, end: Duration::ZERO })
}

fn write(output: &mut Output, track: Option<&mut Track>, part: &Part, mut packet: Packet) -> Result<(), Failure> {
    let track = track.expect("packets are only made for tracks that the file has");
    if let Some(start) = packet.pts() {
        track.end = track.end.max(time::duration(start.saturating_add(packet.duration()), track.from));
    }
    packet.set_stream(track.index);
    packet.set_position(-1);
    packet.rescale_ts(track.from, track.to);
    packet.write_interleaved(output).map_err(|error| Failure::output(part.path(), error))
}
