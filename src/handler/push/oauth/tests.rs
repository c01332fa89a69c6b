//! Google's token endpoint, as it grants and as it refuses.

use std::sync::Arc;

use super::*;
use crate::config::Step;
use crate::handler::Handlers;
use crate::handler::push::tests::{ARGS, account, devices, fcm, google, perform, step, to_fcm};
use crate::job::Outcome;
use crate::testing::attempt::{self, outage};
use crate::testing::fixture;
use crate::testing::http::{Answer, Seen, Server};

/// Twenty jobs that start at once used to ask for a token each when the one there was had run out.
#[tokio::test]
async fn jobs_that_start_at_once_share_one_access_token() {
    let google = google(|_| Answer::new(200, "{}")).await;
    perform(&google.config, vec![devices(&["phone"])]).await;
    let handlers = Arc::new(Handlers::new(&google.config).expect("the handlers are built"));
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let handlers = Arc::clone(&handlers);
        running.spawn(async move {
            let task = fixture::task(vec![Step::Push(Box::new(step()))]);
            attempt::perform(&handlers, &task, serde_json::from_str(ARGS).expect("JSON")).await
        });
    }
    for outcome in running.join_all().await {
        assert_eq!(outcome, Outcome::Success(json!({"sent": 1, "failed": 0})));
    }
    let grants = google.server.seen().iter().filter(|seen| seen.path == "/token").count();
    assert_eq!((grants, to_fcm(&google.server).len()), (1, 20));
}

/// A token that Google has taken back before its end is asked for once more; one that stays refused is a failure.
#[tokio::test]
async fn a_token_that_was_taken_back_is_renewed_once() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let server = Server::start(|request: &Seen| match request.path.as_str() {
        "/token" => Answer::new(200, r#"{"access_token": "ya29.next", "expires_in": 3599, "token_type": "Bearer"}"#),
        _ => Answer::new(
            401,
            r#"{"error": {"status": "UNAUTHENTICATED", "message": "Request had invalid authentication credentials."}}"#,
        ),
    })
    .await;
    let mut config = fixture::config(dir.path());
    config.push = fcm(account(dir.path(), &format!("{}/token", server.url())), &server.url());
    let (failed, _) = outage(perform(&config, vec![devices(&["phone"]), Step::Push(Box::new(step()))]).await);
    assert_eq!(failed.kind, "PushCredentialsError");
    let paths: Vec<String> = server.seen().into_iter().map(|seen| seen.path).collect();
    let send = "/v1/projects/hireme/messages:send";
    assert_eq!(paths, ["/token", send, "/token", send]);
}

/// What the token's endpoint says decides whether the account is wrong, or Google is not there.
#[tokio::test]
async fn refusals_of_the_token_endpoint_are_sorted() {
    const GRANT: &str = r#"{"error": "invalid_grant", "error_description": "Invalid JWT Signature."}"#;
    for (status, body, kind, waits, says) in [
        (400, GRANT, "PushCredentialsError", None, "invalid_grant: Invalid JWT Signature."),
        (503, "", "PushStatusError", Some(7), "503"),
        (429, "", "PushStatusError", Some(7), "429"),
        (200, "<html>", "PushConnectError", None, "the answer holds no token"),
    ] {
        let dir = tempfile::tempdir().expect("a temp dir");
        let server = Server::start(move |_: &Seen| Answer::new(status, body).with("retry-after", "7")).await;
        let mut config = fixture::config(dir.path());
        config.push = fcm(account(dir.path(), &format!("{}/token", server.url())), &server.url());
        let outcome = perform(&config, vec![devices(&["phone"]), Step::Push(Box::new(step()))]).await;
        let (failed, retry_after) = outage(outcome);
        assert_eq!((failed.kind.as_str(), retry_after), (kind, waits.map(Duration::from_secs)), "{}", failed.message);
        assert!(failed.message.contains(says), "{}", failed.message);
    }
}
