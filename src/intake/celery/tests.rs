//! Against messages captured from real Celery 5.4 producers, results captured from a real worker, and a real Python.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::message::{Message, TimeLimit, decode};
use super::produce::Call;
use super::refusal::Refusal;
use super::result::{Document, Exception, Revocation, State};
use crate::intake::inflate::deflate;
use crate::intake::iso;
use crate::intake::limits::Limits;
use crate::intake::python::run;

fn fixtures() -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wire/celery");
    let mut elements = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the fixtures are there") {
        let path = entry.expect("a readable folder").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a plain name")
            .to_owned();
        elements.push((name, std::fs::read(path).expect("a readable file")));
    }
    elements.sort();
    elements
}

fn fixture(prefix: &str) -> Vec<u8> {
    let found = fixtures()
        .into_iter()
        .find(|(name, _)| name.starts_with(&format!("{prefix}.")));
    found.unwrap_or_else(|| panic!("no fixture {prefix}")).1
}

fn read(element: &[u8]) -> Message {
    decode(element, &Limits::default()).unwrap_or_else(|refusal| panic!("{refusal:?}"))
}

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
        assert!(
            message.delivery_tag.is_some()
                && message.reply_to.is_some()
                && message.origin.is_some()
        );
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
        (
            "hmb_send_email_task",
            json!(["a@b.bs", "Hi", "<p>x</p>"]),
            json!({"template": "t", "context": {"k": 1}}),
        ),
        (
            "hmb_send_job_application_email",
            json!(["e@x.bs", "Emp", "Chef", "App", "app@x.bs", 42]),
            json!({}),
        ),
        (
            "hmb_send_message_notification_email",
            json!(["r@x.bs", "Rec", "Sender", "hello".repeat(40)]),
            json!({}),
        ),
        (
            "hmb_send_password_reset_email",
            json!(["u@x.bs", "Ann", "tok-123"]),
            json!({}),
        ),
        (
            "hmb_send_welcome_email",
            json!([]),
            json!({"user_email": "user@example.com", "user_name": "John", "username": "john1"}),
        ),
        ("send_task_by_name", json!([1]), json!({"a": 2})),
        (
            "unicode",
            json!(["ünï@例え.jp", "Sübject ☃ 😀", "b\0\u{1f}\"\\/"]),
            json!({}),
        ),
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
        assert_eq!(
            (json!(message.args), json!(message.kwargs)),
            (args, kwargs),
            "{name}"
        );
    }
}

#[test]
fn options_arrive_as_they_were_given() {
    assert_eq!(
        read(&fixture("eta")).eta_ms,
        Some(1_893_553_445_679),
        "rounded up"
    );
    assert_eq!(
        read(&fixture("eta_naive")).eta_ms,
        Some(1_893_553_445_000),
        "taken as UTC"
    );
    assert_eq!(
        read(&fixture("expires_datetime")).expires_ms,
        Some(1_893_456_000_000)
    );
    let limits = TimeLimit {
        hard: Some(Duration::from_secs(20)),
        soft: Some(Duration::from_secs(10)),
    };
    assert_eq!(read(&fixture("time_limits")).time_limit, limits);
    assert_eq!(read(&fixture("task_id")).id, "my-id-1");
    assert!(read(&fixture("ignore_result")).ignore_result);
    assert!(!read(&fixture("eta")).ignore_result);
    assert_eq!(
        read(&fixture("shadow")).shadow.as_deref(),
        Some("pretty name")
    );
    assert_eq!(read(&fixture("headers_custom")).headers["trace"], "abc");
    for priority in 0..=10 {
        assert_eq!(
            read(&fixture(&format!("priority_{priority}"))).priority,
            priority
        );
    }
    let retried = read(&fixture("retries_header"));
    assert_eq!(
        (retried.retries, retried.eta_ms),
        (2, Some(1_795_429_910_127))
    );
    let member = read(
        &fixtures()
            .into_iter()
            .find(|(name, _)| name == "group3.emails.2.json")
            .expect("it")
            .1,
    );
    assert_eq!(
        (member.group.as_deref(), member.group_index),
        (Some("7c8ba916-34e1-4f5e-8c61-d7d6140f8ef2"), Some(2))
    );
}

#[test]
fn signatures_are_kept_as_they_came() {
    let chain = read(&fixture("chain3")).embed.chain;
    let args: Vec<&Value> = chain
        .as_array()
        .expect("a list")
        .iter()
        .map(|signature| &signature["args"])
        .collect();
    assert_eq!(
        args,
        [&json!([4]), &json!([3])],
        "the next task is the last element"
    );
    assert_eq!(read(&fixture("chord3")).embed.chord["task"], "conf.xsum");
    let links = read(&fixture("link_and_link_error")).embed;
    assert_eq!(
        (&links.callbacks[0]["task"], &links.errbacks[0]["task"]),
        (&json!("conf.echo"), &json!("conf.record"))
    );
    assert_eq!((links.chain, links.chord), (Value::Null, Value::Null));
}

#[test]
fn a_message_made_here_is_celerys_byte_for_byte() {
    let mut compared = 0;
    for (name, element) in fixtures() {
        if !name.starts_with("hmb_") && !name.starts_with("unicode") {
            continue;
        }
        let message = read(&element);
        let call = Call {
            task: &message.task,
            args: &message.args,
            kwargs: &message.kwargs,
            id: &message.id,
            queue: message.routing_key.as_deref().expect("a queue"),
            origin: message.origin.as_deref().expect("an origin"),
            reply_to: message.reply_to.as_deref().expect("a reply address"),
            delivery_tag: message.delivery_tag.as_deref().expect("a tag"),
        };
        assert_eq!(
            String::from_utf8(call.encode()),
            String::from_utf8(element),
            "{name}"
        );
        compared += 1;
    }
    assert_eq!(compared, 7);
}

#[test]
fn a_large_argument_arrives_whole() {
    let large = "x".repeat(200_000);
    let args = [json!(large)];
    let call = Call {
        task: "t",
        args: &args,
        kwargs: &serde_json::Map::new(),
        id: "i",
        queue: "q",
        origin: "gen1@host",
        reply_to: "r",
        delivery_tag: "d",
    };
    let message = read(&call.encode());
    assert_eq!(message.args, args);
    assert!(
        message.argsrepr.expect("a print").len() < 1100,
        "the print is cut"
    );
}

#[test]
fn documents_are_those_of_a_real_worker() {
    let time = |text: &str| iso::parse_instant(text).expect("a time");
    let document = |task_id, state| Document {
        task_id,
        group: None,
        parent_id: None,
        children: &[],
        state,
    };
    let text = |document: Document<'_>| String::from_utf8(document.encode()).expect("text");
    let success = json!({"args": [1, "ü"], "kwargs": {"k": null}});
    let key_error = Exception::new("builtins", "KeyError", vec!["boom ü".into()]);
    let attempt = Exception::new("builtins", "RuntimeError", vec!["attempt 0".into()]);
    let missing = Exception::not_registered("no.such.task");
    let cases = [
        (
            document(
                "1e70",
                State::Started {
                    pid: 13188,
                    hostname: "ref@vm",
                },
            ),
            r#"{"status": "STARTED", "result": {"pid": 13188, "hostname": "ref@vm"}, "traceback": null, "children": [], "date_done": null, "task_id": "1e70"}"#,
        ),
        (
            document(
                "1e70",
                State::Success {
                    result: &success,
                    done: time("2026-11-23T10:34:57.158956Z"),
                },
            ),
            r#"{"status": "SUCCESS", "result": {"args": [1, "\u00fc"], "kwargs": {"k": null}}, "traceback": null, "children": [], "date_done": "2026-11-23T10:34:57.158956+00:00", "task_id": "1e70"}"#,
        ),
        (
            document(
                "a581",
                State::Failure {
                    exception: &key_error,
                    traceback: Some("Traceback:\n  KeyError: 'boom \u{fc}'\n"),
                    done: time("2026-11-23T10:34:58.207019Z"),
                },
            ),
            r#"{"status": "FAILURE", "result": {"exc_type": "KeyError", "exc_message": ["boom \u00fc"], "exc_module": "builtins"}, "traceback": "Traceback:\n  KeyError: 'boom \u00fc'\n", "children": [], "date_done": "2026-11-23T10:34:58.207019+00:00", "task_id": "a581"}"#,
        ),
        (
            document(
                "62ae",
                State::Failure {
                    exception: &missing,
                    traceback: None,
                    done: time("2026-11-23T10:35:00Z"),
                },
            ),
            r#"{"status": "FAILURE", "result": {"exc_type": "NotRegistered", "exc_message": ["no.such.task"], "exc_module": "celery.exceptions"}, "traceback": null, "children": [], "date_done": "2026-11-23T10:35:00+00:00", "task_id": "62ae"}"#,
        ),
        (
            document(
                "4c96",
                State::Retry {
                    exception: &attempt,
                    traceback: Some("t"),
                },
            ),
            r#"{"status": "RETRY", "result": {"exc_type": "RuntimeError", "exc_message": ["attempt 0"], "exc_module": "builtins"}, "traceback": "t", "children": [], "date_done": null, "task_id": "4c96"}"#,
        ),
        (
            document(
                "f507",
                State::Revoked {
                    revocation: Revocation::Expired,
                    done: time("2026-11-23T10:35:08.534538Z"),
                },
            ),
            r#"{"status": "REVOKED", "result": {"exc_type": "TaskRevokedError", "exc_message": ["expired"], "exc_module": "celery.exceptions"}, "traceback": null, "children": [], "date_done": "2026-11-23T10:35:08.534538+00:00", "task_id": "f507"}"#,
        ),
    ];
    for (document, expected) in cases {
        assert_eq!(text(document), expected);
    }
    let child = [json!([["c1", null], null])];
    let whole = Document {
        task_id: "t",
        group: Some("g"),
        parent_id: Some("p"),
        children: &child,
        state: State::Success {
            result: &json!(0),
            done: time("2026-11-23T10:35:17.785228Z"),
        },
    };
    assert_eq!(
        text(whole),
        r#"{"status": "SUCCESS", "result": 0, "traceback": null, "children": [[["c1", null], null]], "date_done": "2026-11-23T10:35:17.785228+00:00", "group_id": "g", "parent_id": "p", "task_id": "t"}"#
    );
}

#[test]
fn every_state_is_read_by_python_and_written_alike() {
    let done = iso::parse_instant("2026-11-23T10:34:57.158956Z").expect("a time");
    let echo = read(&fixture("datetime_args"));
    let odd = json!([1e16, 1e-5, -0.0, 123456789012345680.0, {"__type__": "float", "__value__": "nan"}, "\u{7f}\u{1f600}\u{2028}"]);
    let errors = [
        Exception::runtime_error("no"),
        Exception::time_limit_exceeded(20.0),
        Exception::worker_lost("Worker exited prematurely: signal 9 (SIGKILL)"),
        Exception::content_disallowed("pickle"),
        Exception::invalid_task("bad"),
    ];
    let mut states = vec![
        State::Success { result: &odd, done },
        State::Success {
            result: &echo.kwargs["context"],
            done,
        },
        State::Revoked {
            revocation: Revocation::Revoked,
            done,
        },
        State::Revoked {
            revocation: Revocation::Terminated,
            done,
        },
    ];
    states.extend(errors.iter().map(|exception| State::Failure {
        exception,
        traceback: None,
        done,
    }));
    // Python writes what it has read: the same text means the same values and the same form.
    let script = "
import sys, json
for line in sys.stdin:
    text = line.rstrip('\\n')
    if json.dumps(json.loads(text)) != text:
        print(text)
";
    let mut input = String::new();
    for state in states {
        let document = Document {
            task_id: "t",
            group: None,
            parent_id: None,
            children: &[],
            state,
        };
        input += &String::from_utf8(document.encode()).expect("text");
        input.push('\n');
    }
    assert!(input.contains("\"big\": 1180591620717411303424") && input.contains("NaN"));
    assert_eq!(run(script, &input), "");
}

#[test]
fn a_pickle_body_is_answered_with_content_disallowed() {
    let refusal = refused(&fixture("serializer_pickle"));
    assert_eq!(
        refusal.id.as_deref(),
        Some("c2b79cf1-0a4a-4359-9420-99324df132c5")
    );
    assert_eq!(
        refusal.task.as_deref(),
        Some("backend_app.core.celery_tasks.send_email_task")
    );
    assert_eq!(
        (
            refusal.exception.exc_module.as_str(),
            refusal.exception.exc_type.as_str()
        ),
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
    let bomb = deflate(&vec![b' '; 20 << 20]);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            altered(|message| message["body"] = "%%%".into()),
            "the body is not base64, though body_encoding says so; send it with a Celery client",
        ),
        (
            altered(|message| message["body"] = Value::Null),
            "the message has no text body; send it with a Celery client",
        ),
        (
            body(b"[[], {}"),
            "the body cannot be read: it is not JSON: ',' or ']' was expected at byte 7",
        ),
        (
            body(b"\xff"),
            "the body cannot be read: it is not UTF-8 text",
        ),
        (
            body(b"{}"),
            "the body is not [args, kwargs, embed]; send it with a Celery client",
        ),
        (
            body(b"[1, {}, {}]"),
            "the positional arguments are not a list; send it with a Celery client",
        ),
        (
            body(b"[[], [], {}]"),
            "the keyword arguments are not an object; send it with a Celery client",
        ),
        (
            body(b"[[], {}, 1]"),
            "the embedded signatures are not an object; send it with a Celery client",
        ),
        (
            body(b"[[], {\"\\ud800\": 1}, {}]"),
            "the keyword arguments have names that no Python function can have",
        ),
        (
            body(&[b"[".repeat(300), b"]".repeat(300)].concat()),
            "the body cannot be read: it nests deeper than 100 levels; send a flatter value",
        ),
        (
            header("compression", "application/x-bz2".into()),
            "the body is compressed as \"application/x-bz2\"; set the producer's compression to \"zlib\" or none",
        ),
        (
            header("compression", "application/x-gzip".into()),
            "the body cannot be inflated: it is not a zlib stream",
        ),
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
        assert_eq!(
            refusal.id.as_deref(),
            Some("bad7a2d8-47f6-4a09-93d1-aeb3f8323183"),
            "the client can be told"
        );
        assert!(!refusal.ignore_result);
        assert_eq!(
            (
                refusal.exception.exc_type.as_str(),
                &refusal.exception.exc_message[0]
            ),
            ("InvalidTaskError", &json!(reason))
        );
    }
}

#[test]
fn what_has_no_id_is_refused_all_the_same() {
    let nameless = |element: &[u8], reason: &str| {
        let refusal = refused(element);
        assert_eq!(
            (refusal.id.as_deref(), refusal.reason.as_str()),
            (None, reason)
        );
    };
    nameless(
        b"hello",
        "the list element is not a Celery message: it is not JSON: a value was expected at byte 0",
    );
    nameless(
        b"\x80\x04",
        "the list element is not a Celery message: it is not UTF-8 text",
    );
    nameless(
        b"[]",
        "the list element is not a Celery message: it is JSON, but not an object",
    );
    nameless(
        b"{}",
        "the message names no task in its headers, so it is not a Celery task message",
    );
    let no_id = altered(|message| message["headers"]["id"] = Value::Null);
    nameless(
        &no_id,
        "the message has no id; send it with a Celery client",
    );
    nameless(
        &vec![b' '; (16 << 20) + 1],
        "the list element is not a Celery message: it is larger than 16777216 bytes; pass a reference to the data, not the data",
    );
}

#[test]
fn protocol_1_is_refused_by_name() {
    let old = altered(|message| {
        message["headers"] = json!({});
        message["body"] = STANDARD
            .encode(r#"{"id": "i1", "task": "t1", "args": [], "kwargs": {}}"#)
            .into();
    });
    let refusal = refused(&old);
    assert_eq!(
        (refusal.id.as_deref(), refusal.task.as_deref()),
        (Some("i1"), Some("t1"))
    );
    assert_eq!(
        refusal.reason,
        "the message is of protocol 1; set task_protocol = 2 in the producer, the default since Celery 4"
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
        (
            refusal.group.as_deref(),
            refusal.parent_id.as_deref(),
            refusal.ignore_result
        ),
        (Some("g"), Some("p"), true)
    );
}
