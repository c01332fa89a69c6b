//! `[node]`, `[log]`, `[admin]`, `[database]` and `[vars]`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use super::diagnostic::quoted;
use super::document::{Document, Item, Table};
use super::scalar::{ANSWER, DAY, YEAR};
use crate::config::{Admin, Celery, Database, Log, LogFormat, Node, Secret, SlotOrder, SlotRules};
use crate::job::QueueName;

const SECOND: Duration = Duration::from_secs(1);
/// A token of fewer characters can be guessed over the network.
const TOKEN_LENGTH: usize = 16;

pub(super) fn node(table: &Table<'_>) -> Node {
    let env = table.doc.env;
    let name = match table.get("name") {
        Some(item) => node_name(&item).unwrap_or_else(host_name),
        None => host_name(),
    };
    let state_dir = table.path("state_dir", "/var/lib/jobsd").unwrap_or_else(|| {
        // systemd separates several folders by colons; the first is ours.
        let given = env("STATE_DIRECTORY").and_then(|list| list.split(':').next().map(str::to_owned));
        PathBuf::from(given.filter(|folder| !folder.is_empty()).unwrap_or_else(|| "./state".into()))
    });
    let drain = table.duration("drain", 60 * SECOND, Duration::ZERO..=DAY);
    let lease = table.duration("lease", 15 * SECOND, 3 * SECOND..=600 * SECOND);
    let slots = slot_rules(table);
    table.close();
    Node { name, state_dir, drain, lease, slots }
}

fn slot_rules(table: &Table<'_>) -> SlotRules {
    let bound = table.get("concurrency").and_then(|item| item.integer(1..=100_000));
    if !table.has("concurrency") {
        for item in ["order", "starve_after"].into_iter().filter_map(|key| table.get(key)) {
            let message = format!("`{}` has no effect: there is no bound that queues would compete for", item.path);
            table.doc.warning(&item.key, message, "give [node] a `concurrency`, or remove the key");
        }
    }
    let starve_after = table.duration("starve_after", 60 * SECOND, SECOND / 10..=DAY);
    let strict = SlotOrder::Strict { starve_after };
    let order = table.choice("order", SlotOrder::Weighted, &[("weighted", SlotOrder::Weighted), ("strict", strict)]);
    SlotRules { bound: bound.and_then(|bound| usize::try_from(bound).ok()), order }
}

fn node_name(item: &Item<'_>) -> Option<String> {
    let text = item.filled_text("a name such as \"vps-1\"")?.text;
    if let Err(error) = QueueName::parse(&text) {
        let message = error.to_string().replace("a queue name", "the node's name");
        item.error(message, "use letters, digits, `_`, `-` and `.`, as in \"vps-1\"");
        return None;
    }
    Some(text)
}

/// The host's name, made fit for an id. The kernel is asked by uname(2), because a service that sees of /proc only its
/// processes (`ProcSubset=pid`) has no /proc/sys.
fn host_name() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    let fit = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' };
    let name: String = name.trim().chars().take(64).map(fit).collect();
    if name.is_empty() { "jobsd".into() } else { name }
}

pub(super) fn celery(table: &Table<'_>) -> Celery {
    let usual = Celery::default().result_expires.unwrap_or_default();
    let expires = table.duration("result_expires", usual, Duration::ZERO..=10 * YEAR);
    table.close();
    Celery { result_expires: Some(expires).filter(|expires| !expires.is_zero()) }
}

pub(super) fn log(table: &Table<'_>) -> Log {
    let format = table.choice("format", LogFormat::Text, &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    let level = table.get("level").and_then(|item| log_level(&item)).unwrap_or_else(|| "info".into());
    table.close();
    Log { format, level }
}

fn log_level(item: &Item<'_>) -> Option<String> {
    let text = item.filled_text("a level such as \"info\"")?.text;
    // The filter takes any single word for a module's name; here it can only be a mistyped level.
    let word = !text.contains(['=', ',', ':']);
    let level = ["off", "error", "warn", "info", "debug", "trace"].contains(&text.to_lowercase().as_str());
    if (word && !level) || tracing_subscriber::EnvFilter::try_new(&text).is_err() {
        item.error(
            format!("{} is not a log filter", quoted(&text)),
            "write error, warn, info, debug or trace, or a filter such as \"jobsd=debug,info\"",
        );
        return None;
    }
    Some(text)
}

pub(super) fn admin(table: &Table<'_>) -> Admin {
    let address = table.get("listen");
    let listen = address.as_ref().and_then(socket_address).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9180)));
    let token = table.secret("token", "token_file");
    let token_given = token.is_some() || table.get("token").is_some() || table.get("token_file").is_some();
    if let Some((secret, item)) = &token
        && secret.expose().chars().count() < TOKEN_LENGTH
    {
        item.error(
            format!("the token is shorter than {TOKEN_LENGTH} characters"),
            "make one with: openssl rand -hex 24",
        );
    }
    if let Some(item) = address.filter(|_| !listen.ip().is_loopback() && !token_given) {
        item.error(
            format!("{listen} can be reached from other machines, and there is no token"),
            "set admin.token or admin.token_file, or listen on 127.0.0.1",
        );
    }
    let max_body = table.get("max_body").and_then(|item| item.size(1024..=256 << 20)).unwrap_or(1 << 20);
    table.close();
    Admin { listen, token: token.map(|(secret, _)| secret), max_body: usize::try_from(max_body).unwrap_or(usize::MAX) }
}

fn socket_address(item: &Item<'_>) -> Option<SocketAddr> {
    let text = item.filled_text("an address such as \"127.0.0.1:9180\"")?.text;
    let address = text.parse().or_else(|_| text.replace("localhost:", "127.0.0.1:").parse());
    if address.is_err() {
        item.error(
            format!("{} is not an address and a port", quoted(&text)),
            "write an IP address and a port: \"127.0.0.1:9180\", \"[::1]:9180\"",
        );
    }
    address.ok()
}

pub(super) fn database(table: &Table<'_>, state_dir: &Path) -> Database {
    let timeout = table.duration("timeout", 30 * SECOND, ANSWER);
    let connections = table.integer("connections", 5_usize, 1..=1000);
    let url = table.secret_url("url", "url_file");
    table.close();
    let own = || Database::Sqlite { path: state_dir.join("app.sqlite"), timeout };
    let Some((url, item)) = url else { return own() };
    let text = url.expose();
    if text == "sqlite" {
        return own();
    }
    if let Some(path) = text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
        // `sqlite:///x` is how URLs in other programs write the path `/x`.
        let path = path.strip_prefix("//").unwrap_or(path);
        return Database::Sqlite { path: PathBuf::from(path), timeout };
    }
    let postgres = text.starts_with("postgres://") || text.starts_with("postgresql://");
    if !postgres || text.parse::<tokio_postgres::Config>().is_err() {
        item.error(
            "this is not the URL of a database",
            "write \"sqlite\", \"sqlite:/path/app.db\" or \"postgres://user:password@host:5432/name\"",
        );
    }
    Database::Postgres { url, connections, timeout }
}

impl<'d> Table<'d> {
    /// A URL that may hold a password.
    pub(super) fn secret_url(&self, key: &'static str, file_key: &'static str) -> Option<(Secret, Item<'d>)> {
        if self.has(file_key) {
            return self.secret(key, file_key);
        }
        // The key is known even when nobody gives it.
        let _ = self.get(file_key);
        let item = self.get(key)?;
        let url = item.secret(false)?;
        let password = item.value.as_str().is_some_and(|written| {
            let user = written.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(user, _)| user);
            user.is_some_and(|user| {
                user.split_once(':').is_some_and(|(_, word)| !word.is_empty() && !word.starts_with("${"))
            })
        });
        if password {
            self.doc.warning(
                &item.place,
                format!("`{}` holds a password that is written into the file", item.path),
                format!("keep it out of the file: \"${{NAME}}\", \"cred:NAME\" or `{file_key}`"),
            );
        }
        Some((url, item))
    }
}

/// `[vars]`: any keys, any values.
pub(super) fn vars(doc: &Document<'_>, table: &Table<'_>) -> Map<String, Value> {
    let mut vars = Map::new();
    for (key, item) in table.entries() {
        if !key.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') || key.name.is_empty() {
            doc.error(
                &key.place,
                format!("`{}` cannot be written as vars.{}", key.name, key.name),
                "a variable's name holds letters, digits and `_`",
            );
        }
        vars.insert(key.name, item.value().unwrap_or_default());
    }
    vars
}
