//! Reads the pieces of a pickle. Every length is checked against what is there before anything is taken.

use super::DecodeError;

#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn malformed(&self, what: &'static str) -> DecodeError {
        DecodeError::Malformed { what, at: self.at }
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..length).ok_or_else(|| self.malformed("it is cut off"))?;
        self.at += length;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        Ok(self.take(N)?.try_into().expect("take gives exactly as many bytes as asked for"))
    }

    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A run of bytes after a length of one byte.
    pub(super) fn counted8(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.byte()?;
        self.take(length.into())
    }

    /// A run of bytes after a length of four bytes.
    pub(super) fn counted32(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    /// A run of bytes after a length of eight bytes.
    pub(super) fn counted64(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.array().map(u64::from_le_bytes)?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// A frame announces bytes that must be there; its bounds mean nothing else.
    pub(super) fn frame(&mut self) -> Result<(), DecodeError> {
        let start = self.at + 8;
        self.counted64()?;
        self.at = start;
        Ok(())
    }

    /// The bytes up to a newline, which is skipped.
    pub(super) fn line(&mut self) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| self.malformed("it is cut off"))?;
        self.at += length + 1;
        Ok(&rest[..length])
    }

    pub(super) fn text_line(&mut self) -> Result<&'a str, DecodeError> {
        let start = self.at;
        let line = self.line()?;
        std::str::from_utf8(line).map_err(|_| DecodeError::Malformed { what: "a line is not text", at: start })
    }
}
