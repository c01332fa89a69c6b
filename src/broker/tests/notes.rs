//! What jobs say of themselves, and that it goes when they go.

use super::*;
use crate::broker::{Change, Speaker};
use crate::job::{Line, Notes, Source};

fn notes(text: &str) -> Notes {
    let mut notes = Notes::default();
    notes.begin(1, NodeId::parse("n1").expect("a valid name"), at(0));
    notes.add(0, [Line { at: at(0), source: Source::Log, text: text.to_owned() }]);
    notes
}

async fn said(broker: &Broker, id: &str) -> Notes {
    broker.store.notes(&queue().name, &JobId::parse(id).expect("a valid id")).await.expect("Redis answers")
}

/// Runs these jobs to their end at this time; each has said something.
async fn ended(broker: &Broker, queue: &Queue, names: &[&str], now: Timestamp) {
    let jobs: Vec<Job> = names.iter().map(|name| job(name, now)).collect();
    broker.enqueue(&jobs).await.expect("Redis answers");
    let claims = claim(broker, queue, names.len(), now).await;
    assert_eq!(claims.len(), names.len());
    let mut settlements = Vec::new();
    for claim in claims {
        assert!(broker.note(&Speaker::of(&claim), &notes("something")).await.expect("Redis answers"));
        settlements.push(settlement(broker, queue, claim, ok(), now));
    }
    settle(broker, queue, settlements, now).await;
}

#[tokio::test]
async fn only_the_attempt_that_runs_may_speak_and_what_it_said_stays() {
    let redis = RedisServer::start();
    let (first, second, queue) = (node(&redis, "n1"), node(&redis, "n2"), queue());
    first.enqueue(&[job("j1", at(0))]).await.expect("Redis answers");
    let claimed = claim(&first, &queue, 1, at(0)).await.pop().expect("a claim");
    let speaker = Speaker::of(&claimed);
    assert!(first.note(&speaker, &notes("the first")).await.expect("Redis answers"));
    assert_eq!(said(&second, "j1").await, notes("the first"), "every node reads it");
    // Its node falls silent, and another one takes over.
    let later = at(60);
    let swept = second.sweep(&queue.name, later, later, 10).await.expect("Redis answers").pop().expect("a claim");
    let next = Speaker::of(&swept.claim);
    assert!(!first.note(&speaker, &notes("a late word")).await.expect("Redis answers"));
    assert!(second.note(&next, &notes("the second")).await.expect("Redis answers"));
    let done = settlement(&second, &queue, swept.claim, ok(), later);
    settle(&second, &queue, vec![done], later).await;
    assert!(!second.note(&next, &notes("after the end")).await.expect("Redis answers"));
    assert_eq!(said(&first, "j1").await, notes("the second"), "it outlives the attempt");
}

#[tokio::test]
async fn whatever_deletes_a_job_deletes_what_it_said() {
    let redis = RedisServer::start();
    let (broker, mut queue) = (node(&redis, "n1"), queue());
    let left = async |what: &str| {
        let key = broker.store.keys.queue(&super::queue().name).notes;
        assert_eq!(raw(&broker, &["HLEN", &key]).await, redis::Value::Int(0), "{what}");
    };
    ended(&broker, &queue, &["j1"], at(0)).await;
    let id = JobId::parse("j1").expect("a valid id");
    broker.alter(&queue.name, std::slice::from_ref(&id), &Change::Delete, at(1)).await.expect("Redis answers");
    left("deleted by hand").await;

    ended(&broker, &queue, &["j2"], at(10)).await;
    broker.prune(&queue, at(100_000)).await.expect("Redis answers");
    left("its age is over").await;

    ended(&broker, &queue, &["j3", "j4"], at(20)).await;
    queue.keep_completed.bytes = 0;
    broker.prune(&queue, at(21)).await.expect("Redis answers");
    left("its bytes are too many").await;

    queue.keep_completed.count = 0;
    ended(&broker, &queue, &["j5"], at(30)).await;
    left("none is to be kept").await;

    // Failed once, it waits again and is purged.
    broker.enqueue(&[job("j6", at(40))]).await.expect("Redis answers");
    let claimed = claim(&broker, &queue, 1, at(40)).await.pop().expect("a claim");
    broker.note(&Speaker::of(&claimed), &notes("something")).await.expect("Redis answers");
    let again = settlement(&broker, &queue, claimed, Outcome::Interrupted { reason: "a stop".into() }, at(41));
    settle(&broker, &queue, vec![again], at(41)).await;
    assert_eq!(said(&broker, "j6").await, notes("something"));
    broker.purge(&queue.name, &[], at(42)).await.expect("Redis answers");
    broker.prune(&queue, at(200_000)).await.expect("Redis answers");
    left("its purge is over").await;
}

#[tokio::test]
async fn what_jobs_said_counts_among_the_bytes_that_are_kept() {
    let redis = RedisServer::start();
    let (broker, mut queue) = (node(&redis, "n1"), queue());
    ended(&broker, &queue, &["j1", "j2"], at(0)).await;
    let keys = broker.store.keys.queue(&queue.name);
    let mut bytes = 0;
    for hash in [keys.jobs, keys.history, keys.notes] {
        let redis::Value::Int(length) = raw(&broker, &["HSTRLEN", &hash, "j2"]).await else { panic!("a length") };
        bytes += u64::try_from(length).expect("a length");
    }
    queue.keep_completed.bytes = 2 * bytes - 1;
    assert_eq!(broker.prune(&queue, at(1)).await.expect("Redis answers"), 1);
}
