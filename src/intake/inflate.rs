//! zlib with a bound: both Celery's `application/x-gzip` (which is zlib, not gzip) and RQ's `data` field use it.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::bufread::ZlibDecoder;
use flate2::write::ZlibEncoder;
use thiserror::Error;

/// Why bytes could not be inflated.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum InflateError {
    #[error("it inflates to more than {0} bytes; pass a reference to the data, not the data")]
    TooLarge(usize),
    #[error("it is not a zlib stream")]
    NotZlib,
}

/// The inflated bytes, at most `limit` of them. Memory grows with what comes out, never with what a header claims.
pub(crate) fn inflate(deflated: &[u8], limit: usize) -> Result<Vec<u8>, InflateError> {
    let mut out = Vec::new();
    let mut bounded = ZlibDecoder::new(deflated).take(limit as u64 + 1);
    bounded.read_to_end(&mut out).map_err(|_| InflateError::NotZlib)?;
    if out.len() > limit { Err(InflateError::TooLarge(limit)) } else { Ok(out) }
}

/// A zlib stream at the level Python uses by default.
pub(crate) fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to a Vec cannot fail")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = deflate(&vec![0; 8 << 20]);
        assert!(bomb.len() < 10_000);
        assert_eq!(inflate(&bomb, 1 << 20), Err(InflateError::TooLarge(1 << 20)));
    }

    #[test]
    fn a_cut_or_foreign_stream_is_told() {
        let whole = deflate(b"hello hello hello");
        assert_eq!(inflate(&whole, 17).as_deref(), Ok(&b"hello hello hello"[..]));
        for end in 0..whole.len() {
            assert_eq!(inflate(&whole[..end], 100), Err(InflateError::NotZlib), "cut at {end}");
        }
        assert_eq!(inflate(b"[1, 2]", 100), Err(InflateError::NotZlib));
    }
}
