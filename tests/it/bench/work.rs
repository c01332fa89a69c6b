//! Where jobs do their work, as far as a test is concerned: an HTTP server that notes when each call came and when it was
//! answered. So a start is what the far side of a handler sees, and nothing that jobsd says of itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The server. Its threads end with the test's process.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

/// One call: what was asked, and when.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) args: Value,
    pub(crate) began: Instant,
    /// Just before its answer was written.
    pub(crate) ended: Option<Instant>,
}

impl Work {
    /// Each call takes `length`.
    pub(crate) fn start(length: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let calls = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&calls);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let calls = Arc::clone(&noted);
                std::thread::spawn(move || serve(stream, &calls, length));
            }
        });
        Self { address, calls }
    }

    pub(crate) fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers on one connection until it is closed. Whoever goes away is no concern of ours.
fn serve(stream: TcpStream, calls: &Mutex<Vec<Call>>, length: Duration) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut answers = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut bytes = 0;
        let mut line = String::new();
        while reader.read_line(&mut line).ok()? > 0 && line != "\r\n" {
            let lower = line.to_ascii_lowercase();
            bytes = lower.strip_prefix("content-length:").map_or(bytes, |n| n.trim().parse().unwrap_or(0));
            line.clear();
        }
        if line.is_empty() {
            return None;
        }
        let mut body = vec![0; bytes];
        reader.read_exact(&mut body).ok()?;
        let call = Call { args: serde_json::from_slice(&body).ok()?, began: Instant::now(), ended: None };
        let number = {
            let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
            calls.push(call);
            calls.len() - 1
        };
        std::thread::sleep(length);
        calls.lock().unwrap_or_else(PoisonError::into_inner)[number].ended = Some(Instant::now());
        answers
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nnull")
            .ok()?;
    }
}
