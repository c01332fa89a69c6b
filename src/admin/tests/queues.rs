//! What a person does to queues, tasks and nodes.

use redis::AsyncCommands;
use serde_json::json;

use super::*;
use crate::broker::{NodeCard, NodeQueue};

async fn queue_of(port: &Port, queue: &str) -> Value {
    port.get(&format!("/api/v1/queues/{queue}")).await.json()
}

#[tokio::test]
async fn a_queue_is_paused_and_resumed() {
    let port = Port::open().await;
    port.put(MAIL, "a").await;
    let config = config();
    let queue = &config.queues["emails"];
    let paused = port.post("/api/v1/queues/emails/pause", &json!({"by": "ann", "reason": "SMTP is down"})).await;
    assert_eq!((paused.status, &paused.json()["paused"]["by"]), (200, &json!("ann")));
    assert!(claim_many(&port, queue, 1, 0).await.is_empty(), "nothing is claimed");
    let shown = &queue_of(&port, "emails").await["queue"];
    assert_eq!((&shown["paused"]["reason"], &shown["jobs"]["pending"]), (&json!("SMTP is down"), &json!(1)));
    let table = port.get("/").await.body;
    let line: Vec<&str> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(line[..4], ["emails", "celery", "paused", "1"]);
    let health = port.get("/health/queues").await.json();
    assert_eq!(health["queues"]["emails"]["paused"], true);
    assert_eq!(health["queues"]["notifications"].get("paused"), None, "only who is paused says so");
    let metrics = port.get("/metrics").await.body;
    assert!(metrics.contains("jobsd_queue_paused{queue=\"emails\"} 1"), "{metrics}");

    let resumed = port.ask("PATCH", "/api/v1/queues/emails", &[], r#"{"paused": false}"#).await;
    assert_eq!((resumed.status, resumed.json()), (200, json!({"queue": "emails", "paused": null})));
    assert_eq!(queue_of(&port, "emails").await["queue"].get("paused"), None);
    assert_eq!(claim(&port, queue, 0).await.job.id.as_str(), "a");
    let again = port.ask("PATCH", "/api/v1/queues/emails", &[("X-Jobsd-User", "bea")], r#"{"paused": true}"#).await;
    assert_eq!(again.json()["paused"]["by"], "bea");
    assert_eq!(port.ask("POST", "/api/v1/queues/emails/resume", &[], "").await.status, 200);

    for (body, pointer, detail) in [
        (
            "{}",
            "",
            "say \"paused\": true or false, or \"concurrency\"; everything else of a queue stands in jobsd.toml",
        ),
        (r#"{"paused": 1}"#, "/paused", "\"paused\" must be true or false"),
        (
            r#"{"paused": true, "timeout": "5m"}"#,
            "/timeout",
            "a change of a queue has no field \"timeout\"; it has paused, concurrency, by, reason",
        ),
    ] {
        let problem = port.ask("PATCH", "/api/v1/queues/emails", &[], body).await.problem(422);
        assert_eq!(problem["errors"], json!([{"pointer": pointer, "detail": detail}]), "{body}");
    }
    let problem = port.ask("POST", "/api/v1/queues/email/pause", &[], "").await.problem(404);
    assert_eq!(problem["detail"], "no queue is called \"email\"; did you mean \"emails\"?");
    assert_eq!(queue_of(&port, "emails").await["queue"].get("paused"), None, "nothing of all this was done");
}

#[tokio::test]
async fn a_task_is_paused_while_the_others_go_on() {
    let port = Port::open().await;
    let config = config();
    let queue = &config.queues["emails"];
    port.put(MAIL, "mail").await;
    let reset = json!({"task": "send_password_reset_email", "id": "reset", "args": ["a@b.c", "s3cret"]});
    assert_eq!(port.post("/api/v1/jobs", &reset).await.status, 201);
    let paused = port.post(&format!("/api/v1/tasks/{MAIL}/pause"), &json!({"reason": "typo"})).await.json();
    assert_eq!((&paused["task"], &paused["queues"]), (&json!(MAIL), &json!(["emails", "notifications"])));
    let claims = claim_many(&port, queue, 10, 0).await;
    assert_eq!(claims.iter().map(|claim| claim.job.id.as_str()).collect::<Vec<_>>(), ["reset"]);

    let shown = &queue_of(&port, "emails").await["queue"];
    assert_eq!(
        (&shown["jobs"]["pending"], &shown["jobs"]["held"]),
        (&json!(1), &json!(1)),
        "it is pending all the same"
    );
    assert_eq!(shown["paused_tasks"][0]["task"], MAIL);
    let shown = port.get("/api/v1/jobs/mail").await.json();
    assert_eq!((&shown["state"], &shown["held"]), (&json!("pending"), &json!(true)));
    let page = port.get("/api/v1/jobs?state=pending").await.json();
    assert_eq!((&page["jobs"][0]["id"], &page["jobs"][0]["held"]), (&json!("mail"), &json!(true)));
    let tasks = port.get("/api/v1/tasks").await.json();
    let of = |task: &str| {
        tasks["tasks"].as_array().expect("tasks").iter().find(|one| one["task"] == task).expect("it").clone()
    };
    assert_eq!(of(MAIL)["paused"][0]["request"]["reason"], "typo");
    assert_eq!(of(CLEANUP)["paused"], json!([]));
    let param = &of("send_password_reset_email")["params"][1];
    assert_eq!(*param, json!({"name": "reset_token", "type": "string", "required": true, "secret": true}));

    let resumed = port.ask("POST", &format!("/api/v1/tasks/{MAIL}/resume"), &[], r#"{"queue": "emails"}"#).await.json();
    assert_eq!(resumed, json!({"task": MAIL, "queues": ["emails"], "paused": null}));
    assert_eq!(claim(&port, queue, 0).await.job.id.as_str(), "mail");
    let problem = port.ask("POST", "/api/v1/tasks/send_welcome_emial/pause", &[], "").await.problem(404);
    assert_eq!(problem["detail"], "no task is called \"send_welcome_emial\"; did you mean \"send_welcome_email\"?");
    port.ask("POST", "/api/v1/tasks/gone/resume", &[], "").await.problem(404);
    port.post(&format!("/api/v1/tasks/{MAIL}/pause"), &json!({"queue": "nope"})).await.problem(422);
}

#[tokio::test]
async fn a_purge_is_taken_back_whole() {
    let port = Port::open().await;
    port.put(MAIL, "a").await;
    let later = json!({"task": MAIL, "args": ["a@b.c", "Ann"], "id": "b", "in": "1h"});
    assert_eq!(port.post("/api/v1/jobs", &later).await.status, 201);
    let client = redis::Client::open(port.redis.url().expose()).expect("a URL");
    let mut redis = client.get_multiplexed_async_connection().await.expect("Redis is up");
    redis.lpush::<_, _, u64>("celery", "{}").await.expect("it is pushed");
    let done = port.post("/api/v1/queues/emails/purge", &json!({"by": "ann"})).await.json();
    assert_eq!((&done["jobs"], &done["messages"]), (&json!(2), &json!(1)));
    let purge = done["purge"].as_str().expect("an id").to_owned();
    let shown = port.get("/api/v1/jobs/b").await.json();
    assert_eq!((&shown["state"], &shown["purged"]["purge"]), (&json!("cancelled"), &json!(purge)));
    assert_eq!(shown["purged"]["until"], done["until"]);
    let problem = port.ask("POST", "/api/v1/jobs/b/retry", &[], "").await.problem(409);
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains(&purge)), "{problem}");
    let listed = &queue_of(&port, "emails").await["purges"];
    assert_eq!(listed, &json!([{"id": purge, "jobs": 2, "messages": 1, "until": done["until"]}]));

    let undo = done["undo"].as_str().expect("a path");
    let undone = port.ask("POST", undo, &[], "").await;
    assert_eq!((undone.status, &undone.json()["restored"]), (200, &json!(3)));
    assert_eq!((port.state("a").await.as_str(), port.state("b").await.as_str()), ("pending", "scheduled"));
    assert_eq!(redis.llen::<_, u64>("celery").await.expect("Redis is up"), 1);
    port.ask("POST", undo, &[], "").await.problem(404);
    port.ask("POST", "/api/v1/queues/emails/purges/%7Bx%7D/undo", &[], "").await.problem(404);
    let nothing = port.ask("POST", "/api/v1/queues/notifications/purge", &[], "").await.json();
    assert_eq!(nothing, json!({"queue": "notifications", "jobs": 0, "messages": 0}));
}

#[tokio::test]
async fn nodes_are_listed_and_told_to_drain() {
    let port = Port::open().await;
    let now = clock::now();
    let card = NodeCard {
        version: "0.1.0".into(),
        host: "vps-1".into(),
        pid: 7,
        started: now,
        seen: now,
        lease_until: now.after(Duration::from_secs(15)),
        queues: vec![NodeQueue {
            queue: name("emails"),
            concurrency: 4,
            running: 0,
            outage: None,
            set: None,
            scaled: None,
        }],
        slots: None,
        draining: false,
    };
    assert_eq!(port.broker.present(&card).await.expect("Redis is up"), None);
    let shown = port.get("/api/v1/nodes").await.json()["nodes"][0].clone();
    assert_eq!((&shown["node"], &shown["this"], &shown["alive"]), (&json!("vps-1-test"), &json!(true), &json!(true)));
    let served = &queue_of(&port, "emails").await["queue"]["nodes"];
    assert_eq!(served, &json!([{"node": "vps-1-test", "running": 0, "concurrency": 4, "draining": false}]));

    let told = port.ask("POST", "/api/v1/nodes/vps-1-test/drain", &[], "").await.json();
    assert_eq!(told, json!({"node": "vps-1-test", "draining": true}));
    assert!(*port.broker.draining.borrow(), "it hears at once");
    assert!(port.broker.present(&card).await.expect("Redis is up").is_some(), "and with every heartbeat");
    assert!(port.get("/").await.body.contains("node    vps-1-test  drained"));
    assert_eq!(port.ask("POST", "/api/v1/nodes/vps-1-test/resume", &[], "").await.status, 200);
    assert!(!*port.broker.draining.borrow());
    let problem = port.ask("POST", "/api/v1/nodes/vps-1-tset/drain", &[], "").await.problem(404);
    assert_eq!(problem["detail"], "no node is called \"vps-1-tset\"; did you mean \"vps-1-test\"?");
}

#[tokio::test]
async fn the_slots_of_a_queue_are_set_by_hand() {
    let port = Port::open().await;
    let patch = async |body: Value| port.ask("PATCH", "/api/v1/queues/emails", &[], &body.to_string()).await;
    let set = patch(json!({"concurrency": 7, "by": "ann", "reason": "a burst"})).await;
    let slots = json!({"node": "vps-1-test", "concurrency": 7, "configured": 4});
    assert_eq!((set.status, set.json()), (200, json!({"queue": "emails", "slots": slots})));
    let shown = &queue_of(&port, "emails").await["queue"];
    assert_eq!((&shown["concurrency"], &shown["configured"]), (&json!(7), &json!(4)));
    assert_eq!(
        (&shown["override"]["concurrency"], &shown["override"]["set"]["by"]),
        (&json!(7), &json!("ann")),
        "{shown:#}"
    );
    let table = port.get("/").await.body;
    assert!(table.contains("slots   emails: set to 7 by ann: a burst at 20"), "{table}");
    assert!(table.contains("; the configuration says 4\n"), "{table}");
    let metrics = port.get("/metrics").await.body;
    assert!(metrics.contains("jobsd_node_slots 11\n"), "those of both queues: {metrics}");

    let both = patch(json!({"concurrency": {"min": 2, "max": 9}, "paused": true})).await.json();
    assert_eq!((&both["slots"]["concurrency"], both["paused"].is_object()), (&json!({"min": 2, "max": 9}), true));
    let field = |pointer: &str, detail: &str| json!({"pointer": pointer, "detail": detail});
    for (concurrency, errors) in [
        (json!(0), vec![field("/concurrency", "\"concurrency\" must be a whole number from 1 to 10000")]),
        (json!(10_001), vec![field("/concurrency", "\"concurrency\" must be a whole number from 1 to 10000")]),
        (json!(2.5), vec![field("/concurrency", "\"concurrency\" must be a whole number from 1 to 10000")]),
        (
            json!("many"),
            vec![field(
                "/concurrency",
                "\"concurrency\" must be a number of slots, {\"min\": 3, \"max\": 10}, or \"configured\" for what the file says",
            )],
        ),
        (
            json!({"min": 9, "max": 3}),
            vec![field("/concurrency", "\"min\" is 9 and \"max\" is 3: give \"max\" the larger one")],
        ),
        (
            json!({"min": 0, "least": 3}),
            vec![
                field("/concurrency/min", "\"min\" must be a whole number from 1 to 10000"),
                field("/concurrency/max", "\"max\" must be a whole number from 1 to 10000"),
                field("/concurrency/least", "there is no \"least\"; a range has min and max"),
            ],
        ),
    ] {
        let problem = patch(json!({"concurrency": concurrency, "paused": false})).await.problem(422);
        assert_eq!(problem["errors"], json!(errors), "{concurrency}");
    }
    let shown = queue_of(&port, "emails").await["queue"].take();
    assert!(shown["paused"].is_object(), "nothing is partly done: {shown:#}");
    assert_eq!(shown["override"]["concurrency"], json!({"min": 2, "max": 9}));
    let back = patch(json!({"concurrency": "configured"})).await.json();
    assert_eq!(back["slots"]["concurrency"], 4);
    assert_eq!(queue_of(&port, "emails").await["queue"].get("override"), None);
}
