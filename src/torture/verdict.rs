//! Compares what the jobs have really done with what jobsd says, and tells which promise was broken. Pure: books and
//! records in, findings out.
//!
//! Every excuse is as narrow as the fault it stands for. A second effect is excused by the death of a node that held
//! the job, an overlap by a node that was stopped for longer than its lease, a loss by a Redis that was killed before it
//! wrote its last second out. Whatever has no excuse breaks a promise.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::client::Record;
use super::fault::Fault;
use super::ledger::{Attempt, Books, Ending, Job, Sighting, Strike, Ticket};
use super::load::{self, Load, Number};
use super::reconcile::Records;

/// What jobsd promises, and what the findings of a run can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Promise {
    /// An accepted job is done.
    Lost,
    /// A job is done again only when the node that held it died or was stopped.
    Doubled,
    /// A job does not run twice at the same time while its owner lives.
    Overlapping,
    /// The result of a lost lease is refused.
    LateResult,
    /// A job that is done is settled at once, not done again because its node died long after.
    LateAck,
    /// Jobs begin in the order in which they are due.
    Starved,
    /// A dead node's jobs begin again within three leases.
    Recovery,
    /// Consumption goes on by itself when Redis is back.
    Resumption,
    /// Who is told to end hands everything back.
    LeftActive,
    /// A fault costs no attempt, an ended process no failure.
    AttemptSpent,
    /// No job ends dead that was to succeed.
    Dead,
}

/// How the run was made, so far as it matters to the verdict.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) load: Load,
    pub(super) lease: Duration,
    /// The nodes' `redis.timeout`.
    pub(super) timeout: Duration,
    /// Whether Redis may forget its last second when it is killed.
    pub(super) forgetful: bool,
}

/// The findings.
#[derive(Debug, Default, Serialize)]
pub(super) struct Findings {
    pub(super) sent: usize,
    pub(super) accepted: usize,
    pub(super) completed: usize,
    pub(super) dead: usize,
    pub(super) attempts: usize,
    pub(super) lost: usize,
    /// Of the lost, those that Redis itself forgot when it was killed.
    pub(super) forgotten: usize,
    /// Effects made more than once.
    pub(super) doubled: usize,
    /// Of those, the ones that no fault explains.
    pub(super) doubled_unexplained: usize,
    /// Jobs held by nodes when they were killed, over all kills.
    pub(super) in_flight: usize,
    pub(super) overlapping: usize,
    /// Beside an attempt of a node that was stopped for longer than its lease.
    pub(super) beside_stopped: usize,
    pub(super) late_refused: u64,
    pub(super) late_applied: usize,
    pub(super) acknowledged_late: usize,
    pub(super) starved: usize,
    pub(super) worst_overtaking: f64,
    pub(super) attempts_spent: usize,
    pub(super) recovery: Spans,
    /// How long Redis did not answer us, each time that it took long. Nobody can settle meanwhile.
    pub(super) silences: Spans,
    pub(super) faults: Vec<Faults>,
    /// The first few jobs that something is wrong with, in words.
    pub(super) examples: Vec<String>,
    pub(super) broken: Vec<Promise>,
}

/// What came of all faults of one kind.
#[derive(Debug, Serialize)]
pub(super) struct Faults {
    pub(super) fault: Fault,
    pub(super) count: usize,
    /// Jobs that the struck nodes held.
    pub(super) held: usize,
    pub(super) left_active: usize,
    pub(super) resumption: Spans,
    /// Nodes on which nothing began again.
    pub(super) never: usize,
}

/// Times in seconds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spans {
    pub(super) count: usize,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) worst: f64,
}

/// A Redis that writes its file once a second may forget what is younger than this when it is killed.
const FORGETS: Duration = Duration::from_millis(2500);
/// A connection that broke is noticed here within this time, however busy the machine is.
const NOTICED: Duration = Duration::from_millis(250);
/// A result reaches Redis within this time, while Redis is well.
const SETTLES: Duration = Duration::from_secs(2);
/// What is due later may begin earlier by this: due jobs are promoted once a second, by each node for itself.
const OVERTAKES: Duration = Duration::from_secs(4);
/// Consumption goes on this soon after Redis is back.
const RESUMES: Duration = Duration::from_secs(5);
const EXAMPLES: usize = 10;

/// Reads the verdict from the books and the records.
pub(super) fn judge(books: &Books, records: &Records, terms: &Terms) -> Findings {
    let case = Case::new(books, terms);
    let mut findings = Findings {
        sent: books.jobs.len(),
        attempts: books.attempts.len(),
        late_refused: records.numbers.totals.refused_results,
        recovery: Spans::of(&books.recoveries),
        silences: Spans::of(&books.silences.iter().map(|(from, to)| *to - *from).collect::<Vec<_>>()),
        faults: faults(&books.strikes),
        ..Findings::default()
    };
    findings.in_flight = findings.faults.iter().filter(|of| of.fault == Fault::Kill).map(|of| of.held).sum();
    for ((job, record), number) in books.jobs.iter().zip(&records.jobs).zip(0..) {
        let job = Subject { number, job, record: record.as_ref() };
        case.fate(&job, &mut findings);
        case.effects(&job, &mut findings);
        case.overlaps(&job, &mut findings);
        case.result(&job, &mut findings);
        case.attempts_spent(&job, &mut findings);
    }
    case.acknowledgements(&mut findings);
    case.order(records, &mut findings);
    // Each job ends once. Redis counts the ends, so a second one shows even where its record was overwritten.
    let totals = records.numbers.totals;
    let ends = usize::try_from(totals.completed + totals.dead + totals.cancelled).unwrap_or(usize::MAX);
    findings.late_applied += ends.saturating_sub(findings.completed + findings.dead);
    findings.broken = broken(&findings, terms);
    findings
}

/// The books, and what is looked up in them again and again.
struct Case<'a> {
    books: &'a Books,
    terms: &'a Terms,
    /// By job: the faults at which a node held it.
    holding: HashMap<Number, Vec<&'a Strike>>,
}

/// One job in both views.
struct Subject<'a> {
    number: Number,
    job: &'a Job,
    record: Option<&'a Record>,
}

impl<'a> Case<'a> {
    fn new(books: &'a Books, terms: &'a Terms) -> Self {
        let mut holding: HashMap<Number, Vec<&Strike>> = HashMap::new();
        for strike in books.strikes.iter().filter(|strike| matches!(strike.fault, Fault::Kill | Fault::Stop)) {
            strike.held.iter().for_each(|&job| holding.entry(job).or_default().push(strike));
        }
        Self { books, terms, holding }
    }

    /// Whether an accepted job was done and has ended.
    fn fate(&self, subject: &Subject<'_>, findings: &mut Findings) {
        let state = subject.record.map(|record| record.state.as_str());
        let ended = subject.record.is_some_and(|record| record.end.is_some());
        match state {
            Some("completed") => findings.completed += 1,
            Some("dead" | "cancelled") if ended => findings.dead += 1,
            _ => {}
        }
        let Some(accepted) = subject.job.accepted else { return };
        findings.accepted += 1;
        let done = self.attempts(subject.job).any(|attempt| attempt.done().is_some());
        let lost = match state {
            None => "was accepted and is not there".to_owned(),
            Some("completed") if done => return,
            Some("completed") => "is completed and was never done".to_owned(),
            Some("dead" | "cancelled") if ended => {
                findings.example(subject.number, "has ended dead");
                return;
            }
            // What stands in no set at all is told as one of these too.
            Some(state) => format!("has not ended: {state}"),
        };
        findings.lost += 1;
        if self.forgot(accepted) {
            findings.forgotten += 1;
        } else {
            findings.example(subject.number, &lost);
        }
    }

    /// Effects after the first one, and what excuses them.
    fn effects(&self, subject: &Subject<'_>, findings: &mut Findings) {
        let done: Vec<(&Attempt, Instant)> =
            self.attempts(subject.job).filter_map(|attempt| Some((attempt, attempt.done()?))).collect();
        let extra = done.len().saturating_sub(1);
        if extra == 0 {
            return;
        }
        findings.doubled += extra;
        let held = self.held(subject.number).len();
        // Told to end, a node may give up waiting for an answer that is on its way.
        let leaving = |strike: &Strike| {
            let term = strike.fault == Fault::Term;
            term && done.iter().any(|(attempt, at)| strike.life == Some(attempt.life) && *at >= strike.at)
        };
        let left = self.books.strikes.iter().filter(|strike| leaving(strike)).count();
        let forgotten = done.iter().filter(|(_, at)| self.forgot(*at)).count();
        let unexplained = extra.saturating_sub(held + left + forgotten);
        if unexplained > 0 {
            findings.doubled_unexplained += unexplained;
            findings.example(subject.number, &format!("was done {} times, and no node that held it died", done.len()));
        }
    }

    /// Attempts that ran beside each other.
    fn overlaps(&self, subject: &Subject<'_>, findings: &mut Findings) {
        let attempts: Vec<&Attempt> = self.attempts(subject.job).collect();
        for (place, second) in attempts.iter().enumerate() {
            for first in &attempts[..place] {
                let over = match first.ended {
                    Some((at, Ending::Cut)) => at <= second.begun + NOTICED,
                    Some((at, _)) => at <= second.begun,
                    None => false,
                };
                if over || self.forgot(first.begun) {
                    continue;
                }
                if self.was_stopped(first, second) || self.comes_late(subject.number, second) {
                    findings.beside_stopped += 1;
                } else {
                    findings.overlapping += 1;
                    findings.example(subject.number, "ran twice at the same time, while its owner lived");
                }
            }
        }
    }

    /// The node of the first attempt was stopped when the second one began, for so long that its lease was over: it is
    /// renewed at least every third of it.
    fn was_stopped(&self, first: &Attempt, second: &Attempt) -> bool {
        let stops = self.books.strikes.iter().filter(|strike| strike.fault == Fault::Stop);
        stops
            .filter(|stop| stop.life == Some(first.life))
            .any(|stop| first.begun <= stop.over && second.begun >= stop.at + self.terms.lease / 2)
    }

    /// An attempt that began when its node came back from a stop, of a job that it had claimed before.
    fn comes_late(&self, job: Number, attempt: &Attempt) -> bool {
        let stops = self.held(job).iter().filter(|strike| strike.fault == Fault::Stop);
        stops.filter(|stop| stop.life == Some(attempt.life)).any(|stop| attempt.begun >= stop.at)
    }

    /// The record holds the result of one attempt. When another attempt of another node had begun by the time it ended,
    /// the lease was lost, and the result should have been refused.
    fn result(&self, subject: &Subject<'_>, findings: &mut Findings) {
        let ticket = subject.record.and_then(|record| record.end.as_ref()?.result["body"]["ticket"].as_u64());
        let ticket = ticket.and_then(|ticket| usize::try_from(ticket).ok());
        let Some(settled) = ticket.and_then(|ticket| self.books.attempts.get(ticket)) else { return };
        let Some(ended) = settled.done() else { return };
        let later = |other: &&Attempt| {
            other.life != settled.life
                && other.begun > settled.begun
                && other.begun < ended
                && !self.comes_late(subject.number, other)
        };
        if self.attempts(subject.job).any(|other| later(&other)) && !self.forgot(settled.begun) {
            findings.late_applied += 1;
            findings.example(subject.number, "holds the result of an attempt whose lease was lost");
        }
    }

    /// Failures that no handler told, and crashes without a death.
    fn attempts_spent(&self, subject: &Subject<'_>, findings: &mut Findings) {
        let Some(record) = subject.record else { return };
        let failed = |attempt: &&Attempt| matches!(attempt.ended, Some((_, Ending::Failed)));
        let failures = self.attempts(subject.job).filter(failed).count();
        let spent = record.history.failures.saturating_sub(failures)
            + record.history.crashes.saturating_sub(self.held(subject.number).len());
        if spent > 0 {
            findings.attempts_spent += spent;
            findings.example(subject.number, "has a failure or a crash that nobody caused");
        }
    }

    /// A node holds only what it runs and what it has just done, whenever one looks and when it dies.
    fn acknowledgements(&self, findings: &mut Findings) {
        let kills = self.books.strikes.iter().filter(|strike| strike.fault == Fault::Kill);
        let at_death = kills
            .flat_map(|kill| kill.held.iter().filter_map(|&job| Some(Sighting { at: kill.at, job, life: kill.life? })));
        let mut late: Vec<Number> = Vec::new();
        for seen in at_death.chain(self.books.sightings.iter().copied()) {
            let Some(job) = self.books.jobs.get(seen.job as usize) else { continue };
            // Its last attempt there: it may have come back to the same node, and run again.
            let last = self.attempts(job).filter(|attempt| attempt.life == seen.life).last();
            let Some(done) = last.and_then(Attempt::done) else { continue };
            if self.well_since(&seen, done).is_some_and(|well| well + SETTLES < seen.at) {
                late.push(seen.job);
            }
        }
        late.sort_unstable();
        late.dedup();
        findings.acknowledged_late = late.len();
        late.iter().for_each(|&job| findings.example(job, "was done, and long after it was not settled"));
    }

    /// Jobs that others overtook, which were due later. Jobs that were caught up in a fault are left out.
    fn order(&self, records: &Records, findings: &mut Findings) {
        let mut begun: Vec<(Instant, Number)> = Vec::new();
        for (job, number) in self.books.jobs.iter().zip(0..) {
            begun.extend(self.attempts(job).next().map(|first| (first.begun, number)));
        }
        begun.sort_unstable();
        let mut latest: Option<Instant> = None;
        for (_, number) in begun {
            let job = &self.books.jobs[number as usize];
            let delay = self.terms.load.of(number).delay;
            if let (Some(latest), Some(accepted)) = (latest, job.accepted) {
                // Between the two it became due: the one is the earliest that it can have been, the other the latest.
                let overtaken = latest.saturating_duration_since(accepted + delay);
                if !self.caught_up(number, records) {
                    findings.worst_overtaking = findings.worst_overtaking.max(overtaken.as_secs_f64());
                    if overtaken > OVERTAKES {
                        findings.starved += 1;
                        findings
                            .example(number, &format!("waited while jobs began that were due {overtaken:.1?} later"));
                    }
                }
            }
            latest = latest.max(Some(job.sent + delay));
        }
    }

    fn caught_up(&self, number: Number, records: &Records) -> bool {
        let interrupted = |record: &Record| record.history.crashes + record.history.interruptions > 0;
        !self.held(number).is_empty() || records.jobs[number as usize].as_ref().is_some_and(interrupted)
    }

    /// Whether Redis may have forgotten what it was told then.
    fn forgot(&self, then: Instant) -> bool {
        let kills = self.books.strikes.iter().filter(|strike| strike.fault == Fault::RedisKill);
        self.terms.forgetful && kills.into_iter().any(|kill| then + FORGETS > kill.at && then < kill.over)
    }

    /// From when on nothing kept the node from settling what it had done at `done`, until it was seen to hold it;
    /// `None`: it was gone by then.
    fn well_since(&self, seen: &Sighting, done: Instant) -> Option<Instant> {
        let silences = self.books.silences.iter().filter(|(from, _)| *from < seen.at);
        let mut well = silences.map(|(_, to)| *to).fold(done, Instant::max);
        for strike in self.books.strikes.iter().filter(|strike| strike.at < seen.at) {
            let its_own = strike.life == Some(seen.life);
            match strike.fault {
                Fault::Kill | Fault::Term if its_own => return None,
                Fault::Kill | Fault::Term => {}
                Fault::Stop if !its_own => {}
                _ if its_own || strike.life.is_none() => {
                    let resumed = strike.resumed.iter().copied().flatten().max().unwrap_or_default();
                    well = well.max(strike.over + resumed);
                }
                _ => {}
            }
        }
        Some(well)
    }

    fn held(&self, job: Number) -> &[&'a Strike] {
        self.holding.get(&job).map_or(&[], Vec::as_slice)
    }

    fn attempts<'s>(&'s self, job: &'s Job) -> impl Iterator<Item = &'s Attempt> {
        job.attempts.iter().map(|&Ticket(place)| &self.books.attempts[place])
    }
}

impl Attempt {
    /// When its effect was made.
    fn done(&self) -> Option<Instant> {
        match self.ended {
            Some((at, Ending::Done)) => Some(at),
            _ => None,
        }
    }
}

impl Findings {
    fn example(&mut self, job: Number, what: &str) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{} {what}", load::id(job)));
        }
    }
}

impl Spans {
    pub(super) fn of(spans: &[Duration]) -> Self {
        let mut spans = spans.to_vec();
        spans.sort_unstable();
        let Some(worst) = spans.last() else { return Self::default() };
        let at = |percent: usize| spans[(spans.len() * percent).div_ceil(100).max(1) - 1].as_secs_f64();
        Self { count: spans.len(), p50: at(50), p99: at(99), worst: worst.as_secs_f64() }
    }
}

fn faults(strikes: &[Strike]) -> Vec<Faults> {
    let mut kinds: Vec<Fault> = strikes.iter().map(|strike| strike.fault).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let of = |fault| {
        let these: Vec<&Strike> = strikes.iter().filter(|strike| strike.fault == fault).collect();
        let resumed: Vec<Option<Duration>> = these.iter().flat_map(|strike| strike.resumed.iter().copied()).collect();
        Faults {
            fault,
            count: these.len(),
            held: these.iter().map(|strike| strike.held.len()).sum(),
            left_active: these.iter().map(|strike| strike.left_active).sum(),
            resumption: Spans::of(&resumed.iter().copied().flatten().collect::<Vec<_>>()),
            never: resumed.iter().filter(|resumed| resumed.is_none()).count(),
        }
    };
    kinds.into_iter().map(of).collect()
}

fn broken(findings: &Findings, terms: &Terms) -> Vec<Promise> {
    let slow = |of: &Faults| {
        let limit = if of.fault == Fault::Blackhole { terms.timeout + RESUMES } else { RESUMES };
        of.never > 0 || of.resumption.worst > limit.as_secs_f64()
    };
    let checks = [
        (Promise::Lost, findings.lost > findings.forgotten),
        (Promise::Doubled, findings.doubled_unexplained > 0),
        (Promise::Overlapping, findings.overlapping > 0),
        (Promise::LateResult, findings.late_applied > 0),
        (Promise::LateAck, findings.acknowledged_late > 0),
        (Promise::Starved, findings.starved > 0),
        (Promise::Recovery, findings.recovery.p99 > (terms.lease * 3).as_secs_f64()),
        (Promise::Resumption, findings.faults.iter().any(slow)),
        (Promise::LeftActive, findings.faults.iter().any(|of| of.left_active > 0)),
        (Promise::AttemptSpent, findings.attempts_spent > 0),
        (Promise::Dead, findings.dead > 0),
    ];
    checks.into_iter().filter(|(_, broken)| *broken).map(|(promise, _)| promise).collect()
}

#[cfg(test)]
mod tests;
