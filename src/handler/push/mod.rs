//! The `push` handler: one notification for every device of a user.
//!
//! Owns who is told, what becomes of the devices that are gone, and what follows from a provider's refusals; how a
//! notification travels is the provider's. A user without a device is no failure: there is nobody to tell.
//!
//! Where the provider serves nobody (it cannot be reached, it answers 5xx, it refuses our credentials, or asks to be left
//! alone for a time) no attempt is spent and the queue waits. A provider that has the request and says nothing may have
//! told the device: that spends the attempt.

mod devices;
mod fcm;
mod message;
mod oauth;
mod onesignal;

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Map, Value, json};

use super::outbox::{self, OutboxError};
use super::sql::{Named, Sql, SqlError};
use super::{Halt, LeaseLost, Run, response};
use crate::clock;
use crate::config::{self, OneSignalTarget, PushProvider, PushStep, RenderError, Statement};
use crate::job::Failure;

use devices::Reached;
use fcm::{Fcm, FcmError, Round};
use message::{Notification, plain};
use oauth::OauthError;
use onesignal::{Audience, OneSignal, OneSignalError};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// After a 429 that names no time itself: FCM refills its quotas every minute, as its page on throttling says.
const QUOTA_WAIT: Duration = Duration::from_secs(60);

/// Push as `[push]` wants it.
#[derive(Debug)]
pub(super) struct Push {
    provider: Provider,
    tokens_query: Option<Statement>,
    remove_device: Option<Statement>,
}

#[derive(Debug)]
enum Provider {
    Outbox(PathBuf),
    Fcm(Fcm),
    OneSignal(OneSignal),
}

/// Why `[push]` cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error(transparent)]
    Fcm(#[from] fcm::SetupError),
    #[error("prepare the HTTP client: {0}")]
    Client(String),
}

/// Why a notification was not pushed to all who should have it.
#[derive(Debug, thiserror::Error)]
pub(super) enum PushError {
    #[error("{0}")]
    Render(#[from] RenderError),
    #[error("write the notification: {0}")]
    Invalid(String),
    #[error("find the user's devices: there is no `push.tokens_query`")]
    NoQuery,
    #[error("find the user's devices: {0}")]
    Tokens(SqlError),
    #[error("{0}")]
    Outbox(#[from] OutboxError),
    #[error("push through FCM: {error}{}", so_far(*.delivered))]
    Fcm { error: FcmError, delivered: usize },
    #[error("push through OneSignal: {0}")]
    OneSignal(#[from] OneSignalError),
    #[error("go on: the job's lease was lost")]
    LeaseLost,
}

impl Push {
    /// Reads the credentials; asks nobody.
    pub(super) fn new(config: &config::Push) -> Result<Self, SetupError> {
        let provider = match &config.provider {
            PushProvider::Outbox { folder } => Provider::Outbox(folder.clone()),
            PushProvider::Fcm { credentials, endpoint, timeout } => {
                Provider::Fcm(Fcm::new(credentials, endpoint, client(*timeout)?)?)
            }
            PushProvider::OneSignal(config) => Provider::OneSignal(OneSignal::new(config, client(config.timeout)?)),
        };
        let (tokens_query, remove_device) = (config.tokens_query.clone(), config.remove_device.clone());
        Ok(Self { provider, tokens_query, remove_device })
    }

    /// Returns `{"sent": n, "failed": m}`; `failed` counts the devices that the provider no longer knows.
    pub(super) async fn send(&self, step: &PushStep, run: &Run<'_>, sql: &Sql) -> Result<Value, PushError> {
        let user = step.user.render(run.context.values())?;
        let notification = Notification::render(step, run)?;
        match &self.provider {
            Provider::Outbox(folder) => to_outbox(folder, &user, &notification, run).await,
            Provider::Fcm(fcm) => self.to_fcm(fcm, &user, &notification, run, sql).await,
            Provider::OneSignal(onesignal) => self.to_onesignal(onesignal, &user, &notification, sql).await,
        }
    }

    async fn to_fcm(
        &self,
        fcm: &Fcm,
        user: &Value,
        notification: &Notification,
        run: &Run<'_>,
        sql: &Sql,
    ) -> Result<Value, PushError> {
        let mut reached = Reached::remembered(run);
        let tokens = reached.rest(self.tokens(user, sql).await?);
        let Round { missed, dead, error } = fcm
            .send(tokens, &notification.for_fcm(), &mut reached, run)
            .await
            .map_err(|LeaseLost| PushError::LeaseLost)?;
        self.remove(&dead, user, sql).await;
        match error.filter(|_| missed > 0) {
            Some(error) => Err(PushError::Fcm { error, delivered: reached.delivered() }),
            None => Ok(json!({"sent": reached.delivered(), "failed": reached.dead()})),
        }
    }

    async fn to_onesignal(
        &self,
        onesignal: &OneSignal,
        user: &Value,
        notification: &Notification,
        sql: &Sql,
    ) -> Result<Value, PushError> {
        let (audience, count) = match &onesignal.target {
            // Nobody, and not the user who is called so.
            OneSignalTarget::User { .. } if plain(user).is_empty() || user.is_null() => {
                (Audience::Subscriptions(Vec::new()), 0)
            }
            OneSignalTarget::User { alias } => (Audience::User { alias, id: plain(user) }, 1),
            OneSignalTarget::Devices => {
                let ids = Reached::default().rest(self.tokens(user, sql).await?);
                let count = ids.len();
                (Audience::Subscriptions(ids), count)
            }
        };
        if count == 0 {
            return Ok(json!({"sent": 0, "failed": 0}));
        }
        let sent = onesignal.send(notification.for_onesignal(), audience).await?;
        self.remove(&sent.dead, user, sql).await;
        match sent.id {
            Some(id) => {
                let failed = sent.dead.len().min(count);
                Ok(json!({"sent": count - failed, "failed": failed, "id": id}))
            }
            None => Ok(json!({"sent": 0, "failed": count})),
        }
    }

    async fn tokens(&self, user: &Value, sql: &Sql) -> Result<Vec<Value>, PushError> {
        let query = self.tokens_query.as_ref().ok_or(PushError::NoQuery)?;
        let args = Map::from_iter([("user_id".to_owned(), user.clone())]);
        sql.column(query, &Named::args(&args)).await.map_err(PushError::Tokens)
    }

    /// Has the dead ones removed. Where that fails nothing is lost: they will be found dead once more.
    async fn remove(&self, dead: &[String], user: &Value, sql: &Sql) {
        let Some(statement) = &self.remove_device else { return };
        for token in dead {
            let args = Map::from_iter([("user_id".to_owned(), user.clone()), ("token".to_owned(), json!(token))]);
            let named = Named::args(&args);
            if let Err(error) = sql.run(std::slice::from_ref(statement), &named).await {
                tracing::warn!("a dead device could not be removed: {error}");
                return;
            }
        }
    }
}

/// A connection that does not come about is known as such before the whole request is out of time.
fn client(timeout: Duration) -> Result<reqwest::Client, SetupError> {
    let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(timeout);
    let built = builder.connect_timeout(CONNECT_TIMEOUT.min(timeout / 2)).build();
    built.map_err(|error| SetupError::Client(response::reason(error)))
}

/// The outbox has no devices to ask for: one file, addressed to the user.
async fn to_outbox(
    folder: &Path,
    user: &Value,
    notification: &Notification,
    run: &Run<'_>,
) -> Result<Value, PushError> {
    let name = outbox::file_name(clock::now(), &run.job.id, run.step, "json");
    let message = fcm::addressed(&notification.for_fcm(), &format!("user:{}", plain(user)));
    let file = outbox::write(folder, name, format!("{message:#}\n").into_bytes()).await?;
    Ok(json!({"sent": 1, "failed": 0, "file": file}))
}

fn so_far(delivered: usize) -> String {
    match delivered {
        0 => String::new(),
        1 => "; 1 device has the notification, and will not get it again".into(),
        n => format!("; {n} devices have the notification, and will not get it again"),
    }
}

impl From<PushError> for Halt {
    fn from(error: PushError) -> Self {
        let message = format!("failed to {error}");
        match error {
            PushError::LeaseLost => Self::LeaseLost,
            PushError::Render(error) => error.into(),
            PushError::Invalid(_) => Failure::never("InvalidNotification", message).into(),
            PushError::NoQuery => Failure::new("PushNotConfigured", message).into(),
            PushError::Tokens(error) => Self::Failed(Failure { message, ..error.into() }),
            PushError::Outbox(_) => Failure::new("OutboxError", message).into(),
            PushError::Fcm { error, .. } => of_fcm(error, message),
            PushError::OneSignal(error) => of_onesignal(error, message),
        }
    }
}

fn of_fcm(error: FcmError, message: String) -> Halt {
    match error {
        FcmError::Credentials(_) | FcmError::Oauth(OauthError::Refused(_)) => {
            down(Failure::new("PushCredentialsError", message), None)
        }
        // Of this user's device alone.
        FcmError::OtherProject => Failure::new("PushCredentialsError", message).into(),
        FcmError::Platform(_) => Failure::new("PushPlatformError", message).into(),
        FcmError::Crowded { retry_after, .. } => {
            Failure::new("PushStatusError", message).after(retry_after.unwrap_or(QUOTA_WAIT)).into()
        }
        FcmError::Connection(_) | FcmError::Oauth(OauthError::Connection(_)) => {
            down(Failure::new("PushConnectError", message), None)
        }
        FcmError::Silent(_) => Failure::new("PushTimeout", message).into(),
        // The message is the same for every device and at every attempt.
        FcmError::Message { detail, .. } => detailed(Failure::never("PushRejected", message), detail).into(),
        FcmError::Oauth(OauthError::Status { status, retry_after }) => {
            of_status(status, retry_after, Failure::new("PushStatusError", message))
        }
        FcmError::Status { status, retry_after, detail, .. } => {
            of_status(status, retry_after, detailed(Failure::new("PushStatusError", message), detail))
        }
    }
}

fn of_onesignal(error: OneSignalError, message: String) -> Halt {
    match error {
        OneSignalError::Credentials(_) => down(Failure::new("PushCredentialsError", message), None),
        OneSignalError::Connection(_) => down(Failure::new("PushConnectError", message), None),
        OneSignalError::Silent(_) => Failure::new("PushTimeout", message).into(),
        OneSignalError::Message { detail, .. } => detailed(Failure::never("PushRejected", message), detail).into(),
        OneSignalError::Status { status, retry_after, detail } => {
            of_status(status, retry_after, detailed(Failure::new("PushStatusError", message), detail))
        }
    }
}

/// A quota that says when it refills is one that nobody's message passes until then. What else comes here is the
/// provider's own trouble.
fn of_status(status: StatusCode, retry_after: Option<Duration>, failure: Failure) -> Halt {
    match retry_after {
        None if status == StatusCode::TOO_MANY_REQUESTS => failure.after(QUOTA_WAIT).into(),
        _ => down(failure, retry_after),
    }
}

/// The provider serves nobody, whatever the message.
fn down(error: Failure, retry_after: Option<Duration>) -> Halt {
    Halt::Unavailable { error, retry_after }
}

/// With what the server said, where it said anything.
fn detailed(failure: Failure, detail: String) -> Failure {
    if detail.is_empty() { failure } else { failure.with_detail(detail) }
}

#[cfg(test)]
mod tests;
