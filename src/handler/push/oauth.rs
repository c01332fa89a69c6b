//! Access tokens of a Google service account: RFC 7523, one renewal at a time.
//!
//! Protocol: <https://developers.google.com/identity/protocols/oauth2/service-account#httprest>. A token is kept until
//! shortly before its end; whoever needs one while it is being renewed waits for that renewal, and shares its failure.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::StatusCode;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::clock;
use crate::config::Secret;
use crate::handler::response;

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// Google allows no longer life of an assertion.
const LIFE: Duration = Duration::from_secs(3600);
/// A token is renewed this long before its end, or at half its life when that is shorter.
const AHEAD: Duration = Duration::from_secs(300);
/// Whoever waited for a renewal that failed shares the failure, instead of asking once more after the other.
const FAILURE_SHARED: Duration = Duration::from_secs(1);
/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 64 * 1024;

/// A service account: who we are, and the token that proves it.
pub(super) struct Account {
    pub(super) project: String,
    email: String,
    token_uri: String,
    key_id: Option<String>,
    key: RsaKeyPair,
    client: reqwest::Client,
    /// Locked while it is being renewed.
    token: Mutex<State>,
}

#[derive(Default)]
enum State {
    #[default]
    None,
    Valid {
        token: Secret,
        renew_at: Instant,
    },
    Failed {
        error: OauthError,
        at: Instant,
    },
}

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
pub(in crate::handler) enum OauthError {
    /// The service account itself was refused.
    #[error("Google refused the service account: {0}")]
    Refused(String),
    #[error("ask for an access token: {0}")]
    Connection(String),
    #[error("ask for an access token: the answer was {status}")]
    Status { status: StatusCode, retry_after: Option<Duration> },
}

/// The part of the key file that is needed.
#[derive(Deserialize)]
struct KeyFile {
    project_id: Option<String>,
    private_key_id: Option<String>,
    private_key: String,
    client_email: String,
    #[serde(default = "token_uri")]
    token_uri: String,
}

fn token_uri() -> String {
    "https://oauth2.googleapis.com/token".into()
}

impl Account {
    /// Reads the key file; asks nobody.
    pub(super) fn read(path: &Path, client: reqwest::Client) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let file: KeyFile = serde_json::from_str(&text).map_err(|error| {
            // Not serde's own words: they may quote the file.
            format!("it is not the JSON key of a service account (line {}, column {})", error.line(), error.column())
        })?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(file.private_key.as_bytes())
            .map_err(|error| format!("its `private_key` is not a PEM key: {error}"))?;
        let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der())
            .map_err(|error| format!("its `private_key` is not a usable RSA key: {error}"))?;
        let project = file.project_id.filter(|project| is_project(project)).ok_or("it names no `project_id`")?;
        Ok(Self {
            project,
            email: file.client_email,
            token_uri: file.token_uri,
            key_id: file.private_key_id,
            key,
            client,
            token: Mutex::default(),
        })
    }

    /// The token to send requests with.
    pub(super) async fn token(&self) -> Result<Secret, OauthError> {
        let mut state = self.token.lock().await;
        match &*state {
            State::Valid { token, renew_at } if Instant::now() < *renew_at => return Ok(token.clone()),
            State::Failed { error, at } if at.elapsed() < FAILURE_SHARED => return Err(error.clone()),
            _ => {}
        }
        // If we are dropped here, the state is as it was, and the next one renews.
        let asked = Instant::now();
        match self.renew().await {
            Ok((token, life)) => {
                *state = State::Valid { token: token.clone(), renew_at: asked + life - AHEAD.min(life / 2) };
                Ok(token)
            }
            Err(error) => {
                *state = State::Failed { error: error.clone(), at: Instant::now() };
                Err(error)
            }
        }
    }

    /// The token was refused before its end: the next request asks for another one.
    pub(super) async fn forget(&self, refused: &Secret) {
        let mut state = self.token.lock().await;
        if matches!(&*state, State::Valid { token, .. } if token == refused) {
            *state = State::None;
        }
    }

    async fn renew(&self) -> Result<(Secret, Duration), OauthError> {
        let lost = |error| OauthError::Connection(response::reason(error));
        // Every character of both values is one that a form may hold as it is, but for the colons of the grant's name.
        let form = format!("grant_type={}&assertion={}", GRANT.replace(':', "%3A"), self.assertion());
        let request = self.client.post(&self.token_uri).header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body(form).send().await.map_err(lost)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = response::read(answer, MAX_ANSWER).await.map_err(lost)?.bytes;
        if status.is_success() {
            return granted(&body).ok_or_else(|| OauthError::Connection("the answer holds no token".into()));
        }
        // RFC 6749, 5.2: what is wrong with the request comes with 400 or 401; the rest is the server's own trouble.
        if matches!(status.as_u16(), 400 | 401 | 403) {
            return Err(OauthError::Refused(complaint(status, &body)));
        }
        let retry_after = response::retry_after(&headers, clock::now().to_utc());
        Err(OauthError::Status { status, retry_after })
    }

    /// The signed statement that we are this account.
    fn assertion(&self) -> String {
        let now = clock::now().as_millis() / 1000;
        let mut header = json!({"alg": "RS256", "typ": "JWT"});
        if let Some(id) = &self.key_id {
            header["kid"] = json!(id);
        }
        let claims = json!({
            "iss": self.email, "scope": SCOPE, "aud": self.token_uri, "iat": now, "exp": now + LIFE.as_secs(),
        });
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .expect("the buffer has the length of the modulus");
        format!("{signed}.{}", encode(&signature))
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("project", &self.project).field("email", &self.email).finish_non_exhaustive()
    }
}

/// It becomes a part of a URL's path.
fn is_project(id: &str) -> bool {
    !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '_'))
}

fn granted(body: &[u8]) -> Option<(Secret, Duration)> {
    #[derive(Deserialize)]
    struct Grant {
        access_token: String,
        expires_in: Option<u64>,
    }
    let grant: Grant = serde_json::from_slice(body).ok()?;
    let fits = !grant.access_token.is_empty() && grant.access_token.bytes().all(|byte| byte.is_ascii_graphic());
    let life = grant.expires_in.map_or(LIFE, Duration::from_secs).min(LIFE * 24);
    fits.then(|| (Secret::new(grant.access_token), life))
}

/// `invalid_grant: Invalid JWT Signature.` out of the answer's body, else its status.
fn complaint(status: StatusCode, body: &[u8]) -> String {
    let parsed: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match (parsed["error"].as_str(), parsed["error_description"].as_str()) {
        (Some(error), Some(description)) => format!("{error}: {description}"),
        (Some(error), None) => error.to_owned(),
        _ => format!("the answer was {status}"),
    }
}

#[cfg(test)]
mod tests;
