//! `[video]`, and what services that deliver have in common.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::diagnostic::quoted;
use super::document::{Item, Table};
use super::scalar::DAY;
use crate::config::Video;

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
