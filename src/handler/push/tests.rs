//! Push to the outbox, and to a local server that plays both FCM and Google's token endpoint.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::*;
use crate::config::{Config, SqlStep, Step};
use crate::handler::{Attempt, Done, Handlers, Keep, Steps};
use crate::job::{Outcome, Retryable};
use crate::testing::attempt::{self, failure, outage};
use crate::testing::fixture::{self, JOB_ID, template};
use crate::testing::http::{Answer, Seen, Server};

pub(super) fn step() -> PushStep {
    PushStep {
        user: fixture::value(json!("{{ user_id }}")),
        title: template("New like"),
        body: template("{{ liker_name }} likes your post"),
        data: Some(fixture::value(
            json!({"post_id": "{{ post_id }}", "kind": "like", "extra": {"a": 1}, "none": "{{ none }}"}),
        )),
        android: None,
        apns: None,
        webpush: None,
        onesignal: None,
    }
}

pub(super) const ARGS: &str = r#"{"user_id": 5, "liker_name": "Ann", "post_id": 17, "none": null}"#;

pub(super) async fn perform(config: &Config, steps: Vec<Step>) -> Outcome {
    attempt(config, steps, &Steps::default()).await
}

pub(super) async fn attempt(config: &Config, steps: Vec<Step>, done: &Steps) -> Outcome {
    fixture::tls_provider();
    let handlers = Handlers::new(config).expect("the handlers are built");
    let args = serde_json::from_str(ARGS).expect("JSON");
    let (job, task) = (fixture::job(args), fixture::task(steps));
    handlers.perform(&Attempt { steps: done.clone(), ..attempt::first(&job, &task) }).await
}

#[tokio::test]
async fn the_outbox_holds_what_fcm_would_get() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let Outcome::Success(result) = perform(&fixture::config(dir.path()), vec![Step::Push(Box::new(step()))]).await
    else {
        panic!("it is written")
    };
    assert_eq!((&result["sent"], &result["failed"]), (&json!(1), &json!(0)));
    let file = std::fs::read(result["file"].as_str().expect("the file is named")).expect("it is there");
    let expected = json!({"message": {
        "notification": {"title": "New like", "body": "Ann likes your post"},
        "data": {"post_id": "17", "kind": "like", "extra": "{\"a\":1}"},
        "android": {"notification": {"tag": format!("{JOB_ID}.0")}},
        "apns": {"headers": {"apns-collapse-id": format!("{JOB_ID}.0")}},
        "token": "user:5",
    }});
    assert_eq!(serde_json::from_slice::<Value>(&file).expect("JSON"), expected);
}

/// An account with a fresh key, whose token endpoint is `server`; its public key lies beside it.
pub(super) fn account(dir: &Path, token_uri: &str) -> PathBuf {
    let openssl = |args: &[&str]| {
        let made = Command::new("openssl").args(args).current_dir(dir).output().expect("openssl starts");
        assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    };
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "key.pem"]);
    openssl(&["pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"]);
    let account = json!({
        "type": "service_account",
        "project_id": "hireme",
        "private_key": std::fs::read_to_string(dir.join("key.pem")).expect("the key"),
        "client_email": "push@hireme.test",
        "token_uri": token_uri,
    });
    let path = dir.join("account.json");
    std::fs::write(&path, account.to_string()).expect("the account is written");
    path
}

/// Checks the grant of RFC 7523 with OpenSSL and says what is wrong with it.
fn check_grant(dir: &Path, request: &Seen) -> Result<(), String> {
    let decoded = request.body.replace("%3A", ":").replace("%3D", "=");
    let assertion = decoded
        .strip_prefix("grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion=")
        .ok_or_else(|| format!("not a grant: {decoded}"))?;
    let (signed, signature) = assertion.rsplit_once('.').ok_or("not a JWT")?;
    let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|error| error.to_string());
    std::fs::write(dir.join("signed"), signed).map_err(|error| error.to_string())?;
    std::fs::write(dir.join("signature"), decode(signature)?).map_err(|error| error.to_string())?;
    let verified = Command::new("openssl")
        .args(["dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "signed"])
        .current_dir(dir)
        .output()
        .map_err(|error| error.to_string())?;
    if !verified.status.success() {
        return Err("the signature is wrong".into());
    }
    let claims: Value = serde_json::from_slice(&decode(signed.split('.').nth(1).ok_or("no claims")?)?)
        .map_err(|error| error.to_string())?;
    let right =
        claims["iss"] == "push@hireme.test" && claims["scope"] == "https://www.googleapis.com/auth/firebase.messaging";
    if right { Ok(()) } else { Err(format!("claims: {claims}")) }
}

pub(super) struct Google {
    pub(super) dir: tempfile::TempDir,
    pub(super) server: Server,
    pub(super) config: Config,
}

/// `answer` plays FCM for the device token it is given.
pub(super) async fn google(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Google {
    let dir = tempfile::tempdir().expect("a temp dir");
    let keys: Arc<Path> = dir.path().into();
    let server = Server::start(move |request: &Seen| match request.path.as_str() {
        "/token" => match check_grant(&keys, request) {
            Ok(()) => Answer::new(200, r#"{"access_token": "ya29.good", "expires_in": 3600, "token_type": "Bearer"}"#),
            Err(why) => Answer::new(400, why),
        },
        "/v1/projects/hireme/messages:send" if request.header("authorization") == "Bearer ya29.good" => {
            answer(request.json()["message"]["token"].as_str().unwrap_or_default())
        }
        _ => Answer::new(418, "nobody asks for this"),
    })
    .await;
    let mut config = fixture::config(dir.path());
    config.push = fcm(account(dir.path(), &format!("{}/token", server.url())), &server.url());
    Google { dir, server, config }
}

pub(super) fn fcm(credentials: PathBuf, endpoint: &str) -> config::Push {
    config::Push {
        provider: PushProvider::Fcm { credentials, endpoint: format!("{endpoint}/"), timeout: Duration::from_secs(5) },
        tokens_query: Some(fixture::statement(
            "SELECT token FROM device_tokens WHERE user_id = :user_id ORDER BY token",
        )),
        remove_device: None,
    }
}

pub(super) fn devices(tokens: &[&str]) -> Step {
    let insert = |token: &&str| {
        fixture::statement(&format!("INSERT INTO device_tokens (user_id, token) VALUES (:user_id, '{token}')"))
    };
    Step::Sql(SqlStep { statements: tokens.iter().map(insert).collect(), values: Vec::new() })
}

pub(super) fn to_fcm(server: &Server) -> Vec<Value> {
    server.seen().iter().filter(|seen| seen.path != "/token").map(Seen::json).collect()
}

/// What became of the tokens, in their order: one request may overtake another.
fn tokens(server: &Server) -> Vec<String> {
    let mut tokens: Vec<String> = to_fcm(server)
        .iter()
        .map(|sent| sent["message"]["token"].as_str().expect("each has a token").to_owned())
        .collect();
    tokens.sort();
    tokens
}

const UNREGISTERED: &str = r#"{"error": {"code": 404, "message": "Requested entity was not found.", "status": "NOT_FOUND",
    "details": [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "UNREGISTERED"}]}}"#;

const INVALID_FIELD: &str = r#"{"error": {"code": 400, "message": "Request contains an invalid argument.", "status": "INVALID_ARGUMENT",
    "details": [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "INVALID_ARGUMENT"},
        {"@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": "message.token", "description": "Invalid registration token"}]}]}}"#;

const INVALID_TOKEN: &str = r#"{"error": {"code": 400, "status": "INVALID_ARGUMENT",
    "message": "The registration token is not a valid FCM registration token",
    "details": [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "INVALID_ARGUMENT"}]}}"#;

const INVALID_DATA: &str = r#"{"error": {"code": 400, "message": "Invalid data payload key: from", "status": "INVALID_ARGUMENT",
    "details": [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "INVALID_ARGUMENT"},
        {"@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": "message.data", "description": "Invalid data payload key: from"}]}]}}"#;

/// A message that FCM takes for no device says so; it used to count every device as dead, and the job as done.
#[tokio::test]
async fn a_refused_message_is_a_failure_and_no_dead_device() {
    for (status, body, reason) in [
        (400, INVALID_DATA, "INVALID_ARGUMENT: Invalid data payload key: from"),
        (400, "{}", "{}"),
        (404, "<html>no such project", "<html>no such project"),
        (400, "", "400 Bad Request"),
    ] {
        let google = google(move |_| Answer::new(status, body)).await;
        let failed = failure(perform(&google.config, vec![devices(&["phone"]), Step::Push(Box::new(step()))]).await);
        assert_eq!((failed.kind.as_str(), failed.retry), ("PushRejected", Retryable::Never));
        assert_eq!(failed.message, format!("failed to push through FCM: it refused the message: {reason}"));
        assert_eq!(failed.detail.as_deref(), Some(body).filter(|body| !body.is_empty()));
    }
}

#[tokio::test]
async fn every_device_gets_one_message_and_dead_ones_are_counted() {
    let google = google(|token| match token {
        "dead" => Answer::new(404, UNREGISTERED),
        "bad" => Answer::new(400, INVALID_FIELD),
        "cut" => Answer::new(400, INVALID_TOKEN),
        _ => Answer::new(200, r#"{"name": "projects/hireme/messages/1"}"#),
    })
    .await;
    let outcome = perform(
        &google.config,
        vec![devices(&["bad", "cut", "dead", "phone", "tablet"]), Step::Push(Box::new(step()))],
    )
    .await;
    assert_eq!(outcome, Outcome::Success(json!({"sent": 2, "failed": 3})));
    assert_eq!(tokens(&google.server), ["bad", "cut", "dead", "phone", "tablet"]);
    let messages = to_fcm(&google.server);
    for sent in &messages {
        assert_eq!(sent["message"]["notification"], json!({"title": "New like", "body": "Ann likes your post"}));
        assert_eq!(sent["message"]["data"], json!({"post_id": "17", "kind": "like", "extra": "{\"a\":1}"}));
    }
    let grants = google.server.seen().len() - messages.len();
    assert_eq!(grants, 1, "the access token is kept");
    assert!(google.dir.path().join("signature").exists(), "the grant was really checked");
}

const MISMATCH: &str = r#"{"error": {"code": 403, "message": "SenderId mismatch", "status": "PERMISSION_DENIED",
    "details": [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "SENDER_ID_MISMATCH"}]}}"#;

const NO_APNS_KEY: &str = r#"{"error": {"code": 401, "message": "Auth error from APNS or Web Push Service", "status": "UNAUTHENTICATED",
    "details": [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "THIRD_PARTY_AUTH_ERROR"}]}}"#;

const UNAVAILABLE: &str = r#"{"error": {"code": 503, "message": "The service is currently unavailable.", "status": "UNAVAILABLE",
    "details": [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "UNAVAILABLE"}]}}"#;

/// A retry used to send to every device again.
#[tokio::test]
async fn a_retry_sends_to_the_devices_that_were_not_reached_and_to_no_other() {
    let down = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&down);
    let google = google(move |token| match token {
        "a-dead" => Answer::new(404, UNREGISTERED),
        "d-late" if switch.load(Ordering::Relaxed) => Answer::new(503, UNAVAILABLE),
        _ => Answer::new(200, r#"{"name": "projects/hireme/messages/1"}"#),
    })
    .await;
    let all = ["a-dead", "b", "c", "d-late"];
    let done = Steps::default();
    let (failed, _) = outage(attempt(&google.config, vec![devices(&all), Step::Push(Box::new(step()))], &done).await);
    assert_eq!(failed.kind, "PushStatusError");
    assert_eq!(
        failed.message,
        "failed to push through FCM: it answered 503 Service Unavailable: UNAVAILABLE: The service is currently \
         unavailable.; 2 devices have the notification, and will not get it again"
    );
    assert_eq!(tokens(&google.server), all);
    let remembered = done.done().partial.to_string();
    assert!(!all.iter().any(|token| remembered.contains(&format!("\"{token}\""))), "no token is kept: {remembered}");

    down.store(false, Ordering::Relaxed);
    let outcome = attempt(&google.config, vec![devices(&all), Step::Push(Box::new(step()))], &done).await;
    assert_eq!(outcome, Outcome::Success(json!({"sent": 3, "failed": 1})));
    assert_eq!(tokens(&google.server), ["a-dead", "b", "c", "d-late", "d-late"]);
}

/// What was sent is stored before the round is over, for the case that the daemon dies in the middle of it.
#[tokio::test]
async fn who_was_reached_is_stored_as_it_goes() {
    let google = google(|_| Answer::new(200, r#"{"name": "projects/hireme/messages/1"}"#)).await;
    let names: Vec<String> = (0..40).map(|n| format!("t{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let stored: Arc<Mutex<Vec<usize>>> = Arc::default();
    let store = Arc::clone(&stored);
    let keep: Keep = Arc::new(move |done| {
        let count = done.partial["delivered"].as_array().map_or(0, Vec::len);
        store.lock().expect("no panic with the lock").push(count);
        Box::pin(async { Ok(()) })
    });
    let outcome = attempt(
        &google.config,
        vec![devices(&names), Step::Push(Box::new(step()))],
        &Steps::new(Done::default(), Some(keep)),
    )
    .await;
    assert_eq!(outcome, Outcome::Success(json!({"sent": 40, "failed": 0})));
    let stored = stored.lock().expect("no panic");
    assert!(stored.windows(2).all(|two| two[0] <= two[1]) && stored.len() > 3, "{stored:?}");
    // Never more than what is on its way at once, and what came in with it, is unknown to the record.
    assert!(stored.windows(2).all(|two| two[1] - two[0] <= 10) && *stored.last().expect("some") >= 30, "{stored:?}");
}

#[tokio::test]
async fn dead_tokens_are_removed_by_the_operators_statement() {
    let mut google = google(|token| match token {
        "dead" => Answer::new(404, UNREGISTERED),
        "bad" => Answer::new(400, INVALID_FIELD),
        "other" => Answer::new(403, MISMATCH),
        _ => Answer::new(200, "{}"),
    })
    .await;
    google.config.push.remove_device =
        Some(fixture::statement("DELETE FROM device_tokens WHERE token = :token AND user_id = :user_id"));
    let outcome =
        perform(&google.config, vec![devices(&["bad", "dead", "other", "phone"]), Step::Push(Box::new(step()))]).await;
    assert_eq!(failure(outcome).kind, "PushCredentialsError", "a wrong project must not delete anybody's device");
    let left = fixture::statement("SELECT token FROM device_tokens ORDER BY token");
    let left = Step::Sql(SqlStep { statements: vec![left], values: Vec::new() });
    let Outcome::Success(left) = perform(&google.config, vec![left]).await else { panic!("it can be read") };
    assert_eq!(left["rows"], json!([{"token": "other"}, {"token": "phone"}]));
}

/// One device that cannot be served used to keep the others from their notification.
#[tokio::test]
async fn a_device_that_is_refused_for_itself_does_not_keep_others_from_theirs() {
    for (status, body, kind) in [(403, MISMATCH, "PushCredentialsError"), (401, NO_APNS_KEY, "PushPlatformError")] {
        let google = google(move |token| match token {
            "a-refused" => Answer::new(status, body),
            _ => Answer::new(200, "{}"),
        })
        .await;
        let names: Vec<String> =
            std::iter::once("a-refused".to_owned()).chain((0..30).map(|n| format!("t{n}"))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let failed = failure(perform(&google.config, vec![devices(&names), Step::Push(Box::new(step()))]).await);
        assert_eq!(failed.kind, kind);
        assert!(failed.message.contains("30 devices have the notification"), "{}", failed.message);
        assert_eq!(to_fcm(&google.server).len(), 31);
    }
}

/// An outage is noticed by those that are on their way, and nobody else runs into it.
#[tokio::test]
async fn an_outage_ends_the_round() {
    let google = google(|_| Answer::new(503, UNAVAILABLE)).await;
    let names: Vec<String> = (0..100).map(|n| format!("t{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    outage(perform(&google.config, vec![devices(&names), Step::Push(Box::new(step()))]).await);
    assert!(to_fcm(&google.server).len() <= 10, "{} requests", to_fcm(&google.server).len());
}

#[tokio::test]
async fn options_of_the_platforms_are_put_over_what_jobsd_sets() {
    let google = google(|_| Answer::new(200, "{}")).await;
    let step = PushStep {
        android: Some(fixture::value(json!({"priority": "high", "notification": {"channel_id": "{{ liker_name }}"}}))),
        apns: Some(fixture::value(json!({"payload": {"aps": {"badge": 3}}, "headers": {"apns-collapse-id": "own"}}))),
        webpush: Some(fixture::value(json!({"fcm_options": {"link": "https://hireme.test/"}}))),
        ..step()
    };
    perform(&google.config, vec![devices(&["phone"]), Step::Push(Box::new(step))]).await;
    let message = &to_fcm(&google.server)[0]["message"];
    let tag = format!("{JOB_ID}.1");
    assert_eq!(message["android"], json!({"notification": {"tag": tag, "channel_id": "Ann"}, "priority": "high"}));
    assert_eq!(message["apns"], json!({"headers": {"apns-collapse-id": "own"}, "payload": {"aps": {"badge": 3}}}));
    assert_eq!(message["webpush"], json!({"fcm_options": {"link": "https://hireme.test/"}}));
}

#[tokio::test]
async fn a_notification_that_every_provider_would_refuse_is_sent_to_none() {
    let google = google(|_| Answer::new(200, "{}")).await;
    perform(&google.config, vec![devices(&["phone"])]).await;
    let reserved = PushStep { data: Some(fixture::value(json!({"google.x": "1"}))), ..step() };
    let text = PushStep { data: Some(fixture::value(json!("{{ liker_name }}"))), ..step() };
    let list = PushStep { apns: Some(fixture::value(json!([1]))), ..step() };
    let audience = PushStep { onesignal: Some(fixture::value(json!({"included_segments": ["All"]}))), ..step() };
    for (step, reason) in [
        (reserved, "the key `google.x` in its `data` is reserved by FCM"),
        (text, "its `data` is not an object"),
        (list, "its `apns` is not an object"),
        (audience, "`included_segments` in its `onesignal` is set by jobsd"),
    ] {
        let failed = failure(perform(&google.config, vec![Step::Push(Box::new(step))]).await);
        assert_eq!((failed.kind.as_str(), failed.retry), ("InvalidNotification", Retryable::Never));
        assert_eq!(failed.message, format!("failed to write the notification: {reason}"));
    }
    assert!(google.server.seen().is_empty());
}

#[tokio::test]
async fn a_user_without_devices_is_no_failure() {
    let google = google(|_| Answer::new(200, "{}")).await;
    assert_eq!(
        perform(&google.config, vec![Step::Push(Box::new(step()))]).await,
        Outcome::Success(json!({"sent": 0, "failed": 0}))
    );
    assert!(google.server.seen().is_empty());
}

const CROWDED: &str = r#"{"error": {"code": 429, "message": "Device message rate exceeded", "status": "RESOURCE_EXHAUSTED",
    "details": [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "QUOTA_EXCEEDED"},
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"subject": "device:abc", "description": "Device message rate exceeded"}]}]}}"#;

/// What concerns everybody costs no attempt, and the queue waits; it used to spend one of each job in turn.
#[tokio::test]
async fn refusals_are_sorted() {
    let answer = |status, asks: Option<&str>, body: &str| {
        asks.into_iter().fold(Answer::new(status, body), |answer, asks| answer.with("retry-after", asks))
    };
    let refused = async |status, asks: Option<&str>, body| {
        let answer = answer(status, asks, body);
        let google = google(move |_| answer.clone()).await;
        perform(&google.config, vec![devices(&["phone"]), Step::Push(Box::new(step()))]).await
    };
    let words = |failed: &Failure| {
        assert!(!failed.message.contains("ya29") && !failed.message.contains("phone"), "{}", failed.message);
    };
    const NO: &str = r#"{"error": {"status": "X", "message": "no"}}"#;
    for (status, asks, kind, waits) in [
        (429, Some("90"), "PushStatusError", Some(90)),
        (503, Some("60"), "PushStatusError", Some(60)),
        (503, None, "PushStatusError", None),
        (500, None, "PushStatusError", None),
        (502, None, "PushStatusError", None),
        (401, None, "PushCredentialsError", None),
        (403, Some("60"), "PushCredentialsError", None),
    ] {
        let (failed, retry_after) = outage(refused(status, asks, NO).await);
        assert_eq!((failed.kind.as_str(), retry_after), (kind, waits.map(Duration::from_secs)), "{}", failed.message);
        words(&failed);
    }
    for (asks, body, seconds) in [(None, NO, 60), (Some("5"), CROWDED, 5), (None, CROWDED, 60)] {
        let failed = failure(refused(429, asks, body).await);
        let after = Retryable::After(Duration::from_secs(seconds));
        assert_eq!((failed.kind.as_str(), failed.retry), ("PushStatusError", after), "{}", failed.message);
        words(&failed);
    }
}

#[tokio::test]
async fn a_service_that_is_away_is_an_outage_and_one_that_is_silent_is_not() {
    let mut google = google(|_| Answer::new(200, "{}")).await;
    perform(&google.config, vec![devices(&["phone"])]).await;
    let steps = || vec![Step::Push(Box::new(step()))];
    let place = |config: &mut Config, at: std::net::SocketAddr| {
        let PushProvider::Fcm { endpoint, timeout, .. } = &mut config.push.provider else { panic!("it is FCM") };
        (*endpoint, *timeout) = (format!("http://{at}"), Duration::from_millis(400));
    };
    let listen = || std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let away = listen().local_addr().expect("an address");
    place(&mut google.config, away);
    let (failed, _) = outage(perform(&google.config, steps()).await);
    assert_eq!(failed.kind, "PushConnectError", "{}", failed.message);
    // It takes connections and says nothing: the device may have been told.
    let silent = listen();
    place(&mut google.config, silent.local_addr().expect("an address"));
    let failed = failure(perform(&google.config, steps()).await);
    assert_eq!((failed.kind.as_str(), failed.retry), ("PushTimeout", Retryable::ByPolicy), "{}", failed.message);
}

#[tokio::test]
async fn credentials_that_cannot_be_read_stop_the_configuration() {
    fixture::tls_provider();
    let dir = tempfile::tempdir().expect("a temp dir");
    let mut config = fixture::config(dir.path());
    let credentials = dir.path().join("missing.json");
    config.push.provider =
        PushProvider::Fcm { credentials, endpoint: "http://127.0.0.1:1".into(), timeout: Duration::from_secs(1) };
    let error = Handlers::new(&config).expect_err("it is refused").to_string();
    assert!(
        error.starts_with("prepare the push handler: read the service account ") && error.contains("No such file"),
        "{error}"
    );
}
