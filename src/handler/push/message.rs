//! A notification in the forms that providers take. What stands in it is the operator's and the producer's; here it is
//! checked as far as a provider would refuse it for every device alike.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::PushError;
use crate::config::PushStep;
use crate::handler::Run;

/// Bytes that Apple's service allows for an id that replaces an earlier notification.
const COLLAPSE_ID_LEN: usize = 64;
/// Targets and identity of a OneSignal request are ours: an option must not send it to somebody else, or twice.
const OWN_FIELDS: [&str; 6] = ["app_id", "target_channel", "idempotency_key", "external_id", "headings", "contents"];

/// One notification, rendered for one job.
#[derive(Debug)]
pub(super) struct Notification {
    title: String,
    body: String,
    data: Map<String, Value>,
    android: Option<Value>,
    apns: Option<Value>,
    webpush: Option<Value>,
    onesignal: Map<String, Value>,
    /// The same for every attempt of the step: by it a repeated notification is known.
    identity: String,
}

impl Notification {
    pub(super) fn render(step: &PushStep, run: &Run<'_>) -> Result<Self, PushError> {
        let values = run.context.values();
        let option = |name: &'static str, template: &Option<crate::config::ValueTemplate>| {
            let value = template.as_ref().map(|template| template.render(values)).transpose()?;
            match value {
                None | Some(Value::Null) => Ok(None),
                Some(Value::Object(fields)) => Ok(Some(fields)),
                Some(_) => Err(PushError::Invalid(format!("its `{name}` is not an object"))),
            }
        };
        let mut data = option("data", &step.data)?.unwrap_or_default();
        data.retain(|_, value| !value.is_null());
        if let Some(key) = data.keys().find(|key| is_reserved(key)) {
            return Err(PushError::Invalid(format!("the key `{key}` in its `data` is reserved by FCM")));
        }
        let onesignal = option("onesignal", &step.onesignal)?.unwrap_or_default();
        if let Some(key) = onesignal.keys().find(|key| is_own(key)) {
            return Err(PushError::Invalid(format!("`{key}` in its `onesignal` is set by jobsd")));
        }
        Ok(Self {
            title: step.title.render(values)?,
            body: step.body.render(values)?,
            data,
            android: option("android", &step.android)?.map(Value::Object),
            apns: option("apns", &step.apns)?.map(Value::Object),
            webpush: option("webpush", &step.webpush)?.map(Value::Object),
            onesignal,
            identity: format!("{}.{}", run.job.id, run.step),
        })
    }

    /// FCM's `message` without its target. A notification that is sent again by a later attempt replaces the first one
    /// on the device, unless the step's options say otherwise.
    pub(super) fn for_fcm(&self) -> Value {
        let mut message = json!({"notification": {"title": self.title, "body": self.body}});
        if !self.data.is_empty() {
            let strings = self.data.iter().map(|(key, value)| (key.clone(), json!(plain(value))));
            message["data"] = Value::Object(strings.collect());
        }
        if self.identity.len() <= COLLAPSE_ID_LEN && self.identity.is_ascii() {
            message["android"] = json!({"notification": {"tag": self.identity}});
            message["apns"] = json!({"headers": {"apns-collapse-id": self.identity}});
        }
        for (platform, options) in [("android", &self.android), ("apns", &self.apns), ("webpush", &self.webpush)] {
            if let Some(options) = options {
                merge(&mut message[platform], options);
            }
        }
        message
    }

    /// OneSignal's request without its app and target.
    pub(super) fn for_onesignal(&self) -> Map<String, Value> {
        let mut request = self.onesignal.clone();
        request.insert("headings".into(), json!({"en": self.title}));
        request.insert("contents".into(), json!({"en": self.body}));
        if !self.data.is_empty() {
            request.insert("data".into(), Value::Object(self.data.clone()));
        }
        request.insert("target_channel".into(), json!("push"));
        request.insert("idempotency_key".into(), json!(self.uuid().to_string()));
        request
    }

    /// The identity as OneSignal wants it: in the form of a random UUID, made of the hash.
    fn uuid(&self) -> Uuid {
        let hash = ring::digest::digest(&ring::digest::SHA256, self.identity.as_bytes());
        let bytes = hash.as_ref().first_chunk::<16>().expect("a SHA-256 has 32 bytes");
        uuid::Builder::from_random_bytes(*bytes).into_uuid()
    }
}

/// Words that FCM refuses as keys of the data payload.
fn is_reserved(key: &str) -> bool {
    matches!(key, "from" | "message_type") || key.starts_with("google.") || key.starts_with("gcm.notification.")
}

fn is_own(key: &str) -> bool {
    OWN_FIELDS.contains(&key)
        || key.starts_with("include_")
        || matches!(key, "included_segments" | "excluded_segments" | "filters" | "data")
}

/// Puts `more` over `value`, table by table.
fn merge(value: &mut Value, more: &Value) {
    match (value, more) {
        (Value::Object(value), Value::Object(more)) => {
            for (key, more) in more {
                merge(value.entry(key.clone()).or_insert(Value::Null), more);
            }
        }
        (value, more) => *value = more.clone(),
    }
}

/// FCM's data payload holds strings only: texts as they are, everything else as JSON.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
