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
    let text = exchange("GET", address, path, headers, "");
    answer(&text.unwrap_or_else(|error| panic!("GET {path} of {address}: {error}")))
}

#[track_caller]
fn answer(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not an answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer { status: status.unwrap_or_else(|| panic!("no status: {head}")), body: body.to_owned() }
}

#[track_caller]
pub(crate) fn post(address: SocketAddr, path: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let text = exchange("POST", address, path, &format!("Content-Length: {}\r\n", body.len()), &body);
    answer(&text.unwrap_or_else(|error| panic!("POST {path} of {address}: {error}")))
}

/// In HTTP/1.0, so that the body comes whole and ends with the connection.
fn exchange(method: &str, address: SocketAddr, path: &str, headers: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {address}\r\n{headers}\r\n{body}")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
