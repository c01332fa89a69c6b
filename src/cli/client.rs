//! One daemon, as the command line reaches it: its address and token, requests, and what its refusals mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

use super::CliError;
use crate::config::{self, Config};

/// Where the daemon listens when nobody says anything else.
const USUAL: &str = "http://127.0.0.1:9180";
const CONFIG: &str = "jobsd.toml";
const CONNECT: Duration = Duration::from_secs(5);
/// Somewhat longer than a daemon lets an answer take.
const ANSWER: Duration = Duration::from_secs(75);
/// An answer that goes on until the job has ended has no deadline of its own; who reads it has one for each piece.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// As long as the daemon takes a name.
const LONGEST_NAME: usize = 64;

/// What says where the daemon is: an address, or the configuration that it runs with.
#[derive(Debug, clap::Args)]
pub(super) struct At {
    /// The daemon's configuration, for its address and token. Default: jobsd.toml, if it is there.
    #[arg(short = 'c', long = "config", env = "JOBSD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The daemon's address, instead of a configuration.
    #[arg(long, env = "JOBSD_URL", value_name = "URL")]
    url: Option<String>,
    /// The daemon's admin.token.
    #[arg(long, env = "JOBSD_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
}

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    /// Where the address comes from, in words.
    source: String,
    token: Option<String>,
    user: String,
}

impl At {
    /// The configuration file that is to be read: the one that was named, or the usual one where it exists.
    pub(super) fn file(&self) -> Option<&Path> {
        let named = self.config.as_deref().filter(|path| !path.as_os_str().is_empty());
        named.or_else(|| Some(Path::new(CONFIG)).filter(|path| path.exists()))
    }

    pub(super) fn connect(&self) -> Result<Client, CliError> {
        let (url, token) = (filled(self.url.as_ref()), filled(self.token.as_ref()));
        let (base, source, configured) = match (url, self.file()) {
            (Some(url), _) => (url.trim_end_matches('/').to_owned(), "--url or JOBSD_URL".to_owned(), None),
            (None, Some(file)) => {
                let config = load(file)?;
                let token = config.admin.token.as_ref().map(|token| token.expose().to_owned());
                (address(&config, file)?, format!("admin.listen of {}", file.display()), token)
            }
            (None, None) => (USUAL.to_owned(), "the usual address".to_owned(), None),
        };
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return Err(CliError::Usage(format!("{base:?} is no address of a daemon; write it like {USUAL}")));
        }
        // Proxies are for the world outside.
        let http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT).timeout(ANSWER).build();
        let http = http.map_err(|error| CliError::Failed(format!("failed to set up HTTP: {error}")))?;
        Ok(Client { http, base, source, token: token.or(configured), user: user() })
    }
}

/// Reads the configuration as the daemon does.
pub(super) fn load(file: &Path) -> Result<Config, CliError> {
    let loaded = config::load(file, &|name| std::env::var(name).ok());
    loaded.map(|loaded| loaded.config).map_err(|problems| {
        CliError::Config(format!(
            "the configuration cannot be read; mend it, or name the daemon with --url and --token\n{problems}"
        ))
    })
}

/// The address to speak to a daemon that listens so.
fn address(config: &Config, file: &Path) -> Result<String, CliError> {
    let mut listen = config.admin.listen;
    if listen.port() == 0 {
        let file = file.display();
        let detail =
            format!("{file}: admin.listen leaves the port to the system; give the daemon's address with --url");
        return Err(CliError::Config(detail));
    }
    if listen.ip().is_unspecified() {
        listen.set_ip(if listen.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    Ok(format!("http://{listen}"))
}

/// The person at the keyboard, for the record of what was done. Behind sudo it is the one who typed it.
pub(super) fn user() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| filled(std::env::var(name).ok().as_ref()));
    let name: String =
        name.iter().flat_map(|name| name.chars()).filter(char::is_ascii_graphic).take(LONGEST_NAME).collect();
    if name.is_empty() { "cli".to_owned() } else { name }
}

fn filled(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty()).cloned()
}

impl Client {
    pub(super) async fn get(&self, path: &str) -> Result<Value, CliError> {
        self.ask(Method::GET, path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Sends JSON as it is written.
    pub(super) async fn post_text(&self, path: &str, body: String) -> Result<Value, CliError> {
        let request = self.request(Method::POST, path).header(CONTENT_TYPE, "application/json").body(body);
        let (status, body) = self.answered(request).await?;
        read(status, &body)
    }

    pub(super) async fn patch(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Value, CliError> {
        self.ask(Method::DELETE, path, None).await
    }

    /// The answer as it is, of a path that answers with a text.
    pub(super) async fn text(&self, path: &str) -> Result<String, CliError> {
        let (status, body) = self.send(Method::GET, path, None).await?;
        if status.is_success() { Ok(body) } else { read(status, &body).map(|value| value.to_string()) }
    }

    /// The events of a path from behind the one of this id on; `None` when there are no more.
    pub(super) async fn events(&self, path: &str, last: &str) -> Result<Option<reqwest::Response>, CliError> {
        let request = self.request(Method::GET, path).header("Last-Event-ID", last).timeout(FOREVER);
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        match answer.status() {
            StatusCode::NO_CONTENT => Ok(None),
            status if status.is_success() => Ok(Some(answer)),
            status => {
                let body = answer.text().await.map_err(|error| self.unreachable(&error))?;
                read(status, &body).map(|_| None)
            }
        }
    }

    /// Like [`Client::get`]; `None` for what is not there.
    pub(super) async fn find(&self, path: &str) -> Result<Option<Value>, CliError> {
        match self.send(Method::GET, path, None).await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) => read(status, &body).map(Some),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, CliError> {
        let (status, body) = self.send(method, path, body).await?;
        read(status, &body)
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, String), CliError> {
        let request = self.request(method, path);
        self.answered(if let Some(body) = body { request.json(body) } else { request }).await
    }

    async fn answered(&self, request: RequestBuilder) -> Result<(StatusCode, String), CliError> {
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| self.unreachable(&error))?;
        Ok((status, text))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base)).header("X-Jobsd-User", &self.user);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        if error.is_builder() {
            return CliError::Usage(format!("{:?} ({}) is no address of a daemon", self.base, self.source));
        }
        // The first layers only say that a request was sent.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        CliError::Unreachable(format!(
            "no jobsd answers at {} ({}): {cause}\nstart it with `jobsd run`, or say where it is with --url or --config",
            self.base, self.source
        ))
    }
}

/// The value of an answer, or what a refusal says.
fn read(status: StatusCode, body: &str) -> Result<Value, CliError> {
    let value: Option<Value> = serde_json::from_str(body).ok();
    if status.is_success() {
        return value
            .ok_or_else(|| CliError::Failed("what answers there is no jobsd: it does not speak JSON".to_owned()));
    }
    let Some(problem) = value.filter(|value| value["detail"].is_string()) else {
        return Err(CliError::Failed(format!("what answers there is no jobsd: {status}")));
    };
    let mut words = problem["detail"].as_str().unwrap_or_default().to_owned();
    let errors = problem["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    if errors.len() > 1 {
        for error in errors {
            words += &format!("\n  {}", error["detail"].as_str().unwrap_or_default());
        }
    }
    if status == StatusCode::UNAUTHORIZED {
        words += "\ngive it with --token, JOBSD_TOKEN, or the configuration by --config";
    }
    Err(CliError::Failed(words))
}

/// A name as a segment of a path, or as a value in a query.
pub(super) fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(escaped("cron:x/1 é?&"), "cron%3Ax%2F1%20%C3%A9%3F%26");
    }

    #[test]
    fn what_is_no_jobsd_is_told() {
        let told = |status, body| read(status, body).expect_err("a failure").to_string();
        assert_eq!(told(StatusCode::OK, "<html>"), "what answers there is no jobsd: it does not speak JSON");
        assert_eq!(told(StatusCode::BAD_GATEWAY, "<html>"), "what answers there is no jobsd: 502 Bad Gateway");
        let problem = r#"{"detail": "2 things", "errors": [{"detail": "one"}, {"detail": "two"}]}"#;
        assert_eq!(told(StatusCode::UNPROCESSABLE_ENTITY, problem), "2 things\n  one\n  two");
    }
}
