//! What a job draws from: the buckets of limits, and the line of its tenant.
//!
//! A limit with a key has one bucket for each value of the key. Which these are is worked out from the arguments when a
//! job comes in, and stands in its record, where the claim reads it as text. So a bucket's name holds no character that
//! JSON escapes, and none that has a meaning in there: `=`, `/` and blanks are escaped as in URLs.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Longest value that stands in a name as it is; of a longer one the beginning stays, and a hash of the whole.
const LONGEST: usize = 80;
const KEPT: usize = 40;

/// A bucket, and how much of it one attempt takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Bucket {
    name: String,
    points: u64,
}

impl Bucket {
    /// The bucket of one value of a limit's key.
    pub(crate) fn of_key(limit: &str, value: &str, points: u64) -> Self {
        Self { name: format!("{limit}/{}", plain(value)), points }
    }

    /// The same, of a value that nobody is to see.
    pub(crate) fn of_secret_key(limit: &str, value: &str, points: u64) -> Self {
        Self { name: format!("{limit}/{}", hash(value)), points }
    }

    /// The only bucket of a limit without a key.
    pub(crate) fn of_limit(limit: &str, points: u64) -> Self {
        Self { name: limit.to_owned(), points }
    }

    /// The line of a tenant: it holds no points, but turns.
    pub(crate) fn of_tenant(value: &str) -> Self {
        Self { name: format!("{TENANT}{}", plain(value)), points: 1 }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn points(&self) -> u64 {
        self.points
    }

    /// Whether it is the line of a tenant.
    pub(crate) fn is_tenant(&self) -> bool {
        self.name.starts_with(TENANT)
    }

    /// The limit it belongs to, and the value of that limit's key.
    pub(crate) fn parts(&self) -> (&str, Option<String>) {
        let Some((limit, value)) = self.name.rsplit_once('/') else { return (&self.name, None) };
        (limit, Some(shown(value)))
    }
}

/// What the line of a tenant begins with.
const TENANT: char = '~';

/// As it stands in the record, and behind the holder of a running job: `NAME`, or `NAME=points`.
impl From<Bucket> for String {
    fn from(bucket: Bucket) -> Self {
        if bucket.points == 1 { bucket.name } else { format!("{}={}", bucket.name, bucket.points) }
    }
}

impl From<String> for Bucket {
    fn from(text: String) -> Self {
        let points = text.rsplit_once('=').and_then(|(name, points)| Some((name.to_owned(), points.parse().ok()?)));
        let (name, points) = points.unwrap_or((text, 1));
        Self { name, points }
    }
}

/// A text as a part of a name.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.:@+".contains(&byte) {
            plain.push(char::from(byte));
        } else {
            // Writing into a text cannot fail.
            let _ = write!(plain, "%{byte:02X}");
        }
    }
    if plain.len() > LONGEST {
        plain.truncate(KEPT);
        plain.push('~');
        plain.push_str(&hash(text));
    }
    plain
}

/// A part of a name as people read it.
fn shown(plain: &str) -> String {
    let mut bytes = Vec::with_capacity(plain.len());
    let mut rest = plain.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = tail.get(..2).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &tail[2..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// FNV-1a of 128 bits: the same on every node and in every version.
fn hash(text: &str) -> String {
    const START: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = text.bytes().fold(START, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_come_back() {
        let bucket = Bucket::of_key("*/user_id", "a/b \"c\"=1", 3);
        let text = String::from(bucket.clone());
        assert_eq!(text, "*/user_id/a%2Fb%20%22c%22%3D1=3");
        assert_eq!(Bucket::from(text), bucket);
        assert_eq!(bucket.parts(), ("*/user_id", Some("a/b \"c\"=1".to_owned())));
        assert_eq!(String::from(Bucket::of_tenant("ann")), "~ann");
        assert_eq!(Bucket::from("send_mail".to_owned()), Bucket::of_limit("send_mail", 1));
        assert_eq!(Bucket::of_limit("*", 4).parts(), ("*", None));
    }

    #[test]
    fn a_long_value_is_cut_and_stays_itself() {
        let (one, other) = (Bucket::of_tenant(&"x".repeat(5000)), Bucket::of_tenant(&"x".repeat(5001)));
        assert_ne!(one, other);
        assert!(one.name().len() < 100);
        assert_eq!(hash(""), "6c62272e07bb014262b821756295c58d");
    }
}
