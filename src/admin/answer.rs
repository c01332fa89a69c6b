//! What goes back to a client, and the headers that every answer has.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::Full;
use hyper::body::{Bytes, Frame};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::events::Follower;

pub(super) type Answer = Response<Body>;

/// An answer that is known whole, or one that goes on for as long as its client stays.
pub(super) enum Body {
    Whole(Full<Bytes>),
    Events(Events),
}

/// The events of a follower, one batch after another. Nothing runs unless the connection asks for the next one, and all of
/// it goes with the connection.
pub(super) struct Events(Pin<Box<dyn Future<Output = Batch> + Send>>);

/// The next events and the follower that brings those after them; `None` at the end.
type Batch = Option<(Bytes, Follower)>;

impl Events {
    fn of(mut follower: Follower) -> Self {
        Self(Box::pin(async move { follower.next().await.map(|bytes| (bytes, follower)) }))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context),
            Self::Events(events) => events.0.as_mut().poll(context).map(|next| {
                let (bytes, follower) = next?;
                *events = Events::of(follower);
                Some(Ok(Frame::data(bytes)))
            }),
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Events(_) => hyper::body::SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Events(_) => false,
        }
    }
}

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

pub(super) fn events(follower: Follower) -> Answer {
    let mut answer = of(StatusCode::OK, "text/event-stream", Vec::new());
    *answer.body_mut() = Body::Events(Events::of(follower));
    answer
}

pub(super) fn nothing(status: StatusCode) -> Answer {
    of(status, "text/plain; charset=utf-8", Vec::new())
}

pub(super) fn page(body: String) -> Answer {
    let mut answer = of(StatusCode::OK, "text/html; charset=utf-8", body.into_bytes());
    answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    answer
}

pub(super) fn of(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Body::Whole(Full::new(Bytes::from(body))));
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
