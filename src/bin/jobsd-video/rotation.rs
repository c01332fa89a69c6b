//! How a picture has to be turned to stand upright, read from the matrix that phones store beside the video.

/// The eight ways in which a picture can lie, named by what has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rotation {
    Upright,
    Clockwise,
    UpsideDown,
    CounterClockwise,
    FlipVertically,
    FlipHorizontally,
    ClockwiseFlipped,
    CounterClockwiseFlipped,
}

impl Rotation {
    /// `bytes`: a display matrix of libav, nine 32-bit integers in the machine's order. Only quarter turns and mirrors are known;
    /// any other angle is left alone.
    pub(crate) fn from_matrix(bytes: &[u8]) -> Self {
        let number = |index: usize| {
            let bytes = bytes.get(index * 4..index * 4 + 4)?;
            Some(i32::from_ne_bytes(bytes.try_into().expect("the slice has four bytes")))
        };
        let (Some(a), Some(b), Some(c), Some(d)) = (number(0), number(1), number(3), number(4)) else {
            return Self::Upright;
        };
        // The matrix takes (x, y) of the stored picture to (a x + c y, b x + d y) on the screen, y pointing down. Its numbers
        // are in 1/65536; some writers leave the last digits of a cosine where a zero belongs.
        let sign = |number: i32| if number.unsigned_abs() < 1 << 8 { 0 } else { number.signum() };
        match (sign(a), sign(b), sign(c), sign(d)) {
            (-1, 0, 0, -1) => Self::UpsideDown,
            (1, 0, 0, -1) => Self::FlipVertically,
            (-1, 0, 0, 1) => Self::FlipHorizontally,
            (0, 1, -1, 0) => Self::Clockwise,
            (0, -1, 1, 0) => Self::CounterClockwise,
            (0, 1, 1, 0) => Self::CounterClockwiseFlipped,
            (0, -1, -1, 0) => Self::ClockwiseFlipped,
            _ => Self::Upright,
        }
    }

    /// The filters of libav that do it, each followed by a comma.
    pub(crate) fn filters(self) -> &'static str {
        match self {
            Self::Upright => "",
            Self::Clockwise => "transpose=clock,",
            Self::UpsideDown => "hflip,vflip,",
            Self::CounterClockwise => "transpose=cclock,",
            Self::FlipVertically => "vflip,",
            Self::FlipHorizontally => "hflip,",
            Self::ClockwiseFlipped => "transpose=clock_flip,",
            Self::CounterClockwiseFlipped => "transpose=cclock_flip,",
        }
    }

    /// Clockwise; mirrors are not told.
    pub(crate) fn degrees(self) -> u16 {
        match self {
            Self::Upright | Self::FlipVertically | Self::FlipHorizontally => 0,
            Self::Clockwise | Self::ClockwiseFlipped => 90,
            Self::UpsideDown => 180,
            Self::CounterClockwise | Self::CounterClockwiseFlipped => 270,
        }
    }

    /// Width and height change places.
    pub(crate) fn is_quarter_turn(self) -> bool {
        matches!(
            self,
            Self::Clockwise | Self::CounterClockwise | Self::ClockwiseFlipped | Self::CounterClockwiseFlipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(a: i32, b: i32, c: i32, d: i32) -> Vec<u8> {
        [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30].iter().flat_map(|n: &i32| n.to_ne_bytes()).collect()
    }

    #[test]
    fn quarter_turns_and_mirrors() {
        for (bytes, expected) in [
            (matrix(1, 0, 0, 1), Rotation::Upright),
            (matrix(0, 1, -1, 0), Rotation::Clockwise),
            (matrix(-1, 0, 0, -1), Rotation::UpsideDown),
            (matrix(0, -1, 1, 0), Rotation::CounterClockwise),
            (matrix(-1, 0, 0, 1), Rotation::FlipHorizontally),
            (vec![0; 7], Rotation::Upright),
        ] {
            assert_eq!(Rotation::from_matrix(&bytes), expected);
        }
    }
}
