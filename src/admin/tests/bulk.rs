//! What a person does to many jobs at once.

use serde_json::json;

use super::*;
use crate::job::Failure;

fn by(verb: &str) -> String {
    format!("/api/v1/jobs/{verb}")
}

async fn put_many(port: &Port, task: &str, count: usize) {
    let args = if task == MAIL { json!(["a@b.c", "Ann"]) } else { json!([]) };
    let jobs: Vec<Value> =
        (0..count).map(|n| json!({"task": task, "args": args, "id": format!("{task}-{n:04}")})).collect();
    for chunk in jobs.chunks(1000) {
        assert_eq!(port.post("/api/v1/jobs", &json!(chunk)).await.status, 201);
    }
}

async fn counts(port: &Port, queue: &str) -> Value {
    port.get(&format!("/api/v1/queues/{queue}")).await.json()["queue"]["jobs"].clone()
}

#[tokio::test]
async fn everything_that_waits_in_one_queue_is_cancelled_and_nothing_else() {
    let port = Port::open().await;
    put_many(&port, MAIL, 1200).await;
    put_many(&port, CLEANUP, 3).await;
    let running = claim(&port, &config().queues["emails"], 0).await;
    let body = json!({"queue": "emails", "reason": "bad campaign", "dry_run": true});
    let dry = port.post(&by("cancel"), &body).await.json();
    assert_eq!((&dry["matched"], &dry["changed"], &dry["dry_run"]), (&json!(1200), &json!(0), &json!(true)));
    assert_eq!(counts(&port, "emails").await["pending"], 1199);

    let done = port.post(&by("cancel"), &json!({"queue": "emails", "reason": "bad campaign", "by": "ann"})).await;
    let done = done.json();
    assert_eq!(
        (&done["matched"], &done["changed"], &done["requested"], &done["unfit"], &done["next"]),
        (&json!(1200), &json!(1199), &json!(1), &json!(0), &Value::Null),
        "{done}"
    );
    assert_eq!(done["ids"].as_array().map(Vec::len), Some(100));
    assert_eq!(done["states"], json!(["scheduled", "pending", "active", "retry"]));
    let left = counts(&port, "emails").await;
    assert_eq!((&left["pending"], &left["cancelled"], &left["active"]), (&json!(0), &json!(1199), &json!(1)));
    assert_eq!(counts(&port, "notifications").await["pending"], 3);
    let shown = port.get(&format!("/api/v1/jobs/{}", running.job.id)).await.json();
    assert_eq!(shown["cancel_requested"]["by"], "ann");
}

#[tokio::test]
async fn the_dead_of_one_failure_are_retried_and_those_of_another_deleted() {
    let port = Port::open().await;
    let config = config();
    let queue = &config.queues["emails"];
    put_many(&port, MAIL, 30).await;
    for (n, claim) in claim_many(&port, queue, 30, 0).await.into_iter().enumerate() {
        let kind = if n % 3 == 0 { "TemplateError" } else { "SmtpTimeout" };
        settle(&port, queue, claim, Failure::never(kind, "it failed").into(), 0).await;
    }
    let done = port.post(&by("retry"), &json!({"state": "dead", "error": "Smtp*", "limit": 15})).await.json();
    assert_eq!((&done["matched"], &done["changed"], &done["outcome"]), (&json!(15), &json!(15), &json!("retried")));
    let rest = json!({"state": "dead", "error": "Smtp*", "cursor": done["next"]});
    let done = port.post(&by("retry"), &rest).await.json();
    assert_eq!((&done["changed"], &done["next"]), (&json!(5), &Value::Null));
    let done = port.post(&by("delete"), &json!({"state": ["dead"], "queue": "emails"})).await.json();
    assert_eq!((&done["changed"], &done["outcome"]), (&json!(10), &json!("deleted")));
    let left = counts(&port, "emails").await;
    assert_eq!((&left["pending"], &left["dead"]), (&json!(20), &json!(0)));
    assert_eq!(claim_many(&port, queue, 30, 0).await.len(), 20);
}

#[tokio::test]
async fn nobody_means_everything_by_accident() {
    let port = Port::open().await;
    put_many(&port, CLEANUP, 2).await;
    for (verb, body, pointer, detail) in [
        ("delete", json!({}), "", "name at least a \"state\" or a \"queue\"; nothing was changed"),
        ("cancel", json!({"task": CLEANUP}), "", "name at least a \"state\" or a \"queue\"; nothing was changed"),
        ("cancel", json!({"state": "dead"}), "/state", "a job that is dead cannot be cancelled"),
        ("delete", json!({"state": ["dead", "active"]}), "/state", "a job that is active cannot be deleted"),
        ("retry", json!({"state": []}), "/state", "\"state\" must be a text, like \"dead\", or an array of such"),
        (
            "retry",
            json!({"state": "dead", "limit": 10_001}),
            "/limit",
            "\"limit\" must be a whole number from 1 to 10000",
        ),
        ("retry", json!({"state": "dead", "dry_run": "yes"}), "/dry_run", "\"dry_run\" must be true or false"),
        ("retry", json!({"queue": "nope"}), "/queue", "no queue is called \"nope\""),
        (
            "retry",
            json!({"state": "dead", "args": {}}),
            "/args",
            "a filter of jobs to retry has no field \"args\"; it has state, queue, task, q, error, before, after, cursor, limit, dry_run, by, reason",
        ),
    ] {
        let problem = port.post(&by(verb), &body).await.problem(422);
        assert_eq!(problem["errors"], json!([{"pointer": pointer, "detail": detail}]), "{body}");
    }
    port.ask("POST", &by("delete"), &[], "").await.problem(422);
    assert_eq!(counts(&port, "notifications").await["pending"], 2, "nothing of all this was done");
}
