//! What is written for Celery: a producer's message against the captured ones, result documents against those captured
//! from a real worker and against a real Python.

use serde_json::json;

use super::{fixture, fixtures, read};
use crate::intake::celery::produce::{Call, CallOptions};
use crate::intake::celery::result::{Document, Exception, Revocation, State};
use crate::intake::iso;
use crate::intake::python::run;

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
            options: CallOptions::default(),
        };
        assert_eq!(String::from_utf8(call.encode()), String::from_utf8(element), "{name}");
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
        options: CallOptions::default(),
    };
    let message = read(&call.encode());
    assert_eq!(message.args, args);
    assert!(message.argsrepr.expect("a print").len() < 1100, "the print is cut");
}

#[test]
fn documents_are_those_of_a_real_worker() {
    let time = |text: &str| iso::parse_instant(text).expect("a time");
    let document = |task_id, state| Document { task_id, group: None, parent_id: None, children: &[], state };
    let text = |document: Document<'_>| String::from_utf8(document.encode()).expect("text");
    let success = json!({"args": [1, "ü"], "kwargs": {"k": null}});
    let key_error = Exception::new("builtins", "KeyError", vec!["boom ü".into()]);
    let attempt = Exception::new("builtins", "RuntimeError", vec!["attempt 0".into()]);
    let missing = Exception::not_registered("no.such.task");
    let cases = [
        (
            document("1e70", State::Success { result: &success, done: time("2026-11-23T10:34:57.158956Z") }),
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
                State::Failure { exception: &missing, traceback: None, done: time("2026-11-23T10:35:00Z") },
            ),
            r#"{"status": "FAILURE", "result": {"exc_type": "NotRegistered", "exc_message": ["no.such.task"], "exc_module": "celery.exceptions"}, "traceback": null, "children": [], "date_done": "2026-11-23T10:35:00+00:00", "task_id": "62ae"}"#,
        ),
        (
            document("4c96", State::Retry { exception: &attempt, traceback: Some("t") }),
            r#"{"status": "RETRY", "result": {"exc_type": "RuntimeError", "exc_message": ["attempt 0"], "exc_module": "builtins"}, "traceback": "t", "children": [], "date_done": null, "task_id": "4c96"}"#,
        ),
        (
            document(
                "f507",
                State::Revoked { revocation: Revocation::Expired, done: time("2026-11-23T10:35:08.534538Z") },
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
        state: State::Success { result: &json!(0), done: time("2026-11-23T10:35:17.785228Z") },
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
        Exception::new("billiard.exceptions", "WorkerLostError", vec!["signal 9 (SIGKILL)".into()]),
        Exception::content_disallowed("pickle"),
        Exception::invalid_task("bad"),
    ];
    let mut states = vec![
        State::Success { result: &odd, done },
        State::Success { result: &echo.kwargs["context"], done },
        State::Revoked { revocation: Revocation::Revoked, done },
        State::Revoked { revocation: Revocation::Expired, done },
    ];
    states.extend(errors.iter().map(|exception| State::Failure { exception, traceback: None, done }));
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
        let document = Document { task_id: "t", group: None, parent_id: None, children: &[], state };
        input += &String::from_utf8(document.encode()).expect("text");
        input.push('\n');
    }
    assert!(input.contains("\"big\": 1180591620717411303424") && input.contains("NaN"));
    assert_eq!(run(script, &input), "");
}
