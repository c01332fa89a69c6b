//! A verdict in one plain sentence: what is the case, since or until when, and what somebody can do about it.

use std::time::Duration;

use chrono::SecondsFormat;

use super::{Down, Failed, Growth, Reached, Situation, Spot, Unstarted, Verdict, Why};
use crate::job::{Cause, NodeId, Request, Timestamp};

/// Characters of an error that a sentence repeats; `jobsd job ID` shows the rest.
const ERROR: usize = 300;

/// The sentence about the job of this id.
pub(crate) fn sentence(id: &str, situation: &Situation, verdict: &Verdict) -> String {
    let now = situation.now;
    let words = match &verdict.why {
        Why::Scheduled { until, debounced: false } => format!("it is scheduled for {}", when(*until, now)),
        Why::Scheduled { until, debounced: true } => format!(
            "it is debounced until {}; another job of its unique key that comes before takes its place",
            when(*until, now)
        ),
        Why::Flow(unstarted) => format!("{}, in the flow {}", unstarted.words, unstarted.flow),
        Why::RqSuspended => {
            "RQ's workers are suspended, so no message of RQ is taken; `rq resume` ends that".to_owned()
        }
        Why::Retry { until, attempt, error } => format!(
            "attempt {attempt} failed with {}; the next one starts {}",
            failed(error),
            when_with_preposition(*until, now)
        ),
        Why::Snoozed { until, reason } => {
            let reason = reason.as_deref().map_or(String::new(), |reason| format!(" ({})", cut(reason)));
            format!("it was put off{reason} until {}", when(*until, now))
        }
        Why::Redis { finding } => format!("Redis stands in the way: {finding}"),
        Why::QueuePaused(request) => format!(
            "the queue {queue} was paused {} {}; `jobsd resume {queue}` ends that",
            request.words(),
            ago(request.at, now),
            queue = situation.queue
        ),
        Why::TaskPaused { task, request } => format!(
            "the task {task} was paused {} {}; `jobsd resume --task {task}` ends that",
            request.words(),
            ago(request.at, now)
        ),
        Why::NoNode { dead } => no_node(situation, dead),
        Why::Draining { nodes } => draining(situation, nodes),
        Why::ServiceDown { nodes, down } => service_down(situation, nodes, down),
        Why::Limited(reached) => limited(situation, reached, verdict.expected),
        Why::SlotsBusy { .. } | Why::SharedSlotsBusy { .. } | Why::InLine { .. } => in_line(situation, verdict),
        Why::Running { .. } | Why::Recovering { .. } => running(now, verdict),
        Why::Completed(ended) => {
            let took = ended.started.map_or(String::new(), |started| format!(" in {}", span(ended.at.since(started))));
            format!("it completed{}{took}, {}", on(ended.node.as_ref()), ago(ended.at, now))
        }
        Why::Dead { ended, cause, error, reason, attempts } => {
            let error = error.as_ref().map_or(String::new(), |error| format!(" with {}", failed(error)));
            let reason = reason.as_deref().map_or(String::new(), |reason| format!(": {reason}"));
            let attempts = if *attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") };
            format!(
                "it failed {}{error}, and is dead after {attempts}{reason}; {}",
                ago(ended.at, now),
                remedy(id, *cause)
            )
        }
        Why::Expired { ended, reason } => {
            let reason = reason.as_deref().unwrap_or("it expired before its attempt could start");
            format!("{reason}, so it ended {} without one; `jobsd retry {id}` runs it all the same", ago(ended.at, now))
        }
        Why::Cancelled { ended, reason } => {
            format!("it was {} {}", reason.as_deref().unwrap_or("cancelled"), ago(ended.at, now))
        }
        Why::Purged { purge } => purged(situation, purge.as_ref(), now),
        Why::Elsewhere { list, status } => format!(
            "RQ's own record of it says {status}, in the queue {list}; it stands in no list that jobsd reads here"
        ),
    };
    format!("{}{words}{}", subject(situation, &verdict.why), expiry(situation))
}

/// That a job that waits has no longer than until then.
fn expiry(situation: &Situation) -> String {
    let now = situation.now;
    match situation.expires {
        Some(at) if at > now => format!("; it expires at {} if no attempt has started by then", when(at, now)),
        _ => String::new(),
    }
}

/// What the rest is said of: nothing for what runs or has ended, "waiting" for what waits.
fn subject(situation: &Situation, why: &Why) -> String {
    if let Spot::Message(message) = &situation.spot {
        let place = nth(message.ahead);
        return format!(
            "waiting as the {place} message of the {} queue {}, not taken yet: ",
            message.wire.as_str(),
            message.list
        );
    }
    let waits = matches!(
        why,
        Why::Scheduled { .. }
            | Why::Retry { .. }
            | Why::Snoozed { .. }
            | Why::Flow(Unstarted { over: false, .. })
            | Why::RqSuspended
            | Why::Redis { .. }
            | Why::QueuePaused(_)
            | Why::TaskPaused { .. }
            | Why::NoNode { .. }
            | Why::Draining { .. }
            | Why::ServiceDown { .. }
            | Why::Limited(_)
            | Why::SlotsBusy { .. }
            | Why::SharedSlotsBusy { .. }
            | Why::InLine { .. }
    );
    if waits { "waiting: ".to_owned() } else { String::new() }
}

fn no_node(situation: &Situation, dead: &[NodeId]) -> String {
    let queue = &situation.queue;
    match dead {
        [] => format!("no node serves the queue {queue}; start one whose configuration has it"),
        dead => format!(
            "no living node serves the queue {queue}; {} did and {} not seen any more",
            names(dead),
            if dead.len() == 1 { "is" } else { "are" }
        ),
    }
}

fn draining(situation: &Situation, nodes: &[NodeId]) -> String {
    let (are, each) = if nodes.len() == 1 { ("is", "it claims") } else { ("are", "they claim") };
    format!(
        "{}, which {} the queue {}, {are} draining: {each} nothing more; `jobsd resume --node NODE` ends that",
        names(nodes),
        if nodes.len() == 1 { "alone serves" } else { "serve" },
        situation.queue
    )
}

fn service_down(situation: &Situation, nodes: &[NodeId], down: &Down) -> String {
    let now = situation.now;
    let next = match down.until {
        Some(until) => format!("one job tries it again {}", when_with_preposition(until, now)),
        None => "one job tries it just now".to_owned(),
    };
    format!(
        "the service behind the queue {} is down for {} ({}), since {}; {next}",
        situation.queue,
        names(nodes),
        cut(&down.reason),
        when(down.since, now)
    )
}

/// Who has used up the limit, and when there is room again.
fn limited(situation: &Situation, reached: &Reached, expected: Option<Timestamp>) -> String {
    let now = situation.now;
    let whose = match &reached.task {
        Some(task) => format!("the task {task}"),
        None => format!("the queue {}", situation.queue),
    };
    let value = reached.key.as_ref().map_or(String::new(), |(key, value)| format!(" for {key} {value}"));
    let Some(bound) = &reached.bound else {
        return format!("a limit of {whose}{value} has no room for it; the nodes that serve it know which");
    };
    let holders: Vec<String> = reached.holders.iter().map(|(id, _)| id.to_string()).collect();
    let by = if holders.is_empty() { String::new() } else { format!(" by {}", list(&holders)) };
    let needs = if reached.points == 1 { String::new() } else { format!(", it takes {}", reached.points) };
    let next = match (reached.free_at, expected) {
        (Some(at), _) => format!("; there is room again {}", when_with_preposition(at, now)),
        (None, Some(at)) => format!("; the next of them is expected to end {}", soon(at, now)),
        (None, None) => "; it may start when one of them ends".to_owned(),
    };
    format!("{whose} may run {bound}{value}: {} are taken{by}{needs}{next}", reached.used)
}

/// What waits for a slot: who has them, and how many stand before it.
fn in_line(situation: &Situation, verdict: &Verdict) -> String {
    let now = situation.now;
    let (held, ahead) = match &verdict.why {
        Why::SlotsBusy { busy, slots, nodes, set, growth, ahead, .. } => {
            let (queue, nodes, set, growth) =
                (&situation.queue, names(nodes), set_by_hand(set, now), grows(growth, *slots));
            (format!("{busy} of {slots} slots of the queue {queue} are taken on {nodes}{set}{growth}"), *ahead)
        }
        Why::SharedSlotsBusy { node, shared, ahead } => {
            let used: Vec<String> = shared.used.iter().map(|(queue, used)| format!("{used} by {queue}")).collect();
            let bound = shared.bound;
            (format!("all {bound} slots that the queues of {node} share are taken, {}", list(&used)), *ahead)
        }
        Why::InLine { ahead, free } => {
            let slots = if *free == 1 { "1 slot is".to_owned() } else { format!("{free} slots are") };
            (format!("nothing holds it back, {slots} free, it starts within moments"), *ahead)
        }
        _ => (String::new(), None),
    };
    let before = match ahead {
        None if situation.turn.is_some() => turn(situation),
        Some(0) => "; it is next in line".to_owned(),
        Some(1) => "; 1 job is before it".to_owned(),
        Some(n) => format!("; {n} jobs are before it"),
        None => String::new(),
    };
    let next = match &verdict.why {
        Why::SlotsBusy { next_slot: Some(at), .. } => format!("; next slot expected {}", soon(*at, now)),
        _ => String::new(),
    };
    let its_turn = match (verdict.expected, ahead) {
        (Some(at), Some(1..)) => format!(", its turn {}", soon(at, now)),
        _ => String::new(),
    };
    format!("{held}{before}{next}{its_turn}")
}

/// `; tenants take turns, and 3 jobs of A are before it`.
fn turn(situation: &Situation) -> String {
    match &situation.turn {
        Some((tenant, 0)) => format!("; tenants take turns, and it is the next one of {tenant}"),
        Some((tenant, 1)) => format!("; tenants take turns, and 1 job of {tenant} is before it"),
        Some((tenant, n)) => format!("; tenants take turns, and {n} jobs of {tenant} are before it"),
        None => String::new(),
    }
}

/// How far the number of slots may grow, where it follows the load on the only node or one of several.
fn grows(growth: &[(NodeId, Growth)], slots: usize) -> String {
    let Some((node, Growth { max, held })) = growth.iter().find(|(_, growth)| growth.held.is_some()).or(growth.first())
    else {
        return String::new();
    };
    match held {
        Some(held) => format!("; on {node} there will be no more for now: {held}"),
        None if growth.len() == 1 && slots >= *max => format!("; on {node} there are no more than {max}"),
        None => format!("; on {node} there may be {max}"),
    }
}

/// ` (vps-1 was set to 1 by ann: burst 5m ago)`.
fn set_by_hand(set: &[(NodeId, usize, Request)], now: Timestamp) -> String {
    let each = set.iter().map(|(node, slots, request)| {
        format!("{node} was set to {slots} {} {}", request.words(), ago(request.at, now))
    });
    let each: Vec<String> = each.collect();
    if each.is_empty() { String::new() } else { format!(" ({})", list(&each)) }
}

fn running(now: Timestamp, verdict: &Verdict) -> String {
    let (Why::Running { run } | Why::Recovering { run }) = &verdict.why else { return String::new() };
    let since = format!("attempt {} on {}, since {}", run.attempt, run.node, when(run.started, now));
    if matches!(verdict.why, Why::Recovering { .. }) {
        let silent = match run.lease_until {
            Some(end) => format!("its lease ended {}", ago(end, now)),
            None => "it has ended".to_owned(),
        };
        return format!("recovering: {since}; {silent}, so another node takes it over with its next sweep");
    }
    let cancel = run.cancel.as_ref().map_or(String::new(), |request| {
        format!("; its end was asked for {} {}, and its node is stopping it", request.words(), ago(request.at, now))
    });
    let timeout = match (verdict.until, run.timeout) {
        (Some(at), Some(most)) => format!("; it is stopped at {} (its timeout is {})", when(at, now), span(most)),
        _ => String::new(),
    };
    format!("running: {since}{cancel}{timeout}")
}

fn purged(situation: &Situation, purge: Option<&(String, Timestamp)>, now: Timestamp) -> String {
    match purge {
        Some((purge, until)) => format!(
            "it was taken out of the queue {queue} by a purge; `jobsd undo {queue} {purge}` brings it back until {}",
            when(*until, now),
            queue = situation.queue
        ),
        None => format!("it stands in no set of the queue {}: it is being moved or deleted just now", situation.queue),
    }
}

/// What to do about a dead job.
fn remedy(id: &str, cause: Option<Cause>) -> String {
    let retry = format!("`jobsd retry {id}`");
    match cause {
        Some(Cause::CrashLoop) => format!("see in the log of its node what ended the process, then {retry}"),
        Some(Cause::SnoozeLimit) => format!("see why it was always put off, then {retry}"),
        Some(Cause::Unreadable) => "have its producer send it again in a form that can be read".to_owned(),
        Some(Cause::UnknownTask) => format!("declare its task in jobsd.toml, reload, then {retry}"),
        Some(Cause::BadArguments) => format!("give it arguments that fit: `jobsd retry {id} --args '{{…}}'`"),
        Some(Cause::NotRetryable) => format!("mend what the error names, or its arguments, then {retry}"),
        Some(Cause::RetriesExhausted | Cause::Expired) | None => format!("mend what the error names, then {retry}"),
    }
}

fn failed(error: &Failed) -> String {
    format!("{}: {}", error.name, cut(&error.message))
}

/// One line of bounded length.
fn cut(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(ERROR) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

fn on(node: Option<&NodeId>) -> String {
    node.map_or(String::new(), |node| format!(" on {node}"))
}

fn names(nodes: &[NodeId]) -> String {
    list(&nodes.iter().map(ToString::to_string).collect::<Vec<_>>())
}

/// `a`, `a and b`, `a, b and c`; of many only the first.
fn list(items: &[String]) -> String {
    const MOST: usize = 5;
    match items {
        [] => "nobody".to_owned(),
        [only] => only.clone(),
        many if many.len() > MOST => format!("{} and {} more", many[..MOST].join(", "), many.len() - MOST),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn nth(ahead: u64) -> String {
    let place = ahead + 1;
    let ending = match (place % 10, place % 100) {
        (1, n) if n != 11 => "st",
        (2, n) if n != 12 => "nd",
        (3, n) if n != 13 => "rd",
        _ => "th",
    };
    format!("{place}{ending}")
}

/// `2026-11-23T18:00:00Z (in 5m)`.
fn when(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        format!("{} (in {})", instant(at), span(at.since(now)))
    } else {
        format!("{} ({})", instant(at), ago(at, now))
    }
}

fn when_with_preposition(at: Timestamp, now: Timestamp) -> String {
    if at > now { format!("at {}", when(at, now)) } else { "now".to_owned() }
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    match now.since(at) {
        brief if brief < Duration::from_secs(1) => "just now".to_owned(),
        long => format!("{} ago", span(long)),
    }
}

/// Of what is reckoned only.
fn soon(at: Timestamp, now: Timestamp) -> String {
    format!("at {} (in about {})", instant(at), span(at.since(now)))
}

/// RFC 3339 to the second.
pub(crate) fn instant(at: Timestamp) -> String {
    at.to_utc().to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// In its two largest units; below a second in milliseconds.
pub(crate) fn span(span: Duration) -> String {
    let whole = match span {
        long if long >= Duration::from_secs(1) => Duration::from_secs(long.as_secs()),
        brief => Duration::from_millis(u64::try_from(brief.as_millis()).unwrap_or(u64::MAX)),
    };
    humantime::format_duration(whole).to_string().split(' ').take(2).collect::<Vec<_>>().join(" ")
}
