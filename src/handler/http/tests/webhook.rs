//! Webhooks: the request is what the arguments say, and they are a stranger's.

use super::*;

async fn webhook(http: config::Http, args: Value) -> Outcome {
    fixture::tls_provider();
    let dir = tempfile::tempdir().expect("a temp dir");
    let handlers = Handlers::new(&Config { http, ..fixture::config(dir.path()) }).expect("the handlers are built");
    attempt::perform(&handlers, &fixture::task(vec![Step::Webhook]), args).await
}

fn loopback() -> config::Http {
    let allow_private = vec![config::AllowPrivate::parse("127.0.0.1").expect("an address")];
    config::Http { allow_private, ca_file: None }
}

#[tokio::test]
async fn the_request_is_what_the_arguments_say() {
    let server = Server::start(|_| Answer::new(200, "")).await;
    let url = format!("{}/done?x={{{{ job.id }}}}", server.url());
    let plain = json!({"url": url, "method": "GET", "headers": {}, "body": null, "timeout": 5});
    let headers = json!({"Content-type": "text/x", "X-Own": "{{ job.id }}", "content-Length": "3", "Transfer-Encoding": "chunked"});
    let post = json!({"url": url, "method": "POST", "headers": headers, "body": "{\"a\": 1}", "timeout": 5});
    for args in [plain, post] {
        assert_eq!(webhook(loopback(), args).await, Outcome::Success(json!({"status": 200, "body": ""})));
    }
    let seen = server.seen();
    let [get, post] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((get.method.as_str(), get.body.as_str(), get.header("content-type")), ("GET", "", ""));
    assert!(get.path.starts_with("/done?x="), "{}", get.path);
    assert!(!get.path.contains("job-"), "nothing in it is a template: {}", get.path);
    assert_eq!((post.method.as_str(), post.body.as_str()), ("POST", "{\"a\": 1}"));
    assert_eq!((post.header("content-type"), post.header("x-own")), ("text/x", "{{ job.id }}"));
    assert_eq!(post.header("transfer-encoding"), "");
}

#[tokio::test]
async fn strangers_reach_public_addresses_alone() {
    let server = Server::start(|_| Answer::new(200, "")).await;
    let args = json!({"url": server.url(), "method": "GET", "headers": {}, "body": null, "timeout": 5});
    let failed = failure(webhook(config::Http::default(), args).await);
    assert_eq!((failed.kind.as_str(), failed.retry), ("HttpAddressRefused", Retryable::Never));
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn what_cannot_be_sent_is_not_tried_again() {
    let args = json!({"url": "http://127.0.0.1/", "method": "GET", "headers": {}, "body": null, "timeout": 5});
    let changed = |name: &str, value: Value| {
        let mut args = args.clone();
        args[name] = value;
        args
    };
    let cases = [
        changed("url", json!("ftp://example.com/")),
        changed("url", json!(7)),
        changed("method", json!("G T")),
        changed("headers", json!({"X": "a\r\nB: c"})),
        changed("headers", json!({"X Y": "a"})),
        json!({}),
    ];
    for args in cases {
        let failed = failure(webhook(loopback(), args.clone()).await);
        assert_eq!((failed.kind.as_str(), failed.retry), ("InvalidRequest", Retryable::Never), "{args}");
    }
}
