//! `send_welcome_email.delay(…).get(timeout=20)` of an unchanged Celery 5.4 application: mail by a real SMTP server, the
//! result, and what the producer is told when its call cannot work.

use serde_json::{Value, json};

use crate::bench::{Home, Jobs, Python, Redis, Smtp, one, shipped};

const WELCOME: &str = r#"{"user_email": "ann@example.bs", "user_name": "Ann Ümläut", "username": "ann1"}"#;

fn home(redis: &Redis, smtp: &Smtp, more: &str) -> Home {
    let own = format!("host = \"localhost\"\nport = {}\n{more}", smtp.port);
    Home::with_whole(shipped(&[("host = \"${SMTP_HOST:-localhost}\"", &own)]))
        .with_env("REDIS_URL", redis.url())
        .with_env("EMAIL_PROVIDER", "smtp")
        .with_env("BASE_URL", "https://hireme.test")
}

#[test]
fn delay_sends_the_mail_and_get_returns_the_result() {
    let (redis, smtp) = (Redis::start(), Smtp::start(&[]));
    let home = home(&redis, &smtp, "tls = \"none\"");
    let _daemon = home.start();

    let line = one(Python::on(&redis.url()).produce(&["celery", "send_welcome_email", WELCOME, "--get", "20"]));
    assert_eq!(line["state"], "SUCCESS", "{line:#}");
    assert_eq!(line["result"]["success"], true, "{line:#}");
    assert!(line["result"]["message_id"].is_string(), "{line:#}");

    let mail = smtp.mail(1);
    assert_eq!(mail.envelope["to"], json!(["ann@example.bs"]));
    assert_eq!(mail.envelope["from"], "noreply@hiremebahamas.com");
    for part in ["Content-Type: multipart/alternative", "Content-Type: text/plain", "Content-Type: text/html", "ann1"] {
        assert!(mail.text.contains(part), "no {part:?} in\n{}", mail.text);
    }
    let message_id = line["result"]["message_id"].as_str().expect("a text");
    assert!(mail.text.contains(message_id.trim_matches(['<', '>'])), "the mail is not the one of the result");
    assert_eq!(smtp.count(), 1, "one mail, once");
}

#[test]
fn mail_goes_over_starttls_with_a_login() {
    let redis = Redis::start();
    let smtp = Smtp::start(&["--starttls", "--user", "relay", "--password", "open sesame"]);
    let ca = smtp.ca.as_ref().expect("a server with TLS has an authority").display();
    let login = format!("tls = \"starttls\"\nusername = \"relay\"\npassword = \"open sesame\"\nca_file = \"{ca}\"");
    let home = home(&redis, &smtp, &login);
    let _daemon = home.start();

    let line = one(Python::on(&redis.url()).produce(&["celery", "send_welcome_email", WELCOME, "--get", "20"]));
    assert_eq!(line["state"], "SUCCESS", "{line:#}");
    let envelope = smtp.mail(1).envelope;
    assert_eq!((&envelope["tls"], &envelope["user"]), (&json!(true), &json!("relay")));
}

#[test]
fn a_recipient_that_the_server_refuses_is_a_failure_at_once() {
    let (redis, smtp) = (Redis::start(), Smtp::start(&["--reject-rcpt", "ann@example.bs:550"]));
    let home = home(&redis, &smtp, "tls = \"none\"");
    let _daemon = home.start();

    let line = one(Python::on(&redis.url()).produce(&["celery", "send_welcome_email", WELCOME, "--get", "20"]));
    assert_eq!(line["state"], "FAILURE", "{line:#}");
    assert!(message(&line).contains("550"), "the server's answer is not told: {line:#}");
    let (cause, _) = Jobs::of(&redis, "emails").only_dead();
    assert_eq!(cause, "not-retryable");
}

/// The producer's own Celery would check what it can import, so these go by name, as from another service.
#[test]
fn calls_that_cannot_work_raise_at_the_producer() {
    let (redis, smtp) = (Redis::start(), Smtp::start(&[]));
    let home = home(&redis, &smtp, "tls = \"none\"");
    let _daemon = home.start();
    let python = Python::on(&redis.url());
    let send = |task: &str, arguments: &str| {
        let task = format!("backend_app.core.celery_tasks.{task}");
        one(python.produce(&["celery", &task, arguments, "--queue", "emails", "--get", "20"]))
    };

    let unknown = send("send_no_such_mail", "{}");
    assert_eq!(unknown["error"]["type"], "NotRegistered", "{unknown:#}");
    assert!(message(&unknown).contains("send_no_such_mail"), "{unknown:#}");

    let missing = send("send_welcome_email", r#"{"user_email": "ann@example.bs", "user_name": "Ann"}"#);
    assert_eq!(missing["error"]["type"], "TypeError", "{missing:#}");
    assert!(message(&missing).contains("username"), "the missing one is not named: {missing:#}");

    let extra = send("send_welcome_email", r#"["ann@example.bs", "Ann", "ann1", "more"]"#);
    assert_eq!(extra["error"]["type"], "TypeError", "{extra:#}");

    let wrong = send("send_welcome_email", r#"{"user_email": 7, "user_name": "Ann", "username": "ann1"}"#);
    assert_eq!(wrong["error"]["type"], "TypeError", "{wrong:#}");
    assert!(message(&wrong).contains("user_email"), "the wrong one is not named: {wrong:#}");

    let mut jobs = Jobs::of(&redis, "emails");
    jobs.until("dead", 4);
    for (line, cause) in [(&unknown, "unknown-task"), (&missing, "bad-arguments"), (&wrong, "bad-arguments")] {
        let id = line["id"].as_str().expect("an id");
        assert_eq!(jobs.ended(id, "dead")["end"]["cause"], cause);
    }
    let good = one(python.produce(&["celery", "send_welcome_email", WELCOME, "--get", "20"]));
    assert_eq!(good["state"], "SUCCESS", "the queue goes on: {good:#}");
    assert_eq!(smtp.count(), 1);
}

fn message(line: &Value) -> &str {
    line["error"]["message"].as_str().unwrap_or_default()
}
