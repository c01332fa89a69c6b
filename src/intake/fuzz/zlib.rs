//! Noise in zlib streams: what comes out is bounded, whatever goes in.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::bufread::DeflateDecoder;
use flate2::write::ZlibEncoder;

use super::{Random, fuzz, limits};
use crate::intake::inflate::{InflateError, inflate};

/// What is deflated in all forms that a stream has: stored, with fixed and with dynamic codes, and bombs.
fn streams() -> Vec<Vec<u8>> {
    let text = br#"[["ann@example.com", 1, null], {"k": [true, 2.5]}, {"chain": null, "chord": null}]"#;
    let contents =
        [b"".to_vec(), b"a".to_vec(), text.to_vec(), text.repeat(40), vec![0; 1 << 20], text.repeat(1 << 13)];
    let levels = [0, 1, 6, 9];
    let all = contents.iter().flat_map(|content| levels.map(|level| (content, level)));
    all.filter(|(content, level)| *level > 0 || content.len() < 1 << 16)
        .map(|(content, level)| deflated(content, level))
        .collect()
}

fn deflated(content: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(content).and_then(|()| encoder.finish()).expect("writing to a Vec cannot fail")
}

/// Gives the stream the checksum of what it inflates to, so that more than the checksum is looked at.
fn mend(stream: &mut Vec<u8>, limit: usize) {
    let (Some(codes), mut out) = (stream.get(2..), Vec::new()) else { return };
    let mut decoder = DeflateDecoder::new(codes).take(limit as u64);
    if decoder.read_to_end(&mut out).is_err() {
        return;
    }
    let codes = usize::try_from(decoder.into_inner().total_in()).expect("it was in memory");
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in &out {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    stream.truncate(2 + codes);
    stream.extend((b << 16 | a).to_be_bytes());
    stream[..2].copy_from_slice(&[0x78, 0x9c]);
}

#[test]
fn noise_in_zlib_streams_stays_within_the_limits() {
    let (limit, seeds) = (limits().input, streams());
    let noise = |random: &mut Random| {
        let mut stream = random.noise(&seeds);
        if random.below(2) == 0 {
            mend(&mut stream, limit);
        }
        stream
    };
    fuzz("zlib", 10_000, |random| {
        let stream = noise(random);
        match inflate(&stream, limit) {
            Ok(out) => {
                assert!(out.len() <= limit && out.capacity() <= 4 * limit, "{stream:?}");
                true
            }
            Err(InflateError::TooLarge(_) | InflateError::NotZlib) => false,
        }
    });
}
