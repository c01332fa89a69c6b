//! What is secret stays so: planted passwords and tokens are looked for in everything that the program says.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redis::Commands;
use serde_json::json;

use crate::bench::{Home, Jobs, Python, Redis, Smtp, envelope, get, get_with, one, push, random_id, shipped};

const REDIS: &str = "redis-pw-hunter2";
const SMTP: &str = "smtp-pw-hunter2";
const ADMIN: &str = "admin-token-hunter2";
const RESET: &str = "reset-token-hunter2";
/// All of them hold it, and nothing else does.
const MARK: &str = "hunter2";

#[test]
fn nothing_that_is_said_holds_a_secret() {
    let redis = Redis::with_password(REDIS);
    let smtp = Smtp::start(&["--starttls", "--user", "relay", "--password", SMTP]);
    let ca = smtp.ca.as_ref().expect("a server with TLS has an authority").display();
    let mail = format!(
        "host = \"localhost\"\nport = {}\nusername = \"relay\"\npassword = \"${{SMTP_PASSWORD}}\"\nca_file = \"{ca}\"",
        smtp.port
    );
    let home = Home::with_whole(shipped(&[
        ("host = \"${SMTP_HOST:-localhost}\"", &mail),
        ("#level = \"info\"", "level = \"trace\""),
        ("#token = \"cred:admin-token\"", "token = \"${ADMIN_TOKEN}\""),
    ]))
    .with_env("REDIS_URL", redis.url())
    .with_env("EMAIL_PROVIDER", "smtp")
    .with_env("SMTP_PASSWORD", SMTP)
    .with_env("ADMIN_TOKEN", ADMIN);
    let daemon = home.start();
    let python = Python::on(&redis.url());
    let arguments = json!(["ann@example.bs", "Ann", RESET]).to_string();
    let sent = one(python.produce(&["celery", "send_password_reset_email", &arguments, "--get", "20"]));
    assert_eq!(sent["state"], "SUCCESS", "{sent:#}");
    assert!(smtp.mail(1).text.contains(MARK), "the mail itself has to hold the token");

    let mut client = redis.client();
    let mut jobs = Jobs::of(&redis, "emails");
    // Refused ones too: an address that is none, an argument too many, a task that is none.
    let task = "backend_app.core.celery_tasks.send_password_reset_email";
    let wrong =
        push(&mut client, "emails", task, &json!({"user_email": RESET, "user_name": "Ann", "reset_token": RESET}));
    let extra = push(
        &mut client,
        "emails",
        task,
        &json!({"user_email": "a@b.bs", "user_name": "Ann", "reset_token": RESET, "x": RESET}),
    );
    let unknown = push(&mut client, "emails", "app.no_such_task", &json!({"reset_token": RESET, "password": RESET}));
    for id in [&wrong, &extra, &unknown] {
        jobs.ended(id, "dead");
    }
    let mut answers = String::new();
    let bearer = format!("Authorization: Bearer {ADMIN}\r\n");
    let completed = sent["id"].as_str().expect("an id");
    for id in [completed, &wrong, &extra, &unknown] {
        let shown = get_with(daemon.admin, &format!("/api/v1/jobs/{id}"), &bearer);
        assert_eq!(shown.status, 200, "{shown:?}");
        answers += &shown.body;
    }
    assert!(answers.contains("***"), "the token's place is shown: {answers}");
    for path in ["/metrics", "/", "/api/v1/queues", "/health/queues", "/readyz"] {
        answers += &get_with(daemon.admin, path, &bearer).body;
        answers += &get(daemon.admin, path).body;
    }
    assert_eq!(get(daemon.admin, "/metrics").status, 401);
    not_in("an answer of the admin port", &answers);

    daemon.reload();
    until_reloaded(&daemon);
    assert!(daemon.stop().success());
    let logs = home.logs();
    assert!(logs.contains("TRACE"), "the log is not as talkative as it was told to be");
    not_in("the log", &logs);
}

/// A Redis that refuses the password, and one that is away: the reasons name neither.
#[test]
fn a_redis_that_refuses_us_is_told_without_its_password() {
    let mut redis = Redis::with_password("another one");
    let url = redis.url().replace("another one", REDIS);
    let home = Home::on(
        &url,
        "log.level = \"trace\"\n[queues.work]\nwires = [\"celery\"]\n[tasks.noop]\nnames = [\"a\"]\nqueue = \"work\"\nprobe = \"noop\"\n",
    );
    let mut daemon = home.start();
    let refused =
        crate::bench::until("/readyz to say why", || Some(get(daemon.admin, "/readyz")).filter(|a| a.status == 503));
    assert!(refused.body.to_lowercase().contains("password") || refused.body.contains("WRONGPASS"), "{refused:?}");
    redis.kill();
    crate::bench::until("/readyz to say that Redis is away", || {
        get(daemon.admin, "/readyz").body.to_lowercase().contains("refused").then_some(())
    });
    not_in("/readyz", &[refused.body, get(daemon.admin, "/readyz").body, get(daemon.admin, "/").body].concat());
    daemon.assert_alive();
    assert!(daemon.stop().success());
    not_in("the log", &home.logs());
}

#[test]
fn check_shows_no_secret_of_a_wrong_file() {
    let home = Home::with_whole(format!(
        "[redis]\nurl = \"redi://:{MARK}@host\"\n[email.smtp]\npassword = [\"{MARK}\"]\n[admin]\ntoken = \"{MARK}\" x\n"
    ));
    for arguments in [&["check"][..], &["check", "--json"], &["run"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobsd"));
        let said =
            command.args(arguments).arg("--config").arg(home.config()).env_clear().output().expect("jobsd starts");
        assert_eq!(said.status.code(), Some(78));
        not_in("check", &String::from_utf8_lossy(&[said.stdout, said.stderr].concat()));
    }
}

/// A message that cannot be read is parked whole. Celery writes the arguments into it twice, as the body and, for
/// people, as `argsrepr`; neither is shown.
#[test]
fn a_message_that_cannot_be_read_keeps_its_token() {
    let redis = Redis::start();
    let home =
        Home::with_whole(shipped(&[("#level = \"info\"", "level = \"trace\"")])).with_env("REDIS_URL", redis.url());
    let daemon = home.start();
    let task = "backend_app.core.celery_tasks.send_password_reset_email";
    let body = json!([["a@b.bs", "Ann", RESET], {}, {}]).to_string();
    let message = envelope(task, &random_id(), "application/x-python-serialize", body.as_bytes())
        .replace("\"argsrepr\":\"()\"", &format!("\"argsrepr\":\"('a@b.bs', 'Ann', '{RESET}')\""));
    assert!(message.contains(MARK), "the token stands in argsrepr");
    redis.client().lpush::<_, _, ()>("emails", message).expect("Redis takes it");
    let mut jobs = Jobs::of(&redis, "emails");
    jobs.until("dead", 1);
    let id = jobs.ids("dead").pop().expect("there is one");
    let shown = get(daemon.admin, &format!("/api/v1/jobs/{id}"));
    assert_eq!(shown.status, 200, "{shown:?}");
    for text in [&shown.body, &daemon.log()] {
        not_in("what is said of it", text);
        assert!(!text.contains(&STANDARD.encode(&body)), "base64 hides nothing: {text}");
    }
}

fn until_reloaded(daemon: &crate::bench::Daemon) {
    crate::bench::until("the reload", || daemon.log().contains("reloaded: ").then_some(()));
}

#[track_caller]
fn not_in(what: &str, text: &str) {
    if let Some(line) = text.lines().find(|line| line.contains(MARK)) {
        let shown: String = line.chars().take(2000).collect();
        panic!("{what} holds a secret: {shown}");
    }
}
