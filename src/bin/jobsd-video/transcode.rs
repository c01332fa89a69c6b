//! Mode `transcode`: one pass over the input makes all renditions and the thumbnail.
//!
//! This thread reads, decodes and scales; each file has a thread that encodes and writes (`encode`). Nothing gets its final
//! name before everything has been made and the input has proved whole.

use std::time::Duration;

use ffmpeg_next::{Packet, frame};

use crate::encode::{Files, Written};
use crate::failure::Failure;
use crate::geometry::{Rung, ladder};
use crate::output::Folder;
use crate::pictures::{Decoding, Scaling};
use crate::probe::{self, Media, PictureStream, Reader};
use crate::protocol::{ErrorKind, Output, Report};
use crate::report::Reporter;
use crate::request::{Job, Limits, Transcode};
use crate::sound::Sound;
use crate::thumbnail::Snapshot;
use crate::time::millis;

/// The name of what comes of an input without pictures.
const ONLY_SOUND: &str = "audio";

/// What H.264 can describe.
const LONGEST_SIDE: u32 = 16384;

pub(crate) fn run(job: &Job, work: &Transcode, reporter: &mut Reporter) -> Result<Report, Failure> {
    let folder = Folder::open(&job.output_dir)?;
    let (media, reader) = probe::open(&job.input, &job.limits)?;
    let rungs = media.picture.as_ref().map_or_else(Vec::new, |stream| ladder(stream.shown(), &work.renditions));
    if rungs.iter().any(|rung| rung.size.long_side() > LONGEST_SIDE) {
        return Err(Failure::new(ErrorKind::Unsupported, "the pictures are far too long for their width"));
    }
    let mut pass = Pass::prepare(job, work, &media, reader, &rungs)?;
    let files = pass.open_files(&folder, work, &rungs)?;
    let written = match pass.feed(&files, reporter) {
        Ok(()) => files.finish()?,
        Err(failure) => return Err(files.abandon(failure)),
    };
    pass.publish(&folder, work, &rungs, written)
}

/// What one pass over the input needs.
struct Pass<'a> {
    job: &'a Job,
    media: &'a Media,
    reader: Reader,
    pictures: Option<Pictures<'a>>,
    sound: Option<Sound>,
}

struct Pictures<'a> {
    stream: &'a PictureStream,
    decoding: Decoding,
    scaling: Scaling<'a>,
    snapshot: Option<Snapshot>,
}

impl<'a> Pass<'a> {
    fn prepare(
        job: &'a Job,
        work: &Transcode,
        media: &'a Media,
        reader: Reader,
        rungs: &[Rung],
    ) -> Result<Self, Failure> {
        let pictures = match &media.picture {
            None => None,
            Some(stream) => Some(Pictures {
                stream,
                decoding: Decoding::open(stream, media.start, job)?,
                scaling: Scaling::new(stream, job, rungs.iter().map(|rung| rung.size).collect()),
                snapshot: work.thumbnail.map(|wish| Snapshot::new(wish, stream.unit)),
            }),
        };
        let sound = match &media.sound {
            None => None,
            Some(stream) => Some(Sound::open(stream, media.start, &work.audio)?),
        };
        Ok(Self { job, media, reader, pictures, sound })
    }

    fn open_files(&self, folder: &Folder, work: &Transcode, rungs: &[Rung]) -> Result<Files, Failure> {
        let track = self.sound.as_ref().map(Sound::track);
        match (&self.pictures, &track) {
            (Some(Pictures { stream, decoding, .. }), _) => {
                Files::with_pictures(folder, stream, decoding.output_colours(), rungs, &work.video, track.as_ref())
            }
            (None, Some(track)) => Files::only_sound(folder, &format!("{ONLY_SOUND}.mp4"), track),
            (None, None) => Err(Failure::new(ErrorKind::Internal, "an input without streams was let in")),
        }
    }

    /// Sends the whole input on its way, and judges at the end whether it was whole.
    fn feed(&mut self, files: &Files, reporter: &mut Reporter) -> Result<(), Failure> {
        while let Some(packet) = self.reader.next_packet()? {
            self.route(packet, files)?;
            let reached = self.reached();
            // A file can be longer than it says.
            self.job.limits.check_duration(reached)?;
            reporter.progress(reached, self.media.stated_duration);
        }
        if let Some(pictures) = &mut self.pictures {
            pictures.finish(files)?;
        }
        if let Some(sound) = &mut self.sound {
            sound.finish(|packet| files.send_sound(&packet))?;
        }
        self.check_whole(&self.job.limits)
    }

    fn route(&mut self, packet: Packet, files: &Files) -> Result<(), Failure> {
        let stream = packet.stream();
        match (&mut self.pictures, &mut self.sound) {
            (Some(pictures), _) if pictures.stream.index == stream => pictures.take(&packet, files),
            (_, Some(sound)) if sound.index == stream => sound.take(packet, |packet| files.send_sound(&packet)),
            _ => Ok(()),
        }
    }

    fn reached(&self) -> Duration {
        let pictures = self.pictures.as_ref().map_or(Duration::ZERO, |pictures| pictures.decoding.reached());
        let sound = self.sound.as_ref().map_or(Duration::ZERO, Sound::reached);
        pictures.max(sound)
    }

    /// Decoders conceal what is missing, so a half video would pass for a whole one. The container's word counts for the
    /// longest stream, a stream's own word for itself.
    fn check_whole(&self, limits: &Limits) -> Result<(), Failure> {
        if let Some(pictures) = &self.pictures {
            pictures.decoding.check(limits)?;
        }
        let whole =
            |stated: Option<Duration>, reached| stated.map_or(Ok(()), |stated| limits.check_whole(stated, reached));
        whole(self.media.stated_duration, self.reached())?;
        if let Some(pictures) = &self.pictures {
            whole(pictures.stream.stated_duration, pictures.decoding.reached())?;
        }
        match (&self.sound, &self.media.sound) {
            (Some(sound), Some(stream)) => whole(stream.stated_duration, sound.reached()),
            _ => Ok(()),
        }
    }

    fn publish(
        mut self,
        folder: &Folder,
        work: &Transcode,
        rungs: &[Rung],
        written: Vec<Written>,
    ) -> Result<Report, Failure> {
        let outputs = self.outputs(work, rungs, &written)?;
        let mut parts: Vec<_> = written.into_iter().map(|file| file.part).collect();
        let mut thumbnail = None;
        if let Some(Pictures { stream, snapshot, .. }) = &mut self.pictures
            && let Some(snapshot) = snapshot.take()
            && let Some((part, picture)) = snapshot.write(folder, stream)?
        {
            parts.push(part);
            thumbnail = Some(picture);
        }
        folder.publish(parts)?;
        Ok(Report { outputs, thumbnail, input: self.media.facts(), decode_errors: self.errors() })
    }

    /// One entry for each name that was asked for.
    fn outputs(&self, work: &Transcode, rungs: &[Rung], written: &[Written]) -> Result<Vec<Output>, Failure> {
        let entry = |name: &str, rung: Option<&Rung>, file: &Written| {
            Ok(Output {
                name: name.to_owned(),
                file: file.part.name.clone(),
                width: rung.map(|rung| rung.size.width),
                height: rung.map(|rung| rung.size.height),
                duration_ms: millis(file.length),
                video_codec: rung.map(|_| "h264".to_owned()),
                audio_codec: self.sound.as_ref().map(|_| "aac".to_owned()),
                bytes: file.part.bytes()?,
            })
        };
        if self.pictures.is_none() {
            return written.iter().map(|file| entry(ONLY_SOUND, None, file)).collect();
        }
        let wanted = work.renditions.iter().map(|rendition| rendition.name.as_str());
        let made = wanted.filter_map(|name| {
            let rung = rungs.iter().position(|rung| rung.names.iter().any(|other| other == name))?;
            Some(entry(name, rungs.get(rung), written.get(rung)?))
        });
        made.collect()
    }

    fn errors(&self) -> u64 {
        let pictures = self.pictures.as_ref().map_or(0, |pictures| pictures.decoding.errors);
        let sound = self.sound.as_ref().map_or(0, |sound| sound.errors);
        self.reader.errors + pictures + sound
    }
}

impl Pictures<'_> {
    fn take(&mut self, packet: &Packet, files: &Files) -> Result<(), Failure> {
        let Self { decoding, scaling, snapshot, .. } = self;
        decoding.take(packet, |frame| hand_on(scaling, snapshot.as_mut(), frame, files))
    }

    fn finish(&mut self, files: &Files) -> Result<(), Failure> {
        let Self { decoding, scaling, snapshot, .. } = self;
        decoding.finish(|frame| hand_on(scaling, snapshot.as_mut(), frame, files))?;
        scaling.finish(|index, frame| files.send_picture(index, frame))
    }
}

/// A decoded picture goes to all rungs, and then may become the thumbnail.
fn hand_on(
    scaling: &mut Scaling<'_>,
    snapshot: Option<&mut Snapshot>,
    frame: frame::Video,
    files: &Files,
) -> Result<(), Failure> {
    scaling.take(&frame, |index, scaled| files.send_picture(index, scaled))?;
    snapshot.map_or(Ok(()), |snapshot| snapshot.offer(frame))
}
