//! Random flows: chains and groups inside each other, or jobs by name with what each follows.

use super::*;
use crate::job::flow::{Draft, Heading, Listed, Member, Outline, Shape};
use crate::job::{MemberName, Request};

/// Jobs of one flow, at most about.
const JOBS: usize = 12;

pub(super) fn flow(random: &mut Random, id: &FlowId, queues: &[Queue], now: Timestamp) -> Flow {
    let mut members = Vec::new();
    let shape =
        if random.below(3) == 0 { graph(random, &mut members, queues) } else { part(random, &mut members, queues, 0) };
    let callbacks: Vec<(Callback, Listed)> = Callback::ALL
        .into_iter()
        .filter(|_| random.below(3) > 0)
        .collect::<Vec<_>>()
        .into_iter()
        .map(|callback| (callback, listed(random, callback.as_str(), queues)))
        .collect();
    let drafts = members.iter().chain(callbacks.iter().map(|(_, one)| one)).map(|one| draft(id, one, now)).collect();
    let request = Request { at: now, by: "ann".to_owned(), reason: None };
    let heading = Heading { id: id.clone(), name: None, request };
    Flow { outline: Outline { heading, members, callbacks, shape }, drafts }
}

/// A flow of this shape over so many jobs of the first queue.
pub(super) fn of_shape(id: &FlowId, count: usize, shape: Shape, now: Timestamp) -> Flow {
    let member = |at: usize| Listed {
        name: MemberName::parse(&format!("j{at}")).expect("a valid name"),
        task: TaskName::parse("echo").expect("a valid name"),
        queue: queue().name,
        allow_failure: false,
    };
    let members: Vec<Listed> = (0..count).map(member).collect();
    let drafts = members.iter().map(|one| draft(id, one, now)).collect();
    let request = Request { at: now, by: "ann".to_owned(), reason: None };
    let heading = Heading { id: id.clone(), name: None, request };
    Flow { outline: Outline { heading, members, callbacks: Vec::new(), shape }, drafts }
}

fn part(random: &mut Random, members: &mut Vec<Listed>, queues: &[Queue], depth: usize) -> Shape {
    if depth == 3 || members.len() >= JOBS || depth > 0 && random.below(2) == 0 {
        return Shape::Job(member(random, members, queues));
    }
    let count = 1 + random.index(4);
    let parts = (0..count).map(|_| part(random, members, queues, depth + 1)).collect();
    if random.below(2) == 0 { Shape::Chain(parts) } else { Shape::Group(parts) }
}

/// Each job follows some of those before it.
fn graph(random: &mut Random, members: &mut Vec<Listed>, queues: &[Queue]) -> Shape {
    let count = 1 + random.index(JOBS);
    let mut follows = Vec::new();
    for at in 0..count {
        member(random, members, queues);
        follows.push((0..at).filter(|_| random.below(3) == 0).collect());
    }
    Shape::Graph(follows)
}

fn member(random: &mut Random, members: &mut Vec<Listed>, queues: &[Queue]) -> usize {
    let one = listed(random, &format!("j{}", members.len()), queues);
    members.push(one);
    members.len() - 1
}

fn listed(random: &mut Random, name: &str, queues: &[Queue]) -> Listed {
    Listed {
        name: MemberName::parse(name).expect("a valid name"),
        task: TaskName::parse("echo").expect("a valid name"),
        queue: queues[random.index(queues.len())].name.clone(),
        allow_failure: random.below(6) == 0,
    }
}

fn draft(flow: &FlowId, listed: &Listed, now: Timestamp) -> Draft {
    let id = job_id(flow, &listed.name);
    let member = Member { id: flow.clone(), name: listed.name.clone(), keeps_result: listed.allow_failure };
    let job = Job { id, queue: listed.queue.clone(), flow: Some(member), ..job("x", now) };
    Draft { job, delayed: false, expires_later: false }
}
