//! Opens the input and finds out what it is.
//!
//! Owns what may be opened at all (a local regular file of a known container with known codecs, inside the limits) and the
//! reading of packets. What is done with them is for `transcode` and `thumbnail`.

use std::io::ErrorKind as FileError;
use std::path::Path;
use std::time::Duration;

use ffmpeg::codec::packet::side_data;
use ffmpeg::format::context::Input;
use ffmpeg::format::stream::{Disposition, Stream};
use ffmpeg::{Dictionary, Packet, Rational, codec, decoder, media};
use ffmpeg_next as ffmpeg;

use crate::cancel;
use crate::failure::Failure;
use crate::ffi;
use crate::geometry::Size;
use crate::pictures::no_picture;
use crate::protocol::{ErrorKind, InputFacts};
use crate::request::Limits;
use crate::rotation::Rotation;
use crate::time::{self, MICROSECONDS, millis};

/// Containers that people upload. Left out on purpose: playlists and everything else that names other files, single images,
/// raw streams, and the exotic rest, whose demuxers see little testing.
const CONTAINERS: &str = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,asf,ogg,mp3,aac,wav,flac,amr,gif";

/// Decoders that may run, by libav's names, for the same reason.
const DECODERS: &str = "\
    h264,hevc,av1,libdav1d,libaom-av1,vp8,vp9,libvpx,libvpx-vp9,theora,mpeg1video,mpeg2video,mpeg4,msmpeg4v2,msmpeg4,h263,\
    flv,wmv1,wmv2,wmv3,vc1,mjpeg,prores,dnxhd,dvvideo,ffv1,rawvideo,gif,aac,mp3,mp3float,mp2,mp2float,ac3,eac3,opus,\
    libopus,vorbis,libvorbis,flac,alac,dca,amrnb,amrwb,libopencore_amrnb,libopencore_amrwb,wmav1,wmav2,wmapro,adpcm_ms,\
    adpcm_ima_wav,adpcm_ima_qt,pcm_u8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,\
    pcm_f64le,pcm_f64be,pcm_alaw,pcm_mulaw";

/// Streams of one file that are looked at. A real one has a handful.
const MAX_STREAMS: &str = "64";

/// Reads that may fail in a row before the rest of the file is given up as lost.
const MAX_BAD_READS: u32 = 1000;

/// What is known of an opened input.
pub(crate) struct Media {
    pub(crate) picture: Option<PictureStream>,
    pub(crate) sound: Option<SoundStream>,
    /// As the container states it; `None` where it states none or the number is only a guess.
    pub(crate) stated_duration: Option<Duration>,
    /// Microseconds; where the container's clock starts.
    pub(crate) start: i64,
}

/// The packets of an opened input.
pub(crate) struct Reader {
    input: Input,
    /// Damaged packets that were skipped so far.
    pub(crate) errors: u64,
}

pub(crate) struct PictureStream {
    pub(crate) index: usize,
    pub(crate) parameters: codec::Parameters,
    pub(crate) unit: Rational,
    pub(crate) rate: Rational,
    pub(crate) rotation: Rotation,
    pub(crate) pixel_aspect: Rational,
    pub(crate) interlaced: bool,
    pub(crate) stored: Size,
    /// As the stream itself states it.
    pub(crate) stated_duration: Option<Duration>,
}

pub(crate) struct SoundStream {
    pub(crate) index: usize,
    pub(crate) parameters: codec::Parameters,
    pub(crate) unit: Rational,
    /// As the stream itself states it.
    pub(crate) stated_duration: Option<Duration>,
}

/// Opens a file and looks at it; fails if it is not one that may be worked on.
pub(crate) fn open(path: &Path, limits: &Limits) -> Result<(Media, Reader), Failure> {
    check_file(path)?;
    let mut input = open_container(path)?;
    find_streams(&mut input, limits)?;
    let media = Media::look(&input)?;
    media.check_limits(limits)?;
    media.discard_the_rest(&mut input);
    Ok((media, Reader { input, errors: 0 }))
}

impl Media {
    fn look(input: &Input) -> Result<Self, Failure> {
        let guessed = ffi::duration_is_guessed(input);
        let picture =
            choose(input, media::Type::Video).map(|stream| picture_stream(input, &stream, guessed)).transpose()?;
        let sound = choose(input, media::Type::Audio).map(|stream| sound_stream(&stream, guessed));
        if picture.is_none() && sound.is_none() {
            return Err(Failure::new(ErrorKind::UnreadableInput, "the file holds neither pictures nor sound"));
        }
        Ok(Self {
            picture,
            sound,
            stated_duration: stated(input.duration(), MICROSECONDS, guessed),
            start: ffi::start_time(input).unwrap_or(0),
        })
    }

    pub(crate) fn facts(&self) -> InputFacts {
        let stored = self.picture.as_ref().map(|picture| picture.stored);
        let codec_name = |parameters: &codec::Parameters| parameters.id().name().to_owned();
        InputFacts {
            duration_ms: self.stated_duration.map(millis),
            width: stored.map(|size| size.width),
            height: stored.map(|size| size.height),
            rotation: self.picture.as_ref().map_or(0, |picture| picture.rotation.degrees()),
            video_codec: self.picture.as_ref().map(|picture| codec_name(&picture.parameters)),
            audio_codec: self.sound.as_ref().map(|sound| codec_name(&sound.parameters)),
        }
    }

    fn check_limits(&self, limits: &Limits) -> Result<(), Failure> {
        if let Some(picture) = &self.picture {
            limits.check_size(picture.stored)?;
        }
        self.stated_duration.map_or(Ok(()), |duration| limits.check_duration(duration))
    }

    fn discard_the_rest(&self, input: &mut Input) {
        let wanted = [self.picture.as_ref().map(|s| s.index), self.sound.as_ref().map(|s| s.index)];
        for index in 0..input.streams().len() {
            if !wanted.contains(&Some(index)) {
                ffi::discard_stream(input, index);
            }
        }
    }
}

impl Reader {
    /// The next packet of either chosen stream; `None` at the end, and where the rest of the file is beyond repair.
    pub(crate) fn next_packet(&mut self) -> Result<Option<Packet>, Failure> {
        for _ in 0..MAX_BAD_READS {
            cancel::check()?;
            let mut packet = Packet::empty();
            match packet.read(&mut self.input) {
                Ok(()) => return Ok(Some(packet)),
                Err(ffmpeg::Error::Exit) => return Err(Failure::cancelled()),
                Err(error) => {
                    // A disk that fails is the world's fault; everything else is the file's, and may be passed over.
                    if let Some(system) = ffi::read_error(&self.input) {
                        return Err(Failure::new(ErrorKind::Io, format!("reading the input failed: {system}")));
                    }
                    if error == ffmpeg::Error::Eof {
                        return Ok(None);
                    }
                    self.errors += 1;
                }
            }
        }
        Ok(None)
    }

    /// Continues at the last point at or before `time` from which decoding can start.
    pub(crate) fn seek(&mut self, time: Duration, media: &Media) -> Result<(), ffmpeg::Error> {
        let target = time::units(time, MICROSECONDS).saturating_add(media.start);
        // The wrapper hands the end of the range on as the latest time that will do, inclusive.
        self.input.seek(target, ..target)
    }
}

impl PictureStream {
    pub(crate) fn open_decoder(&self, limits: &Limits, threads: usize) -> Result<decoder::Video, Failure> {
        let mut context = codec::Context::from_parameters(self.parameters.clone())
            .map_err(|error| Failure::internal("preparing the decoder", error))?;
        let mut threading = codec::threading::Config::kind(codec::threading::Type::Frame);
        threading.count = threads;
        context.set_threading(threading);
        ffi::set_max_pixels(&mut context, limits.max_pixels_signed());
        let mut decoder = context.decoder();
        decoder.set_packet_time_base(self.unit);
        decoder
            .open_as(allowed_decoder(self.parameters.id()))
            .and_then(|opened| opened.video())
            .map_err(|error| cannot_decode("pictures", &self.parameters, error))
    }

    /// The size on a screen.
    pub(crate) fn shown(&self) -> Size {
        self.stored.shown(self.pixel_aspect, self.rotation.is_quarter_turn())
    }

    /// How long one picture usually lasts, in the stream's units.
    pub(crate) fn usual_duration(&self) -> i64 {
        let Rational(pictures, seconds) = self.rate;
        time::units(Duration::from_secs_f64(f64::from(seconds) / f64::from(pictures)), self.unit).max(1)
    }
}

impl SoundStream {
    pub(crate) fn open_decoder(&self) -> Result<decoder::Audio, Failure> {
        let mut decoder = codec::Context::from_parameters(self.parameters.clone())
            .map_err(|error| Failure::internal("preparing the decoder", error))?
            .decoder();
        decoder.set_packet_time_base(self.unit);
        decoder
            .open_as(allowed_decoder(self.parameters.id()))
            .and_then(|opened| opened.audio())
            .map_err(|error| cannot_decode("sound", &self.parameters, error))
    }
}

/// Only regular files: a pipe or a device could keep us waiting for ever.
fn check_file(path: &Path) -> Result<(), Failure> {
    let unreadable = |message: String| Failure::new(ErrorKind::UnreadableInput, message);
    let facts = std::fs::metadata(path).map_err(|error| match error.kind() {
        FileError::NotFound | FileError::NotADirectory => unreadable(format!("there is no file {}", path.display())),
        _ => Failure::io("read", path, error),
    })?;
    if !facts.is_file() {
        return Err(unreadable(format!("{} is not a regular file", path.display())));
    }
    if facts.len() == 0 {
        return Err(unreadable("the file is empty".to_owned()));
    }
    // Opened once by ourselves: here the system says in plain words what is wrong.
    std::fs::File::open(path).map(drop).map_err(|error| Failure::io("read", path, error))
}

fn open_container(path: &Path) -> Result<Input, Failure> {
    // The prefix keeps libav from taking a name such as `http:x` for an address.
    let url = format!("file:{}", path.display());
    let options = Dictionary::from_iter([
        ("protocol_whitelist", "file"),
        ("format_whitelist", CONTAINERS),
        ("codec_whitelist", DECODERS),
        ("max_streams", MAX_STREAMS),
    ]);
    let (input, leftover) = ffi::open_input(&url, options, cancel::interrupt).map_err(cannot_open)?;
    match leftover {
        None => Ok(input),
        // A guard that is not in force is no guard.
        Some(option) => Err(Failure::new(ErrorKind::Internal, format!("this libav does not know the option {option}"))),
    }
}

fn cannot_open(error: ffmpeg::Error) -> Failure {
    match error {
        // This is how libav says that the list of containers has no such entry.
        ffmpeg::Error::Other { errno: libc::EINVAL } => {
            Failure::new(ErrorKind::Unsupported, "the file is not a video or audio file of a kind that is taken")
        }
        error => Failure::input(
            ErrorKind::UnreadableInput,
            "the file cannot be read as video or sound: it is damaged, incomplete or something else",
            error,
        ),
    }
}

fn find_streams(input: &mut Input, limits: &Limits) -> Result<(), Failure> {
    let pixels = limits.max_pixels.to_string();
    ffi::find_streams(input, &[("max_pixels", &pixels)]).map_err(|error| {
        Failure::input(ErrorKind::UnreadableInput, "the file does not say clearly what is in it", error)
    })
}

/// The stream that a player would choose, or else the first that can be decoded. A cover picture is no video.
fn choose(input: &Input, kind: media::Type) -> Option<Stream<'_>> {
    let usable = |stream: &Stream<'_>| {
        stream.parameters().medium() == kind && !stream.disposition().contains(Disposition::ATTACHED_PIC)
    };
    let decodable = |stream: &Stream<'_>| usable(stream) && allowed_decoder(stream.parameters().id()).is_some();
    let best = input.streams().best(kind).filter(decodable);
    best.or_else(|| input.streams().find(decodable)).or_else(|| input.streams().find(usable))
}

fn picture_stream(input: &Input, stream: &Stream<'_>, guessed: bool) -> Result<PictureStream, Failure> {
    let parameters = stream.parameters().clone();
    let facts = ffi::picture_parameters(input, stream);
    let side = |pixels: i32| u32::try_from(pixels).ok().filter(|&pixels| pixels > 0);
    let (Some(width), Some(height)) = (side(facts.width), side(facts.height)) else {
        return Err(match allowed_decoder(parameters.id()) {
            None => cannot_decode("pictures", &parameters, ffmpeg::Error::DecoderNotFound),
            Some(_) => no_picture(),
        });
    };
    Ok(PictureStream {
        index: stream.index(),
        unit: stream.time_base(),
        rate: usual_rate(stream),
        rotation: rotation(stream),
        pixel_aspect: facts.pixel_aspect,
        interlaced: facts.interlaced,
        stored: Size { width, height },
        stated_duration: stated(stream.duration(), stream.time_base(), guessed),
        parameters,
    })
}

fn sound_stream(stream: &Stream<'_>, guessed: bool) -> SoundStream {
    SoundStream {
        index: stream.index(),
        unit: stream.time_base(),
        stated_duration: stated(stream.duration(), stream.time_base(), guessed),
        parameters: stream.parameters().clone(),
    }
}

/// libav says a negative number where the file says nothing.
fn stated(length: i64, unit: Rational, guessed: bool) -> Option<Duration> {
    (length > 0 && !guessed).then(|| time::duration(length, unit))
}

/// Pictures a second; only a hint for the encoder's rate control, so a senseless statement is replaced by a usual one.
fn usual_rate(stream: &Stream<'_>) -> Rational {
    let sensible = |rate: &Rational| rate.0 > 0 && rate.1 > 0 && (1.0..=300.0).contains(&f64::from(*rate));
    [stream.avg_frame_rate(), stream.rate()].into_iter().find(sensible).unwrap_or(Rational(25, 1))
}

fn rotation(stream: &Stream<'_>) -> Rotation {
    stream
        .side_data()
        .find(|data| data.kind() == side_data::Type::DisplayMatrix)
        .map_or(Rotation::Upright, |data| Rotation::from_matrix(data.data()))
}

fn allowed_decoder(id: codec::Id) -> Option<codec::codec::Codec> {
    decoder::find(id).filter(|decoder| DECODERS.split(',').any(|name| name == decoder.name()))
}

fn cannot_decode(what: &str, parameters: &codec::Parameters, error: ffmpeg::Error) -> Failure {
    let codec = parameters.id().name();
    Failure::input(ErrorKind::Unsupported, &format!("{what} coded as {codec} cannot be decoded here"), error)
}
