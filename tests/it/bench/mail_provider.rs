//! A provider that takes every mail, notification or request and says so only when it is told to: between the two, the
//! daemon can be killed.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// It ends with the test's process.
#[derive(Debug)]
pub(crate) struct MailProvider {
    pub(crate) port: u16,
    accepted: Receiver<Accepted>,
}

/// A mail that the provider has, and its sender does not know it yet.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// By which a repeat can be recognised: the one of the request, or where there is none the mail's.
    pub(crate) key: String,
    /// Of a mail; else empty.
    pub(crate) message_id: String,
    answer: Sender<()>,
    answered: Receiver<()>,
}

impl MailProvider {
    /// `name` as in `email.provider`, or `onesignal`, or `webhook`.
    pub(crate) fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (sender, accepted) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sender = sender.clone();
                // A sender that was killed in the middle is no failure here.
                std::thread::spawn(
                    move || if name == "smtp" { smtp(stream, &sender) } else { http(name, stream, &sender) },
                );
            }
        });
        Self { port, accepted }
    }

    #[track_caller]
    pub(crate) fn next(&self) -> Accepted {
        self.accepted.recv_timeout(Duration::from_secs(30)).expect("a mail within 30 seconds")
    }

    pub(crate) fn already(&self) -> Option<Accepted> {
        self.accepted.try_recv().ok()
    }
}

impl Accepted {
    /// Tells the sender; returns once the words are on their way.
    pub(crate) fn answer(self) {
        // Whoever was killed does not listen.
        let _ = self.answer.send(());
        let _ = self.answered.recv_timeout(Duration::from_secs(10));
    }
}

/// Reports the mail, and waits for the word to answer; `None`: do not.
fn report(sender: &Sender<Accepted>, key: String, message_id: String) -> Option<Sender<()>> {
    let ((answer, told), (written, answered)) = (channel(), channel());
    sender.send(Accepted { key, message_id, answer, answered }).ok()?;
    told.recv().ok().map(|()| written)
}

fn http(name: &str, stream: TcpStream, sender: &Sender<Accepted>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (head, body) = request(&mut stream)?;
        let key = match name {
            "onesignal" => serde_json::from_str::<Value>(&body).ok()?["idempotency_key"].as_str()?.to_owned(),
            "webhook" => field(&head, "webhook-id")?,
            _ => field(&head, "idempotency-key")?,
        };
        let mail = match name {
            "onesignal" | "webhook" => format!("X-Jobsd-Key: {key}\r\nMessage-ID:\r\n"),
            "ses" => {
                let body: Value = serde_json::from_str(&body).ok()?;
                String::from_utf8(STANDARD.decode(body["Content"]["Raw"]["Data"].as_str()?).ok()?).ok()?
            }
            "sendgrid" => {
                let body: Value = serde_json::from_str(&body).ok()?;
                let headers = body["headers"].as_object()?;
                assert_eq!(body["personalizations"][0]["custom_args"]["jobsd_key"], key.as_str());
                headers
                    .iter()
                    .map(|(name, value)| format!("{name}: {}\r\n", value.as_str().unwrap_or_default()))
                    .collect()
            }
            _ => body,
        };
        assert_eq!(field(&mail, "x-jobsd-key").as_deref(), Some(key.as_str()), "the mail has the key of its request");
        let written = report(sender, key, field(&mail, "message-id")?)?;
        let said = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"id\":\"x\"}";
        stream.get_mut().write_all(said.as_bytes()).ok()?;
        let _ = written.send(());
    }
}

/// The head and the whole body.
fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut body = vec![0; field(&head, "content-length")?.parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).ok()?))
}

fn smtp(stream: TcpStream, sender: &Sender<Accepted>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let say = |stream: &mut BufReader<TcpStream>, text: &str| stream.get_mut().write_all(text.as_bytes()).ok();
    say(&mut stream, "220 mail.test\r\n")?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if !line.starts_with("DATA") {
            say(&mut stream, "250 mail.test\r\n")?;
            continue;
        }
        say(&mut stream, "354 go on\r\n")?;
        let mut mail = String::new();
        while !mail.ends_with("\r\n.\r\n") {
            if stream.read_line(&mut mail).ok()? == 0 {
                return None;
            }
        }
        let written = report(sender, field(&mail, "x-jobsd-key")?, field(&mail, "message-id")?)?;
        say(&mut stream, "250 taken\r\n")?;
        let _ = written.send(());
    }
}

/// The value of a header field that stands on one line.
fn field(text: &str, name: &str) -> Option<String> {
    let start = format!("{name}:");
    let line = text.lines().find(|line| line.to_ascii_lowercase().starts_with(&start))?;
    Some(line[start.len()..].trim().to_owned())
}
