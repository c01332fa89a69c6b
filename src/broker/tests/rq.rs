//! RQ's own keys beside ours: each transition by itself.

use serde_json::json;

use super::*;
use crate::broker::{Answered, OwedJob, RqAttempt, RqEnding, RqSay, RqShown, RqTidied, RqTidying};
use crate::job::Wire;

fn of_rq(id: &str) -> Job {
    let reply = json!({"id": id, "origin": "low"});
    Job { origin: Origin::Wire { wire: Wire::Rq, list: "rq:queue:low".to_owned(), reply }, ..job(id, at(0)) }
}

fn attempt(claim: &Claim) -> RqAttempt {
    RqAttempt {
        id: claim.job.id.clone(),
        token: claim.token,
        queue: "low".to_owned(),
        worker: "w".to_owned(),
        began: claim.started,
    }
}

fn ending(say: RqSay) -> RqEnding {
    RqEnding {
        say,
        queue: "low".to_owned(),
        began: Some(at(1)),
        ended: at(2),
        worker: "w".to_owned(),
        keep: 500,
        value: None,
        retries_left: None,
        shown: true,
        rate_limit: String::new(),
    }
}

/// Runs a job that waits and gives its end, for which its producer has to be told something.
async fn run(broker: &Broker, id: &str) -> OwedJob {
    let queue = queue();
    broker.enqueue(&[of_rq(id)]).await.expect("Redis answers");
    let claim = claim(broker, &queue, 1, at(1)).await.remove(0);
    settle(broker, &queue, vec![settlement(broker, &queue, claim, ok(), at(2))], at(2)).await;
    broker.owed_jobs(&queue.name, 10).await.expect("Redis answers").remove(0)
}

async fn ids(broker: &Broker, words: &[&str]) -> Vec<String> {
    redis::from_redis_value(raw(broker, words).await).expect("ids")
}

async fn text(broker: &Broker, words: &[&str]) -> Option<String> {
    redis::from_redis_value(raw(broker, words).await).expect("a text")
}

#[tokio::test]
async fn an_attempt_is_shown_while_it_is_active_and_its_job_is_there() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    a.enqueue(&["runs", "ended", "cancelled", "deleted"].map(of_rq)).await.expect("Redis answers");
    for id in ["runs", "ended", "cancelled"] {
        raw(&a, &["HSET", &format!("rq:job:{id}"), "data", "x", "status", "queued"]).await;
    }
    raw(&a, &["HSET", "rq:job:cancelled", "status", "canceled"]).await;
    let mut claims = claim(&a, &queue, 4, at(1)).await;
    claims.sort_by(|a, b| b.job.id.cmp(&a.job.id));
    let attempts: Vec<RqAttempt> = claims.iter().map(attempt).collect();
    let ended = claims.remove(1);
    assert_eq!(ended.job.id.as_str(), "ended");
    settle(&a, &queue, vec![settlement(&a, &queue, ended, ok(), at(2))], at(2)).await;
    let shown = a.rq_begin(&queue.name, &attempts, at(2)).await.expect("Redis answers");
    assert_eq!(shown, [RqShown::Yes, RqShown::Ended, RqShown::Withdrawn, RqShown::Withdrawn]);
    assert_eq!(text(&a, &["HGET", "rq:job:runs", "status"]).await.as_deref(), Some("started"));
    assert_eq!(text(&a, &["HGET", "rq:job:ended", "status"]).await.as_deref(), Some("queued"));
    assert_eq!(raw(&a, &["EXISTS", "rq:job:deleted"]).await, redis::Value::Int(0), "what is gone stays gone");
    assert_eq!(ids(&a, &["ZRANGE", "rq:wip:low", "0", "-1"]).await, ["runs:jobsd"]);
    assert_eq!(ids(&a, &["SMEMBERS", "rq:worker:w:executions"]).await, ["runs:jobsd"]);
    // It is handed back: nobody may take it for abandoned.
    let given_back = Outcome::Interrupted { reason: "the daemon stopped".to_owned() };
    let runs = claims.remove(0);
    settle(&a, &queue, vec![settlement(&a, &queue, runs, given_back, at(3))], at(3)).await;
    assert_eq!(a.rq_beat(&queue.name, &attempts[..1], at(4)).await.expect("Redis answers"), [false]);
    assert_eq!(text(&a, &["HGET", "rq:job:runs", "status"]).await.as_deref(), Some("queued"));
    let shown = ["EXISTS", "rq:wip:low", "rq:executions:runs", "rq:worker:w:executions"];
    assert_eq!(raw(&a, &shown).await, redis::Value::Int(0));
}

/// A parent of two: one waits for another job too.
#[tokio::test]
async fn the_end_of_a_job_lets_those_go_that_waited_for_it_alone() {
    let redis = RedisServer::start();
    let a = node(&redis, "a");
    raw(&a, &["HSET", "rq:job:parent", "data", "x", "status", "started"]).await;
    raw(&a, &["HSET", "rq:job:other", "data", "x", "status", "queued"]).await;
    for (id, parents) in [("free", &["parent"][..]), ("bound", &["parent", "other"])] {
        raw(&a, &["HSET", &format!("rq:job:{id}"), "data", "x", "status", "deferred", "origin", "high"]).await;
        raw(&a, &["SADD", "rq:job:parent:dependents", id]).await;
        raw(&a, &["ZADD", "rq:deferred:high", "+inf", id]).await;
        raw(&a, &[&["SADD", &*format!("rq:job::{id}:dependencies")], parents].concat()).await;
    }
    let owed = run(&a, "parent").await;
    for paid in [Answered::Paid, Answered::NotOwed] {
        let answered = a.rq_answer(&[(&owed, ending(RqSay::Finished))], &[], at(3)).await.expect("Redis answers");
        assert_eq!(answered, [paid]);
    }
    assert_eq!(ids(&a, &["LRANGE", "rq:queue:high", "0", "-1"]).await, ["free"], "once");
    assert_eq!(ids(&a, &["SMEMBERS", "rq:job:parent:dependents"]).await, ["bound"]);
    assert_eq!(text(&a, &["HGET", "rq:job:bound", "status"]).await.as_deref(), Some("deferred"));
    assert_eq!(text(&a, &["HGET", "rq:job:parent", "status"]).await.as_deref(), Some("finished"));
}

/// What it has done is counted by another answer, or later.
#[tokio::test]
async fn a_worker_is_idle_as_soon_as_its_job_has_ended() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    a.enqueue(&[of_rq("runs")]).await.expect("Redis answers");
    raw(&a, &["HSET", "rq:job:runs", "data", "x", "status", "queued"]).await;
    raw(&a, &["HSET", "rq:worker:w", "birth", "x", "state", "idle"]).await;
    let claim = claim(&a, &queue, 1, at(1)).await.remove(0);
    a.rq_begin(&queue.name, &[attempt(&claim)], at(1)).await.expect("Redis answers");
    let seen = ["HMGET", "rq:worker:w", "state", "current_job"];
    let busy: (String, Option<String>) = redis::from_redis_value(raw(&a, &seen).await).expect("two fields");
    assert_eq!(busy, ("busy".to_owned(), Some("runs".to_owned())));
    settle(&a, &queue, vec![settlement(&a, &queue, claim, ok(), at(2))], at(2)).await;
    let owed = a.owed_jobs(&queue.name, 10).await.expect("Redis answers").remove(0);
    a.rq_answer(&[(&owed, ending(RqSay::Finished))], &[], at(3)).await.expect("Redis answers");
    let idle: (String, Option<String>) = redis::from_redis_value(raw(&a, &seen).await).expect("two fields");
    assert_eq!(idle, ("idle".to_owned(), None));
}

/// RQ 3.0's rule; 2.0 lets it run, with or without a failure allowed.
#[tokio::test]
async fn what_waits_for_a_job_that_was_stopped_stays() {
    let redis = RedisServer::start();
    let a = node(&redis, "a");
    raw(&a, &["HSET", "rq:job:parent", "data", "x", "status", "started"]).await;
    let child = ["HSET", "rq:job:child", "status", "deferred", "origin", "low", "allow_dependency_failures", "1"];
    raw(&a, &child).await;
    raw(&a, &["SADD", "rq:job:parent:dependents", "child"]).await;
    let owed = run(&a, "parent").await;
    a.rq_answer(&[(&owed, ending(RqSay::Stopped))], &[], at(3)).await.expect("Redis answers");
    assert_eq!(text(&a, &["HGET", "rq:job:parent", "status"]).await.as_deref(), Some("stopped"));
    assert_eq!(text(&a, &["HGET", "rq:job:child", "status"]).await.as_deref(), Some("deferred"));
}

/// The job that runs has a place; one that waited was cancelled, two wait.
#[tokio::test]
async fn a_job_gives_its_place_to_the_one_that_has_waited_longest() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    let waiting = [("cancelled", "canceled"), ("next", "rate_limited"), ("last", "rate_limited")];
    for (id, status) in waiting.into_iter().chain([("runs", "queued")]) {
        raw(&a, &["HSET", &format!("rq:job:{id}"), "data", "x", "status", status, "origin", "low"]).await;
    }
    raw(&a, &["HSET", "rq:job:runs", "rate_limit_key", "k"]).await;
    raw(&a, &["HSET", "rq:rl:k", "concurrency", "1"]).await;
    raw(&a, &["ZADD", "rq:rl:k:rate_limited", "1", "cancelled", "2", "next", "3", "last"]).await;
    a.enqueue(&[of_rq("runs")]).await.expect("Redis answers");
    let claim = claim(&a, &queue, 1, at(1)).await.remove(0);
    a.rq_begin(&queue.name, &[attempt(&claim)], at(1)).await.expect("Redis answers");
    let places = ["ZRANGE", "rq:rl:k:allowed", "0", "-1"];
    assert_eq!(ids(&a, &places).await, ["runs"], "one of RQ's workers had cleaned its place away");
    settle(&a, &queue, vec![settlement(&a, &queue, claim, ok(), at(2))], at(2)).await;
    // Its producer has deleted it meanwhile: its place is free all the same.
    raw(&a, &["DEL", "rq:job:runs"]).await;
    let owed = a.owed_jobs(&queue.name, 10).await.expect("Redis answers").remove(0);
    let ending = RqEnding { rate_limit: "k".to_owned(), ..ending(RqSay::Finished) };
    a.rq_answer(&[(&owed, ending)], &[], at(6)).await.expect("Redis answers");
    assert_eq!(ids(&a, &places).await, ["next"]);
    assert_eq!(ids(&a, &["ZRANGE", "rq:rl:k:rate_limited", "0", "-1"]).await, ["last"]);
    assert_eq!(ids(&a, &["LRANGE", "rq:queue:low", "0", "-1"]).await, ["next"]);
    assert_eq!(text(&a, &["HGET", "rq:job:next", "status"]).await.as_deref(), Some("queued"));
}

#[tokio::test]
async fn a_job_that_is_tried_again_keeps_its_place() {
    let redis = RedisServer::start();
    let a = node(&redis, "a");
    raw(&a, &["HSET", "rq:job:runs", "data", "x", "status", "started"]).await;
    raw(&a, &["ZADD", "rq:rl:k:allowed", "1", "runs"]).await;
    let owed = run(&a, "runs").await;
    let again = RqSay::Retry { at: Some(9), listed: false };
    a.rq_answer(&[(&owed, RqEnding { rate_limit: "k".to_owned(), ..ending(again) })], &[], at(3))
        .await
        .expect("Redis answers");
    assert_eq!(ids(&a, &["ZRANGE", "rq:rl:k:allowed", "0", "-1"]).await, ["runs"]);
}

/// What a worker of RQ 3.0 leaves when it dies between its steps.
#[tokio::test]
async fn what_waits_is_found_by_the_maintenance() {
    let redis = RedisServer::start();
    let a = node(&redis, "a");
    // From RQ 3.0 on the score is the time at which it came, and it may wait for days.
    raw(&a, &["HSET", "rq:job:waits", "data", "x", "status", "deferred", "origin", "low"]).await;
    raw(&a, &["ZADD", "rq:deferred:low", "1", "waits", "2", "gone"]).await;
    for (id, status) in [("ready", "ready_to_enqueue"), ("cancelled", "canceled")] {
        raw(&a, &["HSET", &format!("rq:job:{id}"), "data", "x", "status", status, "origin", "low"]).await;
        raw(&a, &["ZADD", "rq:ready:low", "1", id]).await;
    }
    // One is over and has kept its place, one runs although it was cancelled, one waits for a place.
    for (id, status) in [("over", "finished"), ("runs", "canceled"), ("held", "rate_limited")] {
        raw(&a, &["HSET", &format!("rq:job:{id}"), "data", "x", "status", status, "origin", "low"]).await;
    }
    raw(&a, &["ZADD", "rq:executions:runs", "9999999999", "e"]).await;
    raw(&a, &["SADD", "rq:rl-keys", "k", "empty"]).await;
    raw(&a, &["HSET", "rq:rl:k", "concurrency", "2"]).await;
    raw(&a, &["HSET", "rq:rl:empty", "concurrency", "2"]).await;
    raw(&a, &["ZADD", "rq:rl:k:allowed", "1", "over", "1", "runs"]).await;
    raw(&a, &["ZADD", "rq:rl:k:rate_limited", "1", "held"]).await;
    let what = RqTidying { lock: "rq:clean_registries:low", queue: "low", abandoned: b"x", shared: true };
    a.rq_tidy(what, at(100)).await.expect("Redis answers");
    assert_eq!(ids(&a, &["ZRANGE", "rq:deferred:low", "0", "-1"]).await, ["waits"]);
    assert_eq!(text(&a, &["HGET", "rq:job:waits", "status"]).await.as_deref(), Some("deferred"));
    assert_eq!(ids(&a, &["LRANGE", "rq:queue:low", "0", "-1"]).await, ["ready", "held"]);
    assert_eq!(ids(&a, &["ZRANGE", "rq:rl:k:allowed", "0", "-1"]).await, ["runs", "held"]);
    assert_eq!(ids(&a, &["SMEMBERS", "rq:rl-keys"]).await, ["k"]);
    assert_eq!(raw(&a, &["EXISTS", "rq:ready:low", "rq:rl:empty"]).await, redis::Value::Int(0));
}

#[tokio::test]
async fn what_dead_workers_of_rq_leave_is_given_back_or_fails() {
    let redis = RedisServer::start();
    let a = node(&redis, "a");
    for (id, status, retries) in [
        ("dead", "started", "0"),
        ("again", "started", "2"),
        ("ours", "started", "0"),
        ("ended", "finished", "0"),
        ("alive", "started", "0"),
    ] {
        raw(&a, &["HSET", &format!("rq:job:{id}"), "data", "x", "status", status, "retries_left", retries]).await;
        let score = if id == "alive" { "9999999999" } else { "1" };
        let execution = if id == "ours" { "jobsd" } else { "e" };
        raw(&a, &["ZADD", "rq:wip:low", score, &format!("{id}:{execution}")]).await;
    }
    raw(&a, &["HSET", "rq:job:taken", "data", "x", "status", "queued"]).await;
    raw(&a, &["RPUSH", "rq:queue:low:intermediate", "taken", "gone"]).await;
    raw(&a, &["SADD", "rq:workers", "rq:worker:gone"]).await;
    raw(&a, &["SADD", "rq:workers:low", "rq:worker:gone"]).await;
    let what = RqTidying { lock: "rq:clean_registries:low", queue: "low", abandoned: b"x", shared: true };
    raw(&a, &["SET", what.lock, "1"]).await;
    let busy = RqTidied { given_back: 0, failed: 0, theirs: 1 };
    assert_eq!(a.rq_tidy(what, at(100)).await.expect("Redis answers"), busy, "somebody else is at it");
    raw(&a, &["DEL", what.lock]).await;
    let first = a.rq_tidy(what, at(100)).await.expect("Redis answers");
    assert_eq!(first, RqTidied { given_back: 1, failed: 1, theirs: 2 });
    let status = async |id: &str| text(&a, &["HGET", &format!("rq:job:{id}"), "status"]).await.unwrap_or_default();
    assert_eq!((status("dead").await.as_str(), status("again").await.as_str()), ("failed", "queued"));
    assert_eq!((status("ours").await.as_str(), status("ended").await.as_str()), ("started", "finished"));
    let second = a.rq_tidy(what, at(200)).await.expect("Redis answers");
    assert_eq!(
        second,
        RqTidied { given_back: 1, failed: 0, theirs: 1 },
        "what was never started goes back to its queue"
    );
    let list: Vec<String> =
        redis::from_redis_value(raw(&a, &["LRANGE", "rq:queue:low", "0", "-1"]).await).expect("ids");
    assert_eq!(list, ["taken", "again"]);
    assert_eq!(raw(&a, &["EXISTS", "rq:workers", "rq:workers:low"]).await, redis::Value::Int(0));
}

#[tokio::test]
async fn scheduled_jobs_are_moved_by_whoever_has_the_lock() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    let keys = ["rq:scheduled:low", "rq:queue:low", "rq:scheduler-lock:low"];
    raw(&a, &["HSET", "rq:job:due", "data", "x", "status", "scheduled", "origin", "low", "enqueue_at_front", "1"])
        .await;
    raw(&a, &["HSET", "rq:job:retrying", "data", "x", "status", "scheduled", "origin", "low"]).await;
    raw(&a, &["ZADD", &a.keys(&queue.name).retry, "5", "retrying"]).await;
    let second = (at(10).as_millis() / 1000).to_string();
    let later = (at(11).as_millis() / 1000).to_string();
    raw(&a, &["ZADD", keys[0], &second, "due", &second, "deleted", &second, "retrying", &later, "later"]).await;
    raw(&a, &["RPUSH", keys[1], "first"]).await;
    raw(&a, &["SET", keys[2], "77"]).await;
    let look = async || a.rq_due(&queue.name, keys, 42, at(10)).await.expect("Redis answers");
    assert!(!look().await.ours);
    raw(&a, &["DEL", keys[2]]).await;
    let due = look().await;
    assert_eq!((due.ours, due.moved, due.next), (true, 1, later.parse().ok()));
    let list: Vec<String> = redis::from_redis_value(raw(&a, &["LRANGE", keys[1], "0", "-1"]).await).expect("ids");
    assert_eq!(list, ["due", "first"], "a job that waits for its next attempt is none of them");
    assert_eq!(text(&a, &["GET", keys[2]]).await.as_deref(), Some("42"));
}

/// Each worker cost two commands, so that a node of 200 sent hundreds where one is enough.
#[tokio::test]
async fn two_hundred_workers_give_their_signs_of_life_in_one_command() {
    let redis = RedisServer::start();
    let a = node(&redis, "a");
    let workers: Vec<String> = (0..200).map(|n| format!("rq:worker:{n}")).collect();
    for worker in workers.iter().skip(1) {
        raw(&a, &["HSET", worker, "birth", "x"]).await;
    }
    a.rq_alive(&workers, 540, at(1)).await.expect("Redis answers");
    let calls = async || {
        let stats = text(&a, &["INFO", "commandstats"]).await.expect("a text");
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).expect("it was called");
        line.split(',').next().and_then(|calls| calls.parse::<usize>().ok()).expect("a number")
    };
    let before = calls().await;
    let alive = a.rq_alive(&workers, 540, at(2)).await.expect("Redis answers");
    assert_eq!(calls().await - before, 1);
    assert_eq!((alive[0], alive.iter().filter(|alive| **alive).count()), (false, 199), "one is not known any more");
    assert_eq!(raw(&a, &["TTL", "rq:worker:7"]).await, redis::Value::Int(540));
    let heard = text(&a, &["HGET", "rq:worker:7", "last_heartbeat"]).await;
    assert!(heard.is_some_and(|heard| heard.ends_with("02.000000Z")));
    assert_eq!(raw(&a, &["EXISTS", "rq:worker:0"]).await, redis::Value::Int(0), "and stays unknown");
    assert!(a.rq_alive(&[], 540, at(3)).await.expect("nothing to do").is_empty());
}
