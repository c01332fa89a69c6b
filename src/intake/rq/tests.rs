//! Jobs captured from real RQ 2.0 producers, and what they are read as.

mod admitted;
mod refused;
mod written;

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::job::{DEFAULT_TIMEOUT, Lapse, Refusal, RqJob, Serializer, Status};
use crate::intake::iso;
use crate::intake::limits::Limits;

type Hash = HashMap<String, Vec<u8>>;

fn fixtures() -> Vec<(String, String, Hash)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wire/rq");
    let mut jobs = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the fixtures are there") {
        let path = entry.expect("a readable folder").path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a plain name").to_owned();
        let dump: Value = serde_json::from_slice(&std::fs::read(&path).expect("a readable file")).expect("JSON");
        for key in dump["keys"].as_array().expect("keys") {
            let Some(id) = key["key"]["text"].as_str().and_then(|text| text.strip_prefix("rq:job:")) else {
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
    let bytes = |value: &Value| STANDARD.decode(value["b64"].as_str().expect("base64")).expect("base64");
    value.as_object().expect("a hash").iter().map(|(name, value)| (name.clone(), bytes(value))).collect()
}

fn fixture(wanted: &str) -> (String, Hash) {
    let found = fixtures().into_iter().find(|(name, ..)| name == wanted);
    found.map(|(_, id, hash)| (id, hash)).unwrap_or_else(|| panic!("no fixture {wanted}"))
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
                refusal.reason,
                "the job's pickle cannot be used: it holds an object of class \
                 rq.job.Retry, which cannot be run outside Python; pass plain data instead"
            );
            continue;
        }
        let job = result.unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
        assert_eq!(job.id, id);
        assert_eq!(
            job.options.origin.as_deref(),
            hash.get("origin").map(|text| std::str::from_utf8(text).expect("text"))
        );
        let created = iso::rq(job.options.created_at.expect("every job was created"));
        assert_eq!(created.as_bytes(), hash["created_at"], "{name}");
        assert_eq!(job.serializer, if name.starts_with("json_") { Serializer::Json } else { Serializer::Pickle });
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
        ("val_datetime_naive", tag("datetime", json!("2024-05-06T07:08:09.123456"))),
        ("val_datetime_tz", tag("datetime", json!("2024-05-06T07:08:09-05:00"))),
        ("val_datetime_utc", tag("datetime", json!("2024-05-06T07:08:09+00:00"))),
        ("val_decimal", tag("decimal", json!("1.10"))),
        ("val_defaultdict", json!({"a": [1]})),
        ("val_ellipsis_str", json!("…")),
        ("val_empty", json!([[], [], {}, tag("set", json!([]))])),
        ("val_enum", json!(200)),
        ("val_exc", tag("exception", json!({"class": "ValueError", "args": ["x", 1]}))),
        ("val_float", json!([1.5, -0.0, tag("float", json!("inf")), tag("float", json!("nan")), 1e308])),
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
        ("val_uuid", tag("uuid", json!({"hex": "12345678123456781234567812345678"}))),
        ("val_zoneinfo", tag("datetime", json!("2024-05-06T00:00:00-04:00"))),
    ];
    for (name, value) in cases {
        let job = decoded(name);
        assert_eq!((job.func_name.as_str(), job.args, job.kwargs.len()), ("rq_ref.echo", vec![value], 0), "{name}");
    }
}

#[test]
fn calls_arrive_as_they_were_made() {
    let cases = [
        ("hmb_aggregate_user_stats_job", json!([1]), json!({})),
        ("hmb_asis_enqueue_job_analytics", json!([1, "page_view", {"p": 1}]), json!({"timeout": 600})),
        (
            "hmb_asis_enqueue_job_notifications",
            json!([]),
            json!({"timeout": 300, "user_id": 1, "title": "T", "body": "B", "notification_type": "follow"}),
        ),
        ("hmb_asis_enqueue_job_video", json!([7, "/tmp/v.mp4", 1, {"q": "720p"}]), json!({"timeout": 1800})),
        (
            "hmb_asis_queue_enqueue",
            json!([]),
            json!({"user_id": 1, "title": "New Follower", "body": "John started following you", "notification_type": "follow"}),
        ),
        ("hmb_generate_video_thumbnail_job", json!([7, "/tmp/v.mp4"]), json!({"timestamp": "00:00:02"})),
        ("hmb_process_video_job", json!([7, "/tmp/v.mp4", 1, {"q": "720p"}]), json!({})),
        ("hmb_send_new_comment_notification_job", json!([1, "Ann", 2, 3, "nice ".repeat(20)]), json!({})),
        ("hmb_send_new_follower_notification_job", json!([1, "Ann", 2]), json!({})),
        ("hmb_send_new_like_notification_job", json!([1, "Ann", 2, 3]), json!({})),
        ("hmb_send_new_message_notification_job", json!([1, "Ann", 2, "hey"]), json!({})),
        (
            "hmb_send_push_notification_job",
            json!([]),
            json!({"user_id": 1, "title": "T", "body": "B", "notification_type": "follow", "data": {"a": 1}}),
        ),
        ("hmb_track_user_event_job", json!([1, "click", {"x": 1.5, "y": null}]), json!({})),
        ("args_kwargs_explicit", json!([1]), json!({"timeout": 5})),
        ("builtin_func", json!([[1, 2]]), json!({})),
        ("unicode", json!(["ünï ☃ 😀"]), json!({"kéy": "väl"})),
        ("json_basic", json!([1, "ü"]), json!({"k": [1, null]})),
        ("noargs", json!([]), json!({})),
    ];
    for (name, args, kwargs) in cases {
        let job = decoded(name);
        assert_eq!((json!(job.args), json!(job.kwargs)), (args, kwargs), "{name}");
    }
    assert_eq!(decoded("builtin_func").func_name, "builtins.sum");
    assert_eq!(decoded("val_bound_method").func_name, "None.timedelta.total_seconds");
}

#[test]
fn options_arrive_as_they_were_given() {
    let after = |seconds| Some(Lapse::After(Duration::from_secs(seconds)));
    let ttls = decoded("ttls").options;
    assert_eq!((ttls.timeout, ttls.result_ttl, ttls.failure_ttl), (after(120), after(0), after(3600)));
    let defaults = decoded("noargs").options;
    assert_eq!(
        (defaults.timeout, defaults.result_ttl, defaults.failure_ttl),
        (Some(Lapse::After(DEFAULT_TIMEOUT)), None, None)
    );
    let endless = decoded("infinite").options;
    assert_eq!((endless.timeout, endless.result_ttl), (Some(Lapse::Never), Some(Lapse::Never)));
    let retry = decoded("retry").options;
    assert_eq!((retry.retries_left, retry.retry_intervals), (Some(3), [10, 30, 60].map(Duration::from_secs).into()));
    let callbacks = decoded("callbacks").options;
    let named = [&callbacks.on_success, &callbacks.on_failure, &callbacks.on_stopped].map(Option::as_deref);
    assert_eq!(named, [Some("rq_ref.on_ok"), Some("rq_ref.on_bad"), Some("x.y.stopped")]);
    assert_eq!(decoded("cancel_queued").options.status, Some(Status::Canceled));
    assert!(decoded("noargs").options.enqueued_at.is_some());
}

#[test]
fn a_timeout_among_the_arguments_is_pointed_out() {
    let after = |seconds| Some(Lapse::After(Duration::from_secs(seconds)));
    assert_eq!(decoded("hmb_asis_enqueue_job_video").stray_timeout(), after(1800));
    assert_eq!(decoded("hmb_process_video_job").stray_timeout(), None);
    let mut job = decoded("hmb_process_video_job");
    for (value, expected) in
        [(json!(-1), Some(Lapse::Never)), (json!("300"), None), (json!(0), None), (json!(1.5), None)]
    {
        job.kwargs.insert("timeout".to_owned(), value);
        assert_eq!(job.stray_timeout(), expected);
    }
}
