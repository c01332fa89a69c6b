//! Nobody serves: who waits for it, and who goes on with others.

use super::*;
use crate::testing::attempt::outage;

/// Who waits for a service spends no attempt while it serves nobody; what it says of one request is that request's.
#[tokio::test]
async fn a_service_that_is_waited_for_is_down_or_refuses() {
    let wait = |url: &str| HttpStep { when_down: WhenDown::Wait, ..step("GET", url) };
    for (status, asks, waits) in [
        (502, None, None),
        (503, None, None),
        (503, Some("7"), Some(7)),
        (504, None, None),
        (429, Some("30"), Some(30)),
    ] {
        let server = Server::start(move |_| {
            asks.into_iter().fold(Answer::new(status, "because"), |answer, asks| answer.with("retry-after", asks))
        })
        .await;
        let (failed, retry_after) = outage(call(wait(&server.url()), Value::Null).await);
        assert_eq!((failed.kind, retry_after), (format!("Http{status}"), waits.map(Duration::from_secs)));
        assert_eq!(failed.detail.as_deref(), Some("because"));
    }
    for status in [400, 404, 408, 425, 429, 500, 501] {
        let server = Server::start(move |_| Answer::new(status, "")).await;
        assert_eq!(failure(call(wait(&server.url()), Value::Null).await).kind, format!("Http{status}"));
    }
    let (failed, _) = outage(call(wait("http://127.0.0.1:1/"), Value::Null).await);
    assert_eq!(failed.kind, "HttpConnectError");
    let refused = failure(call(wait("http://169.254.169.254/{{ x | safe }}"), json!({"x": "a\r\n"})).await);
    assert_eq!(refused.kind, "InvalidRequest");
}

/// A receiver that is gone used to cost each of its jobs the whole wait for a connection, and the queue its slots.
#[tokio::test]
async fn a_host_that_cannot_be_reached_is_left_alone_and_no_other() {
    fixture::tls_provider();
    let dir = tempfile::tempdir().expect("a temp dir");
    let handlers = Handlers::new(&fixture::config(dir.path())).expect("the handlers are built");
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let [gone, mute] = [1, silent.local_addr().expect("an address").port()].map(|port| format!("127.0.0.1:{port}"));
    let server = Server::start(|_| Answer::new(503, "")).await;
    let task = |authority: &str| {
        let timeout = Some(Duration::from_millis(50));
        fixture::task(vec![Step::Http(HttpStep { timeout, ..step("GET", &format!("http://{authority}/")) })])
    };
    for (authority, kind) in [(&gone, "HttpConnectError"), (&mute, "HttpTimeout")] {
        for _ in 0..3 {
            let failed = failure(attempt::perform(&handlers, &task(authority), Value::Null).await);
            assert_eq!(failed.kind, kind);
        }
        let Outcome::Snoozed { delay, reason } = attempt::perform(&handlers, &task(authority), Value::Null).await
        else {
            panic!("it is asked once more")
        };
        assert!(delay.is_some_and(|delay| (1..=5).contains(&delay.as_secs())), "{delay:?}");
        let words = format!("{authority} could not be reached by the last requests to it, so it is left alone for ");
        assert!(reason.starts_with(&words), "{reason}");
    }
    let place = server.url();
    let there = task(place.strip_prefix("http://").expect("a URL"));
    for _ in 0..5 {
        assert_eq!(failure(attempt::perform(&handlers, &there, Value::Null).await).kind, "Http503", "it answers");
    }
    assert_eq!(server.seen().len(), 5);
}
