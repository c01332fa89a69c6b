//! `GET /api/v1/nodes`, and `POST /api/v1/nodes/{n}/{drain,resume}`.

use hyper::StatusCode;
use serde::Serialize;

use super::Shared;
use super::alter::refusal;
use super::answer::{Answer, json};
use super::entry::{nearest, quoted};
use super::problem::{Problem, ProblemKind};
use super::stance::{ShownBreaker, ShownOverride};
use crate::broker::{Broker, NodeCard, NodeOrder, NodeQueue, Stance};
use crate::clock;
use crate::job::{NodeId, Timestamp};

/// A node, as it has last said of itself.
#[derive(Serialize)]
struct Shown {
    node: String,
    /// It is the one that answers.
    this: bool,
    /// Whether its lease holds.
    alive: bool,
    draining: bool,
    version: String,
    host: String,
    pid: u32,
    started: String,
    seen: String,
    queues: Vec<ShownQueue>,
}

#[derive(Serialize)]
struct ShownQueue {
    queue: String,
    concurrency: usize,
    running: usize,
    #[serde(skip_serializing_if = "Option::is_none", rename = "override")]
    set: Option<ShownOverride>,
    #[serde(skip_serializing_if = "Option::is_none")]
    breaker: Option<ShownBreaker>,
}

#[derive(Serialize)]
struct Told<'a> {
    node: &'a str,
    draining: bool,
}

/// `GET /api/v1/nodes`.
pub(super) async fn answer(shared: &Shared) -> Result<Answer, Problem> {
    #[derive(Serialize)]
    struct Body {
        nodes: Vec<Shown>,
    }
    let now = clock::now();
    let nodes = shared.parts.broker.nodes(now).await.map_err(|error| refusal(&shared.parts.broker, &error))?;
    let nodes = nodes.into_iter().map(|(id, card)| shown(shared, &id, card, now)).collect();
    Ok(json(StatusCode::OK, &Body { nodes }))
}

fn shown(shared: &Shared, id: &NodeId, card: NodeCard, now: Timestamp) -> Shown {
    let broker = &shared.parts.broker;
    let this = *id == broker.node;
    let queues = card.queues.iter().map(|served| {
        let NodeQueue { queue, concurrency, running, outage, set, .. } = latest(broker, id, served);
        let (set, breaker) = (set.as_ref().map(ShownOverride::of), outage.map(ShownBreaker::of));
        ShownQueue { queue: queue.to_string(), concurrency, running, set, breaker }
    });
    Shown {
        node: id.to_string(),
        this,
        alive: card.lease_until > now,
        draining: if this { *broker.draining.borrow() } else { card.draining },
        version: card.version,
        host: card.host,
        pid: card.pid,
        started: card.started.to_string(),
        seen: card.seen.to_string(),
        queues: queues.collect(),
    }
}

/// How a node serves a queue. Of ourselves we know better than what the last heartbeat said.
pub(super) fn latest(broker: &Broker, id: &NodeId, served: &NodeQueue) -> NodeQueue {
    if *id != broker.node {
        return served.clone();
    }
    let queue = served.queue.clone();
    let (Stance { outage, scaled }, set) = (broker.stances.of(&queue), broker.overrides.of(&queue));
    let size = scaled.as_ref().map(|scaled| scaled.size).or(set.as_ref().map(|set| set.concurrency.max));
    let concurrency = size.unwrap_or(served.concurrency);
    NodeQueue { running: broker.holds(&queue), concurrency, outage, set, scaled, queue }
}

/// `POST /api/v1/nodes/{n}/{drain,resume}`: another node hears of it with its next heartbeat, this one at once.
pub(super) async fn tell(shared: &Shared, name: &str, drain: bool) -> Result<Answer, Problem> {
    let broker = &shared.parts.broker;
    let nodes = broker.nodes(clock::now()).await.map_err(|error| refusal(&shared.parts.broker, &error))?;
    let known = NodeId::parse(name).ok().filter(|id| *id == broker.node || nodes.iter().any(|(node, _)| node == id));
    let Some(id) = known else {
        let near = nearest(name, nodes.iter().map(|(id, _)| id.as_str()));
        let hint = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
        return Err(Problem::new(ProblemKind::NotFound, format!("no node is called {}{hint}", quoted(name))));
    };
    broker
        .order(&id, drain.then_some(NodeOrder::Drain))
        .await
        .map_err(|error| refusal(&shared.parts.broker, &error))?;
    if id == broker.node {
        broker.draining.send_replace(drain);
    }
    Ok(json(StatusCode::OK, &Told { node: id.as_str(), draining: drain }))
}
