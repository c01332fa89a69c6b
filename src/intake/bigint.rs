//! Integers beyond 64 bits, between the two forms the wires use: decimal text and little-endian two's complement.
//! There is no arithmetic: such numbers are carried through, never computed with.

/// Python refuses to convert longer integers to text, so no client can have written one as JSON or print one.
pub(crate) const MAX_DIGITS: usize = 4300;

/// What [`MAX_DIGITS`] digits and a sign take up.
const MAX_BYTES: usize = 1786;

/// Each limb of the decimal form holds nine digits.
const LIMB: u64 = 1_000_000_000;

/// Decimal text of a little-endian two's complement integer; no bytes mean zero. `None` if it is too long.
pub(crate) fn to_decimal(bytes: &[u8]) -> Option<String> {
    if bytes.len() > MAX_BYTES {
        return None;
    }
    let negative = bytes.last().is_some_and(|top| top & 0x80 != 0);
    let magnitude = if negative { negate(bytes) } else { bytes.to_vec() };
    let mut limbs: Vec<u64> = vec![0];
    for byte in magnitude.iter().rev() {
        multiply_add(&mut limbs, LIMB, 256, u64::from(*byte));
    }
    let mut text = String::from(if negative { "-" } else { "" });
    let (top, rest) = limbs.split_last().expect("there is always one limb");
    text.push_str(&top.to_string());
    for limb in rest.iter().rev() {
        text.push_str(&format!("{limb:09}"));
    }
    (text.len() <= MAX_DIGITS + usize::from(negative)).then_some(text)
}

/// The shortest little-endian two's complement form of a decimal integer (`-?[0-9]+`); empty for zero.
/// `None` if the text is not one or is too long.
pub(crate) fn from_decimal(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut limbs: Vec<u64> = vec![0];
    for digit in digits.bytes() {
        multiply_add(&mut limbs, 256, 10, u64::from(digit - b'0'));
    }
    let mut bytes: Vec<u8> = limbs.iter().map(|limb| *limb as u8).collect();
    bytes.push(0);
    if text.starts_with('-') {
        bytes = negate(&bytes);
    }
    trim(&mut bytes);
    Some(bytes)
}

/// `limbs = limbs * factor + carry`, least significant limb first, each below `base`.
fn multiply_add(limbs: &mut Vec<u64>, base: u64, factor: u64, mut carry: u64) {
    for limb in limbs.iter_mut() {
        let value = *limb * factor + carry;
        *limb = value % base;
        carry = value / base;
    }
    if carry > 0 {
        limbs.push(carry);
    }
}

/// Two's complement negation. The most negative number of a width needs one byte more as a magnitude; taken as
/// unsigned the result of the same width is already right.
fn negate(bytes: &[u8]) -> Vec<u8> {
    let mut carry = true;
    bytes
        .iter()
        .map(|byte| {
            let (sum, over) = (!byte).overflowing_add(u8::from(carry));
            carry = over;
            sum
        })
        .collect()
}

/// Drops top bytes that only repeat the sign.
fn trim(bytes: &mut Vec<u8>) {
    while let [.., below, top] = bytes[..] {
        let repeats = (top == 0 && below & 0x80 == 0) || (top == 0xff && below & 0x80 != 0);
        if !repeats {
            return;
        }
        bytes.pop();
    }
    if bytes[..] == [0] {
        bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_and_bytes_are_the_same_number() {
        let cases: [(&str, &[u8]); 9] = [
            ("0", &[]),
            ("1", &[1]),
            ("-1", &[0xff]),
            ("127", &[0x7f]),
            ("128", &[0x80, 0]),
            ("-128", &[0x80]),
            ("-129", &[0x7f, 0xff]),
            ("9223372036854775808", &[0, 0, 0, 0, 0, 0, 0, 0x80, 0]),
            ("-1267650600228229401496703205376", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf0]),
        ];
        for (text, bytes) in cases {
            assert_eq!(from_decimal(text).as_deref(), Some(bytes), "{text}");
            assert_eq!(to_decimal(bytes).as_deref(), Some(text));
        }
    }

    #[test]
    fn the_bounds_agree() {
        let longest = "9".repeat(MAX_DIGITS);
        let bytes = from_decimal(&longest).expect("the longest number is allowed");
        assert_eq!(bytes.len(), MAX_BYTES);
        assert_eq!(to_decimal(&bytes), Some(longest.clone()));
        assert!(to_decimal(&[&[0xff; MAX_BYTES - 1][..], &[0x7f]].concat()).is_none(), "4301 digits");
        assert!(from_decimal(&format!("{longest}0")).is_none());
        assert!(to_decimal(&[1; MAX_BYTES + 1]).is_none());
        assert!(from_decimal("").is_none() && from_decimal("-").is_none() && from_decimal("1x").is_none());
    }
}
