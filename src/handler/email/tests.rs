//! Whole mails: from a step and a job's arguments to an `.eml` file, or to a server that speaks SMTP from a script.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::config::{Secret, SmtpTls, Step, Task};
use crate::handler::{Attempt, Handlers, Notepad, Steps};
use crate::job::{Outcome, Retryable};
use crate::testing::certificate;
use crate::testing::fixture::{self, JOB_ID, template};

fn step() -> EmailStep {
    EmailStep {
        to: template("{{ user_email }}"),
        subject: template("Welcome to HireMeBahamas, {{ user_name }}!"),
        template: Some(template("welcome")),
        context: None,
        html: None,
        text: None,
        from: None,
        reply_to: None,
        headers: Vec::new(),
    }
}

/// `send_email_task(recipient_email, subject, body, template?, context?)`.
fn generic_step() -> EmailStep {
    EmailStep {
        to: template("{{ recipient_email }}"),
        subject: template("{{ subject }}"),
        template: Some(template("{{ template }}")),
        context: Some(fixture::value(json!("{{ context }}"))),
        html: Some(template("{{ body }}")),
        ..step()
    }
}

async fn send(config: &config::Config, step: EmailStep, args: Value) -> Outcome {
    fixture::tls_provider();
    let handlers = Handlers::new(config).expect("the handlers are built");
    let task = Task {
        params: ["template", "context"].map(|name| config::Param { required: false, ..fixture::param(name) }).to_vec(),
        ..fixture::task(vec![Step::Email(step)])
    };
    handlers
        .perform(&Attempt {
            job: &fixture::job(args),
            task: &task,
            attempt: 1,
            steps: Steps::default(),
            notepad: Notepad::default(),
        })
        .await
}

fn success(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Success(result) => result,
        other => panic!("expected success, got {other:?}"),
    }
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failure(failure) => failure,
        other => panic!("expected a failure, got {other:?}"),
    }
}

/// What Python's `email` package, a reader that is not ours, makes of the file: headers, then the two parts.
fn read(result: &Value) -> Value {
    let script = "import sys, json, email, email.policy\n\
        m = email.message_from_binary_file(open(sys.argv[1], 'rb'), policy=email.policy.default)\n\
        part = lambda kind: next((p.get_content() for p in m.walk() if p.get_content_type() == kind), None)\n\
        print(json.dumps({'headers': {k.lower(): str(v) for k, v in m.items()}, 'type': m.get_content_type(),\n\
        'html': part('text/html'), 'text': part('text/plain'), 'defects': [str(d) for p in m.walk() for d in p.defects]}))";
    let file = result["file"].as_str().expect("the outbox names its file");
    let output = std::process::Command::new("python3").args(["-c", script, file]).output().expect("python3 starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}

fn text<'a>(mail: &'a Value, part: &str) -> &'a str {
    mail[part].as_str().unwrap_or_else(|| panic!("{part} in {mail:#}"))
}

#[tokio::test]
async fn a_welcome_mail_is_complete() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let config = fixture::config(dir.path());
    let args =
        json!({"user_email": "zoe@example.com", "user_name": "Zoë <script>alert(1)</script>", "username": "zoe"});
    let result = success(send(&config, step(), args).await);
    assert_eq!(result["message_id"], format!("<{JOB_ID}.0@hireme.test>"));
    assert_eq!(result["recipient"], "zoe@example.com");
    let mail = read(&result);
    assert_eq!(mail["defects"], json!([]));
    assert_eq!(mail["type"], "multipart/alternative");
    let header = |name: &str| mail["headers"][name].as_str().unwrap_or_default().to_owned();
    assert_eq!(header("subject"), "Welcome to HireMeBahamas, Zoë <script>alert(1)</script>!");
    assert_eq!(header("from"), "HireMeBahamas <no-reply@hireme.test>");
    assert_eq!(header("to"), "zoe@example.com");
    assert_eq!(header("message-id"), format!("<{JOB_ID}.0@hireme.test>"));
    assert!(!header("date").is_empty());
    let html = text(&mail, "html");
    assert!(html.contains("Zoë &lt;script&gt;alert(1)&lt;/script&gt;") && !html.contains("<script>"), "{html}");
    assert!(html.contains("@zoe") && html.contains("Get started"), "{html}");
    let plain = text(&mail, "text");
    assert!(plain.contains("Zoë <script>alert(1)</script>") && plain.contains("https://hireme.test"), "{plain}");
}

#[tokio::test]
async fn every_built_in_template_renders_with_its_tasks_arguments() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let config = fixture::config(dir.path());
    let long = "x".repeat(100);
    let cases = [
        ("welcome", json!({"username": "ann"}), vec!["@ann"]),
        (
            "job_application",
            json!({"employer_name": "Bob", "job_title": "Chef", "applicant_name": "Ann", "applicant_email": "ann@x.test", "job_id": 17}),
            vec!["Chef", "Ann", "ann@x.test", "https://hireme.test/jobs/17"],
        ),
        (
            "message",
            json!({"recipient_name": "Ann", "sender_name": "Bob", "message_preview": format!("{long}BEYOND")}),
            vec!["Bob", long.as_str()],
        ),
        (
            "password_reset",
            json!({"reset_token": "a/b+c=&d"}),
            vec!["https://hireme.test/reset-password?token=a/b%2Bc%3D%26d", "one hour"],
        ),
    ];
    let names: Vec<&str> = builtin_template_names().collect();
    assert_eq!(names, cases.iter().map(|case| case.0).collect::<Vec<_>>());
    for (name, extra, expected) in cases {
        let mut args = json!({"user_email": "a@b.test", "user_name": "Ann"});
        args.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        let mail = read(&success(send(&config, EmailStep { template: Some(template(name)), ..step() }, args).await));
        let html = text(&mail, "html");
        for words in expected {
            assert!(html.contains(words), "{name}: {words} in {html}");
            assert!(text(&mail, "text").contains(words), "{name}: {words} in {}", mail["text"]);
        }
        assert!(!html.contains("BEYOND") && !text(&mail, "text").contains("BEYOND"), "{name} cuts the preview");
        assert!(html.contains("</html>") && html.contains("HireMeBahamas"), "{name} stands in the layout");
    }
}

#[tokio::test]
async fn the_apps_own_html_is_sent_as_it_is_with_a_text_of_it() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let config = fixture::config(dir.path());
    let body = "<h1>Hello &amp; welcome</h1><p>See <a href=\"https://x.test/a\">here</a>.</p>";
    let args = json!({"recipient_email": "a@b.test", "subject": "Hi", "body": body});
    let mail = read(&success(send(&config, generic_step(), args).await));
    assert_eq!(text(&mail, "html").trim_end(), body);
    assert_eq!(text(&mail, "text"), "Hello & welcome\n\nSee here (https://x.test/a).\n");
}

#[tokio::test]
async fn an_argument_may_choose_the_template_and_fill_it() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let config = fixture::config(dir.path());
    let args = |template: &str| {
        let context = json!({"user_name": "Ann", "username": "ann", "vars": {"base_url": "https://evil.test"}});
        json!({"recipient_email": "a@b.test", "subject": "Hi", "body": "", "template": template, "context": context})
    };
    let mail = read(&success(send(&config, generic_step(), args("welcome.html")).await));
    assert!(text(&mail, "text").contains("@ann"));
    assert!(text(&mail, "text").contains("https://hireme.test"), "the producer cannot move the links");
    let failed = failure(send(&config, generic_step(), args("../../etc/passwd")).await);
    assert_eq!(
        failed.message,
        "failed to find the mail template `../../etc/passwd`; there are `job_application`, `message`, `password_reset`, `welcome`"
    );
    assert_eq!(failed.retry, Retryable::Never);
    let failed = failure(send(&config, generic_step(), args("message")).await);
    assert!(
        failed.message.starts_with("failed to render the mail template message.html: undefined value"),
        "{}",
        failed.message
    );
    assert_eq!(failed.retry, Retryable::Never);
}

#[tokio::test]
async fn no_argument_can_write_a_header() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let config = fixture::config(dir.path());
    let args = |email: &str, subject: &str| json!({"recipient_email": email, "subject": subject, "body": "x"});
    for (email, subject, kind, message) in [
        (
            "a@b.test",
            "Hi\r\nBcc: c@d.test",
            "InvalidMail",
            "failed to write the mail's `subject`: it holds a line break or another control character",
        ),
        (
            "a@b.test",
            "Hi\nBcc: c@d.test",
            "InvalidMail",
            "failed to write the mail's `subject`: it holds a line break or another control character",
        ),
        (
            "a@b.test\r\nBcc: c@d.test",
            "Hi",
            "InvalidAddress",
            "failed to read the mail's `to`: it holds a line break or another control character",
        ),
        (
            "a@b.test, c@d.test",
            "Hi",
            "InvalidAddress",
            "failed to read the mail's `to`: `a@b.test, c@d.test` is not one mail address",
        ),
    ] {
        let failed = failure(send(&config, generic_step(), args(email, subject)).await);
        assert_eq!((failed.kind.as_str(), failed.message.as_str()), (kind, message));
        assert_eq!(failed.retry, Retryable::Never);
    }
    for (name, value) in [("X-Tag", "a\r\nBcc: c@d.test"), ("Bcc", "c@d.test"), ("Bad Name", "x"), ("X-Tag:", "x")] {
        let step = EmailStep {
            headers: vec![(name.into(), template("{{ subject }}"))],
            subject: template("Hi"),
            ..generic_step()
        };
        let failed = failure(send(&config, step, args("a@b.test", value)).await);
        assert_eq!(failed.kind, "InvalidMail", "{name}");
    }
    let step = EmailStep { headers: vec![("X-Tag".into(), template("{{ subject }}"))], ..generic_step() };
    let mail = read(&success(send(&config, step, args("a@b.test", "näive")).await));
    assert_eq!(mail["headers"]["x-tag"], "näive");
    assert!(
        !dir.path()
            .join("mail")
            .read_dir()
            .expect("the outbox")
            .any(|file| file.expect("an entry").path().ends_with(".tmp"))
    );
}

#[tokio::test]
async fn the_operators_folder_comes_first() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let folder = dir.path().join("templates");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(
        folder.join("welcome.html"),
        "{% extends 'layout.html' %}{% block content %}<p>Ahoy {{ user_name }}</p>{% endblock %}",
    )
    .expect("written");
    std::fs::write(folder.join("plain.txt"), "Only text for {{ user_name }} & co").expect("written");
    let mut config = fixture::config(dir.path());
    config.email.templates = Some(folder.clone());
    let args = json!({"user_email": "a@b.test", "user_name": "A&B", "username": "ann"});
    let mail = read(&success(send(&config, step(), args.clone()).await));
    assert!(text(&mail, "html").contains("<p>Ahoy A&amp;B</p>"));
    assert!(text(&mail, "text").contains("Ahoy A&B"), "the built-in text is not sent with the operator's HTML");
    let mail = read(&success(send(&config, EmailStep { template: Some(template("plain")), ..step() }, args).await));
    assert_eq!((mail["type"].as_str(), text(&mail, "text").trim_end()), (Some("text/plain"), "Only text for A&B & co"));

    std::fs::write(folder.join("broken.html"), "fine\n{% if %}").expect("written");
    let error = Handlers::new(&config).expect_err("the folder is refused").to_string();
    assert!(
        error.starts_with("prepare the mail handler: read the mail template broken.html: syntax error")
            && error.ends_with("in line 2"),
        "{error}"
    );
}

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
        (
            vec![ehlo, "530 log in first", "221 bye"],
            false,
            "SmtpAuthenticationError",
            Retryable::ByPolicy,
            "log in first",
        ),
        (
            vec![ehlo, "535 wrong password", "221 bye"],
            true,
            "SmtpAuthenticationError",
            Retryable::ByPolicy,
            "wrong password",
        ),
        (vec!["421 too busy"], false, "SmtpConnectError", Retryable::ByPolicy, "too busy"),
        (vec![], false, "SmtpConnectError", Retryable::ByPolicy, "connect to the mail server 127.0.0.1:"),
    ] {
        let (outcome, _) = by_smtp(dir.path(), &answers, credentials).await;
        let failed = failure(outcome);
        assert_eq!((failed.kind.as_str(), failed.retry), (kind, retry), "{}", failed.message);
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
        let failed = failure(outcome);
        assert_eq!((failed.kind.as_str(), failed.retry), ("SmtpConnectError", Retryable::ByPolicy));
        assert!(
            failed.message.contains("certificate") && !heard.iter().any(|line| line.contains("AUTH")),
            "{}",
            failed.message
        );
    }
}
