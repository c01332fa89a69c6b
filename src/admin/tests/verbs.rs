//! What a person does to one job.

use serde_json::json;

use super::*;
use crate::job::Failure;

fn of(id: &str, verb: &str) -> String {
    format!("/api/v1/jobs/{id}/{verb}")
}

async fn dead(port: &Port, queue: &Queue, id: &str) {
    let mut claims = claim_many(port, queue, 100, 0).await;
    let at = claims.iter().position(|claim| claim.job.id.as_str() == id).expect("it is pending");
    settle(port, queue, claims.remove(at), Failure::never("SmtpRejected", "550 no such user").into(), 0).await;
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_with_who_and_why() {
    let port = Port::open().await;
    port.put(MAIL, "a").await;
    let later = json!({"task": MAIL, "args": ["a@b.c", "Ann"], "id": "b", "in": "1h"});
    assert_eq!(port.post("/api/v1/jobs", &later).await.status, 201);
    let done = port.post(&of("a", "cancel"), &json!({"by": "ann", "reason": "wrong recipient"})).await;
    let expected = json!({"id": "a", "queue": "emails", "outcome": "cancelled", "state": "cancelled"});
    assert_eq!((done.status, done.json()), (200, expected));
    let shown = port.get("/api/v1/jobs/a").await.json();
    assert_eq!((&shown["state"], &shown["end"]["state"]), (&json!("cancelled"), &json!("cancelled")));
    assert_eq!(shown["history"]["mishaps"][0]["message"], "cancelled by ann: wrong recipient before it ran");

    let done = port.ask("POST", &of("b", "cancel"), &[("X-Jobsd-User", "bea")], "").await;
    assert_eq!(done.status, 200, "{}", done.body);
    let shown = port.get("/api/v1/jobs/b").await.json();
    assert_eq!(shown["history"]["mishaps"][0]["message"], "cancelled by bea before it ran");

    let again = port.post(&of("a", "cancel"), &json!({})).await.problem(409);
    assert_eq!((&again["state"], &again["type"]), (&json!("cancelled"), &json!("urn:jobsd:problem:unfit")));
    assert_eq!(again["detail"], "a job that is cancelled cannot be cancelled");
    port.post(&of("nothing", "cancel"), &json!({})).await.problem(404);
}

#[tokio::test]
async fn a_running_job_is_asked_to_end_and_shows_it() {
    let port = Port::open().await;
    let config = config();
    port.put(MAIL, "a").await;
    let running = claim(&port, &config.queues["emails"], 0).await;
    let asked = port.post(&of("a", "cancel"), &json!({"reason": "too slow"})).await;
    let expected = json!({"id": "a", "queue": "emails", "outcome": "cancel-requested", "state": "active"});
    assert_eq!((asked.status, asked.json()), (202, expected));
    let wish = &port.get("/api/v1/jobs/a").await.json()["cancel_requested"];
    assert_eq!((&wish["by"], &wish["reason"]), (&json!("api"), &json!("too slow")));
    assert!(wish["at"].is_string());
    for (verb, method, detail) in [
        ("", "DELETE", "a job that is active cannot be deleted; cancel it first"),
        ("/retry", "POST", "a job that is active cannot be retried; cancel it first"),
        ("/promote", "POST", "a job that is active cannot be promoted; it does not wait for its time"),
    ] {
        let problem = port.ask(method, &format!("/api/v1/jobs/a{verb}"), &[], "").await.problem(409);
        assert_eq!((&problem["state"], &problem["detail"]), (&json!("active"), &json!(detail)));
    }
    settle(&port, &config.queues["emails"], running, Outcome::Success(json!(1)), 0).await;
    assert_eq!(port.state("a").await, "completed", "it had ended before it was told");
    assert_eq!(port.get("/api/v1/jobs/a").await.json()["cancel_requested"], Value::Null);
}

#[tokio::test]
async fn a_dead_job_is_retried_edited_and_deleted() {
    let port = Port::open().await;
    let config = config();
    let queue = &config.queues["emails"];
    let job = json!({"task": "send_password_reset_email", "id": "r", "args": ["wrong@b.c", "s3cret-token"]});
    assert_eq!(port.post("/api/v1/jobs", &job).await.status, 201);
    dead(&port, queue, "r").await;
    let done = port.ask("POST", &of("r", "retry"), &[], "").await;
    let expected = json!({"id": "r", "queue": "emails", "outcome": "retried", "state": "pending"});
    assert_eq!((done.status, done.json()), (200, expected));
    let shown = port.get("/api/v1/jobs/r").await.json();
    assert_eq!((&shown["history"]["failures"], &shown["end"]), (&json!(0), &Value::Null), "attempts are given back");
    assert_eq!(shown["history"]["mishaps"][0]["name"], "SmtpRejected", "and what happened stays readable");

    dead(&port, queue, "r").await;
    for (args, detail) in [
        (json!({"user_email": "right@b.c"}), "missing 1 required positional argument: 'reset_token'"),
        (json!({"user_email": 7, "reset_token": "x"}), "argument 'user_email' must be a string, not an integer"),
        (json!(7), "\"args\" must be an object"),
    ] {
        let problem = port.post(&of("r", "retry"), &json!({"args": args})).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], "/args");
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains(detail)), "{problem}");
        assert_eq!(port.state("r").await, "dead", "nothing of it was done");
    }
    // As somebody edits what is shown: the secret comes back as it was shown.
    let mut args = port.get("/api/v1/jobs/r").await.json()["args"].clone();
    assert_eq!(args["reset_token"], "***");
    args["user_email"] = json!("right@b.c");
    assert_eq!(port.post(&of("r", "retry"), &json!({"args": args})).await.status, 200);
    let claimed = claim(&port, queue, 0).await;
    assert_eq!(
        Value::Object(claimed.job.args.clone()),
        json!({"user_email": "right@b.c", "reset_token": "s3cret-token"})
    );

    settle(&port, queue, claimed, Failure::never("SmtpRejected", "550").into(), 0).await;
    let done = port.ask("DELETE", "/api/v1/jobs/r", &[], "").await;
    assert_eq!((done.status, done.json()), (200, json!({"id": "r", "queue": "emails", "outcome": "deleted"})));
    port.get("/api/v1/jobs/r").await.problem(404);
    port.ask("DELETE", "/api/v1/jobs/r", &[], "").await.problem(404);
}

#[tokio::test]
async fn a_job_for_later_is_promoted() {
    let port = Port::open().await;
    let later = json!({"task": CLEANUP, "id": "l", "in": "1h"});
    assert_eq!(port.post("/api/v1/jobs", &later).await.status, 201);
    let done = port.ask("POST", &of("l", "promote"), &[], "").await;
    assert_eq!((done.status, &done.json()["state"]), (200, &json!("pending")));
    assert_eq!(claim(&port, &config().queues["notifications"], 0).await.job.id.as_str(), "l");
}

#[tokio::test]
async fn what_is_wrong_with_a_verb_is_named() {
    let port = Port::open().await;
    port.put(MAIL, "a").await;
    for (verb, body, pointer, detail) in [
        ("cancel", json!(7), "", "the body must be an object: a request to cancel a job has the fields by, reason"),
        (
            "cancel",
            json!({"reasn": "x"}),
            "/reasn",
            "a request to cancel a job has no field \"reasn\"; did you mean \"reason\"?",
        ),
        ("cancel", json!({"by": ""}), "/by", "\"by\" is empty; leave it out instead"),
        ("cancel", json!({"by": "x".repeat(65)}), "/by", "\"by\" may have 64 characters"),
        ("cancel", json!({"reason": "a\nb"}), "/reason", "\"reason\" holds a control character"),
        ("cancel", json!({"reason": 7}), "/reason", "\"reason\" must be a text, like \"wrong recipient\""),
        ("promote", json!({"x": 1}), "/x", "a request to promote a job has no field \"x\"; it has by, reason"),
    ] {
        let problem = port.post(&of("a", verb), &body).await.problem(422);
        assert_eq!(problem["errors"], json!([{"pointer": pointer, "detail": detail}]), "{body}");
    }
    let long = "x".repeat(65);
    let problem = port.ask("POST", &of("a", "cancel"), &[("X-Jobsd-User", &long)], "").await.problem(422);
    assert_eq!(problem["detail"], "the header X-Jobsd-User may have 64 characters");
    port.ask("POST", &of("a", "cancel"), &[], "{").await.problem(400);
    assert_eq!(port.state("a").await, "pending", "nothing of all this was done");
}

#[tokio::test]
async fn a_job_called_like_a_verb_is_a_job() {
    let port = Port::open().await;
    port.put(MAIL, "cancel").await;
    assert_eq!(port.state("cancel").await, "pending");
    assert_eq!(port.ask("POST", "/api/v1/jobs/cancel/cancel", &[], "").await.status, 200);
    assert_eq!(port.ask("DELETE", "/api/v1/jobs/cancel", &[], "").await.status, 200);
    assert_eq!(port.state("cancel").await, "none");
}

/// Eight megabytes of arguments: beside the record, and gone with the job, whatever ends it.
#[tokio::test]
async fn large_arguments_stand_beside_the_record_and_go_with_the_job() {
    let port = Port::with(|config, _| config.admin.max_body = 16 << 20).await;
    let config = config();
    let queue = &config.queues["emails"];
    let text = "x".repeat(8 << 20);
    let client = redis::Client::open(port.redis.url().expose()).expect("a URL");
    let mut redis = client.get_multiplexed_async_connection().await.expect("Redis is up");
    let keys = port.broker.store.keys.queue(&name("emails"));
    let mut bytes = async |what: &str, id: &str| -> usize {
        let key = if what == "jobs" { &keys.jobs } else { &keys.large };
        redis::cmd("HSTRLEN").arg(key).arg(id).query_async(&mut redis).await.expect("Redis is up")
    };
    for id in ["deleted", "kept", "purged"] {
        let job = json!({"task": MAIL, "args": [text, "Ann"], "id": id});
        assert_eq!(port.post("/api/v1/jobs", &job).await.status, 201);
        assert!(bytes("jobs", id).await < 2048, "the record is small");
        assert!(bytes("large", id).await > 8 << 20);
    }
    let shown = port.get("/api/v1/jobs/kept").await.json();
    assert_eq!(shown.get("args"), None, "nobody asked for eight megabytes");
    assert!(shown["args_bytes"].as_u64().is_some_and(|bytes| bytes > 8 << 20), "{shown}");
    let full = port.get("/api/v1/jobs/kept?args=full").await.json();
    assert_eq!(full["args"]["user_email"].as_str().map(str::len), Some(text.len()));
    assert_eq!(port.get("/api/v1/jobs/kept?args=all").await.problem(422)["errors"][0]["pointer"], "?args");
    let row = &port.get("/api/v1/jobs?state=pending&limit=1").await.json()["jobs"][0];
    assert!(row["args"].as_str().is_some_and(|args| args.ends_with("bytes, beside the record)")), "{row}");

    assert_eq!(port.ask("DELETE", "/api/v1/jobs/deleted", &[], "").await.status, 200);
    assert_eq!((bytes("jobs", "deleted").await, bytes("large", "deleted").await), (0, 0));

    let claimed = claim(&port, queue, 0).await;
    assert_eq!(
        (claimed.job.id.as_str(), claimed.job.args["user_email"].as_str().map(str::len)),
        ("kept", Some(text.len()))
    );
    settle(&port, queue, claimed, Outcome::Success(json!(1)), 0).await;
    assert!(bytes("large", "kept").await > 0);
    port.broker.prune(queue, clock::now().after(Duration::from_secs(7200))).await.expect("Redis is up");
    assert_eq!((bytes("jobs", "kept").await, bytes("large", "kept").await), (0, 0), "retention deletes them");

    assert_eq!(port.ask("POST", "/api/v1/queues/emails/purge", &[], "").await.status, 200);
    assert!(bytes("large", "purged").await > 0, "it can be taken back");
    port.broker.prune(queue, clock::now().after(Duration::from_secs(31 * 60))).await.expect("Redis is up");
    assert_eq!((bytes("jobs", "purged").await, bytes("large", "purged").await), (0, 0), "so does the end of a purge");
}

/// What is secret among arguments beside the record stays so in whatever repeats it.
#[tokio::test]
async fn a_secret_of_large_arguments_is_masked_in_the_history() {
    let port = Port::open().await;
    let config = config();
    let queue = &config.queues["emails"];
    let args = json!(["x".repeat(300 * 1024), "s3cret-token"]);
    let job = json!({"task": "send_password_reset_email", "id": "r", "args": args});
    assert_eq!(port.post("/api/v1/jobs", &job).await.status, 201);
    let claimed = claim(&port, queue, 0).await;
    settle(&port, queue, claimed, Failure::never("SmtpRejected", "no s3cret-token").into(), 0).await;
    let shown = port.get("/api/v1/jobs/r").await;
    assert_eq!(shown.json()["history"]["mishaps"][0]["message"], "no ***");
    assert_eq!(shown.json().get("args"), None);
    let page = port.get("/api/v1/jobs?state=dead").await;
    assert_eq!(page.json()["jobs"][0]["error"], "SmtpRejected");
    let found = port.get("/api/v1/jobs?state=dead&q=s3cret").await;
    assert_eq!(found.json()["jobs"], json!([]));
    for body in [shown.body, page.body, found.body] {
        assert!(!body.contains("s3cret"), "{body}");
    }
}
