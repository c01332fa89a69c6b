//! What the configuration adds to what a producer has said.

use std::path::Path;

use super::*;
use crate::broker::{Taken, Verdict};
use crate::config::parse;
use crate::intake::desk::Desk;
use crate::intake::rq::admission::verdict;
use crate::job::{Backoff, Job, NodeId, QueueName, Timestamp};

fn admitted(name: &str, task: &str, now: Timestamp) -> Job {
    let text = format!(
        "[queues.work]\nwires = [\"rq\"]\nretry.never = [\"Http4*\"]\n\
         [tasks.t]\nnames = [\"*\"]\nqueue = \"work\"\nprobe = \"noop\"\nparams = {{ a = \"any?\", b = \"any?\", c = \"any?\" }}\n{task}"
    );
    let config = parse(&text, Path::new("jobsd.toml"), &|_| None, &[]).expect("it is valid").config;
    let (queue, node) = (QueueName::parse("work").expect("a name"), NodeId::parse("vps-1").expect("a name"));
    let desk = Desk { config: &config, queue: &queue, node: &node, limits: &Limits::default(), now };
    let (id, hash) = fixture(name);
    let taken = Taken { field: "f".into(), list: "rq:queue:work".into(), element: id.into_bytes() };
    match verdict(&desk, &taken, &hash) {
        Verdict::Job(job) => *job,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn the_producer_says_how_often_and_the_operator_what_never() {
    let names = |job: Job| {
        let retry = job.retry.expect("its producer sent one");
        (retry.limit, retry.backoff, retry.never.iter().map(|one| one.as_str().to_owned()).collect::<Vec<_>>())
    };
    let delays = || Backoff::List { delays: [10, 30, 60].map(Duration::from_secs).into() };
    let now = Timestamp::from_millis(0);
    assert_eq!(names(admitted("retry", "", now)), (3, delays(), vec!["Http4*".to_owned()]));
    let own = "retry = { limit = 9, never = [\"ExecError\"] }\n";
    assert_eq!(names(admitted("retry", own, now)), (3, delays(), vec!["ExecError".to_owned()]));
    assert_eq!(admitted("noargs", "", now).retry, None);
}

#[test]
fn a_tasks_expiry_counts_from_when_its_producer_enqueued_it() {
    let enqueued = decoded("noargs").options.enqueued_at.expect("it has been enqueued");
    let enqueued = Timestamp::from_millis(u64::try_from(enqueued.timestamp_millis()).expect("after 1970"));
    let (hour, now) = (Duration::from_secs(3600), enqueued.after(Duration::from_secs(600)));
    assert_eq!(admitted("noargs", "expires = \"1h\"\n", now).expires, Some(enqueued.after(hour)));
    assert_eq!(admitted("noargs", "", now).expires, None);
}
