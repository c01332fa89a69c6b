//! Each transition by itself: a whole state, one step, the whole state after.

use serde_json::json;

use super::*;
use crate::broker::{Enqueued, Fired, Paused, Settled};
use crate::job::{Failure, Request, State};

#[tokio::test]
async fn a_job_goes_from_pending_over_active_to_completed() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    let jobs = [job("first", at(0)), job("second", at(1))];
    assert_eq!(a.enqueue(&jobs).await.expect("Redis answers"), [Enqueued::Added, Enqueued::Added]);
    assert_eq!(state(&a, "first").await, Some(State::Pending));
    let mut claims = claim(&a, &queue, 1, at(2)).await;
    assert_eq!(ids(&claims), ["first"], "the oldest comes first");
    assert_eq!(state(&a, "first").await, Some(State::Active));
    let first = claims.remove(0);
    let answer = settle(&a, &queue, vec![settlement(&a, &queue, first, ok(), at(3))], at(3)).await;
    assert_eq!(answer, [Settled::Applied]);
    let view = view(&a, "first").await.expect("it is kept");
    assert_eq!((view.state(), view.active), (State::Completed, None));
    assert_eq!(view.history.end.map(|end| end.result), Some(json!("done")));
    assert_eq!(state(&a, "second").await, Some(State::Pending));
}

#[tokio::test]
async fn an_id_that_exists_is_left_as_it_is() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    a.enqueue(&[job("x", at(0))]).await.expect("Redis answers");
    assert_eq!(a.enqueue(&[job("x", at(5))]).await.expect("Redis answers"), [Enqueued::Exists]);
    assert_eq!(claim(&a, &queue, 10, at(6)).await.len(), 1, "it is there once");
}

#[tokio::test]
async fn a_node_that_ends_gives_back_what_it_never_heard_of() {
    let redis = RedisServer::start();
    let (a, b, queue) = (node(&redis, "a"), node(&redis, "b"), queue());
    a.enqueue(&[job("known", at(0)), job("lost", at(1)), job("other", at(2))]).await.expect("Redis answers");
    let known = claim(&a, &queue, 1, at(3)).await;
    drop(claim(&a, &queue, 1, at(3)).await);
    let _others = claim(&b, &queue, 1, at(3)).await;
    let leftovers = a.leftovers(&queue.name, at(3)).await.expect("Redis answers");
    assert_eq!(leftovers.iter().map(|swept| swept.claim.job.id.as_str()).collect::<Vec<_>>(), ["lost"]);
    assert!(!leftovers[0].crashed);
    drop(known);
}

#[tokio::test]
async fn heartbeats_without_a_gap_are_known_from_redis() {
    let redis = RedisServer::start();
    let (a, b, queue) = (node(&redis, "a"), node(&redis, "b"), queue());
    let beat = async |node: &Broker, now| {
        node.heartbeat(std::slice::from_ref(&queue.name), now).await.expect("Redis answers")[0].unbroken_since
    };
    assert_eq!(beat(&a, at(0)).await, at(0));
    assert_eq!(beat(&a, at(5)).await, at(0));
    assert_eq!(beat(&b, at(10)).await, at(0), "whoever beats");
    assert_eq!(beat(&a, at(20)).await, at(20), "ten seconds without any are a gap for a lease of fifteen");
    assert_eq!(beat(&a, at(5)).await, at(5), "a clock that was set back makes one too");
}

#[tokio::test]
async fn what_a_running_attempt_has_finished_is_found_by_the_next_one() {
    let redis = RedisServer::start();
    let (a, b, queue) = (node(&redis, "a"), node(&redis, "b"), queue());
    a.enqueue(&[job("x", at(0))]).await.expect("Redis answers");
    a.heartbeat(std::slice::from_ref(&queue.name), at(0)).await.expect("Redis answers");
    let taken = claim(&a, &queue, 1, at(1)).await.remove(0);
    let running = taken.running();
    let first = running.with(vec![json!("first")], json!(["a part of the second"]));
    assert!(a.keep(&running, &first).await.expect("Redis answers"));
    assert_eq!(state(&a, "x").await, Some(State::Active));
    let swept = b.sweep(&queue.name, at(1000), at(1000), 10).await.expect("Redis answers").remove(0);
    assert_eq!(swept.claim.history, first);
    let late = running.with(vec![json!("first"), json!("late")], json!(null));
    assert!(!a.keep(&running, &late).await.expect("Redis answers"), "it is another node's by now");
    let view = view(&b, "x").await.expect("it is there");
    assert_eq!(view.history, first);
}

#[tokio::test]
async fn a_settle_whose_answer_was_lost_can_be_sent_again() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    a.enqueue(&[job("x", at(0))]).await.expect("Redis answers");
    let taken = claim(&a, &queue, 1, at(1)).await.remove(0);
    let record = serde_json::to_vec(&*taken.job).expect("a job");
    let again =
        a.read_claim(&queue.name, taken.token.to_string().as_bytes(), &record, b"", taken.started).expect("a record");
    settle(&a, &queue, vec![settlement(&a, &queue, taken, ok(), at(2))], at(2)).await;
    let answer = settle(&a, &queue, vec![settlement(&a, &queue, again, ok(), at(2))], at(3)).await;
    assert_eq!(answer, [Settled::Applied], "it is recognised, not refused");
    let counted = a.store.queues(&[(queue.name.clone(), Vec::new())]).await.expect("Redis answers");
    assert_eq!((counted[0].counters.completed, counted[0].counters.refused), (1, 0), "and not counted twice");
}

#[tokio::test]
async fn a_failed_job_waits_and_is_claimed_again_when_it_is_due() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    a.enqueue(&[job("x", at(0))]).await.expect("Redis answers");
    let taken = claim(&a, &queue, 1, at(1)).await.remove(0);
    let failed = settlement(&a, &queue, taken, Failure::new("SmtpError", "451").into(), at(2));
    settle(&a, &queue, vec![failed], at(2)).await;
    assert_eq!(state(&a, "x").await, Some(State::Retry));
    assert!(claim(&a, &queue, 1, at(61)).await.is_empty(), "a second early");
    let again = claim(&a, &queue, 1, at(62)).await;
    assert_eq!(again[0].history.next_attempt(), 2);
    assert!(again[0].token > 1, "tokens grow");
}

#[tokio::test]
async fn the_claims_of_a_dead_node_are_taken_over_and_its_late_result_is_refused() {
    let redis = RedisServer::start();
    let (a, b, queue) = (node(&redis, "a"), node(&redis, "b"), queue());
    a.enqueue(&[job("x", at(0))]).await.expect("Redis answers");
    let late = claim(&a, &queue, 1, at(0)).await.remove(0);
    b.heartbeat(std::slice::from_ref(&queue.name), at(14)).await.expect("Redis answers");
    assert!(b.sweep(&queue.name, at(14), at(14), 10).await.expect("Redis answers").is_empty(), "its lease holds");
    let mut swept = b.sweep(&queue.name, at(16), at(16), 10).await.expect("Redis answers");
    let taken = swept.remove(0);
    assert!(taken.crashed);
    assert_eq!(taken.reason, "the node a, which ran it for up to 16 s, gave its last sign of life 16 s ago");
    let refused = settle(&a, &queue, vec![settlement(&a, &queue, late, ok(), at(17))], at(17)).await;
    assert_eq!(refused, [Settled::Refused]);
    assert_eq!(state(&b, "x").await, Some(State::Active), "it is b's now");
    let outcome = Outcome::Crashed { reason: taken.reason };
    settle(&b, &queue, vec![settlement(&b, &queue, taken.claim, outcome, at(17))], at(17)).await;
    assert_eq!(state(&b, "x").await, Some(State::Pending));
}

#[tokio::test]
async fn a_node_that_ended_on_purpose_is_taken_over_at_once() {
    let redis = RedisServer::start();
    let (a, b, queue) = (node(&redis, "a"), node(&redis, "b"), queue());
    a.enqueue(&[job("x", at(0))]).await.expect("Redis answers");
    let _lost = claim(&a, &queue, 1, at(0)).await;
    b.retire(&a.node, std::slice::from_ref(&queue.name)).await.expect("Redis answers");
    let swept = b.sweep(&queue.name, Timestamp::from_millis(0), at(1), 10).await.expect("Redis answers");
    assert_eq!(swept[0].reason, "the node a, which ran it for up to 1 s, has ended without handing it back");
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_given_back() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    a.enqueue(&[job("x", at(0)), job("y", at(1))]).await.expect("Redis answers");
    let known = claim(&a, &queue, 1, at(2)).await;
    // Another broker under the same node id: Redis gives the claim to node a, and a never hears of it.
    let deaf = node(&redis, "a");
    claim(&deaf, &queue, 1, at(2)).await;
    let young = a.sweep(&queue.name, at(3), at(3), 10).await.expect("Redis answers");
    assert!(young.is_empty(), "its answer may still be on the way");
    let swept = a.sweep(&queue.name, at(13), at(13), 10).await.expect("Redis answers");
    assert_eq!(swept.len(), 1);
    assert_eq!((swept[0].claim.job.id.as_str(), swept[0].crashed), ("y", false));
    assert_eq!(ids(&known), ["x"], "what is known stays");
}

#[tokio::test]
async fn ended_jobs_never_outgrow_their_bound() {
    let redis = RedisServer::start();
    let (a, mut queue) = (node(&redis, "a"), queue());
    queue.keep_completed.count = 3;
    let jobs: Vec<Job> = (0..10).map(|n| job(&format!("j{n}"), at(n))).collect();
    a.enqueue(&jobs).await.expect("Redis answers");
    for n in 0..10 {
        let claims = claim(&a, &queue, 1, at(20 + n)).await;
        let ended = claims.into_iter().map(|c| settlement(&a, &queue, c, ok(), at(20 + n))).collect();
        settle(&a, &queue, ended, at(20 + n)).await;
    }
    assert_eq!(state(&a, "j6").await, None);
    assert_eq!(state(&a, "j7").await, Some(State::Completed));
    let keys = a.keys(&queue.name);
    assert_eq!(raw(&a, &["HLEN", &keys.jobs]).await, redis::Value::Int(3));
    assert_eq!(raw(&a, &["HLEN", &keys.history]).await, redis::Value::Int(3));
}

/// As when a node is killed before its answers were out, and others go on ending jobs.
#[tokio::test]
async fn prune_deletes_what_is_past_its_age() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    a.enqueue(&[job("old", at(0)), job("young", at(1))]).await.expect("Redis answers");
    for (n, claim) in claim(&a, &queue, 2, at(2)).await.into_iter().enumerate() {
        let now = at(10 + 100 * n as u64);
        settle(&a, &queue, vec![settlement(&a, &queue, claim, ok(), now)], now).await;
    }
    assert_eq!(a.prune(&queue, at(3650)).await.expect("Redis answers"), 1);
    assert_eq!((state(&a, "old").await, state(&a, "young").await), (None, Some(State::Completed)));
}

#[tokio::test]
async fn a_fire_is_enqueued_once_over_all_nodes() {
    let redis = RedisServer::start();
    let (a, b, queue) = (node(&redis, "a"), node(&redis, "b"), queue());
    let fire = |seconds: u64| job(&format!("cron:nightly:{}", at(seconds).as_millis()), at(seconds));
    assert_eq!(a.last_fire(&queue.name, "nightly", at(0)).await.expect("Redis answers"), at(0), "it starts now");
    assert_eq!(b.last_fire(&queue.name, "nightly", at(50)).await.expect("Redis answers"), at(0), "for everybody");
    assert_eq!(a.fire("nightly", at(60), &fire(60), true).await.expect("Redis answers"), Fired::Enqueued);
    assert_eq!(b.fire("nightly", at(60), &fire(60), true).await.expect("Redis answers"), Fired::DoneBefore);
    assert_eq!(b.last_fire(&queue.name, "nightly", at(61)).await.expect("Redis answers"), at(60));
    assert_eq!(claim(&a, &queue, 10, at(61)).await.len(), 1);
}

#[tokio::test]
async fn fires_are_left_out_for_as_long_as_the_job_runs() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    let fire = |seconds: u64| job(&format!("cron:nightly:{}", at(seconds).as_millis()), at(seconds));
    let mut answers = Vec::new();
    for seconds in [60, 120, 180] {
        answers.push(a.fire("nightly", at(seconds), &fire(seconds), true).await.expect("Redis answers"));
    }
    assert_eq!(answers, [Fired::Enqueued, Fired::Overlaps, Fired::Overlaps]);
    assert_eq!(a.fire("nightly", at(240), &fire(240), false).await.expect("Redis answers"), Fired::Enqueued);
    for taken in claim(&a, &queue, 10, at(241)).await {
        settle(&a, &queue, vec![settlement(&a, &queue, taken, ok(), at(242))], at(242)).await;
    }
    assert_eq!(a.fire("nightly", at(300), &fire(300), true).await.expect("Redis answers"), Fired::Enqueued);
}

#[tokio::test]
async fn a_fire_is_left_out_too_while_the_job_is_parked() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    let fire = |second| job(&format!("cron:nightly:{second}"), at(second));
    assert_eq!(a.fire("nightly", at(60), &fire(60), true).await.expect("Redis answers"), Fired::Enqueued);
    let (task, by) = (Paused::Task(fire(60).task), Request { at: at(61), by: "ann".into(), reason: None });
    a.pause(&queue.name, &task, &by).await.expect("Redis answers");
    assert_eq!(claim(&a, &queue, 1, at(62)).await.len(), 0, "it is parked now");
    assert_eq!(a.fire("nightly", at(120), &fire(120), true).await.expect("Redis answers"), Fired::Overlaps);
}

#[tokio::test]
async fn a_fire_from_the_future_does_not_silence_a_schedule() {
    let redis = RedisServer::start();
    let a = node(&redis, "a");
    let keys = a.keys(&queue().name);
    raw(&a, &["HSET", &keys.fires, "nightly", &at(1_000_000).as_millis().to_string()]).await;
    assert_eq!(
        a.fire("nightly", at(60), &job("cron:nightly:60", at(60)), true).await.expect("Redis answers"),
        Fired::Enqueued
    );
}

#[tokio::test]
async fn a_claim_that_is_dropped_is_found_by_the_next_sweep() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    a.enqueue(&[job("x", at(0))]).await.expect("Redis answers");
    drop(claim(&a, &queue, 1, at(1)).await);
    let swept = a.sweep(&queue.name, at(12), at(12), 10).await.expect("Redis answers");
    assert_eq!(swept.len(), 1, "as if a pool had panicked");
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_buried_and_the_others_are_not() {
    let redis = RedisServer::start();
    let (a, b, queue) = (node(&redis, "a"), node(&redis, "b"), queue());
    a.enqueue(&[job("bad", at(0)), job("good", at(1))]).await.expect("Redis answers");
    let keys = a.keys(&queue.name);
    raw(&a, &["HSET", &keys.jobs, "bad", "{\"from\":\"the future\"}"]).await;
    let claims = claim(&a, &queue, 2, at(2)).await;
    assert_eq!(ids(&claims), ["good"]);
    drop(claims);
    b.heartbeat(std::slice::from_ref(&queue.name), at(20)).await.expect("Redis answers");
    let swept = b.sweep(&queue.name, at(20), at(20), 10).await.expect("Redis answers");
    assert_eq!(swept.iter().map(|s| s.claim.job.id.as_str()).collect::<Vec<_>>(), ["good"]);
    assert!(matches!(raw(&b, &["ZSCORE", &keys.dead, "bad"]).await, redis::Value::BulkString(_)), "dead, not stuck");
    assert_eq!(raw(&b, &["HLEN", &keys.active]).await, redis::Value::Int(1), "only the good one is active");
}

/// As after a return to a version that does not know their form.
#[tokio::test]
async fn any_number_of_records_that_cannot_be_read_is_buried() {
    const MANY: usize = 9_000;
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    let keys = a.keys(&queue.name);
    let fill = "for n = 1, ARGV[1] do redis.call('HSET', KEYS[1], n, '{}') redis.call('ZADD', KEYS[2], n, n) end";
    raw(&a, &["EVAL", fill, "2", &keys.jobs, &keys.pending, &MANY.to_string()]).await;
    for _ in 0..MANY / 500 {
        assert_eq!(claim(&a, &queue, 500, at(2)).await.len(), 0, "no record can be read");
    }
    assert_eq!(a.sweep(&queue.name, at(20), at(20), 10).await.expect("Redis answers").len(), 0);
    assert_eq!(raw(&a, &["ZCARD", &keys.dead]).await, redis::Value::Int(MANY as i64));
    assert_eq!(raw(&a, &["HLEN", &keys.active]).await, redis::Value::Int(0));
}
