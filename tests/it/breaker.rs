//! A service that is down: the queue waits for it, no attempt is spent, and everything is done when it is back.

use serde_json::{Value, json};

use crate::bench::{Home, Jobs, Redis, Smtp, free_port, get, push, until};

const MAILS: usize = 40;

#[test]
fn a_queue_waits_for_a_mail_server_that_is_down() {
    let (redis, port) = (Redis::start(), free_port());
    let config = format!(
        "email.provider = \"smtp\"\nemail.from = \"Jobs <jobs@example.com>\"\n\
         email.smtp = {{ host = \"127.0.0.1\", port = {port}, tls = \"none\" }}\n\
         [queues.mail]\nwires = [\"celery\"]\nconcurrency = 4\nretry = false\n\
         [tasks.mail]\nnames = [\"app.mail\"]\nqueue = \"mail\"\n\
         email = {{ to = \"ann@example.com\", subject = \"Hello\", text = \"Hello\" }}\n"
    );
    let home = Home::new(&redis, &config);
    let (mut client, mut jobs) = (redis.client(), Jobs::of(&redis, "mail"));
    let ids: Vec<String> = (0..MAILS).map(|_| push(&mut client, "mail", "app.mail", &json!({}))).collect();
    let daemon = home.start();

    let row = || get(daemon.admin, "/api/v1/queues/mail").json()["queue"].take();
    let open = until("the queue to wait", || Some(row()).filter(|row| row["breaker"]["state"] == "open"));
    let (breaker, words) =
        (&open["breaker"], format!("SmtpConnectError: failed to connect to the mail server 127.0.0.1:{port}"));
    assert!(breaker["reason"].as_str().is_some_and(|reason| reason.starts_with(&words)), "{breaker:#}");
    assert!(breaker["until"].is_string() && breaker["since"].is_string(), "{breaker:#}");
    assert_eq!(open["nodes"][0]["breaker"], *breaker);
    let table = get(daemon.admin, "/").body;
    assert!(table.contains("service down") && table.contains(&words), "{table}");
    assert!(get(daemon.admin, "/metrics").body.contains("jobsd_waits_for_service{queue=\"mail\"} 1"));
    assert!(daemon.log().contains("the service behind its jobs is down, so it waits for 5s"), "{}", daemon.log());

    // A probe or two later: what nobody could work on is still where its producer sees it.
    until("a second opening", || daemon.log().contains("so it waits for 10s").then_some(()));
    let left: usize = redis::Commands::llen(&mut client, "mail").expect("Redis answers");
    let tried: Vec<Value> = ids.iter().filter_map(|id| jobs.history(id)).collect();
    println!("{left} of {MAILS} messages are in their list after two openings; {} jobs were tried", tried.len());
    assert!(left >= MAILS / 2, "{left} messages are left");
    assert!(tried.len() <= 10, "{} jobs were tried", tried.len());
    assert!(tried.iter().all(|history| history["failures"].is_null() && history["mishaps"].is_null()), "{tried:#?}");

    let smtp = Smtp::start(&["--port", &port.to_string()]);
    jobs.until("completed", MAILS);
    assert_eq!(smtp.count(), MAILS, "each mail once");
    until("the breaker to be closed", || row()["breaker"].is_null().then_some(()));
    assert!(get(daemon.admin, "/metrics").body.contains("jobsd_waits_for_service{queue=\"mail\"} 0"));
    for history in ids.iter().map(|id| jobs.history(id).expect("it has one")) {
        assert!(history["failures"].is_null(), "no attempt was spent: {history:#}");
    }
}
