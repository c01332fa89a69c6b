//! The paths, the methods each takes, and the way of one request from its headers to its answer.

use std::convert::Infallible;
use std::time::Instant;

use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request};

use super::alter::Verb;
use super::answer::{Answer, add_common_headers};
use super::problem::{Problem, ProblemKind};
use super::{
    Limits, Shared, alter, auth, bulk, enqueue, events, exposition, flow, health, job, nodes, notes, overview, page,
    queue, reload, request, server, task, why,
};
use crate::config::Config;

/// What a method does at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Overview,
    Livez,
    Readyz,
    QueueHealth,
    Metrics,
    Page,
    Enqueue,
    Job,
    Why,
    Log,
    Events,
    Alter(Verb),
    Bulk(Verb),
    Flows,
    SubmitFlow,
    Flow,
    CancelFlow,
    RetryFlow,
    Queues,
    Queue,
    PatchQueue,
    PauseQueue(bool),
    Purge,
    Undo,
    Tasks,
    PauseTask(bool),
    Nodes,
    Drain(bool),
    Redis,
    Reload,
}

/// The methods that some path takes. `HEAD` is taken wherever `GET` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Take {
    Get,
    Post,
    Patch,
    Delete,
}

/// A path and what its methods do.
type Path = (&'static str, &'static [(Take, Route)]);

const PATHS: &[Path] = &[
    ("/", &[(Take::Get, Route::Overview)]),
    ("/livez", &[(Take::Get, Route::Livez)]),
    ("/readyz", &[(Take::Get, Route::Readyz)]),
    ("/health/queues", &[(Take::Get, Route::QueueHealth)]),
    ("/metrics", &[(Take::Get, Route::Metrics)]),
    ("/api/v1/jobs", &[(Take::Get, Route::Page), (Take::Post, Route::Enqueue)]),
    ("/api/v1/jobs/{id}", &[(Take::Get, Route::Job), (Take::Delete, Route::Alter(Verb::Delete))]),
    // A job may be called like a verb; it can be looked at and deleted all the same.
    (
        "/api/v1/jobs/cancel",
        &[(Take::Post, Route::Bulk(Verb::Cancel)), (Take::Get, Route::Job), (Take::Delete, Route::Alter(Verb::Delete))],
    ),
    (
        "/api/v1/jobs/retry",
        &[(Take::Post, Route::Bulk(Verb::Retry)), (Take::Get, Route::Job), (Take::Delete, Route::Alter(Verb::Delete))],
    ),
    (
        "/api/v1/jobs/delete",
        &[(Take::Post, Route::Bulk(Verb::Delete)), (Take::Get, Route::Job), (Take::Delete, Route::Alter(Verb::Delete))],
    ),
    ("/api/v1/jobs/{id}/log", &[(Take::Get, Route::Log)]),
    ("/api/v1/jobs/{id}/events", &[(Take::Get, Route::Events)]),
    ("/api/v1/jobs/{id}/why", &[(Take::Get, Route::Why)]),
    ("/api/v1/jobs/{id}/cancel", &[(Take::Post, Route::Alter(Verb::Cancel))]),
    ("/api/v1/jobs/{id}/retry", &[(Take::Post, Route::Alter(Verb::Retry))]),
    ("/api/v1/jobs/{id}/promote", &[(Take::Post, Route::Alter(Verb::Promote))]),
    ("/api/v1/flows", &[(Take::Get, Route::Flows), (Take::Post, Route::SubmitFlow)]),
    ("/api/v1/flows/{flow}", &[(Take::Get, Route::Flow)]),
    ("/api/v1/flows/{flow}/cancel", &[(Take::Post, Route::CancelFlow)]),
    ("/api/v1/flows/{flow}/retry", &[(Take::Post, Route::RetryFlow)]),
    ("/api/v1/queues", &[(Take::Get, Route::Queues)]),
    ("/api/v1/queues/{queue}", &[(Take::Get, Route::Queue), (Take::Patch, Route::PatchQueue)]),
    ("/api/v1/queues/{queue}/pause", &[(Take::Post, Route::PauseQueue(true))]),
    ("/api/v1/queues/{queue}/resume", &[(Take::Post, Route::PauseQueue(false))]),
    ("/api/v1/queues/{queue}/purge", &[(Take::Post, Route::Purge)]),
    ("/api/v1/queues/{queue}/purges/{purge}/undo", &[(Take::Post, Route::Undo)]),
    ("/api/v1/tasks", &[(Take::Get, Route::Tasks)]),
    ("/api/v1/tasks/{task}/pause", &[(Take::Post, Route::PauseTask(true))]),
    ("/api/v1/tasks/{task}/resume", &[(Take::Post, Route::PauseTask(false))]),
    ("/api/v1/nodes", &[(Take::Get, Route::Nodes)]),
    ("/api/v1/nodes/{node}/drain", &[(Take::Post, Route::Drain(true))]),
    ("/api/v1/nodes/{node}/resume", &[(Take::Post, Route::Drain(false))]),
    ("/api/v1/redis", &[(Take::Get, Route::Redis)]),
    ("/api/v1/reload", &[(Take::Post, Route::Reload)]),
];

/// The paths, ready to be looked up.
#[derive(Debug)]
pub(super) struct Routes(matchit::Router<&'static [(Take, Route)]>);

/// A path that exists.
#[derive(Debug)]
struct Place {
    methods: &'static [(Take, Route)],
    /// What the path names: an id, a queue, a queue and a purge. The last segment of a path that names nothing.
    names: Vec<String>,
}

impl Take {
    fn of(method: &Method) -> Option<Self> {
        match *method {
            Method::GET | Method::HEAD => Some(Self::Get),
            Method::POST => Some(Self::Post),
            Method::PATCH => Some(Self::Patch),
            Method::DELETE => Some(Self::Delete),
            _ => None,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl Routes {
    pub(super) fn new() -> Self {
        let mut router = matchit::Router::new();
        for (path, methods) in PATHS {
            router.insert(*path, *methods).expect("the paths are distinct");
        }
        Self(router)
    }

    fn find(&self, path: &str) -> Option<Place> {
        let found = self.0.at(path).ok()?;
        let mut names: Vec<String> =
            found.params.iter().map(|(_, name)| percent_decoded(name)).collect::<Option<_>>()?;
        if names.is_empty() {
            names.push(percent_decoded(path.rsplit('/').next().unwrap_or_default())?);
        }
        Some(Place { methods: found.value, names })
    }
}

/// Answers one request, in any case, and leaves one line in the log.
pub(super) async fn answer(shared: &Shared, limits: &Limits, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let asked = Instant::now();
    let (head, body) = request.into_parts();
    let doing = tokio::time::timeout(limits.answer, respond(shared, limits, &head, body));
    let late = || {
        let detail = format!("there was no answer within {:?}; what was asked for may still happen", limits.answer);
        Err(Problem::new(ProblemKind::Unavailable, detail))
    };
    let mut answer = match doing.await.unwrap_or_else(|_| late()) {
        Ok(answer) => answer,
        Err(problem) => {
            report(&head, &problem);
            problem.into_answer()
        }
    };
    add_common_headers(answer.headers_mut());
    let (method, path, status) = (&head.method, head.uri.path(), answer.status().as_u16());
    tracing::debug!(%method, path, status, ms = asked.elapsed().as_millis(), "answered");
    Ok(answer)
}

async fn respond(shared: &Shared, limits: &Limits, head: &Parts, body: Incoming) -> Result<Answer, Problem> {
    let config = shared.parts.config.load_full();
    let found = shared.routes.find(head.uri.path());
    let route = found.as_ref().map(|place| route(&head.method, place.methods));
    // Probes ask without credentials and by any name; they learn nothing but whether we work.
    if !matches!(route, Some(Ok(Route::Livez | Route::Readyz))) {
        auth::check(head, config.admin.token.as_ref(), shared.local)?;
    }
    let (Some(Place { names, .. }), Some(route)) = (found, route) else {
        return Err(unknown_path(head.uri.path()));
    };
    let route = route?;
    let body = match head.method {
        Method::GET | Method::HEAD => Bytes::new(),
        _ => request::body(body, config.admin.max_body, limits.body).await?,
    };
    perform(shared, &config, route, &names, head, &body).await
}

async fn perform(
    shared: &Shared,
    config: &Config,
    route: Route,
    names: &[String],
    head: &Parts,
    body: &[u8],
) -> Result<Answer, Problem> {
    let format = || request::Format::of(&head.headers);
    let given = || request::json_if_any(body);
    let (query, name) = (head.uri.query(), names[0].as_str());
    match route {
        Route::Overview => overview::answer(shared, config, format()).await,
        Route::Livez => Ok(health::livez()),
        Route::Readyz => Ok(health::readyz(shared, format()).await),
        Route::QueueHealth => Ok(health::queues(shared, config).await),
        Route::Metrics => exposition::answer(shared, config).await,
        Route::Page => page::answer(shared, config, query).await,
        Route::Enqueue => enqueue::answer(&shared.parts.broker, config, &request::json(body)?).await,
        Route::Job => job::answer(shared, config, name, query).await,
        Route::Log => notes::answer(shared, config, name).await,
        Route::Events => events::answer(shared, config, name, head).await,
        Route::Why => why::answer(shared, config, name).await,
        Route::Alter(verb) => alter::answer(shared, config, verb, name, head, given()?.as_ref()).await,
        Route::Bulk(verb) => bulk::answer(shared, config, verb, head, given()?.as_ref()).await,
        Route::Flows => flow::list(shared, query).await,
        Route::SubmitFlow => flow::submit(shared, config, head, body).await,
        Route::Flow => flow::show(shared, config, name).await,
        Route::CancelFlow => flow::cancel(shared, name, head, given()?.as_ref()).await,
        Route::RetryFlow => flow::retry(shared, name, head, given()?.as_ref()).await,
        Route::Queues => overview::queues(shared, config).await,
        Route::Queue => queue::answer(shared, config, name).await,
        Route::PatchQueue => queue::patch(shared, config, name, head, given()?.as_ref()).await,
        Route::PauseQueue(paused) => queue::pause(shared, config, name, paused, head, given()?.as_ref()).await,
        Route::Purge => queue::purge(shared, config, name, head, given()?.as_ref()).await,
        Route::Undo => queue::undo(shared, config, name, names.get(1).map_or("", String::as_str)).await,
        Route::Tasks => task::answer(shared, config).await,
        Route::PauseTask(paused) => task::pause(shared, config, name, paused, head, given()?.as_ref()).await,
        Route::Nodes => nodes::answer(shared).await,
        Route::Drain(drain) => nodes::tell(shared, name, drain).await,
        Route::Redis => Ok(server::answer(shared).await),
        Route::Reload => reload::answer(&shared.parts.control).await,
    }
}

fn route(given: &Method, methods: &[(Take, Route)]) -> Result<Route, Problem> {
    let taken = Take::of(given).and_then(|given| methods.iter().find(|(take, _)| *take == given));
    if let Some((_, route)) = taken {
        return Ok(*route);
    }
    let allow = methods.iter().map(|(take, _)| take.words()).collect::<Vec<_>>().join(", ");
    let detail = format!("this path takes {allow}, not {given}");
    let header = HeaderValue::from_str(&allow).expect("names of methods are header values");
    Err(Problem::new(ProblemKind::MethodNotAllowed, detail).with(header::ALLOW, header))
}

fn unknown_path(path: &str) -> Problem {
    let near = |known: &&str| strsim::jaro_winkler(path, known);
    let nearest = PATHS.iter().map(|(known, ..)| *known).max_by(|a, b| near(a).total_cmp(&near(b))).unwrap_or("/");
    Problem::new(ProblemKind::NotFound, format!("there is no such path; the nearest is {nearest}"))
}

/// What the client is not told. Our own mistake is an error in the log; the client's, or Redis being away, is not.
fn report(head: &Parts, problem: &Problem) {
    let (method, path, status) = (&head.method, head.uri.path(), problem.kind.status());
    match &problem.log {
        Some(log) if problem.kind == ProblemKind::Internal => {
            tracing::error!(%method, path, "answered {status}: {log}")
        }
        Some(log) => tracing::debug!(%method, path, "answered {status}: {log}"),
        None => {}
    }
}

/// A segment of a path, or a part of a query, as it was meant: `a%2Fb` is `a/b`. `None` when it is no text.
pub(super) fn percent_decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = (byte == b'%').then(|| tail.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &tail[2..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_in_a_path_is_decoded() {
        let routes = Routes::new();
        let id = |path: &str| routes.find(path).map(|place| place.names[0].clone());
        assert_eq!(id("/api/v1/jobs/cron:x:1").as_deref(), Some("cron:x:1"));
        assert_eq!(id("/api/v1/jobs/a%2Fb%20%C3%A9").as_deref(), Some("a/b é"));
        assert_eq!(id("/api/v1/jobs/100%").as_deref(), Some("100%"));
        assert_eq!(id("/api/v1/jobs/%zz%4").as_deref(), Some("%zz%4"));
        assert_eq!(id("/api/v1/jobs/%ff"), None);
        assert_eq!(id("/api/v1/jobs/a/b"), None);
        assert_eq!(id("/livez/"), None);
    }
}
