//! SMTP against a server that speaks from a script, and one with TLS.

use std::path::Path;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::*;
use crate::config::SmtpTls;
use crate::testing::certificate;

/// A server that greets, then answers each line the client sends with the next of `answers`, and gives back what it
/// was sent. `354` reads on to the lone dot.
async fn scripted(listener: TcpListener, answers: &[&str]) -> Vec<String> {
    let (stream, _) = listener.accept().await.expect("the client comes");
    let mut stream = BufReader::new(stream);
    let mut heard = Vec::new();
    stream.write_all(b"220 mail.test ESMTP\r\n").await.expect("the client listens");
    for answer in answers {
        let mut line = String::new();
        if stream.read_line(&mut line).await.expect("the client speaks") == 0 {
            break;
        }
        heard.push(line.trim_end().to_owned());
        stream.write_all(format!("{answer}\r\n").as_bytes()).await.expect("the client listens");
        if answer.starts_with("354") {
            let mut body = String::new();
            while !body.ends_with("\r\n.\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).await.expect("the client sends the mail");
                body.push(byte[0].into());
            }
            stream.write_all(b"250 taken\r\n").await.expect("the client listens");
        }
    }
    heard
}

async fn by_smtp(dir: &Path, answers: &[&str], credentials: bool) -> (Outcome, Vec<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let mut config = fixture::config(dir);
    config.email.provider = EmailProvider::Smtp(config::Smtp {
        host: "127.0.0.1".into(),
        port: listener.local_addr().expect("a bound listener has an address").port(),
        tls: SmtpTls::None,
        username: credentials.then(|| "user".into()),
        password: credentials.then(|| Secret::new("hunter2")),
        ca_file: None,
        timeout: Duration::from_secs(5),
    });
    let args = json!({"user_email": "a@b.test", "user_name": "Ann", "username": "ann"});
    let sending = send(&config, step(), args);
    let (outcome, heard) = tokio::join!(sending, async {
        tokio::time::timeout(Duration::from_secs(10), scripted(listener, answers)).await.expect("the conversation ends")
    });
    (outcome, heard)
}

#[tokio::test]
async fn smtp_hands_the_mail_over() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let (outcome, heard) = by_smtp(dir.path(), &["250 mail.test", "250 ok", "250 ok", "354 go on"], false).await;
    assert_eq!(success(outcome)["recipient"], "a@b.test");
    assert!(heard[0].starts_with("EHLO "), "{heard:?}");
    assert_eq!(heard[1..], ["MAIL FROM:<no-reply@hireme.test>", "RCPT TO:<a@b.test>", "DATA"]);
}

#[tokio::test]
async fn smtp_refusals_are_sorted() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let ehlo = "250-mail.test\r\n250 AUTH PLAIN LOGIN";
    for (answers, credentials, kind, retry, words) in [
        (
            vec![ehlo, "250 ok", "550 no such mailbox", "221 bye"],
            false,
            "SmtpRejected",
            Retryable::Never,
            "no such mailbox",
        ),
        (vec![ehlo, "250 ok", "451 greylisted", "221 bye"], false, "SmtpDeferred", Retryable::ByPolicy, "greylisted"),
    ] {
        let (outcome, _) = by_smtp(dir.path(), &answers, credentials).await;
        let failed = failure(outcome);
        assert_eq!((failed.kind.as_str(), failed.retry), (kind, retry), "{}", failed.message);
        assert!(failed.message.contains(words) && !failed.message.contains("hunter2"), "{}", failed.message);
    }
    // Nobody's mail could be sent: no attempt of this one is spent.
    for (answers, credentials, kind, words) in [
        (vec![ehlo, "530 log in first", "221 bye"], false, "SmtpAuthenticationError", "log in first"),
        (vec![ehlo, "535 wrong password", "221 bye"], true, "SmtpAuthenticationError", "wrong password"),
        (vec![ehlo, "421 going down"], false, "SmtpConnectError", "going down"),
        (vec!["421 too busy"], false, "SmtpConnectError", "too busy"),
        (vec![], false, "SmtpConnectError", "connect to the mail server 127.0.0.1:"),
    ] {
        let (outcome, _) = by_smtp(dir.path(), &answers, credentials).await;
        let (failed, retry_after) = outage(outcome);
        assert_eq!((failed.kind.as_str(), retry_after), (kind, None), "{}", failed.message);
        assert!(failed.message.contains(words) && !failed.message.contains("hunter2"), "{}", failed.message);
    }
}

/// Speaks SMTP over TLS to one client, from its first byte or after STARTTLS, and prints its port and then what it heard.
const TLS_SERVER: &str = r#"
import socket, ssl, sys
starttls, listener = sys.argv[1] == "starttls", socket.create_server(("127.0.0.1", 0))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.crt", "server.key")
print(listener.getsockname()[1], flush=True)
raw = listener.accept()[0]
wire = raw if starttls else context.wrap_socket(raw, server_side=True)
lines = wire.makefile("rwb")
def say(text): lines.write(text.encode() + b"\r\n"); lines.flush()
say("220 mail.test ESMTP")
while line := lines.readline().decode().rstrip():
    verb = line.split()[0].upper()
    print(type(wire).__name__, line, flush=True)
    if verb == "EHLO": say("250-mail.test\r\n250-AUTH PLAIN\r\n250 " + ("STARTTLS" if wire is raw else "8BITMIME"))
    elif verb == "STARTTLS":
        say("220 go on")
        wire = context.wrap_socket(raw, server_side=True)
        lines = wire.makefile("rwb")
    elif verb == "AUTH": say("235 welcome")
    elif verb == "DATA":
        say("354 go on")
        while lines.readline() != b".\r\n": pass
        say("250 taken")
        break
    else: say("250 ok")
"#;

/// Sends a welcome mail to [`TLS_SERVER`], trusting its certificate or not.
async fn by_tls(tls: SmtpTls, trusted: bool) -> (Outcome, Vec<String>) {
    let dir = tempfile::tempdir().expect("a temp dir");
    certificate::make(dir.path());
    let mode = if tls == SmtpTls::StartTls { "starttls" } else { "tls" };
    let mut server = tokio::process::Command::new("python3")
        .args(["-c", TLS_SERVER, mode])
        .current_dir(dir.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("python3 starts");
    let mut printed = BufReader::new(server.stdout.take().expect("a pipe")).lines();
    let port = printed.next_line().await.expect("it prints").expect("its port").parse().expect("a port");
    let mut config = fixture::config(dir.path());
    config.email.provider = EmailProvider::Smtp(config::Smtp {
        host: "127.0.0.1".into(),
        port,
        tls,
        username: Some("user".into()),
        password: Some(Secret::new("hunter2")),
        ca_file: trusted.then(|| dir.path().join("server.crt")),
        timeout: Duration::from_secs(10),
    });
    let outcome = send(&config, step(), json!({"user_email": "a@b.test", "user_name": "Ann", "username": "ann"})).await;
    let mut heard = Vec::new();
    while let Some(line) = printed.next_line().await.expect("it prints") {
        heard.push(line);
    }
    (outcome, heard)
}

#[tokio::test]
async fn smtp_is_encrypted_before_it_says_anything_secret() {
    for tls in [SmtpTls::StartTls, SmtpTls::Tls] {
        let (outcome, heard) = by_tls(tls, true).await;
        success(outcome);
        let plain: Vec<&String> = heard.iter().filter(|line| line.starts_with("socket ")).collect();
        let verbs: Vec<&str> = plain.iter().filter_map(|line| line.split(' ').nth(1)).collect();
        assert_eq!(verbs, if tls == SmtpTls::StartTls { vec!["EHLO", "STARTTLS"] } else { vec![] }, "{heard:?}");
        // The base64 of "\0user\0hunter2".
        assert!(heard.contains(&"SSLSocket AUTH PLAIN AHVzZXIAaHVudGVyMg==".to_owned()), "{heard:?}");
        assert!(heard.contains(&"SSLSocket RCPT TO:<a@b.test>".to_owned()), "{heard:?}");
        let (outcome, heard) = by_tls(tls, false).await;
        let (failed, _) = outage(outcome);
        assert_eq!(failed.kind, "SmtpConnectError");
        assert!(
            failed.message.contains("certificate") && !heard.iter().any(|line| line.contains("AUTH")),
            "{}",
            failed.message
        );
    }
}
