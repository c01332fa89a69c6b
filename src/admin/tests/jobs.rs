//! Putting jobs in and looking at them.

use serde_json::json;

use super::*;
use crate::job::Failure;

const JOBS: &str = "/api/v1/jobs";

async fn waiting(port: &Port) -> u64 {
    let queues = port.get("/api/v1/queues").await.json();
    let count = |queue: &Value| queue["jobs"]["pending"].as_u64().zip(queue["jobs"]["scheduled"].as_u64());
    queues["queues"].as_array().expect("queues").iter().filter_map(count).map(|(a, b)| a + b).sum()
}

#[tokio::test]
async fn a_job_by_name_by_position_and_by_its_producers_name() {
    let port = Port::open().await;
    for job in [
        json!({"task": "send_welcome_email", "args": {"user_email": "a@b.c", "user_name": "Ann"}}),
        json!({"task": "send_welcome_email", "args": ["a@b.c", "Ann"]}),
        json!({"task": "backend_app.core.celery_tasks.send_welcome_email", "args": ["a@b.c", "Ann"], "id": null}),
    ] {
        let reply = port.post(JOBS, &job).await;
        let accepted = reply.json();
        assert_eq!(reply.status, 201, "{accepted}");
        let id = accepted["id"].as_str().expect("an id");
        assert_eq!(accepted, json!({"id": id, "queue": "emails", "task": "send_welcome_email", "state": "pending"}));
        assert_eq!(reply.header("location"), format!("{JOBS}/{id}"));
        let shown = port.get(reply.header("location")).await.json();
        assert_eq!(shown["args"], json!({"user_email": "a@b.c", "user_name": "Ann"}));
        assert_eq!((&shown["state"], &shown["origin"]), (&json!("pending"), &json!({"kind": "api"})));
    }
}

#[tokio::test]
async fn a_job_for_later() {
    let port = Port::open().await;
    let due = |reply: &Reply| {
        let job = reply.json();
        let due = chrono::DateTime::parse_from_rfc3339(job["due"].as_str().expect("a time")).expect("RFC 3339");
        u64::try_from(due.timestamp_millis()).expect("after 1970")
    };
    let before = clock::now().as_millis();
    let soon = port.post(JOBS, &json!({"task": "cleanup_old_notifications", "in": "1h 30m", "timeout": "45s"})).await;
    let after = clock::now().as_millis();
    assert_eq!((soon.status, &soon.json()["state"]), (201, &json!("scheduled")));
    assert!((before..=after).contains(&(due(&soon) - 5_400_000)));
    let shown = port.get(soon.header("location")).await.json();
    assert_eq!(
        (&shown["state"], &shown["due"], &shown["timeout"]),
        (&json!("scheduled"), &soon.json()["due"], &json!("45s"))
    );

    let at = clock::now().after(Duration::from_secs(2 * 24 * 3600));
    let job = json!({"task": "cleanup_old_notifications", "at": at.to_string(), "queue": "emails"});
    let later = port.post(JOBS, &job).await;
    assert_eq!((due(&later), &later.json()["queue"]), (at.as_millis(), &json!("emails")));
    let past = port.post(JOBS, &json!({"task": "cleanup_old_notifications", "at": "1969-01-01T00:00:00Z"})).await;
    assert_eq!((past.status, &past.json()["state"]), (201, &json!("pending")), "what is past is due at once");
}

#[tokio::test]
async fn an_id_is_taken_once() {
    let port = Port::open().await;
    let job = json!({"task": "cleanup_old_notifications", "id": "order/47-11"});
    assert_eq!(port.post(JOBS, &job).await.status, 201);
    let problem = port.post(JOBS, &job).await.problem(409);
    assert_eq!(problem["detail"], r#"a job with the id "order/47-11" exists; it was left as it is"#);
    let elsewhere = json!({"task": "cleanup_old_notifications", "id": "order/47-11", "queue": "emails"});
    port.post(JOBS, &elsewhere).await.problem(409);
    assert_eq!(port.get("/api/v1/jobs/order%2F47-11").await.json()["queue"], "notifications");
    assert_eq!(waiting(&port).await, 1);
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_place() {
    let port = Port::open().await;
    let task = "cleanup_old_notifications";
    let fields = [
        ("task", json!(7), r#""task" must be a text, like "send_welcome_email""#),
        ("task", json!(null), r#"a job needs a "task": the name of one that jobsd.toml declares"#),
        (
            "task",
            json!("send_welcom_email"),
            r#"no task is called "send_welcom_email"; did you mean "send_welcome_email"?"#,
        ),
        ("task", json!("zzz"), r#"no task is called "zzz""#),
        ("args", json!(7), r#""args" must be an object (arguments by name) or an array (by position)"#),
        ("args", json!([7]), "cleanup_old_notifications() takes 0 positional arguments but 1 was given"),
        ("args", json!({"x": 7}), "cleanup_old_notifications() got an unexpected keyword argument 'x'"),
        ("queue", json!("email"), r#"no queue is called "email"; did you mean "emails"?"#),
        ("in", json!("5 parsecs"), r#""5 parsecs" is not a duration; write "90s", "5m" or "1h 30m""#),
        ("in", json!(5), r#""in" must be a text, like "5m""#),
        ("in", json!("11years"), r#""11years" is too long; "in" may be up to 3660 days"#),
        ("timeout", json!("0s"), "a timeout of nothing would stop every attempt at once"),
        ("timeout", json!("5weeks"), r#""5weeks" is too long; "timeout" may be up to 30 days"#),
        (
            "at",
            json!("tomorrow"),
            r#""tomorrow" is not an RFC 3339 time; write 2026-12-24T18:00:00Z or 2026-12-24T13:00:00-05:00"#,
        ),
        ("at", json!("9999-01-01T00:00:00Z"), "a job may be due up to ten years ahead"),
        ("id", json!("two words"), "a job id holds the character ' '; allowed are printable characters without spaces"),
        ("id", json!("cron:x:1"), r#"ids that start with "cron:" belong to the schedules"#),
        ("timeot", json!("5m"), r#"a job has no field "timeot"; did you mean "timeout"?"#),
    ];
    for (field, value, detail) in fields {
        let mut body = json!({"task": task});
        body[field] = value;
        let problem = port.post(JOBS, &body).await.problem(422);
        assert_eq!(problem["errors"], json!([{"pointer": format!("/{field}"), "detail": detail}]), "{body}");
        assert_eq!(problem["detail"], detail);
    }
    let bodies = [
        (json!(7), "", "the body must be one job (an object) or several (an array of objects)"),
        (json!([]), "", "the array is empty; there is nothing to enqueue"),
        (json!({"task": task, "at": "2026-12-24T18:00:00Z", "in": "5m"}), "/at", r#"give "in" or "at", not both"#),
        (
            json!({"task": task, "a/b~c": 1}),
            "/a~1b~0c",
            r#"a job has no field "a/b~c"; it has task, args, queue, id, in, at, timeout, expires, retry, priority, unique"#,
        ),
        (json!([{"task": task}, 7]), "/1", "job 1 is not an object"),
        (json!([{"task": task}, {"task": task, "in": true}]), "/1/in", r#""in" must be a text, like "5m""#),
        (
            json!([{"task": task, "id": "a"}, {"task": task, "id": "a"}]),
            "/1/id",
            r#"the id "a" stands twice in this request"#,
        ),
    ];
    for (body, pointer, detail) in bodies {
        let problem = port.post(JOBS, &body).await.problem(422);
        assert_eq!(problem["errors"], json!([{"pointer": pointer, "detail": detail}]), "{body}");
    }
    let long = port.post(JOBS, &json!({"task": "é".repeat(10_000)})).await.problem(422);
    assert!(long["detail"].as_str().is_some_and(|detail| detail.len() < 300), "{long}");
    let many = json!({"task": "send_welcome_email", "args": ["only one"], "in": "x", "queue": "y"});
    let problem = port.post(JOBS, &many).await.problem(422);
    let pointers: Vec<&Value> = problem["errors"].as_array().expect("errors").iter().map(|e| &e["pointer"]).collect();
    assert_eq!(pointers, ["/args", "/queue", "/in"]);
    assert_eq!(waiting(&port).await, 0, "nothing of all this was enqueued");
}

#[tokio::test]
async fn a_body_that_is_not_json_is_told_where() {
    let port = Port::open().await;
    let deep = "[".repeat(100_000);
    for (body, detail) in [
        ("", "the body is empty; send {\"task\": \"NAME\", \"args\": {…}}"),
        ("{\n  \"task\": }", "expected value at line 2 column 11"),
        ("{\"task\": \"x\"} trailing", "trailing characters at line 1 column 15"),
        (&deep, "recursion limit exceeded at line 1 column 128"),
    ] {
        assert_eq!(port.ask("POST", JOBS, &[], body).await.problem(400)["detail"], detail);
    }
    // What `curl -d @job.json` calls it.
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(port.ask("POST", JOBS, &form, r#"{"task": "cleanup_old_notifications"}"#).await.status, 201);
}

#[tokio::test]
async fn many_at_once_all_or_nothing() {
    let port = Port::open().await;
    let job = |number: usize| json!({"task": "cleanup_old_notifications", "id": format!("n-{number}")});
    let thousand: Vec<Value> = (0..1000).map(job).collect();
    let mut one_bad = thousand.clone();
    one_bad[777] = json!({"task": "cleanup_old_notification"});
    let problem = port.post(JOBS, &json!(one_bad)).await.problem(422);
    assert_eq!(problem["errors"][0]["pointer"], "/777/task");
    assert_eq!(waiting(&port).await, 0);

    let too_many: Vec<Value> = (0..1001).map(job).collect();
    let problem = port.post(JOBS, &json!(too_many)).await.problem(422);
    assert_eq!(problem["detail"], "the array has 1001 jobs; one request takes up to 1000");
    let all_bad = vec![json!({"task": "nothing"}); 1000];
    let errors = port.post(JOBS, &json!(all_bad)).await.problem(422)["errors"].as_array().map(Vec::len);
    assert_eq!(errors, Some(50), "the first ones say enough");

    let reply = port.post(JOBS, &json!(thousand)).await;
    assert_eq!(reply.status, 201);
    let accepted = reply.json();
    assert_eq!(accepted.as_array().map(Vec::len), Some(1000));
    let (task, queue) = ("cleanup_old_notifications", "notifications");
    assert_eq!(accepted[0], json!({"id": "n-0", "queue": queue, "task": task, "state": "pending", "added": true}));
    assert_eq!(waiting(&port).await, 1000);

    // A repetition, as after a lost answer, and one that brings something new.
    let again = port.post(JOBS, &json!(thousand)).await;
    assert_eq!((again.status, &again.json()[5]["added"]), (200, &json!(false)));
    let mixed = port.post(JOBS, &json!([job(999), job(1000)])).await;
    assert_eq!(
        (mixed.status, &mixed.json()[0]["added"], &mixed.json()[1]["added"]),
        (201, &json!(false), &json!(true))
    );
    assert_eq!(waiting(&port).await, 1001);
}

#[tokio::test]
async fn a_job_is_shown_through_its_life_without_its_secret() {
    const TOKEN: &str = "rst+4f/9c==";
    let port = Port::open().await;
    let config = config();
    let queue = &config.queues["emails"];
    let job = json!({"task": "send_password_reset_email", "id": "reset-1", "args": ["a@b.c", TOKEN]});
    let accepted = port.post(JOBS, &job).await;
    let mut bodies = vec![accepted.body.clone()];
    assert_eq!(
        port.get("/api/v1/jobs/reset-1").await.json()["args"],
        json!({"user_email": "a@b.c", "reset_token": "***"})
    );

    let running = claim(&port, queue, 0).await;
    let shown = port.get("/api/v1/jobs/reset-1").await;
    assert_eq!(shown.json()["state"], "active");
    assert_eq!(
        (&shown.json()["attempt"]["number"], &shown.json()["attempt"]["node"]),
        (&json!(1), &json!("vps-1-test"))
    );
    bodies.push(shown.body);

    let link = "https://app.example/reset-password?token=rst%2B4f%2F9c%3D%3D";
    let refused = Failure::new("SmtpRejected", format!("550 no {TOKEN} here")).with_detail(format!("body: {link}"));
    settle(&port, queue, running, refused.into(), 1).await;
    let shown = port.get("/api/v1/jobs/reset-1").await;
    let mishap = &shown.json()["history"]["mishaps"][0];
    assert_eq!((&mishap["kind"], &mishap["name"]), (&json!("failed"), &json!("SmtpRejected")));
    assert_eq!(mishap["message"], "550 no *** here");
    assert_eq!(mishap["detail"], "body: https://app.example/reset-password?token=***");
    assert_eq!(shown.json()["state"], "retry");
    bodies.push(shown.body);

    let second = claim(&port, queue, 1).await;
    let result = json!({"success": true, "sent": [link, 7], "token": "another"});
    settle(&port, queue, second, Outcome::Success(result), 1).await;
    let shown = port.get("/api/v1/jobs/reset-1").await;
    let end = &shown.json()["end"];
    assert_eq!((&end["state"], &end["duration_seconds"]), (&json!("completed"), &json!(1.5)));
    assert_eq!(
        end["result"],
        json!({"success": true, "sent": ["https://app.example/reset-password?token=***", 7], "token": "***"})
    );
    assert_eq!(shown.json()["history"]["failures"], 1);
    bodies.push(shown.body);
    for body in bodies {
        assert!(!body.contains(TOKEN) && !body.contains("rst%2B"), "{body}");
    }
}

#[tokio::test]
async fn a_job_may_bring_its_own_retry_policy() {
    let port = Port::open().await;
    let shown = async |retry: Value| {
        let reply = port.post(JOBS, &json!({"task": "cleanup_old_notifications", "retry": retry})).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        port.get(reply.header("location")).await.json()["retry"].take()
    };
    assert_eq!(shown(Value::Null).await, Value::Null);
    // What is left out is the queue's: `limit = 0`, no delay.
    let fixed =
        |limit: u32| json!({"limit": limit, "backoff": "fixed", "delay": "0s", "max_delay": "0s", "jitter": 0.0});
    assert_eq!(shown(json!(5)).await, fixed(5));
    assert_eq!(shown(json!(false)).await, fixed(0));
    let list = json!({"limit": 2, "backoff": "list", "delays": ["5s", "2h"], "max_delay": "2h", "jitter": 0.0});
    assert_eq!(shown(json!(["5s", "2h"])).await, list);
    let whole = json!({
        "limit": 9, "backoff": "exponential", "delay": "1s", "max_delay": "1h", "jitter": 0.5, "for": "1day",
        "never": ["Smtp*", "TimeLimitExceeded"],
    });
    assert_eq!(shown(whole.clone()).await, whole);
    let sidekiq = json!({"limit": 25, "backoff": "sidekiq", "max_delay": "30days", "jitter": 0.0});
    assert_eq!(shown(json!({"backoff": "sidekiq"})).await, sidekiq);
}

#[tokio::test]
async fn what_is_wrong_with_a_retry_policy_is_named_with_its_place() {
    let port = Port::open().await;
    let cases = [
        (
            json!(true),
            "",
            r#""retry" must be an object like {"limit": 5}, a list of delays, a number of retries or false"#,
        ),
        (
            json!("5m"),
            "",
            r#""retry" must be an object like {"limit": 5}, a list of delays, a number of retries or false"#,
        ),
        (json!(1001), "", "the number of retries must be an integer from 0 to 1000"),
        (json!({"limit": -1}), "/limit", "the number of retries must be an integer from 0 to 1000"),
        (json!([]), "", r#"the delays must be a list of 1 to 100 durations, like ["5s", "5m"]"#),
        (json!(["5s", "5 parsecs"]), "/1", r#""5 parsecs" is not a duration; write "90s", "5m" or "1h 30m""#),
        (json!({"delays": [5]}), "/delays/0", r#"a duration is a text, like "5m""#),
        (json!({"for": "0s"}), "/for", r#""0s" is not from 1s to 1year"#),
        (
            json!({"backoff": "linear"}),
            "/backoff",
            r#""backoff" must be one of "fixed", "exponential", "sidekiq", "list""#,
        ),
        (json!({"jitter": 2}), "/jitter", r#""jitter" must be a number from 0 to 1"#),
        (json!({"limt": 2}), "/limt", r#"a retry policy has no "limt"; did you mean "limit"?"#),
        (
            json!({"backoff": "sidekiq", "delay": "5s"}),
            "/delay",
            "`delay` has no effect here: the curve of Sidekiq has its own delays; remove `delay`",
        ),
        (
            json!({"delay": "5s"}),
            "",
            "a retry delay of 5s is longer than `max_delay`, which is 0s; set `max_delay` to 5s or more, or shorten the delay",
        ),
        (
            json!({"never": "Http4*"}),
            "/never",
            r#""never" must be a list of up to 100 names, like ["InvalidAddress", "Http4*"]"#,
        ),
        (
            json!({"never": ["Http4*", "SmtpRejectd"]}),
            "/never/1",
            r#"no handler reports a failure "SmtpRejectd"; did you mean "SmtpRejected"?"#,
        ),
        (
            json!({"never": ["a b"]}),
            "/never/0",
            "the name of a failure holds the character ' '; allowed are letters, digits, `_`, `.` and `*`; \
             write it like \"InvalidAddress\" or \"Http4*\"",
        ),
    ];
    for (retry, place, detail) in cases {
        let body = json!({"task": "cleanup_old_notifications", "retry": retry});
        let problem = port.post(JOBS, &body).await.problem(422);
        let pointer = format!("/retry{place}");
        assert_eq!(problem["errors"], json!([{"pointer": pointer, "detail": detail}]), "{body}");
    }
    assert_eq!(waiting(&port).await, 0, "nothing of it was enqueued");
}

#[tokio::test]
async fn a_job_expires_after_it_is_due() {
    let port = Port::open().await;
    let task = "cleanup_old_notifications";
    let expires = async |mut job: Value| {
        job["task"] = json!(task);
        let reply = port.post(JOBS, &job).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        let shown = port.get(reply.header("location")).await.json();
        let millis = |field: &str| {
            let at = chrono::DateTime::parse_from_rfc3339(shown[field].as_str().expect("a time")).expect("RFC 3339");
            at.timestamp_millis()
        };
        millis("expires") - millis(if shown["due"].is_null() { "enqueued_at" } else { "due" })
    };
    assert_eq!(expires(json!({"expires": "10m"})).await, 600_000);
    assert_eq!(expires(json!({"expires": "10m", "in": "1h"})).await, 600_000);
    let at = clock::now().after(Duration::from_secs(600));
    let shown = port.post(JOBS, &json!({"task": task, "id": "until", "expires": at.to_string()})).await;
    assert_eq!(shown.status, 201);
    assert_eq!(port.get("/api/v1/jobs/until").await.json()["expires"], at.to_string());

    let in_a_minute = clock::now().after(Duration::from_secs(60)).to_string();
    let cases = [
        (json!({"expires": "0s"}), "a job that expires at once would never start"),
        (json!({"expires": 60}), r#""expires" must be a text, like "10m""#),
        (json!({"expires": "soon"}), "is no duration and no RFC 3339 time"),
        (json!({"expires": "1970-01-01T00:00:00Z"}), "is past; the job would never start"),
        (json!({"expires": in_a_minute, "in": "1h"}), "the job would expire before it is due"),
        (json!({"expires": "9999-01-01T00:00:00Z"}), "a job may expire up to ten years after it is due"),
    ];
    for (mut body, words) in cases {
        body["task"] = json!(task);
        let problem = port.post(JOBS, &body).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], "/expires", "{body}");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains(words), "{words:?} is not in {detail:?}");
    }
}

#[tokio::test]
async fn a_job_that_was_put_off_says_so() {
    let port = Port::open().await;
    let config = config();
    let queue = &config.queues["emails"];
    let job = json!({"task": "send_password_reset_email", "id": "reset-2", "args": ["a@b.c", "rst+4f/9c=="]});
    assert_eq!(port.post(JOBS, &job).await.status, 201);
    let running = claim(&port, queue, 0).await;
    let reason = "rst+4f/9c== is not there yet".to_owned();
    settle(&port, queue, running, Outcome::Snoozed { delay: None, reason }, 0).await;
    let shown = port.get("/api/v1/jobs/reset-2").await.json();
    assert_eq!((&shown["state"], &shown["history"]["snoozes"]), (&json!("retry"), &json!(1)));
    assert_eq!(shown["history"]["snooze"]["reason"], "*** is not there yet");
    let running = claim(&port, queue, 1).await;
    settle(&port, queue, running, Failure::new("SmtpDeferred", "421").into(), 0).await;
    let end = &port.get("/api/v1/jobs/reset-2").await.json()["end"];
    assert_eq!(
        (&end["cause"], &end["reason"]),
        (&json!("retries-exhausted"), &json!("it failed once, and `retry.limit` is 0"))
    );
}

#[tokio::test]
async fn a_dead_job_says_why() {
    let port = Port::open().await;
    let config = config();
    let queue = &config.queues["notifications"];
    assert_eq!(port.post(JOBS, &json!({"task": "cleanup_old_notifications", "id": "d"})).await.status, 201);
    let running = claim(&port, queue, 0).await;
    settle(&port, queue, running, Failure::never("SqlError", "no such table").into(), 3).await;
    let shown = port.get("/api/v1/jobs/d").await.json();
    assert_eq!((&shown["state"], &shown["end"]["cause"]), (&json!("dead"), &json!("not-retryable")));
    let health = port.get("/health/queues").await.json();
    assert_eq!(health["queues"]["notifications"], json!({"count": 0, "failed_count": 1, "started_count": 0}));
}

#[tokio::test]
async fn an_unknown_job_is_not_found() {
    let port = Port::open().await;
    for id in ["nothing", "two%20words", "%ff", &"x".repeat(300)] {
        port.get(&format!("/api/v1/jobs/{id}")).await.problem(404);
    }
}
