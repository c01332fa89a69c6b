//! OneSignal: one request for a user, whom OneSignal knows by an alias, or for the subscriptions of a user that the
//! operator's query gives.
//!
//! Protocol: <https://documentation.onesignal.com/reference/push-notification>. The request carries an idempotency key that
//! is the same for every attempt, so an answer that was lost costs no second notification.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::AUTHORIZATION;
use serde_json::{Map, Value, json};

use crate::clock;
use crate::config::{OneSignalTarget, Secret};
use crate::handler::response;

/// Bytes of an answer that are read: it may list every subscription of the request.
const MAX_ANSWER: usize = 256 * 1024;
/// Bytes of a refusal's body that a failure holds.
const MAX_DETAIL: usize = 4 * 1024;

#[derive(Debug)]
pub(super) struct OneSignal {
    client: reqwest::Client,
    app_id: String,
    api_key: Secret,
    url: String,
    pub(super) target: OneSignalTarget,
}

/// Whom a request is for.
pub(super) enum Audience<'a> {
    /// A user by the value of the configured alias.
    User {
        alias: &'a str,
        id: String,
    },
    Subscriptions(Vec<String>),
}

/// What OneSignal made of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// `None`: it knows nobody of the audience who could be told.
    pub(super) id: Option<String>,
    /// Subscriptions that it does not know.
    pub(super) dead: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub(in crate::handler) enum OneSignalError {
    #[error("the credentials were refused: {0}")]
    Credentials(String),
    #[error("{0}")]
    Connection(String),
    /// It has the request and gave no whole answer.
    #[error("{0}")]
    Silent(String),
    #[error("it answered {status}")]
    Status { status: StatusCode, retry_after: Option<Duration>, detail: String },
    #[error("it refused the message: {reason}")]
    Message { reason: String, detail: String },
}

impl OneSignal {
    pub(super) fn new(config: &crate::config::OneSignal, client: reqwest::Client) -> Self {
        Self {
            client,
            app_id: config.app_id.clone(),
            api_key: config.api_key.clone(),
            url: format!("{}/notifications?c=push", config.endpoint.trim_end_matches('/')),
            target: config.target.clone(),
        }
    }

    pub(super) async fn send(
        &self,
        mut request: Map<String, Value>,
        audience: Audience<'_>,
    ) -> Result<Sent, OneSignalError> {
        request.insert("app_id".into(), json!(self.app_id));
        match audience {
            Audience::User { alias, id } => {
                request.insert("include_aliases".into(), Value::Object(Map::from_iter([(alias.into(), json!([id]))])))
            }
            Audience::Subscriptions(ids) => request.insert("include_subscription_ids".into(), json!(ids)),
        };
        let lost = |error: reqwest::Error| match error.is_connect() {
            true => OneSignalError::Connection(response::reason(error)),
            false => OneSignalError::Silent(response::reason(error)),
        };
        let key = format!("Key {}", self.api_key.expose());
        let answer =
            self.client.post(&self.url).header(AUTHORIZATION, key).json(&request).send().await.map_err(lost)?;
        let status = answer.status();
        let retry_after = response::retry_after(answer.headers(), clock::now().to_utc());
        let body = response::read(answer, MAX_ANSWER).await.map_err(lost)?.bytes;
        sorted(status, retry_after, &body)
    }
}

/// What the answer means: the one place where OneSignal's answers are sorted.
fn sorted(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Result<Sent, OneSignalError> {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let detail = || String::from_utf8_lossy(&body[..body.len().min(MAX_DETAIL)]).into_owned();
    match status.as_u16() {
        200..=299 if answer.is_object() => Ok(Sent {
            id: answer["id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned),
            dead: unknown_subscriptions(&answer["errors"]),
        }),
        200..=299 => Err(OneSignalError::Connection("its answer is not what OneSignal answers".into())),
        400 | 404 => {
            let reason = complaint(&answer).unwrap_or_else(|| status.to_string());
            Err(OneSignalError::Message { reason, detail: detail() })
        }
        401 | 403 => Err(OneSignalError::Credentials(complaint(&answer).unwrap_or_else(|| status.to_string()))),
        _ => Err(OneSignalError::Status { status, retry_after, detail: detail() }),
    }
}

/// Under the name that they have now, and the one that they had before.
fn unknown_subscriptions(errors: &Value) -> Vec<String> {
    let lists = ["invalid_subscription_ids", "invalid_player_ids"].map(|key| errors[key].as_array());
    lists.into_iter().flatten().flatten().filter_map(|id| id.as_str().map(str::to_owned)).collect()
}

fn complaint(answer: &Value) -> Option<String> {
    let errors = &answer["errors"];
    let first = errors.as_array().and_then(|errors| errors.first()).unwrap_or(errors);
    match first {
        Value::Null => None,
        Value::String(text) => Some(text.chars().take(200).collect()),
        other => {
            Some(other["title"].as_str().map_or_else(|| other.to_string(), str::to_owned).chars().take(200).collect())
        }
    }
}

#[cfg(test)]
mod tests;
