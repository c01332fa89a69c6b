//! Whole mails: from a step and a job's arguments to an `.eml` file, and to what a provider is sent.

mod hostile;
mod providers;
mod smtp;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::net::TcpListener;

use super::*;
use crate::config::{EmailProvider, Secret, Step, Task};
use crate::handler::Handlers;
use crate::job::{Outcome, Retryable};
use crate::testing::attempt::{self, failure, outage, success};
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
        cc: None,
        bcc: None,
        headers: Vec::new(),
        unsubscribe: None,
        attachments: None,
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
        ..fixture::task(vec![Step::Email(Box::new(step))])
    };
    attempt::perform(&handlers, &task, args).await
}

/// What the file says, to a reader that is not ours.
fn read(result: &Value) -> Value {
    parse(&std::fs::read(result["file"].as_str().expect("the outbox names its file")).expect("it can be read"))
}

/// What Python's `email` package makes of a mail: headers, the two parts, the files.
fn parse(mail: &[u8]) -> Value {
    let script = "import sys, json, email, email.policy\n\
        m = email.message_from_binary_file(sys.stdin.buffer, policy=email.policy.default)\n\
        files = [p for p in m.walk() if p.get_content_disposition() == 'attachment']\n\
        part = lambda kind: next((p.get_content() for p in m.walk() if p.get_content_type() == kind and p not in files), None)\n\
        print(json.dumps({'headers': {k.lower(): str(v) for k, v in m.items()}, 'names': [k.lower() for k in m.keys()],\n\
        'type': m.get_content_type(), 'html': part('text/html'), 'text': part('text/plain'),\n\
        'files': [[p.get_filename(), p.get_content_type(), p.get_payload(decode=True).decode()] for p in files],\n\
        'defects': [str(d) for p in m.walk() for d in p.defects] + [str(d) for v in m.values() for d in v.defects]}))";
    serde_json::from_slice(&python(script, mail)).expect("the script prints JSON")
}

fn python(script: &str, input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("python3");
    command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("python3 starts");
    // One that ends early says why.
    let _ = child.stdin.take().expect("it is piped").write_all(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
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
    assert_eq!(result["message_id"], format!("<{JOB_ID}-0@hireme.test>"));
    assert_eq!(result["recipient"], "zoe@example.com");
    let mail = read(&result);
    assert_eq!(mail["defects"], json!([]));
    assert_eq!(mail["type"], "multipart/alternative");
    let header = |name: &str| mail["headers"][name].as_str().unwrap_or_default().to_owned();
    assert_eq!(header("subject"), "Welcome to HireMeBahamas, Zoë <script>alert(1)</script>!");
    assert_eq!(header("from"), "HireMeBahamas <no-reply@hireme.test>");
    assert_eq!(header("to"), "zoe@example.com");
    assert_eq!(header("message-id"), format!("<{JOB_ID}-0@hireme.test>"));
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
