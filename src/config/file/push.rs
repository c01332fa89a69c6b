//! `[push]`: who delivers notifications, and where the devices of a user are found.

use std::path::Path;
use std::time::Duration;

use super::delivery::{http_url, outbox, readable};
use super::document::{Item, Table};
use super::scalar::ANSWER;
use crate::config::{Dialect, OneSignal, OneSignalTarget, Push, PushProvider, Secret, Statement};

const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chosen {
    Outbox,
    Fcm,
    OneSignal,
}

pub(super) fn push(table: &Table<'_>, state_dir: &Path, dialect: Dialect) -> Push {
    let choices = [("outbox", Chosen::Outbox), ("fcm", Chosen::Fcm), ("onesignal", Chosen::OneSignal)];
    let provider = table.get("provider");
    let chosen = provider.as_ref().and_then(|item| item.choice(&choices)).unwrap_or(Chosen::Outbox);
    let place = provider.as_ref().map_or_else(|| table.place.clone(), |item| item.place.clone());
    let miss = |message: &str, help: &str| table.doc.error(&place, message, help);
    let fcm = fcm(&table.table("fcm"), chosen == Chosen::Fcm, &miss);
    let onesignal = onesignal(&table.table("onesignal"), chosen == Chosen::OneSignal, &miss);
    let folder = outbox(&table.table("outbox"), state_dir, "push");
    let tokens_query = table.get("tokens_query");
    let by_devices = match (chosen, &onesignal) {
        (Chosen::OneSignal, Some(onesignal)) => onesignal.target == OneSignalTarget::Devices,
        (chosen, _) => chosen == Chosen::Fcm,
    };
    if by_devices && tokens_query.is_none() {
        miss(
            "there is no query for the devices of a user",
            "add tokens_query = \"SELECT token FROM device_tokens WHERE user_id = :user_id\" to [push]",
        );
    }
    let tokens_query = tokens_query.and_then(|item| self::tokens_query(&item, dialect));
    let remove_device = table.get("remove_device").and_then(|item| self::remove_device(&item, dialect));
    table.close();
    let provider = match chosen {
        Chosen::Fcm => fcm,
        Chosen::OneSignal => onesignal.map(PushProvider::OneSignal),
        Chosen::Outbox => None,
    };
    Push { provider: provider.unwrap_or(PushProvider::Outbox { folder }), tokens_query, remove_device }
}

fn fcm(table: &Table<'_>, used: bool, miss: &dyn Fn(&str, &str)) -> Option<PushProvider> {
    let blank = is_blank(table, "credentials");
    let credentials = if blank { None } else { table.path("credentials", "/etc/jobsd/fcm.json") };
    if used && credentials.is_some() {
        let help = "download the key file of the service account, and let the user of jobsd read it";
        readable(table, "credentials", credentials.as_deref(), help);
    }
    if used && (blank || !table.has("credentials")) {
        miss(
            "FCM needs the key file of a service account",
            "set the environment variable FIREBASE_CREDENTIALS_PATH, or credentials = \"/path/key.json\" in [push.fcm]",
        );
    }
    let endpoint = table.get("endpoint").and_then(|item| http_url(&item));
    let timeout = table.duration("timeout", TIMEOUT, ANSWER);
    table.close();
    let endpoint = endpoint.unwrap_or_else(|| "https://fcm.googleapis.com".into());
    Some(PushProvider::Fcm { credentials: credentials?, endpoint, timeout })
}

fn onesignal(table: &Table<'_>, used: bool, miss: &dyn Fn(&str, &str)) -> Option<OneSignal> {
    let no_app = is_blank(table, "app_id") || !table.has("app_id");
    let app_id = if no_app { None } else { table.get("app_id").and_then(|item| app_id(&item)) };
    let no_key = is_blank(table, "api_key") || !(table.has("api_key") || table.has("api_key_file"));
    let api_key = if no_key { None } else { table.secret("api_key", "api_key_file") };
    if used && no_app {
        miss(
            "OneSignal needs the id of the app",
            "set the environment variable ONESIGNAL_APP_ID, or app_id in [push.onesignal]",
        );
    }
    if used && no_key {
        miss(
            "OneSignal needs the app's API key",
            "set the environment variable ONESIGNAL_API_KEY, or api_key or api_key_file in [push.onesignal]",
        );
    }
    let endpoint = table.get("endpoint").and_then(|item| http_url(&item));
    let timeout = table.duration("timeout", TIMEOUT, ANSWER);
    let alias = table.get("alias").and_then(|item| item.filled_text("the name of an alias such as \"external_id\""));
    let by_user = OneSignalTarget::User { alias: alias.map_or_else(|| "external_id".into(), |text| text.text) };
    let by_devices = table.choice("target", false, &[("user", false), ("devices", true)]);
    // Known keys even where nobody asked for them above.
    for key in ["app_id", "api_key", "api_key_file"] {
        let _ = table.get(key);
    }
    table.close();
    Some(OneSignal {
        app_id: app_id?,
        api_key: api_key.map_or_else(|| Secret::new(""), |(secret, _)| secret),
        endpoint: endpoint.unwrap_or_else(|| "https://api.onesignal.com".into()),
        timeout,
        target: if by_devices { OneSignalTarget::Devices } else { by_user },
    })
}

fn app_id(item: &Item<'_>) -> Option<String> {
    let text = item.filled_text("the id of a OneSignal app")?.text;
    if uuid::Uuid::try_parse(&text).is_err() {
        item.error(
            "this is not the id of a OneSignal app",
            "copy it from Keys & IDs: it looks like 00000000-0000-0000-0000-000000000000",
        );
        return None;
    }
    Some(text)
}

/// Whether the key is there, and blank.
fn is_blank(table: &Table<'_>, key: &'static str) -> bool {
    table.get(key).is_some_and(|item| item.is_blank())
}

fn tokens_query(item: &Item<'_>, dialect: Dialect) -> Option<Statement> {
    let query =
        item.statement(dialect, "a query such as \"SELECT token FROM push_tokens WHERE user_id = :user_id\"")?;
    if query.names != ["user_id"] {
        item.error(
            "the query must have `:user_id` as its one parameter",
            "write it as in \"SELECT token FROM push_tokens WHERE user_id = :user_id\"",
        );
    }
    Some(query)
}

fn remove_device(item: &Item<'_>, dialect: Dialect) -> Option<Statement> {
    let statement = item.statement(dialect, "a statement such as \"DELETE FROM push_tokens WHERE token = :token\"")?;
    let known = |name: &String| name == "token" || name == "user_id";
    if !statement.names.iter().any(|name| name == "token") || !statement.names.iter().all(known) {
        item.error(
            "the statement must have `:token` as a parameter, and no other than `:user_id` beside it",
            "write it as in \"DELETE FROM push_tokens WHERE token = :token\"",
        );
    }
    Some(statement)
}
