//! Push to the outbox, and to a local server that plays both FCM and Google's token endpoint.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;

use super::*;
use crate::config::{Config, SqlStep, Step};
use crate::handler::{Attempt, Handlers, Notepad, Steps};
use crate::job::{Outcome, Retryable};
use crate::testing::fixture::{self, JOB_ID, template};
use crate::testing::http::{Answer, Seen, Server};

fn step() -> PushStep {
    PushStep {
        user: fixture::value(json!("{{ user_id }}")),
        title: template("New like"),
        body: template("{{ liker_name }} likes your post"),
        data: Some(fixture::value(
            json!({"post_id": "{{ post_id }}", "kind": "like", "extra": {"a": 1}, "none": "{{ none }}"}),
        )),
    }
}

const ARGS: &str = r#"{"user_id": 5, "liker_name": "Ann", "post_id": 17, "none": null}"#;

async fn perform(config: &Config, steps: Vec<Step>) -> Outcome {
    fixture::tls_provider();
    let handlers = Handlers::new(config).expect("the handlers are built");
    let args = serde_json::from_str(ARGS).expect("JSON");
    handlers
        .perform(&Attempt {
            job: &fixture::job(args),
            task: &fixture::task(steps),
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
async fn the_outbox_holds_what_fcm_would_get() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let Outcome::Success(result) = perform(&fixture::config(dir.path()), vec![Step::Push(step())]).await else {
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
fn account(dir: &Path, token_uri: &str) -> PathBuf {
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
    let decode = |part: &str| BASE64_URL_SAFE.decode(part).map_err(|error| error.to_string());
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

struct Google {
    dir: tempfile::TempDir,
    server: Server,
    config: Config,
}

/// `answer` plays FCM for the device token it is given.
async fn google(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Google {
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
    config.push = config::Push {
        provider: PushProvider::Fcm {
            credentials: account(dir.path(), &format!("{}/token", server.url())),
            endpoint: format!("{}/", server.url()),
            timeout: Duration::from_secs(5),
        },
        tokens_query: Some(fixture::statement(
            "SELECT token FROM device_tokens WHERE user_id = :user_id ORDER BY token",
        )),
    };
    Google { dir, server, config }
}

fn devices(tokens: &[&str]) -> Step {
    let insert = |token: &&str| {
        fixture::statement(&format!("INSERT INTO device_tokens (user_id, token) VALUES (:user_id, '{token}')"))
    };
    Step::Sql(SqlStep { statements: tokens.iter().map(insert).collect(), values: Vec::new() })
}

fn to_fcm(server: &Server) -> Vec<Value> {
    server.seen().iter().filter(|seen| seen.path != "/token").map(Seen::json).collect()
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
        let failed = failure(perform(&google.config, vec![devices(&["phone"]), Step::Push(step())]).await);
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
    let outcome =
        perform(&google.config, vec![devices(&["bad", "cut", "dead", "phone", "tablet"]), Step::Push(step())]).await;
    assert_eq!(outcome, Outcome::Success(json!({"sent": 2, "failed": 3})));
    let messages = to_fcm(&google.server);
    let tokens: Vec<&str> = messages.iter().filter_map(|sent| sent["message"]["token"].as_str()).collect();
    assert_eq!(tokens, ["bad", "cut", "dead", "phone", "tablet"]);
    assert_eq!(messages[3]["message"]["notification"], json!({"title": "New like", "body": "Ann likes your post"}));
    assert_eq!(messages[3]["message"]["data"], json!({"post_id": "17", "kind": "like", "extra": "{\"a\":1}"}));
    let grants = google.server.seen().len() - messages.len();
    assert_eq!(grants, 1, "the access token is kept");
    assert!(google.dir.path().join("signature").exists(), "the grant was really checked");
}

#[tokio::test]
async fn a_user_without_devices_is_no_failure() {
    let google = google(|_| Answer::new(200, "{}")).await;
    assert_eq!(
        perform(&google.config, vec![Step::Push(step())]).await,
        Outcome::Success(json!({"sent": 0, "failed": 0}))
    );
    assert!(google.server.seen().is_empty());
}

#[tokio::test]
async fn refusals_are_sorted() {
    let after = |seconds| Retryable::After(Duration::from_secs(seconds));
    for (status, asks, kind, retry) in [
        (429, Some("90"), "PushStatusError", after(90)),
        (429, None, "PushStatusError", after(60)),
        (503, Some("60"), "PushStatusError", after(60)),
        (503, None, "PushStatusError", Retryable::ByPolicy),
        (403, Some("60"), "PushCredentialsError", Retryable::ByPolicy),
    ] {
        let google = google(move |_| {
            let answer = Answer::new(status, r#"{"error": {"status": "X", "message": "no"}}"#);
            asks.into_iter().fold(answer, |answer, asks| answer.with("retry-after", asks))
        })
        .await;
        let failed = failure(perform(&google.config, vec![devices(&["phone"]), Step::Push(step())]).await);
        assert_eq!((failed.kind.as_str(), failed.retry), (kind, retry), "{}", failed.message);
        assert!(!failed.message.contains("ya29") && !failed.message.contains("phone"), "{}", failed.message);
    }
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
