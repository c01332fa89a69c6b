//! `/api/v1/flows`: submit, list, look at, cancel and retry flows; and their jobs before their turn.

mod read;
mod shown;

use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use serde::Serialize;
use serde_json::Value;

use super::alter::refusal;
use super::answer::{Answer, json};
use super::enqueue::is_stale;
use super::fields::Fields;
use super::problem::{Problem, ProblemKind};
use super::{Shared, job, request, who};
use crate::broker::{Broker, BrokerError, FlowCancelled, FlowCreated, FlowRetried};
use crate::clock;
use crate::config::Config;
use crate::job::flow::{self, Flow, FlowState, Progress, Stand};
use crate::job::{FlowId, JobId, MemberName, QueueName, TaskName, why};
use crate::store::{FlowLine, FlowView, LinkError, Position};

/// Flows in one page, at most.
const PAGE: u64 = 200;
/// Flows looked at for one page that asks for a state.
const LOOKED_AT: usize = 2_000;

/// What a client learns of the flow it has submitted.
#[derive(Serialize)]
struct Accepted<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    state: FlowState,
    /// How many; a job's id is `flow:ID:NAME`.
    jobs: usize,
}

#[derive(Serialize)]
struct Page<'a> {
    flows: Vec<shown::Line<'a>>,
    /// Where the next page begins.
    next: Option<String>,
}

#[derive(Serialize)]
struct Changed<'a> {
    id: &'a str,
    outcome: &'static str,
    /// The jobs that go on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    jobs: Vec<&'a str>,
}

/// `POST /api/v1/flows`.
pub(super) async fn submit(shared: &Shared, config: &Config, head: &Parts, body: &[u8]) -> Result<Answer, Problem> {
    let given = request::json(body)?;
    let mut nobody = Fields::of_body(None, "a flow", &[])?;
    let flow = read::read(config, &given, body, who::request(head, &mut nobody)?)?;
    let heading = &flow.outline.heading;
    match create(&shared.parts.broker, &flow).await? {
        FlowCreated::Exists => {
            let detail = format!("a flow with the id {:?} exists; it was left as it is", heading.id.as_str());
            Err(Problem::new(ProblemKind::IdExists, detail).with(header::LOCATION, location(&heading.id)))
        }
        FlowCreated::Added => {
            let (state, jobs) = (FlowState::Running, flow.outline.members.len());
            let accepted = Accepted { id: heading.id.as_str(), name: heading.name.as_deref(), state, jobs };
            let mut answer = json(StatusCode::CREATED, &accepted);
            answer.headers_mut().insert(header::LOCATION, location(&heading.id));
            Ok(answer)
        }
    }
}

/// Once more when the connection turns out to be dead, as the first call after a restart of Redis finds it. The id makes
/// that safe: what is there by then is what the lost call had written.
async fn create(broker: &Broker, flow: &Flow) -> Result<FlowCreated, Problem> {
    let created = match broker.create_flow(flow).await {
        Err(BrokerError::Link(error)) if is_stale(&error) => {
            tracing::debug!("submit a flow again, on a new connection: {error}");
            broker.create_flow(flow).await.map(|_| FlowCreated::Added)
        }
        other => other,
    };
    created.map_err(|error| match &error {
        BrokerError::Link(away @ (LinkError::Timeout(_) | LinkError::Broken(_))) => Problem::unavailable(format!(
            "{away}; it may have been submitted all the same; a repetition is safe with an \"id\" of your own"
        )),
        _ => refusal(broker, &error),
    })
}

fn location(id: &FlowId) -> HeaderValue {
    HeaderValue::from_str(&format!("/api/v1/flows/{id}")).expect("ids of flows are plain")
}

/// `GET /api/v1/flows`: the latest first.
pub(super) async fn list(shared: &Shared, query: Option<&str>) -> Result<Answer, Problem> {
    let mut fields = Fields::of_query(query, "a list of flows", &["state", "limit", "cursor"]);
    let state = state(&mut fields);
    let limit = fields.count("limit", 1..=PAGE).unwrap_or(50);
    let cursor = fields.text("cursor", "1795430289000:order-4711");
    let behind = cursor.as_deref().map(position);
    if behind == Some(None) {
        fields.wrong("cursor", "\"cursor\" must be the \"next\" of another page");
    }
    fields.done()?;
    let (flows, next) = page(shared, state, limit, behind.flatten()).await?;
    Ok(json(StatusCode::OK, &Page { flows: flows.iter().map(shown::line).collect(), next }))
}

async fn page(
    shared: &Shared,
    state: Option<FlowState>,
    limit: usize,
    mut behind: Option<Position>,
) -> Result<(Vec<FlowLine>, Option<String>), Problem> {
    let (mut flows, mut looked_at) = (Vec::new(), 0);
    loop {
        let found = shared.parts.broker.store.flow_lines(behind.as_ref(), limit).await;
        let found = found.map_err(|error| Problem::of_read(&error))?;
        let mut is_end = found.len() < limit;
        looked_at += found.len();
        let mut found = found.into_iter();
        for (position, line) in found.by_ref() {
            behind = Some(position);
            flows.extend(line.filter(|line| state.is_none_or(|state| line.state == state)));
            if flows.len() == limit {
                break;
            }
        }
        is_end &= found.next().is_none();
        if is_end {
            return Ok((flows, None));
        }
        if flows.len() == limit || looked_at >= LOOKED_AT {
            return Ok((flows, behind.map(|at| format!("{}:{}", at.score, at.id))));
        }
    }
}

fn state(fields: &mut Fields<'_>) -> Option<FlowState> {
    let name = fields.text("state", "blocked")?;
    let state = FlowState::ALL.into_iter().find(|state| state.as_str() == name);
    if state.is_none() {
        let names = FlowState::ALL.map(FlowState::as_str).join(", ");
        fields.wrong("state", format!("no flow is {name:?}; flows are {names}"));
    }
    state
}

fn position(cursor: &str) -> Option<Position> {
    let (score, id) = cursor.split_once(':')?;
    Some(Position { score: score.parse().ok()?, id: id.to_owned() })
}

/// `GET /api/v1/flows/{id}`.
pub(super) async fn show(shared: &Shared, config: &Config, id: &str) -> Result<Answer, Problem> {
    let view = find(shared, id).await?;
    let close = shown::look_closer(&shared.parts.broker.store, config, &view).await;
    let close = close.map_err(|error| Problem::of_read(&error))?;
    Ok(json(StatusCode::OK, &shown::shown(&view, &close)))
}

async fn find(shared: &Shared, id: &str) -> Result<FlowView, Problem> {
    let id = FlowId::parse(id).map_err(|_| unknown())?;
    let view = shared.parts.broker.store.flow(&id).await.map_err(|error| Problem::of_read(&error))?;
    view.ok_or_else(unknown)
}

fn unknown() -> Problem {
    Problem::new(ProblemKind::NotFound, "no flow has this id; flows are deleted some time after they have ended")
}

/// `POST /api/v1/flows/{id}/cancel`.
pub(super) async fn cancel(shared: &Shared, id: &str, head: &Parts, body: Option<&Value>) -> Result<Answer, Problem> {
    let mut fields = Fields::of_body(body, "a request to cancel a flow", &who::FIELDS)?;
    let request = who::request(head, &mut fields)?;
    fields.done()?;
    let (broker, id) = (&shared.parts.broker, FlowId::parse(id).map_err(|_| unknown())?);
    let cancelled = broker.cancel_flow(&id, &request, clock::now()).await;
    let unfit = |detail: &str| Err(Problem::new(ProblemKind::Unfit, detail));
    match cancelled.map_err(|error| refusal(broker, &error))? {
        FlowCancelled::Done => {
            let done = Changed { id: id.as_str(), outcome: "cancelled", jobs: Vec::new() };
            Ok(json(StatusCode::OK, &done))
        }
        FlowCancelled::Before => unfit("the flow was cancelled before"),
        FlowCancelled::Completed => unfit("all jobs of the flow are completed; there is nothing to cancel"),
        FlowCancelled::Unknown => Err(unknown()),
    }
}

/// `POST /api/v1/flows/{id}/retry`.
pub(super) async fn retry(shared: &Shared, id: &str, head: &Parts, body: Option<&Value>) -> Result<Answer, Problem> {
    let mut fields = Fields::of_body(body, "a request to retry a flow", &who::FIELDS)?;
    who::request(head, &mut fields)?;
    fields.done()?;
    let (broker, id) = (&shared.parts.broker, FlowId::parse(id).map_err(|_| unknown())?);
    let retried = broker.retry_flow(&id, clock::now()).await.map_err(|error| refusal(broker, &error))?;
    let unfit = |detail: String| Err(Problem::new(ProblemKind::Unfit, detail));
    match retried {
        FlowRetried::Done(jobs) => {
            let jobs = jobs.iter().map(JobId::as_str).collect();
            Ok(json(StatusCode::OK, &Changed { id: id.as_str(), outcome: "retried", jobs }))
        }
        FlowRetried::Cancelled(by) => unfit(format!("the flow was cancelled {}; submit it anew", by.words())),
        FlowRetried::Nothing => unfit("no job of the flow is dead or was cancelled".to_owned()),
        FlowRetried::Unknown => Err(unknown()),
    }
}

/// A job of a flow that has not been put into its queue.
struct Unstarted {
    view: FlowView,
    name: MemberName,
    stand: Stand,
    /// Why it is not in its queue.
    why: String,
}

/// `GET /api/v1/jobs/{id}` of a job that is in no queue: its flow knows it, if there is one.
pub(super) async fn answer_unstarted(shared: &Shared, config: &Config, id: &str) -> Result<Answer, Problem> {
    let store = &shared.parts.broker.store;
    let Some(found) = unstarted(shared, id).await? else { return Err(job::unknown()) };
    let draft = store.draft(&found.view.outline.heading.id, &found.name).await;
    let draft = draft.map_err(|error| Problem::of_read(&error))?.ok_or_else(job::unknown)?;
    Ok(json(StatusCode::OK, &shown::unstarted(config, &draft, found.stand, found.why)))
}

/// Why a job that is in no queue cannot be changed.
pub(super) async fn refuse_unstarted(shared: &Shared, id: &str) -> Result<Problem, Problem> {
    Ok(match unstarted(shared, id).await? {
        None => job::unknown(),
        Some(Unstarted { view, why, .. }) => {
            let flow = &view.outline.heading.id;
            let detail =
                format!("the job has not started: {why}; cancel its flow as a whole: jobsd flow cancel {flow}");
            Problem::new(ProblemKind::Unfit, detail)
        }
    })
}

/// The same as a cause, with the task and the queue that it will have; `None` of what no flow knows.
pub(super) async fn why_unstarted(
    shared: &Shared,
    id: &JobId,
) -> Result<Option<(why::Unstarted, QueueName, TaskName)>, Problem> {
    let Some((flow, name)) = flow::place_of(id) else { return Ok(None) };
    let view = shared.parts.broker.store.flow(&flow).await.map_err(|error| Problem::of_read(&error))?;
    let Some(view) = view else { return Ok(None) };
    let Some(at) = view.jobs().position(|(listed, _)| listed.name == name) else { return Ok(None) };
    let Some((listed, stand)) = view.jobs().nth(at) else { return Ok(None) };
    let links = view.outline.links();
    let progress = Progress::new(&view.outline, &links, &view.stands, view.cancelled.as_ref());
    let hold = (stand == Stand::Blocked && at < view.stands.len()).then(|| progress.hold(at));
    let gone = || format!("its flow says that it {}, and its record is deleted", stand.words());
    let words = why_not(&progress, &view, at, stand).unwrap_or_else(gone);
    let over = !matches!(stand, Stand::Blocked | Stand::Ready) || view.cancelled.is_some();
    let about = (listed.queue.clone(), listed.task.clone());
    Ok(Some((why::Unstarted { flow, hold, words, over }, about.0, about.1)))
}

async fn unstarted(shared: &Shared, id: &str) -> Result<Option<Unstarted>, Problem> {
    let Some((flow, name)) = JobId::parse(id).ok().as_ref().and_then(flow::place_of) else { return Ok(None) };
    let view = shared.parts.broker.store.flow(&flow).await.map_err(|error| Problem::of_read(&error))?;
    let Some(view) = view else { return Ok(None) };
    let found = view.jobs().position(|(listed, _)| listed.name == name);
    let Some((at, stand)) = found.and_then(|at| Some((at, view.jobs().nth(at)?.1))) else { return Ok(None) };
    let links = view.outline.links();
    let why = why_not(&Progress::new(&view.outline, &links, &view.stands, view.cancelled.as_ref()), &view, at, stand);
    Ok(why.map(|why| Unstarted { view, name, stand, why }))
}

/// Why this job, of those of the view, is not in its queue; `None` when it is, or was.
fn why_not(progress: &Progress<'_>, view: &FlowView, at: usize, stand: Stand) -> Option<String> {
    match stand {
        Stand::Ready => Some("its turn has come, and it is about to be put into its queue".to_owned()),
        Stand::Blocked if at < view.stands.len() => Some(progress.hold(at).words()),
        Stand::Blocked => {
            let (callback, _) = view.outline.callbacks[at - view.stands.len()];
            Some(shown::why_not_called(view, callback))
        }
        // Its flow was cancelled before it was put into its queue, or its record is gone.
        Stand::Cancelled => Some("it was cancelled before it started, and its record is gone".to_owned()),
        Stand::Started | Stand::Completed | Stand::Dead => None,
    }
}
