//! This node towards Celery's clients: one worker, `celery@NODE`, whatever number of queues it serves. What its pumps, its
//! writer of answers and its clerk share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::answer;
use super::ask::Ask;
use super::events::Events;
use super::result::{self, Document};
use super::revoked::Revoked;
use super::shown::Shown;
use crate::broker::{
    Admission, Admitted, Answered, Begun, Broker, BrokerError, CeleryAttempt, Change, OwedJob, Verdict,
};
use crate::clock;
use crate::config::{Config, Queue};
use crate::control::Control;
use crate::job::{End, History, Job, JobId, Mishap, MishapKind, Origin, QueueName, State, TaskName, Timestamp, Wire};

#[derive(Debug)]
pub(crate) struct Front {
    pub(super) broker: Arc<Broker>,
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) control: Control,
    pub(super) events: Events,
    pub(super) revoked: Revoked,
    pub(super) born: Instant,
    told: Mutex<Told>,
    /// The configuration has changed.
    pub(crate) changed: Notify,
}

/// What clients have told this worker, and what it has done; forgotten with the process.
#[derive(Debug, Default)]
struct Told {
    /// Lists that are not to be served for now.
    cancelled: BTreeSet<String>,
    /// Longest run of jobs that come from now on.
    time_limits: HashMap<TaskName, Duration>,
    /// Attempts that have ended, by task.
    ended: BTreeMap<TaskName, u64>,
    /// Attempts that have begun and were not shown yet.
    fresh: Vec<Begun>,
}

/// Attempts that wait to be shown, at most.
const FRESH: usize = 20_000;

impl Front {
    pub(crate) fn new(broker: Arc<Broker>, config: Arc<ArcSwap<Config>>, control: Control) -> Self {
        let worker = format!("celery@{}", broker.node);
        let events = Events::new(worker, broker.store.endpoint.database());
        let (revoked, born) = (Revoked::default(), Instant::now());
        Self { broker, config, control, events, revoked, born, told: Mutex::default(), changed: Notify::new() }
    }

    /// The queues that read lists of Celery.
    pub(super) fn queues(&self) -> Vec<Arc<Queue>> {
        let config = self.config.load();
        let serve = |queue: &&Arc<Queue>| queue.lists.iter().any(|(wire, _)| *wire == Wire::Celery);
        config.queues.values().filter(serve).cloned().collect()
    }

    /// The lists of Celery that this node serves, or would if no client had told it not to.
    pub(super) fn lists(&self) -> Vec<String> {
        let of = |queue: &Arc<Queue>| {
            let celery = queue.lists.iter().filter(|(wire, _)| *wire == Wire::Celery);
            celery.map(|(_, name)| name.clone()).collect::<Vec<_>>()
        };
        self.queues().iter().flat_map(of).collect()
    }

    /// Whether a client has told this worker to leave a list alone.
    pub(crate) fn leaves(&self, list: &str) -> bool {
        self.told().cancelled.contains(list)
    }

    /// A list is to be left alone, or served again. Says whether that is new.
    pub(super) fn leave(&self, list: &str, leave: bool) -> bool {
        let mut told = self.told();
        if leave { told.cancelled.insert(list.to_owned()) } else { told.cancelled.remove(list) }
    }

    /// Jobs of a task that come from now on may run for so long, if their producers do not say otherwise.
    pub(super) fn limit_time(&self, task: &TaskName, limit: Option<Duration>) {
        let mut told = self.told();
        match limit {
            Some(limit) => drop(told.time_limits.insert(task.clone(), limit)),
            None => drop(told.time_limits.remove(task)),
        }
    }

    /// Attempts that have ended, by task.
    pub(super) fn tally(&self) -> BTreeMap<TaskName, u64> {
        self.told().ended.clone()
    }

    /// Makes sure that what was revoked before this process started is known.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it.
    pub(crate) async fn prepare(&self, now: Timestamp) -> Result<(), BrokerError> {
        self.revoked.load(&self.broker.store, now).await
    }

    /// What clients have said of a message meanwhile.
    pub(crate) fn judge(&self, verdict: Verdict, now: Timestamp) -> Verdict {
        match verdict {
            Verdict::Job(job) if self.revoked.contains(job.id.as_str(), now) => {
                let history = Box::new(self.revocation(now));
                Verdict::Refused(job, history)
            }
            Verdict::Job(mut job) => {
                job.timeout = job.timeout.or_else(|| self.told().time_limits.get(&job.task).copied());
                Verdict::Job(job)
            }
            other => other,
        }
    }

    /// The history of a job that was revoked before it came.
    fn revocation(&self, now: Timestamp) -> History {
        let message = format!("cancelled {}", Ask::Revoke.request(now).words());
        let mut history = History::default();
        history.note(Mishap {
            at: now,
            attempt: 0,
            node: self.broker.node.clone(),
            kind: MishapKind::Cancelled,
            name: "Cancelled".to_owned(),
            message: format!("{message} before it came"),
            args: None,
            detail: None,
        });
        history.end = Some(End {
            state: State::Cancelled,
            at: now,
            started: None,
            node: None,
            result: Value::Null,
            cause: None,
            reason: Some(message),
        });
        history
    }

    /// These have become jobs.
    pub(crate) fn admitted(&self, admissions: &[Admission], admitted: &[Admitted], now: Timestamp) {
        if !self.events.flow() {
            return;
        }
        let config = self.config.load();
        for (admission, admitted) in admissions.iter().zip(admitted) {
            if let (Verdict::Job(job), Admitted::Yes) = (&admission.verdict, admitted)
                && let Some(shown) = Shown::of(job, &config)
            {
                self.events.task("received", now, shown.received());
            }
        }
    }

    /// The producers of these have been told what became of their jobs.
    pub(crate) async fn answered(&self, batch: &[&OwedJob], answered: &[Answered]) {
        // An attempt was told to have begun before it can have ended.
        self.hear_beginnings();
        let now = clock::now();
        let (config, flow) = (self.config.load_full(), self.events.flow());
        let mut withdrawn = Vec::new();
        for (owed, _) in batch.iter().zip(answered).filter(|(_, answered)| **answered == Answered::Paid) {
            if !is_celery(&owed.job) {
                continue;
            }
            *self.told().ended.entry(owed.job.task.clone()).or_default() += 1;
            if owed.history.end.is_none() && self.revoked.contains(owed.job.id.as_str(), now) {
                withdrawn.push((owed.job.queue.clone(), owed.job.id.clone()));
            }
            if flow && let Some(shown) = Shown::of(&owed.job, &config) {
                let (kind, fields) = shown.ended(owed);
                self.events.task(kind, now, fields);
            }
        }
        for (queue, id) in withdrawn {
            self.withdraw(&queue, id, now).await;
        }
    }

    /// A job that was revoked while it ran does not run again.
    async fn withdraw(&self, queue: &QueueName, id: JobId, now: Timestamp) {
        let change = Change::Withdraw(Ask::Revoke.request(now));
        if let Err(error) = self.broker.alter(queue, &[id], &change, now).await {
            tracing::warn!(%queue, "a job that was revoked while it ran may run again: {error}");
        }
    }

    /// Whether anybody wants to know of attempts as they begin.
    pub(super) fn listen_for_beginnings(&self) {
        let wanted = self.events.flow() || self.config.load().celery.track_started;
        self.broker.beginnings.want(Wire::Celery, wanted);
    }

    /// Takes note of the attempts that have begun since it was asked last.
    pub(super) fn hear_beginnings(&self) {
        let begun = self.broker.beginnings.take(Wire::Celery);
        if begun.is_empty() {
            return;
        }
        let config = self.config.load();
        if self.events.flow() {
            for begun in &begun {
                if let Some(shown) = Shown::of(&begun.job, &config) {
                    self.events.task("started", begun.at, shown.started());
                }
            }
        }
        if config.celery.track_started {
            let fresh = &mut self.told().fresh;
            let room = FRESH.saturating_sub(fresh.len());
            fresh.extend(begun.into_iter().take(room));
        }
    }

    /// Attempts that are to be shown as started.
    pub(super) fn to_show(&self) -> Vec<Begun> {
        std::mem::take(&mut self.told().fresh)
    }

    /// What clients are shown of an attempt that has begun, if its producer wants a result at all.
    pub(super) fn started(&self, begun: &Begun) -> Option<CeleryAttempt> {
        let Origin::Wire { wire: Wire::Celery, reply: note, .. } = &begun.job.origin else { return None };
        let text = |name: &str| note.get(name).and_then(Value::as_str);
        let id = text("id").filter(|_| note.get("silent") != Some(&Value::Bool(true)))?;
        let state = result::State::Started { pid: std::process::id(), worker: &self.events.worker };
        let document = Document { task_id: id, group: text("group"), parent_id: text("parent"), children: &[], state };
        Some(CeleryAttempt {
            queue: begun.job.queue.clone(),
            id: begun.job.id.clone(),
            token: begun.token,
            key: answer::result_key(id),
            document: document.encode(),
        })
    }

    /// Attempts that run on this node, in the queues that read lists of Celery.
    pub(super) fn running(&self) -> usize {
        self.queues().iter().map(|queue| self.broker.holds(&queue.name)).sum()
    }

    /// How many may run there.
    pub(super) fn slots(&self) -> usize {
        self.queues().iter().map(|queue| self.broker.concurrency(queue).max).sum()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // Every use is a single operation.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn is_celery(job: &Job) -> bool {
    matches!(job.origin, Origin::Wire { wire: Wire::Celery, .. })
}
