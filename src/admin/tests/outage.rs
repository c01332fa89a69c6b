//! Redis goes away in the middle: killed, so that connections are refused, or stuck, so that nothing answers.

use serde_json::json;

use super::*;

/// What a probe waits for.
const PROBE: Duration = Duration::from_secs(3);

async fn promptly(port: &Port, path: &str) -> Reply {
    tokio::time::timeout(PROBE, port.get(path)).await.unwrap_or_else(|_| panic!("{path} took longer than {PROBE:?}"))
}

async fn every_status_says_so(port: &Port, words: &str) {
    assert_eq!(promptly(port, "/livez").await.status, 200);

    let ready = promptly(port, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.starts_with("not ready\n") && ready.body.contains(words), "{}", ready.body);

    let health = promptly(port, "/health/queues").await;
    assert_eq!(health.status, 503);
    assert_eq!(health.json(), json!({"status": "degraded", "redis": "disconnected", "queues": {}}));

    let metrics = promptly(port, "/metrics").await;
    assert_eq!(metrics.status, 200);
    let samples = openmetrics::parse(&metrics.body).expect("whole all the same");
    assert_eq!(samples.get("jobsd_redis_up"), Some(&0.0));
    assert!(!samples.keys().any(|series| series.starts_with("jobsd_queue_jobs")), "no stale or invented numbers");

    let table = promptly(port, "/").await;
    assert_eq!(table.status, 200);
    assert!(table.body.contains("redis   disconnected: ") && table.body.contains(words), "{}", table.body);
    let cells: Vec<&str> = table.body.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(cells, ["emails", "celery", "?", "?", "?", "?", "?", "?", "?", "?", "?"]);

    let queues = promptly(port, "/api/v1/queues").await;
    queues.problem(503);
    assert_eq!(queues.header("retry-after"), "5");
}

async fn works_again(port: &Port) {
    let back = async {
        while port.get("/readyz").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, back).await.expect("ready again");
    let job = json!({"task": "cleanup_old_notifications", "id": "after"});
    assert_eq!(port.post("/api/v1/jobs", &job).await.status, 201, "the first one already");
    assert_eq!(port.get("/api/v1/jobs/after").await.json()["state"], "pending");
}

#[tokio::test]
async fn a_killed_redis() {
    let mut port = Port::open().await;
    let job = json!({"task": "cleanup_old_notifications"});
    assert_eq!(port.post("/api/v1/jobs", &job).await.status, 201);
    port.redis.kill();
    every_status_says_so(&port, "connect to Redis: ").await;
    for reply in [port.post("/api/v1/jobs", &job).await, port.get("/api/v1/jobs/x").await] {
        let problem = reply.problem(503);
        assert!(problem["detail"].as_str().is_some_and(|words| words.contains("connect to Redis: ")), "{problem}");
        assert_eq!(reply.header("retry-after"), "5");
    }
    port.redis.restart();
    works_again(&port).await;
}

#[tokio::test]
async fn a_stuck_redis() {
    let port = Port::open().await;
    assert_eq!(port.post("/api/v1/jobs", &json!({"task": "cleanup_old_notifications"})).await.status, 201);
    port.redis.freeze();
    every_status_says_so(&port, "Redis: ").await;
    port.redis.thaw();
    works_again(&port).await;
}

#[tokio::test]
async fn a_redis_that_was_emptied() {
    let port = Port::open().await;
    assert_eq!(port.post("/api/v1/jobs", &json!({"task": "cleanup_old_notifications"})).await.status, 201);
    let client = redis::Client::open(port.redis.url().expose()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis is up");
    redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await.expect("the scripts are gone");
    works_again(&port).await;
}
