//! The guardian: looks at the Redis that holds the jobs, at the start and every so often, and says what endangers them.
//!
//! Costs one INFO, four CONFIG GET and three PING a minute. Reads only; whether a finding keeps jobsd from starting or
//! from being ready is for the callers. `facts` reads the replies, `judge` says what they mean.

mod facts;
mod judge;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{FromRedisValue as _, Pipeline, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use facts::{Facts, Memory, Persistence, Policy, Role};
pub(crate) use judge::{Code, Finding, Severity, size};

use super::{LinkError, Store, accepted};
use facts::SETTINGS;

/// Between two looks when all is well, and when something is to be seen to be over.
const EVERY: Duration = Duration::from_secs(60);
const IN_TROUBLE: Duration = Duration::from_secs(10);
/// However often Redis refuses something, it is looked at no more often than this.
const SOONEST: Duration = Duration::from_secs(5);
/// Round trips measured in one look, and how many the median is taken of.
const PINGS: usize = 3;
const REMEMBERED: usize = 9;

/// What the last look brought.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub facts: Facts,
    /// The median of the last few.
    pub round_trip: Option<Duration>,
    /// The worst first.
    pub findings: Vec<Finding>,
    pub at: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Guardian {
    report: Mutex<Option<Arc<Report>>>,
    round_trips: Mutex<VecDeque<Duration>>,
}

impl Report {
    /// What keeps a daemon from starting: jobs would be deleted, and nobody has said that they may.
    pub(crate) fn refusal(&self) -> Option<&Finding> {
        let deletes =
            |finding: &&Finding| finding.code == Code::EvictionDeletesJobs && finding.severity == Severity::Error;
        self.findings.iter().find(deletes)
    }
}

impl Store {
    /// What the last look at Redis brought; `None` before the first that got through.
    pub(crate) fn report(&self) -> Option<Arc<Report>> {
        lock(&self.guardian.report).clone()
    }

    /// Looks at Redis now, and logs what is new and what is over.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer; the last report stands.
    pub(crate) async fn look(&self, accept_eviction: bool) -> Result<Arc<Report>, LinkError> {
        let facts = self.facts().await?;
        let round_trip = self.round_trip().await?;
        let findings = judge::judge(&facts, Some(round_trip), accept_eviction);
        let report = Arc::new(Report { facts, round_trip: Some(round_trip), findings, at: Instant::now() });
        let before = lock(&self.guardian.report).replace(Arc::clone(&report));
        tell(before.as_ref().map_or(&[], |before| &before.findings), &report.findings);
        Ok(report)
    }

    /// Looks every so often, and when Redis has refused something, until it is told to stop.
    pub(crate) async fn guard(&self, accept_eviction: bool, stop: CancellationToken) {
        let mut pause = match self.report() {
            Some(report) => until_next(&report),
            None => Duration::ZERO,
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.endpoint.alarm.notified() => {}
            }
            pause = match self.look(accept_eviction).await {
                Ok(report) => until_next(&report),
                Err(error) => {
                    tracing::debug!("the guardian could not look at Redis: failed to {error}");
                    IN_TROUBLE
                }
            } - SOONEST;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SOONEST) => {}
            }
        }
    }

    async fn facts(&self) -> Result<Facts, LinkError> {
        let mut questions = Pipeline::new();
        questions.cmd("INFO");
        for setting in SETTINGS {
            // One by one: several in one command are understood from Redis 7.0 on only.
            questions.cmd("CONFIG").arg("GET").arg(setting);
        }
        let mut replies = self.link.send(&questions).await?.into_iter().map(|reply| accepted(reply).map_err(words));
        let mut next = || replies.next().unwrap_or(Err("no reply".to_owned()));
        let info = next().and_then(|reply| String::from_redis_value(reply).map_err(|_| "not a text".to_owned()));
        let settings = SETTINGS.map(|setting| (setting, next().and_then(|reply| value(reply, setting)))).into();
        Ok(Facts::read(info.as_deref().map_err(Clone::clone), &settings))
    }

    /// Measures a few, and gives the median of the latest.
    async fn round_trip(&self) -> Result<Duration, LinkError> {
        let mut ping = Pipeline::new();
        ping.cmd("PING");
        for _ in 0..PINGS {
            let sent = Instant::now();
            self.link.send(&ping).await?;
            let mut latest = lock(&self.guardian.round_trips);
            latest.push_back(sent.elapsed());
            if latest.len() > REMEMBERED {
                latest.pop_front();
            }
        }
        let mut sorted: Vec<Duration> = lock(&self.guardian.round_trips).iter().copied().collect();
        sorted.sort();
        Ok(sorted[sorted.len() / 2])
    }
}

fn until_next(report: &Report) -> Duration {
    let trouble = report.findings.iter().any(|finding| finding.severity == Severity::Error);
    if trouble { IN_TROUBLE } else { EVERY }
}

/// The value in the answer of CONFIG GET, which is empty where the provider has taken the setting away.
fn value(reply: Value, setting: &str) -> Result<String, String> {
    let answer: HashMap<String, String> =
        redis::from_redis_value(reply).map_err(|_| "an answer of another form".to_owned())?;
    answer.get(setting).cloned().ok_or_else(|| "no such setting".to_owned())
}

fn words(error: LinkError) -> String {
    match error {
        LinkError::Refused(words) => words,
        other => other.to_string(),
    }
}

/// Numbers in a sentence change with every look; what is told are findings that come, go, or turn worse or better.
fn tell(before: &[Finding], now: &[Finding]) {
    let same = |a: &Finding, b: &Finding| a.code == b.code && a.severity == b.severity;
    for finding in now.iter().filter(|finding| !before.iter().any(|known| same(known, finding))) {
        let Finding { code, severity, sentence, remedy, .. } = finding;
        let finding = code.as_str();
        match severity {
            Severity::Error => tracing::error!(finding, remedy, "Redis: {sentence}"),
            Severity::Warning => tracing::warn!(finding, remedy, "Redis: {sentence}"),
            Severity::Info => tracing::info!(finding, remedy, "Redis: {sentence}"),
        }
    }
    for finding in before.iter().filter(|finding| !now.iter().any(|still| still.code == finding.code)) {
        tracing::info!(finding = finding.code.as_str(), "Redis: this is over: {}", finding.sentence);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
