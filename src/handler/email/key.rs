//! What a mail is recognised by when it is sent again: one name for a step of a job, the same in every attempt.
//!
//! No provider that jobsd speaks with takes a key by which it would drop the second of two sends; what each shows of the
//! key afterwards stands at the provider. So the key stands in every mail as well.

use std::fmt;
use std::fmt::Write as _;

use ring::digest::{SHA256, digest};

use crate::job::JobId;

/// Bytes of a key. SES takes 256 in the value of a tag.
const LONGEST: usize = 128;
/// The header that carries the key. SES replaces a mail's Message-ID by its own.
pub(super) const HEADER: &str = "X-Jobsd-Key";

/// Letters, digits, `-` and `_`: what the tags of SES may hold, and what needs no quoting anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SendKey(String);

impl SendKey {
    /// Another job, or another step of this one, has another key.
    pub(super) fn new(job: &JobId, step: usize) -> Self {
        let mut key = String::new();
        for byte in job.as_str().bytes() {
            match byte {
                b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' => key.push(byte.into()),
                other => write!(key, "_{other:02x}").expect("a String takes everything"),
            }
        }
        if key.len() > LONGEST {
            let hash = digest(&SHA256, key.as_bytes());
            key = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        }
        Self(format!("{key}-{step}"))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// `<key@domain>`.
    pub(super) fn message_id(&self, domain: &str) -> String {
        format!("<{}@{domain}>", self.0)
    }
}

impl fmt::Display for SendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_plain_whatever_the_job_id() {
        let key = |id: &str, step| SendKey::new(&JobId::parse(id).expect("a valid id"), step);
        assert_eq!(key("5f0c3a52-0f0e", 0).as_str(), "5f0c3a52-0f0e-0");
        assert_eq!(key("cron:clean<up>@x_1", 2).message_id("b.com"), "<cron_3aclean_3cup_3e_40x_5f1-2@b.com>");
        let (long, other) = (key(&"é".repeat(100), 0), key(&format!("{}x", "é".repeat(100)), 0));
        assert_eq!(long.as_str().len(), 66);
        assert_ne!(long, other);
    }
}
