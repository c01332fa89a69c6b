//! `GET /api/v1/jobs/{id}/why`, with a broker in the place of a node.

use serde_json::json;

use super::*;
use crate::broker::{NodeCard, NodeQueue, Paused};
use crate::job::{Failure, Request};

async fn why(port: &Port, id: &str) -> Value {
    let reply = port.get(&format!("/api/v1/jobs/{id}/why")).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()
}

async fn sentence(port: &Port, id: &str) -> (String, String) {
    let why = why(port, id).await;
    let text = |field: &str| why[field].as_str().expect("a text").to_owned();
    (text("cause"), text("sentence"))
}

/// The node says that it is there, with this many slots for `emails` and a bound for both its queues.
async fn present(port: &Port, concurrency: usize, slots: Option<usize>) {
    let now = clock::now();
    let served =
        |queue: &str| NodeQueue { queue: name(queue), concurrency, running: 0, outage: None, set: None, scaled: None };
    let card = NodeCard {
        version: "0.1.0".into(),
        host: "vps-1".into(),
        pid: 7,
        started: now,
        seen: now,
        lease_until: now.after(Duration::from_secs(15)),
        queues: vec![served("emails"), served("notifications")],
        slots,
        draining: false,
    };
    port.broker.slots.send_replace(slots);
    port.broker.present(&card).await.expect("Redis is up");
}

async fn push(port: &Port, list: &str, element: &str) {
    let mut pipeline = redis::Pipeline::new();
    pipeline.cmd("RPUSH").arg(list).arg(element);
    port.broker.store.link.send(&pipeline).await.expect("Redis is up");
}

#[tokio::test]
async fn one_cause_after_the_other() {
    let port = Port::open().await;
    let queue = config().queues[&name("emails")].clone();
    port.put(MAIL, "j1").await;
    let told = why(&port, "j1").await;
    assert_eq!((&told["state"], &told["queue"], &told["task"]), (&json!("pending"), &json!("emails"), &json!(MAIL)));
    assert_eq!(told["sentence"], "waiting: no node serves the queue emails; start one whose configuration has it");

    present(&port, 1, None).await;
    assert_eq!(sentence(&port, "j1").await.0, "in-line");
    let request = Request { at: clock::now(), by: "ann".into(), reason: Some("SMTP is down".into()) };
    port.broker.pause(&queue.name, &Paused::Queue, &request).await.expect("Redis is up");
    let paused = why(&port, "j1").await;
    assert_eq!(
        (&paused["cause"], &paused["details"], &paused["since"]),
        (&json!("queue-paused"), &json!({"by": "ann", "reason": "SMTP is down"}), &json!(request.at.to_string()))
    );
    port.broker.resume(&queue.name, &Paused::Queue).await.expect("Redis is up");

    // The only slot is taken, and another job stands before the next one.
    let running = claim(&port, &queue, 0).await;
    port.put(MAIL, "j2").await;
    port.put(MAIL, "j3").await;
    let (cause, words) = sentence(&port, "j3").await;
    assert_eq!(
        (&*cause, &*words),
        ("slots-busy", "waiting: 1 of 1 slots of the queue emails are taken on vps-1-test; 1 job is before it")
    );
    assert_eq!(why(&port, "j3").await["details"]["ahead"], 1);
    let told = why(&port, "j1").await;
    assert_eq!((&told["cause"], &told["details"]["attempt"]), (&json!("running"), &json!(1)));
    let (node, queues) = (port.broker.node.clone(), std::slice::from_ref(&queue.name));
    port.broker.retire(&node, queues).await.expect("Redis is up");
    assert_eq!(sentence(&port, "j1").await.0, "recovering");
    port.broker.heartbeat(queues, clock::now()).await.expect("Redis is up");

    // There is a slot of its own, and none of those that the queues share.
    present(&port, 2, Some(1)).await;
    let shared = why(&port, "j2").await;
    assert_eq!(
        (&shared["cause"], &shared["details"]),
        (&json!("shared-slots-busy"), &json!({"node": "vps-1-test", "slots": 1, "used": {"emails": 1}, "ahead": 0}))
    );
    let failure = Failure::new("SmtpRejected", "550 no such user a@b.c");
    settle(&port, &queue, running, failure.into(), 0).await;
    let (cause, words) = sentence(&port, "j1").await;
    assert_eq!(cause, "dead");
    assert!(words.contains("with SmtpRejected: 550 no such user a@b.c, and is dead after 1 attempt"), "{words}");
    assert!(words.ends_with("`jobsd retry j1`"), "{words}");
}

#[tokio::test]
async fn what_is_no_job_yet_is_found_where_its_producer_put_it() {
    let port = Port::open().await;
    present(&port, 1, None).await;
    for id in ["r1", "r2"] {
        push(&port, "rq:queue:notifications", id).await;
    }
    let told = why(&port, "r2").await;
    assert_eq!((&told["queue"], told.get("state")), (&json!("notifications"), None));
    assert_eq!(told["details"]["message"], json!({"wire": "rq", "list": "notifications", "ahead": 1}));
    let words = told["sentence"].as_str().expect("a sentence");
    assert!(words.starts_with("waiting as the 2nd message of the rq queue notifications, not taken yet: "), "{words}");

    let suspend = async |is: bool| {
        let mut pipeline = redis::Pipeline::new();
        if is {
            pipeline.set(crate::store::RQ_SUSPENDED, "1")
        } else {
            pipeline.del(crate::store::RQ_SUSPENDED)
        };
        port.broker.store.link.send(&pipeline).await.expect("Redis is up");
    };
    suspend(true).await;
    let (cause, words) = sentence(&port, "r2").await;
    assert_eq!(cause, "rq-suspended");
    assert!(words.ends_with("`rq resume` ends that"), "{words}");
    suspend(false).await;
    assert_eq!(sentence(&port, "r2").await.0, "in-line");

    // The right end of a Celery list is served first.
    for id in ["c2", "c1"] {
        push(&port, "emails", &json!({"headers": {"id": id}, "body": "…"}).to_string()).await;
    }
    assert_eq!(why(&port, "c2").await["details"]["message"]["ahead"], 1);

    let mut pipeline = redis::Pipeline::new();
    pipeline.hset_multiple("rq:job:r3", &[("origin", "reports"), ("status", "queued")]);
    port.broker.store.link.send(&pipeline).await.expect("Redis is up");
    let (cause, words) = sentence(&port, "r3").await;
    assert_eq!(
        (&*cause, &*words),
        (
            "elsewhere",
            "RQ's own record of it says queued, in the queue reports; it stands in no list that jobsd reads here"
        )
    );

    let unknown = port.get("/api/v1/jobs/nobody/why").await.problem(404);
    let detail = unknown["detail"].as_str().expect("a sentence");
    assert!(detail.contains("completed jobs are kept for up to 1h, dead and cancelled ones for up to 1h"), "{detail}");
}
