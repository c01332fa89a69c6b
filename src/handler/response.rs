//! Answers of HTTP servers: how much of a body is read, and how long the server asks us to stay away.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// A body as far as it was read.
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    /// The server had more to say than the limit allows.
    pub(super) cut: bool,
}

/// Reads at most `limit` bytes of the body.
pub(super) async fn read(mut response: reqwest::Response, limit: usize) -> Result<Body, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = limit - bytes.len();
        if chunk.len() > room {
            bytes.extend_from_slice(&chunk[..room]);
            return Ok(Body { bytes, cut: true });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Body { bytes, cut: false })
}

/// `Retry-After` in either of its forms (RFC 9110, 10.2.3): seconds or a date. How much of it is honoured is decided
/// with the outcome.
pub(super) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    Some((http_date(text)? - now).to_std().unwrap_or_default())
}

/// A date in any of the three forms that RFC 9110 (5.6.7) wants understood.
fn http_date(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(at) = DateTime::parse_from_rfc2822(text) {
        return Some(at.with_timezone(&Utc));
    }
    // Of RFC 850, and of C's asctime().
    let naive = |form| NaiveDateTime::parse_from_str(text, form).ok();
    naive("%A, %d-%b-%y %H:%M:%S GMT").or_else(|| naive("%a %b %e %H:%M:%S %Y")).map(|at| at.and_utc())
}

/// The whole chain of causes in one line, without the URL: it may hold a secret.
pub(super) fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = "2026-11-23T10:00:00Z".parse().expect("a date");
        let cases = [
            ("120", Some(120)),
            ("Mon, 23 Nov 2026 10:01:30 GMT", Some(90)),
            ("Mon, 23 Nov 2026 09:00:00 GMT", Some(0)),
            ("Monday, 23-Nov-26 10:01:30 GMT", Some(90)),
            ("Mon Nov 23 10:01:30 2026", Some(90)),
            ("0", Some(0)),
            ("99999999999", Some(99_999_999_999)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("soon", None),
            ("-5", None),
            ("", None),
        ];
        for (text, seconds) in cases {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().expect("a header value"))]);
            assert_eq!(retry_after(&headers, now).map(|span| span.as_secs()), seconds, "{text}");
        }
    }
}
