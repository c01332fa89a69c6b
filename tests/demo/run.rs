//! Starts `jobsd demo`, listens to what it says, and ends it whatever happens; and the programs that look at the rest.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A debug build beside other tests on a small machine; a healthy run takes five seconds.
const DEADLINE: Duration = Duration::from_secs(150);

/// A running `jobsd demo`.
pub(crate) struct Demo {
    child: Child,
    said: Arc<Mutex<String>>,
    listeners: Vec<JoinHandle<String>>,
    started: Instant,
}

pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Demo {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobsd"));
        command.arg("demo").args(arguments);
        Self::start_command(command)
    }

    pub(crate) fn start_command(mut command: Command) -> Self {
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("jobsd starts");
        let (stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let said = Arc::new(Mutex::new(String::new()));
        let writer = Arc::clone(&said);
        let listen = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let line = line.expect("its report is UTF-8");
                let mut said = writer.lock().unwrap_or_else(PoisonError::into_inner);
                said.push_str(&line);
                said.push('\n');
            }
            String::new()
        });
        let complaints = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).expect("its complaints are UTF-8");
            text
        });
        Self { child, said, listeners: vec![listen, complaints], started: Instant::now() }
    }

    /// What it has printed so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the condition holds of what it has said; it must go on running meanwhile.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, condition: impl Fn(&str) -> bool) {
        while !condition(&self.said()) {
            let ended = self.child.try_wait().expect("it can be asked");
            let late = self.started.elapsed() > DEADLINE;
            assert!(ended.is_none() && !late, "waited in vain until {what} ({ended:?}):\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// As Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        tool("kill", &["-INT", &self.child.id().to_string()]);
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it can be asked") {
                break status;
            }
            assert!(self.started.elapsed() < DEADLINE, "it does not end:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut heard = self.listeners.drain(..).map(|listener| listener.join().expect("a listener ends"));
        let stderr = heard.nth(1).expect("the second one heard the complaints");
        drop(heard);
        Ended { code: status.code(), stdout: self.said(), stderr }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Its Redis and its helper are told by the kernel when it is gone. After `end` there is nobody left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command lines of all processes in which this folder is named, our own demo aside.
pub(crate) fn processes_naming(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().expect("a path of plain characters");
    let processes = fs::read_dir("/proc").expect("Linux").filter_map(|entry| entry.ok());
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(folder) && !line.contains(" demo "))
        .collect()
}

/// What a Python program prints as JSON.
#[track_caller]
pub(crate) fn python(program: &str, arguments: &[&str]) -> Value {
    let (text, _) = tool("python3", &[&["-c", program], arguments].concat());
    serde_json::from_str(&text).expect("it prints JSON")
}

/// The outputs of a program that must succeed.
#[track_caller]
pub(crate) fn tool(program: &str, arguments: &[&str]) -> (String, String) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}\n{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}
