//! Why a job stands where it stands: one function from a situation, all of it values, to exactly one [`Why`].
//!
//! Several things may hold a waiting job back at once. The order of [`LADDER`] says which of them is told: the one that
//! has to go first before any of the others matters. [`sentence()`] puts it into words; nothing here reads or acts.

mod sentence;
mod situation;
#[cfg(test)]
mod tests;

use super::flow::progress::Hold;
use super::{Cause, NodeId, Request, TaskName, Timestamp, Wire};

pub(crate) use sentence::{instant, sentence, span};
pub(crate) use situation::{
    Down, Ended, Failed, Growth, Last, Message, Reached, Run, ServingNode, SharedSlots, Situation, Spot, Unstarted,
};

/// The one primary cause. A closed set: clients go by [`Why::word`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    Scheduled {
        until: Timestamp,
        debounced: bool,
    },
    /// Its flow has not come to it.
    Flow(Unstarted),
    Retry {
        until: Timestamp,
        attempt: u32,
        error: Failed,
    },
    Snoozed {
        until: Timestamp,
        reason: Option<String>,
    },
    Redis {
        finding: String,
    },
    QueuePaused(Request),
    TaskPaused {
        task: TaskName,
        request: Request,
    },
    /// Nothing of RQ is taken.
    RqSuspended,
    /// No node that lives serves the queue; `dead` are those that did.
    NoNode {
        dead: Vec<NodeId>,
    },
    Draining {
        nodes: Vec<NodeId>,
    },
    /// Every node that serves the queue waits for the service behind its jobs.
    ServiceDown {
        nodes: Vec<NodeId>,
        down: Down,
    },
    /// A limit has no room for it.
    Limited(Reached),
    /// The queue's own slots are taken on every node that serves it.
    SlotsBusy {
        busy: usize,
        slots: usize,
        nodes: Vec<NodeId>,
        /// Where somebody has set how many there are: the node, their number, and who.
        set: Vec<(NodeId, usize, Request)>,
        /// Of nodes where the number follows the load.
        growth: Vec<(NodeId, Growth)>,
        ahead: Option<u64>,
        next_slot: Option<Timestamp>,
    },
    /// The queue has slots left, and the slots that it shares with others are taken.
    SharedSlotsBusy {
        node: NodeId,
        shared: SharedSlots,
        ahead: Option<u64>,
    },
    /// Nothing holds it back: it starts as soon as those before it have.
    InLine {
        ahead: Option<u64>,
        free: usize,
    },
    Running {
        run: Run,
    },
    /// Its node has fallen silent: another one takes it over.
    Recovering {
        run: Run,
    },
    Completed(Ended),
    Dead {
        ended: Ended,
        cause: Option<Cause>,
        error: Option<Failed>,
        reason: Option<String>,
        attempts: u32,
    },
    Expired {
        ended: Ended,
        reason: Option<String>,
    },
    Cancelled {
        ended: Ended,
        reason: Option<String>,
    },
    Purged {
        purge: Option<(String, Timestamp)>,
    },
    Elsewhere {
        list: String,
        status: String,
    },
}

/// The cause, and what is known of its beginning and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub why: Why,
    /// Since when it is so, or since when the job waits.
    pub since: Option<Timestamp>,
    /// When the cause ends by itself.
    pub until: Option<Timestamp>,
    /// When the job will start, reckoned from how long others took.
    pub expected: Option<Timestamp>,
}

/// What can hold back a job whose time has come, in the order in which it has to go. Whatever else can hold one back is
/// a rung of its own here: before the slots, if a slot would not help.
const LADDER: &[fn(&Situation) -> Option<Why>] = &[
    redis_trouble,
    queue_paused,
    task_paused,
    rq_suspended,
    no_node,
    draining,
    service_down,
    limited,
    shared_slots_busy,
    slots_busy,
];

/// Why the job stands where it stands.
pub(crate) fn why(situation: &Situation) -> Verdict {
    let now = situation.now;
    let verdict = |why, since| Verdict { why, since, until: None, expected: None };
    let until = |why, at| Verdict { why, since: None, until: Some(at), expected: Some(at) };
    match &situation.spot {
        Spot::Scheduled { due, debounced } if *due > now => {
            until(Why::Scheduled { until: *due, debounced: *debounced }, *due)
        }
        Spot::Unstarted(unstarted) => verdict(Why::Flow(unstarted.clone()), None),
        Spot::Retry { due, last } if *due > now => until(again(*due, last), *due),
        Spot::Scheduled { due, .. } | Spot::Retry { due, .. } => waiting(situation, Some(*due)),
        Spot::Pending { since } => waiting(situation, Some(*since)),
        Spot::Message(_) => waiting(situation, None),
        Spot::Active(run) => Verdict { until: run.timeout.map(|most| run.started.after(most)), ..active(now, run) },
        Spot::Completed(ended) => verdict(Why::Completed(ended.clone()), Some(ended.at)),
        Spot::Dead { ended, cause: Some(Cause::Expired), reason, .. } => {
            verdict(Why::Expired { ended: ended.clone(), reason: reason.clone() }, Some(ended.at))
        }
        Spot::Dead { ended, cause, error, reason, attempts } => {
            let (ended, error, reason) = (ended.clone(), error.clone(), reason.clone());
            let since = Some(ended.at);
            verdict(Why::Dead { ended, cause: *cause, error, reason, attempts: *attempts }, since)
        }
        Spot::Cancelled { ended, reason } => {
            verdict(Why::Cancelled { ended: ended.clone(), reason: reason.clone() }, Some(ended.at))
        }
        Spot::Purged { purge } => Verdict {
            until: purge.as_ref().map(|(_, until)| *until),
            ..verdict(Why::Purged { purge: purge.clone() }, None)
        },
        Spot::Elsewhere { list, status } => {
            verdict(Why::Elsewhere { list: list.clone(), status: status.clone() }, None)
        }
    }
}

fn again(until: Timestamp, last: &Last) -> Why {
    match last {
        Last::Failed { attempt, error } => Why::Retry { until, attempt: *attempt, error: error.clone() },
        Last::Snoozed { reason } => Why::Snoozed { until, reason: Some(reason.clone()) },
        Last::Unknown => Why::Snoozed { until, reason: None },
    }
}

fn waiting(situation: &Situation, since: Option<Timestamp>) -> Verdict {
    let found = LADDER.iter().find_map(|rung| rung(situation));
    let why = found.unwrap_or_else(|| Why::InLine {
        ahead: ahead(situation),
        free: open(situation).map(|node| node.concurrency.saturating_sub(node.running.len())).sum(),
    });
    let expected = match &why {
        Why::SlotsBusy { .. } => starts(situation),
        Why::Limited(reached) => reached.free_at.or_else(|| first_end(situation, reached)),
        _ => None,
    };
    // A pause began when somebody said so; everything else is told from when the job has been waiting.
    let since = match &why {
        Why::QueuePaused(request) | Why::TaskPaused { request, .. } => Some(request.at),
        Why::ServiceDown { down, .. } => Some(down.since),
        _ => since,
    };
    Verdict { why, since, until: None, expected }
}

fn active(now: Timestamp, run: &Run) -> Verdict {
    let lives = run.lease_until.is_some_and(|until| until > now);
    let (run, since) = (run.clone(), Some(run.started));
    let why = if lives { Why::Running { run } } else { Why::Recovering { run } };
    Verdict { why, since, until: None, expected: None }
}

fn redis_trouble(situation: &Situation) -> Option<Why> {
    situation.trouble.clone().map(|finding| Why::Redis { finding })
}

fn queue_paused(situation: &Situation) -> Option<Why> {
    situation.pause.clone().map(Why::QueuePaused)
}

fn task_paused(situation: &Situation) -> Option<Why> {
    let (task, request) = (situation.task.clone()?, situation.task_pause.clone()?);
    Some(Why::TaskPaused { task, request })
}

/// It is the messages that are not taken: what was taken before goes on.
fn rq_suspended(situation: &Situation) -> Option<Why> {
    let is_of_rq = matches!(&situation.spot, Spot::Message(message) if message.wire == Wire::Rq);
    (situation.rq_suspended && is_of_rq).then_some(Why::RqSuspended)
}

fn no_node(situation: &Situation) -> Option<Why> {
    let dead = || situation.nodes.iter().map(|node| node.node.clone()).collect();
    (!situation.nodes.iter().any(|node| node.alive)).then(|| Why::NoNode { dead: dead() })
}

fn draining(situation: &Situation) -> Option<Why> {
    let living = || situation.nodes.iter().filter(|node| node.alive);
    let all = living().all(|node| node.draining);
    all.then(|| Why::Draining { nodes: living().map(|node| node.node.clone()).collect() })
}

/// On all nodes that would claim; the one that tries again first is told.
fn service_down(situation: &Situation) -> Option<Why> {
    let downs: Vec<&Down> = open(situation).filter_map(|node| node.down.as_ref()).collect();
    let first = downs.iter().min_by_key(|down| down.until)?;
    let all = downs.len() == open(situation).count();
    let nodes = || open(situation).map(|node| node.node.clone()).collect();
    all.then(|| Why::ServiceDown { nodes: nodes(), down: (*first).clone() })
}

fn limited(situation: &Situation) -> Option<Why> {
    situation.limit.clone().map(Why::Limited)
}

/// When the first of those who hold the limit will have ended, if it takes as long as others did.
fn first_end(situation: &Situation, reached: &Reached) -> Option<Timestamp> {
    let pace = situation.pace?;
    reached.holders.iter().map(|(_, started)| started.after(pace)).filter(|end| *end > situation.now).min()
}

/// Some node has slots of the queue left and none of its own.
fn shared_slots_busy(situation: &Situation) -> Option<Why> {
    if open(situation).any(could_start) {
        return None;
    }
    let full = open(situation).find(|node| node.running.len() < node.concurrency)?;
    let shared = full.shared.clone()?;
    Some(Why::SharedSlotsBusy { node: full.node.clone(), shared, ahead: ahead(situation) })
}

fn slots_busy(situation: &Situation) -> Option<Why> {
    if open(situation).any(could_start) {
        return None;
    }
    let ends = ends(situation);
    Some(Why::SlotsBusy {
        busy: open(situation).map(|node| node.running.len()).sum(),
        slots: open(situation).map(|node| node.concurrency).sum(),
        nodes: open(situation).map(|node| node.node.clone()).collect(),
        set: open(situation).filter_map(set_by_hand).collect(),
        growth: open(situation).filter_map(|node| Some((node.node.clone(), node.growth.clone()?))).collect(),
        ahead: ahead(situation),
        next_slot: ends.first().copied(),
    })
}

fn set_by_hand(node: &ServingNode) -> Option<(NodeId, usize, Request)> {
    Some((node.node.clone(), node.concurrency, node.set.clone()?))
}

/// The nodes that claim.
fn open(situation: &Situation) -> impl Iterator<Item = &ServingNode> {
    situation.nodes.iter().filter(|node| node.alive && !node.draining)
}

fn could_start(node: &ServingNode) -> bool {
    let is_full = |shared: &SharedSlots| shared.used.iter().map(|(_, used)| used).sum::<usize>() >= shared.bound;
    node.running.len() < node.concurrency && !node.shared.as_ref().is_some_and(is_full)
}

fn ahead(situation: &Situation) -> Option<u64> {
    match &situation.spot {
        Spot::Message(message) => Some(message.ahead),
        _ => situation.ahead,
    }
}

/// When what runs will have ended, if it takes as long as others did; the earliest first. Of what runs longer than that
/// already, nothing is known.
fn ends(situation: &Situation) -> Vec<Timestamp> {
    let Some(pace) = situation.pace else { return Vec::new() };
    let running = open(situation).flat_map(|node| &node.running);
    let mut ends: Vec<Timestamp> =
        running.map(|started| started.after(pace)).filter(|end| *end > situation.now).collect();
    ends.sort_unstable();
    ends
}

/// When the job's turn comes: the slots are given to those before it first, round after round.
fn starts(situation: &Situation) -> Option<Timestamp> {
    let (ends, ahead, pace) = (ends(situation), ahead(situation)?, situation.pace?);
    let running: usize = open(situation).map(|node| node.running.len()).sum();
    let slots = u64::try_from(ends.len()).ok().filter(|slots| *slots > 0 && ends.len() == running)?;
    let slot = usize::try_from(ahead % slots).ok()?;
    let rounds = u32::try_from(ahead / slots).unwrap_or(u32::MAX);
    Some(ends.get(slot)?.after(pace.saturating_mul(rounds)))
}

impl Why {
    /// The cause as one word for machines.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Scheduled { .. } => "scheduled",
            Self::Retry { .. } => "retry",
            Self::Snoozed { .. } => "snoozed",
            Self::Flow(Unstarted { over: true, .. }) => "flow-over",
            Self::Flow(Unstarted { hold: Some(Hold::Culprit { .. }), .. }) => "flow-blocked",
            Self::Flow(_) => "flow",
            Self::RqSuspended => "rq-suspended",
            Self::Redis { .. } => "redis",
            Self::QueuePaused(_) => "queue-paused",
            Self::TaskPaused { .. } => "task-paused",
            Self::NoNode { .. } => "no-node",
            Self::Draining { .. } => "draining",
            Self::ServiceDown { .. } => "service-down",
            Self::Limited(_) => "limited",
            Self::SlotsBusy { .. } => "slots-busy",
            Self::SharedSlotsBusy { .. } => "shared-slots-busy",
            Self::InLine { .. } => "in-line",
            Self::Running { .. } => "running",
            Self::Recovering { .. } => "recovering",
            Self::Completed(_) => "completed",
            Self::Dead { .. } => "dead",
            Self::Expired { .. } => "expired",
            Self::Cancelled { .. } => "cancelled",
            Self::Purged { .. } => "purged",
            Self::Elsewhere { .. } => "elsewhere",
        }
    }
}
