//! The filters between decoder and encoders: deinterlace, turn upright, and one scaled copy for each rung; for sound, resample.
//!
//! A graph is made for one shape of frames. When the stream changes its shape, a new graph with the same outputs takes over.

use ffmpeg::format::Pixel;
use ffmpeg::util::error::EAGAIN;
use ffmpeg::{ChannelLayout, Error, Rational, Rescale, filter, frame};
use ffmpeg_next as ffmpeg;

use crate::colours::Colours;
use crate::failure::Failure;
use crate::ffi;
use crate::geometry::Size;
use crate::rotation::Rotation;

/// What the filters are configured for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shape {
    size: Size,
    format: Pixel,
    pixel_aspect: Rational,
    colours: Colours,
    /// Sticky: once a stream has shown an interlaced picture, the filter stays; it lets progressive ones through.
    interlaced: bool,
}

impl Shape {
    pub(crate) fn of(frame: &frame::Video, pixel_aspect: Rational, interlaced_before: bool) -> Self {
        Self {
            size: Size { width: frame.width(), height: frame.height() },
            format: frame.format(),
            pixel_aspect,
            colours: Colours::of_frame(frame),
            interlaced: interlaced_before || frame.is_interlaced(),
        }
    }

    pub(crate) fn size(&self) -> Size {
        self.size
    }

    pub(crate) fn is_interlaced(&self) -> bool {
        self.interlaced
    }
}

/// Which pixels come out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pixels {
    /// Studio range 4:2:0, what H.264 players expect; also for clips of phones that record in full range.
    Video,
    /// Full range by the matrix of old television, which is what every reader of a JPEG assumes.
    Jpeg,
}

impl Pixels {
    fn filters(self) -> &'static str {
        match self {
            Self::Video => "out_range=tv,format=yuv420p",
            Self::Jpeg => "out_range=pc:out_color_matrix=bt601,format=yuvj420p",
        }
    }
}

/// Takes decoded pictures in, gives a scaled copy out for each of `sizes`.
pub(crate) struct PictureGraph {
    // The graph owns the filters that the other two point to.
    _graph: filter::Graph,
    source: filter::Context,
    sinks: Vec<filter::Context>,
}

impl PictureGraph {
    /// `unit` is that of the frames' times, coming in and going out.
    pub(crate) fn new(
        shape: Shape,
        unit: Rational,
        rotation: Rotation,
        sizes: &[Size],
        pixels: Pixels,
        threads: usize,
    ) -> Result<Self, Failure> {
        Self::build(shape, unit, &picture_filters(shape, rotation, sizes, pixels), sizes.len(), threads)
            .map_err(|error| Failure::internal("preparing the filters for pictures", error))
    }

    fn build(shape: Shape, unit: Rational, filters: &str, outputs: usize, threads: usize) -> Result<Self, Error> {
        let mut graph = filter::Graph::new();
        ffi::set_graph_threads(&mut graph, i32::try_from(threads).unwrap_or(1));
        let Rational(across, down) = shape.pixel_aspect;
        let arguments = format!(
            "video_size={}x{}:pix_fmt={}:time_base={}/{}:pixel_aspect={across}/{}",
            shape.size.width,
            shape.size.height,
            shape.format.descriptor().ok_or(Error::InvalidData)?.name(),
            unit.0,
            unit.1,
            down.max(1),
        );
        let source = graph.add(&find("buffer")?, "in", &arguments)?;
        let names: Vec<String> = (0..outputs).map(|index| format!("out{index}")).collect();
        let mut sinks = Vec::new();
        for name in &names {
            sinks.push(graph.add(&find("buffersink")?, name, "")?);
        }
        // The names are the graph's own view: what it puts out is the source's, what it takes in is a sink's.
        let mut parser = graph.output("in", 0)?;
        for name in &names {
            parser = parser.input(name, 0)?;
        }
        parser.parse(filters)?;
        graph.validate()?;
        Ok(Self { _graph: graph, source, sinks })
    }

    /// The frame stays the caller's.
    pub(crate) fn push(&mut self, frame: &frame::Video) -> Result<(), Failure> {
        ffi::push_frame(&mut self.source, frame).map_err(filtering)
    }

    /// No more frames will come; what the filters hold back can be pulled.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        self.source.source().flush().map_err(filtering)
    }

    /// Hands over what is ready. Goes round the outputs, one frame each: emptying one of them first would heap up the others'.
    pub(crate) fn pull(
        &mut self,
        unit: Rational,
        mut take: impl FnMut(usize, frame::Video) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            let mut idle = true;
            for (index, sink) in self.sinks.iter_mut().enumerate() {
                if let Some(frame) = next_picture(sink, unit)? {
                    idle = false;
                    take(index, frame)?;
                }
            }
            if idle {
                return Ok(());
            }
        }
    }
}

/// Takes decoded sound in, gives frames out that the AAC encoder takes.
pub(crate) struct SoundGraph {
    _graph: filter::Graph,
    source: filter::Context,
    sink: filter::Context,
}

impl SoundGraph {
    pub(crate) fn new(
        frame: &frame::Audio,
        unit: Rational,
        rate: u32,
        channels: i32,
        samples: u32,
    ) -> Result<Self, Failure> {
        Self::build(frame, unit, rate, channels, samples)
            .map_err(|error| Failure::internal("preparing the filters for sound", error))
    }

    fn build(frame: &frame::Audio, unit: Rational, rate: u32, channels: i32, samples: u32) -> Result<Self, Error> {
        let mut graph = filter::Graph::new();
        let arguments = format!(
            "time_base={}/{}:sample_rate={}:sample_fmt={}:channel_layout={:#x}",
            unit.0,
            unit.1,
            frame.rate(),
            frame.format().name(),
            layout(frame),
        );
        let source = graph.add(&find("abuffer")?, "in", &arguments)?;
        let sink = graph.add(&find("abuffersink")?, "out", "")?;
        let speakers = if channels == 1 { "mono" } else { "stereo" };
        // `async` fills gaps with silence and cuts overlaps, so that sound and pictures stay together after lost packets.
        let filters = format!(
            "aresample={rate}:async=1,aformat=sample_fmts=fltp:sample_rates={rate}:channel_layouts={speakers},asettb=1/{rate}"
        );
        graph.output("in", 0)?.input("out", 0)?.parse(&filters)?;
        graph.validate()?;
        let mut graph = Self { _graph: graph, source, sink };
        graph.sink.sink().set_frame_size(samples);
        Ok(graph)
    }

    pub(crate) fn push(&mut self, frame: &frame::Audio) -> Result<(), Failure> {
        ffi::push_frame(&mut self.source, frame).map_err(filtering)
    }

    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        self.source.source().flush().map_err(filtering)
    }

    pub(crate) fn pull(&mut self) -> Result<Option<frame::Audio>, Failure> {
        let mut frame = frame::Audio::empty();
        Ok(next_frame(&mut self.sink, &mut frame)?.then_some(frame))
    }
}

/// The whole graph as libav's text, for example
/// `[in]yadif=deint=interlaced,split=2[a0][a1];[a0]scale=…[out0];[a1]scale=…[out1]`.
fn picture_filters(shape: Shape, rotation: Rotation, sizes: &[Size], pixels: Pixels) -> String {
    let deinterlace = if shape.interlaced { "yadif=deint=interlaced," } else { "" };
    let branches: String = (0..sizes.len()).map(|index| format!("[a{index}]")).collect();
    let mut filters = format!("[in]{deinterlace}{}split={}{branches}", rotation.filters(), sizes.len());
    let tone_mapping = shape.colours.tone_mapping();
    for (index, Size { width, height }) in sizes.iter().enumerate() {
        // Never `fast_bilinear`: it writes machine code at run time, which hardened services forbid.
        let scale = format!("scale={width}:{height}:flags=bicubic");
        filters += &match &tone_mapping {
            // Scaled first: mapping is by far the dearest step, and the fewer pixels the better.
            Some(mapping) => format!(";[a{index}]{scale},{mapping}scale={},setsar=1[out{index}]", pixels.filters()),
            None => format!(";[a{index}]{scale}:{},setsar=1[out{index}]", pixels.filters()),
        };
    }
    filters
}

fn next_picture(sink: &mut filter::Context, unit: Rational) -> Result<Option<frame::Video>, Failure> {
    let mut frame = frame::Video::empty();
    if !next_frame(sink, &mut frame)? {
        return Ok(None);
    }
    // The deinterlacer halves the unit of time, so the times are put back into the one that everyone else uses.
    let from = sink.sink().time_base();
    let time = frame.pts().map(|time| time.rescale(from, unit));
    frame.set_pts(time);
    Ok(Some(frame))
}

/// False where nothing is ready, now or for ever.
fn next_frame(sink: &mut filter::Context, frame: &mut frame::Frame) -> Result<bool, Failure> {
    match sink.sink().frame(frame) {
        Ok(()) => Ok(true),
        Err(Error::Eof | Error::Other { errno: EAGAIN }) => Ok(false),
        Err(error) => Err(filtering(error)),
    }
}

/// The speakers as a bit mask; where the stream names none, the usual ones for their number.
fn layout(frame: &frame::Audio) -> u64 {
    match frame.channel_layout().bits() {
        0 => ChannelLayout::default(frame.channels().into()).bits(),
        bits => bits,
    }
}

fn find(name: &str) -> Result<filter::Filter, Error> {
    filter::find(name).ok_or(Error::FilterNotFound)
}

fn filtering(error: Error) -> Failure {
    Failure::internal("filtering", error)
}
