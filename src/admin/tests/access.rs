//! Paths, methods, who may ask, and what the log tells of it.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use super::*;

const TOKEN: &str = "correct-horse-battery";

#[tokio::test]
async fn paths_and_methods() {
    let port = Port::open().await;
    let problem = port.get("/api/v1/job").await.problem(404);
    assert_eq!(problem["detail"], "there is no such path; the nearest is /api/v1/jobs");
    for (method, path, allow) in [
        ("DELETE", "/", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
        ("PUT", "/api/v1/jobs", "GET, HEAD, POST"),
        ("POST", "/api/v1/jobs/x", "GET, HEAD, DELETE"),
        ("DELETE", "/api/v1/queues/emails", "GET, HEAD, PATCH"),
        ("GET", "/api/v1/jobs/x/cancel", "POST"),
        ("HEAD", "/api/v1/reload", "POST"),
        ("BREW", "/livez", "GET, HEAD"),
    ] {
        let reply = port.ask(method, path, &[], "").await;
        assert_eq!((reply.status, reply.header("allow")), (405, allow), "{method} {path}");
    }
    for path in ["/", "/livez", "/readyz", "/metrics", "/health/queues", "/api/v1/queues", "/api/v1/tasks"] {
        let (get, head) = (port.get(path).await, port.ask("HEAD", path, &[], "").await);
        assert_eq!((get.status, head.status, head.body.as_str()), (200, 200, ""), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        assert_ne!(head.header("content-length"), "0", "{path}");
    }
}

#[tokio::test]
async fn a_token_is_asked_of_everyone_but_probes() {
    let port = Port::with(|config, _| config.admin.token = secret(TOKEN)).await;
    let bearer = format!("Bearer {TOKEN}");
    for path in ["/", "/metrics", "/health/queues", "/api/v1/queues", "/api/v1/jobs/x", "/nowhere"] {
        for given in [
            None,
            Some("Bearer wrong"),
            Some("Bearer "),
            Some("Bearer"),
            Some(TOKEN),
            Some("Basic Y29ycmVjdA=="),
            Some("Bearer correct-horse-batterx"),
            Some("Bearer correct-horse-battery2"),
        ] {
            let headers: Vec<(&str, &str)> = given.map(|value| ("Authorization", value)).into_iter().collect();
            let reply = port.ask("GET", path, &headers, "").await;
            reply.problem(401);
            assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"jobsd\"", "{path} {given:?}");
            assert!(!reply.body.contains(TOKEN));
        }
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(port.ask("GET", path, &[("Host", "probe.example")], "").await.status, 200, "{path}");
    }
    // With the token, by any name: that is what it is for.
    for auth in [bearer.as_str(), &format!("bearer  {TOKEN}")] {
        let headers = [("Authorization", auth), ("Host", "jobs.example.org")];
        assert_eq!(port.ask("GET", "/", &headers, "").await.status, 200);
    }
    let write = [("Authorization", bearer.as_str())];
    let job = r#"{"task": "cleanup_old_notifications"}"#;
    assert_eq!(port.ask("POST", "/api/v1/jobs", &write, job).await.status, 201);
    assert_eq!(port.ask("POST", "/api/v1/jobs", &[], job).await.status, 401);
}

#[tokio::test]
async fn without_a_token_only_names_of_this_machine_are_served() {
    let port = Port::open().await;
    for host in ["localhost", "localhost:9180", "127.0.0.1:1", "[::1]:9180", "jobs.localhost"] {
        assert_eq!(port.ask("GET", "/", &[("Host", host)], "").await.status, 200, "{host}");
    }
    for host in ["evil.example", "evil.example:9180", "localhost.evil.example", "10.0.0.1", ""] {
        port.ask("GET", "/", &[("Host", host)], "").await.problem(403);
        assert_eq!(port.ask("GET", "/livez", &[("Host", host)], "").await.status, 200, "{host}");
    }
    let addr = port.addr;
    let absolute = format!("GET http://evil.example/ HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    port.raw(&absolute).await.problem(403);
    port.raw("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await.problem(400);
    let twice = format!("GET / HTTP/1.1\r\nHost: {addr}\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    port.raw(&twice).await.problem(400);
    // No browser speaks 1.0; an old script may.
    assert_eq!(port.raw("GET / HTTP/1.0\r\n\r\n").await.status, 200);
}

#[tokio::test]
async fn pages_of_other_origins_change_nothing() {
    let port = Port::open().await;
    let job = r#"{"task": "cleanup_old_notifications"}"#;
    let own = format!("http://{}", port.addr);
    for origin in ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1", ""] {
        for path in ["/api/v1/jobs", "/api/v1/reload"] {
            port.ask("POST", path, &[("Origin", origin)], job).await.problem(403);
        }
    }
    assert_eq!(port.ask("POST", "/api/v1/jobs", &[("Origin", &own)], job).await.status, 201);
    assert_eq!(
        port.ask("GET", "/", &[("Origin", "http://evil.example")], "").await.status,
        200,
        "reading is not writing"
    );
    assert_eq!(
        port.get("/health/queues").await.json()["queues"]["notifications"]["count"],
        1,
        "only the own page's job"
    );
}

/// Keeps what the log would show.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_has_a_line_for_a_request_and_none_of_its_secrets() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // While there is only one subscriber, tracing asks the thread that comes by a log line first whether anybody wants
    // it, and caches a "no" for all: a second one makes it ask the subscribers, whatever the other tests do.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    // For this thread, which is the whole runtime of this test.
    let _kept = tracing::subscriber::set_default(subscriber);
    let port = Port::with(|config, _| config.admin.token = secret(TOKEN)).await;
    let bearer = format!("Bearer {TOKEN}");
    let job = r#"{"task": "send_password_reset_email", "args": ["a@b.c", "very-secret"], "id": "r"}"#;
    let auth = [("Authorization", bearer.as_str())];
    assert_eq!(port.ask("POST", "/api/v1/jobs", &auth, job).await.status, 201);
    assert_eq!(port.ask("GET", "/api/v1/jobs/r", &auth, "").await.status, 200);
    assert_eq!(port.ask("GET", "/api/v1/jobs?q=very-secret", &auth, "").await.status, 200);
    assert_eq!(port.ask("GET", "/", &[("Authorization", "Bearer near-miss")], "").await.status, 401);
    let log = String::from_utf8(log.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).expect("text");
    let lines: Vec<&str> =
        log.lines().filter(|line| line.contains(module_path!().trim_end_matches("::tests::access"))).collect();
    for told in
        ["method=POST path=\"/api/v1/jobs\" status=201", "path=\"/api/v1/jobs/r\" status=200", "had a wrong token"]
    {
        assert!(lines.iter().any(|line| line.contains(told)), "{told}: {lines:#?}");
    }
    for kept in [TOKEN, "very-secret", "near-miss", "a@b.c"] {
        assert!(!lines.iter().any(|line| line.contains(kept)), "{kept}: {lines:#?}");
    }
}
