//! The paths, the methods each takes, and the way of one request from its headers to its answer.

use std::convert::Infallible;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request};

use super::answer::{Answer, add_common_headers};
use super::problem::{Problem, ProblemKind};
use super::{Limits, Shared, auth, enqueue, exposition, health, job, overview, reload, request, server};

/// What a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Overview,
    Livez,
    Readyz,
    QueueHealth,
    Metrics,
    Jobs,
    Job,
    Queues,
    Redis,
    Reload,
}

/// Every path. `HEAD` is taken wherever `GET` is.
const PATHS: [(&str, Route, Method); 10] = [
    ("/", Route::Overview, Method::GET),
    ("/livez", Route::Livez, Method::GET),
    ("/readyz", Route::Readyz, Method::GET),
    ("/health/queues", Route::QueueHealth, Method::GET),
    ("/metrics", Route::Metrics, Method::GET),
    ("/api/v1/jobs", Route::Jobs, Method::POST),
    ("/api/v1/jobs/{id}", Route::Job, Method::GET),
    ("/api/v1/queues", Route::Queues, Method::GET),
    ("/api/v1/redis", Route::Redis, Method::GET),
    ("/api/v1/reload", Route::Reload, Method::POST),
];

/// The paths, ready to be looked up.
#[derive(Debug)]
pub(super) struct Routes(matchit::Router<(Route, Method)>);

impl Routes {
    pub(super) fn new() -> Self {
        let mut router = matchit::Router::new();
        for (path, route, method) in PATHS {
            router.insert(path, (route, method)).expect("the paths are distinct");
        }
        Self(router)
    }

    /// What stands at a path, and the id in it if there is one.
    fn find<'r>(&'r self, path: &str) -> Option<(Route, &'r Method, String)> {
        let found = self.0.at(path).ok()?;
        let (route, method) = found.value;
        Some((*route, method, percent_decoded(found.params.get("id").unwrap_or_default())?))
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
    // Probes ask without credentials and by any name; they learn nothing but whether we work.
    if !matches!(found, Some((Route::Livez | Route::Readyz, ..))) {
        auth::check(head, config.admin.token.as_ref(), shared.local)?;
    }
    let Some((route, method, id)) = found else { return Err(unknown_path(head.uri.path())) };
    check_method(&head.method, method)?;
    match route {
        Route::Overview => overview::answer(shared, &config, request::Format::of(&head.headers)).await,
        Route::Livez => Ok(health::livez()),
        Route::Readyz => Ok(health::readyz(shared, request::Format::of(&head.headers)).await),
        Route::QueueHealth => Ok(health::queues(shared, &config).await),
        Route::Metrics => exposition::answer(shared, &config).await,
        Route::Jobs => {
            let body = request::body(body, config.admin.max_body, limits.body).await?;
            enqueue::answer(&shared.parts.broker, &config, &request::json(&body)?).await
        }
        Route::Job => job::answer(shared, &config, &id).await,
        Route::Queues => overview::queues(shared, &config).await,
        Route::Redis => Ok(server::answer(shared).await),
        Route::Reload => reload::answer(&shared.parts.control).await,
    }
}

fn check_method(given: &Method, taken: &Method) -> Result<(), Problem> {
    if given == taken || (given == Method::HEAD && taken == Method::GET) {
        return Ok(());
    }
    let allow = if taken == Method::GET { "GET, HEAD" } else { "POST" };
    let detail = format!("this path takes {allow}, not {given}");
    Err(Problem::new(ProblemKind::MethodNotAllowed, detail).with(header::ALLOW, HeaderValue::from_static(allow)))
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

/// A path segment as it was meant: `a%2Fb` is `a/b`. `None` when it is no text.
fn percent_decoded(segment: &str) -> Option<String> {
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
        let id = |path: &str| routes.find(path).map(|(_, _, id)| id);
        assert_eq!(id("/api/v1/jobs/cron:x:1").as_deref(), Some("cron:x:1"));
        assert_eq!(id("/api/v1/jobs/a%2Fb%20%C3%A9").as_deref(), Some("a/b é"));
        assert_eq!(id("/api/v1/jobs/100%").as_deref(), Some("100%"));
        assert_eq!(id("/api/v1/jobs/%zz%4").as_deref(), Some("%zz%4"));
        assert_eq!(id("/api/v1/jobs/%ff"), None);
        assert_eq!(id("/api/v1/jobs/a/b"), None);
        assert_eq!(id("/livez/"), None);
    }
}
