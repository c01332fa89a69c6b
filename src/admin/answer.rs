//! What goes back to a client, and the headers that every answer has.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

pub(super) type Answer = Response<Full<Bytes>>;

/// Pages hold no script, and nothing may put one in or frame them.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    json_of(status, "application/json", body)
}

/// JSON of a media type of its own, on indented lines: it is read by people with curl as often as by programs.
pub(super) fn json_of(status: StatusCode, media_type: &'static str, body: &impl Serialize) -> Answer {
    match serde_json::to_vec_pretty(body) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            of(status, media_type, bytes)
        }
        Err(error) => {
            tracing::error!("write an answer as JSON: {error}");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be written as JSON\n")
        }
    }
}

pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    of(status, "text/plain; charset=utf-8", body.into().into_bytes())
}

pub(super) fn page(body: String) -> Answer {
    let mut answer = of(StatusCode::OK, "text/html; charset=utf-8", body.into_bytes());
    answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    answer
}

pub(super) fn of(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}

/// On every answer: it is about now, it is what its type says, and it depends on what was asked for.
pub(super) fn add_common_headers(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
}
