//! Requests to a local server that remembers them.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::config::Step;
use crate::handler::{Attempt, Handlers, Notepad, Steps};
use crate::job::{Outcome, Retryable};
use crate::testing::fixture::{self, template};
use crate::testing::http::{Answer, Server};

fn step(method: &str, url: &str) -> HttpStep {
    HttpStep { method: method.into(), url: template(url), headers: Vec::new(), body: None, snooze: Vec::new() }
}

async fn call(step: HttpStep, args: Value) -> Outcome {
    fixture::tls_provider();
    let dir = tempfile::tempdir().expect("a temp dir");
    let handlers = Handlers::new(&fixture::config(dir.path())).expect("the handlers are built");
    let task = fixture::task(vec![Step::Http(step)]);
    handlers
        .perform(&Attempt {
            job: &fixture::job(args),
            task: &task,
            attempt: 1,
            steps: Steps::default(),
            notepad: Notepad::default(),
        })
        .await
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failure(failure) => failure,
        other => panic!("expected a failure, got {other:?}"),
    }
}

#[tokio::test]
async fn the_request_is_what_the_step_says() {
    let server = Server::start(|_| Answer::new(201, r#"{"id": 7}"#)).await;
    let step = HttpStep {
        headers: vec![("X-User".into(), template("u-{{ user }}"))],
        body: Some(fixture::value(json!({"user": "{{ user }}", "text": "for {{ user }}"}))),
        ..step("post", &format!("{}/hook?u={{{{ user }}}}", server.url()))
    };
    let outcome = call(step, json!({"user": 5})).await;
    assert_eq!(outcome, Outcome::Success(json!({"status": 201, "body": {"id": 7}})));
    let seen = &server.seen()[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str(), seen.header("x-user")), ("POST", "/hook?u=5", "u-5"));
    assert_eq!((seen.header("content-type"), seen.json()), ("application/json", json!({"user": 5, "text": "for 5"})));
}

#[tokio::test]
async fn arguments_are_the_body_unless_the_method_has_none() {
    let server = Server::start(|_| Answer::new(200, "plain words")).await;
    let outcome = call(step("PUT", &server.url()), json!({"a": 1})).await;
    assert_eq!(outcome, Outcome::Success(json!({"status": 200, "body": "plain words"})));
    call(step("GET", &server.url()), json!({"a": 1})).await;
    let bodies: Vec<String> = server.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [r#"{"a":1}"#, ""]);
}

#[tokio::test]
async fn statuses_are_sorted() {
    use Retryable::{After, ByPolicy, Never};
    for (status, headers, retry) in [
        (400, None, Never),
        (404, None, Never),
        (408, None, ByPolicy),
        (425, None, ByPolicy),
        (429, Some(("retry-after", "120")), After(Duration::from_secs(120))),
        (503, Some(("retry-after", "7")), After(Duration::from_secs(7))),
        (500, None, ByPolicy),
        (302, Some(("location", "http://127.0.0.1:1/else")), Never),
    ] {
        let server = Server::start(move |_| {
            let answer = Answer::new(status, "because");
            headers.into_iter().fold(answer, |answer, (name, value)| answer.with(name, value))
        })
        .await;
        let failed = failure(call(step("GET", &server.url()), Value::Null).await);
        assert_eq!((failed.kind, failed.retry), (format!("Http{status}"), retry));
        assert!(failed.message.contains(&status.to_string()), "{}", failed.message);
        assert_eq!(failed.detail.as_deref(), Some("because"));
        assert_eq!(server.seen().len(), 1, "a redirect is not followed");
    }
}

#[tokio::test]
async fn statuses_that_the_step_names_put_the_job_off() {
    for (status, header, delay) in [(202, None, None), (429, Some("120"), Some(Duration::from_secs(120)))] {
        let server = Server::start(move |_| {
            header.into_iter().fold(Answer::new(status, ""), |answer, value| answer.with("retry-after", value))
        })
        .await;
        let step = HttpStep { snooze: vec![202, 429], ..step("GET", &server.url()) };
        match call(step, Value::Null).await {
            Outcome::Snoozed { delay: asked, reason } => {
                assert_eq!(asked, delay);
                assert!(reason.starts_with(&format!("127.0.0.1 answered {status}")), "{reason}");
            }
            other => panic!("{status}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn bodies_are_bounded() {
    let server = Server::start(|_| Answer::new(200, "x".repeat(MAX_BODY + 1))).await;
    match call(step("GET", &server.url()), Value::Null).await {
        Outcome::Success(result) => {
            assert_eq!(result["body"].as_str().map(str::len), Some(MAX_BODY));
            assert_eq!(result["truncated"], true);
        }
        other => panic!("expected success, got {other:?}"),
    }
}

#[tokio::test]
async fn no_argument_can_write_a_header_or_another_scheme() {
    let asked = std::sync::Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let server = Server::start(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Answer::new(200, "")
    })
    .await;
    let header = HttpStep { headers: vec![("X-A".into(), template("{{ x }}"))], ..step("GET", &server.url()) };
    for (step, message) in [
        (header, "the value of `X-A` holds a line break or another control character"),
        (
            step("GET", &format!("{}/{{{{ x }}}}", server.url())),
            "the URL holds a line break or another control character",
        ),
        (step("GET", "file:///etc/passwd"), "the URL starts with `file:`, not with `http:` or `https:`"),
        (step("GE T", &server.url()), "`GE T` is not a method"),
    ] {
        let failed = failure(call(step, json!({"x": "a\r\nHost: evil"})).await);
        assert_eq!(
            (failed.message, failed.retry),
            (format!("failed to build the request: {message}"), Retryable::Never)
        );
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn nobody_there_is_worth_another_attempt() {
    let failed = failure(call(step("GET", "http://user:hunter2@127.0.0.1:1/?token=s3cret"), Value::Null).await);
    assert_eq!((failed.kind.as_str(), failed.retry), ("HttpConnectError", Retryable::ByPolicy));
    assert!(failed.message.contains("refused"), "{}", failed.message);
    assert!(!failed.message.contains("s3cret") && !failed.message.contains("hunter2"), "{}", failed.message);
}
