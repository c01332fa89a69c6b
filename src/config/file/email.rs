//! `[email]`: the provider that is chosen, and what it needs.
//!
//! Every provider's table is read whichever is chosen, so that a mistake is told before the day it is needed; that
//! something is missing is told of the chosen one only.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::delivery::{http_url, outbox, readable};
use super::diagnostic::quoted;
use super::document::{Item, Table};
use super::scalar::ANSWER;
use crate::config::{AttachmentRules, Email, EmailProvider, Mailgun, Secret, SendGrid, Ses, Smtp, SmtpTls};

const SECOND: Duration = Duration::from_secs(1);
/// What mail providers take at most, with some room for what encoding adds: SendGrid 30 MB, SES 40 MB, Mailgun 25 MB.
const LARGEST_MAIL: u64 = 18 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Outbox,
    Smtp,
    SendGrid,
    Ses,
    Mailgun,
}

/// A provider's table, and whether mail goes there.
struct Section<'a, 'd> {
    table: &'a Table<'d>,
    chosen: bool,
}

pub(super) fn email(table: &Table<'_>, state_dir: &Path) -> Email {
    const CHOICES: [(&str, Choice); 5] = [
        ("outbox", Choice::Outbox),
        ("smtp", Choice::Smtp),
        ("sendgrid", Choice::SendGrid),
        ("ses", Choice::Ses),
        ("mailgun", Choice::Mailgun),
    ];
    let item = table.get("provider");
    let choice = item.as_ref().and_then(|item| item.choice(&CHOICES)).unwrap_or(Choice::Outbox);
    let chosen = |this| item.as_ref().filter(|_| choice == this);
    let smtp = smtp(&Section::new(&table.table("smtp"), chosen(Choice::Smtp), "`host`"));
    let sendgrid = sendgrid(&Section::new(&table.table("sendgrid"), chosen(Choice::SendGrid), "`api_key`"));
    let needs = "`region`, `access_key` and `secret_key`";
    let ses = ses(&Section::new(&table.table("ses"), chosen(Choice::Ses), needs));
    let mailgun = mailgun(&Section::new(&table.table("mailgun"), chosen(Choice::Mailgun), "`domain` and `api_key`"));
    let folder = outbox(&table.table("outbox"), state_dir, "email");
    let provider = match choice {
        Choice::Outbox => None,
        Choice::Smtp => Some(EmailProvider::Smtp(smtp)),
        Choice::SendGrid => sendgrid.map(EmailProvider::SendGrid),
        Choice::Ses => ses.map(EmailProvider::Ses),
        Choice::Mailgun => mailgun.map(EmailProvider::Mailgun),
    };
    let from = table.get("from").and_then(|item| mailbox(&item));
    let reply_to = table.get("reply_to").and_then(|item| mailbox(&item));
    let templates = table.get("templates").and_then(|item| folder_of_templates(&item));
    let attachments = attachments(table);
    table.close();
    Email {
        // A stand-in, where what the chosen one needs is missing: that is a problem of the file, so nothing is sent by it.
        provider: provider.unwrap_or(EmailProvider::Outbox { folder }),
        from: from.unwrap_or_else(|| "jobsd <jobsd@localhost>".into()),
        reply_to,
        templates,
        attachments,
    }
}

impl<'a, 'd> Section<'a, 'd> {
    fn new(table: &'a Table<'d>, chosen: Option<&'a Item<'d>>, needs: &str) -> Self {
        if let (Some(provider), false) = (chosen, table.is_present()) {
            let message = format!("there is no [{}] to send with", table.path);
            table.doc.error(&provider.place, message, format!("add [{}] with at least {needs}", table.path));
        }
        Self { table, chosen: chosen.is_some() }
    }

    /// A secret that must be there if this provider is chosen.
    fn secret(&self, key: &'static str, file_key: &'static str) -> Option<Secret> {
        let (item, file) = (self.table.get(key), self.table.get(file_key));
        if file.is_none() && item.as_ref().is_none_or(Item::is_unset) {
            self.miss(item, key, &format!("\"cred:NAME\" and `{file_key}` are other ways to give it"));
            return None;
        }
        self.table.secret_unless_unset(key, file_key)
    }

    /// A text that must be there if this provider is chosen.
    fn text(&self, key: &'static str, example: &str, fits: fn(char) -> bool) -> Option<String> {
        let help = format!("it looks like \"{example}\"");
        let Some(item) = self.table.get(key) else {
            self.miss(None, key, &help);
            return None;
        };
        let text = item.text(&format!("a text such as \"{example}\""))?.text.trim().to_owned();
        if text.is_empty() {
            self.miss(Some(item), key, &help);
            return None;
        }
        if !text.chars().all(fits) {
            item.error(format!("{} is no {key}", quoted(&text)), format!("write it as in \"{example}\""));
        }
        Some(text)
    }

    /// Reports what is missing, where the key is written or its table begins.
    fn miss(&self, item: Option<Item<'_>>, key: &str, help: &str) {
        let (path, doc) = (&self.table.path, self.table.doc);
        match item {
            _ if !self.chosen || !self.table.is_present() => {}
            Some(item) => {
                let variable = item.value.as_str().and_then(variable);
                let set = variable.map_or_else(|| format!("give `{key}` a text"), |name| format!("set {name}"));
                doc.error(
                    &item.place,
                    format!("`{path}.{key}` is empty, and mail is sent by it"),
                    format!("{set}; {help}"),
                );
            }
            None => {
                let message = format!("the key `{key}` is missing in [{path}]");
                doc.error(&self.table.place, message, format!("add {key} = \"…\"; {help}"));
            }
        }
    }

    fn timeout(&self) -> Duration {
        self.table.duration("timeout", 30 * SECOND, ANSWER)
    }

    /// Where requests go instead of `usual`: a proxy, or a test.
    fn endpoint(&self, usual: String) -> String {
        let Some(item) = self.table.get("endpoint") else { return usual };
        let url = http_url(&item);
        let host = url.as_deref().and_then(|url| url.strip_prefix("http://"));
        let host = host.map(|rest| rest.split(['/', ':']).next().unwrap_or_default());
        if host.is_some_and(|host| !matches!(host, "localhost" | "127.0.0.1" | "[")) {
            item.doc.warning(
                &item.place,
                "mails and the key cross the network unencrypted",
                "write the URL with https:// unless it stays on this machine",
            );
        }
        url.unwrap_or(usual)
    }
}

/// The first variable that a text names.
fn variable(text: &str) -> Option<&str> {
    let name = text.split_once("${")?.1;
    Some(&name[..name.find([':', '}'])?])
}

fn sendgrid(section: &Section<'_, '_>) -> Option<SendGrid> {
    const REGIONS: [(&str, &str); 2] = [("global", "https://api.sendgrid.com"), ("eu", "https://api.eu.sendgrid.com")];
    let api_key = section.secret("api_key", "api_key_file");
    let usual = section.table.choice("region", REGIONS[0].1, &REGIONS);
    let (endpoint, timeout) = (section.endpoint(usual.into()), section.timeout());
    section.table.close();
    Some(SendGrid { api_key: api_key?, endpoint, timeout })
}

fn ses(section: &Section<'_, '_>) -> Option<Ses> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let region = section.text("region", "us-east-1", plain);
    let access_key = section.secret("access_key", "access_key_file");
    let secret_key = section.secret("secret_key", "secret_key_file");
    let session_token = section.table.secret_unless_unset("session_token", "session_token_file");
    let configuration_set = section.table.get("configuration_set");
    let configuration_set = configuration_set.and_then(|item| item.filled_text("the name of a configuration set"));
    let host = |region: &str| format!("https://email.{region}.amazonaws.com");
    let endpoint = section.endpoint(region.as_deref().map(host).unwrap_or_default());
    let timeout = section.timeout();
    section.table.close();
    Some(Ses {
        region: region?,
        access_key: access_key?,
        secret_key: secret_key?,
        session_token,
        configuration_set: configuration_set.map(|text| text.text),
        endpoint,
        timeout,
    })
}

fn mailgun(section: &Section<'_, '_>) -> Option<Mailgun> {
    const REGIONS: [(&str, &str); 2] = [("us", "https://api.mailgun.net"), ("eu", "https://api.eu.mailgun.net")];
    let domain =
        section.text("domain", "mg.example.org", |c| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_');
    let api_key = section.secret("api_key", "api_key_file");
    let usual = section.table.choice("region", REGIONS[0].1, &REGIONS);
    let (endpoint, timeout) = (section.endpoint(usual.into()), section.timeout());
    section.table.close();
    Some(Mailgun { domain: domain?, api_key: api_key?, endpoint, timeout })
}

fn smtp(section: &Section<'_, '_>) -> Smtp {
    let table = section.table;
    let choices = [("none", SmtpTls::None), ("starttls", SmtpTls::StartTls), ("tls", SmtpTls::Tls)];
    let tls = table.choice("tls", SmtpTls::StartTls, &choices);
    let usual = match tls {
        SmtpTls::None => 25,
        SmtpTls::StartTls => 587,
        SmtpTls::Tls => 465,
    };
    let host = table.get("host").and_then(|item| item.filled_text("a host such as \"smtp.example.org\""));
    let host = host.map_or_else(|| "localhost".into(), |text| text.text);
    let (username, password) = login(table, tls, &host);
    let server = Smtp {
        host,
        port: table.integer("port", usual, 1..=65535),
        tls,
        username,
        password,
        ca_file: table.path("ca_file", "/etc/ssl/own-ca.pem"),
        timeout: section.timeout(),
    };
    if section.chosen && tls != SmtpTls::None {
        let help = "name a PEM file that the user of jobsd may read, or remove the key";
        readable(table, "ca_file", server.ca_file.as_deref(), help);
    }
    table.close();
    server
}

fn login(table: &Table<'_>, tls: SmtpTls, host: &str) -> (Option<String>, Option<Secret>) {
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
    if let (SmtpTls::None, Some((_, item))) = (tls, &password)
        && !matches!(host, "localhost" | "127.0.0.1" | "::1")
    {
        table.doc.warning(
            &item.key,
            "the password crosses the network unencrypted",
            "set tls = \"starttls\" or \"tls\"",
        );
    }
    (username, password.map(|(secret, _)| secret))
}

pub(super) fn mailbox(item: &Item<'_>) -> Option<String> {
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

fn attachments(table: &Table<'_>) -> AttachmentRules {
    const EXPECTED: &str = "an array of folders such as [\"/srv/invoices\"]";
    let items = table.get("attachment_roots").and_then(|item| item.array(EXPECTED)).unwrap_or_default();
    let folder = |item: &Item<'_>| {
        let path = PathBuf::from(item.filled_text("a folder such as \"/srv/invoices\"")?.text);
        if !path.is_absolute() {
            item.error(
                format!("{} is not an absolute path", quoted(&path.to_string_lossy())),
                "write the whole path: files are looked for in it whatever folder jobsd was started in",
            );
        }
        Some(path)
    };
    let max = table.get("max_attachments").and_then(|item| item.size(1..=LARGEST_MAIL));
    AttachmentRules { roots: items.iter().filter_map(folder).collect(), max: max.unwrap_or(10 << 20) }
}
