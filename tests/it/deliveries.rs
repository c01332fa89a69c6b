//! Push and signed requests of the real daemon, checked on the other side by libraries of others: PyJWT and Standard
//! Webhooks.

use std::collections::BTreeMap;

use serde_json::json;

use crate::bench::{FarWorld, Home, Jobs, Redis, push, until};

const DEVICES: usize = 60;

fn push_config(world: &FarWorld) -> String {
    format!(
        r#"
[push]
provider = "fcm"
tokens_query = "SELECT token FROM device_tokens WHERE user_id = :user_id ORDER BY token"
remove_device = "DELETE FROM device_tokens WHERE token = :token"
[push.fcm]
credentials = '{}'
endpoint = "http://127.0.0.1:{}"
[queues.work]
wires = ["celery"]
retry = {{ limit = 5, backoff = "fixed", delay = "100ms" }}
[tasks.device]
names = ["app.device"]
queue = "work"
params = {{ user_id = "int", token = "string" }}
sql = "INSERT INTO device_tokens (user_id, token) VALUES (:user_id, :token)"
[tasks.tell]
names = ["app.tell"]
queue = "work"
params = {{ user_id = "int", data = "object" }}
push = {{ user = "{{{{ user_id }}}}", title = "Hi", body = "There", data = "{{{{ data }}}}" }}
[tasks.devices]
names = ["app.devices"]
queue = "work"
params = {{ user_id = "int" }}
sql = "SELECT token FROM device_tokens WHERE user_id = :user_id ORDER BY token"
"#,
        world.account.display(),
        world.port
    )
}

fn add_devices(client: &mut redis::Connection, jobs: &mut Jobs, tokens: &[String]) {
    for token in tokens {
        push(client, "work", "app.device", &json!({"user_id": 1, "token": token}));
    }
    jobs.until("completed", tokens.len());
}

/// How often each device has got the notification.
fn accepted(world: &FarWorld) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in world.requests() {
        assert!(request["why"].is_null(), "{request}");
        if let (Some(token), 200) = (request["token"].as_str(), request["status"].as_u64().unwrap_or(0)) {
            *counts.entry(token.to_owned()).or_default() += 1;
        }
    }
    counts
}

#[test]
fn each_device_gets_a_notification_once_over_all_attempts() {
    let (redis, world) = (Redis::start(), FarWorld::start(&[]));
    let home = Home::new(&redis, &push_config(&world));
    let _daemon = home.start();
    let (mut client, mut jobs) = (redis.client(), Jobs::of(&redis, "work"));
    let names = ["a", "b", "dead-1", "late-1", "late-2", "phone", "tablet"].map(str::to_owned);
    add_devices(&mut client, &mut jobs, &names);
    let id = push(&mut client, "work", "app.tell", &json!({"user_id": 1, "data": {"n": 1, "list": [1], "text": "x"}}));
    let history = jobs.ended(&id, "completed");
    assert_eq!(history["end"]["result"], json!({"sent": 6, "failed": 1}));
    assert_eq!(history["partial"], json!(null), "what was remembered is over with the step");
    let once: BTreeMap<String, usize> =
        names.iter().filter(|name| !name.starts_with("dead")).map(|name| (name.clone(), 1)).collect();
    assert_eq!(accepted(&world), once);
    let grants = world.requests().iter().filter(|request| request["path"] == "/token").count();
    assert_eq!(grants, 1, "one access token serves all");
    let left = push(&mut client, "work", "app.devices", &json!({"user_id": 1}));
    let left = jobs.ended(&left, "completed")["end"]["result"]["rows"].to_string();
    assert!(!left.contains("dead-1") && left.contains("late-2"), "{left}");
}

/// Only what was on its way when the daemon died may come twice.
#[test]
fn a_crash_in_the_middle_of_a_round_begins_no_round_anew() {
    const AT_ONCE: usize = 10;
    let (redis, world) = (Redis::start(), FarWorld::start(&["--slow", "0.15"]));
    let home = Home::new(&redis, &format!("node.lease = \"10m\"\n{}", push_config(&world)));
    let daemon = home.start();
    let (mut client, mut jobs) = (redis.client(), Jobs::of(&redis, "work"));
    let names: Vec<String> = (0..DEVICES).map(|n| format!("phone-{n:02}")).collect();
    add_devices(&mut client, &mut jobs, &names);
    let id = push(&mut client, "work", "app.tell", &json!({"user_id": 1, "data": {}}));
    until("half of them to be told", || (accepted(&world).len() >= DEVICES / 2).then_some(()));
    daemon.kill();
    let before = accepted(&world).len();
    assert!(before < DEVICES, "it died too late");
    let _restarted = home.start();
    let history = jobs.ended(&id, "completed");
    assert_eq!(history["end"]["result"], json!({"sent": DEVICES, "failed": 0}));
    let counts = accepted(&world);
    let twice = counts.values().filter(|count| **count > 1).count();
    assert_eq!(counts.len(), DEVICES, "everybody is told");
    // What was on its way, and what had been answered since the last word was stored.
    assert!(twice <= 2 * AT_ONCE && counts.values().all(|count| *count <= 2), "{twice} of them twice: {counts:?}");
    println!("{DEVICES} devices, killed after {before}: {twice} were told twice");
}

#[test]
fn a_signed_request_is_verified_by_the_library_of_its_receiver() {
    const NEW: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_c29tZW9uZSBlbHNlJ3Mgc2VjcmV0IGtleSEh";
    let (redis, world) = (Redis::start(), FarWorld::start(&[]));
    let home = Home::new(
        &redis,
        &format!(
            "[queues.work]\nwires = [\"celery\"]\nretry = {{ limit = 3, backoff = \"fixed\", delay = \"100ms\" }}\n\
             [tasks.hook]\nnames = [\"app.hook\"]\nqueue = \"work\"\nparams = {{ secret = \"string\", text = \"string\" }}\n\
             [tasks.hook.http]\nurl = \"http://127.0.0.1:{}/hook/{{{{ secret }}}}\"\n\
             signing_secrets = [\"${{NEW}}\", \"${{OLD}}\", \"${{NONE:-}}\"]\nbody = {{ text = \"{{{{ text }}}}\" }}\n",
            world.port
        ),
    )
    .with_env("NEW", NEW)
    .with_env("OLD", OLD);
    let _daemon = home.start();
    let (mut client, mut jobs) = (redis.client(), Jobs::of(&redis, "work"));
    let text = "žluťoučký \"kůň\"\n{{ 7*7 }}";
    let send = |client: &mut redis::Connection, secret: &str| {
        push(client, "work", "app.hook", &json!({"secret": secret, "text": text}))
    };
    let ids = [send(&mut client, NEW), send(&mut client, OLD)];
    for id in &ids {
        assert_eq!(jobs.ended(id, "completed")["end"]["result"]["status"], 200);
        let seen: Vec<_> = world.requests().into_iter().filter(|request| request["id"] == id.as_str()).collect();
        let statuses: Vec<_> = seen.iter().map(|request| request["status"].as_u64().unwrap_or(0)).collect();
        assert_eq!(statuses, [503, 200], "the repeated delivery carries the same id, and is verified again");
        assert!(seen.iter().all(|request| request["why"].is_null()), "{seen:?}");
    }
    let refused = send(&mut client, OTHER);
    let history = jobs.ended(&refused, "dead");
    assert_eq!(history["mishaps"][0]["name"], "Http401", "{history:#}");
    until("the last request to be told of", || {
        world.requests().iter().any(|request| request["why"] == "No matching signature found").then_some(())
    });
}
