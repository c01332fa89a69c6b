//! Lists of jobs, page by page.

use serde_json::json;

use super::*;
use crate::job::Failure;

/// The ids of all pages of this query, and how many requests it took.
async fn all(port: &Port, query: &str) -> (Vec<String>, usize) {
    let (mut ids, mut requests, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let page = port.get(&format!("/api/v1/jobs?{query}{cursor}")).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let page = page.json();
        requests += 1;
        let rows = page["jobs"].as_array().expect("jobs");
        ids.extend(rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (ids, requests),
        }
    }
}

#[tokio::test]
async fn the_next_in_line_come_first_and_no_page_repeats_or_skips() {
    let port = Port::open().await;
    // Twenty of one millisecond: only their ids tell them apart.
    let job = |n: usize| json!({"task": MAIL, "args": ["a@b.c", "Ann"], "id": format!("j{n:02}")});
    let jobs: Vec<Value> = (0..20).map(job).collect();
    assert_eq!(port.post("/api/v1/jobs", &json!(jobs)).await.status, 201);
    port.put(CLEANUP, "other").await;
    let mut expected: Vec<String> = (0..20).map(|n| format!("j{n:02}")).collect();
    expected.push("other".into());
    for limit in [1, 3, 7, 20, 21, 500] {
        let (ids, requests) = all(&port, &format!("state=pending&limit={limit}")).await;
        assert_eq!(ids, expected, "limit {limit}");
        assert!(requests <= 21 / limit + 2, "limit {limit}: {requests} requests");
    }
    let (reversed, _) = all(&port, "limit=3").await;
    assert!(reversed.iter().rev().eq(expected.iter()), "without a state the latest come first: {reversed:?}");

    // A cursor is a place, not a job: it holds when its job and others go and come.
    let first = port.get("/api/v1/jobs?state=pending&limit=5").await.json();
    let cursor = first["next"].as_str().expect("there are more");
    for id in ["j02", "j04", "j06"] {
        assert_eq!(port.ask("DELETE", &format!("/api/v1/jobs/{id}"), &[], "").await.status, 200);
    }
    let second = port.get(&format!("/api/v1/jobs?state=pending&limit=3&cursor={cursor}")).await.json();
    let ids: Vec<&Value> = second["jobs"].as_array().expect("jobs").iter().map(|row| &row["id"]).collect();
    assert_eq!(ids, ["j05", "j07", "j08"]);
}

#[tokio::test]
async fn a_line_says_what_matters_and_no_secret() {
    let port = Port::open().await;
    let config = config();
    let queue = &config.queues["emails"];
    let job =
        json!({"task": "send_password_reset_email", "id": "r", "args": ["a@b.c", "s3cret-token"], "priority": -3});
    assert_eq!(port.post("/api/v1/jobs", &job).await.status, 201);
    let row = port.get("/api/v1/jobs").await.json()["jobs"][0].clone();
    let time = &row["enqueued_at"];
    assert_eq!(
        row,
        json!({"id": "r", "queue": "emails", "state": "pending", "task": "send_password_reset_email",
            "args": r#"{"user_email":"a@b.c","reset_token":"***"}"#, "priority": -3,
            "enqueued_at": time, "at": time, "attempts": 0})
    );
    let claimed = claim(&port, queue, 0).await;
    let row = port.get("/api/v1/jobs?state=active").await.json()["jobs"][0].clone();
    assert_eq!((&row["node"], &row["attempts"]), (&json!("vps-1-test"), &json!(1)));
    settle(&port, queue, claimed, Failure::never("SmtpRejected", "no s3cret-token").into(), 0).await;
    let row = port.get("/api/v1/jobs?state=dead,cancelled").await.json()["jobs"][0].clone();
    assert_eq!((&row["state"], &row["error"]), (&json!("dead"), &json!("SmtpRejected: no ***")));
}

#[tokio::test]
async fn filters_find_what_they_say() {
    let port = Port::open().await;
    let config = config();
    let queue = &config.queues["emails"];
    for (id, mail) in [("a", "ann@x.y"), ("b", "bob@x.y"), ("c", "ann@z.y")] {
        let job = json!({"task": MAIL, "args": [mail, "Name"], "id": id});
        assert_eq!(port.post("/api/v1/jobs", &job).await.status, 201);
    }
    port.put(CLEANUP, "d").await;
    let claims = claim_many(&port, queue, 3, 0).await;
    for (claim, kind) in claims.into_iter().zip(["SmtpRejected", "SmtpTimeout", "TemplateError"]) {
        settle(&port, queue, claim, Failure::never(kind, "it failed").into(), 0).await;
    }
    for (query, expected) in [
        ("q=ANN", vec!["c", "a"]),
        ("q=ann%40x", vec!["a"]),
        ("q=smtptimeout", vec!["b"]),
        ("error=Smtp*", vec!["b", "a"]),
        ("task=cleanup_old_notifications", vec!["d"]),
        ("task=backend_app.core.celery_tasks.send_welcome_email&q=bob", vec!["b"]),
        ("queue=notifications", vec!["d"]),
        ("queue=notifications&state=dead", vec![]),
        ("state=dead&after=1h", vec!["c", "b", "a"]),
        ("state=dead&before=1h", vec![]),
        ("after=2001-01-01T00:00:00%2B01:00&before=2002-01-01T00:00:00Z", vec![]),
        ("state=&q=&queue=notifications", vec!["d"]),
    ] {
        let mut found = all(&port, query).await.0;
        let mut expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        // All of them ended in one call, within the same millisecond or not.
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{query}");
    }
}

#[tokio::test]
async fn a_filter_looks_at_a_bounded_number_and_says_so() {
    let port = Port::open().await;
    for batch in 0..5 {
        let job = |n: usize| json!({"task": CLEANUP, "id": format!("n{:04}", batch * 1000 + n)});
        let jobs: Vec<Value> = (0..1000).map(job).collect();
        assert_eq!(port.post("/api/v1/jobs", &json!(jobs)).await.status, 201);
    }
    let page = port.get("/api/v1/jobs?state=pending&q=n4999").await.json();
    assert_eq!((&page["jobs"], &page["scanned"]), (&json!([]), &json!(2000)));
    assert!(page["next"].is_string(), "there is more to look at");
    let (ids, requests) = all(&port, "state=pending&q=n4999").await;
    assert_eq!((ids, requests), (vec!["n4999".to_owned()], 3));
    let page = port.get("/api/v1/jobs?state=pending&limit=10").await.json();
    assert_eq!((page["jobs"].as_array().map(Vec::len), &page["scanned"]), (Some(10), &json!(10)));
}

#[tokio::test]
async fn what_is_wrong_with_a_filter_is_named() {
    let port = Port::open().await;
    for (query, pointer, detail) in [
        ("state=daed", "?state", "\"daed\" is no state; did you mean \"dead\"?"),
        ("queue=email", "?queue", "no queue is called \"email\"; did you mean \"emails\"?"),
        ("task=a%20b", "?task", "a task name holds the character ' '; allowed are letters, digits, '_', '-' and '.'"),
        ("limit=0", "?limit", "\"limit\" must be a whole number from 1 to 500"),
        ("limit=x", "?limit", "\"limit\" must be a whole number from 1 to 500"),
        ("cursor=!", "?cursor", "this is no cursor; take the \"next\" of the page before"),
        (
            "before=soon",
            "?before",
            "\"soon\" is neither an RFC 3339 time nor a duration; write 2026-12-24T18:00:00Z, or 2h for two hours ago",
        ),
        ("before=2h&after=1h", "?before", "nothing lies between: \"before\" must be later than \"after\""),
        ("stat=dead", "?stat", "a list of jobs has no field \"stat\"; did you mean \"state\"?"),
        ("q=a&q=b", "?q", "\"q\" is given twice"),
    ] {
        let problem = port.get(&format!("/api/v1/jobs?{query}")).await.problem(422);
        assert_eq!(problem["errors"], json!([{"pointer": pointer, "detail": detail}]), "{query}");
    }
}
