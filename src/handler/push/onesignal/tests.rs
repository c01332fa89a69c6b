//! A local server that plays OneSignal, and refuses what its documentation does not allow.

use super::*;
use crate::config::{self, PushProvider, PushStep, SqlStep, Step};
use crate::handler::push::tests::{Google, devices, perform, step};
use crate::job::{Outcome, Retryable};
use crate::testing::attempt::{failure, outage};
use crate::testing::fixture;
use crate::testing::http::{Answer, Seen, Server};

const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";

/// OneSignal, which refuses what its page on the request does not allow.
async fn onesignal(target: OneSignalTarget, answer: impl Fn(&Value) -> Answer + Send + Sync + 'static) -> Google {
    let dir = tempfile::tempdir().expect("a temp dir");
    let server = Server::start(move |request: &Seen| {
        let body = request.json();
        let targets =
            ["include_aliases", "include_subscription_ids"].iter().filter(|key| !body[*key].is_null()).count();
        let key = body["idempotency_key"].as_str().unwrap_or_default();
        let right = (request.method.as_str(), request.path.as_str()) == ("POST", "/notifications?c=push")
            && request.header("content-type") == "application/json"
            && body["app_id"] == APP
            && body["target_channel"] == "push"
            && body["contents"]["en"].is_string()
            && body["headings"]["en"].is_string()
            && uuid::Uuid::parse_str(key).is_ok_and(|uuid| uuid.get_version_num() == 4)
            && targets == 1;
        match (request.header("authorization"), right) {
            ("Key os_v2_app_good", true) => answer(&body),
            ("Key os_v2_app_good", false) => Answer::new(400, r#"{"errors": ["not as documented"]}"#),
            _ => Answer::new(
                403,
                r#"{"errors": ["Access denied.  Please include an 'Authorization: ...' header with a valid API key"]}"#,
            ),
        }
    })
    .await;
    let mut config = fixture::config(dir.path());
    config.push = config::Push {
        provider: PushProvider::OneSignal(config::OneSignal {
            app_id: APP.into(),
            api_key: config::Secret::new("os_v2_app_good"),
            endpoint: server.url(),
            timeout: Duration::from_secs(5),
            target,
        }),
        tokens_query: Some(fixture::statement(
            "SELECT token FROM device_tokens WHERE user_id = :user_id ORDER BY token",
        )),
        remove_device: Some(fixture::statement("DELETE FROM device_tokens WHERE token = :token")),
    };
    Google { dir, server, config }
}

fn by_user() -> OneSignalTarget {
    OneSignalTarget::User { alias: "external_id".into() }
}

#[tokio::test]
async fn onesignal_is_asked_as_its_page_says_and_by_the_same_key_each_time() {
    let world = onesignal(by_user(), |_| Answer::new(200, r#"{"id": "b98881cc-1e94-4366-bbd9-db8f3429292b"}"#)).await;
    let step = PushStep { onesignal: Some(fixture::value(json!({"ttl": 60, "priority": 10}))), ..step() };
    for _ in 0..2 {
        let outcome = perform(&world.config, vec![Step::Push(Box::new(step.clone()))]).await;
        let id = "b98881cc-1e94-4366-bbd9-db8f3429292b";
        assert_eq!(outcome, Outcome::Success(json!({"sent": 1, "failed": 0, "id": id})));
    }
    let seen: Vec<Value> = world.server.seen().iter().map(Seen::json).collect();
    assert_eq!(seen[0], seen[1], "OneSignal tells a repeated request by its idempotency key");
    assert_eq!(seen[0]["include_aliases"], json!({"external_id": ["5"]}));
    assert_eq!(seen[0]["headings"], json!({"en": "New like"}));
    assert_eq!(seen[0]["contents"], json!({"en": "Ann likes your post"}));
    assert_eq!(seen[0]["data"], json!({"post_id": 17, "kind": "like", "extra": {"a": 1}}));
    assert_eq!((&seen[0]["ttl"], &seen[0]["priority"]), (&json!(60), &json!(10)));
    assert!(world.dir.path().exists());
}

#[tokio::test]
async fn onesignal_is_given_subscriptions_and_unknown_ones_are_removed() {
    let world = onesignal(OneSignalTarget::Devices, |body| {
        assert_eq!(body["include_subscription_ids"], json!(["gone", "phone", "tablet"]));
        Answer::new(200, r#"{"id": "b98881cc", "errors": {"invalid_player_ids": ["gone"]}}"#)
    })
    .await;
    let outcome =
        perform(&world.config, vec![devices(&["gone", "phone", "tablet"]), Step::Push(Box::new(step()))]).await;
    assert_eq!(outcome, Outcome::Success(json!({"sent": 2, "failed": 1, "id": "b98881cc"})));
    let left = fixture::statement("SELECT token FROM device_tokens ORDER BY token");
    let left = Step::Sql(SqlStep { statements: vec![left], values: Vec::new() });
    let Outcome::Success(left) = perform(&world.config, vec![left]).await else { panic!("it can be read") };
    assert_eq!(left["rows"], json!([{"token": "phone"}, {"token": "tablet"}]));
}

#[tokio::test]
async fn a_notification_for_nobody_is_not_sent() {
    let world = onesignal(by_user(), |_| Answer::new(200, r#"{"id": "b98881cc"}"#)).await;
    for user in [json!("{{ none }}"), json!("")] {
        let step = PushStep { user: fixture::value(user), ..step() };
        let outcome = perform(&world.config, vec![Step::Push(Box::new(step))]).await;
        assert_eq!(outcome, Outcome::Success(json!({"sent": 0, "failed": 0})));
    }
    assert!(world.server.seen().is_empty());
}

#[tokio::test]
async fn answers_of_onesignal_are_sorted() {
    let refused = async |status, body: &'static str, asks: Option<&'static str>| {
        let world = onesignal(by_user(), move |_| {
            asks.into_iter().fold(Answer::new(status, body), |answer, asks| answer.with("retry-after", asks))
        })
        .await;
        perform(&world.config, vec![Step::Push(Box::new(step()))]).await
    };
    let silent = |failed: &crate::job::Failure| {
        assert!(!failed.message.contains("os_v2_app_good"), "{}", failed.message);
    };
    const NOT_ENGLISH: &str = r#"{"errors": ["Message Notifications must have English language content"]}"#;
    for (status, body, kind, retry) in [
        (400, NOT_ENGLISH, "PushRejected", Retryable::Never),
        (429, "", "PushStatusError", Retryable::After(Duration::from_secs(60))),
    ] {
        let failed = failure(refused(status, body, None).await);
        assert_eq!((failed.kind.as_str(), failed.retry), (kind, retry), "{}", failed.message);
        silent(&failed);
    }
    for (status, body, asks, kind, waits) in [
        (403, r#"{"errors": ["denied"]}"#, None, "PushCredentialsError", None),
        (429, r#"{"errors": ["API rate limit exceeded"]}"#, Some("30"), "PushStatusError", Some(30)),
        (503, "", Some("9"), "PushStatusError", Some(9)),
        (502, "<html>", None, "PushStatusError", None),
        (200, "<html>", None, "PushConnectError", None),
    ] {
        let (failed, retry_after) = outage(refused(status, body, asks).await);
        assert_eq!((failed.kind.as_str(), retry_after), (kind, waits.map(Duration::from_secs)), "{}", failed.message);
        silent(&failed);
    }
    let nobody = r#"{"id": "", "errors": ["All included players are not subscribed"]}"#;
    let world = onesignal(by_user(), move |_| Answer::new(200, nobody)).await;
    let outcome = perform(&world.config, vec![Step::Push(Box::new(step()))]).await;
    assert_eq!(outcome, Outcome::Success(json!({"sent": 0, "failed": 1})));
}
