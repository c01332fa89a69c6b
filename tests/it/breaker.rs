//! A service that is down: the queue waits for it, no attempt is spent, and everything is done when it is back.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::bench::{Child, FarWorld, Home, Jobs, Python, Redis, Smtp, free_port, get, post, push, until};

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

#[test]
fn a_queue_waits_for_a_mail_interface_that_answers_503() {
    let world = FarWorld::start(&[]);
    let config = format!(
        "email.provider = \"sendgrid\"\nemail.from = \"Jobs <jobs@example.com>\"\n\
         email.sendgrid = {{ api_key = \"SG.key\", endpoint = \"http://127.0.0.1:{}\" }}\n\
         [queues.work]\nconcurrency = 4\nretry = false\n\
         [tasks.tell]\nqueue = \"work\"\nparams = {{ n = \"int\" }}\n\
         email = {{ to = \"ann{{{{ n }}}}@example.com\", subject = \"Hello\", text = \"Hello\" }}\n",
        world.port
    );
    waits_for(&world, &config, "MailUnavailable: failed to hand the mail to SendGrid: it answered 503", |request| {
        request["to"][0].as_str().map(str::to_owned)
    });
}

#[test]
fn a_queue_waits_for_a_push_service_that_answers_503() {
    let world = FarWorld::start(&[]);
    let config = format!(
        "[push]\nprovider = \"fcm\"\ntokens_query = \"SELECT 'phone-' || :user_id AS token\"\n\
         [push.fcm]\ncredentials = '{}'\nendpoint = \"http://127.0.0.1:{}\"\n\
         [queues.work]\nconcurrency = 4\nretry = false\n\
         [tasks.tell]\nqueue = \"work\"\nparams = {{ n = \"int\" }}\n\
         push = {{ user = \"{{{{ n }}}}\", title = \"Hi\", body = \"There\" }}\n",
        world.account.display(),
        world.port
    );
    waits_for(&world, &config, "PushStatusError: failed to push through FCM: it answered 503", |request| {
        request["token"].as_str().map(str::to_owned)
    });
}

#[test]
fn a_queue_waits_for_the_service_of_its_requests() {
    let (redis, port) = (Redis::start(), free_port());
    let config = format!(
        "[queues.calls]\nconcurrency = 4\nretry = false\n\
         [tasks.call]\nqueue = \"calls\"\nparams = {{ n = \"int\" }}\n\
         http = {{ url = \"http://127.0.0.1:{port}/calls/{{{{ n }}}}\", when_down = \"wait\" }}\n"
    );
    let home = Home::new(&redis, &config);
    let mut jobs = Jobs::of(&redis, "calls");
    let daemon = home.start();
    let put_in = |n| {
        let answer = post(daemon.admin, "/api/v1/jobs", &json!({"task": "call", "args": {"n": n}}));
        answer.json()["id"].as_str().expect("an id").to_owned()
    };
    let ids: Vec<String> = (0..MAILS).map(put_in).collect();

    let row = || get(daemon.admin, "/api/v1/queues/calls").json()["queue"].take();
    let open = until("the queue to wait", || Some(row()).filter(|row| row["breaker"]["state"] == "open"));
    let reason = open["breaker"]["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("HttpConnectError: failed to call 127.0.0.1"), "{open:#}");
    assert!(get(daemon.admin, "/").body.contains("service down"));
    until("the last in line to be explained", || {
        let why = get(daemon.admin, &format!("/api/v1/jobs/{}/why", ids[MAILS - 1])).json();
        (why["cause"] == "service-down").then_some(())
    });
    until("a second opening", || daemon.log().contains("so it waits for 10s").then_some(()));
    let tried: Vec<Value> = ids.iter().filter_map(|id| jobs.history(id)).collect();
    assert!(tried.len() <= 10, "{} jobs were tried", tried.len());
    assert!(tried.iter().all(|history| history["failures"].is_null() && history["mishaps"].is_null()), "{tried:#?}");

    let log = home.path("served");
    let mut server = Child::command(Python::interpreter());
    server.args(["-c", SERVER, &port.to_string()]).arg(&log);
    let _server = Child::spawn(&mut server);
    jobs.until("completed", MAILS);
    until("the breaker to be closed", || row()["breaker"].is_null().then_some(()));
    for history in ids.iter().map(|id| jobs.history(id).expect("it has one")) {
        assert!(history["failures"].is_null(), "no attempt was spent: {history:#}");
    }
    let served = std::fs::read_to_string(log).expect("it has served");
    let mut served: Vec<&str> = served.lines().collect();
    served.sort_unstable();
    let mut expected: Vec<String> = (0..MAILS).map(|n| format!("/calls/{n}")).collect();
    expected.sort_unstable();
    assert_eq!(served, expected, "each once");
    println!("{} of {MAILS} jobs ran into the outage; no attempt was spent", tried.len());
}

/// Answers every POST, and writes down of which path it was.
const SERVER: &str = "
import http.server, sys
class Calls(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers['content-length']))
        with open(sys.argv[2], 'a') as log: log.write(self.path + '\\n')
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Calls).serve_forever()
";

/// `whom` finds in a request that was served for whom it was. A 503 used to spend the one attempt of each push job.
fn waits_for(world: &FarWorld, config: &str, words: &str, whom: fn(&Value) -> Option<String>) {
    world.goes_down();
    let redis = Redis::start();
    let home = Home::new(&redis, config);
    let mut jobs = Jobs::of(&redis, "work");
    let daemon = home.start();
    let put_in = |n| {
        let answer = post(daemon.admin, "/api/v1/jobs", &json!({"task": "tell", "args": {"n": n}}));
        answer.json()["id"].as_str().expect("an id").to_owned()
    };
    let ids: Vec<String> = (0..MAILS).map(put_in).collect();

    let row = || get(daemon.admin, "/api/v1/queues/work").json()["queue"].take();
    let open = until("the queue to wait", || Some(row()).filter(|row| row["breaker"]["state"] == "open"));
    assert!(open["breaker"]["reason"].as_str().is_some_and(|reason| reason.starts_with(words)), "{open:#}");
    let untouched = ids.last().expect("there are some");
    until("the last in line to be explained", || {
        let why = get(daemon.admin, &format!("/api/v1/jobs/{untouched}/why")).json();
        (why["cause"] == "service-down" && why["sentence"].as_str().is_some_and(|said| said.contains("503")))
            .then_some(())
    });
    // The service asked for one second; each probe that fails doubles it.
    until("a third opening", || daemon.log().contains("so it waits for 4s").then_some(()));
    let asked = world.requests().iter().filter(|request| request["status"] == 503).count();
    assert!(asked <= 10, "{asked} requests ran into the outage");

    world.comes_back();
    jobs.until("completed", MAILS);
    until("the breaker to be closed", || row()["breaker"].is_null().then_some(()));
    for history in ids.iter().map(|id| jobs.history(id).expect("it has one")) {
        assert!(history["failures"].is_null() && history["mishaps"].is_null(), "no attempt was spent: {history:#}");
    }
    let mut served: BTreeMap<String, usize> = BTreeMap::new();
    for request in world.requests() {
        assert!(request["why"].is_null(), "{request}");
        if request["status"].as_u64().is_some_and(|status| status < 300)
            && let Some(one) = whom(&request)
        {
            *served.entry(one).or_default() += 1;
        }
    }
    assert!(served.len() == MAILS && served.values().all(|count| *count == 1), "each once: {served:?}");
    println!("{asked} requests of {MAILS} jobs ran into the outage; no attempt was spent");
}
