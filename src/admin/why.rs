//! `GET /api/v1/jobs/{id}/why`: why a job does not run, where it runs, or how it ended, in one sentence.
//!
//! Gathers the situation; what follows from it is decided in [`crate::job::why`].

use std::collections::{BTreeSet, HashMap};

use hyper::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::alter::refusal;
use super::answer::{Answer, json as json_answer};
use super::job::{self, Around};
use super::limits;
use super::problem::{Problem, ProblemKind};
use super::{Shared, flow, nodes};
use crate::broker::{Broker, NodeCard, NodeQueue, Outage, Pause, Paused, Scaled};
use crate::clock;
use crate::config::{Config, JobSecrets, Queue};
use crate::job::flow::job_id;
use crate::job::flow::progress::Hold;
use crate::job::why::{
    Down, Ended, Failed, Growth, Last, Message, Reached, Run, ServingNode, SharedSlots, Situation, Spot, Unstarted,
    Verdict, Why, instant, sentence, span, why,
};
use crate::job::{
    Bucket, History, JobId, MemberName, MishapKind, NodeId, QueueName, State, TaskName, Timestamp, UniqueRule, Wire,
};
use crate::store::{
    ActiveView, Blocked, Code, Finding, ForeignList, LineView, LinkError, MESSAGES, Place, Severity, Standing,
};

#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    queue: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    /// Absent of what is no job of ours yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    cause: &'static str,
    sentence: String,
    /// Since when it is so, or since when the job waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// When the cause ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    /// When the job will start, as far as that can be reckoned.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<String>,
    details: Value,
}

/// The nodes of this Redis, and what each runs now.
struct Fleet {
    nodes: Vec<(NodeId, NodeCard)>,
    /// By queue: of the queue that is asked about, and of those that share slots with it.
    holders: HashMap<QueueName, Vec<ActiveView>>,
}

/// `GET /api/v1/jobs/{id}/why`.
pub(super) async fn answer(shared: &Shared, config: &Config, id: &str) -> Result<Answer, Problem> {
    let broker = &shared.parts.broker;
    let id = JobId::parse(id).map_err(|error| Problem::new(ProblemKind::NotFound, error.to_string()))?;
    let nodes = broker.nodes(clock::now()).await.map_err(|error| refusal(broker, &error))?;
    let queues = known_queues(config, &nodes);
    let standing = broker.store.job(&id, &queues).await.map_err(|error| Problem::of_read(&error))?;
    let state = standing.as_ref().map(Standing::state);
    let situation = match standing {
        Some(standing) => of_job(broker, config, nodes, standing).await?,
        None => elsewhere(shared, config, nodes, &id).await?,
    };
    let verdict = why(&situation);
    Ok(json_answer(StatusCode::OK, &shown(&id, state, &situation, &verdict)))
}

/// What no queue holds: a flow knows of it, a producer's list has it, or nobody.
async fn elsewhere(
    shared: &Shared,
    config: &Config,
    nodes: Vec<(NodeId, NodeCard)>,
    id: &JobId,
) -> Result<Situation, Problem> {
    let broker = &shared.parts.broker;
    if let Some((unstarted, queue, task)) = flow::why_unstarted(shared, id).await? {
        let (line, about) = (LineView::default(), (queue, Some(task)));
        let situation = surroundings(broker, Vec::new(), line, about, Spot::Unstarted(unstarted), false).await;
        return situation.map_err(|error| Problem::of_read(&error));
    }
    of_message(broker, config, nodes, id).await?.ok_or_else(|| unknown(config))
}

fn shown<'a>(id: &'a JobId, state: Option<State>, situation: &'a Situation, verdict: &Verdict) -> Shown<'a> {
    let text = |at: Option<Timestamp>| at.map(|at| at.to_string());
    Shown {
        id: id.as_str(),
        queue: situation.queue.as_str(),
        task: situation.task.as_ref().map(TaskName::as_str),
        state,
        cause: verdict.why.word(),
        sentence: sentence(id.as_str(), situation, verdict),
        since: text(verdict.since),
        until: text(verdict.until),
        expected: text(verdict.expected),
        details: details(situation, &verdict.why),
    }
}

/// The queues of the configuration, and those that only other nodes have.
fn known_queues(config: &Config, nodes: &[(NodeId, NodeCard)]) -> Vec<QueueName> {
    let theirs = nodes.iter().flat_map(|(_, card)| &card.queues).map(|served| served.queue.clone());
    config.queues.keys().cloned().chain(theirs).collect::<BTreeSet<_>>().into_iter().collect()
}

fn unknown(config: &Config) -> Problem {
    let longest = |age: fn(&Queue) -> std::time::Duration| config.queues.values().map(|queue| age(queue)).max();
    let kept = match (longest(|queue| queue.keep_completed.age), longest(|queue| queue.keep_dead.age)) {
        (Some(completed), Some(dead)) => format!(
            "; completed jobs are kept for up to {}, dead and cancelled ones for up to {}",
            span(completed),
            span(dead)
        ),
        _ => String::new(),
    };
    let detail = format!(
        "no job has this id: looked for in the queues that are known here, in their flows and in the lists that they read (of \
         Celery's lists the {MESSAGES} messages served next); it was never put in, or it has ended and was deleted{kept}"
    );
    Problem::new(ProblemKind::NotFound, detail)
}

async fn of_job(
    broker: &Broker,
    config: &Config,
    nodes: Vec<(NodeId, NodeCard)>,
    mut standing: Standing,
) -> Result<Situation, Problem> {
    let (queue, id) = (standing.job.queue.clone(), standing.job.id.clone());
    let line = broker.store.line(&queue, &id, standing.job.line()).await.map_err(|error| Problem::of_read(&error))?;
    let around = job::look_around(broker, &mut standing, false).await?;
    let task = standing.job.task.clone();
    let secrets = JobSecrets::of(config.tasks.get(&task).map(AsRef::as_ref), &standing.job.args);
    let spot = spot(config, &standing, &line, around, &secrets);
    let waits = !matches!(standing.place, Place::Active) && !standing.state().has_ended();
    let limit = match config.queues.get(&queue) {
        _ if standing.state() != State::Pending => None,
        Some(served) => {
            let blocked = broker.store.blocked(served, &standing.job, clock::now()).await;
            blocked.map_err(|error| Problem::of_read(&error))?.map(reached)
        }
        None => unknown_limit(broker, &standing).await.map_err(|error| Problem::of_read(&error))?,
    };
    let turn = standing.job.line().map(|line| line.trim_start_matches('~').to_owned()).zip(line.turn);
    let expires = standing.job.expires.filter(|_| waits);
    let situation = surroundings(broker, nodes, line, (queue, Some(task)), spot, waits).await;
    let situation = situation.map_err(|error| Problem::of_read(&error))?;
    Ok(Situation { limit, turn, expires, ..situation })
}

/// A limit of a queue that only others serve: its bounds are in their configurations, and that it holds the job is told by
/// the line in which that stands.
async fn unknown_limit(broker: &Broker, standing: &Standing) -> Result<Option<Reached>, LinkError> {
    let job = &standing.job;
    if standing.place != Place::Held {
        return Ok(None);
    }
    let buckets = job.buckets.iter().filter(|bucket| !bucket.is_tenant()).map(Bucket::name);
    let lines: Vec<&str> = buckets.chain([job.task.as_str(), "*"]).collect();
    let Some(line) = broker.store.line_of(&job.queue, &job.id, &lines).await? else { return Ok(None) };
    let bucket = Bucket::of_limit(line, 1);
    let (limit, value) = bucket.parts();
    let (task, by) = limit.split_once('/').unwrap_or((limit, ""));
    let (task, key) = ((task != "*").then(|| task.to_owned()), value.map(|value| (by.to_owned(), value)));
    Ok(Some(Reached { task, key, bound: None, used: 0, points: 1, holders: Vec::new(), free_at: None }))
}

/// Holders that are named.
const HOLDERS: usize = 10;

fn reached(blocked: Blocked) -> Reached {
    let (task, by) = blocked.limit.split_once('/').unwrap_or((&blocked.limit, ""));
    Reached {
        task: (task != "*").then(|| task.to_owned()),
        key: blocked.key.map(|value| (by.to_owned(), value)),
        bound: Some(limits::bound(blocked.bound)),
        used: blocked.used,
        points: blocked.points,
        holders: blocked.holders.into_iter().take(HOLDERS).map(|(id, active)| (id, active.started)).collect(),
        free_at: blocked.free_at,
    }
}

fn down(outage: Option<Outage>) -> Option<Down> {
    outage.map(|Outage { since, until, reason }| Down { since, until, reason })
}

/// What no queue of ours holds, but a producer's list.
async fn of_message(
    broker: &Broker,
    config: &Config,
    nodes: Vec<(NodeId, NodeCard)>,
    id: &JobId,
) -> Result<Option<Situation>, Problem> {
    let of_read = |error: LinkError| Problem::of_read(&error);
    for queue in config.queues.values() {
        let lists: Vec<_> = queue.lists.iter().map(|(wire, name)| ForeignList::new(*wire, name)).collect();
        let Some(found) = broker.store.message(&lists, id).await.map_err(of_read)? else { continue };
        let mut line = broker.store.line(&queue.name, id, None).await.map_err(of_read)?;
        if found.wire == Wire::Rq {
            line.rq_suspended = broker.store.rq_is_suspended().await.map_err(of_read)?;
        }
        let spot = Spot::Message(Message { wire: found.wire, list: found.list, ahead: found.ahead });
        let about = (queue.name.clone(), None);
        return surroundings(broker, nodes, line, about, spot, true).await.map(Some).map_err(of_read);
    }
    // Without RQ nobody has said that its keys may be read.
    let wires = || config.queues.values().flat_map(|queue| &queue.lists).map(|(wire, _)| *wire);
    if !wires().any(|wire| wire == Wire::Rq) {
        return Ok(None);
    }
    let Some((list, status)) = broker.store.rq_record(id).await.map_err(of_read)? else { return Ok(None) };
    let Ok(queue) = QueueName::parse(&list) else { return Ok(None) };
    let spot = Spot::Elsewhere { list, status };
    let line = LineView::default();
    surroundings(broker, Vec::new(), line, (queue, None), spot, false).await.map(Some).map_err(of_read)
}

/// The situation around a spot: the rest of it is read only where the job waits.
async fn surroundings(
    broker: &Broker,
    nodes: Vec<(NodeId, NodeCard)>,
    line: LineView,
    (queue, task): (QueueName, Option<TaskName>),
    spot: Spot,
    waits: bool,
) -> Result<Situation, LinkError> {
    let now = clock::now();
    let (mut pause, mut task_pause) = (None, None);
    for Pause { paused, request } in line.pauses.iter().filter_map(|(field, note)| Pause::parse(field, note)) {
        match paused {
            Paused::Queue => pause = Some(request),
            Paused::Task(name) if Some(&name) == task.as_ref() => task_pause = Some(request),
            Paused::Task(_) => {}
        }
    }
    let (serving, pace) = if waits {
        let fleet = Fleet::read(broker, nodes, &queue).await?;
        (fleet.serving(broker, &queue, now), broker.store.pace(&queue).await?)
    } else {
        (Vec::new(), None)
    };
    let report = broker.store.report();
    // A full Redis lets run what is in it, but nothing come in.
    let comes_in = matches!(spot, Spot::Message(_));
    let in_the_way = |finding: &&Finding| {
        finding.stops_work || comes_in && finding.code == Code::MemoryFull && finding.severity == Severity::Error
    };
    let stops = report.iter().flat_map(|report| &report.findings).find(in_the_way);
    let trouble = stops.map(|finding| format!("{}; {}", finding.sentence, finding.remedy));
    let (nodes, ahead) = (serving, line.ahead);
    let (limit, turn, expires, rq_suspended) = (None, None, None, line.rq_suspended);
    Ok(Situation {
        now,
        spot,
        queue,
        task,
        trouble,
        pause,
        task_pause,
        limit,
        nodes,
        ahead,
        turn,
        pace,
        expires,
        rq_suspended,
    })
}

impl Fleet {
    async fn read(broker: &Broker, nodes: Vec<(NodeId, NodeCard)>, queue: &QueueName) -> Result<Self, LinkError> {
        let mut wanted = BTreeSet::from([queue.clone()]);
        for (_, card) in &nodes {
            let serves = card.queues.iter().any(|served| served.queue == *queue);
            if serves && card.slots.is_some() {
                wanted.extend(card.queues.iter().map(|served| served.queue.clone()));
            }
        }
        let wanted: Vec<QueueName> = wanted.into_iter().collect();
        let holders = broker.store.holders(&wanted).await?;
        Ok(Self { nodes, holders })
    }

    fn serving(&self, broker: &Broker, queue: &QueueName, now: Timestamp) -> Vec<ServingNode> {
        let serves = |(id, card): &(NodeId, NodeCard)| {
            let served = card.queues.iter().find(|served| served.queue == *queue)?;
            let NodeQueue { concurrency, outage, set, scaled, .. } = nodes::latest(broker, id, served);
            // Of ourselves we know better than what the last heartbeat said.
            let this = *id == broker.node;
            let (draining, bound) =
                if this { (*broker.draining.borrow(), *broker.slots.borrow()) } else { (card.draining, card.slots) };
            Some(ServingNode {
                node: id.clone(),
                alive: this || card.lease_until > now,
                draining,
                down: down(outage),
                concurrency,
                set: set.map(|set| set.request),
                growth: scaled.map(|Scaled { max, held, .. }| Growth { max, held }),
                running: self.on(id, queue).map(|active| active.started).collect(),
                shared: bound.map(|bound| SharedSlots { bound, used: self.used(id, card) }),
            })
        };
        self.nodes.iter().filter_map(serves).collect()
    }

    /// What each queue runs on a node.
    fn used(&self, node: &NodeId, card: &NodeCard) -> Vec<(QueueName, usize)> {
        let used = card.queues.iter().map(|served| (served.queue.clone(), self.on(node, &served.queue).count()));
        used.filter(|(_, used)| *used > 0).collect()
    }

    fn on<'a>(&'a self, node: &'a NodeId, queue: &QueueName) -> impl Iterator<Item = &'a ActiveView> {
        self.holders.get(queue).into_iter().flatten().filter(move |active| active.node == *node)
    }
}

fn spot(config: &Config, standing: &Standing, line: &LineView, around: Around, secrets: &JobSecrets) -> Spot {
    let Standing { job, history, .. } = standing;
    let due = standing.due.or(job.due).unwrap_or(job.enqueued_at);
    let ended = ended(history);
    let reason = history.end.as_ref().and_then(|end| end.reason.as_deref()).map(|reason| secrets.text(reason));
    match standing.place {
        Place::Scheduled => {
            let debounced =
                job.unique.as_ref().is_some_and(|unique| matches!(unique.rule, UniqueRule::Debounce { .. }));
            Spot::Scheduled { due, debounced }
        }
        Place::Retry => Spot::Retry { due, last: last(history, secrets) },
        Place::Pending | Place::Held => Spot::Pending { since: due },
        Place::Active => match &standing.active {
            Some(active) => Spot::Active(run(config, standing, active, line, around)),
            // It has just been settled: the next look shows where it went.
            None => Spot::Pending { since: due },
        },
        Place::Completed => Spot::Completed(ended),
        Place::Dead => Spot::Dead {
            ended,
            cause: history.end.as_ref().and_then(|end| end.cause),
            error: error(history, secrets),
            reason,
            attempts: history.failures + history.crashes,
        },
        Place::Cancelled => Spot::Cancelled { ended, reason },
        Place::Purged => Spot::Purged { purge: around.purged },
    }
}

fn run(config: &Config, standing: &Standing, active: &ActiveView, line: &LineView, around: Around) -> Run {
    let job = &standing.job;
    let task = config.task(&job.task).and_then(|task| task.timeout);
    let queue = || config.queues.get(&job.queue).map(|queue| queue.timeout);
    Run {
        node: active.node.clone(),
        started: active.started,
        attempt: standing.history.next_attempt(),
        timeout: job.timeout.or(task).or_else(queue),
        lease_until: line.leases.get(&active.node).copied(),
        cancel: around.cancel,
    }
}

fn ended(history: &History) -> Ended {
    match &history.end {
        Some(end) => Ended { at: end.at, started: end.started, node: end.node.clone() },
        None => Ended { at: clock::now(), started: None, node: None },
    }
}

fn last(history: &History, secrets: &JobSecrets) -> Last {
    if let Some(snooze) = history.snoozed_last() {
        return Last::Snoozed { reason: secrets.text(&snooze.reason) };
    }
    match (history.mishaps.last(), error(history, secrets)) {
        (Some(mishap), Some(error)) => Last::Failed { attempt: mishap.attempt, error },
        _ => Last::Unknown,
    }
}

fn error(history: &History, secrets: &JobSecrets) -> Option<Failed> {
    let told = history.mishaps.iter().rev().find(|mishap| mishap.kind != MishapKind::Interrupted)?;
    Some(Failed { name: secrets.text(&told.name), message: secrets.text(&told.message) })
}

/// The data of a cause, for machines.
fn details(situation: &Situation, why: &Why) -> Value {
    let names = |nodes: &[NodeId]| nodes.iter().map(NodeId::as_str).map(Value::from).collect::<Vec<_>>();
    let ended = |ended: &Ended| {
        json!({
            "node": ended.node.as_ref().map(NodeId::as_str),
            "duration_seconds": ended.started.map(|started| ended.at.since(started).as_secs_f64()),
        })
    };
    let mut details = match why {
        Why::Scheduled { debounced, .. } => json!({ "debounced": debounced }),
        Why::Flow(unstarted) => flow_details(unstarted),
        Why::RqSuspended | Why::Recovering { .. } | Why::Running { .. } => json!({}),
        Why::Retry { attempt, error, .. } => json!({"attempt": attempt, "error": error.name, "message": error.message}),
        Why::Snoozed { reason, .. } => json!({"reason": reason}),
        Why::Redis { finding } => json!({"finding": finding}),
        Why::QueuePaused(request) => json!({"by": request.by, "reason": request.reason}),
        Why::TaskPaused { task, request } => {
            json!({"task": task.as_str(), "by": request.by, "reason": request.reason})
        }
        Why::NoNode { dead } => json!({"dead": names(dead)}),
        Why::Draining { nodes } => json!({"nodes": names(nodes)}),
        Why::ServiceDown { nodes, down } => json!({"nodes": names(nodes), "reason": down.reason}),
        Why::Limited(reached) => json!({
            "task": reached.task,
            "key": reached.key.as_ref().map(|(key, _)| key),
            "value": reached.key.as_ref().map(|(_, value)| value),
            "bound": reached.bound,
            "used": reached.used,
            "points": reached.points,
            "holders": reached.holders.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(),
        }),
        Why::SlotsBusy { busy, slots, nodes, set, growth, ahead, next_slot } => json!({
            "busy": busy,
            "slots": slots,
            "nodes": names(nodes),
            "set": set.iter().map(|(node, slots, request)| json!({"node": node.as_str(), "slots": slots, "by": request.by})).collect::<Vec<_>>(),
            "growth": growth.iter().map(|(node, growth)| json!({"node": node.as_str(), "max": growth.max, "held": growth.held})).collect::<Vec<_>>(),
            "ahead": ahead,
            "next_slot": next_slot.map(instant),
        }),
        Why::SharedSlotsBusy { node, shared, ahead } => {
            let used: serde_json::Map<_, _> =
                shared.used.iter().map(|(queue, used)| (queue.to_string(), json!(used))).collect();
            json!({"node": node.as_str(), "slots": shared.bound, "used": used, "ahead": ahead})
        }
        Why::InLine { ahead, free } => json!({"ahead": ahead, "free": free}),
        Why::Completed(end) => ended(end),
        Why::Dead { ended: end, cause, error, reason, attempts } => {
            let mut told = ended(end);
            told["cause"] = json!(cause);
            told["attempts"] = json!(attempts);
            told["error"] = json!(error.as_ref().map(|error| &error.name));
            told["message"] = json!(error.as_ref().map(|error| &error.message));
            told["reason"] = json!(reason);
            told
        }
        Why::Expired { ended: end, reason } | Why::Cancelled { ended: end, reason } => {
            let mut told = ended(end);
            told["reason"] = json!(reason);
            told
        }
        Why::Purged { purge } => json!({"purge": purge.as_ref().map(|(purge, _)| purge)}),
        Why::Elsewhere { list, status } => json!({"list": list, "status": status}),
    };
    if let Why::Running { run } | Why::Recovering { run } = why {
        details["node"] = run.node.as_str().into();
        details["attempt"] = run.attempt.into();
        details["lease_until"] = json!(run.lease_until.map(instant));
        details["cancel_requested"] = json!(run.cancel.as_ref().map(|request| request.words()));
    }
    if let Spot::Message(Message { wire, list, ahead }) = &situation.spot {
        details["message"] = json!({"wire": wire.as_str(), "list": list, "ahead": ahead});
    }
    details
}

/// Whom a job of a flow waits for, or who blocks it, each by the id of its job.
fn flow_details(unstarted: &Unstarted) -> Value {
    let id = |name: &MemberName| job_id(&unstarted.flow, name).to_string();
    let (culprit, waits_for) = match &unstarted.hold {
        Some(Hold::Culprit { name, .. }) => (Some(id(name)), Vec::new()),
        Some(Hold::Others(names)) => (None, names.iter().take(HOLDERS).map(id).collect()),
        _ => (None, Vec::new()),
    };
    json!({"flow": unstarted.flow.as_str(), "culprit": culprit, "waits_for": waits_for})
}
