//! Against jobs captured from real RQ 2.0 producers, and a real Python that reads the results.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::job::{Callback, Lapse, Refusal, RqJob, Serializer, Status};
use super::produce::Enqueue;
use super::result::{exc_string, return_value};
use crate::intake::inflate::{deflate, inflate};
use crate::intake::iso;
use crate::intake::limits::Limits;
use crate::intake::python::run;

type Hash = HashMap<String, Vec<u8>>;

fn fixtures() -> Vec<(String, String, Hash)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wire/rq");
    let mut jobs = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the fixtures are there") {
        let path = entry.expect("a readable folder").path();
        let name = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .expect("a plain name")
            .to_owned();
        let dump: Value =
            serde_json::from_slice(&std::fs::read(&path).expect("a readable file")).expect("JSON");
        for key in dump["keys"].as_array().expect("keys") {
            let Some(id) = key["key"]["text"]
                .as_str()
                .and_then(|text| text.strip_prefix("rq:job:"))
            else {
                continue;
            };
            if key["type"] == "hash" {
                jobs.push((name.clone(), id.to_owned(), hash(&key["value"])));
            }
        }
    }
    jobs.sort_by(|left, right| (&left.0, &left.1).cmp(&(&right.0, &right.1)));
    jobs
}

fn hash(value: &Value) -> Hash {
    let bytes = |value: &Value| {
        STANDARD
            .decode(value["b64"].as_str().expect("base64"))
            .expect("base64")
    };
    value
        .as_object()
        .expect("a hash")
        .iter()
        .map(|(name, value)| (name.clone(), bytes(value)))
        .collect()
}

fn fixture(wanted: &str) -> (String, Hash) {
    let found = fixtures().into_iter().find(|(name, ..)| name == wanted);
    found
        .map(|(_, id, hash)| (id, hash))
        .unwrap_or_else(|| panic!("no fixture {wanted}"))
}

fn decode(hash: &Hash) -> Result<RqJob, Box<Refusal>> {
    RqJob::decode("id", hash, &Limits::default())
}

fn decoded(name: &str) -> RqJob {
    decode(&fixture(name).1).unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"))
}

#[test]
fn every_captured_job_is_read() {
    let jobs = fixtures();
    assert_eq!(jobs.len(), 76, "a fixture is missing");
    for (name, id, hash) in jobs {
        let result = RqJob::decode(&id, &hash, &Limits::default());
        if name == "val_custom_class" {
            let refusal = result.expect_err("an object of the producer's own");
            assert_eq!(refusal.class, "rq.exceptions.DeserializationError");
            assert_eq!(
                refusal.exc_info(),
                "rq.exceptions.DeserializationError: the job's pickle cannot be used: it holds an object of class \
                 rq.job.Retry, which cannot be run outside Python; pass plain data instead\n"
            );
            continue;
        }
        let job = result.unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
        assert_eq!(job.id, id);
        assert_eq!(
            job.options.origin.as_deref(),
            hash.get("origin")
                .map(|text| std::str::from_utf8(text).expect("text"))
        );
        let created = iso::rq(job.options.created_at.expect("every job was created"));
        assert_eq!(created.as_bytes(), hash["created_at"], "{name}");
        assert_eq!(
            job.serializer,
            if name.starts_with("json_") {
                Serializer::Json
            } else {
                Serializer::Pickle
            }
        );
        let description = job.options.description.expect("every job is described");
        assert!(
            description.starts_with(&format!("{}(", job.func_name)),
            "{name}: {description}"
        );
    }
}

#[test]
fn values_arrive_as_documented() {
    let tag = |name: &str, value: Value| json!({"__type__": name, "__value__": value});
    let cases = [
        ("val_bools", json!([true, false, null])),
        ("val_bytearray", tag("bytearray", json!("YWI="))),
        ("val_bytes", tag("base64", json!("AP8="))),
        ("val_complex", tag("complex", json!([1.0, 2.0]))),
        ("val_date", tag("date", json!("2024-05-06"))),
        (
            "val_datetime_naive",
            tag("datetime", json!("2024-05-06T07:08:09.123456")),
        ),
        (
            "val_datetime_tz",
            tag("datetime", json!("2024-05-06T07:08:09-05:00")),
        ),
        (
            "val_datetime_utc",
            tag("datetime", json!("2024-05-06T07:08:09+00:00")),
        ),
        ("val_decimal", tag("decimal", json!("1.10"))),
        ("val_defaultdict", json!({"a": [1]})),
        ("val_ellipsis_str", json!("…")),
        ("val_empty", json!([[], [], {}, tag("set", json!([]))])),
        ("val_enum", json!(200)),
        (
            "val_exc",
            tag(
                "exception",
                json!({"class": "ValueError", "args": ["x", 1]}),
            ),
        ),
        (
            "val_float",
            json!([
                1.5,
                -0.0,
                tag("float", json!("inf")),
                tag("float", json!("nan")),
                1e308
            ]),
        ),
        ("val_frozenset", tag("frozenset", json!([2]))),
        (
            "val_ints",
            json!([
                0,
                255,
                256,
                65535,
                65536,
                2_147_483_647,
                -1,
                -2_147_483_648_i64,
                2_147_483_648_i64,
                9_223_372_036_854_775_808_u64,
                tag("int", json!("1267650600228229401496703205376")),
                tag("int", json!("-1267650600228229401496703205376"))
            ]),
        ),
        ("val_nested", json!({"a": [{"b": [1, {"c": null}]}]})),
        ("val_ordereddict", json!({"a": 1})),
        ("val_path", json!("/a/b")),
        ("val_range", tag("range", json!([0, 3, 1]))),
        ("val_selfref_shared", json!([[1, 2], [1, 2]])),
        ("val_set", tag("set", json!([1]))),
        ("val_slice", tag("slice", json!([1, 2, null]))),
        ("val_time", tag("time", json!("01:02:03"))),
        ("val_timedelta", tag("timedelta", json!("86402.000003"))),
        ("val_tuple4", json!([1, 2, 3, 4])),
        (
            "val_uuid",
            tag("uuid", json!({"hex": "12345678123456781234567812345678"})),
        ),
        (
            "val_zoneinfo",
            tag("datetime", json!("2024-05-06T00:00:00-04:00")),
        ),
    ];
    for (name, value) in cases {
        let job = decoded(name);
        assert_eq!(
            (job.func_name.as_str(), job.args, job.kwargs.len()),
            ("rq_ref.echo", vec![value], 0),
            "{name}"
        );
    }
}

#[test]
fn calls_arrive_as_they_were_made() {
    let cases = [
        ("hmb_aggregate_user_stats_job", json!([1]), json!({})),
        (
            "hmb_asis_enqueue_job_analytics",
            json!([1, "page_view", {"p": 1}]),
            json!({"timeout": 600}),
        ),
        (
            "hmb_asis_enqueue_job_notifications",
            json!([]),
            json!({"timeout": 300, "user_id": 1, "title": "T", "body": "B", "notification_type": "follow"}),
        ),
        (
            "hmb_asis_enqueue_job_video",
            json!([7, "/tmp/v.mp4", 1, {"q": "720p"}]),
            json!({"timeout": 1800}),
        ),
        (
            "hmb_asis_queue_enqueue",
            json!([]),
            json!({"user_id": 1, "title": "New Follower", "body": "John started following you", "notification_type": "follow"}),
        ),
        (
            "hmb_generate_video_thumbnail_job",
            json!([7, "/tmp/v.mp4"]),
            json!({"timestamp": "00:00:02"}),
        ),
        (
            "hmb_process_video_job",
            json!([7, "/tmp/v.mp4", 1, {"q": "720p"}]),
            json!({}),
        ),
        (
            "hmb_send_new_comment_notification_job",
            json!([1, "Ann", 2, 3, "nice ".repeat(20)]),
            json!({}),
        ),
        (
            "hmb_send_new_follower_notification_job",
            json!([1, "Ann", 2]),
            json!({}),
        ),
        (
            "hmb_send_new_like_notification_job",
            json!([1, "Ann", 2, 3]),
            json!({}),
        ),
        (
            "hmb_send_new_message_notification_job",
            json!([1, "Ann", 2, "hey"]),
            json!({}),
        ),
        (
            "hmb_send_push_notification_job",
            json!([]),
            json!({"user_id": 1, "title": "T", "body": "B", "notification_type": "follow", "data": {"a": 1}}),
        ),
        (
            "hmb_track_user_event_job",
            json!([1, "click", {"x": 1.5, "y": null}]),
            json!({}),
        ),
        ("args_kwargs_explicit", json!([1]), json!({"timeout": 5})),
        ("builtin_func", json!([[1, 2]]), json!({})),
        ("unicode", json!(["ünï ☃ 😀"]), json!({"kéy": "väl"})),
        ("json_basic", json!([1, "ü"]), json!({"k": [1, null]})),
        ("noargs", json!([]), json!({})),
    ];
    for (name, args, kwargs) in cases {
        let job = decoded(name);
        assert_eq!(
            (json!(job.args), json!(job.kwargs)),
            (args, kwargs),
            "{name}"
        );
    }
    assert_eq!(decoded("builtin_func").func_name, "builtins.sum");
    assert_eq!(
        decoded("val_bound_method").func_name,
        "None.timedelta.total_seconds"
    );
}

#[test]
fn options_arrive_as_they_were_given() {
    let after = |seconds| Some(Lapse::After(Duration::from_secs(seconds)));
    let ttls = decoded("ttls").options;
    assert_eq!(
        (ttls.timeout, ttls.result_ttl, ttls.failure_ttl, ttls.ttl),
        (after(120), after(0), after(3600), after(30))
    );
    assert_eq!(
        [ttls.run_limit(), ttls.result_kept(), ttls.failure_kept()].map(Lapse::seconds),
        [120, 0, 3600]
    );
    let defaults = decoded("noargs").options;
    assert_eq!((defaults.result_ttl, defaults.failure_ttl), (None, None));
    let kept = [
        defaults.run_limit(),
        defaults.result_kept(),
        defaults.failure_kept(),
    ];
    assert_eq!(kept.map(Lapse::seconds), [180, 500, 31_536_000]);
    let endless = decoded("infinite").options;
    assert_eq!(
        (endless.timeout, endless.result_ttl),
        (Some(Lapse::Never), Some(Lapse::Never))
    );
    let retry = decoded("retry").options;
    assert_eq!(
        (retry.retries_left, retry.retry_intervals),
        (Some(3), [10, 30, 60].map(Duration::from_secs).into())
    );
    let callbacks = decoded("callbacks").options;
    let callback = |func_name: &str, seconds| {
        Some(Callback {
            func_name: func_name.to_owned(),
            timeout: Some(Duration::from_secs(seconds)),
        })
    };
    assert_eq!(callbacks.on_success, callback("rq_ref.on_ok", 30));
    assert_eq!(callbacks.on_failure, callback("rq_ref.on_bad", 60));
    assert_eq!(callbacks.on_stopped, callback("x.y.stopped", 60));
    assert_eq!(
        decoded("cancel_queued").options.status,
        Some(Status::Canceled)
    );
    assert_eq!(
        decoded("commands").options.worker_name.as_deref(),
        Some("w1")
    );
    assert_eq!(decoded("group").options.group_id.as_deref(), Some("g1"));
    assert_eq!(decoded("meta").options.meta.map(|meta| meta[0]), Some(0x80));
    assert_eq!(
        decoded("json_basic").options.meta.as_deref(),
        Some(&b"{\"m\": 1}"[..])
    );
    let (.., dependent) = fixtures()
        .into_iter()
        .rfind(|(name, ..)| name == "depends_on_multi_allow_failure")
        .expect("c");
    let dependent = decode(&dependent).expect("it is read").options;
    assert_eq!(dependent.dependency_ids, ["a", "b"]);
    assert!(dependent.allow_dependency_failures && dependent.enqueue_at_front);
    let plain = decoded("noargs").options;
    assert!(
        !plain.allow_dependency_failures && !plain.enqueue_at_front && plain.enqueued_at.is_some()
    );
    assert_eq!(
        (plain.started_at, plain.ended_at, plain.last_heartbeat),
        (None, None, None)
    );
}

#[test]
fn a_timeout_among_the_arguments_is_pointed_out() {
    let after = |seconds| Some(Lapse::After(Duration::from_secs(seconds)));
    assert_eq!(
        decoded("hmb_asis_enqueue_job_video").stray_timeout(),
        after(1800)
    );
    assert_eq!(decoded("hmb_process_video_job").stray_timeout(), None);
    let mut job = decoded("hmb_process_video_job");
    for (value, expected) in [
        (json!(-1), Some(Lapse::Never)),
        (json!("300"), None),
        (json!(0), None),
        (json!(1.5), None),
    ] {
        job.kwargs.insert("timeout".to_owned(), value);
        assert_eq!(job.stray_timeout(), expected);
    }
}

#[test]
fn a_hash_made_here_is_rqs_byte_for_byte() {
    let mut compared = 0;
    for (name, _, hash) in fixtures()
        .iter()
        .filter(|(name, ..)| name.starts_with("hmb_"))
    {
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
        let made: Hash = fields
            .iter()
            .map(|(field, value)| ((*field).to_owned(), value.clone()))
            .collect();
        assert_eq!(
            data(&made["data"]),
            data(&hash["data"]),
            "{name}: the pickle"
        );
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
        (
            decoded("val_float").args[0].clone(),
            "[1.5, -0.0, inf, nan, 1e+308]",
        ),
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
        input += &format!(
            "{}\n",
            json!(["pickle", return_value(value, Serializer::Pickle)])
        );
    }
    let plain = decoded("val_datetime_utc").args[0].clone();
    input += &format!(
        "{}\n",
        json!([
            "json",
            return_value(
                &json!([1, "ü", plain, decoded("val_float").args[0]]),
                Serializer::Json
            )
        ])
    );
    input += &format!("{}\n", json!(["error", exc_string("ValueError: bäd\n")]));
    let printed = run(script, &input);
    let mut expected: Vec<&str> = echo.iter().map(|(_, repr)| *repr).collect();
    expected.push("[1, 'ü', '2024-05-06T07:08:09+00:00', [1.5, -0.0, inf, nan, 1e+308]]");
    expected.push("'ValueError: bäd\\n'");
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_job_that_cannot_be_read_says_why() {
    let with_data = |data: Vec<u8>| {
        let mut hash = fixture("ttls").1;
        hash.insert("data".to_owned(), data);
        *decode(&hash).expect_err("it is refused")
    };
    let cases = [
        (
            deflate(b"[1, 2"),
            "the job's JSON cannot be used: it is not JSON: ',' or ']' was expected at byte 5",
        ),
        (
            deflate(b"[\"f\", null, []]"),
            "the job's data is not (function, instance, args, kwargs); enqueue it with an RQ client",
        ),
        (
            deflate(b"[\"f\", null, [], []]"),
            "the job's data is not (function, instance, args, kwargs); enqueue it with an RQ client",
        ),
        (
            deflate(b"[\"f\", {}, [], {}]"),
            "the job calls a method of an object, which cannot be run outside Python; enqueue a function instead",
        ),
        (
            b"x\x9cgarbage".to_vec(),
            "the job's data cannot be inflated: it is not a zlib stream",
        ),
        (
            b"garbage".to_vec(),
            "the job's pickle cannot be used: it is not a pickle: it is cut off at byte 1",
        ),
        (
            deflate(&vec![0; 20 << 20]),
            "the job's data cannot be inflated: it inflates to more than 16777216 bytes; pass a reference to the data, not the data",
        ),
    ];
    for (data, reason) in cases {
        let refusal = with_data(data);
        assert_eq!(refusal.reason, reason);
        assert_eq!(
            refusal.failure_ttl,
            Some(Lapse::After(Duration::from_secs(3600)))
        );
    }
    let undeflated = with_data(b"[\"f\", null, [], {}]x".to_vec());
    assert!(
        undeflated
            .reason
            .ends_with("the end was expected at byte 19"),
        "data that was never deflated is read"
    );
    for (field, value, reason) in [
        (
            "timeout",
            "soon",
            "the job's field timeout is \"soon\", which is not a whole number; enqueue it with an RQ client",
        ),
        (
            "status",
            "new",
            "the job's field status is \"new\", which is not a status of RQ; enqueue it with an RQ client",
        ),
        (
            "created_at",
            "now",
            "the job's field created_at is \"now\", which is not a time such as 2026-01-31T10:00:00.000000Z; enqueue it with an RQ client",
        ),
        (
            "retry_intervals",
            "[-1]",
            "the job's field retry_intervals is \"[-1]\", which is not a list of seconds; enqueue it with an RQ client",
        ),
    ] {
        let mut hash = fixture("ttls").1;
        hash.insert(field.to_owned(), value.as_bytes().to_vec());
        assert_eq!(decode(&hash).expect_err("it is refused").reason, reason);
    }
    assert_eq!(
        decode(&Hash::new()).expect_err("nothing").reason,
        "the job has no data; enqueue it with an RQ client"
    );
}
