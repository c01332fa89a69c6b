//! The servers of tests/python/far_world.py, and what they say of the requests that they have got.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use super::{Child, Python};

#[derive(Debug)]
pub(crate) struct FarWorld {
    _folder: TempDir,
    pub(crate) port: u16,
    /// The key file of the service account that it knows.
    pub(crate) account: PathBuf,
    requests: Arc<Mutex<Vec<Value>>>,
    _process: Child,
}

impl FarWorld {
    #[track_caller]
    pub(crate) fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Child::command(Python::interpreter());
        command.arg(Python::folder().join("far_world.py")).arg("--folder").arg(folder.path()).args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Child::spawn(&mut command);
        let mut lines = BufReader::new(process.streams().stdout.take().expect("it is piped")).lines();
        let mut read = move || -> Option<Value> { serde_json::from_str(&lines.next()?.ok()?).ok() };
        let said = read().expect("far_world.py says where it listens");
        let port = said["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
        let account = said["account"].as_str().expect("a path").into();
        let requests: Arc<Mutex<Vec<Value>>> = Arc::default();
        let into = Arc::clone(&requests);
        // Ends with the process, whose lines it reads.
        std::thread::spawn(move || {
            while let Some(request) = read() {
                into.lock().expect("nobody panics with the lock").push(request);
            }
        });
        Self { _folder: folder, port, account, requests, _process: process }
    }

    /// SendGrid and FCM serve nobody from now on.
    pub(crate) fn goes_down(&self) {
        std::fs::write(self.account.with_file_name("down"), "").expect("it can be written");
    }

    /// They serve again.
    pub(crate) fn comes_back(&self) {
        std::fs::remove_file(self.account.with_file_name("down")).expect("it was down");
    }

    pub(crate) fn requests(&self) -> Vec<Value> {
        self.requests.lock().expect("nobody panics with the lock").clone()
    }
}
