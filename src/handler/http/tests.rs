//! Requests to a local server that remembers them.

mod down;
mod hostile;
mod webhook;

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::config::{AllowPrivate, Config, SigningKey, Step};
use crate::handler::Handlers;
use crate::job::{Outcome, Retryable};
use crate::testing::attempt::{self, failure};
use crate::testing::certificate;
use crate::testing::fixture::{self, template};
use crate::testing::http::{Answer, Seen, Server};

fn step(method: &str, url: &str) -> HttpStep {
    HttpStep {
        method: method.into(),
        url: template(url),
        headers: Vec::new(),
        body: None,
        snooze: Vec::new(),
        redirects: 0,
        when_down: WhenDown::Retry,
        timeout: None,
        signing_keys: Vec::new(),
    }
}

async fn call(step: HttpStep, args: Value) -> Outcome {
    call_with(config::Http::default(), step, args).await
}

async fn call_with(http: config::Http, step: HttpStep, args: Value) -> Outcome {
    fixture::tls_provider();
    let dir = tempfile::tempdir().expect("a temp dir");
    let handlers = Handlers::new(&Config { http, ..fixture::config(dir.path()) }).expect("the handlers are built");
    let task = fixture::task(vec![Step::Http(step)]);
    attempt::perform(&handlers, &task, args).await
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
        (header, "the value of `X-A` holds a line break, another control character or a letter outside ASCII"),
        (
            step("GET", &format!("{}/{{{{ x | safe }}}}", server.url())),
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

/// What argues with the URL from inside an argument: it stays in its place, or is refused.
#[tokio::test]
async fn no_argument_leaves_its_place_in_the_url() {
    let server = Server::start(|_| Answer::new(200, "")).await;
    let base = server.url();
    let hostile = [
        "a/b",
        "a?b=c",
        "a#b",
        "a&admin=1",
        "a%2Fb",
        "a b",
        "@evil.test",
        "http://evil.test/",
        "\\\\evil.test",
        ";x=y",
        "a\r\nX-Evil: 1",
        "a\0b",
        "ä",
        "'\"<>",
        "{{ 7*7 }}",
        "${HOME}",
        "$(id)",
    ];
    for text in hostile {
        let url = format!("{base}/users/{{{{ x }}}}/mail?to={{{{ x }}}}");
        let outcome = call(step("GET", &url), json!({"x": text})).await;
        assert!(matches!(outcome, Outcome::Success(_)), "{text}: {outcome:?}");
        let path = server.seen().pop().expect("a request").path;
        let (path, query) = path.split_once('?').expect("a query");
        let piece = path.strip_prefix("/users/").and_then(|rest| rest.strip_suffix("/mail")).expect("its place");
        assert!(!piece.contains(['/', '#', ';']) && query == format!("to={piece}"), "{text}: {path}?{query}");
    }
    let asked = server.seen().len();
    for text in ["..", ".", "%2e%2e", ".%2E"] {
        for place in ["/users/{{ x }}/mail", "/users/{{ x | safe }}", "/files/{{ x | urlencode }}/a"] {
            let outcome = call(step("GET", &format!("{base}{place}")), json!({"x": text})).await;
            // A percent sign that was encoded means itself, and no dot.
            let harmless = text.contains('%') && !place.contains("safe");
            match outcome {
                Outcome::Success(_) => assert!(harmless, "{text} in {place}"),
                outcome => assert_eq!(failure(outcome).kind, "InvalidRequest", "{text} in {place}"),
            }
        }
    }
    let urlencoded =
        call(step("GET", &format!("{base}/files/{{{{ x | urlencode }}}}")), json!({"x": "a/../../b"})).await;
    assert_eq!(failure(urlencoded).kind, "InvalidRequest");
    assert!(server.seen()[asked..].iter().all(|seen| seen.path.contains("%252")), "{:?}", server.seen());
}

/// Everything that leads to the machine itself or to its network, unless the operator says that it may.
#[tokio::test]
async fn a_host_from_an_argument_is_not_private() {
    let server = Server::start(|_| Answer::new(200, "secret")).await;
    let port = server.url().rsplit(':').next().expect("a port").to_owned();
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0x7f.1",
        "127.0.0.1.",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "0.0.0.0",
        "0",
        "[::]",
        "\u{2460}27.0.0.1",
        "127\u{3002}0\u{3002}0\u{3002}1",
        "user@127.0.0.1",
        "8.8.8.8@127.0.0.1",
    ] {
        for (url, x) in
            [("{{ x }}", format!("http://{host}:{port}/")), ("http://{{ x | safe }}/", format!("{host}:{port}"))]
        {
            let failed = failure(call(step("GET", url), json!({"x": x})).await);
            assert_eq!(
                (failed.kind.as_str(), failed.retry),
                ("HttpAddressRefused", Retryable::Never),
                "{x}: {}",
                failed.message
            );
        }
    }
    for x in [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://10.0.0.1/",
        "http://100.100.100.200/",
    ] {
        assert_eq!(failure(call(step("GET", "{{ x }}"), json!({"x": x})).await).kind, "HttpAddressRefused", "{x}");
    }
    assert!(server.seen().is_empty(), "somebody was asked");

    let arg = json!({"x": format!("http://localhost:{port}/")});
    for allowed in ["localhost", "127.0.0.0/8", "0.0.0.0/0"] {
        let http = config::Http { allow_private: vec![AllowPrivate::parse(allowed).expect("an entry")], ca_file: None };
        let outcome = call_with(http, step("GET", "{{ x }}"), arg.clone()).await;
        assert_eq!(outcome, Outcome::Success(json!({"status": 200, "body": "secret"})), "{allowed}");
    }
    let outcome = call(step("GET", &format!("http://localhost:{port}/{{{{ 1 }}}}")), Value::Null).await;
    assert_eq!(outcome, Outcome::Success(json!({"status": 200, "body": "secret"})), "the operator's own word");
}

#[tokio::test]
async fn redirects_are_followed_as_far_as_the_step_says_and_never_to_a_private_address() {
    let inner = Server::start(|_| Answer::new(200, "secret")).await;
    let inner_url = inner.url();
    let server = Server::start(move |seen: &Seen| match seen.path.as_str() {
        "/once" => Answer::new(307, "").with("location", "/twice"),
        "/twice" => Answer::new(308, "").with("location", "/end"),
        "/see" => Answer::new(303, "").with("location", "/end"),
        "/in" => Answer::new(307, "").with("location", &format!("{inner_url}/")),
        "/name" => Answer::new(307, "").with("location", &format!("{}/", inner_url.replace("127.0.0.1", "localhost"))),
        "/file" => Answer::new(307, "").with("location", "file:///etc/passwd"),
        "/loop" => Answer::new(307, "").with("location", "/loop"),
        _ => Answer::new(200, seen.body.clone()),
    })
    .await;
    let to = |path: &str, redirects| HttpStep { redirects, ..step("POST", &format!("{}{path}", server.url())) };
    let outcome = call(to("/once", 2), json!({"a": 1})).await;
    assert_eq!(outcome, Outcome::Success(json!({"status": 200, "body": {"a": 1}})), "method and body are kept");
    for (path, redirects, kind, says) in [
        ("/once", 1, "Http308", "allows no further one"),
        ("/once", 0, "Http307", "allows no further one"),
        ("/see", 5, "Http303", "it would make the request a GET"),
        ("/file", 5, "Http307", "leaves https"),
        ("/loop", 10, "Http307", "allows no further one"),
        ("/in", 5, "HttpAddressRefused", "not a public address"),
        ("/name", 5, "HttpAddressRefused", "not a public address"),
    ] {
        let failed = failure(call(to(path, redirects), json!({"a": 1})).await);
        assert_eq!((failed.kind.as_str(), failed.retry), (kind, Retryable::Never), "{path}: {}", failed.message);
        assert!(failed.message.contains(says), "{path}: {}", failed.message);
    }
    assert!(inner.seen().is_empty(), "nobody inside was asked");
    let get = HttpStep { redirects: 1, ..step("GET", &format!("{}/see", server.url())) };
    assert_eq!(call(get, Value::Null).await, Outcome::Success(json!({"status": 200, "body": ""})));
}

#[tokio::test]
async fn another_origin_gets_no_header_that_opens_doors() {
    let other = Server::start(|_| Answer::new(200, "")).await;
    let target = other.url();
    let server = Server::start(move |_| Answer::new(307, "").with("location", &target)).await;
    let http =
        config::Http { allow_private: vec![AllowPrivate::parse("127.0.0.1").expect("an address")], ca_file: None };
    let step = HttpStep {
        redirects: 1,
        headers: vec![("Authorization".into(), template("Bearer s3cret")), ("X-Api-Key".into(), template("s3cret"))],
        signing_keys: vec![key(OLD)],
        ..step("POST", &server.url())
    };
    call_with(http, step, json!({"a": 1})).await;
    let (first, second) = (&server.seen()[0], &other.seen()[0]);
    assert_eq!((first.header("authorization"), first.header("x-api-key")), ("Bearer s3cret", "s3cret"));
    assert_eq!((second.header("authorization"), second.header("x-api-key")), ("", ""));
    assert_eq!((second.header("content-type"), second.body.as_str()), ("application/json", r#"{"a":1}"#));
    assert_eq!(second.header("webhook-signature"), first.header("webhook-signature"));
}

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn key(text: &str) -> SigningKey {
    SigningKey::parse(text).expect("a key")
}

/// Verified here by OpenSSL; tests/it has the library that receivers use.
#[tokio::test]
async fn a_signature_is_of_the_body_that_is_sent_and_the_id_is_the_jobs() {
    let server = Server::start(|_| Answer::new(500, "")).await;
    let step = HttpStep { signing_keys: vec![key(NEW), key(OLD)], ..step("POST", &server.url()) };
    for _ in 0..2 {
        failure(call(step.clone(), json!({"text": "ä {{ x }}", "n": 1.5})).await);
    }
    let seen = server.seen();
    assert_eq!(seen[0].header("webhook-id"), seen[1].header("webhook-id"), "a receiver knows the repeated one");
    assert_eq!(seen[0].header("webhook-id"), fixture::JOB_ID);
    let now = clock::now().as_millis() / 1000;
    let at: u64 = seen[0].header("webhook-timestamp").parse().expect("seconds");
    assert!(now.abs_diff(at) < 60, "{at}");
    let signatures: Vec<&str> = seen[0].header("webhook-signature").split(' ').collect();
    assert_eq!(signatures.len(), 2);
    let signed = format!("{}.{at}.{}", fixture::JOB_ID, seen[0].body);
    for (secret, signature) in [NEW, OLD].into_iter().zip(signatures) {
        let hex: String = key(secret).expose().iter().map(|byte| format!("{byte:02x}")).collect();
        let script =
            format!("printf %s \"$1\" | openssl dgst -sha256 -mac HMAC -macopt hexkey:{hex} -binary | base64 -w0");
        let made =
            std::process::Command::new("/bin/sh").args(["-c", &script, "sh", &signed]).output().expect("it runs");
        assert_eq!(signature, format!("v1,{}", String::from_utf8_lossy(&made.stdout)));
    }
}

#[tokio::test]
async fn a_text_is_sent_as_it_is_where_the_step_says_so() {
    let server = Server::start(|_| Answer::new(200, "")).await;
    let xml = HttpStep {
        headers: vec![("Content-Type".into(), template("application/xml"))],
        body: Some(fixture::value(json!("<a>{{ x }}</a>"))),
        ..step("POST", &server.url())
    };
    call(xml, json!({"x": 1})).await;
    let json = HttpStep { body: Some(fixture::value(json!("say \"{{ x }}\""))), ..step("POST", &server.url()) };
    call(json, json!({"x": 1})).await;
    let bodies: Vec<String> = server.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, ["<a>1</a>", r#""say \"1\"""#]);
}

#[tokio::test]
async fn a_server_that_never_comes_to_an_end_is_left() {
    // It answers at once, and then a byte from time to time, for ever.
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await;
                while stream.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
    });
    let limit = Duration::from_millis(300);
    let step = HttpStep { timeout: Some(limit), ..step("GET", &format!("http://127.0.0.1:{port}/")) };
    let failed = failure(call(step, Value::Null).await);
    serving.abort();
    assert_eq!((failed.kind.as_str(), failed.retry), ("HttpTimeout", Retryable::ByPolicy));
    assert_eq!(failed.message, "failed to call 127.0.0.1: there was no whole answer within 300ms");
}

#[tokio::test]
async fn a_certificate_is_trusted_where_its_authority_is_named() {
    fixture::tls_provider();
    let dir = tempfile::tempdir().expect("a temp dir");
    certificate::make(dir.path());
    let port = tls_server(dir.path());
    let url = format!("https://127.0.0.1:{port}/");
    let failed = failure(call(step("GET", &url), Value::Null).await);
    assert_eq!(failed.kind, "HttpConnectError");
    assert!(failed.message.contains("certificate"), "{}", failed.message);
    let http = config::Http { ca_file: Some(dir.path().join("server.crt")), ..config::Http::default() };
    let outcome = call_with(http, step("GET", &url), Value::Null).await;
    assert_eq!(outcome, Outcome::Success(json!({"status": 200, "body": "hi"})));
    let empty = config::Http { ca_file: Some(dir.path().join("server.key")), ..config::Http::default() };
    let error = Handlers::new(&Config { http: empty, ..fixture::config(dir.path()) }).expect_err("it is refused");
    assert!(error.to_string().starts_with("prepare the HTTP client: read the certificates in "), "{error}");
}

/// Answers two connections with `hi`, over TLS.
fn tls_server(dir: &std::path::Path) -> u16 {
    use std::io::{Read as _, Write as _};

    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = vec![CertificateDer::from_pem_file(dir.join("server.crt")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).expect("a key");
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("they fit");
    let config = std::sync::Arc::new(config);
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().take(2).flatten() {
            let mut connection = rustls::ServerConnection::new(config.clone()).expect("a connection");
            let mut tls = rustls::Stream::new(&mut connection, &mut stream);
            let _ = tls.read(&mut [0; 4096]);
            let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi");
        }
    });
    port
}
