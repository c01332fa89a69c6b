//! Jobs that cannot be read, and what is said of them.

use std::time::Duration;

use super::{Hash, decode, fixture};
use crate::intake::inflate::deflate;
use crate::intake::rq::job::Lapse;

#[test]
fn a_job_that_cannot_be_read_says_why() {
    let with_data = |data: Vec<u8>| {
        let mut hash = fixture("ttls").1;
        hash.insert("data".to_owned(), data);
        *decode(&hash).expect_err("it is refused")
    };
    let cases = [
        (deflate(b"[1, 2"), "the job's JSON cannot be used: it is not JSON: ',' or ']' was expected at byte 5"),
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
        (b"x\x9cgarbage".to_vec(), "the job's data cannot be inflated: it is not a zlib stream"),
        (b"garbage".to_vec(), "the job's pickle cannot be used: it is not a pickle: it is cut off at byte 1"),
        (
            deflate(&vec![0; 17 << 20]),
            "the job's data cannot be inflated: it inflates to more than 16777216 bytes; pass a reference to the data, not the data",
        ),
    ];
    for (data, reason) in cases {
        let refusal = with_data(data);
        assert_eq!(refusal.reason, reason);
        assert_eq!(refusal.failure_ttl, Some(Lapse::After(Duration::from_secs(3600))));
    }
    let undeflated = with_data(b"[\"f\", null, [], {}]x".to_vec());
    assert!(undeflated.reason.ends_with("the end was expected at byte 19"), "data that was never deflated is read");
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
        (
            "webhooks",
            "[{}]",
            "the job's field webhooks is \"[{}]\", which is not a list of at most 20 webhooks of RQ in 16 KiB; enqueue it with an RQ client",
        ),
    ] {
        let mut hash = fixture("ttls").1;
        hash.insert(field.to_owned(), value.as_bytes().to_vec());
        assert_eq!(decode(&hash).expect_err("it is refused").reason, reason);
    }
    assert_eq!(decode(&Hash::new()).expect_err("nothing").reason, "the job has no data; enqueue it with an RQ client");
}
