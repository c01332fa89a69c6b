//! RQ's own keys beside ours: each transition by itself.

use serde_json::json;

use super::*;
use crate::broker::{Answered, RqAttempt, RqEnding, RqSay, RqShown, RqTidied, RqTidying};
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
    let wip: Vec<String> = redis::from_redis_value(raw(&a, &["ZRANGE", "rq:wip:low", "0", "-1"]).await).expect("ids");
    assert_eq!(wip, ["runs:jobsd"]);
    // It is handed back: nobody may take it for abandoned.
    let given_back = Outcome::Interrupted { reason: "the daemon stopped".to_owned() };
    let runs = claims.remove(0);
    settle(&a, &queue, vec![settlement(&a, &queue, runs, given_back, at(3))], at(3)).await;
    assert_eq!(a.rq_beat(&queue.name, &attempts[..1], at(4)).await.expect("Redis answers"), [false]);
    assert_eq!(text(&a, &["HGET", "rq:job:runs", "status"]).await.as_deref(), Some("queued"));
    assert_eq!(raw(&a, &["EXISTS", "rq:wip:low", "rq:executions:runs"]).await, redis::Value::Int(0));
}

/// A parent of two: one waits for another job too.
#[tokio::test]
async fn the_end_of_a_job_lets_those_go_that_waited_for_it_alone() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    a.enqueue(&[of_rq("parent")]).await.expect("Redis answers");
    raw(&a, &["HSET", "rq:job:parent", "data", "x", "status", "started"]).await;
    raw(&a, &["HSET", "rq:job:other", "data", "x", "status", "queued"]).await;
    for (id, parents) in [("free", &["parent"][..]), ("bound", &["parent", "other"])] {
        raw(&a, &["HSET", &format!("rq:job:{id}"), "data", "x", "status", "deferred", "origin", "high"]).await;
        raw(&a, &["SADD", "rq:job:parent:dependents", id]).await;
        raw(&a, &["ZADD", "rq:deferred:high", "+inf", id]).await;
        raw(&a, &[&["SADD", &*format!("rq:job::{id}:dependencies")], parents].concat()).await;
    }
    let claim = claim(&a, &queue, 1, at(1)).await.remove(0);
    settle(&a, &queue, vec![settlement(&a, &queue, claim, ok(), at(2))], at(2)).await;
    let owed = a.owed_jobs(&queue.name, 10).await.expect("Redis answers").remove(0);
    let ending = || RqEnding {
        say: RqSay::Finished,
        queue: "low".to_owned(),
        began: String::new(),
        ended: String::new(),
        worker: "w".to_owned(),
        keep: 500,
        value: None,
        retries_left: None,
        shown: true,
    };
    for paid in [Answered::Paid, Answered::NotOwed] {
        let answered = a.rq_answer(&[(&owed, ending())], &[], at(3)).await.expect("Redis answers");
        assert_eq!(answered, [paid]);
    }
    let list: Vec<String> =
        redis::from_redis_value(raw(&a, &["LRANGE", "rq:queue:high", "0", "-1"]).await).expect("ids");
    assert_eq!(list, ["free"], "once");
    let left: Vec<String> =
        redis::from_redis_value(raw(&a, &["SMEMBERS", "rq:job:parent:dependents"]).await).expect("ids");
    assert_eq!(left, ["bound"]);
    assert_eq!(text(&a, &["HGET", "rq:job:bound", "status"]).await.as_deref(), Some("deferred"));
    assert_eq!(text(&a, &["HGET", "rq:job:parent", "status"]).await.as_deref(), Some("finished"));
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
    let what = RqTidying {
        lock: "rq:clean_registries:low",
        queue: "low",
        abandoned: b"x",
        never_enqueued: b"y",
        groups: true,
    };
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
