//! `[email]` and `[video]`, and what `[push]` has in common with them: the services that handlers deliver with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::diagnostic::quoted;
use super::document::{Item, Table};
use super::scalar::{ANSWER, DAY};
use crate::config::{Email, EmailProvider, Smtp, SmtpTls, Video};

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn email(table: &Table<'_>, state_dir: &Path) -> Email {
    let provider = table.get("provider");
    let smtp = provider.as_ref().and_then(email_provider).unwrap_or(false);
    let smtp_table = table.table("smtp");
    if smtp && !smtp_table.is_present() {
        let place = provider.as_ref().map_or(table.place.clone(), |item| item.place.clone());
        table.doc.error(&place, "there is no [email.smtp] to send with", "add [email.smtp] with at least `host`");
    }
    let server = smtp_server(&smtp_table, smtp);
    let folder = outbox(&table.table("outbox"), state_dir, "email");
    let from = table.get("from").and_then(|item| mailbox(&item));
    let reply_to = table.get("reply_to").and_then(|item| mailbox(&item));
    let templates = table.get("templates").and_then(|item| folder_of_templates(&item));
    table.close();
    Email {
        provider: if smtp { EmailProvider::Smtp(server) } else { EmailProvider::Outbox { folder } },
        from: from.unwrap_or_else(|| "jobsd <jobsd@localhost>".into()),
        reply_to,
        templates,
    }
}

/// Whether mail is sent by SMTP.
fn email_provider(item: &Item<'_>) -> Option<bool> {
    let relay = match item.value.as_str() {
        Some("sendgrid") => "smtp.sendgrid.net, username \"apikey\"",
        Some("ses") => "email-smtp.REGION.amazonaws.com",
        Some("mailgun") => "smtp.mailgun.org",
        _ => return item.choice(&[("outbox", false), ("smtp", true)]),
    };
    item.error(
        "this provider's own interface is not built in; its SMTP relay is the way",
        format!("set provider = \"smtp\" and in [email.smtp] the host {relay}"),
    );
    None
}

/// `used`: whether mail goes there, so that what its keys name must exist.
fn smtp_server(table: &Table<'_>, used: bool) -> Smtp {
    let choices = [("none", SmtpTls::None), ("starttls", SmtpTls::StartTls), ("tls", SmtpTls::Tls)];
    let tls = table.choice("tls", SmtpTls::StartTls, &choices);
    let usual = match tls {
        SmtpTls::None => 25,
        SmtpTls::StartTls => 587,
        SmtpTls::Tls => 465,
    };
    let host = table.get("host").and_then(|item| item.filled_text("a host such as \"smtp.example.org\""));
    let user = table.get("username");
    let username = user.as_ref().and_then(|item| item.filled_text("a user's name")).map(|text| text.text);
    let password = table.secret("password", "password_file");
    if let (None, Some((_, item))) = (&user, &password) {
        table.doc.error(
            &item.key,
            "there is a password, but no username",
            "set email.smtp.username, or remove the password",
        );
    }
    if let (Some(item), None) = (user, &password)
        && !table.has("password")
        && !table.has("password_file")
    {
        table.doc.error(&item.key, "there is a username, but no password", "set email.smtp.password or password_file");
    }
    let host = host.map_or_else(|| "localhost".into(), |text| text.text);
    if let (SmtpTls::None, Some((_, item))) = (tls, &password)
        && !matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1")
    {
        table.doc.warning(
            &item.key,
            "the password crosses the network unencrypted",
            "set tls = \"starttls\" or \"tls\"",
        );
    }
    let server = Smtp {
        host,
        port: table.integer("port", usual, 1..=65535),
        tls,
        username,
        password: password.map(|(secret, _)| secret),
        ca_file: table.path("ca_file", "/etc/ssl/own-ca.pem"),
        timeout: table.duration("timeout", 30 * SECOND, ANSWER),
    };
    if used && tls != SmtpTls::None {
        let help = "name a PEM file that the user of jobsd may read, or remove the key";
        readable(table, "ca_file", server.ca_file.as_deref(), help);
    }
    table.close();
    server
}

pub(super) fn outbox(table: &Table<'_>, state_dir: &Path, what: &str) -> PathBuf {
    let folder = table.path("folder", "/var/lib/jobsd/outbox");
    table.close();
    folder.unwrap_or_else(|| state_dir.join("outbox").join(what))
}

fn mailbox(item: &Item<'_>) -> Option<String> {
    const EXPECTED: &str = "an address such as \"Name <name@example.org>\"";
    let text = item.filled_text(EXPECTED)?.text;
    if text.parse::<lettre::message::Mailbox>().is_err() {
        item.error(format!("{} is not a mail address", quoted(&text)), format!("give {EXPECTED}"));
        return None;
    }
    Some(text)
}

fn folder_of_templates(item: &Item<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(item.filled_text("a folder such as \"/etc/jobsd/templates\"")?.text);
    if !path.is_dir() {
        item.error(
            format!("there is no folder {}", path.display()),
            "create it, or remove the key to use the built-in templates",
        );
    }
    Some(path)
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
