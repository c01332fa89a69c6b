//! SMTP: connections that are kept for the next mail, and what a server's refusal means for a retry.
//!
//! | answer (RFC 5321, 4.2; RFC 4954, 6) | meaning |
//! |---|---|
//! | 530, 534, 535, 538, or any refusal of AUTH | the login: the operator's to mend, and the queue's to wait for |
//! | other 5xx | this mail is refused |
//! | 421, no connection | the server is down: the queue waits |
//! | other 4xx, no answer in the middle of a mail | later |
//!
//! lettre speaks the protocol; the shelf of idle connections is ours. lettre's own pool takes a connection back from a
//! dropped future in the middle of a conversation, where the next mail would read the answers of the last one.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lettre::address::Envelope;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;

use crate::config::{self, SmtpTls};

/// Idle connections that are kept.
const KEPT: usize = 10;
/// Servers hang up on a client that says nothing for some minutes; the shortest in common use is one.
const KEPT_FOR: Duration = Duration::from_secs(50);

pub(super) struct Smtp {
    host: String,
    port: u16,
    tls: Security,
    credentials: Option<Credentials>,
    timeout: Duration,
    hello: ClientId,
    idle: Mutex<Vec<Idle>>,
}

enum Security {
    None,
    StartTls(TlsParameters),
    Tls(TlsParameters),
}

struct Idle {
    connection: AsyncSmtpConnection,
    since: Instant,
}

/// Why `[email.smtp]` cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("read the certificate authority {}: {reason}", path.display())]
    Authority { path: PathBuf, reason: String },
    #[error("prepare TLS for the mail server: {0}")]
    Tls(String),
}

/// Why the server does not have the mail.
#[derive(Debug, thiserror::Error)]
pub(in crate::handler) enum SmtpError {
    #[error("connect to the mail server {server}: {reason}")]
    Connect { server: String, reason: String },
    #[error("log in to the mail server {server}: {reason}")]
    Login { server: String, reason: String },
    #[error("hand the mail to {server}: it was refused for good: {reason}")]
    Rejected { server: String, reason: String },
    #[error("hand the mail to {server}: {reason}")]
    Deferred { server: String, reason: String },
    #[error("hand the mail to {server}: no answer within {}", humantime::format_duration(*.limit))]
    Timeout { server: String, limit: Duration },
}

impl SmtpError {
    /// Another attempt would be refused in the same way.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Rejected { .. })
    }

    /// Nobody's mail could be sent now, and the server has not taken this one.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Login { .. })
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "SmtpConnectError",
            Self::Timeout { .. } => "SmtpTimeout",
            Self::Login { .. } => "SmtpAuthenticationError",
            Self::Rejected { .. } => "SmtpRejected",
            Self::Deferred { .. } => "SmtpDeferred",
        }
    }
}

impl Smtp {
    pub(super) fn new(config: &config::Smtp) -> Result<Self, SetupError> {
        let tls = match config.tls {
            SmtpTls::None => Security::None,
            SmtpTls::StartTls => Security::StartTls(parameters(config)?),
            SmtpTls::Tls => Security::Tls(parameters(config)?),
        };
        let credentials = config.username.clone().map(|username| {
            let password = config.password.as_ref().map(|password| password.expose().to_owned()).unwrap_or_default();
            Credentials::new(username, password)
        });
        Ok(Self {
            host: config.host.clone(),
            port: config.port,
            tls,
            credentials,
            timeout: config.timeout,
            hello: ClientId::default(),
            idle: Mutex::default(),
        })
    }

    /// Hands the mail over and returns once the server has taken it. A dropped future closes its connection; the
    /// server then forgets a mail it has not seen the end of.
    pub(super) async fn send(&self, envelope: &Envelope, bytes: &[u8]) -> Result<(), SmtpError> {
        let deadline = tokio::time::Instant::now() + self.timeout;
        let Ok(connected) = tokio::time::timeout_at(deadline, self.connection()).await else {
            let reason = format!("no answer within {}", humantime::format_duration(self.timeout));
            return Err(SmtpError::Connect { server: self.server(), reason });
        };
        let mut connection = connected?;
        match tokio::time::timeout_at(deadline, connection.send(envelope, bytes)).await {
            Ok(Ok(_)) => {
                self.keep(connection);
                Ok(())
            }
            Ok(Err(error)) => {
                // The server may hang in its farewell too.
                let _ = tokio::time::timeout_at(deadline, connection.abort()).await;
                Err(self.refusal(&error))
            }
            Err(_) => Err(SmtpError::Timeout { server: self.server(), limit: self.timeout }),
        }
    }

    /// A kept connection that still answers, or a new one.
    async fn connection(&self) -> Result<AsyncSmtpConnection, SmtpError> {
        while let Some(mut kept) = self.take_kept() {
            if kept.test_connected().await {
                return Ok(kept);
            }
        }
        self.connect().await
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, SmtpError> {
        let fail = |error: lettre::transport::smtp::Error| SmtpError::Connect {
            server: self.server(),
            reason: error.to_string(),
        };
        let wrapper = match &self.tls {
            Security::Tls(parameters) => Some(parameters.clone()),
            Security::None | Security::StartTls(_) => None,
        };
        let address = (self.host.as_str(), self.port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(address, Some(self.timeout), &self.hello, wrapper, None)
                .await
                .map_err(fail)?;
        if let Security::StartTls(parameters) = &self.tls {
            connection.starttls(parameters.clone(), &self.hello).await.map_err(fail)?;
        }
        if let Some(credentials) = &self.credentials {
            connection
                .auth(DEFAULT_MECHANISMS, credentials)
                .await
                .map_err(|error| SmtpError::Login { server: self.server(), reason: error.to_string() })?;
        }
        Ok(connection)
    }

    fn take_kept(&self) -> Option<AsyncSmtpConnection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|kept| kept.since.elapsed() < KEPT_FOR);
        idle.pop().map(|kept| kept.connection)
    }

    fn keep(&self, connection: AsyncSmtpConnection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT && !connection.has_broken() {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    fn refusal(&self, error: &lettre::transport::smtp::Error) -> SmtpError {
        let (server, reason) = (self.server(), error.to_string());
        // 530 and its like say that the login is missing: the operator's to mend, so worth another attempt.
        match error.status().map(|code| code.to_string()).as_deref() {
            Some("530" | "534" | "535" | "538") => SmtpError::Login { server, reason },
            // It says that it closes the connection, whatever it was asked.
            Some("421") => SmtpError::Connect { server, reason },
            _ if error.is_permanent() => SmtpError::Rejected { server, reason },
            _ => SmtpError::Deferred { server, reason },
        }
    }

    fn server(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smtp").field("server", &self.server()).finish_non_exhaustive()
    }
}

fn parameters(config: &config::Smtp) -> Result<TlsParameters, SetupError> {
    let mut builder = TlsParameters::builder(config.host.clone());
    if let Some(path) = &config.ca_file {
        let fail = |reason: String| SetupError::Authority { path: path.clone(), reason };
        let pem = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
        builder = builder.add_root_certificate(Certificate::from_pem(&pem).map_err(|error| fail(error.to_string()))?);
    }
    builder.build().map_err(|error| SetupError::Tls(error.to_string()))
}
