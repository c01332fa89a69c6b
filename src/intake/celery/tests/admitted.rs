//! When a message expires: as its producer says, else as its task does.

use std::path::Path;

use super::*;
use crate::broker::{Taken, Verdict};
use crate::config::parse;
use crate::intake::celery::admission::verdict;
use crate::intake::desk::Desk;
use crate::job::{NodeId, QueueName, Timestamp};

fn expires(name: &str, task: &str, now: Timestamp) -> Option<Timestamp> {
    let text = format!(
        "[queues.emails]\nwires = [\"celery\"]\n[tasks.t]\nnames = [\"*\"]\nqueue = \"emails\"\nprobe = \"noop\"\n\
         params = {{ a = \"any?\", b = \"any?\", c = \"any?\" }}\n{task}"
    );
    let config = parse(&text, Path::new("jobsd.toml"), &|_| None, &[]).expect("it is valid").config;
    let (queue, node) = (QueueName::parse("emails").expect("a name"), NodeId::parse("vps-1").expect("a name"));
    let desk = Desk { config: &config, queue: &queue, node: &node, limits: &Limits::default(), now };
    let taken = Taken { field: "f".into(), list: "emails".into(), element: fixture(name) };
    match verdict(&desk, &taken) {
        Verdict::Job(job) => job.expires,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_message_expires_as_its_producer_or_its_task_says() {
    let (now, hour) = (Timestamp::from_millis(1_800_000_000_000), Duration::from_secs(3600));
    let task = "expires = \"1h\"\n";
    let at = Some(Timestamp::from_millis(1_893_456_000_000));
    assert_eq!(expires("expires_datetime", "", now), at);
    assert_eq!(expires("expires_datetime", task, now), at);
    assert_eq!(expires("task_id", "", now), None);
    assert_eq!(expires("task_id", task, now), Some(now.after(hour)));
    let eta = Timestamp::from_millis(1_893_553_445_679);
    assert_eq!(expires("eta", task, now), Some(eta.after(hour)), "the time begins when it is due");
}
