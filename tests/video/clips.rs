//! Clips for the tests, made by the `ffmpeg` command in a fraction of a second each.

use std::path::PathBuf;

use crate::harness::{Bench, command};

const QUICK_VIDEO: &[&str] = &["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"];

impl Bench {
    /// Runs `ffmpeg` with these arguments and an output file in this bench.
    #[track_caller]
    pub(crate) fn make(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let path = self.path(name);
        let mut all = vec!["-v", "error", "-nostdin", "-y"];
        all.extend(arguments);
        all.push(path.to_str().expect("a plain path"));
        command("ffmpeg", &all);
        path
    }

    /// H.264 and AAC in MP4 with the index in front, as phones and browsers upload it.
    #[track_caller]
    pub(crate) fn clip(&self, size: &str, seconds: u32) -> PathBuf {
        let mut arguments: Vec<String> = picture(size, 30, seconds);
        arguments.extend(tone(seconds));
        arguments.extend(QUICK_VIDEO.iter().map(|argument| (*argument).to_owned()));
        arguments.extend(["-c:a", "aac", "-movflags", "+faststart"].map(str::to_owned));
        self.make("clip.mp4", &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The test picture, a tone, and whatever codecs the test wants.
    #[track_caller]
    pub(crate) fn coded(&self, name: &str, size: &str, seconds: u32, codecs: &[&str]) -> PathBuf {
        let mut arguments: Vec<String> = picture(size, 30, seconds);
        arguments.extend(tone(seconds));
        arguments.extend(codecs.iter().map(|argument| (*argument).to_owned()));
        self.make(name, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

fn picture(size: &str, rate: u32, seconds: u32) -> Vec<String> {
    ["-f", "lavfi", "-i", &format!("testsrc2=size={size}:rate={rate}:duration={seconds}")].map(str::to_owned).into()
}

fn tone(seconds: u32) -> Vec<String> {
    ["-f", "lavfi", "-i", &format!("sine=frequency=440:sample_rate=48000:duration={seconds}")].map(str::to_owned).into()
}
