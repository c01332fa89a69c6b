//! A certificate for 127.0.0.1, made by OpenSSL, that is its own authority.

use std::path::Path;
use std::process::Command;

/// Writes `server.crt` and `server.key` into `dir`.
pub(crate) fn make(dir: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"])
        // As an authority it could not be a server's certificate too.
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "server.key", "-out", "server.crt"])
        .current_dir(dir)
        .output()
        .expect("openssl starts");
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
}
