//! What the port says of the node and its queues.

use redis::AsyncCommands;
use serde_json::json;

use super::*;

/// Three mails wait here and two in the foreign lists; a notification is for later.
async fn fill(port: &Port) {
    for number in 0..3 {
        let job = json!({"task": "send_welcome_email", "args": ["a@b.c", format!("n{number}")]});
        assert_eq!(port.post("/api/v1/jobs", &job).await.status, 201);
    }
    let later = json!({"task": "cleanup_old_notifications", "in": "1h"});
    assert_eq!(port.post("/api/v1/jobs", &later).await.status, 201);
    let client = redis::Client::open(port.redis.url().expose()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis is up");
    for list in ["celery", "emails\u{6}\u{16}3"] {
        connection.lpush::<_, _, u64>(list, "{}").await.expect("it is pushed");
    }
}

#[tokio::test]
async fn curl_gets_a_table() {
    let port = Port::open().await;
    fill(&port).await;
    let reply = port.get("/").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "text/plain; charset=utf-8"));
    let lines: Vec<&str> = reply.body.lines().collect();
    let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        lines[0],
        "QUEUE          WIRES   STATE  PENDING  ACTIVE  SCHEDULED  RETRY  COMPLETED  DEAD  OLDEST WAIT  FOREIGN BACKLOG"
    );
    let emails = cells(lines[1]);
    assert_eq!(emails[..9], ["emails", "celery", "open", "3", "0", "0", "0", "0", "0"]);
    assert!(emails[9].ends_with("ms") || emails[9].ends_with('s'), "{emails:?}");
    assert_eq!(emails.last().map(String::as_str), Some("2"));
    assert_eq!(cells(lines[2]), ["notifications", "rq", "open", "0", "0", "1", "0", "0", "0", "-", "0"]);
    assert_eq!(lines[3], "");
    assert_eq!(lines[4], "node    vps-1-test  running");
    assert_eq!(lines[5], "redis   connected");
    assert!(lines[6].starts_with("uptime  "), "{}", lines[6]);
    assert_eq!(lines[7], "version 0.1.0");
}

#[tokio::test]
async fn programs_get_json_and_browsers_a_page() {
    let port = Port::open().await;
    fill(&port).await;
    let overview = port.get_as("/", "application/json").await.json();
    assert_eq!((&overview["node"], &overview["phase"]), (&json!("vps-1-test"), &json!("running")));
    assert_eq!(overview["redis"], json!({"up": true}));
    let emails = &overview["queues"][0];
    assert_eq!(emails["jobs"]["pending"], 3);
    assert_eq!(emails["lists"][0], json!({"wire": "celery", "list": "emails", "backlog": 1}));
    assert!(emails["oldest_wait_seconds"].is_number());
    assert_eq!(port.get("/api/v1/queues").await.json()["queues"][1]["jobs"]["scheduled"], 1);

    let page = port.get_as("/", "text/html,application/xhtml+xml,*/*;q=0.8").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    assert!(page.body.contains("<td>emails</td><td>celery</td><td>open</td><td>3</td>"), "{}", page.body);
    assert!(!page.body.contains("<script"), "{}", page.body);
    assert_eq!(page.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn health_has_the_shape_that_the_app_knows() {
    let port = Port::open().await;
    fill(&port).await;
    let reply = port.get("/health/queues").await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.json(),
        json!({"status": "healthy", "redis": "connected", "queues": {
            "emails": {"count": 5, "failed_count": 0, "started_count": 0},
            "notifications": {"count": 0, "failed_count": 0, "started_count": 0},
        }})
    );
}

#[tokio::test]
async fn readiness_follows_the_phase() {
    let port = Port::open().await;
    assert_eq!((port.get("/livez").await.status, port.get("/readyz").await.body.as_str()), (200, "ready\n"));
    for (phase, words) in [(Phase::Starting, "starting"), (Phase::Draining, "draining")] {
        port.control.enter(phase);
        let reply = port.get("/readyz").await;
        assert_eq!((reply.status, reply.body), (503, format!("not ready\nthe daemon is {words}\n")));
        let problem = port.get_as("/readyz", "application/json").await.problem(503);
        assert_eq!(problem["detail"], format!("the daemon is {words}"));
        assert_eq!(port.get("/livez").await.status, 200);
    }
}

#[tokio::test]
async fn metrics_are_openmetrics() {
    let port = Port::open().await;
    fill(&port).await;
    let reply = port.get("/metrics").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let samples = openmetrics::parse(&reply.body).unwrap_or_else(|error| panic!("{error}\n{}", reply.body));
    let value = |series: &str| *samples.get(series).unwrap_or_else(|| panic!("no {series} in\n{}", reply.body));
    assert_eq!(value("jobsd_redis_up"), 1.0);
    assert_eq!(value(r#"jobsd_queue_jobs{queue="emails",state="pending"}"#), 3.0);
    assert_eq!(value(r#"jobsd_queue_jobs{queue="notifications",state="scheduled"}"#), 1.0);
    assert_eq!(value(r#"jobsd_foreign_backlog{queue="emails",wire="celery",list="celery"}"#), 1.0);
    assert_eq!(value(r#"jobsd_foreign_backlog{queue="emails",wire="celery",list="emails"}"#), 1.0);
    assert_eq!(value(r#"jobsd_queue_outcomes_total{queue="emails",outcome="dead"}"#), 0.0);
    assert!(value(r#"jobsd_queue_oldest_seconds{queue="emails"}"#) > 0.0);
    assert_eq!(value(r#"jobsd_queue_oldest_seconds{queue="notifications"}"#), 0.0);
    assert_eq!(value(r#"jobsd_build_info{version="0.1.0"}"#), 1.0);
}

#[tokio::test]
async fn a_reload_is_passed_on_and_its_outcome_told() {
    let mut port = Port::open().await;
    let mut orders = std::mem::replace(&mut port.orders, mpsc::channel(1).1);
    let daemon = tokio::spawn(async move {
        for outcome in [Ok("queue emails: concurrency 4 → 8".to_owned()), Err("jobsd.toml:3:1: no such key".to_owned())]
        {
            let Some(Order::Reload(answer)) = orders.recv().await else { panic!("an order to reload") };
            answer.send(outcome).expect("it is waited for");
        }
    });
    let done = port.ask("POST", "/api/v1/reload", &[], "").await;
    assert_eq!((done.status, done.json()), (200, json!({"reloaded": "queue emails: concurrency 4 → 8"})));
    let refused = port.ask("POST", "/api/v1/reload", &[], "").await.problem(422);
    assert_eq!(refused["detail"], "jobsd.toml:3:1: no such key");
    daemon.await.expect("both orders came");
    // The daemon does not take orders any more.
    assert_eq!(port.ask("POST", "/api/v1/reload", &[], "").await.problem(422)["detail"], "the daemon is stopping");
}
