//! Every cause, the sentence that tells it, and which of several is told.

use std::time::Duration;

use super::*;
use crate::job::flow::Stand;
use crate::job::{FlowId, JobId, MemberName, QueueName};

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
}

fn name(text: &str) -> QueueName {
    QueueName::parse(text).expect("a valid name")
}

fn request(by: &str) -> Request {
    Request { at: at(40), by: by.to_owned(), reason: Some("SMTP is down".to_owned()) }
}

fn node(id: &str, running: usize) -> ServingNode {
    ServingNode {
        node: NodeId::parse(id).expect("a valid name"),
        alive: true,
        draining: false,
        down: None,
        concurrency: 2,
        set: None,
        growth: None,
        running: (0..running as u64).map(|n| at(70 + n * 10)).collect(),
        shared: None,
    }
}

fn down() -> Down {
    Down { since: at(60), until: Some(at(105)), reason: "SmtpConnectError: refused".to_owned() }
}

fn reached() -> Reached {
    let holder = |id: &str, since| (JobId::parse(id).expect("a valid id"), at(since));
    Reached {
        task: None,
        key: Some(("user_id".to_owned(), "41".to_owned())),
        bound: Some("2 at once".to_owned()),
        used: 2,
        points: 1,
        holders: vec![holder("a", 70), holder("b", 80)],
        free_at: None,
    }
}

/// A job that waits since second 10, looked at in second 100, on a node with a free slot.
fn situation() -> Situation {
    Situation {
        now: at(100),
        spot: Spot::Pending { since: at(10) },
        queue: name("emails"),
        task: Some(TaskName::parse("greet").expect("a valid name")),
        trouble: None,
        pause: None,
        task_pause: None,
        limit: None,
        nodes: vec![node("vps-1", 1)],
        ahead: Some(0),
        turn: None,
        pace: None,
        expires: None,
        rq_suspended: false,
    }
}

fn told(situation: &Situation) -> (&'static str, String) {
    let verdict = why(situation);
    (verdict.why.word(), sentence("j1", situation, &verdict))
}

/// Everything at once: each cause is told until it is removed, and then the next one.
#[test]
fn the_causes_of_a_job_that_waits_are_told_in_the_order_in_which_they_have_to_go() {
    let mut held = Situation {
        spot: Spot::Scheduled { due: at(160), debounced: false },
        trouble: Some("this Redis is a replica".to_owned()),
        pause: Some(request("ann")),
        task_pause: Some(request("bob")),
        limit: Some(reached()),
        nodes: vec![ServingNode { alive: false, draining: true, down: Some(down()), ..node("vps-1", 2) }],
        ahead: Some(3),
        pace: Some(Duration::from_secs(60)),
        ..situation()
    };
    let expected = [
        ("scheduled", "waiting: it is scheduled for 2027-01-15T08:02:40Z (in 1m)"),
        ("redis", "waiting: Redis stands in the way: this Redis is a replica"),
        (
            "queue-paused",
            "waiting: the queue emails was paused by ann: SMTP is down 1m ago; `jobsd resume emails` ends that",
        ),
        (
            "task-paused",
            "waiting: the task greet was paused by bob: SMTP is down 1m ago; `jobsd resume --task greet` ends that",
        ),
        ("no-node", "waiting: no living node serves the queue emails; vps-1 did and is not seen any more"),
        (
            "draining",
            "waiting: vps-1, which alone serves the queue emails, is draining: it claims nothing more; `jobsd resume \
             --node NODE` ends that",
        ),
        (
            "service-down",
            "waiting: the service behind the queue emails is down for vps-1 (SmtpConnectError: refused), since \
             2027-01-15T08:01:00Z (40s ago); one job tries it again at 2027-01-15T08:01:45Z (in 5s)",
        ),
        (
            "limited",
            "waiting: the queue emails may run 2 at once for user_id 41: 2 are taken by a and b; the next of them is \
             expected to end at 2027-01-15T08:02:10Z (in about 30s)",
        ),
        (
            "slots-busy",
            "waiting: 2 of 2 slots of the queue emails are taken on vps-1; 3 jobs are before it; next slot expected at \
             2027-01-15T08:02:10Z (in about 30s), its turn at 2027-01-15T08:03:20Z (in about 1m 40s)",
        ),
        (
            "shared-slots-busy",
            "waiting: all 4 slots that the queues of vps-1 share are taken, 1 by emails and 3 by video; 3 jobs are \
             before it",
        ),
        ("in-line", "waiting: nothing holds it back, 1 slot is free, it starts within moments; 3 jobs are before it"),
    ];
    let removals: [fn(&mut Situation); 11] = [
        |held| held.spot = Spot::Pending { since: at(10) },
        |held| held.trouble = None,
        |held| held.pause = None,
        |held| held.task_pause = None,
        |held| held.nodes[0].alive = true,
        |held| held.nodes[0].draining = false,
        |held| held.nodes[0].down = None,
        |held| held.limit = None,
        |held| {
            held.nodes[0].running.pop();
            held.nodes[0].shared = Some(SharedSlots { bound: 4, used: vec![(name("emails"), 1), (name("video"), 3)] });
        },
        |held| held.nodes[0].shared = None,
        |_| {},
    ];
    for ((word, sentence), remove) in expected.into_iter().zip(removals) {
        assert_eq!(told(&held), (word, sentence.to_owned()));
        remove(&mut held);
    }
}

#[test]
fn who_has_set_the_slots_is_told_where_they_are_taken() {
    let set = ServingNode { concurrency: 1, set: Some(request("ann")), ..node("vps-1", 1) };
    let (word, sentence) = told(&Situation { nodes: vec![set], ..situation() });
    assert_eq!(word, "slots-busy");
    let words = "1 of 1 slots of the queue emails are taken on vps-1 (vps-1 was set to 1 by ann: SMTP is down 1m ago)";
    assert!(sentence.contains(words), "{sentence}");
}

#[test]
fn a_free_slot_on_any_node_is_a_free_slot() {
    let two = |second: ServingNode| Situation { nodes: vec![node("vps-1", 2), second], ..situation() };
    assert_eq!(told(&two(node("vps-2", 1))).0, "in-line");
    assert_eq!(told(&two(ServingNode { draining: true, ..node("vps-2", 0) })).0, "slots-busy");
    assert_eq!(told(&two(ServingNode { alive: false, ..node("vps-2", 0) })).0, "slots-busy");
    let full = SharedSlots { bound: 1, used: vec![(name("video"), 1)] };
    let (word, sentence) = told(&two(ServingNode { shared: Some(full), ..node("vps-2", 0) }));
    assert_eq!(word, "shared-slots-busy");
    assert!(sentence.contains("all 1 slots that the queues of vps-2 share are taken, 1 by video"), "{sentence}");
}

#[test]
fn a_time_that_has_come_is_no_cause() {
    for spot in [Spot::Scheduled { due: at(90), debounced: false }, Spot::Retry { due: at(90), last: Last::Unknown }] {
        let held = Situation { spot, pause: Some(request("ann")), ..situation() };
        assert_eq!(told(&held).0, "queue-paused");
    }
}

#[test]
fn a_message_that_nobody_has_taken_says_so_and_why() {
    let message = Message { wire: Wire::Rq, list: "analytics".to_owned(), ahead: 11 };
    let held = Situation { spot: Spot::Message(message), nodes: vec![node("vps-1", 2)], task: None, ..situation() };
    assert_eq!(
        told(&held),
        (
            "slots-busy",
            "waiting as the 12th message of the rq queue analytics, not taken yet: 2 of 2 slots of the queue emails are \
             taken on vps-1; 11 jobs are before it"
                .to_owned()
        )
    );
}

#[test]
fn what_runs_and_what_has_ended() {
    let id = |text: &str| NodeId::parse(text).expect("a valid name");
    let run = Run {
        node: id("vps-1"),
        started: at(40),
        attempt: 2,
        timeout: Some(Duration::from_secs(300)),
        lease_until: Some(at(110)),
        cancel: Some(request("ann")),
    };
    let silent = Run { lease_until: Some(at(95)), cancel: None, ..run.clone() };
    let ended = Ended { at: at(70), started: Some(at(68)), node: Some(id("vps-1")) };
    let error = Failed { name: "SmtpRejected".to_owned(), message: "550 no such user".to_owned() };
    let dead = |cause, reason: &str| Spot::Dead {
        ended: ended.clone(),
        cause: Some(cause),
        error: Some(error.clone()),
        reason: Some(reason.to_owned()),
        attempts: 1,
    };
    let cases = [
        (
            Spot::Active(run),
            "running",
            "running: attempt 2 on vps-1, since 2027-01-15T08:00:40Z (1m ago); its end was asked for by ann: SMTP is down \
             1m ago, and its node is stopping it; it is stopped at 2027-01-15T08:05:40Z (in 4m) (its timeout is 5m)",
        ),
        (
            Spot::Active(silent),
            "recovering",
            "recovering: attempt 2 on vps-1, since 2027-01-15T08:00:40Z (1m ago); its lease ended 5s ago, so another node \
             takes it over with its next sweep",
        ),
        (Spot::Completed(ended.clone()), "completed", "it completed on vps-1 in 2s, 30s ago"),
        (
            dead(Cause::NotRetryable, "another attempt would end in SmtpRejected again"),
            "dead",
            "it failed 30s ago with SmtpRejected: 550 no such user, and is dead after 1 attempt: another attempt would end \
             in SmtpRejected again; mend what the error names, or its arguments, then `jobsd retry j1`",
        ),
        (
            dead(Cause::Expired, "it expired at noon"),
            "expired",
            "it expired at noon, so it ended 30s ago without one; `jobsd retry j1` runs it all the same",
        ),
        (
            Spot::Cancelled { ended, reason: Some("cancelled by ann: wrong".to_owned()) },
            "cancelled",
            "it was cancelled by ann: wrong 30s ago",
        ),
        (
            Spot::Retry { due: at(130), last: Last::Failed { attempt: 1, error } },
            "retry",
            "waiting: attempt 1 failed with SmtpRejected: 550 no such user; the next one starts at 2027-01-15T08:02:10Z \
             (in 30s)",
        ),
        (
            Spot::Retry { due: at(130), last: Last::Snoozed { reason: "not yet".to_owned() } },
            "snoozed",
            "waiting: it was put off (not yet) until 2027-01-15T08:02:10Z (in 30s)",
        ),
        (
            Spot::Purged { purge: Some(("p7".to_owned(), at(400))) },
            "purged",
            "it was taken out of the queue emails by a purge; `jobsd undo emails p7` brings it back until \
             2027-01-15T08:06:40Z (in 5m)",
        ),
    ];
    for (spot, word, sentence) in cases {
        assert_eq!(told(&Situation { spot, ..situation() }), (word, sentence.to_owned()));
    }
}

#[test]
fn the_turn_of_a_long_line_is_reckoned_without_walking_it() {
    let held = Situation {
        nodes: vec![node("vps-1", 2)],
        ahead: Some(u64::MAX),
        pace: Some(Duration::from_secs(60)),
        ..situation()
    };
    assert!(why(&held).expected.is_some_and(|at| at > held.now));
    // Something runs longer than the others did: nobody knows how long it will.
    for pace in [None, Some(Duration::from_secs(25))] {
        let verdict = why(&Situation { pace, ..held.clone() });
        assert_eq!(verdict.expected, None, "what is not known is not said");
    }
}

#[test]
fn a_service_that_one_node_still_reaches_is_no_cause() {
    let broken = ServingNode { down: Some(down()), ..node("vps-1", 0) };
    let two = Situation { nodes: vec![broken, node("vps-2", 0)], ..situation() };
    assert_eq!(told(&two).0, "in-line");
}

#[test]
fn a_window_says_when_it_has_room_again() {
    let rate = Reached {
        bound: Some("20 in 1m".to_owned()),
        used: 20,
        holders: Vec::new(),
        free_at: Some(at(112)),
        ..reached()
    };
    let task = Reached { task: Some("greet".to_owned()), key: None, points: 3, ..rate };
    let (word, sentence) = told(&Situation { limit: Some(task), ..situation() });
    assert_eq!(word, "limited");
    assert_eq!(
        sentence,
        "waiting: the task greet may run 20 in 1m: 20 are taken, it takes 3; there is room again at \
         2027-01-15T08:01:52Z (in 12s)"
    );
}

fn unstarted(hold: Hold, over: bool) -> Spot {
    let flow = FlowId::parse("video-31").expect("a valid id");
    Spot::Unstarted(Unstarted { flow, words: hold.words(), hold: Some(hold), over })
}

#[test]
fn a_job_of_a_flow_says_whom_it_waits_for() {
    let member = |text: &str| MemberName::parse(text).expect("a valid name");
    let culprit = Hold::Culprit { name: member("encode"), stand: Stand::Dead, direct: true };
    let cases = [
        (
            unstarted(Hold::Others(vec![member("a"), member("b")]), false),
            "flow",
            "waiting: it waits for \"a\" and \"b\", in the flow video-31",
        ),
        (
            unstarted(culprit, false),
            "flow-blocked",
            "waiting: it follows \"encode\", which is dead; retry that, and the flow goes on, in the flow video-31",
        ),
        (
            unstarted(Hold::Cancelled(request("ann")), true),
            "flow-over",
            "the flow was cancelled by ann: SMTP is down; this job never starts, in the flow video-31",
        ),
    ];
    for (spot, word, sentence) in cases {
        assert_eq!(told(&Situation { spot, ..situation() }), (word, sentence.to_owned()));
    }
}

#[test]
fn what_else_bears_upon_a_job_is_said_besides() {
    let held = Situation { spot: Spot::Scheduled { due: at(160), debounced: true }, ..situation() };
    let (word, sentence) = told(&held);
    assert_eq!(word, "scheduled");
    assert!(sentence.contains("it is debounced until 2027-01-15T08:02:40Z (in 1m); another job of its unique key"));

    let full = || vec![node("vps-1", 2)];
    let turn = Situation { nodes: full(), turn: Some(("A".to_owned(), 3)), ahead: None, ..situation() };
    assert!(told(&turn).1.ends_with("; tenants take turns, and 3 jobs of A are before it"), "{}", told(&turn).1);

    let expires = Situation { nodes: full(), expires: Some(at(130)), ..situation() };
    let words = "; it expires at 2027-01-15T08:02:10Z (in 30s) if no attempt has started by then";
    assert!(told(&expires).1.ends_with(words), "{}", told(&expires).1);

    let growth = |max, held: Option<&str>| {
        let growth = Some(Growth { max, held: held.map(str::to_owned) });
        told(&Situation { nodes: vec![ServingNode { growth, ..node("vps-1", 2) }], ..situation() }).1
    };
    assert!(growth(5, None).contains("taken on vps-1; on vps-1 there may be 5"), "{}", growth(5, None));
    assert!(growth(2, None).contains("on vps-1 there are no more than 2"), "{}", growth(2, None));
    let pushed = growth(5, Some("pushback: 3s ago"));
    assert!(pushed.contains("on vps-1 there will be no more for now: pushback: 3s ago"), "{pushed}");

    let unknown = Reached { bound: None, ..reached() };
    let (word, sentence) = told(&Situation { limit: Some(unknown), ..situation() });
    assert_eq!(word, "limited");
    assert!(sentence.contains("a limit of the queue emails for user_id 41 has no room for it"), "{sentence}");
}

#[test]
fn rq_that_is_suspended_holds_its_messages_and_no_jobs() {
    let message = |wire| Spot::Message(Message { wire, list: "l".to_owned(), ahead: 0 });
    let held = |spot| told(&Situation { spot, rq_suspended: true, ..situation() }).0;
    assert_eq!(held(message(Wire::Rq)), "rq-suspended");
    assert_eq!(held(message(Wire::Celery)), "in-line");
    assert_eq!(held(Spot::Pending { since: at(10) }), "in-line");
}
