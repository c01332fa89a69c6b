//! `[push]` and `[video]`, and what services that deliver have in common.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::diagnostic::quoted;
use super::document::{Item, Table};
use super::scalar::{ANSWER, DAY};
use crate::config::{Dialect, Push, PushProvider, Statement, Video};

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn outbox(table: &Table<'_>, state_dir: &Path, what: &str) -> PathBuf {
    let folder = table.path("folder", "/var/lib/jobsd/outbox");
    table.close();
    folder.unwrap_or_else(|| state_dir.join("outbox").join(what))
}

/// Reports a file that a start would fail to open. What stands in it is for the handler to judge.
pub(super) fn readable(table: &Table<'_>, key: &'static str, path: Option<&Path>, help: &str) {
    let (Some(item), Some(path)) = (table.get(key), path) else { return };
    if let Err(error) = std::fs::File::open(path) {
        item.error(format!("cannot read the file {}: {error}", path.display()), help);
    }
}

pub(super) fn push(table: &Table<'_>, state_dir: &Path, dialect: Dialect) -> Push {
    let provider = table.get("provider");
    let fcm = provider.as_ref().and_then(push_provider).unwrap_or(false);
    let fcm_table = table.table("fcm");
    let credentials = fcm_table.path("credentials", "/etc/jobsd/fcm.json");
    if fcm {
        let help = "download the key file of the service account, and let the user of jobsd read it";
        readable(&fcm_table, "credentials", credentials.as_deref(), help);
    }
    if let (Some(item), None) = (provider.filter(|_| fcm), &credentials)
        && !fcm_table.has("credentials")
    {
        item.error("FCM needs the key file of a service account", "set credentials = \"/path/key.json\" in [push.fcm]");
    }
    let endpoint = fcm_table.get("endpoint").and_then(|item| http_url(&item));
    let timeout = fcm_table.duration("timeout", 10 * SECOND, ANSWER);
    fcm_table.close();
    let folder = outbox(&table.table("outbox"), state_dir, "push");
    let tokens_query = table.get("tokens_query").and_then(|item| tokens_query(&item, dialect));
    table.close();
    let provider = match credentials.filter(|_| fcm) {
        Some(credentials) => PushProvider::Fcm {
            credentials,
            endpoint: endpoint.unwrap_or_else(|| "https://fcm.googleapis.com".into()),
            timeout,
        },
        None => PushProvider::Outbox { folder },
    };
    Push { provider, tokens_query }
}

/// Whether messages go to FCM.
fn push_provider(item: &Item<'_>) -> Option<bool> {
    if item.value.as_str() == Some("onesignal") {
        item.error(
            "this provider is not built in",
            "choose \"fcm\" or \"outbox\", or call its interface by a task with an `http` step",
        );
        return None;
    }
    item.choice(&[("outbox", false), ("fcm", true)])
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

pub(super) fn http_url(item: &Item<'_>) -> Option<String> {
    let text = item.filled_text("a URL such as \"https://host/path\"")?.text;
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    if !rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_alphanumeric() || c == '[')) {
        item.error(format!("{} is not a URL", quoted(&text)), "write it with its scheme: \"https://host/path\"");
        return None;
    }
    Some(text.trim_end_matches('/').to_owned())
}

pub(super) fn video(table: &Table<'_>, state_dir: &Path) -> Video {
    const PRESETS: [&str; 9] =
        ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"];
    let presets = PRESETS.map(|preset| (preset, preset));
    let input_roots = table.get("input_roots").map_or_else(|| uploads(state_dir), |item| input_roots(&item, state_dir));
    let public_url = table.get("public_url").and_then(|item| item.text("a URL or a path such as \"/media\""));
    let video = Video {
        helper: table.path("helper", "/usr/libexec/jobsd-video"),
        input_roots,
        output_root: table.path("output_root", "/srv/media").unwrap_or_else(|| state_dir.join("video")),
        public_url: public_url.map_or_else(|| "/media".into(), |text| text.text.trim_end_matches('/').to_owned()),
        preset: table.choice("preset", "veryfast", &presets).to_owned(),
        crf: table.integer("crf", 23_u8, 0..=51),
        max_pixels: table.integer("max_pixels", 33_177_600_u64, 1_024..=1 << 30),
        max_duration: table.duration("max_duration", 2 * 3600 * SECOND, SECOND..=DAY),
    };
    table.close();
    video
}

fn uploads(state_dir: &Path) -> Vec<PathBuf> {
    vec![state_dir.join("uploads")]
}

/// The folders that are written; the usual one where there are but empty variables, as in `["${UPLOAD_ROOT:-}"]`.
fn input_roots(item: &Item<'_>, state_dir: &Path) -> Vec<PathBuf> {
    let items = item.array("an array of folders such as [\"/srv/uploads\"]").unwrap_or_default();
    let folder = |item: &Item<'_>| {
        let text = item.text("a folder such as \"/srv/uploads\"")?;
        let empty = text.text.trim().is_empty();
        if empty && !text.interpolated {
            item.error("an empty text names no folder", "give it a folder such as \"/srv/uploads\", or remove it");
        }
        (!empty).then(|| PathBuf::from(text.text))
    };
    let folders: Vec<PathBuf> = items.iter().filter_map(folder).collect();
    if folders.is_empty() && !items.is_empty() { uploads(state_dir) } else { folders }
}
