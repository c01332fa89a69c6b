//! Firebase Cloud Messaging, HTTP v1: one POST for each device token.
//!
//! Protocol: <https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages/send> and its error codes. The
//! access token comes from the service account's key file and is kept by `gcp_auth` until it is nearly over.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gcp_auth::{CustomServiceAccount, TokenProvider as _};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::clock;
use crate::handler::response;

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// Bytes of a refusal's body that a failure holds.
const MAX_DETAIL: usize = 4 * 1024;

#[derive(Debug)]
pub(super) struct Fcm {
    account: CustomServiceAccount,
    client: reqwest::Client,
    url: String,
    timeout: Duration,
}

/// What became of the tokens.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) delivered: usize,
    /// FCM does not know the token any more, or never did.
    pub(super) dead: usize,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("read the service account {}: {reason}", path.display())]
    Account { path: PathBuf, reason: String },
    #[error("read the service account {}: it names no `project_id`", path.display())]
    Project { path: PathBuf },
    #[error("prepare the HTTP client: {0}")]
    Client(String),
}

#[derive(Debug, thiserror::Error)]
pub(in crate::handler) enum FcmError {
    #[error("push through FCM: the credentials were refused: {0}")]
    Credentials(String),
    #[error("push through FCM: {0}")]
    Connection(String),
    #[error("push through FCM: it answered {status}")]
    Status { status: StatusCode, retry_after: Option<Duration>, detail: String },
    #[error("push through FCM: it refused the message: {reason}")]
    Refused { reason: String, detail: String },
}

impl Fcm {
    pub(super) fn new(credentials: &Path, endpoint: &str, timeout: Duration) -> Result<Self, SetupError> {
        let path = || credentials.to_owned();
        let account = CustomServiceAccount::from_file(credentials)
            .map_err(|error| SetupError::Account { path: path(), reason: error.to_string() })?;
        let project = account.project_id().ok_or_else(|| SetupError::Project { path: path() })?;
        let url = format!("{}/v1/projects/{project}/messages:send", endpoint.trim_end_matches('/'));
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(timeout)
            .build()
            .map_err(|error| SetupError::Client(response::reason(error)))?;
        Ok(Self { account, client, url, timeout })
    }

    /// Sends `message` to every token. The first answer that is not about the token itself ends the round.
    pub(super) async fn send(&self, tokens: &[String], message: &Value) -> Result<Sent, FcmError> {
        let mut sent = Sent::default();
        for token in tokens {
            match self.send_one(token, message).await? {
                true => sent.delivered += 1,
                false => sent.dead += 1,
            }
        }
        Ok(sent)
    }

    /// `false`: the token is dead.
    async fn send_one(&self, token: &str, message: &Value) -> Result<bool, FcmError> {
        let bearer = self.bearer().await?;
        let answer = self
            .client
            .post(&self.url)
            .bearer_auth(bearer.as_str())
            .json(&addressed(message, token))
            .send()
            .await
            .map_err(|error| FcmError::Connection(response::reason(error)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(true);
        }
        let retry_after = response::retry_after(answer.headers(), clock::now().to_utc());
        let detail = match response::read(answer, MAX_DETAIL).await {
            Ok(body) => String::from_utf8_lossy(&body.bytes).into_owned(),
            Err(_) => String::new(),
        };
        let reason = error_code(&detail);
        match status {
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST if is_about_token(&detail) => {
                tracing::info!(%status, answer = %reason, "FCM does not take a device token");
                Ok(false)
            }
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => {
                let reason = if reason.is_empty() { status.to_string() } else { reason };
                Err(FcmError::Refused { reason, detail })
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(FcmError::Credentials(reason)),
            _ => Err(FcmError::Status { status, retry_after, detail }),
        }
    }

    async fn bearer(&self) -> Result<std::sync::Arc<gcp_auth::Token>, FcmError> {
        match tokio::time::timeout(self.timeout, self.account.token(&[SCOPE])).await {
            Ok(Ok(token)) => Ok(token),
            Ok(Err(gcp_auth::Error::Other(what, cause))) => Err(FcmError::Connection(format!("{what}: {cause}"))),
            Ok(Err(error)) => Err(FcmError::Credentials(error.to_string())),
            Err(_) => Err(FcmError::Connection("no access token within the timeout".into())),
        }
    }
}

/// The body of one request: `{"message": {"token": …, …}}`.
pub(super) fn addressed(message: &Value, token: &str) -> Value {
    let mut message = message.clone();
    message["token"] = json!(token);
    json!({"message": message})
}

/// Whether the answer's body blames the device token: the app is gone from the device, or this never was a token.
/// Everything else that FCM calls an invalid argument is the message's fault, and the same for every device.
///
/// For a malformed token FCM either names the field `message.token`, or gives nothing but this one sentence.
fn is_about_token(body: &str) -> bool {
    const MALFORMED: &str = "The registration token is not a valid FCM registration token";
    let parsed: Value = serde_json::from_str(body).unwrap_or_default();
    let error = &parsed["error"];
    let details = error["details"].as_array().map(Vec::as_slice).unwrap_or_default();
    let violations = details.iter().filter_map(|detail| detail["fieldViolations"].as_array()).flatten();
    details.iter().any(|detail| detail["errorCode"] == "UNREGISTERED")
        || error["status"] == "INVALID_ARGUMENT"
            && (error["message"] == MALFORMED || violations.into_iter().any(|one| one["field"] == "message.token"))
}

/// `UNREGISTERED: Requested entity was not found.` out of the answer's body, else the body's first line.
fn error_code(body: &str) -> String {
    let parsed: Value = serde_json::from_str(body).unwrap_or_default();
    let error = &parsed["error"];
    let details = error["details"].as_array().map(Vec::as_slice).unwrap_or_default();
    let code = details.iter().find_map(|detail| detail["errorCode"].as_str()).or_else(|| error["status"].as_str());
    match (code, error["message"].as_str()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => body.lines().next().unwrap_or_default().chars().take(200).collect(),
    }
}
