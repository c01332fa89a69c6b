//! Messages that cannot be read, what is said of them, and whom it concerns.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::fixture;
use crate::intake::celery::message::decode;
use crate::intake::celery::refusal::Refusal;
use crate::intake::inflate::deflate;
use crate::intake::limits::Limits;

fn refused(element: &[u8]) -> Refusal {
    *decode(element, &Limits::default()).expect_err("it is refused")
}

/// A captured message with one thing changed.
fn altered(alter: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut message: Value = serde_json::from_slice(&fixture("hmb_send_email_task")).expect("JSON");
    alter(&mut message);
    message.to_string().into_bytes()
}

#[test]
fn a_pickle_body_is_answered_with_content_disallowed() {
    let refusal = refused(&fixture("serializer_pickle"));
    assert_eq!(refusal.id.as_deref(), Some("c2b79cf1-0a4a-4359-9420-99324df132c5"));
    assert_eq!(refusal.task.as_deref(), Some("backend_app.core.celery_tasks.send_email_task"));
    assert_eq!(
        (refusal.exception.exc_module.as_str(), refusal.exception.exc_type.as_str()),
        ("kombu.exceptions", "ContentDisallowed")
    );
    assert_eq!(
        refusal.reason,
        "the body has content type \"application/x-python-serialize\"; set task_serializer = \"json\" in the producer"
    );
}

#[test]
fn a_message_that_cannot_be_read_says_why() {
    let body = |text: &[u8]| altered(|message| message["body"] = STANDARD.encode(text).into());
    let header = |name: &str, value: Value| altered(|message| message["headers"][name] = value);
    let bomb = deflate(&vec![b' '; 17 << 20]);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            altered(|message| message["body"] = "%%%".into()),
            "the body is not base64, though body_encoding says so; send it with a Celery client",
        ),
        (
            altered(|message| message["body"] = Value::Null),
            "the message has no text body; send it with a Celery client",
        ),
        (body(b"[[], {}"), "the body cannot be read: it is not JSON: ',' or ']' was expected at byte 7"),
        (body(b"\xff"), "the body cannot be read: it is not UTF-8 text"),
        (body(b"{}"), "the body is not [args, kwargs, embed]; send it with a Celery client"),
        (body(b"[1, {}, {}]"), "the positional arguments are not a list; send it with a Celery client"),
        (body(b"[[], [], {}]"), "the keyword arguments are not an object; send it with a Celery client"),
        (body(b"[[], {}, 1]"), "the embedded signatures are not an object; send it with a Celery client"),
        (body(b"[[], {\"\\ud800\": 1}, {}]"), "the keyword arguments have names that no Python function can have"),
        (
            body(&[b"[".repeat(300), b"]".repeat(300)].concat()),
            "the body cannot be read: it nests deeper than 100 levels; send a flatter value",
        ),
        (
            header("compression", "application/x-bz2".into()),
            "the body is compressed as \"application/x-bz2\"; set the producer's compression to \"zlib\" or none",
        ),
        (header("compression", "application/x-gzip".into()), "the body cannot be inflated: it is not a zlib stream"),
        (
            altered(|message| {
                message["headers"]["compression"] = "application/x-gzip".into();
                message["body"] = STANDARD.encode(&bomb).into();
            }),
            "the body cannot be inflated: it inflates to more than 16777216 bytes; pass a reference to the data, not the data",
        ),
        (
            header("eta", "tomorrow".into()),
            "the header eta is \"tomorrow\", which is not an ISO 8601 time; send it with a Celery client",
        ),
        (
            header("expires", 60.into()),
            "the header expires is 60, which is not an ISO 8601 time; send it with a Celery client",
        ),
        (
            header("retries", (-1).into()),
            "the header retries is -1, which is not a count; send it with a Celery client",
        ),
        (
            header("timelimit", json!([-1, null])),
            "the header timelimit is [-1,null], which is not a pair of seconds; send it with a Celery client",
        ),
    ];
    for (element, reason) in cases {
        let refusal = refused(&element);
        assert_eq!(refusal.reason, reason);
        assert_eq!(refusal.id.as_deref(), Some("bad7a2d8-47f6-4a09-93d1-aeb3f8323183"), "the client can be told");
        assert!(!refusal.ignore_result);
        assert_eq!(
            (refusal.exception.exc_type.as_str(), &refusal.exception.exc_message[0]),
            ("InvalidTaskError", &json!(reason))
        );
    }
}

#[test]
fn what_has_no_id_is_refused_all_the_same() {
    let nameless = |element: &[u8], reason: &str| {
        let refusal = refused(element);
        assert_eq!((refusal.id.as_deref(), refusal.reason.as_str()), (None, reason));
    };
    nameless(b"hello", "the list element is not a Celery message: it is not JSON: a value was expected at byte 0");
    nameless(b"\x80\x04", "the list element is not a Celery message: it is not UTF-8 text");
    nameless(b"[]", "the list element is not a Celery message: it is JSON, but not an object");
    nameless(b"{}", "the message names no task in its headers, so it is not a Celery task message");
    let no_id = altered(|message| message["headers"]["id"] = Value::Null);
    nameless(&no_id, "the message has no id; send it with a Celery client");
    nameless(
        &vec![b' '; (16 << 20) + 1],
        "the list element is not a Celery message: it is larger than 16777216 bytes; pass a reference to the data, not the data",
    );
}

#[test]
fn a_refusal_knows_whom_it_concerns() {
    let refusal = refused(&altered(|message| {
        message["headers"]["group"] = "g".into();
        message["headers"]["parent_id"] = "p".into();
        message["headers"]["ignore_result"] = true.into();
        message["headers"]["eta"] = "x".into();
    }));
    assert_eq!(
        (refusal.group.as_deref(), refusal.parent_id.as_deref(), refusal.ignore_result),
        (Some("g"), Some("p"), true)
    );
}
