//! What a person does to a whole flow: cancel it, or retry what failed in it.

use redis::Pipeline;

use super::words;
use crate::broker::script::{Script, only};
use crate::broker::{Altered, Broker, BrokerError, Change};
use crate::job::flow::{self, Listed, Stand, Told, UNBOUND, Word};
use crate::job::{FlowId, JobId, MemberName, QueueName, Request, Timestamp};
use crate::store::{FlowView, Place, Standing, accepted};

/// What became of a flow that was to be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlowCancelled {
    Done,
    /// It was cancelled before.
    Before,
    /// All its jobs are completed.
    Completed,
    Unknown,
}

/// What became of a flow that was to be retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FlowRetried {
    /// These jobs go on.
    Done(Vec<JobId>),
    /// Somebody has cancelled it.
    Cancelled(Request),
    /// Nothing of it is dead or was cancelled.
    Nothing,
    Unknown,
}

/// Jobs looked at in one round trip.
const STEP: usize = 200;

impl Broker {
    /// Cancels the flow: what has not been put into a queue never is, from here on. What has is cancelled by
    /// [`Broker::cancel_started`], for which the flow is due.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it.
    pub(crate) async fn cancel_flow(
        &self,
        id: &FlowId,
        request: &Request,
        now: Timestamp,
    ) -> Result<FlowCancelled, BrokerError> {
        let (keys, all) = (self.store.keys.flow(id), self.store.keys.flows());
        let note = serde_json::to_string(request).map_err(|error| BrokerError::Encode(error.to_string()))?;
        let mut pipeline = Pipeline::new();
        Script::flow_cancel.call(&mut pipeline, &[&keys.state, &keys.ready, &all.due, &all.stopped]);
        pipeline.arg(id.as_str()).arg(flow::ids_of(id)).arg(now.as_millis()).arg(note);
        let reply = only(self.store.link.send(&pipeline).await?)?;
        self.flows_stir.notify_one();
        match Script::flow_cancel.reply::<i8>(reply, "a code")? {
            1 => Ok(FlowCancelled::Done),
            0 => Ok(FlowCancelled::Before),
            2 => Ok(FlowCancelled::Completed),
            _ => Ok(FlowCancelled::Unknown),
        }
    }

    /// Cancels the jobs of a cancelled flow that wait in their queues or run.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it.
    pub(crate) async fn cancel_started(
        &self,
        id: &FlowId,
        request: &Request,
        now: Timestamp,
    ) -> Result<(), BrokerError> {
        let Some(view) = self.store.flow(id).await? else { return Ok(()) };
        let change = Change::Cancel(request.clone());
        for (queue, jobs) in by_queue(&view, |stand| stand == Stand::Started) {
            for some in jobs.chunks(STEP) {
                let ids: Vec<JobId> = some.iter().map(|listed| flow::job_id(id, &listed.name)).collect();
                let altered = self.alter(queue, &ids, &change, now).await?;
                let gone = some.iter().zip(altered).filter(|(_, altered)| *altered == Altered::Unknown);
                for (listed, _) in gone {
                    self.tell_gone(queue, id, &listed.name, now).await?;
                }
            }
        }
        Ok(())
    }

    /// Tells a flow that a job which it takes for started is nowhere any more. If the job had ended, its own word stands
    /// before this one, which then changes nothing that matters.
    async fn tell_gone(
        &self,
        queue: &QueueName,
        flow: &FlowId,
        name: &MemberName,
        now: Timestamp,
    ) -> Result<(), BrokerError> {
        let (flow, name) = (flow.clone(), name.clone());
        let word = Word { flow, name, what: Told::Cancelled, at: now, result: None, error: None };
        let mut pipeline = Pipeline::new();
        pipeline.cmd("RPUSH").arg(self.keys(queue).words).arg(words::encode(&word)?);
        accepted(only(self.store.link.send(&pipeline).await?)?)?;
        self.flows_stir.notify_one();
        Ok(())
    }

    /// Sends those jobs of the flow off once more that are dead or were cancelled, and with them the flow goes on. One
    /// whose record is gone is started anew.
    ///
    /// # Errors
    /// [`BrokerError`]: repeat it; what goes on already is left alone.
    pub(crate) async fn retry_flow(&self, id: &FlowId, now: Timestamp) -> Result<FlowRetried, BrokerError> {
        let Some(view) = self.store.flow(id).await? else { return Ok(FlowRetried::Unknown) };
        if let Some(request) = view.cancelled {
            return Ok(FlowRetried::Cancelled(request));
        }
        let mut retried = Vec::new();
        for (queue, jobs) in by_queue(&view, |stand| matches!(stand, Stand::Dead | Stand::Cancelled)) {
            for some in jobs.chunks(STEP) {
                retried.extend(self.retry_some(id, queue, some, now).await?);
            }
        }
        Ok(if retried.is_empty() { FlowRetried::Nothing } else { FlowRetried::Done(retried) })
    }

    async fn retry_some(
        &self,
        flow: &FlowId,
        queue: &QueueName,
        jobs: &[&Listed],
        now: Timestamp,
    ) -> Result<Vec<JobId>, BrokerError> {
        let ids: Vec<JobId> = jobs.iter().map(|listed| flow::job_id(flow, &listed.name)).collect();
        let wanted: Vec<_> = ids.iter().map(|id| (queue, id)).collect();
        let standings = self.store.standings(&wanted).await?;
        let (mut again, mut anew, mut unbound) = (Vec::new(), Vec::new(), Vec::new());
        for (id, standing) in ids.iter().zip(&standings) {
            match standing {
                None => anew.push(id.clone()),
                Some(standing) if is_unbound(standing) => unbound.push(id.clone()),
                Some(standing) if matches!(standing.place, Place::Dead | Place::Cancelled) => again.push(id.clone()),
                // A purge can be taken back; anything else goes on already.
                Some(_) => {}
            }
        }
        let altered = self.alter(queue, &again, &Change::Retry(None), now).await?;
        let mut retried: Vec<JobId> = again.iter().zip(altered).filter(is_done).map(|(id, _)| id.clone()).collect();
        let altered = self.alter(queue, &unbound, &Change::Delete, now).await?;
        anew.extend(unbound.iter().zip(altered).filter(is_done).map(|(id, _)| id.clone()));
        if self.reopen(flow, &anew).await? > 0 {
            retried.extend(anew);
        }
        Ok(retried)
    }

    /// Makes jobs ready that have no record.
    async fn reopen(&self, flow: &FlowId, ids: &[JobId]) -> Result<usize, BrokerError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let (keys, all) = (self.store.keys.flow(flow), self.store.keys.flows());
        let mut pipeline = Pipeline::new();
        let touched = [&keys.state, &keys.ready, &all.due, &all.completed, &all.stopped];
        Script::flow_reopen.call(&mut pipeline, &touched.map(String::as_str));
        let prefix = flow::ids_of(flow);
        pipeline.arg(flow.as_str()).arg(&prefix);
        for name in ids.iter().filter_map(|id| id.as_str().strip_prefix(&prefix)) {
            pipeline.arg(name);
        }
        let reply = only(self.store.link.send(&pipeline).await?)?;
        self.flows_stir.notify_one();
        Script::flow_reopen.reply(reply, "a count")
    }
}

/// Its arguments could not be bound; they are bound anew.
fn is_unbound(standing: &Standing) -> bool {
    let last = standing.history.mishaps.last();
    standing.place == Place::Dead && last.is_some_and(|mishap| mishap.name == UNBOUND)
}

fn is_done((_, altered): &(&JobId, Altered)) -> bool {
    matches!(altered, Altered::Done(_))
}

/// The jobs of these stands, callbacks among them, by their queues.
fn by_queue(view: &FlowView, wanted: impl Fn(Stand) -> bool) -> Vec<(&QueueName, Vec<&Listed>)> {
    let mut queues: Vec<(&QueueName, Vec<&Listed>)> = Vec::new();
    for (listed, stand) in view.jobs() {
        if !wanted(stand) {
            continue;
        }
        match queues.iter_mut().find(|(queue, _)| **queue == listed.queue) {
            Some((_, jobs)) => jobs.push(listed),
            None => queues.push((&listed.queue, vec![listed])),
        }
    }
    queues
}
