//! What is written for RQ: a producer's hash against the captured ones, results against a real Python.

use serde_json::{Value, json};

use super::{Hash, decode, decoded, fixtures};
use crate::intake::inflate::inflate;
use crate::intake::iso;
use crate::intake::python::run;
use crate::intake::rq::job::{Lapse, Serializer};
use crate::intake::rq::produce::Enqueue;
use crate::intake::rq::result::{exc_string, return_value};

#[test]
fn a_hash_made_here_is_rqs_byte_for_byte() {
    let mut compared = 0;
    for (name, _, hash) in fixtures().iter().filter(|(name, ..)| name.starts_with("hmb_")) {
        let job = decode(hash).expect("it is read");
        let made = Enqueue {
            func_name: &job.func_name,
            args: &job.args,
            kwargs: &job.kwargs,
            origin: job.options.origin.as_deref().expect("a queue"),
            created_at: job.options.created_at.expect("a time"),
            enqueued_at: job.options.enqueued_at.expect("a time"),
            timeout: job.options.timeout.expect("a timeout"),
            result_ttl: job.options.result_ttl,
            failure_ttl: job.options.failure_ttl,
        };
        let fields = made.encode();
        let data = |bytes: &[u8]| inflate(bytes, 1 << 20).expect("zlib");
        let made: Hash = fields.iter().map(|(field, value)| ((*field).to_owned(), value.clone())).collect();
        assert_eq!(data(&made["data"]), data(&hash["data"]), "{name}: the pickle");
        for (field, value) in hash.iter().filter(|(field, _)| *field != "data") {
            assert_eq!(made.get(field), Some(value), "{name}: {field}");
        }
        assert_eq!(made.len(), hash.len(), "{name}");
        compared += 1;
    }
    assert_eq!(compared, 13);
}

#[test]
fn fields_are_set_in_rqs_order() {
    let kwargs = serde_json::Map::new();
    let time = iso::parse_instant("2026-11-23T10:33:06.003946Z").expect("a time");
    let ttl = Some(Lapse::Never);
    let job = Enqueue {
        func_name: "f",
        args: &[],
        kwargs: &kwargs,
        origin: "q",
        created_at: time,
        enqueued_at: time,
        timeout: Lapse::Never,
        result_ttl: ttl,
        failure_ttl: ttl,
    };
    let names: Vec<&str> = job.encode().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names.join(" "),
        "created_at data success_callback_name failure_callback_name stopped_callback_name started_at ended_at \
         last_heartbeat worker_name group_id origin description enqueued_at timeout result_ttl failure_ttl status"
    );
}

#[test]
fn a_client_reads_back_what_is_returned() {
    assert_eq!(return_value(&Value::Null, Serializer::Pickle), None);
    let echo: Vec<(Value, &str)> = vec![
        (json!(3), "3"),
        (
            json!({"success": true, "outputs": {"720p": "http://x/ü.mp4"}}),
            "{'success': True, 'outputs': {'720p': 'http://x/ü.mp4'}}",
        ),
        (
            decoded("val_datetime_tz").args[0].clone(),
            "datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.timezone(datetime.timedelta(days=-1, seconds=68400)))",
        ),
        (decoded("val_float").args[0].clone(), "[1.5, -0.0, inf, nan, 1e+308]"),
    ];
    let script = "
import sys, json, base64, pickle, zlib
for line in sys.stdin:
    kind, text = json.loads(line)
    raw = base64.b64decode(text)
    print(repr({'pickle': pickle.loads, 'json': json.loads, 'error': lambda raw: zlib.decompress(raw).decode()}[kind](raw)))
";
    let mut input = String::new();
    for (value, _) in &echo {
        input += &format!("{}\n", json!(["pickle", return_value(value, Serializer::Pickle)]));
    }
    let plain = decoded("val_datetime_utc").args[0].clone();
    input += &format!(
        "{}\n",
        json!(["json", return_value(&json!([1, "ü", plain, decoded("val_float").args[0]]), Serializer::Json)])
    );
    input += &format!("{}\n", json!(["error", exc_string("ValueError: bäd\n")]));
    let printed = run(script, &input);
    let mut expected: Vec<&str> = echo.iter().map(|(_, repr)| *repr).collect();
    expected.push("[1, 'ü', '2024-05-06T07:08:09+00:00', [1.5, -0.0, inf, nan, 1e+308]]");
    expected.push("'ValueError: bäd\\n'");
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}
