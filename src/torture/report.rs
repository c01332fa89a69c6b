//! The findings in words, and as JSON.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use serde_json::{Value, json};

use super::fault::Fault;
use super::options::Options;
use super::verdict::{Faults, Findings, Promise, Spans};

/// A finished run.
#[derive(Debug)]
pub(super) struct Report<'r> {
    pub(super) options: &'r Options,
    pub(super) findings: &'r Findings,
    pub(super) took: Duration,
}

impl Report<'_> {
    pub(super) fn kept(&self) -> bool {
        self.findings.broken.is_empty()
    }

    pub(super) fn json(&self) -> Value {
        let options = self.options;
        json!({
            "kept": self.kept(),
            "seed": options.seed,
            "nodes": options.nodes,
            "lease_seconds": options.lease.as_secs_f64(),
            "took_seconds": self.took.as_secs_f64(),
            "findings": self.findings,
        })
    }

    fn verdict(&self) -> String {
        let broken: Vec<&str> = self.findings.broken.iter().map(|promise| promise.as_str()).collect();
        if broken.is_empty() { "every promise was kept".to_owned() } else { format!("BROKEN: {}", broken.join("; ")) }
    }
}

impl Display for Report<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let found = self.findings;
        let rate = found.attempts as f64 / self.took.as_secs_f64();
        writeln!(
            f,
            "jobs         {} put in, {} accepted, {} completed, {} dead; {} attempts, {rate:.0} a second",
            found.sent, found.accepted, found.completed, found.dead, found.attempts
        )?;
        writeln!(f, "lost         {}{}", found.lost, remark(found.forgotten, "forgotten by Redis when it was killed"))?;
        writeln!(
            f,
            "doubled      {} effects, {} of them without a reason; {} jobs were in flight at the kills",
            found.doubled, found.doubled_unexplained, found.in_flight
        )?;
        let beside = remark(found.beside_stopped, "beside a node that was stopped for longer than its lease");
        writeln!(f, "overlapping  {}{beside}", found.overlapping)?;
        writeln!(f, "late results {} applied, {} refused", found.late_applied, found.late_refused)?;
        let late_ack = remark(found.acknowledged_late, "done long before and not settled");
        writeln!(f, "attempts     {} spent without a reason{late_ack}", found.attempts_spent)?;
        writeln!(f, "order        {} starved; overtaken by at most {:.1} s", found.starved, found.worst_overtaking)?;
        writeln!(f, "recovery     {}", spans(&found.recovery, "re-run"))?;
        if found.silences.count > 0 {
            writeln!(f, "redis        did not answer for a while: {}", spans(&found.silences, "times"))?;
        }
        found.faults.iter().try_for_each(|of| writeln!(f, "{}", faults(of)))?;
        found.examples.iter().try_for_each(|example| writeln!(f, "  job {example}"))?;
        write!(f, "verdict      {}", self.verdict())
    }
}

fn remark(count: usize, what: &str) -> String {
    if count == 0 { String::new() } else { format!(", {count} {what}") }
}

fn spans(spans: &Spans, what: &str) -> String {
    if spans.count == 0 {
        return "nothing to measure".to_owned();
    }
    let Spans { count, p50, p99, worst } = spans;
    format!("p50 {p50:.2} s, p99 {p99:.2} s, worst {worst:.2} s, of {count} {what}")
}

fn faults(of: &Faults) -> String {
    let mut words = format!("{:>6} × {}", of.count, of.fault.as_str());
    if matches!(of.fault, Fault::Kill | Fault::Stop | Fault::Term) {
        words += &format!(", {} jobs held", of.held);
    }
    if of.fault == Fault::Term {
        words += &format!(", {} left active", of.left_active);
    }
    if of.resumption.count > 0 {
        words += &format!("; resumed: {}", spans(&of.resumption, "nodes"));
    }
    words + &remark(of.never, "never")
}

impl Promise {
    fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "jobs were lost",
            Self::Doubled => "jobs were done again without a reason",
            Self::Overlapping => "jobs ran twice at the same time",
            Self::LateResult => "late results were applied",
            Self::LateAck => "jobs were settled long after they were done",
            Self::Starved => "jobs starved while later ones ran",
            Self::Recovery => "jobs of dead nodes began again too late",
            Self::Resumption => "consumption did not go on in time",
            Self::LeftActive => "a node that ended in order left jobs behind",
            Self::AttemptSpent => "attempts were spent without a reason",
            Self::Dead => "jobs ended dead that were to succeed",
        }
    }
}
