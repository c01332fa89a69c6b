//! Signed requests in the form of Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature`.
//!
//! Specification: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>. The id is
//! the same for every attempt of the job's step, so that a receiver knows a repeated delivery; the time is the attempt's.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::config::SigningKey;
use crate::job::{JobId, Timestamp};

pub(super) const ID: HeaderName = HeaderName::from_static("webhook-id");
pub(super) const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
pub(super) const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The three headers. Every key makes a signature of its own: a receiver that knows one of them is content.
pub(super) fn sign(headers: &mut HeaderMap, keys: &[SigningKey], id: &str, now: Timestamp, body: &[u8]) {
    let timestamp = (now.as_millis() / 1000).to_string();
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    let signature = |key: &SigningKey| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.expose());
        format!("v1,{}", BASE64_STANDARD.encode(ring::hmac::sign(&key, &signed)))
    };
    let signatures = keys.iter().map(signature).collect::<Vec<_>>().join(" ");
    for (name, text) in [(ID, id), (TIMESTAMP, &timestamp), (SIGNATURE, &signatures)] {
        headers.insert(name, HeaderValue::from_str(text).expect("letters, digits and signs of ASCII"));
    }
}

/// The job's id, with the step's number behind it where it is not the first. What is signed is divided by dots, so an id
/// that holds one, or anything unusual, is replaced by its hash.
pub(super) fn message_id(job: &JobId, step: usize) -> String {
    let id = if step == 0 { job.to_string() } else { format!("{job}_{step}") };
    if id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
        return id;
    }
    let hash = ring::digest::digest(&ring::digest::SHA256, id.as_bytes());
    format!("job_{}", BASE64_URL_SAFE_NO_PAD.encode(&hash.as_ref()[..24]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn the_known_example() {
        let key = SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a key");
        let mut headers = HeaderMap::new();
        let at = Timestamp::from_millis(1_614_265_330_000);
        sign(&mut headers, &[key], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#);
        assert_eq!(headers[SIGNATURE], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(headers[TIMESTAMP], "1614265330");
    }

    #[test]
    fn ids_hold_no_dot_and_differ() {
        let id = |job: &str, step| message_id(&JobId::parse(job).expect("an id"), step);
        assert_eq!((id("a-1", 0).as_str(), id("a-1", 2).as_str()), ("a-1", "a-1_2"));
        let (cron, dotted) = (id("cron:nightly:2026", 0), id("a.1", 0));
        assert!(cron.starts_with("job_") && dotted.starts_with("job_") && cron != dotted);
        assert_eq!(cron, id("cron:nightly:2026", 0));
    }
}
