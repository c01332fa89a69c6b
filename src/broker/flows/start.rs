//! From ready to started: jobs of flows are put into their queues.

use std::collections::HashMap;

use redis::{FromRedisValue, Pipeline, Value as Reply};
use serde_json::Value;

use super::words::{self, TOO_LARGE};
use crate::broker::enqueue::{Record, encode};
use crate::broker::exchange::encode_history;
use crate::broker::script::{Script, only};
use crate::broker::{Broker, BrokerError, Enqueued};
use crate::job::flow::{self, Draft, reference};
use crate::job::{FlowId, History, Job, Request, Timestamp};
use crate::store::accepted;

/// A flow that has something to go on with.
#[derive(Debug)]
pub(crate) struct ReadyFlow {
    pub id: FlowId,
    /// Who cancelled it, if somebody did.
    pub cancelled: Option<Request>,
    /// Some of the jobs that may start.
    pub jobs: Vec<ReadyJob>,
}

/// A job that may start.
#[derive(Debug)]
pub(crate) struct ReadyJob {
    pub draft: Draft,
    /// What its arguments refer to, by name; `Err` says why there is nothing.
    pub results: HashMap<String, Result<Value, String>>,
}

impl ReadyJob {
    /// Its arguments, with the results in place of the references.
    ///
    /// # Errors
    /// Which reference stands for nothing, in words.
    pub(crate) fn args(&self) -> Result<crate::job::Args, String> {
        let missing = |name: &str| Err(format!("the flow has no job {name:?}"));
        let result = |name: &str| self.results.get(name).cloned().unwrap_or_else(|| missing(name));
        reference::resolved(&self.draft.job.args, &result)
    }
}

impl Broker {
    /// Whether there is anything to do for any flow: words in these queues, or flows that are due. One command.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer.
    pub(crate) async fn flows_wait(&self, queues: &[crate::job::QueueName]) -> Result<bool, BrokerError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("EXISTS").arg(self.store.keys.flows().due);
        for queue in queues {
            pipeline.arg(self.keys(queue).words);
        }
        let reply = accepted(only(self.store.link.send(&pipeline).await?)?)?;
        Ok(matches!(reply, Reply::Int(count) if count > 0))
    }

    /// Flows that are due, up to `limit`, in no order.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer.
    pub(crate) async fn due_flows(&self, limit: usize) -> Result<Vec<FlowId>, BrokerError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("SRANDMEMBER").arg(self.store.keys.flows().due).arg(limit);
        let found: Vec<String> = texts(only(self.store.link.send(&pipeline).await?)?)?;
        Ok(found.iter().filter_map(|id| FlowId::parse(id).ok()).collect())
    }

    /// What there is to do for a flow: up to `limit` of its ready jobs, each with the results that it refers to.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer.
    pub(crate) async fn ready_flow(&self, id: &FlowId, limit: usize) -> Result<ReadyFlow, BrokerError> {
        let keys = self.store.keys.flow(id);
        let mut pipeline = Pipeline::new();
        pipeline.cmd("SRANDMEMBER").arg(&keys.ready).arg(limit).hget(&keys.state, "cancel");
        let mut replies = self.store.link.send(&pipeline).await?.into_iter();
        let mut next = || accepted(replies.next().unwrap_or(Reply::Nil));
        let ids: Vec<String> = texts(next()?)?;
        let cancelled: Option<String> = texts(next()?)?;
        let cancelled = cancelled.map(|note| serde_json::from_str(&note).unwrap_or_else(|_| unreadable()));
        let jobs = self.drafts(id, &ids).await?;
        Ok(ReadyFlow { id: id.clone(), cancelled, jobs })
    }

    async fn drafts(&self, flow: &FlowId, ids: &[String]) -> Result<Vec<ReadyJob>, BrokerError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let prefix = flow::ids_of(flow);
        let names: Vec<&str> = ids.iter().filter_map(|id| id.strip_prefix(&prefix)).collect();
        let mut pipeline = Pipeline::new();
        pipeline.cmd("HMGET").arg(self.store.keys.flow(flow).plan);
        for name in &names {
            pipeline.arg(format!("d/{name}"));
        }
        let found: Vec<Option<String>> = texts(only(self.store.link.send(&pipeline).await?)?)?;
        let mut jobs = Vec::new();
        for (name, text) in names.into_iter().zip(found) {
            match text.as_deref().map(serde_json::from_str::<Draft>) {
                Some(Ok(draft)) => jobs.push(ReadyJob { draft, results: HashMap::new() }),
                // Another version wrote it; that one can start it.
                draft => tracing::error!(%flow, name, "a job of the flow cannot be read: {draft:?}"),
            }
        }
        self.add_results(flow, &mut jobs).await?;
        Ok(jobs)
    }

    /// Fetches what the jobs refer to.
    async fn add_results(&self, flow: &FlowId, jobs: &mut [ReadyJob]) -> Result<(), BrokerError> {
        let mut names: Vec<String> = jobs.iter().flat_map(|job| referred(&job.draft)).collect();
        names.sort_unstable();
        names.dedup();
        let state = self.store.keys.flow(flow).state;
        let mut results = HashMap::new();
        // One at a time: each may be large.
        for name in names {
            let mut pipeline = Pipeline::new();
            pipeline.cmd("HMGET").arg(&state).arg(format!("s/{name}")).arg(format!("r/{name}"));
            let found: [Option<String>; 2] = texts(only(self.store.link.send(&pipeline).await?)?)?;
            results.insert(name.clone(), result_of(&name, &found));
        }
        for job in jobs {
            job.results =
                referred(&job.draft).filter_map(|name| Some((name.clone(), results.get(&name)?.clone()))).collect();
        }
        Ok(())
    }

    /// Puts ready jobs of one flow into their queues, each once, however often and by how many this is done.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it.
    pub(crate) async fn start_jobs(&self, flow: &FlowId, jobs: &[Job]) -> Result<Vec<Enqueued>, BrokerError> {
        self.enqueue_out_of(Some(&self.store.keys.flow(flow).ready), jobs).await
    }

    /// Ends a ready job that cannot start: it is dead, as its history says, and its flow is told. Says whether it was ready.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it.
    pub(crate) async fn bury_ready(
        &self,
        flow: &FlowId,
        job: &Job,
        history: &History,
        now: Timestamp,
    ) -> Result<bool, BrokerError> {
        let keys = self.keys(&job.queue);
        let ready = self.store.keys.flow(flow).ready;
        let touched = [&ready, &keys.words, &keys.jobs, &keys.history, &keys.large, &keys.dead, &keys.counters];
        let Record { text, large } = encode(job)?;
        let mut pipeline = Pipeline::new();
        Script::flow_bury.call(&mut pipeline, &touched.map(String::as_str));
        pipeline.arg(job.id.as_str()).arg(text).arg(large).arg(encode_history(history)?).arg(now.as_millis());
        pipeline.arg(words::of_end(job, history)?);
        let reply = only(self.store.link.send(&pipeline).await?)?;
        self.flows_stir.notify_one();
        Ok(Script::flow_bury.reply::<u8>(reply, "0 or 1")? == 1)
    }

    /// Nothing is left to do for the flow as the caller saw it; says whether that is so.
    ///
    /// # Errors
    /// [`BrokerError`]: it stays due, and is looked at again.
    pub(crate) async fn rest_flow(&self, flow: &FlowId, was_cancelled: bool) -> Result<bool, BrokerError> {
        let keys = self.store.keys.flow(flow);
        let mut pipeline = Pipeline::new();
        Script::flow_rest.call(&mut pipeline, &[&self.store.keys.flows().due, &keys.state, &keys.ready]);
        pipeline.arg(flow.as_str()).arg(u8::from(was_cancelled));
        Ok(Script::flow_rest.reply::<u8>(only(self.store.link.send(&pipeline).await?)?, "0 or 1")? == 1)
    }
}

/// The names of the jobs whose results these arguments refer to.
fn referred(draft: &Draft) -> impl Iterator<Item = String> {
    let found = reference::find(&draft.job.args).into_iter().filter_map(|(_, reference)| reference.ok());
    found.flat_map(|reference| reference.names().to_vec())
}

/// What a job has come to, for those that refer to it: the result of a completed one, nothing for one that was allowed to
/// fail.
fn result_of(name: &str, [stand, result]: &[Option<String>; 2]) -> Result<Value, String> {
    if stand.as_deref() != Some("c") {
        return Ok(Value::Null);
    }
    let gone = || format!("the result of {name:?} was not kept");
    let value: Value = result.as_deref().and_then(|text| serde_json::from_str(text).ok()).ok_or_else(gone)?;
    match value.get(TOO_LARGE) {
        Some(bytes) => {
            let most = words::LARGEST_RESULT;
            Err(format!("the result of {name:?} has {bytes} bytes; those that others refer to may have {most}"))
        }
        None => Ok(value),
    }
}

fn unreadable() -> Request {
    Request { at: Timestamp::from_millis(0), by: "somebody".to_owned(), reason: None }
}

fn texts<T: FromRedisValue>(reply: Reply) -> Result<T, BrokerError> {
    let unexpected = |_| BrokerError::Answer { script: "a flow's reads", expected: "texts" };
    T::from_redis_value(accepted(reply)?).map_err(unexpected)
}
