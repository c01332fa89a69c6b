//! The SES of tests/python/moto_ses.py: moto's server, which checks signatures, and the mails it has taken.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Stdio};

use serde_json::Value;

use super::{Child, Python};

#[derive(Debug)]
pub(crate) struct Moto {
    said: Value,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _process: Child,
}

impl Moto {
    /// A server that lets `sender` send.
    #[track_caller]
    pub(crate) fn start(region: &str, sender: &str) -> Self {
        let mut command = Child::command(Python::for_mail());
        command.arg(Python::folder().join("moto_ses.py")).args(["--region", region, "--verify", sender]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Child::spawn(&mut command);
        let input = process.streams().stdin.take().expect("it is piped");
        let output = BufReader::new(process.streams().stdout.take().expect("it is piped"));
        let mut moto = Self { said: Value::Null, input, output, _process: process };
        moto.said = moto.line();
        moto
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.said["port"])
    }

    /// `access_key`, `secret_key` and perhaps `token` of the `user`, the `session` or the `powerless`.
    pub(crate) fn credentials(&self, whose: &str) -> &Value {
        &self.said[whose]
    }

    /// What it has taken: `source`, `destinations`, `raw`.
    #[track_caller]
    pub(crate) fn mails(&mut self) -> Vec<Value> {
        self.input.write_all(b"\n").expect("it reads");
        self.line().as_array().expect("an array").clone()
    }

    #[track_caller]
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it speaks");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("moto_ses.py said {line:?}"))
    }
}
