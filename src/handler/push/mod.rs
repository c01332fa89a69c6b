//! The `push` handler: one notification for every device of a user.
//!
//! Owns the message and the device tokens' query; how it travels is the provider's. A user without a device is no
//! failure: there is nobody to tell.

mod fcm;

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Map, Value, json};

use super::Run;
use super::outbox::{self, OutboxError};
use super::sql::{Sql, SqlError};
use crate::clock;
use crate::config::{self, PushProvider, PushStep, RenderError, Statement};
use crate::job::Failure;

use fcm::{Fcm, FcmError};

/// Bytes that Apple's service allows for an id that replaces an earlier notification.
const COLLAPSE_ID_LEN: usize = 64;
/// After a 429 that names no time itself: FCM refills its quotas every minute, as its page on throttling says.
const QUOTA_WAIT: Duration = Duration::from_secs(60);

/// Push as `[push]` wants it.
#[derive(Debug)]
pub(super) struct Push {
    provider: Provider,
    tokens_query: Option<Statement>,
}

#[derive(Debug)]
enum Provider {
    Outbox(PathBuf),
    Fcm(Box<Fcm>),
}

/// Why `[push]` cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error(transparent)]
    Fcm(#[from] fcm::SetupError),
}

/// Why a notification was not pushed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PushError {
    #[error("{0}")]
    Render(#[from] RenderError),
    #[error("write the notification: its `data` is not an object")]
    Data,
    #[error("find the user's devices: there is no `push.tokens_query`")]
    NoQuery,
    #[error("find the user's devices: {0}")]
    Tokens(SqlError),
    #[error("{0}")]
    Outbox(#[from] OutboxError),
    #[error("{0}")]
    Fcm(#[from] FcmError),
}

impl Push {
    /// Reads the credentials; asks nobody.
    pub(super) fn new(config: &config::Push) -> Result<Self, SetupError> {
        let provider = match &config.provider {
            PushProvider::Outbox { folder } => Provider::Outbox(folder.clone()),
            PushProvider::Fcm { credentials, endpoint, timeout } => {
                Provider::Fcm(Box::new(Fcm::new(credentials, endpoint, *timeout)?))
            }
        };
        Ok(Self { provider, tokens_query: config.tokens_query.clone() })
    }

    /// Returns `{"sent": n, "failed": m}`; `failed` counts the tokens that FCM no longer knows.
    pub(super) async fn send(&self, step: &PushStep, run: &Run<'_>, sql: &Sql) -> Result<Value, PushError> {
        let user = step.user.render(run.context.values())?;
        let message = message(step, run)?;
        match &self.provider {
            Provider::Outbox(folder) => to_outbox(folder, &user, &message, run).await,
            Provider::Fcm(fcm) => {
                let tokens = self.tokens(&user, sql).await?;
                let sent = fcm.send(&tokens, &message).await?;
                Ok(json!({"sent": sent.delivered, "failed": sent.dead}))
            }
        }
    }

    async fn tokens(&self, user: &Value, sql: &Sql) -> Result<Vec<String>, PushError> {
        let query = self.tokens_query.as_ref().ok_or(PushError::NoQuery)?;
        let named = Map::from_iter([("user_id".to_owned(), user.clone())]);
        let tokens = sql.column(query, &named).await.map_err(PushError::Tokens)?;
        Ok(tokens.into_iter().filter_map(|token| token.as_str().map(str::to_owned)).collect())
    }
}

/// The outbox has no devices to ask for: one file, addressed to the user.
async fn to_outbox(folder: &Path, user: &Value, message: &Value, run: &Run<'_>) -> Result<Value, PushError> {
    let name = outbox::file_name(clock::now(), &run.job.id, run.step, "json");
    let message = fcm::addressed(message, &format!("user:{}", plain(user)));
    let file = outbox::write(folder, name, format!("{message:#}\n").into_bytes()).await?;
    Ok(json!({"sent": 1, "failed": 0, "file": file}))
}

/// FCM's `message` without its token. A notification that is sent again by a later attempt replaces the first one on
/// the device.
fn message(step: &PushStep, run: &Run<'_>) -> Result<Value, PushError> {
    let values = run.context.values();
    let mut message = json!({
        "notification": {"title": step.title.render(values)?, "body": step.body.render(values)?},
    });
    let data = step.data.as_ref().map(|data| data.render(values)).transpose()?.unwrap_or_default();
    match data {
        Value::Null => {}
        Value::Object(data) => {
            let data =
                data.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key, json!(plain(&value))));
            message["data"] = Value::Object(data.collect());
        }
        _ => return Err(PushError::Data),
    }
    let collapse: String = format!("{}.{}", run.job.id, run.step);
    if collapse.len() <= COLLAPSE_ID_LEN && collapse.is_ascii() {
        message["android"] = json!({"notification": {"tag": collapse}});
        message["apns"] = json!({"headers": {"apns-collapse-id": collapse}});
    }
    Ok(message)
}

/// FCM's data payload holds strings only: texts as they are, everything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl From<PushError> for Failure {
    fn from(error: PushError) -> Self {
        let message = format!("failed to {error}");
        match error {
            PushError::Render(error) => error.into(),
            PushError::Data => Self::never("InvalidNotification", message),
            PushError::NoQuery => Self::new("PushNotConfigured", message),
            PushError::Tokens(error) => Self { message, ..error.into() },
            PushError::Outbox(_) => Self::new("OutboxError", message),
            PushError::Fcm(FcmError::Credentials(_)) => Self::new("PushCredentialsError", message),
            PushError::Fcm(FcmError::Connection(_)) => Self::new("PushConnectError", message),
            // The message is the same for every device and at every attempt.
            PushError::Fcm(FcmError::Refused { detail, .. }) => detailed(Self::never("PushRejected", message), detail),
            PushError::Fcm(FcmError::Status { status, retry_after, detail }) => {
                let failure = Self::new("PushStatusError", message);
                let quota = (status == StatusCode::TOO_MANY_REQUESTS).then_some(QUOTA_WAIT);
                let failure = match retry_after.or(quota) {
                    Some(span) => failure.after(span),
                    None => failure,
                };
                detailed(failure, detail)
            }
        }
    }
}

/// With what the server said, where it said anything.
fn detailed(failure: Failure, detail: String) -> Failure {
    if detail.is_empty() { failure } else { failure.with_detail(detail) }
}

#[cfg(test)]
mod tests;
