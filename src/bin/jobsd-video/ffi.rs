//! Every unsafe line of this executable, each with the reason why it is sound.
//!
//! Owns the few calls and fields of libav and libc that the safe wrappers do not reach. No decision is taken here.

use std::ffi::{CString, c_int, c_void};
use std::io;
use std::ptr;

use ffmpeg::codec;
use ffmpeg::ffi as sys;
use ffmpeg::format::context::Input;
use ffmpeg::format::stream::Stream;
use ffmpeg::{Dictionary, Error, Rational, filter, frame};
use ffmpeg_next as ffmpeg;

/// Makes descriptor 1 another name of stderr, so that no library can write between our lines.
pub(crate) fn redirect_stdout_to_stderr() -> io::Result<()> {
    // SAFETY: dup2 takes two integers and touches no memory.
    match unsafe { libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Calls `handler` for `signal`; system calls in progress are resumed. The handler may do only what is safe in a signal handler.
pub(crate) fn on_signal(signal: c_int, handler: extern "C" fn(c_int)) -> io::Result<()> {
    // SAFETY: all zeros is a valid sigaction: no flags, an empty mask, the default handler, which is replaced below.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is complete and lives during the call; the old action is not asked for.
    match unsafe { libc::sigaction(signal, &action, ptr::null_mut()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Opens a container without looking for streams yet. Gives back the name of an option that nothing took: the wrapper drops
/// such without a word.
pub(crate) fn open_input(
    url: &str,
    options: Dictionary<'_>,
    interrupt: extern "C" fn(*mut c_void) -> c_int,
) -> Result<(Input, Option<String>), Error> {
    let url = CString::new(url).map_err(|_| Error::InvalidData)?;
    // SAFETY: plain allocation; null is checked.
    let mut context = unsafe { sys::avformat_alloc_context() };
    if context.is_null() {
        return Err(Error::Other { errno: libc::ENOMEM });
    }
    // SAFETY: `context` is valid and ours. The callback is a plain function that lives for ever and ignores its argument.
    unsafe {
        (*context).interrupt_callback = sys::AVIOInterruptCB { callback: Some(interrupt), opaque: ptr::null_mut() }
    };
    // SAFETY: the dictionary's ownership goes to `raw` and comes back below, whatever the call makes of it.
    let mut raw = unsafe { options.disown() };
    // SAFETY: all pointers are valid for the call; on failure the function frees the context and nulls the pointer.
    let code = unsafe { sys::avformat_open_input(&mut context, url.as_ptr(), ptr::null(), &mut raw) };
    let leftover = first_key(raw);
    match code {
        // SAFETY: an opened input context, which the wrapper closes when dropped.
        0 => Ok((unsafe { Input::wrap(context) }, leftover)),
        code => Err(Error::from(code)),
    }
}

/// Reads as much as it takes to know the streams. `decoder_options` apply to every decoder that is opened for that.
pub(crate) fn find_streams(input: &mut Input, decoder_options: &[(&str, &str)]) -> Result<(), Error> {
    let mut options: Vec<*mut sys::AVDictionary> = input
        .streams()
        .map(|_| {
            // SAFETY: the ownership is taken back by `first_key` below.
            unsafe { decoder_options.iter().copied().collect::<Dictionary<'_>>().disown() }
        })
        .collect();
    // SAFETY: the context is open and `options` has one dictionary for each of its streams, as the function demands.
    let code = unsafe { sys::avformat_find_stream_info(input.as_mut_ptr(), options.as_mut_ptr()) };
    for dictionary in options {
        // The decoders of sound do not know the options of pictures, so what is left over means nothing here.
        drop(first_key(dictionary));
    }
    match code {
        0.. => Ok(()),
        code => Err(Error::from(code)),
    }
}

/// Takes the dictionary over, frees it, and names its first entry if it has one.
fn first_key(dictionary: *mut sys::AVDictionary) -> Option<String> {
    // SAFETY: the callers own the dictionary (null is an empty one) and do not use it afterwards.
    let dictionary = unsafe { Dictionary::own(dictionary) };
    dictionary.iter().next().map(|(key, _)| key.to_owned())
}

/// The time at which the container starts, in microseconds.
pub(crate) fn start_time(input: &Input) -> Option<i64> {
    // SAFETY: reading a plain field of an open context.
    let start = unsafe { (*input.as_ptr()).start_time };
    (start != sys::AV_NOPTS_VALUE).then_some(start)
}

/// The duration is only a guess made from file size and bit rate.
pub(crate) fn duration_is_guessed(input: &Input) -> bool {
    // SAFETY: reading a plain field of an open context, whose values libav sets itself.
    let method = unsafe { (*input.as_ptr()).duration_estimation_method };
    method == sys::AVDurationEstimationMethod::AVFMT_DURATION_FROM_BITRATE
}

/// What the system said when reading the file last failed, if it did. The end of the file is no failure.
pub(crate) fn read_error(input: &Input) -> Option<Error> {
    // SAFETY: `pb` belongs to the open context; null is checked before it is looked into.
    let code = unsafe { (*input.as_ptr()).pb.as_ref().map_or(0, |io| io.error) };
    (code != 0 && code != sys::AVERROR_EOF).then(|| Error::from(code))
}

/// Packets of this stream are not even assembled.
pub(crate) fn discard_stream(input: &mut Input, index: usize) {
    if let Some(mut stream) = input.stream_mut(index) {
        // SAFETY: setting a plain field that is the caller's to set.
        unsafe { (*stream.as_mut_ptr()).discard = sys::AVDiscard::AVDISCARD_ALL };
    }
}

/// The shape of a stream of pictures as the container and a first look into it describe it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PictureParameters {
    pub(crate) width: i32,
    pub(crate) height: i32,
    pub(crate) pixel_aspect: Rational,
    pub(crate) interlaced: bool,
}

pub(crate) fn picture_parameters(input: &Input, stream: &Stream<'_>) -> PictureParameters {
    // SAFETY: stream and parameters live as long as the open context; the function only reads the three of them.
    unsafe {
        let parameters = &*(*stream.as_ptr()).codecpar;
        let aspect =
            sys::av_guess_sample_aspect_ratio(input.as_ptr().cast_mut(), stream.as_ptr().cast_mut(), ptr::null_mut());
        PictureParameters {
            width: parameters.width,
            height: parameters.height,
            pixel_aspect: aspect.into(),
            interlaced: !matches!(
                parameters.field_order,
                sys::AVFieldOrder::AV_FIELD_UNKNOWN | sys::AVFieldOrder::AV_FIELD_PROGRESSIVE
            ),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct SoundParameters {
    pub(crate) channels: i32,
    pub(crate) sample_rate: i32,
    pub(crate) low_complexity_aac: bool,
}

pub(crate) fn sound_parameters(parameters: &codec::Parameters) -> SoundParameters {
    // SAFETY: the wrapper keeps the parameters alive; plain fields are read.
    let raw = unsafe { &*parameters.as_ptr() };
    SoundParameters {
        channels: raw.ch_layout.nb_channels,
        sample_rate: raw.sample_rate,
        low_complexity_aac: codec::Profile::from((parameters.id(), raw.profile))
            == codec::Profile::AAC(codec::profile::AAC::Low),
    }
}

/// The tag of the old container means nothing in the new one; zero lets the muxer choose.
pub(crate) fn clear_codec_tag(parameters: &mut codec::Parameters) {
    // SAFETY: the caller holds the only reference to these parameters.
    unsafe { (*parameters.as_mut_ptr()).codec_tag = 0 };
}

/// Larger pictures make decoding fail instead of taking the memory.
pub(crate) fn set_max_pixels(context: &mut codec::Context, pixels: i64) {
    // SAFETY: a plain field, set before the decoder is opened.
    unsafe { (*context.as_mut_ptr()).max_pixels = pixels };
}

/// The encoder puts its headers beside the packets, as MP4 wants it. Other flags stay.
pub(crate) fn set_global_header(context: &mut codec::Context) {
    // SAFETY: a plain field, set before the encoder is opened.
    unsafe { (*context.as_mut_ptr()).flags |= sys::AV_CODEC_FLAG_GLOBAL_HEADER as c_int };
}

/// Constant quality in the encoder's own scale, 1 (best) to 31.
pub(crate) fn set_quality_scale(context: &mut codec::Context, quality: c_int) {
    // SAFETY: plain fields, set before the encoder is opened.
    unsafe {
        (*context.as_mut_ptr()).flags |= sys::AV_CODEC_FLAG_QSCALE as c_int;
        (*context.as_mut_ptr()).global_quality = quality * sys::FF_QP2LAMBDA;
    }
}

/// Mono or stereo, by the only field that all versions since 5.1 share.
pub(crate) fn set_channels(context: &mut codec::Context, channels: c_int) {
    // SAFETY: the layout of a fresh context is empty, so overwriting it loses nothing.
    unsafe { sys::av_channel_layout_default(&mut (*context.as_mut_ptr()).ch_layout, channels) };
}

/// Opens an encoder. Gives back the name of an option that it did not take: the wrapper drops such without a word.
pub(crate) fn open_encoder(
    context: &mut codec::Context,
    codec: &codec::codec::Codec,
    options: Dictionary<'_>,
) -> Result<Option<String>, Error> {
    // SAFETY: the dictionary's ownership goes to `raw` and comes back below, whatever the call makes of it.
    let mut raw = unsafe { options.disown() };
    // SAFETY: context and codec are valid and belong together: the context was made for this codec.
    let code = unsafe { sys::avcodec_open2(context.as_mut_ptr(), codec.as_ptr(), &mut raw) };
    let leftover = first_key(raw);
    match code {
        0.. => Ok(leftover),
        code => Err(Error::from(code)),
    }
}

/// Threads for all filters of a graph; only before filters are added.
pub(crate) fn set_graph_threads(graph: &mut filter::Graph, threads: c_int) {
    // SAFETY: a plain field, set before the graph is configured.
    unsafe { (*graph.as_mut_ptr()).nb_threads = threads };
}

/// Gives the graph its own reference to the frame. The wrapper's `add` would take the frame's data away from its owner.
pub(crate) fn push_frame(source: &mut filter::Context, frame: &frame::Frame) -> Result<(), Error> {
    // SAFETY: the filter is the buffer source of a configured graph; the frame is only read.
    match unsafe { sys::av_buffersrc_write_frame(source.as_mut_ptr(), frame.as_ptr()) } {
        0.. => Ok(()),
        code => Err(Error::from(code)),
    }
}
