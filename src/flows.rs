//! Flows go on: words of ended jobs are heard, and jobs whose turn has come are put into their queues.
//!
//! A part of its own beside the pools, because any node may do this for any flow. It is woken when this process has
//! written a word or a flow; what another process left behind it finds with a heartbeat. Whether a job's arguments, with
//! the results they refer to, fit its task is decided here, because only the configuration knows.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError, Enqueued, ReadyFlow, ReadyJob};
use crate::clock;
use crate::config::{Config, bind};
use crate::job::flow::UNBOUND;
use crate::job::{Cause, End, FlowId, History, Job, Mishap, MishapKind, NodeId, QueueName, State, Timestamp};

/// Words of one queue in one step.
const WORDS: usize = 100;
/// Flows looked at in one go, and jobs of one flow.
const FLOWS: usize = 50;
const JOBS: usize = 200;
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// Pause after a pass that did not get through; doubles up to the second one.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The part of one node that keeps flows going.
#[derive(Debug)]
pub(crate) struct Flows {
    broker: Arc<Broker>,
    config: Arc<ArcSwap<Config>>,
    pruned: Instant,
}

impl Flows {
    pub(crate) fn new(broker: Arc<Broker>, config: Arc<ArcSwap<Config>>) -> Self {
        Self { broker, config, pruned: Instant::now() }
    }

    /// Goes on until it is told to stop. What is left then stands in Redis, for another node or the next start.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut surveys = self.broker.surveys.subscribe();
        let mut pause = PAUSE.0;
        loop {
            let passed = self.pass().await;
            if let Err(error) = &passed {
                tracing::debug!("flows wait, trying again: {error}");
            }
            let again = if passed.is_ok() { Duration::MAX } else { pause };
            pause = if passed.is_ok() { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.broker.flows_stir.notified() => break,
                    () = tokio::time::sleep(again) => break,
                    Ok(()) = surveys.changed() => {
                        self.prune_if_due().await;
                        if self.is_needed().await {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Whether something was left behind, by whomever.
    async fn is_needed(&self) -> bool {
        // If that cannot be found out, the next heartbeat asks again.
        self.broker.flows_wait(&self.queues()).await.unwrap_or(false)
    }

    fn queues(&self) -> Vec<QueueName> {
        self.config.load().queues.keys().cloned().collect()
    }

    /// Does all there is to do now.
    async fn pass(&self) -> Result<(), BrokerError> {
        loop {
            let heard = self.hear().await?;
            let started = self.start_due().await?;
            if heard + started == 0 {
                return Ok(());
            }
        }
    }

    /// Takes the words there are, up to a bound; says how many.
    async fn hear(&self) -> Result<usize, BrokerError> {
        let mut taken = 0;
        for (queue, heard) in self.broker.words(&self.queues(), WORDS).await? {
            taken += self.broker.advance(&queue, &heard, clock::now()).await?;
        }
        Ok(taken)
    }

    /// Goes on with flows that are due, up to a bound; says how many jobs were started or ended.
    async fn start_due(&self) -> Result<usize, BrokerError> {
        let mut moved = 0;
        for flow in self.broker.due_flows(FLOWS).await? {
            moved += self.go_on(&flow).await?;
        }
        Ok(moved)
    }

    /// Does what there is to do for one flow.
    async fn go_on(&self, id: &FlowId) -> Result<usize, BrokerError> {
        let flow = self.broker.ready_flow(id, JOBS).await?;
        if let Some(request) = &flow.cancelled {
            self.broker.cancel_started(id, request, clock::now()).await?;
        }
        let moved = self.start(&flow).await?;
        self.broker.rest_flow(id, flow.cancelled.is_some()).await?;
        Ok(moved)
    }

    async fn start(&self, flow: &ReadyFlow) -> Result<usize, BrokerError> {
        let (now, config) = (clock::now(), self.config.load_full());
        let mut jobs = Vec::new();
        let mut moved = 0;
        for ready in &flow.jobs {
            let job = ready.draft.ready(now);
            match bound(&config, ready, job.clone()) {
                Ok(job) => jobs.push(job),
                Err(reason) => moved += usize::from(self.bury(&flow.id, &job, reason, now).await?),
            }
        }
        for (job, outcome) in jobs.iter().zip(self.broker.start_jobs(&flow.id, &jobs).await?) {
            match outcome {
                Enqueued::Added | Enqueued::Replaced { .. } => moved += 1,
                // No job of a flow is unique, so nobody holds a key before it.
                Enqueued::NotReady | Enqueued::Held(_) => {}
                Enqueued::Exists => {
                    let reason = format!("another job with the id {} exists", job.id);
                    moved += usize::from(self.bury(&flow.id, job, reason, now).await?);
                }
            }
        }
        Ok(moved)
    }

    async fn bury(&self, flow: &FlowId, job: &Job, reason: String, now: Timestamp) -> Result<bool, BrokerError> {
        tracing::error!(queue = %job.queue, job = %job.id, task = %job.task, "it cannot start: {reason}");
        self.broker.bury_ready(flow, job, &unbound(&self.broker.node, reason, now), now).await
    }

    async fn prune_if_due(&mut self) {
        if self.pruned.elapsed() < PRUNE_EVERY {
            return;
        }
        self.pruned = Instant::now();
        // As long as the longest of its jobs' records, whatever queues they went through.
        let config = self.config.load_full();
        let completed = config.queues.values().map(|queue| queue.keep_completed.age).max().unwrap_or_default();
        let dead = config.queues.values().map(|queue| queue.keep_dead.age).max().unwrap_or_default();
        if let Err(error) = self.broker.prune_flows(completed, dead, clock::now()).await {
            tracing::warn!("deleting old flows failed: {error}");
        }
    }
}

/// The job with the arguments that it has, now that the results are known, and with what it draws from under them.
///
/// # Errors
/// Why it cannot start, in words.
fn bound(config: &Config, ready: &ReadyJob, job: Job) -> Result<Job, String> {
    let args = ready.args()?;
    let args = match config.tasks.get(&job.task) {
        // Without results they were bound when the flow was submitted; without a task, whoever claims it says so better.
        Some(task) if !ready.results.is_empty() => bind(task, &[], args).map_err(|error| error.to_string())?,
        _ => args,
    };
    let buckets = config.buckets(&job.queue, &job.task, &args).map_err(|error| error.to_string())?;
    Ok(Job { args, buckets, ..job })
}

/// The history of a job that could not start.
fn unbound(node: &NodeId, reason: String, now: Timestamp) -> History {
    let mut history = History::default();
    history.note(Mishap {
        at: now,
        attempt: history.next_attempt(),
        node: node.clone(),
        kind: MishapKind::Failed,
        name: UNBOUND.to_owned(),
        message: reason.clone(),
        args: None,
        detail: None,
    });
    let (cause, reason) = (Some(Cause::BadArguments), Some(reason));
    history.end =
        Some(End { state: State::Dead, at: now, started: None, node: None, result: Value::Null, cause, reason });
    history
}
