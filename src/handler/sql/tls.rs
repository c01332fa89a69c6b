//! How a PostgreSQL URL asks for encryption, in libpq's words.
//!
//! `sslmode` = `disable` or absent: none. `allow`, `prefer`, `require`: encrypted, the server is not checked (that is
//! what libpq does, and many hosted databases present certificates of their own making). `verify-ca`, `verify-full`:
//! the certificate must be valid for the host, by the public authorities or those of `sslrootcert`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres::{CancelToken, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::SetupError;

#[derive(Clone)]
pub(super) enum Tls {
    Off,
    On(Arc<MakeRustlsConnect>),
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "Off",
            Self::On(_) => "On",
        })
    }
}

impl Tls {
    /// Asks the server to stop what the connection is doing. Best effort: the connection is gone either way.
    pub(super) async fn cancel(&self, token: &CancelToken) {
        let done = match self {
            Self::Off => token.cancel_query(NoTls).await,
            Self::On(connector) => token.cancel_query((**connector).clone()).await,
        };
        if let Err(error) = done {
            tracing::debug!(%error, "a database statement could not be cancelled");
        }
    }
}

/// What the URL says about certificates.
#[derive(Debug, PartialEq, Eq)]
enum Check {
    None,
    Encrypt(SslMode),
    Verify { authority: Option<String> },
}

/// Reads the URL. SQLAlchemy's forms are understood: `postgresql+asyncpg://…?ssl=require`.
pub(super) fn connection(url: &str) -> Result<(Config, Tls), SetupError> {
    let (url, check) = split(url)?;
    let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        SetupError::Url(format!("{error}{cause}"))
    })?;
    let tls = match check {
        Check::None => {
            config.ssl_mode(SslMode::Disable);
            Tls::Off
        }
        Check::Encrypt(mode) => {
            config.ssl_mode(mode);
            Tls::On(Arc::new(MakeRustlsConnect::new(unchecked())))
        }
        Check::Verify { authority } => {
            config.ssl_mode(SslMode::Require);
            Tls::On(Arc::new(MakeRustlsConnect::new(checked(authority.as_deref())?)))
        }
    };
    Ok((config, tls))
}

/// Takes the parameters that say how to encrypt out of the URL.
fn split(url: &str) -> Result<(String, Check), SetupError> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| SetupError::Url("it has no `postgres://`".into()))?;
    let scheme = scheme.split('+').next().unwrap_or_default();
    if !matches!(scheme, "postgres" | "postgresql") {
        return Err(SetupError::Url(format!("`{scheme}://` is not a PostgreSQL URL")));
    }
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (mut mode, mut authority, mut kept) = (None, None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode" | "ssl", value)) => mode = Some(value),
            Some(("sslrootcert", value)) => authority = Some(value.replace("%2F", "/").replace("%2f", "/")),
            _ => kept.push(pair),
        }
    }
    let check = match mode {
        None | Some("disable" | "false") => Check::None,
        Some("allow" | "prefer") => Check::Encrypt(SslMode::Prefer),
        Some("require" | "true") if authority.is_none() => Check::Encrypt(SslMode::Require),
        // As in libpq, `require` with an authority means that the authority is asked.
        Some("require" | "true" | "verify-ca" | "verify-full") => Check::Verify { authority },
        Some(other) => {
            let known = "disable, allow, prefer, require, verify-ca, verify-full";
            return Err(SetupError::Url(format!("`sslmode={other}` is not one of {known}")));
        }
    };
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    Ok((format!("postgres://{address}{query}"), check))
}

fn checked(authority: Option<&str>) -> Result<ClientConfig, SetupError> {
    let mut roots = RootCertStore::empty();
    match authority {
        None | Some("system") => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => add_authority(&mut roots, Path::new(path))
            .map_err(|reason| SetupError::Authority { path: path.to_owned(), reason })?,
    }
    Ok(builder().with_root_certificates(roots).with_no_client_auth())
}

fn add_authority(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(()) }
}

fn unchecked() -> ClientConfig {
    let any = Arc::new(AnyServer(rustls::crypto::ring::default_provider()));
    builder().dangerous().with_custom_certificate_verifier(any).with_no_client_auth()
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring offers the default protocol versions")
}

/// Takes any certificate, but still wants proof that the server owns it.
#[derive(Debug)]
struct AnyServer(CryptoProvider);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_says_how_to_encrypt() {
        let cases = [
            ("postgres://u:p@h/db", "postgres://u:p@h/db", Check::None),
            (
                "postgresql+asyncpg://h/db?ssl=require&application_name=x",
                "postgres://h/db?application_name=x",
                Check::Encrypt(SslMode::Require),
            ),
            ("postgres://h/db?sslmode=prefer", "postgres://h/db", Check::Encrypt(SslMode::Prefer)),
            ("postgres://h/db?sslmode=verify-full", "postgres://h/db", Check::Verify { authority: None }),
            (
                "postgres://h/db?sslmode=verify-ca&sslrootcert=%2Fetc/ca.pem",
                "postgres://h/db",
                Check::Verify { authority: Some("/etc/ca.pem".into()) },
            ),
        ];
        for (url, rest, check) in cases {
            assert_eq!(split(url).expect("a valid URL"), (rest.to_owned(), check), "{url}");
        }
    }

    #[test]
    fn a_bad_url_is_explained_without_its_password() {
        for url in
            ["postgres://u:hunter2@h/db?sslmode=maybe", "postgres://u:hunter2@h:port/db", "mysql://u:hunter2@h/db"]
        {
            let error = connection(url).expect_err("it is refused").to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
