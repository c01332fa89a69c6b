//! Two nodes on one Redis: each fire of each schedule makes exactly one job, at a change of the minute and when a
//! missed fire is caught up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use redis::Commands;

use crate::bench::{Home, Jobs, Redis, until_within};

/// Every minute brings a fire of each, for which both nodes compete.
const SCHEDULES: usize = 25;
const MINUTE: u64 = 60;

fn config() -> String {
    let mut text = "[queues.work]\n[tasks.noop]\nqueue = \"work\"\nprobe = \"noop\"\n".to_owned();
    for n in 0..SCHEDULES {
        writeln!(text, "[schedules.s{n}]\ncron = \"* * * * *\"\ntask = \"noop\"").expect("a text takes everything");
    }
    text
}

#[test]
fn two_nodes_make_one_job_of_each_fire() {
    let redis = Redis::start();
    let (one, other) = (Home::new(&redis, &config()), Home::new(&redis, &config()));
    let mut jobs = Jobs::of(&redis, "work");
    let mut client = redis.client();
    // As if both had been away for three minutes: the latest missed fire is caught up, by one of them, once.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let last = (now / MINUTE - 3) * MINUTE * 1000;
    for n in 0..SCHEDULES {
        client.hset::<_, _, _, ()>(jobs.key("fires"), format!("s{n}"), last).expect("Redis takes it");
    }
    let _nodes = (one.start(), other.start());

    let mut fires = BTreeMap::new();
    until_within(Duration::from_secs(100), "two fires of every schedule", || {
        fires = by_fire(&jobs.ids("completed"));
        let whole = fires.values().filter(|schedules| schedules.len() == SCHEDULES).count();
        (whole >= 2).then_some(())
    });
    let ids = jobs.ids("completed");
    assert!(fires.keys().all(|fire| fire % (MINUTE * 1000) == 0 && *fire > last), "{fires:?}");
    assert!(fires.len() <= 3, "the missed fires but the latest are left out: {:?}", fires.keys());
    // An id is unique by itself; what both made under one id would show in the counter of completed jobs.
    let completed: usize = client.hget(jobs.key("counters"), "completed").expect("Redis answers");
    assert_eq!(completed, ids.len(), "a fire ran twice");
    println!("{completed} jobs of {} fires of {SCHEDULES} schedules on 2 nodes", fires.len());
}

/// The schedules that have a job for each fire, from ids such as `cron:s7:1764000000000`.
fn by_fire(ids: &[String]) -> BTreeMap<u64, Vec<String>> {
    let mut fires: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for id in ids {
        let mut parts = id.split(':').skip(1);
        let name = parts.next().expect("cron:name:fire").to_owned();
        let fire = parts.next().and_then(|fire| fire.parse().ok()).expect("cron:name:fire");
        fires.entry(fire).or_default().push(name);
    }
    fires
}
