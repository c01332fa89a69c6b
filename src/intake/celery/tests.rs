//! Messages captured from real Celery 5.4 producers, and what they are read as.

mod admitted;
mod refused;
mod written;

use std::time::Duration;

use serde_json::{Value, json};

use super::message::{Embed, Message, TimeLimit, decode};
use crate::intake::limits::Limits;

fn fixtures() -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wire/celery");
    let mut elements = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the fixtures are there") {
        let path = entry.expect("a readable folder").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name").to_owned();
        elements.push((name, std::fs::read(path).expect("a readable file")));
    }
    elements.sort();
    elements
}

pub(super) fn fixture(prefix: &str) -> Vec<u8> {
    let found = fixtures().into_iter().find(|(name, _)| name.starts_with(&format!("{prefix}.")));
    found.unwrap_or_else(|| panic!("no fixture {prefix}")).1
}

pub(super) fn read(element: &[u8]) -> Message {
    decode(element, &Limits::default()).unwrap_or_else(|refusal| panic!("{refusal:?}"))
}

#[test]
fn every_captured_message_is_read() {
    let messages = fixtures();
    assert_eq!(messages.len(), 51, "a fixture is missing");
    for (name, element) in messages {
        let raw: Value = serde_json::from_slice(&element).expect("JSON");
        if name.starts_with("serializer_pickle") {
            continue;
        }
        let message = read(&element);
        assert_eq!(Some(message.id.as_str()), raw["headers"]["id"].as_str());
        assert_eq!(Some(message.task.as_str()), raw["headers"]["task"].as_str());
        assert_eq!(message.routing_key.as_deref(), name.split('.').nth(1));
        assert_eq!(message.correlation_id.as_ref(), Some(&message.id));
        assert_eq!(message.root_id.as_ref(), Some(&message.id));
        assert_eq!(json!(message.headers), raw["headers"]);
        assert!(message.delivery_tag.is_some() && message.reply_to.is_some() && message.origin.is_some());
        assert!(message.argsrepr.is_some() && message.kwargsrepr.is_some());
        assert!(!message.redelivered);
        assert_eq!(message.parent_id, None);
    }
}

#[test]
fn calls_arrive_as_they_were_made() {
    let plain = json!(["a@b", "s", "b"]);
    let cases = [
        ("hmb_cleanup_old_notifications", json!([]), json!({})),
        ("hmb_send_email_task", json!(["a@b.bs", "Hi", "<p>x</p>"]), json!({"template": "t", "context": {"k": 1}})),
        ("hmb_send_job_application_email", json!(["e@x.bs", "Emp", "Chef", "App", "app@x.bs", 42]), json!({})),
        ("hmb_send_message_notification_email", json!(["r@x.bs", "Rec", "Sender", "hello".repeat(40)]), json!({})),
        ("hmb_send_password_reset_email", json!(["u@x.bs", "Ann", "tok-123"]), json!({})),
        (
            "hmb_send_welcome_email",
            json!([]),
            json!({"user_email": "user@example.com", "user_name": "John", "username": "john1"}),
        ),
        ("send_task_by_name", json!([1]), json!({"a": 2})),
        ("unicode", json!(["ünï@例え.jp", "Sübject ☃ 😀", "b\0\u{1f}\"\\/"]), json!({})),
        ("compression_zlib", plain.clone(), json!({})),
        ("stamped", json!([1, 2]), json!({})),
        ("group3", json!([0, 0]), json!({})),
        (
            "datetime_args",
            plain,
            json!({"context": {
                "dt": {"__type__": "datetime", "__value__": "2024-05-06T07:08:09.123456"},
                "dtz": {"__type__": "datetime", "__value__": "2024-05-06T07:08:09+00:00"},
                "d": {"__type__": "date", "__value__": "2024-05-06"},
                "t": {"__type__": "time", "__value__": "01:02:03"},
                "u": {"__type__": "uuid", "__value__": {"hex": "12345678123456781234567812345678"}},
                "dec": {"__type__": "decimal", "__value__": "1.10"},
                "f": 1.5,
                "big": {"__type__": "int", "__value__": "1180591620717411303424"},
                "none": null,
                "b": {"__type__": "base64", "__value__": "AP8="},
                "lst": [1, 2],
            }}),
        ),
    ];
    for (name, args, kwargs) in cases {
        let message = read(&fixture(name));
        assert_eq!((json!(message.args), json!(message.kwargs)), (args, kwargs), "{name}");
    }
}

#[test]
fn options_arrive_as_they_were_given() {
    assert_eq!(read(&fixture("eta")).eta_ms, Some(1_893_553_445_679), "rounded up");
    assert_eq!(read(&fixture("eta_naive")).eta_ms, Some(1_893_553_445_000), "taken as UTC");
    assert_eq!(read(&fixture("expires_datetime")).expires_ms, Some(1_893_456_000_000));
    let limits = TimeLimit { hard: Some(Duration::from_secs(20)), soft: Some(Duration::from_secs(10)) };
    assert_eq!(read(&fixture("time_limits")).time_limit, limits);
    assert_eq!(read(&fixture("task_id")).id, "my-id-1");
    assert!(read(&fixture("ignore_result")).ignore_result);
    assert!(!read(&fixture("eta")).ignore_result);
    assert_eq!(read(&fixture("shadow")).shadow.as_deref(), Some("pretty name"));
    assert_eq!(read(&fixture("headers_custom")).headers["trace"], "abc");
    for priority in 0..=10 {
        assert_eq!(read(&fixture(&format!("priority_{priority}"))).priority, priority);
    }
    let retried = read(&fixture("retries_header"));
    assert_eq!((retried.retries, retried.eta_ms), (2, Some(1_795_429_910_127)));
    let member = read(&fixtures().into_iter().find(|(name, _)| name == "group3.emails.2.json").expect("it").1);
    assert_eq!((member.group.as_deref(), member.group_index), (Some("7c8ba916-34e1-4f5e-8c61-d7d6140f8ef2"), Some(2)));
}

/// As a producer of Celery 5.4 with `task_protocol = 1` writes it.
#[test]
fn protocol_1_is_read_as_protocol_2() {
    let body = json!({
        "task": "t", "id": "i", "args": [1], "kwargs": {"k": 2}, "group": "g", "group_index": null, "retries": 1,
        "eta": "2030-01-02T03:04:05+00:00", "expires": null, "utc": true, "callbacks": null, "errbacks": null,
        "timelimit": [20, null], "taskset": "g", "chord": null,
    });
    let element = |body: &Value| {
        let properties = json!({"priority": 3, "delivery_info": {"exchange": "", "routing_key": "q"}});
        let envelope = json!({"body": body.to_string(), "headers": {"trace": "abc"}, "properties": properties});
        envelope.to_string().into_bytes()
    };
    let message = read(&element(&body));
    assert_eq!((message.id.as_str(), message.task.as_str()), ("i", "t"));
    assert_eq!((json!(message.args), json!(message.kwargs)), (json!([1]), json!({"k": 2})));
    assert_eq!((message.group.as_deref(), message.retries), (Some("g"), 1));
    assert_eq!((message.eta_ms, message.expires_ms), (Some(1_893_553_445_000), None));
    assert_eq!(message.time_limit.hard, Some(Duration::from_secs(20)));
    assert_eq!((message.routing_key.as_deref(), &message.headers["trace"]), (Some("q"), &json!("abc")));
    assert_eq!(message.embed, Embed::default());
    let bare = read(&element(&json!({"task": "t", "id": "i", "args": []})));
    assert_eq!((bare.args.len(), bare.kwargs.len(), bare.retries, bare.eta_ms), (0, 0, 0, None));
    for other in [json!({"task": 5, "args": []}), json!({"task": "t"}), json!({"args": []})] {
        let refusal = decode(&element(&other), &Limits::default()).expect_err("it is no task");
        assert_eq!(refusal.reason, "the message names no task in its headers, so it is not a Celery task message");
    }
    let refusal = decode(&element(&json!({"task": "t", "id": "i", "args": 5})), &Limits::default());
    assert_eq!(refusal.expect_err("no arguments").id.as_deref(), Some("i"), "its client can be told");
}

#[test]
fn signatures_are_kept_as_they_came() {
    let chain = read(&fixture("chain3")).embed.chain;
    let args: Vec<&Value> = chain.as_array().expect("a list").iter().map(|signature| &signature["args"]).collect();
    assert_eq!(args, [&json!([4]), &json!([3])], "the next task is the last element");
    assert_eq!(read(&fixture("chord3")).embed.chord["task"], "conf.xsum");
    let links = read(&fixture("link_and_link_error")).embed;
    assert_eq!((&links.callbacks[0]["task"], &links.errbacks[0]["task"]), (&json!("conf.echo"), &json!("conf.record")));
    assert_eq!((links.chain, links.chord), (Value::Null, Value::Null));
}
