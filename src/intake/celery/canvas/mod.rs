//! Celery's canvas: what is due when a task ends, because its producer said so. Callbacks, the next step of a chain, the
//! parts and bodies of chords, errbacks.
//!
//! What follows a task is a message in a Celery list, so it may be run by a real worker, and what a real worker publishes
//! by us. It is made here and written in one transition with the answer; a task may be done twice, what follows it is
//! published once.

mod check;
mod chord;
mod freeze;
mod node;
mod publish;
mod route;
mod signature;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use super::answer::{Desk, Said, whole_seconds};
use super::message::{Embed, Message};
use super::result::{Document, Exception, State};
use crate::broker::{Answer, Broker, BrokerError};
use crate::job::Timestamp;
use chord::{Part, Standing};
use publish::{Parent, Publisher, add};
use signature::{Signature, listed};

pub(crate) use check::check;
use publish::Unfit;
use route::Routes;
pub(crate) use signature::Malformed;

/// Chords inside chords whose failure one part may bring about.
const CHORDS: usize = 100;

/// What a job's note has of its canvas.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Canvas {
    id: String,
    root: String,
    group: Option<String>,
    index: Option<i64>,
    /// The Celery queue it came from.
    from: String,
    embed: Embed,
}

/// The fields of a job's note that the canvas needs; none if nothing is due.
pub(crate) fn note(message: &Message) -> Map<String, Value> {
    let Embed { callbacks, errbacks, chain, chord } = &message.embed;
    let parts = [("callbacks", callbacks), ("errbacks", errbacks), ("chain", chain), ("chord", chord)];
    let due = |value: &Value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    let embed: Map<String, Value> = parts
        .into_iter()
        .filter(|(_, value)| due(value))
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect();
    let mut note = Map::new();
    if !embed.is_empty() {
        note.insert("embed".to_owned(), Value::Object(embed));
        note.insert("root".to_owned(), message.root_id.as_deref().unwrap_or(&message.id).into());
        note.insert("index".to_owned(), message.group_index.into());
        note.insert("from".to_owned(), message.routing_key.as_deref().into());
    }
    note
}

impl Canvas {
    /// Read from the note of a job; `None` if nothing is due. `list` is where its message stood.
    pub(crate) fn read(note: &Value, list: &str) -> Option<Self> {
        let text = |name: &str| note.get(name).and_then(Value::as_str).map(str::to_owned);
        let id = text("id")?;
        let embed = Embed::read(note.get("embed")?);
        let root = text("root").unwrap_or_else(|| id.clone());
        let from = text("from").filter(|from| !from.is_empty()).unwrap_or_else(|| list.to_owned());
        let index = note.get("index").and_then(Value::as_i64);
        Some(Self { id, root, group: text("group"), index, from, embed })
    }

    fn routes<'a>(&'a self, desk: &Desk<'a>) -> Routes<'a> {
        Routes { config: desk.config, node: desk.node, from: &self.from }
    }

    fn parent<'a>(&'a self, routes: &'a Routes<'a>, now: Timestamp) -> Parent<'a> {
        Parent { id: &self.id, root: &self.root, routes, now }
    }

    /// After a success: the callbacks and the next step of the chain. The children of the result.
    pub(crate) fn succeed(&self, draft: &mut Draft, result: &Value, desk: &Desk<'_>) -> Result<Vec<Value>, Unfit> {
        let routes = self.routes(desk);
        let mut publisher = Publisher::new(self.parent(&routes, desk.now));
        let children = publisher.follow(&self.embed, result)?;
        add(&mut draft.answer, publisher.into_writes(), desk, Said::UnderGuard);
        Ok(children.iter().map(node::Node::to_value).collect())
    }

    /// After a failure: the rest of the chain fails with it, and the errbacks are called.
    pub(crate) fn fail(&self, draft: &mut Draft, failure: Failure<'_>, desk: &Desk<'_>) {
        for step in listed(Some(&self.embed.chain)) {
            let parts = fail_all(&mut draft.answer, step, failure, desk, Said::UnderGuard);
            draft.add(parts, desk);
        }
        let errbacks: Vec<Value> = listed(Some(&self.embed.errbacks)).cloned().collect();
        let routes = self.routes(desk);
        call_errbacks(&mut draft.answer, self.parent(&routes, desk.now), &errbacks, desk, Said::UnderGuard);
    }

    /// Tells the chord that it is a part of how it has ended.
    pub(crate) fn tell(&self, draft: &mut Draft, state: &'static str, result: Value, desk: &Desk<'_>) {
        if let (Some(group), body @ Value::Object(_)) = (&self.group, &self.embed.chord) {
            let (group, body) = (group.clone(), body.clone());
            draft.add(vec![Part { group, id: self.id.clone(), index: self.index, state, result, body }], desk);
        }
    }
}

/// What a task has failed with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure<'a> {
    pub(crate) exception: &'a Exception,
    pub(crate) traceback: Option<&'a str>,
}

/// Everything in a signature that somebody may wait for fails. The parts of chords among it.
fn fail_all(answer: &mut Answer, signature: &Value, failure: Failure<'_>, desk: &Desk<'_>, said: Said) -> Vec<Part> {
    let Failure { exception, traceback } = failure;
    let mut tasks = Vec::new();
    // What came in was looked at; whatever could not be read all the same, nobody can wait for.
    let _ = Signature::read(signature).and_then(|signature| freeze::waited_for(&signature, &mut tasks));
    for task in &tasks {
        if let Some(id) = task.text("task_id") {
            let state = State::Failure { exception, traceback, done: desk.now.to_utc() };
            let (group, parent_id) = (task.text("group_id"), task.text("parent_id"));
            let document = Document { task_id: id, group, parent_id, children: &[], state };
            desk.store(answer, id, &document, said);
        }
    }
    tasks.iter().filter_map(|task| chord::failed_part(task, exception)).collect()
}

fn call_errbacks(answer: &mut Answer, parent: Parent<'_>, errbacks: &[Value], desk: &Desk<'_>, said: Said) {
    let mut publisher = Publisher::new(parent);
    match publisher.errbacks(errbacks) {
        Ok(()) => add(answer, publisher.into_writes(), desk, said),
        Err(unfit) => tracing::error!(task = parent.id, "its errbacks cannot be called: {unfit}"),
    }
}

/// An answer with the chords that are told of it.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) answer: Answer,
    parts: Vec<Part>,
}

impl Draft {
    /// As if no chord became complete by it, which is so for all parts but one.
    fn add(&mut self, parts: Vec<Part>, desk: &Desk<'_>) {
        self.parts.extend(parts);
        self.answer.tallies.clear();
        for (group, parts) in by_group(self.parts.clone()) {
            add_tally(&mut self.answer, &group, &parts, None, desk);
        }
    }

    /// Looks how its chords stand and makes what follows from that.
    ///
    /// # Errors
    /// [`BrokerError`] when Redis does not answer.
    pub(crate) async fn look_again(
        &mut self,
        broker: &Broker,
        canvas: &Canvas,
        desk: &Desk<'_>,
    ) -> Result<(), BrokerError> {
        let routes = canvas.routes(desk);
        self.answer.tallies.clear();
        self.answer.others.clear();
        let mut groups = by_group(self.parts.clone());
        let mut at = 0;
        while at < groups.len().min(CHORDS) {
            let (group, parts) = groups[at].clone();
            at += 1;
            let standing = chord::look(broker, &group, &parts).await?;
            let body = parts[0].body.clone();
            let failure = match standing {
                Standing::Waiting => {
                    add_tally(&mut self.answer, &group, &parts, None, desk);
                    continue;
                }
                Standing::Complete(count, results) => {
                    add_tally(&mut self.answer, &group, &parts, Some(count), desk);
                    let parent = canvas.parent(&routes, desk.now);
                    match self.complete(&group, &body, results, parent, desk) {
                        Ok(()) => continue,
                        Err(unfit) => callback_error(&unfit),
                    }
                }
                Standing::Failed(count, exception) => {
                    add_tally(&mut self.answer, &group, &parts, Some(count), desk);
                    exception
                }
            };
            let more = self.fail(&body, &failure, &routes, desk);
            // A chord that has been looked at already can only come again in a circle, which no client makes.
            let more = by_group(more).into_iter().filter(|(more, _)| groups.iter().all(|(known, _)| known != more));
            groups.extend(more.collect::<Vec<_>>());
        }
        Ok(())
    }

    /// The body is called, and nothing of the chord is left.
    fn complete(
        &mut self,
        group: &str,
        body: &Value,
        results: Vec<Value>,
        parent: Parent<'_>,
        desk: &Desk<'_>,
    ) -> Result<(), Unfit> {
        let mut publisher = Publisher::new(parent);
        publisher.body(Signature::read(body)?, results)?;
        add(&mut self.answer, publisher.into_writes(), desk, Said::Always);
        let keys = chord::keys(group, None);
        self.answer.other("DEL {} {} {}", &[&keys.entries, &keys.more, &keys.size]);
        Ok(())
    }

    /// The body fails. The parts that it and what stands in it are of other chords.
    fn fail(&mut self, body: &Value, exception: &Exception, routes: &Routes<'_>, desk: &Desk<'_>) -> Vec<Part> {
        let traceback = exception.to_line();
        let failure = Failure { exception, traceback: Some(&traceback) };
        let parts = fail_all(&mut self.answer, body, failure, desk, Said::Always);
        if let Ok(body) = Signature::read(body)
            && let Ok(errbacks) = freeze::errbacks(&body)
        {
            let id = body.text("task_id").unwrap_or_default();
            let parent = Parent { id, root: id, routes, now: desk.now };
            call_errbacks(&mut self.answer, parent, &errbacks, desk, Said::Always);
        }
        parts
    }
}

fn callback_error(unfit: &Unfit) -> Exception {
    let words = crate::intake::pyrepr::repr(&json!(unfit.to_string()));
    Exception::chord_error(&format!("Callback error: ValueError({words})"))
}

fn add_tally(answer: &mut Answer, group: &str, parts: &[Part], full: Option<usize>, desk: &Desk<'_>) {
    let keys = chord::keys(group, desk.keep().map(whole_seconds));
    for (key, kind) in [(&keys.entries, "zset"), (&keys.size, "string"), (&keys.more, "string")] {
        answer.check(key, kind);
    }
    answer.tallies.push(chord::tally(keys, parts, full));
}

/// The parts of each chord.
fn by_group(parts: Vec<Part>) -> Vec<(String, Vec<Part>)> {
    let mut groups: Vec<(String, Vec<Part>)> = Vec::new();
    for part in parts {
        match groups.iter_mut().find(|(group, _)| *group == part.group) {
            Some((_, parts)) => parts.push(part),
            None => groups.push((part.group.clone(), vec![part])),
        }
    }
    groups
}
