//! Unique keys, scene by scene: what a walk cannot tell so plainly.

use super::*;

fn unique(key: &str, rule: UniqueRule) -> Option<Unique> {
    Some(Unique { key: UniqueKey::new(key), rule })
}

fn reject() -> UniqueRule {
    UniqueRule::Reject(Hold::Until(Until::Ended))
}

async fn enqueue(broker: &Broker, job: Job) -> Enqueued {
    broker.enqueue(&[job]).await.expect("Redis answers").remove(0)
}

/// The holder's terms count for how long it holds, the newcomer's for what becomes of it.
#[tokio::test]
async fn a_job_that_gives_way_says_to_whom_and_its_producer_is_told() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    let store = Arc::clone(&a.store);
    let (b, mut owed) = Broker::new(store, NodeId::parse("b").expect("a name"), LEASE);
    let origin = Origin::Wire { wire: Wire::Celery, list: "mails".into(), reply: json!({"id": "x"}) };
    let foreign = Job { origin, unique: unique("u", reject()), ..job("x", at(0)) };
    assert_eq!(enqueue(&a, foreign).await, Enqueued::Added);
    // It has a past, and waits for its second attempt.
    let claim = claim(&a, &queue, 1, at(1)).await.remove(0);
    settle(&a, &queue, vec![settlement(&a, &queue, claim, Failure::new("E", "no").into(), at(2))], at(2)).await;

    let replace = UniqueRule::Replace(Hold::Until(Until::Ended));
    let outcome = enqueue(&b, Job { unique: unique("u", replace), ..job("y\"1", at(3)) }).await;
    assert_eq!(outcome, Enqueued::Replaced { id: JobId::parse("x").expect("an id"), due: None });
    let replaced = view(&a, "x").await.expect("it is kept");
    assert_eq!((replaced.state(), replaced.history.failures), (State::Cancelled, 1), "its past stays");
    let end = replaced.history.end.expect("it has ended");
    assert_eq!(end.reason.as_deref(), Some("replaced by the job y\"1, which has the same unique key"));
    assert_eq!(end.at, at(3));
    let told = owed.try_recv().expect("it is told at once");
    assert_eq!((told.job.id.as_str(), told.token), ("x", 0));
    let debts = a.owed_jobs(&queue.name, 10).await.expect("Redis answers");
    assert_eq!(debts.len(), 1, "and the debt stands until it is paid");
}

#[tokio::test]
async fn in_one_call_each_job_finds_those_before_it() {
    let redis = RedisServer::start();
    let (a, mut other) = (node(&redis, "a"), job("other-queue", at(0)));
    other.queue = QueueName::parse("mails").expect("a name");
    other.unique = unique("u", reject());
    let of = |id: &str, key: &str| Job { unique: unique(key, reject()), ..job(id, at(0)) };
    let jobs = [of("a", "u"), job("plain", at(0)), of("b", "u"), of("c", "v"), other, of("a", "w")];
    let outcomes = a.enqueue(&jobs).await.expect("Redis answers");
    let Enqueued::Held(holder) = &outcomes[2] else { panic!("{outcomes:?}") };
    assert_eq!((holder.id.as_str(), holder.state, holder.free_at), ("a", Some(State::Pending), None));
    let rest = [&outcomes[0], &outcomes[1], &outcomes[3], &outcomes[4], &outcomes[5]];
    assert_eq!(rest, [&Enqueued::Added, &Enqueued::Added, &Enqueued::Added, &Enqueued::Added, &Enqueued::Exists]);
    assert!(view(&a, "b").await.is_none(), "nothing is left of what was refused");
    let keys = a.keys(&queue().name);
    assert_eq!(raw(&a, &["HLEN", &keys.unique]).await, redis::Value::Int(2), "the key of what exists is not touched");
}

#[tokio::test]
async fn more_than_fit_into_one_call_are_unique_too() {
    let redis = RedisServer::start();
    let a = node(&redis, "a");
    let of = |n: usize| Job { unique: unique(&format!("k{}", n % 250), reject()), ..job(&format!("j{n}"), at(0)) };
    let jobs: Vec<Job> = (0..600).map(of).collect();
    let outcomes = a.enqueue(&jobs).await.expect("Redis answers");
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_new()).count(), 250);
    assert!(outcomes[..250].iter().all(Enqueued::is_new));
}

/// The hash must not grow for ever, however fast keys come, and what is held stays.
#[tokio::test]
async fn keys_that_nobody_holds_are_deleted_and_the_others_stay() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    let keys = a.keys(&queue.name);
    let brief = UniqueRule::Reject(Hold::For(Duration::from_secs(1)));
    let of = |n: usize, rule| Job { unique: unique(&format!("k{n}"), rule), ..job(&format!("j{n}"), at(0)) };
    let jobs: Vec<Job> = (0..3_000).map(|n| of(n, if n % 1_000 == 0 { reject() } else { brief })).collect();
    a.enqueue(&jobs).await.expect("Redis answers");
    a.prune(&queue, at(0)).await.expect("Redis answers");
    assert_eq!(raw(&a, &["HLEN", &keys.unique]).await, redis::Value::Int(3_000));
    // A walk in which much is found goes on to its end; the one before has left it somewhere in the middle.
    for _ in 0..2 {
        a.prune(&queue, at(2)).await.expect("Redis answers");
    }
    assert_eq!(raw(&a, &["HLEN", &keys.unique]).await, redis::Value::Int(3));
}

/// What used to be imaginable: a job is edited and sent off once more, and still holds the key of its old arguments.
#[tokio::test]
async fn an_edited_job_leaves_its_old_key_and_takes_the_new_one() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    let bench = |id: &str, key: &str, now| Job { unique: unique(key, reject()), ..job(id, now) };
    a.enqueue(&[bench("x", "old", at(0)), bench("y", "taken", at(0))]).await.expect("Redis answers");
    let x = JobId::parse("x").expect("an id");
    let alter = async |change| a.alter(&queue.name, std::slice::from_ref(&x), &change, at(5)).await;
    alter(Change::Cancel(request(at(5)))).await.expect("Redis answers");
    let edit = |key: &str| {
        let unique = unique(key, reject());
        Change::Retry(Some(crate::broker::Edit { args: job("x", at(0)).args, buckets: Vec::new(), unique }))
    };
    let refused = alter(edit("taken")).await.expect("Redis answers");
    let [Altered::Held(holder)] = refused.as_slice() else { panic!("{refused:?}") };
    assert_eq!(holder.id.as_str(), "y");
    assert_eq!(state(&a, "x").await, Some(State::Cancelled), "it stays as it was");
    assert_eq!(alter(edit("new")).await.expect("Redis answers"), [Altered::Done(Some(State::Pending))]);
    assert_eq!(enqueue(&a, bench("z1", "old", at(6))).await, Enqueued::Added);
    assert!(matches!(enqueue(&a, bench("z2", "new", at(6))).await, Enqueued::Held(_)));
}

/// A full Redis takes no unique job either, and nothing is half done.
#[tokio::test]
async fn a_full_redis_refuses_a_unique_job_whole() {
    let redis = RedisServer::start();
    let a = node(&redis, "a");
    raw(&a, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let new = Job { unique: unique("u", reject()), ..job("x", at(0)) };
    a.enqueue(std::slice::from_ref(&new)).await.expect_err("it is full");
    raw(&a, &["CONFIG", "SET", "maxmemory", "0"]).await;
    assert!(view(&a, "x").await.is_none());
    assert_eq!(enqueue(&a, new).await, Enqueued::Added, "its key is free");
}
