//! What the numbers of a picture mean: carried over to the outputs, or made ordinary where players would get them wrong.
//!
//! Phones record in high dynamic range unless told otherwise. Eight bits of H.264 cannot carry that, and most players would
//! show it pale, so such pictures are mapped to the standard range that every screen shows.

use ffmpeg::color::{Primaries, Space, TransferCharacteristic};
use ffmpeg::{decoder, filter, frame};
use ffmpeg_next as ffmpeg;

/// Matrix, primaries and transfer curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Colours {
    pub(crate) space: Space,
    pub(crate) primaries: Primaries,
    pub(crate) transfer: TransferCharacteristic,
}

impl Colours {
    pub(crate) fn of_stream(decoder: &decoder::Video) -> Self {
        Self {
            space: decoder.color_space(),
            primaries: decoder.color_primaries(),
            transfer: decoder.color_transfer_characteristic(),
        }
    }

    pub(crate) fn of_frame(frame: &frame::Video) -> Self {
        Self {
            space: frame.color_space(),
            primaries: frame.color_primaries(),
            transfer: frame.color_transfer_characteristic(),
        }
    }

    /// What the filters make of it. Players guess by size where it is not said, and guess wrong, so the encoder is told.
    pub(crate) fn of_output(self) -> Self {
        if self.tone_mapping().is_some() {
            return Self { space: Space::BT709, primaries: Primaries::BT709, transfer: TransferCharacteristic::BT709 };
        }
        match self.space {
            // The scaler makes it YUV by the matrix of old television.
            Space::RGB => Self { space: Space::SMPTE170M, ..self },
            _ => self,
        }
    }

    /// The filters that map high dynamic range to 8-bit standard range, each followed by a comma; `None` for ordinary pictures
    /// and where this libav was built without the filters. White of 203 cd/m² (ITU-R BT.2408) becomes the white of a screen.
    pub(crate) fn tone_mapping(self) -> Option<String> {
        let known = filter::find("zscale").is_some() && filter::find("tonemap").is_some();
        if !self.is_high_dynamic_range() || !known {
            return None;
        }
        // Without these two the filter finds no way to convert, and no other values occur with these curves in practice.
        let space = if self.space == Space::Unspecified { ":min=bt2020nc" } else { "" };
        let primaries = if self.primaries == Primaries::Unspecified { ":pin=bt2020" } else { "" };
        Some(format!(
            "zscale=t=linear:npl=203{space}{primaries},format=gbrpf32le,zscale=p=bt709,tonemap=mobius:desat=0,\
             zscale=t=bt709:m=bt709:r=tv,format=yuv420p,"
        ))
    }

    fn is_high_dynamic_range(self) -> bool {
        matches!(self.transfer, TransferCharacteristic::SMPTE2084 | TransferCharacteristic::ARIB_STD_B67)
    }
}
