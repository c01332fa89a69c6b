//! What people do to jobs and queues: each verb from a whole state to the whole state after.

use serde_json::{Value, json};

use super::*;
use crate::broker::{Admission, Altered, Change, Edit, Line, Mark, Paused, Restored, Settled, Taken, Verdict};
use crate::job::{Failure, Priority, Request, State, Wire};
use crate::store::{ForeignList, Place, QueueKeys, Standing};

struct Bench {
    _redis: RedisServer,
    broker: Broker,
    queue: Queue,
}

impl Bench {
    fn new() -> Self {
        let redis = RedisServer::start();
        let broker = node(&redis, "a");
        Self { _redis: redis, broker, queue: queue() }
    }

    async fn enqueue(&self, jobs: &[Job]) {
        self.broker.enqueue(jobs).await.expect("Redis answers");
    }

    async fn claim(&self, want: usize, now: Timestamp) -> (Vec<Claim>, Line) {
        self.broker.exchange(&self.queue, Vec::new(), true, want, now).await.claims.expect("Redis answers")
    }

    async fn claimed_ids(&self, want: usize, now: Timestamp) -> Vec<String> {
        self.claim(want, now).await.0.iter().map(|claim| claim.job.id.to_string()).collect()
    }

    /// Ends the claim's attempt; what came of it, and the claim if it is to be cancelled.
    async fn settle(&self, claim: Claim, outcome: Outcome, now: Timestamp) -> (Settled, Vec<Claim>) {
        let settlement = settlement(&self.broker, &self.queue, claim, outcome, now);
        let exchange = self.broker.exchange(&self.queue, vec![settlement], false, 0, now).await;
        (exchange.settled.expect("Redis answers")[0], exchange.to_cancel)
    }

    async fn kill(&self, id: &str, now: Timestamp) {
        self.enqueue(&[job(id, now)]).await;
        let claim = self.claim(1, now).await.0.remove(0);
        self.settle(claim, Failure::never("E", "no").into(), now).await;
        assert_eq!(self.state(id).await, Some(State::Dead));
    }

    async fn alter(&self, id: &str, change: Change) -> Altered {
        self.broker.alter(&self.queue.name, &[job_id(id)], &change, at(500)).await.expect("Redis answers").remove(0)
    }

    async fn standing(&self, id: &str) -> Option<Standing> {
        self.broker.store.job(&job_id(id), std::slice::from_ref(&self.queue.name)).await.expect("Redis answers")
    }

    async fn state(&self, id: &str) -> Option<State> {
        self.standing(id).await.map(|standing| standing.state())
    }

    fn keys(&self) -> QueueKeys {
        self.broker.keys(&self.queue.name)
    }

    async fn raw(&self, command: &[&str]) -> redis::Value {
        let mut pipeline = redis::Pipeline::new();
        pipeline.cmd(command[0]).arg(&command[1..]);
        self.broker.store.link.send(&pipeline).await.expect("Redis answers").remove(0)
    }
}

fn job_id(id: &str) -> JobId {
    JobId::parse(id).expect("a valid id")
}

fn of_priority(id: &str, steps: i64, enqueued_at: Timestamp) -> Job {
    Job { priority: Priority::new(steps).expect("in range"), ..job(id, enqueued_at) }
}

fn request() -> Request {
    Request { at: at(499), by: "ann".into(), reason: Some("wrong recipient".into()) }
}

fn cancel() -> Change {
    Change::Cancel(request())
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_at_once_and_never_runs() {
    let bench = Bench::new();
    let later = Job { due: Some(at(900)), ..job("later", at(0)) };
    bench.enqueue(&[job("now", at(0)), later]).await;
    for id in ["now", "later"] {
        assert_eq!(bench.alter(id, cancel()).await, Altered::Done(Some(State::Cancelled)));
        let standing = bench.standing(id).await.expect("it is kept");
        assert_eq!(standing.state(), State::Cancelled);
        let told = &standing.history.mishaps[0].message;
        assert!(told.contains("ann") && told.contains("wrong recipient"), "{told}");
        assert_eq!(bench.alter(id, cancel()).await, Altered::Unfit(State::Cancelled), "it has ended");
    }
    assert_eq!(bench.claimed_ids(10, at(1000)).await, Vec::<String>::new());
    assert_eq!(bench.alter("nobody", cancel()).await, Altered::Unknown);
}

#[tokio::test]
async fn a_request_against_a_running_job_outlives_its_node() {
    let bench = Bench::new();
    bench.enqueue(&[job("x", at(0))]).await;
    let lost = bench.claim(1, at(1)).await.0.remove(0);
    assert_eq!(bench.alter("x", cancel()).await, Altered::Requested);
    assert_eq!(bench.state("x").await, Some(State::Active), "it runs until its node ends it");
    assert_eq!(bench.broker.cancel_of(&bench.queue.name, &job_id("x")).await.expect("Redis answers"), Some(request()));
    // The node dies; another takes the job over and would run it again.
    drop(lost);
    let other = Broker { node: NodeId::parse("b").expect("a valid name"), ..Bench::new().broker };
    let other = Broker { store: Arc::clone(&bench.broker.store), ..other };
    let swept = other.sweep(&bench.queue.name, at(100), at(100), 10).await.expect("Redis answers").remove(0);
    let crashed = Outcome::Crashed { reason: "it died".into() };
    let settlement = settlement(&other, &bench.queue, swept.claim, crashed, at(100));
    let mut exchange = other.exchange(&bench.queue, vec![settlement], false, 0, at(100)).await;
    assert_eq!(exchange.settled.expect("Redis answers"), [Settled::ToBeCancelled]);
    let claim = exchange.to_cancel.remove(0);
    let settlement = super::settlement(&other, &bench.queue, claim, Outcome::Cancelled(request()), at(101));
    let exchange = other.exchange(&bench.queue, vec![settlement], false, 0, at(101)).await;
    assert_eq!(exchange.settled.expect("Redis answers"), [Settled::Applied]);
    assert_eq!(bench.state("x").await, Some(State::Cancelled));
    assert_eq!(bench.raw(&["EXISTS", &bench.keys().cancels]).await, redis::Value::Int(0), "the request is done");
}

#[tokio::test]
async fn a_job_that_completes_before_it_hears_stays_completed() {
    let bench = Bench::new();
    bench.enqueue(&[job("x", at(0))]).await;
    let claim = bench.claim(1, at(1)).await.0.remove(0);
    bench.alter("x", cancel()).await;
    let (settled, _) = bench.settle(claim, Outcome::Success(Value::Null), at(2)).await;
    assert_eq!(settled, Settled::Applied);
    assert_eq!(bench.state("x").await, Some(State::Completed));
    assert_eq!(bench.raw(&["EXISTS", &bench.keys().cancels]).await, redis::Value::Int(0), "nothing is left of it");
}

#[tokio::test]
async fn a_dead_job_is_retried_with_all_its_attempts_and_its_past() {
    let bench = Bench::new();
    bench.kill("x", at(0)).await;
    let args = json!({"n": 7}).as_object().cloned().expect("an object");
    let edit = Edit { args, buckets: Vec::new(), unique: None };
    assert_eq!(bench.alter("x", Change::Retry(Some(edit))).await, Altered::Done(Some(State::Pending)));
    let standing = bench.standing("x").await.expect("it exists");
    assert_eq!((standing.history.failures, standing.history.mishaps.len()), (0, 1));
    let claim = bench.claim(1, at(600)).await.0.remove(0);
    assert_eq!(claim.job.args["n"], 7);
    assert_eq!(bench.alter("x", Change::Retry(None)).await, Altered::Unfit(State::Active));
}

#[tokio::test]
async fn a_waiting_job_is_promoted_and_an_ended_one_is_not() {
    let bench = Bench::new();
    bench.enqueue(&[Job { due: Some(at(9_000)), ..job("x", at(0)) }]).await;
    assert_eq!(bench.alter("x", Change::Promote).await, Altered::Done(Some(State::Pending)));
    assert_eq!(bench.alter("x", Change::Promote).await, Altered::Unfit(State::Pending));
    assert_eq!(bench.claimed_ids(9, at(600)).await, ["x"]);
}

#[tokio::test]
async fn delete_leaves_nothing_and_never_touches_what_runs() {
    let bench = Bench::new();
    let large = json!({"text": "x".repeat(100_000)}).as_object().cloned().unwrap_or_default();
    bench.enqueue(&[Job { args: large, ..job("x", at(0)) }, job("y", at(1))]).await;
    assert_eq!(bench.alter("x", Change::Delete).await, Altered::Done(None));
    assert!(bench.standing("x").await.is_none());
    let claim = bench.claim(9, at(2)).await.0.remove(0);
    assert_eq!(bench.alter("y", Change::Delete).await, Altered::Unfit(State::Active));
    bench.settle(claim, Outcome::Success(Value::Null), at(3)).await;
    assert_eq!(bench.alter("y", Change::Delete).await, Altered::Done(None));
    let keys = bench.keys();
    for key in [&keys.jobs, &keys.history, &keys.large, &keys.pending, &keys.completed] {
        assert_eq!(bench.raw(&["EXISTS", key]).await, redis::Value::Int(0), "{key}");
    }
}

#[tokio::test]
async fn large_arguments_stand_beside_the_record_and_come_with_the_claim() {
    let bench = Bench::new();
    let args = json!({"text": "é".repeat(50_000)}).as_object().cloned().unwrap_or_default();
    bench.enqueue(&[Job { args: args.clone(), ..job("x", at(0)) }]).await;
    let redis::Value::BulkString(record) = bench.raw(&["HGET", &bench.keys().jobs, "x"]).await else { panic!() };
    assert!(record.len() < 2048, "{} bytes", record.len());
    let claim = bench.claim(1, at(1)).await.0.remove(0);
    assert_eq!(claim.job.args, args);
    let mut queue = bench.queue.clone();
    queue.keep_completed.count = 0;
    let settled = settlement(&bench.broker, &queue, claim, Outcome::Success(Value::Null), at(2));
    bench.broker.exchange(&queue, vec![settled], false, 0, at(2)).await.settled.expect("Redis answers");
    assert_eq!(bench.raw(&["EXISTS", &bench.keys().large]).await, redis::Value::Int(0), "they go with the job");
}

#[tokio::test]
async fn a_paused_queue_gives_nothing_and_settles_what_runs() {
    let bench = Bench::new();
    bench.enqueue(&[job("x", at(0)), job("y", at(1))]).await;
    let claim = bench.claim(1, at(2)).await.0.remove(0);
    bench.broker.pause(&bench.queue.name, &Paused::Queue, &request()).await.expect("Redis answers");
    assert_eq!(bench.claim(5, at(3)).await.1, Line::Paused);
    assert_eq!(bench.settle(claim, Outcome::Success(Value::Null), at(4)).await.0, Settled::Applied);
    let lists = [ForeignList::new(Wire::Rq, "emails")];
    bench.raw(&["RPUSH", "rq:queue:emails", "message"]).await;
    assert!(
        bench.broker.take(&bench.queue.name, &lists, 9, None, at(5)).await.expect("Redis answers").messages.is_empty()
    );
    assert!(bench.broker.resume(&bench.queue.name, &Paused::Queue).await.expect("Redis answers"));
    assert!(!bench.broker.resume(&bench.queue.name, &Paused::Queue).await.expect("Redis answers"), "only once");
    assert_eq!(bench.claimed_ids(5, at(6)).await, ["y"]);
}

#[tokio::test]
async fn a_paused_task_stands_in_nobodys_way_and_keeps_its_place() {
    let bench = Bench::new();
    let other = TaskName::parse("other").expect("a valid name");
    let task = Paused::Task(job("x", at(0)).task);
    let mut jobs: Vec<Job> = (0..30).map(|n| job(&format!("p{n:02}"), at(n))).collect();
    jobs.push(Job { task: other, ..job("other", at(100)) });
    bench.enqueue(&jobs).await;
    bench.broker.pause(&bench.queue.name, &task, &request()).await.expect("Redis answers");
    assert_eq!(bench.claimed_ids(4, at(200)).await, ["other"], "found behind thirty that are parked");
    let standing = bench.standing("p07").await.expect("it exists");
    assert_eq!((standing.state(), standing.place), (State::Pending, Place::Held));
    assert_eq!(bench.alter("p07", cancel()).await, Altered::Done(Some(State::Cancelled)), "also where it is parked");
    bench.broker.resume(&bench.queue.name, &task).await.expect("Redis answers");
    assert_eq!(bench.claimed_ids(3, at(201)).await, ["p00", "p01", "p02"], "in their old order");
    assert_eq!(bench.claim(99, at(202)).await.0.len(), 26);
}

#[tokio::test]
async fn a_purge_is_whole_and_can_be_taken_back() {
    let bench = Bench::new();
    let lists = [ForeignList::new(Wire::Celery, "emails"), ForeignList::new(Wire::Rq, "emails")];
    let mut jobs: Vec<Job> = (0..2_500).map(|n| job(&format!("j{n:04}"), at(n))).collect();
    jobs.push(Job { due: Some(at(9_000)), ..job("later", at(0)) });
    bench.enqueue(&jobs).await;
    for n in 0..3 {
        bench.raw(&["LPUSH", "emails", &format!("celery {n}")]).await;
        bench.raw(&["RPUSH", "rq:queue:emails", &format!("rq {n}")]).await;
    }
    let purge = bench.broker.purge(&bench.queue.name, &lists, at(100)).await.expect("Redis answers");
    assert_eq!((purge.jobs, purge.messages), (2_501, 6));
    assert_eq!(bench.claimed_ids(5, at(101)).await, Vec::<String>::new());
    assert_eq!(bench.standing("j0003").await.expect("it is in the trash").place, Place::Purged);
    bench.enqueue(&[job("new", at(5_000))]).await;
    bench.raw(&["LPUSH", "emails", "celery new"]).await;
    let back = bench.broker.restore(&bench.queue.name, &purge.id).await.expect("Redis answers");
    assert_eq!(back, Restored::All(2_507));
    assert_eq!(bench.claimed_ids(3, at(6_000)).await, ["j0000", "j0001", "j0002"]);
    assert_eq!(bench.state("later").await, Some(State::Scheduled));
    let taken = bench
        .broker
        .take(&bench.queue.name, &lists[..1], 1 << 20, None, at(6_000))
        .await
        .expect("Redis answers")
        .messages;
    let elements: Vec<_> = taken.iter().map(|taken| String::from_utf8_lossy(&taken.element).into_owned()).collect();
    assert_eq!(elements, ["celery 0", "celery 1", "celery 2", "celery new"], "the oldest first, as before");
    let again = bench.broker.restore(&bench.queue.name, &purge.id).await.expect("Redis answers");
    assert_eq!(again, Restored::Gone);
}

#[tokio::test]
async fn a_purge_that_nobody_takes_back_is_deleted_after_half_an_hour() {
    let bench = Bench::new();
    let jobs: Vec<Job> = (0..1_500).map(|n| job(&format!("j{n:04}"), at(n))).collect();
    bench.enqueue(&jobs).await;
    let purge = bench.broker.purge(&bench.queue.name, &[], at(2_000)).await.expect("Redis answers");
    bench.broker.prune(&bench.queue, at(2_000 + 29 * 60)).await.expect("Redis answers");
    assert!(bench.standing("j0000").await.is_some(), "it can still be taken back");
    bench.broker.prune(&bench.queue, at(2_000 + 31 * 60)).await.expect("Redis answers");
    assert!(bench.standing("j0000").await.is_none());
    assert_eq!(bench.raw(&["EXISTS", &bench.keys().jobs]).await, redis::Value::Int(0), "no record is left");
    let gone = bench.broker.restore(&bench.queue.name, &purge.id).await.expect("Redis answers");
    assert_eq!(gone, Restored::Gone);
}

#[tokio::test]
async fn a_purged_job_that_its_producer_sends_again_lives_its_own_life() {
    let bench = Bench::new();
    let keys = bench.keys();
    for taken_back in [true, false] {
        bench.enqueue(&[job("x", at(0)), job("y", at(1))]).await;
        let purge = bench.broker.purge(&bench.queue.name, &[], at(10)).await.expect("Redis answers");
        bench.raw(&["HSET", &keys.inflight, "a/1\0list", "x"]).await;
        let taken = Taken { field: "a/1\0list".into(), list: "list".into(), element: b"x".to_vec() };
        let again = Admission { taken, verdict: Verdict::Job(Box::new(job("x", at(20)))), hash: None };
        bench.broker.admit(&bench.queue.name, &[again], &Mark::default(), at(20)).await.expect("Redis answers");
        let claim = bench.claim(1, at(21)).await.0.remove(0);
        if taken_back {
            let back = bench.broker.restore(&bench.queue.name, &purge.id).await.expect("Redis answers");
            assert_eq!(back, Restored::All(1), "x runs already");
            assert_eq!(bench.claimed_ids(9, at(22)).await, ["y"]);
        } else {
            bench.broker.prune(&bench.queue, at(10 + 31 * 60)).await.expect("Redis answers");
            assert!(bench.standing("y").await.is_none());
        }
        assert_eq!(bench.settle(claim, Outcome::Success(Value::Null), at(23)).await.0, Settled::Applied);
        assert_eq!(bench.state("x").await, Some(State::Completed), "its record was not deleted");
        bench.raw(&["FLUSHALL"]).await;
    }
}

#[tokio::test]
async fn a_purge_that_meets_a_foreign_key_of_another_type_changes_nothing() {
    let bench = Bench::new();
    bench.enqueue(&[job("x", at(0))]).await;
    bench.raw(&["SET", "emails", "no list"]).await;
    let lists = [ForeignList::new(Wire::Celery, "emails")];
    bench.broker.purge(&bench.queue.name, &lists, at(10)).await.expect_err("it cannot be purged as a list");
    assert_eq!(bench.state("x").await, Some(State::Pending));
    assert_eq!(bench.claimed_ids(9, at(11)).await, ["x"]);
}

#[tokio::test]
async fn a_job_that_was_purged_twice_comes_back_from_the_second_when_the_first_is_over() {
    let bench = Bench::new();
    bench.enqueue(&[job("x", at(0))]).await;
    bench.broker.purge(&bench.queue.name, &[], at(10)).await.expect("Redis answers");
    bench.raw(&["HSET", &bench.keys().inflight, "a/1\0list", "x"]).await;
    let taken = Taken { field: "a/1\0list".into(), list: "list".into(), element: b"x".to_vec() };
    let again = Admission { taken, verdict: Verdict::Job(Box::new(job("x", at(600)))), hash: None };
    bench.broker.admit(&bench.queue.name, &[again], &Mark::default(), at(600)).await.expect("Redis answers");
    let second = bench.broker.purge(&bench.queue.name, &[], at(610)).await.expect("Redis answers");
    bench.broker.prune(&bench.queue, at(10 + 31 * 60)).await.expect("Redis answers");
    let back = bench.broker.restore(&bench.queue.name, &second.id).await.expect("Redis answers");
    assert_eq!(back, Restored::All(1));
    assert_eq!(bench.claimed_ids(9, at(10 + 32 * 60)).await, ["x"], "with its record");
}

#[tokio::test]
async fn what_is_parked_is_purged_too_and_comes_back_to_its_line() {
    let bench = Bench::new();
    bench.enqueue(&[job("x", at(0))]).await;
    let task = Paused::Task(job("x", at(0)).task);
    bench.broker.pause(&bench.queue.name, &task, &request()).await.expect("Redis answers");
    assert_eq!(bench.claimed_ids(9, at(1)).await, Vec::<String>::new());
    let purge = bench.broker.purge(&bench.queue.name, &[], at(10)).await.expect("Redis answers");
    assert_eq!(purge.jobs, 1);
    assert_eq!(bench.standing("x").await.expect("it is in the trash").place, Place::Purged);
    bench.broker.resume(&bench.queue.name, &task).await.expect("Redis answers");
    bench.broker.restore(&bench.queue.name, &purge.id).await.expect("Redis answers");
    assert_eq!(bench.claimed_ids(9, at(20)).await, ["x"]);
}

#[tokio::test]
async fn the_urgent_come_first_and_the_patient_come_in_the_end() {
    let bench = Bench::new();
    bench
        .enqueue(&[
            of_priority("lax", 9, at(0)),
            job("usual", at(10)),
            of_priority("urgent", -9, at(20)),
            job("late", at(9 * 60 + 1)),
        ])
        .await;
    assert_eq!(bench.claimed_ids(9, at(600)).await, ["urgent", "usual", "lax", "late"], "a step is worth a minute");
}

#[tokio::test]
async fn a_priority_survives_waiting_failing_and_being_released() {
    let bench = Bench::new();
    bench.enqueue(&[Job { due: Some(at(60)), ..of_priority("urgent", -5, at(0)) }, job("usual", at(0))]).await;
    let (claims, _) = bench.claim(1, at(61)).await;
    assert_eq!(claims[0].job.id.as_str(), "urgent", "promoted to its place in line");
    for claim in claims {
        bench.settle(claim, Failure::new("E", "no").into(), at(62)).await;
    }
    let (claims, _) = bench.claim(1, at(300)).await;
    assert_eq!(claims[0].job.id.as_str(), "urgent", "and again after its retry");
    for claim in claims {
        bench.settle(claim, Outcome::Interrupted { reason: "stopping".into() }, at(301)).await;
    }
    assert_eq!(bench.claimed_ids(2, at(302)).await, ["urgent", "usual"]);
}

#[tokio::test]
async fn the_dead_are_bounded_by_their_bytes_oldest_first() {
    let bench = Bench::new();
    for n in 0..5 {
        bench.kill(&format!("d{n}"), at(n)).await;
    }
    let mut queue = bench.queue.clone();
    let redis::Value::Int(record) = bench.raw(&["HSTRLEN", &bench.keys().jobs, "d0"]).await else { panic!() };
    let redis::Value::Int(history) = bench.raw(&["HSTRLEN", &bench.keys().history, "d0"]).await else { panic!() };
    queue.keep_dead.bytes = u64::try_from(2 * (record + history)).expect("a length");
    bench.broker.prune(&queue, at(10)).await.expect("Redis answers");
    bench.raw(&["CONFIG", "RESETSTAT"]).await;
    bench.broker.prune(&queue, at(11)).await.expect("Redis answers");
    let redis::Value::BulkString(stats) = bench.raw(&["INFO", "commandstats"]).await else { panic!() };
    let stats = String::from_utf8_lossy(&stats).into_owned();
    assert!(stats.contains("cmdstat_evalsha:calls=2,"), "deleting was news, so it is measured once more: {stats}");
    bench.raw(&["CONFIG", "RESETSTAT"]).await;
    bench.broker.prune(&queue, at(12)).await.expect("Redis answers");
    let redis::Value::BulkString(stats) = bench.raw(&["INFO", "commandstats"]).await else { panic!() };
    let stats = String::from_utf8_lossy(&stats).into_owned();
    assert!(stats.contains("cmdstat_evalsha:calls=1,"), "nothing has changed: {stats}");
    let mut left = Vec::new();
    for n in 0..5 {
        left.push(bench.state(&format!("d{n}")).await.is_some());
    }
    assert_eq!(left, [false, false, false, true, true]);
}
