//! The unchanged Python producers: Celery 5.4 and RQ 2.0 in the environment that packaging/test makes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::Child;

/// A Python that has the producers, and the Redis they speak to.
#[derive(Debug)]
pub(crate) struct Python {
    interpreter: PathBuf,
    redis: String,
}

impl Python {
    #[track_caller]
    pub(crate) fn on(redis: &str) -> Self {
        Self { interpreter: Self::interpreter(), redis: redis.to_owned() }
    }

    /// With `JOBSD_CLIENTS=newest` the one that has the newest releases; see tests/python/newest-requirements.txt.
    #[track_caller]
    pub(crate) fn interpreter() -> PathBuf {
        environment(if Self::is_newest() { "newest-venv" } else { "test-venv" })
    }

    pub(crate) fn is_newest() -> bool {
        std::env::var("JOBSD_CLIENTS").is_ok_and(|clients| clients == "newest")
    }

    /// The one that has moto and html5lib.
    #[track_caller]
    pub(crate) fn for_mail() -> PathBuf {
        environment("mail-venv")
    }

    pub(crate) fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python")
    }

    /// Runs tests/python/produce.py; its lines.
    #[track_caller]
    pub(crate) fn produce(&self, arguments: &[&str]) -> Vec<Value> {
        let mut command = self.command();
        command.arg(Self::folder().join("produce.py")).args(["--redis", &self.redis]).args(arguments);
        lines(&mut command)
    }

    /// Runs a program of tests/python; its lines.
    #[track_caller]
    pub(crate) fn script(&self, name: &str, arguments: &[&str]) -> Vec<Value> {
        lines(self.command().arg(Self::folder().join(name)).args(arguments))
    }

    /// Runs a program against the application's modules; its lines.
    #[track_caller]
    pub(crate) fn run(&self, program: &str) -> Vec<Value> {
        lines(self.command().arg("-c").arg(program))
    }

    fn command(&self) -> Command {
        let mut command = Child::command(&self.interpreter);
        command.env("PYTHONPATH", Self::folder()).env("PYTHONDONTWRITEBYTECODE", "1").env("REDIS_URL", &self.redis);
        command
    }
}

#[track_caller]
fn environment(name: &str) -> PathBuf {
    let interpreter = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(name).join("bin/python");
    assert!(
        interpreter.exists(),
        "the Python environment {} is missing: run ./packaging/test once, which makes it",
        interpreter.display()
    );
    interpreter
}

/// The line of a call that sends one job.
#[track_caller]
pub(crate) fn one(lines: Vec<Value>) -> Value {
    let [line] = <[Value; 1]>::try_from(lines).unwrap_or_else(|lines| panic!("not one line: {lines:#?}"));
    line
}

#[track_caller]
fn lines(command: &mut Command) -> Vec<Value> {
    let Output { status, stdout, stderr } = command.output().expect("Python starts");
    let text = String::from_utf8_lossy(&stdout);
    assert!(status.success(), "{command:?}: {status}\n{text}{}", String::from_utf8_lossy(&stderr));
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
}
