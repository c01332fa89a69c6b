//! Each finding by the smallest run that shows it, and each excuse by the smallest that it covers.

use serde_json::json;

use super::super::client::Record;
use super::super::ledger::{Job, Life};
use super::*;

const LEASE: Duration = Duration::from_secs(3);

/// A run of few jobs, told by hand. Times are milliseconds since its start.
struct Run {
    start: Instant,
    books: Books,
    records: Vec<Option<serde_json::Value>>,
    forgetful: bool,
    /// Ends that Redis has counted, besides one for each record that has ended.
    surplus: u64,
}

impl Run {
    fn new() -> Self {
        Self { start: Instant::now(), books: Books::default(), records: Vec::new(), forgetful: false, surplus: 0 }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// A job that was sent and accepted at `ms`, in this state at the end.
    fn job(&mut self, ms: u64, state: &str) -> Number {
        let mut job = Job::sent(self.at(ms));
        job.accepted = Some(self.at(ms));
        self.books.jobs.push(job);
        let history = json!({"failures": 0, "crashes": 0, "interruptions": 0});
        self.records.push(Some(json!({"state": state, "history": history})));
        Number::try_from(self.books.jobs.len() - 1).expect("few jobs")
    }

    /// An attempt of the job by the node's life; its ticket is returned.
    fn attempt(&mut self, job: Number, life: u32, begun: u64, ended: Option<(u64, Ending)>) -> usize {
        let ticket = self.books.attempts.len();
        let ended = ended.map(|(ms, ending)| (self.at(ms), ending));
        self.books.attempts.push(Attempt { job, life: Life(life), begun: self.at(begun), ended });
        self.books.jobs[job as usize].attempts.push(Ticket(ticket));
        ticket
    }

    fn strike(&mut self, fault: Fault, life: u32, at: u64, over: u64, held: &[Number]) -> &mut Strike {
        let mut strike = Strike::new(fault, Some(Life(life)));
        (strike.at, strike.over, strike.held) = (self.at(at), self.at(over), held.to_vec());
        self.books.strikes.push(strike);
        self.books.strikes.last_mut().expect("it was just put there")
    }

    fn record(&mut self, job: Number) -> &mut serde_json::Value {
        self.records[job as usize].as_mut().expect("it has one")
    }

    fn judge(&self) -> Findings {
        let read = |record: &Option<serde_json::Value>| -> Option<Record> {
            record.clone().map(|record| serde_json::from_value(record).expect("a record"))
        };
        let jobs: Vec<Option<Record>> = self.records.iter().map(read).collect();
        let ended =
            jobs.iter().flatten().filter(|record| matches!(record.state.as_str(), "completed" | "dead")).count();
        let completed = u64::try_from(ended).expect("few jobs") + self.surplus;
        let numbers = json!({
            "jobs": {"pending": 0, "active": 0, "scheduled": 0, "retry": 0},
            "totals": {"completed": completed, "dead": 0, "cancelled": 0, "refused_results": 0},
        });
        let records = Records { numbers: serde_json::from_value(numbers).expect("numbers"), jobs };
        // A load without delays: what is due when is told by hand.
        let seed = (0..).find(|&seed| self.plain(seed)).expect("one in a few is like that");
        let load = Load { seed, work: Duration::from_millis(40), lease: LEASE };
        let terms = Terms { load, lease: LEASE, timeout: Duration::from_secs(1), forgetful: self.forgetful };
        judge(&self.books, &records, &terms)
    }

    fn plain(&self, seed: u64) -> bool {
        let load = Load { seed, work: Duration::from_millis(40), lease: LEASE };
        (0..self.books.jobs.len()).all(|n| load.of(Number::try_from(n).expect("few jobs")).delay.is_zero())
    }

    #[track_caller]
    fn breaks(&self, promises: &[Promise]) -> Findings {
        let findings = self.judge();
        assert_eq!(findings.broken, promises, "{findings:#?}");
        findings
    }
}

/// One job, done by one attempt from 10 to 50.
fn good() -> (Run, Number) {
    let mut run = Run::new();
    let job = run.job(0, "completed");
    run.attempt(job, 0, 10, Some((50, Ending::Done)));
    (run, job)
}

#[test]
fn a_good_run_breaks_nothing() {
    let findings = good().0.breaks(&[]);
    assert_eq!((findings.accepted, findings.completed, findings.doubled), (1, 1, 0));
}

#[test]
fn an_accepted_job_that_is_not_done_is_lost() {
    for state in ["pending", "active", "retry", "completed", "cancelled"] {
        let mut run = Run::new();
        run.job(0, state);
        run.breaks(&[Promise::Lost]);
    }
    let (mut run, _) = good();
    run.records[0] = None;
    run.breaks(&[Promise::Lost]);
    run.books.jobs[0].accepted = None;
    run.breaks(&[]);
}

#[test]
fn redis_may_forget_its_last_second_only_where_it_was_told_so() {
    let (mut run, _) = good();
    run.records[0] = None;
    run.strike(Fault::RedisKill, 0, 1000, 1200, &[]);
    run.breaks(&[Promise::Lost]);
    run.forgetful = true;
    assert_eq!(run.breaks(&[]).forgotten, 1);
    run.books.strikes[0].at = run.at(9000);
    run.books.strikes[0].over = run.at(9100);
    run.breaks(&[Promise::Lost]);
}

#[test]
fn a_second_effect_needs_the_death_of_a_holder() {
    let (mut run, job) = good();
    run.attempt(job, 1, 4000, Some((4050, Ending::Done)));
    let findings = run.breaks(&[Promise::Doubled]);
    assert_eq!((findings.doubled, findings.doubled_unexplained), (1, 1));
    run.strike(Fault::Kill, 0, 60, 60, &[job]);
    assert_eq!(run.breaks(&[]).doubled, 1);
    run.attempt(job, 2, 8000, Some((8050, Ending::Done)));
    run.breaks(&[Promise::Doubled]);
}

#[test]
fn a_node_that_is_told_to_end_may_leave_an_answer_behind() {
    let (mut run, job) = good();
    run.attempt(job, 1, 100, Some((150, Ending::Done)));
    run.strike(Fault::Term, 0, 40, 60, &[job]);
    run.breaks(&[]);
    run.books.strikes[0].at = run.at(55);
    run.breaks(&[Promise::Doubled]);
}

#[test]
fn nothing_runs_beside_a_living_owner() {
    let mut run = Run::new();
    let job = run.job(0, "completed");
    run.attempt(job, 0, 10, Some((5000, Ending::Cut)));
    run.attempt(job, 1, 4000, Some((4050, Ending::Done)));
    run.breaks(&[Promise::Overlapping]);
    // A stop shorter than a lease is no excuse for anybody to take over.
    run.strike(Fault::Stop, 0, 3000, 6000, &[job]);
    run.breaks(&[Promise::Overlapping]);
    run.books.strikes[0].at = run.at(1000);
    assert_eq!(run.breaks(&[]).beside_stopped, 1);
}

#[test]
fn a_connection_may_break_a_moment_after_its_job_went_on_elsewhere() {
    let mut run = Run::new();
    let job = run.job(0, "completed");
    run.attempt(job, 0, 10, Some((1100, Ending::Cut)));
    run.attempt(job, 1, 1000, Some((1050, Ending::Done)));
    run.breaks(&[]);
}

#[test]
fn a_result_whose_lease_was_lost_must_not_stand_in_the_record() {
    let mut run = Run::new();
    let job = run.job(0, "completed");
    let first = run.attempt(job, 0, 10, Some((5000, Ending::Done)));
    let second = run.attempt(job, 1, 4000, Some((6000, Ending::Done)));
    run.strike(Fault::Stop, 0, 20, 4900, &[job]);
    run.record(job)["end"] = json!({"result": {"status": 200, "body": {"ticket": second}}});
    run.breaks(&[]);
    run.record(job)["end"] = json!({"result": {"status": 200, "body": {"ticket": first}}});
    assert_eq!(run.breaks(&[Promise::LateResult]).late_applied, 1);
}

#[test]
fn a_claim_that_comes_to_work_after_the_stop_makes_nobody_else_late() {
    let mut run = Run::new();
    let job = run.job(0, "completed");
    let second = run.attempt(job, 1, 4000, Some((6000, Ending::Done)));
    run.attempt(job, 0, 5000, Some((5050, Ending::Done)));
    run.strike(Fault::Stop, 0, 20, 4900, &[job]);
    run.record(job)["end"] = json!({"result": {"status": 200, "body": {"ticket": second}}});
    let findings = run.breaks(&[]);
    assert_eq!((findings.beside_stopped, findings.doubled), (1, 1));
}

#[test]
fn a_job_ends_once_whatever_its_record_says() {
    let (mut run, _) = good();
    run.surplus = 1;
    run.breaks(&[Promise::LateResult]);
}

#[test]
fn what_is_done_is_settled_before_its_node_dies_long_after() {
    let (mut run, job) = good();
    run.strike(Fault::Kill, 0, 5000, 5000, &[job]);
    run.breaks(&[Promise::LateAck]);
    // With Redis away it could not be.
    run.strike(Fault::RedisRestart, 0, 40, 4000, &[]);
    run.breaks(&[]);
    run.books.strikes.pop();
    run.books.strikes[0].at = run.at(1000);
    run.breaks(&[]);
}

#[test]
fn what_is_done_is_not_seen_to_be_held_for_long() {
    let (mut run, job) = good();
    run.books.sightings = vec![Sighting { at: run.at(1000), job, life: Life(0) }];
    run.breaks(&[]);
    run.books.sightings[0].at = run.at(3000);
    assert_eq!(run.breaks(&[Promise::LateAck]).acknowledged_late, 1);
    run.books.silences = vec![(run.at(900), run.at(2000))];
    run.breaks(&[]);
    run.books.silences = vec![(run.at(100), run.at(900)), (run.at(3100), run.at(4000))];
    assert_eq!(run.breaks(&[Promise::LateAck]).silences.count, 2);
    run.books.silences.clear();
    for fault in [Fault::Stop, Fault::Kill, Fault::Term] {
        run.strike(fault, 0, 60, 2500, &[]);
        run.breaks(&[]);
        run.books.strikes[0].life = Some(Life(1));
        run.breaks(&[Promise::LateAck]);
        run.books.strikes.clear();
    }
}

#[test]
fn who_is_due_first_begins_first() {
    let mut run = Run::new();
    let (early, late) = (run.job(0, "completed"), run.job(5000, "completed"));
    run.attempt(late, 0, 5010, Some((5050, Ending::Done)));
    run.attempt(early, 0, 6000, Some((6050, Ending::Done)));
    assert_eq!(run.breaks(&[Promise::Starved]).starved, 1);
    run.record(early)["history"]["interruptions"] = json!(1);
    run.breaks(&[]);
}

#[test]
fn attempts_are_spent_by_failures_and_deaths_only() {
    let (mut run, job) = good();
    run.record(job)["history"]["failures"] = json!(1);
    run.breaks(&[Promise::AttemptSpent]);
    run.attempt(job, 0, 60, Some((70, Ending::Failed)));
    run.breaks(&[]);
    run.record(job)["history"]["crashes"] = json!(1);
    run.breaks(&[Promise::AttemptSpent]);
    run.strike(Fault::Kill, 0, 100, 100, &[job]);
    run.breaks(&[]);
    run.record(job)["state"] = json!("dead");
    run.record(job)["end"] = json!({"result": null});
    run.breaks(&[Promise::Dead]);
}

#[test]
fn what_takes_too_long_breaks_its_promise() {
    let (mut run, _) = good();
    run.books.recoveries = vec![Duration::from_secs(10)];
    run.breaks(&[Promise::Recovery]);
    run.books.recoveries = vec![Duration::from_secs(8)];
    for (fault, seconds, promises) in [
        (Fault::Reset, Some(5.5), &[Promise::Resumption][..]),
        (Fault::Reset, None, &[Promise::Resumption]),
        (Fault::Blackhole, Some(5.5), &[]),
        (Fault::Blackhole, Some(6.5), &[Promise::Resumption]),
    ] {
        run.books.strikes.clear();
        run.strike(fault, 0, 100, 100, &[]).resumed = vec![seconds.map(Duration::from_secs_f64)];
        run.breaks(promises);
    }
    run.books.strikes.clear();
    run.strike(Fault::Term, 0, 100, 200, &[]).left_active = 2;
    run.breaks(&[Promise::LeftActive]);
}

#[test]
fn spans_are_ranked() {
    let spans: Vec<Duration> = (1..=200).rev().map(Duration::from_secs).collect();
    assert_eq!(Spans::of(&spans), Spans { count: 200, p50: 100.0, p99: 198.0, worst: 200.0 });
    assert_eq!(Spans::of(&[]), Spans::default());
}
