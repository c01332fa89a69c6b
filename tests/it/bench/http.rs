//! One HTTP request over a fresh connection, as a probe makes it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }
}

#[track_caller]
pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    get_with(address, path, "")
}

/// `headers` are whole lines, each with its line end.
#[track_caller]
pub(crate) fn get_with(address: SocketAddr, path: &str, headers: &str) -> Answer {
    ask(address, &format!("GET {path}"), headers, "")
}

#[track_caller]
pub(crate) fn post(address: SocketAddr, path: &str, body: &Value) -> Answer {
    ask(address, &format!("POST {path}"), "Content-Type: application/json\r\n", &body.to_string())
}

#[track_caller]
fn ask(address: SocketAddr, what: &str, headers: &str, body: &str) -> Answer {
    let text = exchange(address, what, headers, body).unwrap_or_else(|error| panic!("{what} of {address}: {error}"));
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not an answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer { status: status.unwrap_or_else(|| panic!("no status: {head}")), body: body.to_owned() }
}

/// In HTTP/1.0, so that the body comes whole and ends with the connection.
fn exchange(address: SocketAddr, what: &str, headers: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let length = body.len();
    write!(stream, "{what} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n{headers}\r\n{body}")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
