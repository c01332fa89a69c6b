//! The SMTP server of tests/python/smtpd.py and the mails it has taken.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use super::{Child, Python, until};

#[derive(Debug)]
pub(crate) struct Smtp {
    folder: TempDir,
    pub(crate) port: u16,
    /// The certificate authority to trust, of a server with TLS.
    pub(crate) ca: Option<PathBuf>,
    _process: Child,
}

/// A mail as it was accepted.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) text: String,
    /// `from`, `to`, `tls`, `user`.
    pub(crate) envelope: Value,
}

impl Smtp {
    #[track_caller]
    pub(crate) fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Child::command(Python::interpreter());
        command.arg(Python::folder().join("smtpd.py")).arg("--folder").arg(folder.path()).args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Child::spawn(&mut command);
        let out = process.streams().stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).expect("smtpd.py says where it listens");
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("smtpd.py said {line:?}"));
        let port = said["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
        Self { folder, port, ca: said["ca"].as_str().map(PathBuf::from), _process: process }
    }

    /// The n-th accepted mail, from 1.
    #[track_caller]
    pub(crate) fn mail(&self, n: usize) -> Mail {
        let path = |kind: &str| self.folder.path().join(format!("{n:04}.{kind}"));
        let text = until(format_args!("mail {n}"), || fs::read_to_string(path("eml")).ok());
        let envelope = fs::read_to_string(path("json")).expect("it is written before the mail");
        Mail { text, envelope: serde_json::from_str(&envelope).expect("JSON") }
    }

    pub(crate) fn count(&self) -> usize {
        let files = fs::read_dir(self.folder.path()).expect("the folder is there");
        files.filter(|file| file.as_ref().is_ok_and(|file| file.path().extension().is_some_and(|e| e == "eml"))).count()
    }
}
