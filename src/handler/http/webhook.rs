//! A webhook of an RQ producer: the request that a job's arguments describe, word by word. What stands in them is a
//! stranger's: nothing is a template, and the address has to be one that strangers may name.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{HttpError, Manner, Request, url};
use crate::config::WhenDown;
use crate::job::Args;

/// As many redirects as Python's `urlopen` follows.
const REDIRECTS: u8 = 10;

/// The arguments, as the intake of RQ writes them.
#[derive(Deserialize)]
struct Arguments {
    url: String,
    method: String,
    headers: Map<String, Value>,
    body: Option<String>,
    /// In seconds.
    timeout: u64,
}

pub(super) fn read(args: &Args) -> Result<(Manner<'static>, Request), HttpError> {
    let read = serde_json::from_value(Value::Object(args.clone()));
    let Arguments { url: address, method, headers, body, timeout } =
        read.map_err(|error| HttpError::Request(format!("the arguments are not those of a webhook: {error}")))?;
    let manner = Manner {
        timeout: Some(Duration::from_secs(timeout)),
        redirects: REDIRECTS,
        snooze: &[],
        when_down: WhenDown::Retry,
    };
    let method =
        Method::from_bytes(method.as_bytes()).map_err(|_| HttpError::Request(format!("`{method}` is not a method")))?;
    let headers = all_headers(&headers, body.is_some())?;
    Ok((manner, Request { method, url: url(&address)?, trusted: false, headers, body }))
}

fn all_headers(given: &Map<String, Value>, with_body: bool) -> Result<HeaderMap, HttpError> {
    let mut headers = HeaderMap::new();
    if with_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    for (name, value) in given {
        let key = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| HttpError::Request(format!("`{name}` is not a header's name")))?;
        // How long the body is the client says itself; another word would make two requests of one.
        if key == CONTENT_LENGTH || key == TRANSFER_ENCODING {
            continue;
        }
        let value = value.as_str().and_then(|value| HeaderValue::from_str(value).ok()).ok_or_else(|| {
            HttpError::Request(format!("the value of `{name}` is not a text of ASCII without control characters"))
        })?;
        headers.insert(key, value);
    }
    Ok(headers)
}
