//! `[redis]`: the URL in its forms, the Sentinels in one of them, and the certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redis::IntoConnectionInfo as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::document::{Item, Table};
use super::scalar::ANSWER;
use crate::config::{Identity, Login, Redis, RedisTls, RedisUrl, Secret, Sentinels};
use crate::job::QueueName;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Redis's own default for its Sentinels.
const SENTINEL_PORT: u16 = 26379;
/// Longest file of certificates: the public authorities of a whole system are a quarter of it.
const LONGEST_PEM: u64 = 1 << 20;
const SENTINELS: &str = "redis+sentinel://host1:26379,host2:26379/mymaster/0";

pub(super) fn redis(table: &Table<'_>) -> Redis {
    let mut url = match table.secret_url("url", "url_file") {
        Some((url, item)) => redis_url(url, &item),
        None => RedisUrl::Embedded { port: None },
    };
    sentinel_login(table, &mut url);
    let tls = tls(table, uses_tls(&url));
    let redis = Redis {
        url,
        tls,
        prefix: prefix(table),
        timeout: table.duration("timeout", TIMEOUT, ANSWER),
        accept_eviction: table.boolean("accept_eviction", false),
    };
    table.close();
    redis
}

/// What is wrong with a URL is said without quoting it: it may hold a password.
fn redis_url(url: Secret, item: &Item<'_>) -> RedisUrl {
    const SCHEMES: [&str; 5] = ["redis://", "rediss://", "redis+unix://", "unix://", "valkey://"];
    let text = url.expose();
    if text == "embedded" {
        return RedisUrl::Embedded { port: None };
    }
    if let Some(port) = text.strip_prefix("embedded:") {
        return embedded_port(port, item);
    }
    let sentinel = [("redis+sentinel://", false), ("rediss+sentinel://", true)];
    if let Some((rest, tls)) = sentinel.iter().find_map(|(scheme, tls)| Some((text.strip_prefix(scheme)?, *tls))) {
        match sentinels(rest, tls) {
            Ok(sentinels) => return RedisUrl::Sentinels(sentinels),
            Err(wrong) => item.error(
                wrong,
                format!("write it as {SENTINELS}, with user:password@ before the first host if the master asks for it"),
            ),
        }
    } else if text.starts_with("sentinel://") {
        item.error(
            "this is how Celery writes its Sentinels; the name of the master is missing in it",
            format!("write them side by side, and the name (`master_name` in Celery's options) behind: {SENTINELS}"),
        );
    } else if !SCHEMES.iter().any(|scheme| text.len() > scheme.len() && text.starts_with(scheme)) {
        item.error(
            "this is not the URL of a Redis server",
            "write \"embedded\", \"redis://host:6379/0\", \"rediss://…\" for TLS, \"redis+unix:///path\", or \
             \"redis+sentinel://…\"",
        );
    } else if text.starts_with("rediss://") && text.ends_with("#insecure") {
        item.error(
            "the certificate of the server is always checked",
            "remove #insecure, and name the authority of the server in redis.ca_file",
        );
    } else if text.into_connection_info().is_err() {
        // The parser's own words may quote the URL, and with it a password.
        item.error(
            "the URL of the Redis server cannot be read",
            "write it as redis://user:password@host:6379/0: a port up to 65535, the database as a number, and special \
             characters of a password as %XX",
        );
    }
    RedisUrl::Url(url)
}

fn embedded_port(port: &str, item: &Item<'_>) -> RedisUrl {
    let number = port.parse().ok().filter(|port| *port != 0);
    if number.is_none() {
        item.error(
            "this is not a port for the embedded Redis",
            "write a number from 1 to 65535, as in \"embedded:6379\"",
        );
    }
    RedisUrl::Embedded { port: number }
}

/// Reads `[user:password@]host[:port],…/master[/database]`.
fn sentinels(text: &str, tls: bool) -> Result<Sentinels, &'static str> {
    if text.contains(['?', '#', ';']) {
        return Err("the URL of the Sentinels holds a character that has no meaning in it: `?`, `#` or `;`");
    }
    let (authority, path) = text.split_once('/').unwrap_or((text, ""));
    let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let mut path = path.split('/');
    let master = path.next().filter(|name| !name.is_empty()).ok_or("the URL does not name the master")?;
    let database = match path.next() {
        None | Some("") => 0,
        Some(number) => number.parse().ok().filter(|number| *number >= 0).ok_or("the database is not a number")?,
    };
    if path.next().is_some() {
        return Err("nothing may follow the database in the URL of the Sentinels");
    }
    let servers = hosts.split(',').map(server).collect::<Option<Vec<_>>>();
    let servers = servers.ok_or("the address of a Sentinel cannot be read")?;
    let login = login(user).ok_or("the user and the password of the master cannot be read")?;
    let master = master.to_owned();
    Ok(Sentinels { servers, master, database, tls, login, sentinel_login: Login::default() })
}

/// `host`, `host:port`, `[::1]:port`.
fn server(text: &str) -> Option<(String, u16)> {
    let bare = text.strip_suffix(']').is_some() || !text.contains(':');
    let (host, port) = if bare { (text, SENTINEL_PORT) } else { text.rsplit_once(':').and_then(with_port)? };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = bracketed.unwrap_or(host);
    let fit = !host.is_empty() && (bracketed.is_some() || !host.contains([':', '[', ']'])) && !host.contains(' ');
    fit.then(|| (host.to_owned(), port))
}

fn with_port<'t>((host, port): (&'t str, &str)) -> Option<(&'t str, u16)> {
    Some((host, port.parse().ok().filter(|port| *port != 0)?))
}

/// `user:password` with its `%XX`, by the rules of every other URL of Redis.
fn login(user: &str) -> Option<Login> {
    if user.is_empty() {
        return Some(Login::default());
    }
    let info = format!("redis://{user}@host/0").into_connection_info().ok()?;
    let settings = info.redis_settings();
    Some(Login { username: settings.username().map(str::to_owned), password: settings.password().map(Secret::new) })
}

fn sentinel_login(table: &Table<'_>, url: &mut RedisUrl) {
    let user = table.get("sentinel_username");
    let username = user.as_ref().and_then(|item| item.filled_text("a user's name")).map(|text| text.text);
    let password = table.secret("sentinel_password", "sentinel_password_file");
    if let (Some(item), None) = (&user, &password)
        && !table.has("sentinel_password")
        && !table.has("sentinel_password_file")
    {
        table.doc.error(&item.key, "there is a user for the Sentinels, but no password", "set redis.sentinel_password");
    }
    if let RedisUrl::Sentinels(sentinels) = url {
        sentinels.sentinel_login = Login { username, password: password.map(|(secret, _)| secret) };
    } else if let Some(item) = user.as_ref().or(password.as_ref().map(|(_, item)| item)) {
        let help = format!("write redis.url as {SENTINELS}, or remove the key");
        table.doc.warning(&item.key, format!("`{}` has no effect: redis.url names no Sentinels", item.path), help);
    }
}

fn uses_tls(url: &RedisUrl) -> bool {
    match url {
        RedisUrl::Embedded { .. } => false,
        RedisUrl::Url(url) => url.expose().starts_with("rediss://"),
        RedisUrl::Sentinels(sentinels) => sentinels.tls,
    }
}

fn tls(table: &Table<'_>, used: bool) -> RedisTls {
    let authority = table.get("ca_file");
    let (certificate, key) = (table.get("cert_file"), table.get("key_file"));
    let given = [&authority, &certificate, &key];
    if !used {
        for item in given.into_iter().flatten() {
            let message = format!("`{}` has no effect: redis.url does not ask for TLS", item.path);
            table.doc.warning(&item.key, message, "write rediss:// or rediss+sentinel://, or remove the key");
        }
        return RedisTls::default();
    }
    let authority = authority.and_then(|item| {
        let (path, text) = pem(&item)?;
        let outcome = roots(&text);
        if let Err(reason) = &outcome {
            item.error(
                format!("{} is no authority to trust: {reason}", path.display()),
                "name a PEM file of certificates",
            );
        }
        outcome.ok().map(|_| text)
    });
    let identity = match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => identity(&certificate, &key),
        (Some(item), None) => half(table, &item, "there is a certificate, but no key", "redis.key_file"),
        (None, Some(item)) => half(table, &item, "there is a key, but no certificate", "redis.cert_file"),
    };
    RedisTls { authority, identity }
}

fn half<T>(table: &Table<'_>, item: &Item<'_>, message: &str, missing: &str) -> Option<T> {
    table.doc.error(&item.key, message, format!("set {missing} too: they prove to Redis who we are together"));
    None
}

fn identity(certificate: &Item<'_>, key: &Item<'_>) -> Option<Identity> {
    let (certificate_pem, key_pem) = (pem(certificate), pem(key));
    let ((path, certificate_text), (_, key_text)) = (certificate_pem?, key_pem?);
    if let Err(reason) = fit_together(&certificate_text, &key_text) {
        key.error(
            format!("{} and this key do not prove who we are: {reason}", path.display()),
            "name the PEM file of a client's certificate and the PEM file of its own key, without a passphrase",
        );
        return None;
    }
    Some(Identity { certificate: certificate_text, key: Secret::new(key_text) })
}

fn pem(item: &Item<'_>) -> Option<(PathBuf, String)> {
    let path = PathBuf::from(item.filled_text("a path such as \"/etc/jobsd/redis.pem\"")?.text);
    match read(&path) {
        Ok(text) => Some((path, text)),
        Err(error) => {
            let help = "name a PEM file that the user of jobsd may read, or remove the key";
            item.error(format!("cannot read {}: {error}", path.display()), help);
            None
        }
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(LONGEST_PEM).read_to_string(&mut text)?;
    Ok(text)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|error| error.to_string())?;
    if found.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(found) }
}

fn roots(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

/// Whether a TLS client can be built of the two, as the Redis library will do it.
fn fit_together(certificate: &str, key: &str) -> Result<(), String> {
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "the key cannot be read".to_owned())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.with_root_certificates(RootCertStore::empty());
    builder.with_client_auth_cert(chain, key).map(drop).map_err(|error| error.to_string())
}

fn prefix(table: &Table<'_>) -> String {
    let Some(item) = table.get("prefix") else { return "jobsd".into() };
    let Some(text) = item.filled_text("a text such as \"jobsd\"") else { return "jobsd".into() };
    if let Err(error) = QueueName::parse(&text.text) {
        let message = format!("`redis.prefix` cannot start a key: {error}").replace("a queue name", "the prefix");
        item.error(message, "use letters, digits, `_`, `-` and `.`, as in \"jobsd\"");
    }
    text.text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Sentinels, &'static str> {
        sentinels(text, false)
    }

    #[test]
    fn sentinels_stand_side_by_side_before_their_master() {
        let all = read("ann:p%40ss@a:1,b,[::1]:3,10.0.0.1/mymaster/2").expect("it is valid");
        let servers = [("a", 1), ("b", 26379), ("::1", 3), ("10.0.0.1", 26379)];
        assert_eq!(all.servers, servers.map(|(host, port)| (host.to_owned(), port)));
        assert_eq!((all.master.as_str(), all.database), ("mymaster", 2));
        assert_eq!(all.login, Login { username: Some("ann".into()), password: Some(Secret::new("p@ss")) });
        let least = read("a/m").expect("it is valid");
        assert_eq!((least.database, least.login), (0, Login::default()));
        assert_eq!(read(":word@a/m/").expect("it is valid").login.password, Some(Secret::new("word")));
    }

    #[test]
    fn what_is_not_such_a_url_is_told_apart() {
        let cases = [
            ("a:1,b", "master"),
            ("a:1/", "master"),
            ("/m", "address"),
            ("a,,b/m", "address"),
            ("a:0/m", "address"),
            ("a:70000/m", "address"),
            ("::1/m", "address"),
            ("a/m/x", "database"),
            ("a/m/-1", "database"),
            ("a/m/1/2", "follow"),
            ("a/m?x=1", "character"),
            ("a;b/m", "character"),
        ];
        for (text, word) in cases {
            let wrong = read(text).expect_err(text);
            assert!(wrong.contains(word), "{text}: {wrong}");
        }
    }
}
