//! Firebase Cloud Messaging, HTTP v1: one POST for each device token.
//!
//! Protocol: <https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages/send> and its error codes.
//!
//! What concerns one device (it is gone, it belongs to another project, its platform is not set up) leaves the others
//! alone. What concerns all of them (quota, outage, credentials) ends the round: no further request is begun, and those
//! on their way are waited for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::devices::Reached;
use super::oauth::{Account, OauthError};
use crate::clock;
use crate::handler::{LeaseLost, Run, response};

/// Bytes of a refusal's body that a failure holds.
const MAX_DETAIL: usize = 4 * 1024;
/// Requests on their way at the same time, for one notification.
const AT_ONCE: usize = 10;

#[derive(Debug)]
pub(super) struct Fcm(Arc<Sender>);

#[derive(Debug)]
struct Sender {
    account: Account,
    client: reqwest::Client,
    url: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("read the service account {}: {reason}", path.display())]
    Account { path: PathBuf, reason: String },
}

/// What FCM said of one device.
#[derive(Debug)]
enum Said {
    Accepted,
    /// It does not know the token any more, or never did.
    Dead,
    /// Not sent, for a reason that concerns this device or its platform only.
    Refused(FcmError),
}

/// Why a device, or all of them, did not get a notification.
#[derive(Debug, thiserror::Error)]
pub(in crate::handler) enum FcmError {
    #[error(transparent)]
    Oauth(#[from] OauthError),
    #[error("the credentials were refused: {0}")]
    Credentials(String),
    #[error("{0}")]
    Connection(String),
    /// It has the request and did not answer: the device may have been told.
    #[error("{0}")]
    Silent(String),
    #[error("it answered {status}{}", told(.reason))]
    Status { status: StatusCode, retry_after: Option<Duration>, reason: String, detail: String },
    #[error("it refused the message: {reason}")]
    Message { reason: String, detail: String },
    #[error("the devices belong to another Firebase project than the service account")]
    OtherProject,
    #[error("one device gets too much at a time: {reason}")]
    Crowded { retry_after: Option<Duration>, reason: String },
    #[error("the project is not set up for a device's platform: {0}")]
    Platform(String),
}

/// How a round ended.
pub(super) struct Round {
    /// Devices that were neither reached nor found dead.
    pub(super) missed: usize,
    /// Tokens that FCM does not know.
    pub(super) dead: Vec<String>,
    /// What kept the missed ones from it: that which ended the round, or else what the last refused device said.
    pub(super) error: Option<FcmError>,
}

impl Fcm {
    pub(super) fn new(credentials: &Path, endpoint: &str, client: reqwest::Client) -> Result<Self, SetupError> {
        let account = Account::read(credentials, client.clone())
            .map_err(|reason| SetupError::Account { path: credentials.to_owned(), reason })?;
        let url = format!("{}/v1/projects/{}/messages:send", endpoint.trim_end_matches('/'), account.project);
        Ok(Self(Arc::new(Sender { account, client, url })))
    }

    /// Sends `message` to every token. Who has been reached stands in `reached`, and is stored as it goes: an attempt that
    /// ends in the middle, however it ends, does not begin anew.
    pub(super) async fn send(
        &self,
        tokens: Vec<String>,
        message: &Value,
        reached: &mut Reached,
        run: &Run<'_>,
    ) -> Result<Round, LeaseLost> {
        let mut round = Round { missed: tokens.len(), dead: Vec::new(), error: None };
        let mut waiting = tokens.into_iter();
        // Dropped with this future: what was on its way is cut off.
        let mut sending = JoinSet::new();
        let mut over = false;
        loop {
            while !over
                && sending.len() < AT_ONCE
                && let Some(token) = waiting.next()
            {
                let (sender, body) = (Arc::clone(&self.0), addressed(message, &token));
                sending.spawn(async move { (token, sender.send(&body).await) });
            }
            let Some(first) = sending.join_next().await else { return Ok(round) };
            let mut joined = Some(first);
            while let Some(ended) = joined {
                let (token, said) = ended.expect("sending neither panics nor is aborted while we wait for it");
                over |= round.note(&token, said, reached);
                joined = sending.try_join_next();
            }
            reached.remember(run);
            // The end of the step, or of the attempt, is stored anyway.
            if !sending.is_empty() || (!over && waiting.len() > 0) {
                run.steps.keep().await?;
            }
        }
    }
}

impl Round {
    /// Says whether the round is over for all.
    fn note(&mut self, token: &str, said: Result<Said, FcmError>, reached: &mut Reached) -> bool {
        match said {
            Ok(Said::Accepted) => {
                self.missed -= 1;
                reached.deliver(token);
            }
            Ok(Said::Dead) => {
                self.missed -= 1;
                reached.bury(token);
                self.dead.push(token.to_owned());
            }
            Ok(Said::Refused(error)) => {
                self.error.get_or_insert(error);
            }
            Err(error) => {
                self.error = Some(error);
                return true;
            }
        }
        false
    }
}

impl Sender {
    /// `Err`: what the other devices would hear too.
    async fn send(&self, body: &Value) -> Result<Said, FcmError> {
        let bearer = self.account.token().await?;
        let answer = self.post(body, bearer.expose()).await?;
        if answer.status != StatusCode::UNAUTHORIZED || answer.code() == "THIRD_PARTY_AUTH_ERROR" {
            return answer.sorted();
        }
        // It was taken back before its end. A fresh one shows whether it was the token or the account.
        self.account.forget(&bearer).await;
        let bearer = self.account.token().await?;
        self.post(body, bearer.expose()).await?.sorted()
    }

    async fn post(&self, body: &Value, bearer: &str) -> Result<Answer, FcmError> {
        let lost = |error: reqwest::Error| match error.is_connect() {
            true => FcmError::Connection(response::reason(error)),
            false => FcmError::Silent(response::reason(error)),
        };
        let answer = self.client.post(&self.url).bearer_auth(bearer).json(body).send().await.map_err(lost)?;
        let status = answer.status();
        let retry_after = response::retry_after(answer.headers(), clock::now().to_utc());
        // What was accepted stays accepted, whatever comes of the rest of the answer.
        let detail = match response::read(answer, MAX_DETAIL).await {
            Ok(body) => String::from_utf8_lossy(&body.bytes).into_owned(),
            Err(_) => String::new(),
        };
        Ok(Answer { status, retry_after, error: serde_json::from_str(&detail).unwrap_or_default(), detail })
    }
}

/// An answer of FCM's, read.
struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    detail: String,
    error: Value,
}

impl Answer {
    /// What the answer means: the one place where FCM's codes are sorted.
    fn sorted(self) -> Result<Said, FcmError> {
        let reason = self.reason();
        match (self.status.as_u16(), self.code()) {
            (200..=299, _) => Ok(Said::Accepted),
            (_, "UNREGISTERED") => Ok(Said::Dead),
            (_, "SENDER_ID_MISMATCH") => Ok(Said::Refused(FcmError::OtherProject)),
            (_, "THIRD_PARTY_AUTH_ERROR") => Ok(Said::Refused(FcmError::Platform(reason))),
            (429, _) if self.blames_the_device() => {
                Ok(Said::Refused(FcmError::Crowded { retry_after: self.retry_after, reason }))
            }
            (400, _) if self.blames_the_token() => Ok(Said::Dead),
            (400 | 404, _) => {
                let reason = if reason.is_empty() { self.status.to_string() } else { reason };
                Err(FcmError::Message { reason, detail: self.detail })
            }
            (401 | 403, _) => Err(FcmError::Credentials(reason)),
            _ => Err(FcmError::Status {
                status: self.status,
                retry_after: self.retry_after,
                reason,
                detail: self.detail,
            }),
        }
    }

    fn details(&self) -> &[Value] {
        self.error["error"]["details"].as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// FCM's own code for the error: `UNREGISTERED`, `QUOTA_EXCEEDED`, …
    fn code(&self) -> &str {
        self.details().iter().find_map(|detail| detail["errorCode"].as_str()).unwrap_or_default()
    }

    /// Whether the answer blames the device token: the app is gone from the device, or this never was a token.
    /// Everything else that FCM calls an invalid argument is the message's fault, and the same for every device.
    ///
    /// For a malformed token FCM either names the field `message.token`, or gives nothing but this one sentence.
    fn blames_the_token(&self) -> bool {
        const MALFORMED: &str = "The registration token is not a valid FCM registration token";
        let error = &self.error["error"];
        let mut violations = self.details().iter().filter_map(|detail| detail["fieldViolations"].as_array()).flatten();
        error["status"] == "INVALID_ARGUMENT"
            && (error["message"] == MALFORMED || violations.any(|one| one["field"] == "message.token"))
    }

    /// Whether a quota is that of one device, which a `QuotaFailure` of google.rpc names; otherwise it is the project's.
    fn blames_the_device(&self) -> bool {
        let violations = self.details().iter().filter_map(|detail| detail["violations"].as_array()).flatten();
        let texts = violations.flat_map(|one| [one["subject"].as_str(), one["description"].as_str()]).flatten();
        texts.into_iter().any(|text| text.to_ascii_lowercase().contains("device"))
    }

    /// `UNREGISTERED: Requested entity was not found.` out of the answer's body, else the body's first line.
    fn reason(&self) -> String {
        let error = &self.error["error"];
        let code = Some(self.code()).filter(|code| !code.is_empty()).or_else(|| error["status"].as_str());
        match (code, error["message"].as_str()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(one), None) | (None, Some(one)) => one.to_owned(),
            (None, None) => self.detail.lines().next().unwrap_or_default().chars().take(200).collect(),
        }
    }
}

/// The body of one request: `{"message": {"token": …, …}}`.
pub(super) fn addressed(message: &Value, token: &str) -> Value {
    let mut message = message.clone();
    message["token"] = json!(token);
    json!({"message": message})
}

fn told(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}
