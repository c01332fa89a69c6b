//! Limits hold over all nodes, as whoever is called by the jobs counts them; and nobody's flood keeps others waiting.
//!
//! `JOBSD_LIMITS_SECONDS` makes the walk over three nodes longer, `JOBSD_FLOOD` the flood larger.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis::Commands;
use serde_json::{Value, json};

use crate::bench::work::{Call, Work};
use crate::bench::{Daemon, Home, Jobs, Python, Redis, celery_message, get, post, push, until, until_within};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[track_caller]
fn enqueue(daemon: &Daemon, jobs: &[Value]) {
    for some in jobs.chunks(1000) {
        let answer = post(daemon.admin, "/api/v1/jobs", &json!(some));
        assert!((200..300).contains(&answer.status), "{answer:?}");
    }
}

/// What is promised: so many points in any window, counted over the starts that a test picks.
struct Bound {
    what: &'static str,
    most: usize,
    window: Duration,
}

/// By how much the shortest time in which one start more than allowed was seen is longer than the window: below zero, a
/// window held too many. `None` when there never were so many starts.
fn margin(starts: &[Instant], bound: &Bound) -> Option<f64> {
    let mut starts = starts.to_vec();
    starts.sort_unstable();
    let spans = starts.windows(bound.most + 1).map(|some| (some[bound.most] - some[0]).as_secs_f64());
    spans.map(|span| span - bound.window.as_secs_f64()).min_by(f64::total_cmp)
}

/// The most that ran at the same time.
fn most_at_once(calls: &[&Call]) -> usize {
    let runs = |call: &Call, at: Instant| call.began <= at && call.ended.is_none_or(|ended| ended > at);
    calls.iter().map(|call| calls.iter().filter(|other| runs(other, call.began)).count()).max().unwrap_or(0)
}

#[test]
fn no_window_sees_one_start_too_many_over_three_nodes_whose_clocks_differ() {
    let redis = Redis::start();
    let work = Work::start(Duration::from_millis(40));
    let config = format!(
        r#"
[queues.calls]
concurrency = 10
limit = [
  {{ concurrency = 7, rate = ["45/6s", "66/10s"] }},
  {{ key = "{{{{ user }}}}", concurrency = 2, rate = ["4/1s", "10/7s", "17/12s"] }},
]
[tasks.call]
queue = "calls"
params = {{ user = "string", n = "int" }}
limit = {{ rate = ["11/1s", "34/4s"] }}
http = {{ url = "http://{}/" }}
"#,
        work.address
    );
    // Each node's own clock is two seconds off; that of Redis is the one they all reckon by.
    let homes = ["0", "2000", "-2000"].map(|skew| Home::new(&redis, &config).with_env("JOBSD_CLOCK_SKEW_MS", skew));
    let nodes: Vec<Daemon> = homes.iter().map(Home::start).collect();
    let skewed = nodes.iter().filter(|node| node.log().contains("its clock is wrong on purpose")).count();
    assert_eq!(skewed, if cfg!(debug_assertions) { 2 } else { 0 }, "only debug builds have such clocks");

    // The first users have much to do, the last ones little: somebody is always at his bound, and somebody is not. A user's
    // windows are the longest, so that his bound is what holds him back in the end, however fast the machine is.
    let length = Duration::from_secs(number("JOBSD_LIMITS_SECONDS", 16));
    let jobs = usize::try_from(length.as_secs() * 10).expect("a small number");
    let user = |n: usize| format!("u{}", (n % 4).min(n % 7));
    let all: Vec<Value> = (0..jobs).map(|n| json!({"task": "call", "args": {"user": user(n), "n": n}})).collect();
    for (node, some) in nodes.iter().cycle().zip(all.chunks(50)) {
        enqueue(node, some);
    }
    let began = Instant::now();
    let mut paused = Instant::now();
    until_within(length * 3, "all of them to be called", || {
        // Redis holds everybody up now and then, as it does when it forks: claims come late, and must not start late.
        if paused.elapsed() > Duration::from_millis(1700) {
            paused = Instant::now();
            let _: () = redis::cmd("CLIENT").arg(&["PAUSE", "300", "ALL"]).query(&mut redis.client()).expect("a pause");
        }
        let done = work.calls().iter().filter(|call| call.ended.is_some()).count();
        (done >= jobs || began.elapsed() > length && done * 2 > jobs).then_some(())
    });
    let calls = work.calls().clone();
    judge(&calls);
    let mut numbers: Vec<u64> = calls.iter().filter_map(|call| call.args["n"].as_u64()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), calls.len(), "each was called once");
}

fn judge(calls: &[Call]) {
    let window = |seconds| Duration::from_secs(seconds);
    let all: Vec<Instant> = calls.iter().map(|call| call.began).collect();
    let mut by_user: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        by_user.entry(call.args["user"].as_str().expect("a user")).or_default().push(call);
    }
    let whole = [
        Bound { what: "the queue", most: 45, window: window(6) },
        Bound { what: "the queue", most: 66, window: window(10) },
        Bound { what: "the task", most: 34, window: window(4) },
        Bound { what: "the task", most: 11, window: window(1) },
    ];
    let each = [
        Bound { what: "a user", most: 4, window: window(1) },
        Bound { what: "a user", most: 10, window: window(7) },
        Bound { what: "a user", most: 17, window: window(12) },
    ];
    let mut violations = 0;
    let mut check = |bound: &Bound, starts: &[Instant]| {
        let Some(margin) = margin(starts, bound) else { return false };
        violations += usize::from(margin < 0.0);
        println!("{}, {} in {:?}: one more took {margin:.3} s longer", bound.what, bound.most, bound.window);
        // Otherwise it was not this bound that held them back.
        margin < 1.0
    };
    let reached = whole.iter().filter(|bound| check(bound, &all)).count();
    assert!(reached > 0, "no bound of all jobs was ever reached");
    for bound in &each {
        let starts = |calls: &Vec<&Call>| calls.iter().map(|call| call.began).collect::<Vec<_>>();
        let reached = by_user.values().filter(|calls| check(bound, &starts(calls))).count();
        assert!(reached > 0, "nobody came to {} in {:?}", bound.most, bound.window);
    }
    let at_once = most_at_once(&calls.iter().collect::<Vec<_>>());
    let of_one = by_user.values().map(|calls| most_at_once(calls)).max().unwrap_or(0);
    println!("{} calls; at once: {at_once} of 7, of one user {of_one} of 2; violations {violations}", calls.len());
    assert_eq!(violations, 0);
    assert!(at_once <= 7 && of_one <= 2, "{at_once} at once, {of_one} of one user");
}

/// How many calls of others began after a job was put in and before it began, and how long that took.
fn overtaken(work: &Work, who: &str, put_in: Instant) -> (usize, Duration) {
    let of = |call: &Call| call.args["tenant"] == who;
    let own = until("its turn", || work.calls().iter().find(|call| of(call) && call.began >= put_in).cloned());
    let others = work.calls().iter().filter(|call| !of(call) && call.began > put_in && call.began < own.began).count();
    (others, own.began - put_in)
}

const SLOTS: usize = 4;

fn fair(work: &Work, wires: &str) -> String {
    format!(
        "[queues.calls]\n{wires}\nconcurrency = {SLOTS}\nfair_by = \"{{{{ tenant }}}}\"\n\
         [tasks.call]\nqueue = \"calls\"\nnames = [\"app.call\"]\nparams = {{ tenant = \"string\" }}\n\
         http = {{ url = \"http://{}/\" }}\n",
        work.address
    )
}

/// Two mean job times are two rounds of all slots, or fewer starts of others.
#[track_caller]
fn starts_soon(work: &Work, length: Duration, waiting: usize, put_in: Instant) {
    let (others, took) = overtaken(work, "b", put_in);
    println!("{waiting} of others waited: started after {took:?}, {others} others first; a job takes {length:?}");
    assert!(others <= 2 * SLOTS, "{others} others came first");
}

/// Waits until the list of a wire is empty: its messages are jobs, most of which are held back.
#[track_caller]
fn taken_in(redis: &Redis, list: &str, flood: usize) {
    let (mut client, mut jobs) = (redis.client(), Jobs::of(redis, "calls"));
    let patience = Duration::from_secs(60 + flood as u64 / 100);
    until_within(patience, "the flood to be taken in", || {
        (client.llen::<_, usize>(list).expect("Redis answers") == 0).then_some(())
    });
    let held = jobs.count("held");
    assert!(held > flood / 2, "{held} of {flood}");
}

#[test]
fn one_job_beside_anothers_flood_starts_within_two_jobs_time() {
    let redis = Redis::start();
    let length = Duration::from_millis(250);
    let work = Work::start(length);
    let home = Home::new(&redis, &fair(&work, ""));
    let daemon = home.start();
    let flood = usize::try_from(number("JOBSD_FLOOD", 5_000)).expect("a number");
    let job = |tenant: &str| json!({"task": "call", "args": {"tenant": tenant}});
    enqueue(&daemon, &vec![job("a"); flood]);
    until("the flood to run", || (work.calls().len() >= SLOTS).then_some(()));
    for _ in 0..3 {
        let put_in = Instant::now();
        enqueue(&daemon, &[job("b")]);
        starts_soon(&work, length, flood, put_in);
    }
    let shown = get(daemon.admin, "/api/v1/queues/calls").json();
    let waiting = shown["queue"]["jobs"]["pending"].as_u64().expect("a number");
    assert!(waiting as usize > flood / 2, "{shown}");
}

#[test]
fn a_celery_message_behind_anothers_flood_is_seen_too() {
    let redis = Redis::start();
    let length = Duration::from_millis(250);
    let work = Work::start(length);
    let home = Home::new(&redis, &fair(&work, "wires = [\"celery\"]"));
    let _daemon = home.start();
    let mut client = redis.client();
    let flood = usize::try_from(number("JOBSD_FLOOD", 5_000)).expect("a number");
    let message =
        |tenant: &str, n: usize| celery_message("app.call", &format!("{tenant}-{n}"), &json!({"tenant": tenant}));
    let messages: Vec<String> = (0..flood).map(|n| message("a", n)).collect();
    for some in messages.chunks(1000) {
        client.lpush::<_, _, ()>("calls", some).expect("Redis takes it");
    }
    // What stands in the list is not known yet: a queue whose tenants take turns takes it in ahead of its time.
    taken_in(&redis, "calls", flood);
    for n in 0..3 {
        let put_in = Instant::now();
        client.lpush::<_, _, ()>("calls", message("b", n)).expect("Redis takes it");
        starts_soon(&work, length, flood, put_in);
    }
}

#[test]
fn an_rq_job_behind_anothers_flood_is_seen_too() {
    let redis = Redis::start();
    let length = Duration::from_millis(250);
    let work = Work::start(length);
    let home = Home::new(&redis, &fair(&work, "wires = [\"rq\"]"));
    let _daemon = home.start();
    let (python, mut client) = (Python::on(&redis.url()), redis.client());
    let produce = |list: &str, tenant: &str, count: usize| {
        let program = format!(
            "import os, redis, rq\n\
             queue = rq.Queue('{list}', connection=redis.from_url(os.environ['REDIS_URL']))\n\
             many = [rq.Queue.prepare_data('app.call', kwargs={{'tenant': '{tenant}'}}) for _ in range({count})]\n\
             queue.enqueue_many(many)"
        );
        python.run(&program);
    };
    let flood = usize::try_from(number("JOBSD_FLOOD", 2_000)).expect("a number");
    produce("calls", "a", flood);
    taken_in(&redis, "rq:queue:calls", flood);
    // Made aside, so that Python's own start does not count.
    produce("aside", "b", 1);
    let id: String = client.lpop("rq:queue:aside", None).expect("it is there");
    let put_in = Instant::now();
    client.rpush::<_, _, ()>("rq:queue:calls", id).expect("Redis takes it");
    starts_soon(&work, length, flood, put_in);
}

#[test]
fn a_job_that_no_limit_would_ever_let_start_is_refused_with_its_reason() {
    let redis = Redis::start();
    let config = "[queues.calls]\nwires = [\"celery\"]\n\
        limit = { key = \"{{ tenant }}\", rate = [\"5/min\", \"50/h\"], points = \"{{ size }}\" }\n\
        [tasks.call]\nqueue = \"calls\"\nnames = [\"app.call\"]\nparams = { tenant = \"string\", size = \"number\" }\n\
        probe = \"noop\"\n";
    let home = Home::new(&redis, config);
    let daemon = home.start();
    let put = |size: Value| {
        post(daemon.admin, "/api/v1/jobs", &json!({"task": "call", "args": {"tenant": "a", "size": size}}))
    };
    let too_many = "the job takes 6 points of the limit */tenant, which has no more than 5: it could never start";
    for (size, reason) in [
        (json!(6), too_many),
        (json!(0), "must be a whole number from 1 on: they are 0"),
        (json!(1.5), "must be a whole number from 1 on: they are 1.5"),
    ] {
        let answer = put(size);
        assert_eq!(answer.status, 422, "{answer:?}");
        let error = answer.json()["errors"][0].clone();
        assert_eq!(error["pointer"], "/args");
        assert!(error["detail"].as_str().is_some_and(|detail| detail.contains(reason)), "{error}");
    }
    assert_eq!(put(json!(5)).status, 201);
    let mut client = redis.client();
    push(&mut client, "calls", "app.call", &json!({"tenant": "a", "size": 6}));
    let (cause, reason) = Jobs::of(&redis, "calls").only_dead();
    assert_eq!((cause.as_str(), reason.as_str()), ("bad-arguments", too_many));
}

/// What waits for a limit is found again when the file says something else.
#[test]
fn a_limit_that_is_raised_or_removed_lets_those_go_that_it_held() {
    let redis = Redis::start();
    let work = Work::start(Duration::from_millis(1));
    let config = |limit: &str| {
        format!(
            "[queues.calls]\nconcurrency = 10\n{limit}\n[tasks.call]\nqueue = \"calls\"\n\
             params = {{ tenant = \"string\" }}\nhttp = {{ url = \"http://{}/\" }}\n",
            work.address
        )
    };
    let home = Home::new(&redis, &config("limit = { key = \"{{ tenant }}\", rate = \"1/h\" }"));
    let daemon = home.start();
    let job = |tenant: &str| json!({"task": "call", "args": {"tenant": tenant}});
    enqueue(&daemon, &vec![job("a"); 8]);
    enqueue(&daemon, &[job("b")]);
    until("the first of each", || (work.calls().len() == 2).then_some(()));
    let shown = get(daemon.admin, "/api/v1/queues/calls").json()["queue"].clone();
    assert_eq!(shown["limits"][0]["top"], json!([{"value": "a", "held": 7}]), "{shown:#}");
    let listed = home.type_to(&daemon, &["queues"]).well().out;
    assert!(listed.contains("a (7)") && listed.contains("1 each in 1h"), "{listed}");
    let waiting = get(daemon.admin, "/api/v1/jobs?state=pending").json();
    let id = waiting["jobs"][0]["id"].as_str().expect("an id").to_owned();
    let job = get(daemon.admin, &format!("/api/v1/jobs/{id}")).json();
    assert_eq!(
        (&job["held"], &job["blocked"]["limit"], &job["blocked"]["key"]),
        (&json!(true), &json!("*/tenant"), &json!("a"))
    );
    assert!(job["blocked"]["free_at"].is_string(), "{job:#}");

    let reload = |limit: &str, calls: usize| {
        home.rewrite(&redis.url(), &config(limit));
        daemon.reload();
        until(format!("{calls} calls"), || (work.calls().len() == calls).then_some(()));
    };
    reload("limit = { key = \"{{ tenant }}\", rate = \"3/h\" }", 4);
    reload("", 9);
}
