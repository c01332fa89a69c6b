//! Sizes: how large a picture is when it is shown, and which sizes of it are made. Pure arithmetic.

use ffmpeg_next::Rational;

use crate::protocol::Rendition;

/// Pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl Size {
    /// The size on a screen of a picture that is stored as `self`: with square pixels and upright.
    pub(crate) fn shown(self, pixel_aspect: Rational, quarter_turn: bool) -> Self {
        let Rational(across, down) = pixel_aspect;
        let aspect = f64::from(across) / f64::from(down);
        // Real pixels are at most about twice as wide as high; what is far from that (or not a number) is damage.
        let width = match (0.1..=10.0).contains(&aspect) {
            true => (f64::from(self.width) * aspect).round().max(1.0) as u32,
            false => self.width,
        };
        match quarter_turn {
            true => Self { width: self.height, height: width },
            false => Self { width, height: self.height },
        }
    }

    /// Scaled down so that the short side is `side` at most. Both sides come out even, as 4:2:0 needs them.
    pub(crate) fn with_short_side(self, side: u32) -> Self {
        let short = self.width.min(self.height);
        let target = even_below(side.min(short));
        let long = even_near(f64::from(self.width.max(self.height)) * f64::from(target) / f64::from(short.max(1)));
        match self.width >= self.height {
            true => Self { width: long, height: target },
            false => Self { width: target, height: long },
        }
    }

    /// Scaled down so that the width is `width` at most, with both sides even.
    pub(crate) fn with_width(self, width: u32) -> Self {
        let target = even_below(width.min(self.width));
        let height = even_near(f64::from(self.height) * f64::from(target) / f64::from(self.width.max(1)));
        Self { width: target, height }
    }

    pub(crate) fn long_side(self) -> u32 {
        self.width.max(self.height)
    }
}

/// One file to be made, and every name it was asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rung {
    pub(crate) size: Size,
    pub(crate) names: Vec<String>,
    /// The lowest height asked for among `names`; its name says best what the file holds, so the file gets that name.
    height: u32,
    pub(crate) file: String,
}

/// The files to be made of a picture shown as `shown`. Renditions that come out equal collapse into one file.
pub(crate) fn ladder(shown: Size, renditions: &[Rendition]) -> Vec<Rung> {
    let mut rungs: Vec<Rung> = Vec::new();
    for Rendition { name, height } in renditions {
        let size = shown.with_short_side(*height);
        let file = format!("{name}.mp4");
        match rungs.iter_mut().find(|rung| rung.size == size) {
            None => rungs.push(Rung { size, names: vec![name.clone()], height: *height, file }),
            Some(rung) => {
                rung.names.push(name.clone());
                if *height < rung.height {
                    rung.height = *height;
                    rung.file = file;
                }
            }
        }
    }
    rungs
}

fn even_below(value: u32) -> u32 {
    (value & !1).max(2)
}

fn even_near(value: f64) -> u32 {
    ((value / 2.0).round() as u32).max(1).saturating_mul(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    fn wanted(names: &[(&str, u32)]) -> Vec<Rendition> {
        names.iter().map(|&(name, height)| Rendition { name: name.into(), height }).collect()
    }

    #[test]
    fn shown_sizes() {
        let square = Rational(1, 1);
        assert_eq!(size(1280, 720).shown(square, false), size(1280, 720));
        assert_eq!(size(1280, 720).shown(square, true), size(720, 1280));
        assert_eq!(size(720, 576).shown(Rational(64, 45), false), size(1024, 576));
        assert_eq!(size(640, 480).shown(Rational(0, 1), false), size(640, 480), "unknown aspect is square");
        assert_eq!(size(640, 480).shown(Rational(0, 0), false), size(640, 480));
        assert_eq!(size(640, 480).shown(Rational(70_000, 1), false), size(640, 480));
    }

    #[test]
    fn the_short_side_is_the_rung_and_nothing_grows() {
        for (shown, side, expected) in [
            (size(1920, 1080), 720, size(1280, 720)),
            (size(1280, 720), 480, size(854, 480)),
            (size(720, 1280), 480, size(480, 854)),
            (size(720, 1280), 720, size(720, 1280)),
            (size(320, 240), 720, size(320, 240)),
            (size(853, 481), 720, size(852, 480)),
            (size(1024, 576), 480, size(854, 480)),
            (size(1, 1), 720, size(2, 2)),
        ] {
            assert_eq!(shown.with_short_side(side), expected, "{shown:?} at {side}");
        }
    }

    #[test]
    fn thumbnails_are_limited_in_width() {
        assert_eq!(size(1280, 720).with_width(640), size(640, 360));
        assert_eq!(size(720, 1280).with_width(640), size(640, 1138));
        assert_eq!(size(320, 240).with_width(640), size(320, 240));
    }

    #[test]
    fn equal_rungs_share_the_file_of_the_lowest() {
        let rungs = ladder(size(853, 481), &wanted(&[("1080p", 1080), ("480p", 480), ("720p", 720), ("360p", 360)]));
        assert_eq!(rungs.len(), 2);
        assert_eq!(rungs[0].names, ["1080p", "480p", "720p"]);
        assert_eq!(rungs[0].file, "480p.mp4");
        assert_eq!((rungs[1].file.as_str(), rungs[1].size), ("360p.mp4", size(638, 360)));
    }
}
