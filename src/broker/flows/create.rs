//! Writing a new flow down.

use redis::Pipeline;

use crate::broker::script::{Script, only};
use crate::broker::{Broker, BrokerError};
use crate::job::flow::{self, Callback, Flow, Links};

/// What became of a flow that was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlowCreated {
    Added,
    /// A flow of this id exists; it stays as it is.
    Exists,
}

impl Broker {
    /// Writes the flow down, whole or not at all. Its first jobs are ready when this returns, and are put into their
    /// queues soon after. A repetition with the same id changes nothing.
    ///
    /// # Errors
    /// [`BrokerError`]: it may have happened all the same.
    pub(crate) async fn create_flow(&self, flow: &Flow) -> Result<FlowCreated, BrokerError> {
        let (outline, heading) = (&flow.outline, &flow.outline.heading);
        let (keys, all) = (self.store.keys.flow(&heading.id), self.store.keys.flows());
        let mut pipeline = Pipeline::new();
        Script::flow_create.call(&mut pipeline, &[&keys.plan, &keys.state, &keys.ready, &all.all, &all.due]);
        pipeline.arg(heading.id.as_str()).arg(heading.request.at.as_millis()).arg(outline.members.len());
        pipeline.arg(flow::ids_of(&heading.id)).arg(encoded(outline)?).arg(encoded(heading)?);
        add_nodes(&mut pipeline, flow, &outline.links())?;
        let reply = only(self.store.link.send(&pipeline).await?)?;
        let created = Script::flow_create.reply::<u8>(reply, "0 or 1")?;
        self.flows_stir.notify_one();
        Ok(if created == 1 { FlowCreated::Added } else { FlowCreated::Exists })
    }
}

fn add_nodes(pipeline: &mut Pipeline, flow: &Flow, links: &Links) -> Result<(), BrokerError> {
    let members = &flow.outline.members;
    let key = |link: usize| match members.get(link) {
        Some(listed) => listed.name.to_string(),
        None => format!("+{}", link - members.len()),
    };
    let keys = |links: &[usize]| links.iter().map(|&link| key(link)).collect::<Vec<_>>().join(" ");
    for (number, link) in links.links.iter().enumerate() {
        let draft = flow.drafts.get(number).filter(|_| !links.is_join(number)).map(encoded).transpose()?;
        pipeline.arg(key(number)).arg(link.before.len()).arg(draft.unwrap_or_default());
        pipeline.arg(keys(&link.on_completed)).arg(keys(&link.on_ended));
    }
    let callbacks = flow.outline.callbacks.iter().zip(&flow.drafts[members.len()..]);
    for ((callback, _), draft) in callbacks {
        pipeline.arg(Callback::as_str(*callback)).arg(-1).arg(encoded(draft)?).arg("").arg("");
    }
    Ok(())
}

fn encoded(value: &impl serde::Serialize) -> Result<String, BrokerError> {
    serde_json::to_string(value).map_err(|error| BrokerError::Encode(error.to_string()))
}
