//! Reads: one flow as it stands, and the flows in the order of their submission.

use std::collections::{HashMap, HashSet};

use redis::{Pipeline, Value};

use super::inspect::typed;
use super::page::Position;
use super::{LinkError, Store};
use crate::job::flow::progress::Counts;
use crate::job::flow::{self, Callback, Draft, FlowState, Heading, Listed, Outline, Stand};
use crate::job::{FlowId, MemberName, Request};

/// One flow as it stands.
#[derive(Debug, Clone)]
pub(crate) struct FlowView {
    pub outline: Outline,
    /// Of the members, in their order.
    pub stands: Vec<Stand>,
    /// Of the callbacks, in their order.
    pub calls: Vec<Stand>,
    /// What dead jobs died of, by their names.
    pub errors: HashMap<String, String>,
    pub cancelled: Option<Request>,
}

/// One flow in a listing.
#[derive(Debug, Clone)]
pub(crate) struct FlowLine {
    pub heading: Heading,
    pub counts: Counts,
    pub state: FlowState,
}

impl FlowView {
    /// Every job with where it stands: the members, then the callbacks.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = (&Listed, Stand)> {
        self.outline.jobs().zip(self.stands.iter().chain(&self.calls).copied())
    }

    pub(crate) fn callbacks(&self) -> impl Iterator<Item = (Callback, &Listed, Stand)> {
        self.outline.callbacks.iter().zip(&self.calls).map(|((callback, listed), stand)| (*callback, listed, *stand))
    }
}

impl Store {
    /// The flow of this id.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer or the flow cannot be read.
    pub(crate) async fn flow(&self, id: &FlowId) -> Result<Option<FlowView>, LinkError> {
        let keys = self.keys.flow(id);
        let mut pipeline = Pipeline::new();
        pipeline.hget(&keys.plan, "").hgetall(&keys.state).smembers(&keys.ready);
        let mut replies = self.read(&pipeline).await?.into_iter();
        let mut next = || replies.next().unwrap_or(Value::Nil);
        let outline: Option<String> = typed(next(), "a flow")?;
        let state: HashMap<String, String> = typed(next(), "a flow's state")?;
        let ready: HashSet<String> = typed(next(), "a flow's ready jobs")?;
        let Some(outline) = outline else { return Ok(None) };
        let outline: Outline = parsed(&outline)?;
        let prefix = flow::ids_of(id);
        let stand = |listed: &Listed| match state.get(&format!("s/{}", listed.name)).map(String::as_str) {
            Some("c") => Stand::Completed,
            Some("d") => Stand::Dead,
            Some("x") => Stand::Cancelled,
            Some(_) if ready.contains(&format!("{prefix}{}", listed.name)) => Stand::Ready,
            Some(_) => Stand::Started,
            None => Stand::Blocked,
        };
        let stands = outline.members.iter().map(stand).collect();
        let calls = outline.callbacks.iter().map(|(_, listed)| stand(listed)).collect();
        let errors =
            state.iter().filter_map(|(field, error)| Some((field.strip_prefix("e/")?.to_owned(), error.clone())));
        let (errors, cancelled) = (errors.collect(), state.get("cancel").map(|note| parsed(note)).transpose()?);
        Ok(Some(FlowView { stands, calls, errors, cancelled, outline }))
    }

    /// A job of a flow as it is before its turn.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer or it cannot be read.
    pub(crate) async fn draft(&self, flow: &FlowId, name: &MemberName) -> Result<Option<Draft>, LinkError> {
        let mut pipeline = Pipeline::new();
        pipeline.hget(self.keys.flow(flow).plan, format!("d/{name}"));
        let reply = self.read(&pipeline).await?.into_iter().next().unwrap_or(Value::Nil);
        let text: Option<String> = typed(reply, "a job of a flow")?;
        text.map(|text| parsed(&text)).transpose()
    }

    /// The latest flows, up to `count`, behind a position; each with its own.
    ///
    /// # Errors
    /// [`LinkError`] when Redis does not answer.
    pub(crate) async fn flow_lines(
        &self,
        behind: Option<&Position>,
        count: usize,
    ) -> Result<Vec<(Position, Option<FlowLine>)>, LinkError> {
        let positions = self.flow_positions(behind, count).await?;
        let mut pipeline = Pipeline::new();
        for position in &positions {
            let Ok(id) = FlowId::parse(&position.id) else { continue };
            let keys = self.keys.flow(&id);
            pipeline.hget(&keys.plan, "h");
            pipeline.cmd("HMGET").arg(&keys.state).arg(&["total", "completed", "dead", "cancelled", "live", "cancel"]);
        }
        let mut replies = if pipeline.is_empty() { Vec::new() } else { self.read(&pipeline).await? }.into_iter();
        let mut next = || replies.next().unwrap_or(Value::Nil);
        let mut lines = Vec::new();
        for position in positions {
            if FlowId::parse(&position.id).is_err() {
                lines.push((position, None));
                continue;
            }
            let heading: Option<String> = typed(next(), "a flow")?;
            let numbers: Vec<Option<String>> = typed(next(), "a flow's counts")?;
            lines.push((position, line(heading, &numbers)));
        }
        Ok(lines)
    }

    async fn flow_positions(&self, behind: Option<&Position>, count: usize) -> Result<Vec<Position>, LinkError> {
        let all = self.keys.flows().all;
        // Flows of one millisecond may stand on both sides of the position: they are read once more and left out.
        let (from, mut spare) = behind.map_or(("+inf".to_owned(), 0), |behind| (behind.score.to_string(), 16));
        loop {
            let mut pipeline = Pipeline::new();
            pipeline.cmd("ZREVRANGEBYSCORE").arg(&all).arg(&from).arg("-inf").arg("WITHSCORES");
            pipeline.arg("LIMIT").arg(0).arg(count + spare);
            let reply = self.read(&pipeline).await?.into_iter().next().unwrap_or(Value::Nil);
            let found: Vec<(String, f64)> = typed(reply, "flows")?;
            let complete = found.len() < count + spare;
            let positions = found.into_iter().map(|(id, score)| Position { score, id });
            let is_behind = |one: &Position| {
                behind.is_none_or(|behind| one.score < behind.score || one.score <= behind.score && one.id < behind.id)
            };
            let mut positions: Vec<Position> = positions.filter(is_behind).collect();
            if positions.len() >= count || complete {
                positions.truncate(count);
                return Ok(positions);
            }
            spare *= 4;
        }
    }
}

/// `None` when it was deleted meanwhile, or cannot be read.
fn line(heading: Option<String>, numbers: &[Option<String>]) -> Option<FlowLine> {
    let heading = parsed(&heading?).ok()?;
    let number = |at: usize| numbers.get(at)?.as_deref()?.parse::<usize>().ok();
    let (total, completed, dead, cancelled, started) = (number(0)?, number(1)?, number(2)?, number(3)?, number(4)?);
    let blocked = total.saturating_sub(completed + dead + cancelled + started);
    let counts = Counts { total, completed, started, dead, cancelled, blocked };
    let state = counts.state(numbers.get(5).is_some_and(Option::is_some));
    Some(FlowLine { heading, counts, state })
}

fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, LinkError> {
    serde_json::from_str(text).map_err(|_| LinkError::Unexpected { what: "a flow" })
}
