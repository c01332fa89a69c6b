//! Python's text, which may hold lone surrogates, as pickles spell it.

/// The code points of UTF-8 in which surrogates are encoded like any other code point.
pub(super) fn surrogates_read(mut bytes: &[u8]) -> Option<Vec<u32>> {
    let mut points = Vec::new();
    while !bytes.is_empty() {
        if let [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, rest @ ..] = bytes {
            points.push(0xd000 | u32::from(second & 0x3f) << 6 | u32::from(third & 0x3f));
            bytes = rest;
            continue;
        }
        let valid = bytes.utf8_chunks().next().map(|chunk| chunk.valid()).filter(|valid| !valid.is_empty())?;
        points.extend(valid.chars().map(u32::from));
        bytes = &bytes[valid.len()..];
    }
    Some(points)
}

/// The code points of a line of protocol 0: latin-1 with `\uXXXX` and `\UXXXXXXXX`.
pub(super) fn unescape(line: &[u8]) -> Option<Vec<u32>> {
    let mut points = Vec::new();
    let mut rest = line;
    while let [first, after @ ..] = rest {
        let width = match rest {
            [b'\\', b'u', ..] => 4,
            [b'\\', b'U', ..] => 8,
            _ => 0,
        };
        if width == 0 {
            points.push(u32::from(*first));
            rest = after;
            continue;
        }
        let digits = rest.get(2..2 + width).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        let point = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        points.push(Some(point).filter(|point| *point < 0x11_0000)?);
        rest = &rest[2 + width..];
    }
    Some(points)
}

/// UTF-8 in which surrogates are encoded like any other code point.
pub(super) fn surrogates_written(points: &[u32]) -> Vec<u8> {
    let mut out = Vec::new();
    for point in points {
        match char::from_u32(*point) {
            Some(character) => out.extend(character.encode_utf8(&mut [0; 4]).as_bytes()),
            None => {
                out.extend([0xe0 | (point >> 12) as u8, 0x80 | (point >> 6 & 0x3f) as u8, 0x80 | (point & 0x3f) as u8])
            }
        }
    }
    out
}
