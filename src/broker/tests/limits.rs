//! Limits and turns, one transition at a time.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::broker::{Altered, Change, Line, Paused};
use crate::config::{Key, Limit, Limits, Points, Rate, Template};
use crate::job::{Bucket, Outcome, Request, TaskName};

const SECOND: Duration = Duration::from_secs(1);

/// A queue of one node, with the limits of a test.
struct Bench {
    _redis: RedisServer,
    node: Broker,
    queue: Queue,
}

fn limit() -> Limit {
    Limit { task: None, key: None, concurrency: None, rates: Vec::new(), points: Points::Each(1) }
}

fn by_user() -> Option<Key> {
    Some(Key { template: Template::parse("{{ user }}").expect("a template"), is_secret: false })
}

fn rate(points: u64, window: Duration) -> Rate {
    Rate { points, window }
}

impl Bench {
    fn new(all: Vec<Limit>) -> Self {
        Self::with(Limits::new(None, all))
    }

    fn fair(all: Vec<Limit>) -> Self {
        Self::with(Limits::new(by_user(), all))
    }

    fn with(limits: Limits) -> Self {
        let redis = RedisServer::start();
        let node = node(&redis, "a");
        Self { _redis: redis, node, queue: Queue { limits, concurrency: Concurrency::fixed(10_000), ..queue() } }
    }

    fn job(&self, id: &str, user: Value, now: Timestamp) -> Job {
        let mut job = job(id, now);
        job.args = json!({"user": user}).as_object().cloned().expect("an object");
        job.buckets = self.queue.limits.buckets(&job.task, &job.args, &serde_json::Map::new()).expect("it fits");
        job
    }

    async fn enqueue(&self, jobs: &[Job]) {
        self.node.enqueue(jobs).await.expect("Redis answers");
    }

    /// So many jobs of one user, one after another in the same millisecond.
    async fn flood(&self, user: &str, count: usize, now: Timestamp) {
        let jobs: Vec<Job> = (0..count).map(|n| self.job(&format!("{user}{n:04}"), json!(user), now)).collect();
        self.enqueue(&jobs).await;
    }

    async fn claim(&self, want: usize, now: Timestamp) -> (Vec<Claim>, Line) {
        self.node.exchange(&self.queue, Vec::new(), true, want, now).await.claims.expect("Redis answers")
    }

    async fn claimed(&self, want: usize, now: Timestamp) -> Vec<String> {
        self.claim(want, now).await.0.iter().map(|claim| claim.job.id.to_string()).collect()
    }

    async fn end(&self, claims: Vec<Claim>, now: Timestamp) {
        let ended = claims.into_iter().map(|claim| settlement(&self.node, &self.queue, claim, ok(), now)).collect();
        let settled = settle(&self.node, &self.queue, ended, now).await;
        assert!(settled.iter().all(|settled| *settled == Settled::Applied));
    }

    fn keys(&self) -> crate::store::QueueKeys {
        self.node.store.keys.queue(&self.queue.name)
    }

    async fn number(&self, command: &[&str]) -> i64 {
        match raw(&self.node, command).await {
            redis::Value::Int(number) => number,
            other => panic!("{command:?}: {other:?}"),
        }
    }
}

fn later(now: Timestamp, millis: u64) -> Timestamp {
    now.after(Duration::from_millis(millis))
}

#[tokio::test]
async fn a_queue_runs_no_more_at_once_than_its_limit_over_all_nodes() {
    let bench = Bench::new(vec![Limit { concurrency: Some(3), ..limit() }]);
    let other = node(&bench._redis, "b");
    bench.flood("x", 10, at(0)).await;
    let (first, line) = bench.claim(2, at(1)).await;
    assert_eq!((first.len(), line), (2, Line::Open));
    let (second, line) = other.exchange(&bench.queue, Vec::new(), true, 5, at(1)).await.claims.expect("Redis answers");
    assert_eq!((second.len(), line), (1, Line::Limited));
    assert_eq!(bench.claim(5, at(2)).await.1, Line::Limited);
    assert_eq!(bench.number(&["ZCARD", &bench.keys().held]).await, 0, "they stay in line");
    bench.end(first, at(3)).await;
    assert_eq!(bench.claimed(5, at(3)).await, ["x0003", "x0004"]);
}

#[tokio::test]
async fn no_window_of_any_length_holds_more_starts_than_it_may() {
    let rates = vec![rate(5, 2 * SECOND), rate(12, 10 * SECOND)];
    let bench = Bench::new(vec![Limit { rates: rates.clone(), ..limit() }]);
    bench.flood("x", 400, at(0)).await;
    let mut starts: Vec<u64> = Vec::new();
    let mut random = 88_172_645_463_325_252_u64;
    let mut now = at(1);
    while starts.len() < 100 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        now = later(now, random % 700);
        // The clock of the other half of the nodes is a little behind.
        let seen = if random.is_multiple_of(2) { now } else { now.before(Duration::from_millis(15)) };
        let claims = bench.claim(usize::try_from(random % 4).expect("small"), seen).await.0;
        starts.extend(claims.iter().map(|_| now.as_millis()));
        bench.end(claims, now).await;
    }
    for Rate { points, window } in rates {
        let window = u64::try_from(window.as_millis()).expect("short");
        for (n, start) in starts.iter().enumerate() {
            let inside = starts[n..].iter().filter(|&&other| other < start + window).count();
            assert!(inside as u64 <= points, "{inside} starts in {window} ms from {start}");
        }
        let last = usize::try_from(points).expect("small");
        let tight = starts.windows(last + 1).filter(|some| some[last] - some[0] < window + 2000).count();
        assert!(tight > 0, "the limit of {points} in {window} ms was never reached: it is held too tightly");
    }
}

#[tokio::test]
async fn a_window_frees_its_room_as_soon_as_it_can_and_says_when() {
    let bench = Bench::new(vec![Limit { rates: vec![rate(2, 10 * SECOND)], ..limit() }]);
    bench.flood("x", 9, at(0)).await;
    assert_eq!(bench.claimed(1, at(0)).await.len(), 1);
    assert_eq!(bench.claimed(5, later(at(0), 4000)).await.len(), 1);
    let redis::Value::BulkString(when) = raw(&bench.node, &["ZSCORE", &bench.keys().lines, "*"]).await else {
        panic!()
    };
    // Half a second longer than the operator says, from the end of the hundredth of a second in which it started.
    let free = Timestamp::from_millis(at(0).as_millis() / 10 * 10 + 9 + 10_500);
    assert_eq!(String::from_utf8_lossy(&when), free.as_millis().to_string());
    assert_eq!(bench.claim(5, later(free, 0).before(Duration::from_millis(1))).await.1, Line::Limited);
    assert_eq!(bench.claimed(5, free).await.len(), 1);
}

#[tokio::test]
async fn who_has_no_room_is_held_out_of_the_way_of_the_others() {
    let bench = Bench::new(vec![Limit { key: by_user(), concurrency: Some(2), ..limit() }]);
    bench.flood("a", 600, at(0)).await;
    bench.flood("b", 1, at(1)).await;
    let (claims, _) = bench.claim(10, at(2)).await;
    let ids: Vec<_> = claims.iter().map(|claim| claim.job.id.as_str().to_owned()).collect();
    assert_eq!(ids, ["a0000", "a0001", "b0000"]);
    let standing = view(&bench.node, "a0300").await.expect("it exists");
    assert_eq!((standing.place, standing.state()), (crate::store::Place::Held, State::Pending));
    // Whoever is cancelled while he is held is passed over.
    let cancel = Change::Cancel(Request { at: at(2), by: "ann".into(), reason: None });
    let altered = bench.node.alter(&bench.queue.name, &[JobId::parse("a0002").expect("an id")], &cancel, at(2)).await;
    assert_eq!(altered.expect("Redis answers"), [Altered::Done(Some(State::Cancelled))]);
    bench.end(claims, at(3)).await;
    assert_eq!(bench.claimed(10, at(3)).await, ["a0003", "a0004"]);
    assert_eq!(bench.number(&["HLEN", &bench.keys().used]).await, 1);
}

#[tokio::test]
async fn a_job_held_by_one_bucket_leaves_the_other_to_the_next() {
    let task = TaskName::parse("echo").expect("a name");
    let bench = Bench::new(vec![
        Limit { key: by_user(), concurrency: Some(1), ..limit() },
        Limit { task: Some(task), concurrency: Some(2), ..limit() },
    ]);
    bench.flood("a", 3, at(0)).await;
    bench.flood("b", 3, at(1)).await;
    bench.flood("c", 1, at(2)).await;
    let (mut claims, _) = bench.claim(10, at(3)).await;
    assert_eq!(ids(&claims), ["a0000", "b0000"]);
    bench.end(vec![claims.pop().expect("b")], at(4)).await;
    // b0001 waits for its task's turn behind a0001, which waits for its user: nobody stands in c's way for long.
    let mut got = Vec::new();
    for n in 0..4 {
        got.extend(bench.claimed(10, later(at(5), n)).await);
    }
    assert_eq!(got.len(), 1, "{got:?}");
    bench.end(claims, at(6)).await;
    for n in 0..4 {
        got.extend(bench.claimed(10, later(at(7), n)).await);
    }
    assert_eq!(got.len(), 2, "{got:?}");
}

#[tokio::test]
async fn heavy_jobs_take_more_and_one_that_is_too_heavy_runs_alone() {
    let points = Points::By(crate::config::ValueTemplate::parse(json!("{{ user }}")).expect("a template"));
    let bench = Bench::new(vec![Limit { concurrency: Some(10), points, ..limit() }]);
    let jobs: Vec<Job> = [6, 4, 5].iter().map(|size| bench.job(&format!("s{size}"), json!(size), at(0))).collect();
    bench.enqueue(&jobs).await;
    let (claims, line) = bench.claim(10, at(1)).await;
    assert_eq!((ids(&claims), line), (vec!["s4", "s5"], Line::Limited), "in line by their ids; 6 more do not fit");
    let mut job = job("much", at(0));
    job.buckets = vec![Bucket::of_limit("*", 99)];
    bench.enqueue(&[job]).await;
    bench.end(claims, at(2)).await;
    let (claims, _) = bench.claim(10, at(3)).await;
    assert_eq!(ids(&claims), ["much"], "its limit was lowered since");
    bench.end(claims, at(4)).await;
    assert_eq!(bench.claimed(10, at(5)).await, ["s6"]);
    let too_much = json!({"user": 11}).as_object().cloned().expect("an object");
    let error = bench.queue.limits.buckets(&jobs[0].task, &too_much, &serde_json::Map::new()).expect_err("too much");
    assert!(error.to_string().contains("takes 11 points of the limit *, which has no more than 10"), "{error}");
}

#[tokio::test]
async fn a_whole_queue_is_counted_in_points_where_each_job_takes_several() {
    let bench = Bench::new(vec![Limit { concurrency: Some(5), points: Points::Each(2), ..limit() }]);
    bench.flood("x", 5, at(0)).await;
    let (claims, line) = bench.claim(9, at(1)).await;
    assert_eq!((claims.len(), line), (2, Line::Limited));
    bench.end(claims, at(2)).await;
    assert_eq!(bench.number(&["EXISTS", &bench.keys().used]).await, 0);
    assert_eq!(bench.claimed(9, at(3)).await, ["x0002", "x0003"]);
}

#[tokio::test]
async fn a_limit_that_is_gone_holds_nobody() {
    let mut bench = Bench::new(vec![Limit { key: by_user(), concurrency: Some(1), ..limit() }]);
    bench.flood("a", 5, at(0)).await;
    let (claims, _) = bench.claim(9, at(1)).await;
    assert_eq!(ids(&claims), ["a0000"]);
    let limits = std::mem::take(&mut bench.queue.limits);
    assert_eq!(bench.claimed(9, at(2)).await.len(), 4, "all the others");
    bench.end(claims, at(3)).await;
    assert_eq!(bench.number(&["EXISTS", &bench.keys().used, &bench.keys().lines, &bench.keys().held]).await, 0);
    bench.queue.limits = limits;
    bench.flood("b", 2, at(4)).await;
    assert_eq!(bench.claimed(9, at(5)).await, ["b0000"], "and it counts from where it is");
}

#[tokio::test]
async fn a_dead_node_gives_back_what_it_had_drawn() {
    let bench = Bench::new(vec![Limit { key: by_user(), concurrency: Some(1), ..limit() }]);
    let other = node(&bench._redis, "b");
    bench.flood("a", 2, at(0)).await;
    drop(other.exchange(&bench.queue, Vec::new(), true, 5, at(0)).await.claims.expect("Redis answers"));
    bench.node.heartbeat(std::slice::from_ref(&bench.queue.name), at(60)).await.expect("Redis answers");
    let swept = bench.node.sweep(&bench.queue.name, at(60), at(60), 10).await.expect("Redis answers");
    assert_eq!(bench.claimed(9, at(61)).await, Vec::<String>::new(), "taken over is still running");
    for swept in swept {
        let crashed = Outcome::Crashed { reason: swept.reason };
        let settlement = settlement(&bench.node, &bench.queue, swept.claim, crashed, at(61));
        assert_eq!(settle(&bench.node, &bench.queue, vec![settlement], at(61)).await, [Settled::Applied]);
    }
    assert_eq!(bench.claimed(9, at(62)).await, ["a0000"]);
}

#[tokio::test]
async fn tenants_take_turns_whatever_they_have() {
    let bench = Bench::fair(Vec::new());
    bench.flood("a", 3000, at(0)).await;
    assert_eq!(bench.claimed(2, at(1)).await, ["a0000", "a0001"]);
    bench.flood("b", 1, at(2)).await;
    bench.flood("c", 2, at(3)).await;
    assert_eq!(bench.claimed(1, at(4)).await, ["b0000"], "the first slot is his");
    assert_eq!(
        bench.claimed(4, at(5)).await,
        ["c0000", "a0002", "c0001", "a0003"].map(str::to_owned).to_vec().in_any_order()
    );
    assert_eq!(bench.claimed(3, at(6)).await, ["a0004", "a0005", "a0006"]);
    // Whoever comes back after each of his jobs does not get every turn.
    let mut of_b = 0;
    for n in 0..20 {
        bench.enqueue(&[bench.job(&format!("again{n}"), json!("b"), at(10 + n))]).await;
        of_b += bench.claimed(1, at(10 + n)).await.iter().filter(|id| id.starts_with("again")).count();
    }
    assert_eq!(of_b, 10, "every second one is his");
}

/// The same set, in the order in which it was found: the order inside one claim means nothing.
trait InAnyOrder {
    fn in_any_order(self) -> Unordered;
}

#[derive(Debug)]
struct Unordered(Vec<String>);

impl InAnyOrder for Vec<String> {
    fn in_any_order(mut self) -> Unordered {
        self.sort();
        Unordered(self)
    }
}

impl PartialEq<Unordered> for Vec<String> {
    fn eq(&self, other: &Unordered) -> bool {
        let mut own = self.clone();
        own.sort();
        own == other.0
    }
}

#[tokio::test]
async fn turns_come_together_with_limits_pauses_and_ends() {
    let mut bench = Bench::fair(vec![Limit { key: by_user(), concurrency: Some(1), ..limit() }]);
    bench.flood("a", 4, at(0)).await;
    bench.flood("b", 4, at(0)).await;
    let (claims, _) = bench.claim(8, at(1)).await;
    assert_eq!(ids(&claims), ["a0000", "b0000"]);
    bench.end(claims, at(2)).await;
    let task = Paused::Task(TaskName::parse("echo").expect("a name"));
    let request = Request { at: at(2), by: "ann".into(), reason: None };
    bench.node.pause(&bench.queue.name, &task, &request).await.expect("Redis answers");
    assert_eq!(bench.claimed(8, at(3)).await, Vec::<String>::new());
    assert!(bench.node.resume(&bench.queue.name, &task).await.expect("Redis answers"));
    let (claims, _) = bench.claim(8, at(4)).await;
    assert_eq!(ids(&claims), ["a0001", "b0001"]);
    bench.end(claims, at(5)).await;
    // No turns any more: whoever waits in a tenant's line is found all the same.
    bench.queue.limits = Limits::default();
    assert_eq!(bench.claimed(8, at(6)).await.len(), 4);
    let keys = bench.keys();
    assert_eq!(bench.number(&["EXISTS", &keys.turns, &keys.lines, &keys.held, &keys.used]).await, 0);
}

#[tokio::test]
async fn a_queue_without_limits_pays_nothing_for_them() {
    let bench = Bench::new(Vec::new());
    bench.flood("a", 50, at(0)).await;
    let calls = async || -> Vec<String> {
        let redis::Value::BulkString(stats) = raw(&bench.node, &["INFO", "commandstats"]).await else { panic!() };
        let stats = String::from_utf8_lossy(&stats).into_owned();
        let of = |line: &str| line.split(",usec").next().unwrap_or_default().to_owned();
        let mut calls: Vec<String> = stats.lines().filter(|line| line.starts_with("cmdstat_")).map(of).collect();
        calls.retain(|call| !["config", "info", "evalsha"].iter().any(|own| call.contains(own)));
        calls.sort();
        calls
    };
    // The first claim of a process looks at the lines.
    assert_eq!(bench.claimed(1, at(1)).await.len(), 1);
    raw(&bench.node, &["CONFIG", "RESETSTAT"]).await;
    let exchange = bench.node.exchange(&bench.queue, Vec::new(), false, 49, at(1)).await;
    let claims = exchange.claims.expect("Redis answers").0;
    let claim = "hdel:calls=1 hincrby:calls=1 hkeys:calls=1 hmget:calls=2 hset:calls=1 zadd:calls=1 zcard:calls=1 \
                 zrange:calls=1 zremrangebyrank:calls=1";
    assert_eq!(calls().await.join(" ").replace("cmdstat_", ""), claim);
    raw(&bench.node, &["CONFIG", "RESETSTAT"]).await;
    bench.end(claims, at(2)).await;
    let settle = "exists:calls=1 hdel:calls=2 hincrby:calls=1 hmget:calls=1 hset:calls=1 zadd:calls=1 zcard:calls=1";
    assert_eq!(calls().await.join(" ").replace("cmdstat_", ""), settle);
}
