//! What is read of a request: its body, bounded in size and time, and the form of answer it asks for.

use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderMap};
use serde_json::Value;

use super::problem::{Problem, ProblemKind};

/// The form of an answer that exists in several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// For people at a terminal: also what curl gets, which asks for `*/*`.
    Text,
    Json,
    /// For browsers.
    Html,
}

impl Format {
    /// What `Accept` prefers; text when it says nothing we know.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let accept = headers.get_all(header::ACCEPT);
        let wishes = accept.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        let mut best = (0.0, Self::Text);
        for (weight, format) in wishes.filter_map(wish) {
            // The first of equals: browsers put what they want most in front.
            if weight > best.0 {
                best = (weight, format);
            }
        }
        best.1
    }
}

/// One entry of `Accept`: `text/html;q=0.9`.
fn wish(entry: &str) -> Option<(f32, Format)> {
    let mut parts = entry.split(';').map(str::trim);
    let format = match parts.next()?.to_ascii_lowercase().as_str() {
        "text/html" => Format::Html,
        "application/json" | "application/problem+json" => Format::Json,
        "text/plain" | "text/*" | "*/*" => Format::Text,
        _ => return None,
    };
    let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse().ok())?;
    Some((weight, format))
}

/// The whole body, of at most `limit` bytes, within `patience`.
pub(super) async fn body(body: Incoming, limit: usize, patience: Duration) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("a body may have {limit} bytes (admin.max_body in jobsd.toml)");
        // What the client still sends is not read, so the connection cannot go on.
        Problem::new(ProblemKind::TooLarge, detail).with(header::CONNECTION, header::HeaderValue::from_static("close"))
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let read = tokio::time::timeout(patience, Limited::new(body, limit).collect()).await;
    match read {
        Err(_) => Err(Problem::new(ProblemKind::SlowBody, format!("the body did not come within {patience:?}"))),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Problem::new(ProblemKind::BadRequest, format!("read the body: {error}"))),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
    }
}

/// The body as JSON, whatever its content type says: `curl -d @job.json` calls it a form.
pub(super) fn json(body: &[u8]) -> Result<Value, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        let detail = r#"the body is empty; send {"task": "NAME", "args": {…}}"#;
        return Err(Problem::new(ProblemKind::MalformedJson, detail));
    }
    // The error ends in "at line 3 column 7".
    serde_json::from_slice(body).map_err(|error| Problem::new(ProblemKind::MalformedJson, error.to_string()))
}

/// A body that may be left out.
pub(super) fn json_if_any(body: &[u8]) -> Result<Option<Value>, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) { Ok(None) } else { json(body).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_follows_accept() {
        let cases = [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("application/json", Format::Json),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format::Html),
            ("text/html;q=0.5, application/json;q=0.9", Format::Json),
            ("application/json;q=0, */*;q=0.1", Format::Text),
            ("image/png", Format::Text),
            ("text/html;q=nonsense", Format::Text),
        ];
        for (accept, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().expect("a header value"));
            assert_eq!(Format::of(&headers), expected, "{accept}");
        }
        assert_eq!(Format::of(&HeaderMap::new()), Format::Text);
    }
}
