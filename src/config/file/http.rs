//! `[http]`, and the steps that make a request.

use super::delivery::readable;
use super::diagnostic::quoted;
use super::document::{Item, Table};
use super::scalar::ANSWER;
use super::scope::Scope;
use super::steps::header_names;
use crate::config::{AllowPrivate, Http, HttpStep, SigningKey, Step, Template, WhenDown};

/// Keys that one request is signed with: the one in use, and those on their way in or out.
const MOST_KEYS: usize = 5;

pub(super) fn http(table: &Table<'_>) -> Http {
    const EXPECTED: &str = "an array such as [\"10.0.0.0/8\", \"backend\"]";
    let allowed = table.get("allow_private").and_then(|item| item.array(EXPECTED)).unwrap_or_default();
    let allow_private = allowed.iter().filter_map(allow_private).collect();
    let ca_file = table.path("ca_file", "/etc/ssl/own-ca.pem");
    readable(
        table,
        "ca_file",
        ca_file.as_deref(),
        "name a PEM file that the user of jobsd may read, or remove the key",
    );
    table.close();
    Http { allow_private, ca_file }
}

fn allow_private(item: &Item<'_>) -> Option<AllowPrivate> {
    let text = item.filled_text("an address, a network or a host")?.text;
    let parsed = AllowPrivate::parse(&text);
    if parsed.is_none() {
        item.error(
            format!("{} is neither an address, nor a network, nor a host", quoted(&text)),
            "write it as in \"127.0.0.1\", \"10.0.0.0/8\", \"fd00::/8\" or \"backend\", without scheme and port",
        );
    }
    parsed
}

/// A step that makes one request.
pub(super) fn step(item: &Item<'_>, scope: &Scope<'_>) -> Option<Step> {
    const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"];
    let table = item.table()?;
    let method = table.choice("method", "POST", &METHODS.map(|method| (method, method))).to_owned();
    let url = table.required("url", "add url = \"https://host/path\"");
    let url = url.and_then(|item| {
        let template = scope.template(&item)?;
        let scheme = ["https://", "http://", "{{", "{%"].iter().any(|start| template.source().starts_with(start));
        if !scheme {
            item.error(
                format!("{} is not a URL", quoted(template.source())),
                "write it with its scheme: \"https://host/path\"",
            );
        }
        Some(template)
    });
    let headers = table.rendered_table("headers", scope);
    header_names(&table);
    framing_headers(&table);
    let body = table.rendered_value("body", scope);
    let snooze = table.get("snooze").map(|item| statuses(&item)).unwrap_or_default();
    let when_down = table.choice("when_down", WhenDown::Retry, &[("retry", WhenDown::Retry), ("wait", WhenDown::Wait)]);
    if let (WhenDown::Wait, Some(false), Some(item)) =
        (when_down, url.as_ref().map(Template::has_own_host), table.get("when_down"))
    {
        item.error(
            "the host of `url` comes from the job, so the queue would wait for one receiver with the jobs of all others",
            "write the host into `url`, or remove the key",
        );
    }
    let redirects = table.integer("redirects", 0, 0..=10);
    let timeout = table.get("timeout").and_then(|item| item.duration(ANSWER));
    let signing_keys = table.get("signing_secrets").map(|item| signing_keys(&item)).unwrap_or_default();
    table.close();
    Some(Step::Http(HttpStep { method, url: url?, headers, body, snooze, redirects, when_down, timeout, signing_keys }))
}

fn statuses(item: &Item<'_>) -> Vec<u16> {
    let items = item.array("an array of statuses such as [429, 503]").unwrap_or_default();
    items.iter().filter_map(|item| u16::try_from(item.integer(200..=599)?).ok()).collect()
}

/// What frames a request is the client's to say: a second opinion would let one request be read as two.
fn framing_headers(table: &Table<'_>) {
    const FRAMING: [&str; 8] =
        ["content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect"];
    let headers = table.get("headers").filter(|item| item.value.is_table()).and_then(|item| item.table());
    for (key, _) in headers.map(|table| table.entries()).unwrap_or_default() {
        if FRAMING.contains(&key.name.to_ascii_lowercase().as_str()) {
            let message = format!("the header {} is set by jobsd itself", quoted(&key.name));
            table.doc.error(&key.place, message, "remove it");
        }
    }
}

/// One secret or a list of them; a variable that is empty names none.
fn signing_keys(item: &Item<'_>) -> Vec<SigningKey> {
    const EXPECTED: &str = "an array such as [\"${WEBHOOK_SECRET}\"]";
    let items = if item.value.is_str() { vec![item.clone()] } else { item.array(EXPECTED).unwrap_or_default() };
    if items.len() > MOST_KEYS {
        item.error(format!("there are {} secrets, allowed are {MOST_KEYS}", items.len()), "remove those that are over");
    }
    items.iter().filter(|item| !item.is_blank()).filter_map(signing_key).collect()
}

fn signing_key(item: &Item<'_>) -> Option<SigningKey> {
    let secret = item.secret(true)?;
    let key = SigningKey::parse(secret.expose());
    if key.is_none() {
        item.error(
            "this is not a secret of Standard Webhooks: `whsec_` and 24 to 64 bytes in base64",
            "make one with: echo \"whsec_$(openssl rand -base64 32)\"",
        );
    }
    key
}
