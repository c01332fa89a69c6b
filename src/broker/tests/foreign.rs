//! Foreign messages and the answers owed for them: each transition by itself.

use serde_json::Value;

use super::*;
use crate::broker::{
    Admission, Admitted, Answer, Answered, Entry, Guard, OwedJob, Taken, Tally, TallyKeys, Verdict, Withdrawn,
};
use crate::job::{Cause, History, State, Wire};
use crate::store::ForeignList;

#[tokio::test]
async fn no_bound_deletes_a_job_before_its_producer_has_the_answer() {
    let redis = RedisServer::start();
    let (a, mut queue) = (node(&redis, "a"), queue());
    queue.keep_completed.count = 1;
    let origin = Origin::Wire { wire: Wire::Rq, list: "mails".into(), reply: Value::Null };
    let jobs: Vec<Job> = (0..3).map(|n| Job { origin: origin.clone(), ..job(&format!("j{n}"), at(n)) }).collect();
    a.enqueue(&jobs).await.expect("Redis answers");
    for (second, claim) in (10..).zip(claim(&a, &queue, 3, at(4)).await) {
        settle(&a, &queue, vec![settlement(&a, &queue, claim, ok(), at(second))], at(second)).await;
    }
    queue.keep_completed.bytes = 0;
    a.prune(&queue, at(20)).await.expect("Redis answers");
    let owed = a.owed_jobs(&queue.name, 10).await.expect("Redis answers");
    assert_eq!(owed.len(), 3, "all can be answered");
    let nothing = Answer::default();
    let answers: Vec<_> = owed.iter().map(|owed| (owed, &nothing)).collect();
    a.answer(&answers).await.expect("Redis answers");
    a.prune(&queue, at(20)).await.expect("Redis answers");
    assert_eq!(raw(&a, &["HLEN", &a.keys(&queue.name).jobs]).await, redis::Value::Int(0), "and then they go");
}

fn dead(now: Timestamp) -> History {
    let end = crate::job::End {
        state: State::Dead,
        at: now,
        started: None,
        node: None,
        result: Value::Null,
        cause: Some(Cause::UnknownTask),
        reason: None,
    };
    History { end: Some(end), ..History::default() }
}

#[tokio::test]
async fn a_message_is_in_one_place_from_its_list_to_its_job() {
    let redis = RedisServer::start();
    let (a, b, queue) = (node(&redis, "a"), node(&redis, "b"), queue());
    let lists = [ForeignList::new(Wire::Celery, "mails")];
    raw(&a, &["LPUSH", "mails", "one", "two", "three"]).await;
    let taken = a.take(&queue.name, &lists, 2, None, at(0)).await.expect("Redis answers").messages;
    assert_eq!(taken.iter().map(|t| t.element.as_slice()).collect::<Vec<_>>(), [b"one", b"two"], "from the tail");
    // a dies before it admits them.
    assert!(b.adopt(&queue.name, at(10), 10).await.expect("Redis answers").is_empty(), "its lease holds");
    let adopted = b.adopt(&queue.name, at(20), 10).await.expect("Redis answers");
    assert_eq!(adopted.len(), 2);
    let mut admissions: Vec<Admission> = adopted
        .into_iter()
        .map(|taken| {
            let id = String::from_utf8_lossy(&taken.element).into_owned();
            Admission { taken, verdict: Verdict::Job(Box::new(job(&id, at(20)))), hash: None }
        })
        .collect();
    admissions[1].verdict = Verdict::Refused(Box::new(job("bad", at(20))), Box::new(dead(at(20))));
    let answer = b.admit(&queue.name, &admissions, Withdrawn::default(), at(20)).await.expect("Redis answers");
    assert_eq!(answer, [Admitted::Yes, Admitted::Yes]);
    let again = b.admit(&queue.name, &admissions, Withdrawn::default(), at(21)).await.expect("Redis answers");
    assert_eq!(again, [Admitted::DoneBefore, Admitted::DoneBefore], "an admission can be repeated");
    let late = Admission { taken: taken[0].clone(), verdict: Verdict::Job(Box::new(job("twice", at(21)))), hash: None };
    assert_eq!(
        a.admit(&queue.name, &[late], Withdrawn::default(), at(21)).await.expect("Redis answers"),
        [Admitted::DoneBefore]
    );
    assert_eq!(state(&b, "bad").await, Some(State::Dead));
    let owed = b.owed_jobs(&queue.name, 10).await.expect("Redis answers");
    assert_eq!(owed.iter().map(|o| o.job.id.as_str()).collect::<Vec<_>>(), ["bad"], "its producer is owed an answer");
    assert_eq!(raw(&b, &["LLEN", "mails"]).await, redis::Value::Int(1), "the third waits in its own list");
}

#[tokio::test]
async fn what_is_pending_leaves_less_room_for_foreign_messages() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    let lists = [ForeignList::new(Wire::Rq, "mails")];
    raw(&a, &["RPUSH", "rq:queue:mails", "one", "two"]).await;
    a.enqueue(&[job("x", at(0)), job("y", at(0))]).await.expect("Redis answers");
    let none = a.take(&queue.name, &lists, 2, None, at(1)).await.expect("Redis answers");
    assert_eq!((none.messages.len(), none.pending), (0, Some(2)));
    assert_eq!(a.take(&queue.name, &lists, 3, None, at(1)).await.expect("Redis answers").messages[0].element, b"one");
}

#[tokio::test]
async fn wires_and_the_lists_of_celery_take_turns() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    let lists = [(Wire::Celery, "a"), (Wire::Celery, "b"), (Wire::Rq, "high"), (Wire::Rq, "low")]
        .map(|(wire, name)| ForeignList::new(wire, name));
    let put = async |list: &str, elements: &[&str]| {
        raw(&a, &[&["RPUSH", list][..], elements].concat()).await;
    };
    // RQ's own worker serves its queues in their order, and Celery's takes the lowest step first.
    put("a", &["a5", "a4", "a3", "a2", "a1"]).await;
    put("b", &["b1"]).await;
    put("b\u{6}\u{16}3", &["late"]).await;
    put("rq:queue:high", &["h1", "h2"]).await;
    put("rq:queue:low", &["l1", "l2"]).await;
    let take = async |room| {
        let haul = a.take(&queue.name, &lists, room, None, at(1)).await.expect("Redis answers");
        let elements = haul.messages.iter().map(|taken| String::from_utf8_lossy(&taken.element).into_owned());
        elements.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(take(7).await, "a1 h1 b1 h2 a2 l1 a3");
    assert_eq!(take(9).await, "a4 l2 a5 late");
    assert_eq!(take(9).await, "");
    raw(&a, &["SET", "rq:suspended", "1"]).await;
    put("a", &["a6"]).await;
    put("rq:queue:low", &["l3"]).await;
    assert_eq!(take(9).await, "a6", "RQ's workers are suspended");
}

#[tokio::test]
async fn a_producers_id_can_be_used_again_once_its_job_has_ended() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    let lists = [ForeignList::new(Wire::Celery, "mails")];
    let mut answers = Vec::new();
    for round in 0..3 {
        raw(&a, &["LPUSH", "mails", "message"]).await;
        let taken: Vec<Taken> = a.take(&queue.name, &lists, 10, None, at(round)).await.expect("Redis answers").messages;
        let verdict = Verdict::Job(Box::new(job("same", at(round))));
        let admission = Admission { taken: taken[0].clone(), verdict, hash: None };
        answers.push(
            a.admit(&queue.name, &[admission], Withdrawn::default(), at(round)).await.expect("Redis answers").remove(0),
        );
        if round == 1 {
            let taken = claim(&a, &queue, 1, at(2)).await.remove(0);
            settle(&a, &queue, vec![settlement(&a, &queue, taken, ok(), at(2))], at(2)).await;
        }
    }
    assert_eq!(answers, [Admitted::Yes, Admitted::LivesAlready, Admitted::Yes]);
    let view = view(&a, "same").await.expect("it is there");
    assert_eq!((view.state(), view.history), (State::Pending, History::default()), "it starts over");
}

#[tokio::test]
async fn refused_messages_do_not_outgrow_the_bound_either() {
    let redis = RedisServer::start();
    let (a, mut queue) = (node(&redis, "a"), queue());
    queue.keep_dead.count = 2;
    let lists = [ForeignList::new(Wire::Celery, "mails")];
    for n in 0..5 {
        raw(&a, &["LPUSH", "mails", "message"]).await;
        let taken = a.take(&queue.name, &lists, 1, None, at(n)).await.expect("Redis answers").messages.remove(0);
        let verdict = Verdict::Refused(Box::new(job(&format!("bad{n}"), at(n))), Box::new(dead(at(n))));
        a.admit(&queue.name, &[Admission { taken, verdict, hash: None }], Withdrawn::default(), at(n))
            .await
            .expect("Redis answers");
    }
    for owed in a.owed_jobs(&queue.name, 10).await.expect("Redis answers") {
        a.answer(&[(&owed, &Answer::default())]).await.expect("Redis answers");
    }
    assert_eq!(a.prune(&queue, at(10)).await.expect("Redis answers"), 3);
    assert_eq!((state(&a, "bad2").await, state(&a, "bad3").await), (None, Some(State::Dead)));
}

#[tokio::test]
async fn an_admitted_job_is_marked_in_its_producers_hash_unless_it_was_withdrawn() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    let lists = [ForeignList::new(Wire::Rq, "mails")];
    raw(&a, &["HSET", "rq:job:kept", "status", "queued"]).await;
    raw(&a, &["EXPIRE", "rq:job:kept", "100"]).await;
    raw(&a, &["HSET", "rq:job:cancelled", "status", "canceled"]).await;
    raw(&a, &["RPUSH", "rq:queue:mails", "kept", "cancelled", "deleted"]).await;
    let taken = a.take(&queue.name, &lists, 10, None, at(0)).await.expect("Redis answers").messages;
    let admissions: Vec<Admission> = taken
        .into_iter()
        .map(|taken| {
            let id = String::from_utf8_lossy(&taken.element).into_owned();
            let hash = Some(format!("rq:job:{id}"));
            Admission { taken, verdict: Verdict::Job(Box::new(job(&id, at(0)))), hash }
        })
        .collect();
    let withdrawn = Withdrawn("status", "canceled");
    let answers = a.admit(&queue.name, &admissions, withdrawn, at(0)).await.expect("Redis answers");
    assert_eq!(answers, [Admitted::Yes, Admitted::Withdrawn, Admitted::Yes]);
    assert_eq!(raw(&a, &["TTL", "rq:job:kept"]).await, redis::Value::Int(-1), "it cannot vanish while it runs");
    assert_eq!(raw(&a, &["EXISTS", "rq:job:deleted"]).await, redis::Value::Int(0), "and what is gone stays gone");
    assert_eq!(ids(&claim(&a, &queue, 10, at(1)).await), ["kept", "deleted"]);
}

/// What used to happen: messages that were taken together started in the order of their ids.
#[tokio::test]
async fn messages_that_come_together_start_in_their_order() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    let lists = [ForeignList::new(Wire::Celery, "mails")];
    let sent: Vec<String> = (0..100).map(|n| format!("{:02}-{n}", (n * 37) % 100)).collect();
    for id in &sent {
        raw(&a, &["LPUSH", "mails", id]).await;
    }
    let taken = a.take(&queue.name, &lists, 100, None, at(0)).await.expect("Redis answers").messages;
    let admission = |taken: Taken| {
        let id = String::from_utf8_lossy(&taken.element).into_owned();
        Admission { taken, verdict: Verdict::Job(Box::new(job(&id, at(0)))), hash: None }
    };
    let admissions: Vec<Admission> = taken.into_iter().map(admission).collect();
    a.admit(&queue.name, &admissions, Withdrawn::default(), at(0)).await.expect("Redis answers");
    assert_eq!(ids(&claim(&a, &queue, 100, at(1)).await), sent);
}

#[tokio::test]
async fn an_answer_is_written_once_and_only_under_its_guard() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    let mut foreign = job("x", at(0));
    foreign.origin = Origin::Wire { wire: Wire::Celery, list: "mails".to_owned(), reply: Value::Null };
    a.enqueue(&[foreign]).await.expect("Redis answers");
    let taken = claim(&a, &queue, 1, at(1)).await.remove(0);
    settle(&a, &queue, vec![settlement(&a, &queue, taken, ok(), at(2))], at(2)).await;
    let owed = a.owed_jobs(&queue.name, 10).await.expect("Redis answers").remove(0);
    let answer = || {
        let mut answer = Answer::default();
        answer.guard = Guard::Unless { key: "result".into(), begins: "done" };
        answer.command("APPEND {} done", &[&"result"]);
        answer
    };
    assert_eq!(a.answer(&[(&owed, &answer())]).await.expect("Redis answers"), [Answered::Paid]);
    assert_eq!(a.answer(&[(&owed, &answer())]).await.expect("Redis answers"), [Answered::NotOwed], "the debt is paid");
    assert_eq!(raw(&a, &["GET", "result"]).await, redis::Value::BulkString(b"done".to_vec()));
    raw(&a, &["HSET", &a.keys(&queue.name).outbox, "x", &owed.token.to_string()]).await;
    assert_eq!(
        a.answer(&[(&owed, &answer())]).await.expect("Redis answers"),
        [Answered::Paid],
        "paid, but not written again"
    );
    assert_eq!(raw(&a, &["GET", "result"]).await, redis::Value::BulkString(b"done".to_vec()));
}

/// A job of RQ's that has ended and whose producer waits, as it stands in the outbox.
async fn owed(broker: &Broker, queue: &Queue, ids: &[&str]) -> Vec<OwedJob> {
    let foreign = |id: &&str| Job {
        origin: Origin::Wire { wire: Wire::Rq, list: "mails".to_owned(), reply: Value::Null },
        ..job(id, at(0))
    };
    broker.enqueue(&ids.iter().map(foreign).collect::<Vec<_>>()).await.expect("Redis answers");
    let claims = claim(broker, queue, ids.len(), at(1)).await;
    let settlements = claims.into_iter().map(|claim| settlement(broker, queue, claim, ok(), at(2))).collect();
    settle(broker, queue, settlements, at(2)).await;
    let mut owed = broker.owed_jobs(&queue.name, 10).await.expect("Redis answers");
    owed.sort_by(|a, b| a.job.id.as_str().cmp(b.job.id.as_str()));
    owed
}

#[tokio::test]
async fn an_answer_that_redis_refuses_costs_no_other() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    let owed = owed(&a, &queue, &["bad", "early", "good"]).await;
    raw(&a, &["SET", "results:bad", "of another type"]).await;
    let answer = |owed: &OwedJob| {
        let mut answer = Answer::default();
        let id = owed.job.id.as_str();
        answer.command("HSET {} status {}", &[&format!("results:{id}"), &"{}"]);
        answer.command("RPUSH {} {}", &[&"finished", &id]);
        answer
    };
    let answers: Vec<Answer> = owed.iter().map(answer).collect();
    let all: Vec<_> = owed.iter().zip(&answers).collect();
    let answered = a.answer(&all).await.expect("Redis answers");
    assert!(matches!(&answered[0], Answered::Refused(words) if words.contains("WRONGTYPE")), "{answered:?}");
    assert_eq!(answered[1..], [Answered::Paid, Answered::Paid]);
    let finished = raw(&a, &["LRANGE", "finished", "0", "-1"]).await;
    assert_eq!(redis::from_redis_value::<Vec<String>>(finished).expect("names"), ["early", "good"]);
    raw(&a, &["DEL", "results:bad"]).await;
    let twice = [(&owed[0], &answers[0]), (&owed[0], &answers[0])];
    assert_eq!(a.answer(&twice).await.expect("Redis answers"), [Answered::Paid, Answered::NotOwed], "its debt stood");
    assert_eq!(raw(&a, &["EXISTS", &a.keys(&queue.name).outbox]).await, redis::Value::Int(0));
}

#[tokio::test]
async fn a_tally_is_completed_by_whoever_knew_that_it_would_be() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    let owed = owed(&a, &queue, &["one", "two"]).await;
    let keys = TallyKeys { entries: "t.j".into(), size: "t.s".into(), more: "t.t".into(), keep: Some(100) };
    let answer = |id: &str, full| {
        let mut answer = Answer::default();
        answer.command("RPUSH {} {}", &[&"said", &id]);
        answer.check("body", "list");
        let text = |state: &str| format!("[{id} {state}");
        let entry = Entry { score: "1".into(), begins: text(""), stands: text("good"), text: text("good") };
        answer.tallies.push(Tally { keys: keys.clone(), entries: vec![entry], full });
        if full.is_some() {
            answer.other("RPUSH {} {}", &[&"body", &id]);
        }
        answer
    };
    let send =
        async |at: usize, answer: Answer| a.answer(&[(&owed[at], &answer)]).await.expect("Redis answers").remove(0);
    assert_eq!(send(0, answer("one", Some(1))).await, Answered::Overtaken, "no size is told");
    raw(&a, &["SET", "t.s", "1"]).await;
    raw(&a, &["SET", "t.t", "1"]).await;
    assert_eq!(raw(&a, &["EXISTS", "said", "t.j", "body"]).await, redis::Value::Int(0), "and nothing is written");
    raw(&a, &["ZADD", "t.j", "1", "[one bad"]).await;
    assert_eq!(send(0, answer("one", None)).await, Answered::Paid);
    assert_eq!(raw(&a, &["ZRANGE", "t.j", "0", "-1"]).await, array(&["[one good"]), "what came again counts once");
    assert_eq!(send(1, answer("two", None)).await, Answered::Overtaken, "it would be full");
    assert_eq!(send(1, answer("two", Some(3))).await, Answered::Overtaken, "with fewer");
    raw(&a, &["SET", "body", "of another type"]).await;
    let refused = send(1, answer("two", Some(2))).await;
    assert!(matches!(&refused, Answered::Refused(words) if words.contains("WRONGTYPE")), "{refused:?}");
    assert_eq!(raw(&a, &["LRANGE", "said", "0", "-1"]).await, array(&["one"]), "nothing that would be said again");
    raw(&a, &["DEL", "body"]).await;
    assert_eq!(send(1, answer("two", Some(2))).await, Answered::Paid);
    assert_eq!(send(1, answer("two", Some(2))).await, Answered::NotOwed);
    assert_eq!(raw(&a, &["LRANGE", "body", "0", "-1"]).await, array(&["two"]));
    assert_eq!(raw(&a, &["TTL", "t.s"]).await, redis::Value::Int(100));
}

fn array(texts: &[&str]) -> redis::Value {
    redis::Value::Array(texts.iter().map(|text| redis::Value::BulkString(text.as_bytes().to_vec())).collect())
}

#[tokio::test]
async fn messages_of_one_id_in_one_call_are_judged_one_after_another() {
    let redis = RedisServer::start();
    let (a, queue) = (node(&redis, "a"), queue());
    let lists = [ForeignList::new(Wire::Celery, "mails")];
    raw(&a, &["LPUSH", "mails", "refused", "good", "again", "other"]).await;
    let taken = a.take(&queue.name, &lists, 10, None, at(0)).await.expect("Redis answers").messages;
    let admission = |taken: &Taken| {
        let verdict = match taken.element.as_slice() {
            b"refused" => Verdict::Refused(Box::new(job("same", at(0))), Box::new(dead(at(0)))),
            b"other" => Verdict::Job(Box::new(job("other", at(0)))),
            _ => Verdict::Job(Box::new(job("same", at(0)))),
        };
        Admission { taken: taken.clone(), verdict, hash: None }
    };
    let admissions: Vec<Admission> = taken.iter().map(admission).collect();
    let admitted = a.admit(&queue.name, &admissions, Withdrawn::default(), at(0)).await.expect("Redis answers");
    assert_eq!(admitted, [Admitted::Yes, Admitted::Yes, Admitted::LivesAlready, Admitted::Yes]);
    let keys = a.keys(&queue.name);
    assert_eq!(raw(&a, &["ZCARD", &keys.dead]).await, redis::Value::Int(0), "the second message started it over");
    assert_eq!(raw(&a, &["EXISTS", &keys.inflight]).await, redis::Value::Int(0));
    assert_eq!(raw(&a, &["EXISTS", &keys.history]).await, redis::Value::Int(0));
    assert_eq!(ids(&claim(&a, &queue, 10, at(1)).await), ["same", "other"]);
}
