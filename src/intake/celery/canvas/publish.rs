//! Publishing what follows a task: the messages, group by group and chord by chord, that a real worker would send, in its
//! order. They are only made here; they go out in one transition with the answer.

use std::time::Duration;

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::chord::{group_key, size_key};
use super::freeze::{Whole, freeze, freeze_members, new_id, parts, saved, steps, unrolled};
use super::node::Node;
use super::route::Routes;
use super::signature::{Kind, Malformed, Signature, listed};
use crate::broker::Answer;
use crate::intake::celery::answer::{Desk, Said};
use crate::intake::celery::message::Embed;
use crate::intake::celery::produce::{Call, CallOptions};
use crate::intake::iso;
use crate::intake::pyjson::{Dialect, dumps};
use crate::job::Timestamp;
use crate::store::celery_list;

/// Bytes that the end of one task may publish: a result is in the message of everything that follows it.
pub(super) const MOST: usize = 64 << 20;

/// Why nothing of what follows can be published.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Unfit {
    #[error("what follows the task cannot be called: {0}")]
    Malformed(#[from] Malformed),
    #[error("what follows the task would take more than {MOST} bytes; pass a reference to the data, not the data")]
    TooLarge,
}

/// For whom something is published.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parent<'a> {
    pub(super) id: &'a str,
    pub(super) root: &'a str,
    pub(super) routes: &'a Routes<'a>,
    pub(super) now: Timestamp,
}

/// Makes what follows one task.
#[derive(Debug)]
pub(super) struct Publisher<'a> {
    parent: Parent<'a>,
    origin: String,
    reply_to: String,
    writes: Vec<Write>,
    left: usize,
}

/// One thing that is written.
#[derive(Debug, PartialEq)]
pub(super) enum Write {
    Message {
        list: String,
        element: Vec<u8>,
    },
    /// How many parts a chord waits for.
    Size {
        group: String,
        parts: usize,
    },
    /// A group among whose members are groups: whoever completes the chord finds its shape there.
    Shape {
        group: String,
        document: String,
    },
}

/// Options as `apply_async` takes them.
type Options = Map<String, Value>;

impl<'a> Publisher<'a> {
    pub(super) fn new(parent: Parent<'a>) -> Self {
        let origin = format!("gen{}@{}", std::process::id(), parent.routes.node);
        Self { parent, origin, reply_to: new_id(), writes: Vec::new(), left: MOST }
    }

    /// The callbacks of a task and the next step of its chain. The results that its own result names as children.
    pub(super) fn follow(&mut self, embed: &Embed, result: &Value) -> Result<Vec<Node>, Unfit> {
        let args = std::slice::from_ref(result);
        let callbacks = listed(Some(&embed.callbacks)).map(Signature::read).collect::<Result<Vec<_>, _>>()?;
        let mut children = self.callbacks(callbacks, args)?;
        if let Some((next, rest)) = embed.chain.as_array().and_then(|chain| chain.split_last()) {
            let given = self.given(Some(rest));
            children.extend(self.apply(Signature::read(next)?, args, &given)?);
        }
        Ok(children)
    }

    /// Several callbacks are a group, but for the groups among them.
    fn callbacks(&mut self, callbacks: Vec<Signature>, args: &[Value]) -> Result<Vec<Node>, Unfit> {
        let given = self.given(None);
        let is_one = callbacks.len() == 1;
        let (mut first, others): (Vec<_>, Vec<_>) =
            callbacks.into_iter().partition(|callback| is_one || callback.kind() == Kind::Group);
        if !others.is_empty() {
            first.push(Signature::group(others));
        }
        let mut children = Vec::new();
        for signature in first {
            children.extend(self.apply(signature, args, &given)?);
        }
        Ok(children)
    }

    /// The errbacks of a task that has failed: always a group, called with the task's id.
    pub(super) fn errbacks(&mut self, errbacks: &[Value]) -> Result<(), Unfit> {
        if errbacks.is_empty() {
            return Ok(());
        }
        let group = Signature::group(errbacks.iter().map(Signature::read).collect::<Result<_, _>>()?);
        let given = self.given(None);
        self.apply(group, &[self.parent.id.into()], &given)?;
        Ok(())
    }

    /// The body of a chord, once all parts are there.
    pub(super) fn body(&mut self, body: Signature, results: Vec<Value>) -> Result<(), Unfit> {
        self.apply(body, &[Value::Array(results)], &Options::new())?;
        Ok(())
    }

    /// What a worker says when it calls the next one.
    fn given(&self, chain: Option<&[Value]>) -> Options {
        let mut given = Options::new();
        if let Some(rest) = chain {
            given.insert("chain".to_owned(), rest.into());
        }
        given.insert("parent_id".to_owned(), self.parent.id.into());
        given.insert("root_id".to_owned(), self.parent.root.into());
        given.insert("priority".to_owned(), Value::Null);
        given
    }

    /// Calls a signature; the result that stands for it among the children.
    fn apply(&mut self, signature: Signature, args: &[Value], given: &Options) -> Result<Option<Node>, Unfit> {
        match signature.kind() {
            Kind::Task => self.task(&signature, args, given).map(Some),
            Kind::Chain => self.chain(&signature, args, given),
            Kind::Group => self.group(&signature, args, given),
            Kind::Chord => self.chord(&signature, args, given),
        }
    }

    fn chain(&mut self, signature: &Signature, args: &[Value], given: &Options) -> Result<Option<Node>, Unfit> {
        let mut options = signature.options().cloned().unwrap_or_default();
        options.extend(given.clone());
        let mut take = |name: &str| options.shift_remove(name).filter(|value| !value.is_null());
        let [id, group, root, index] = ["task_id", "group_id", "root_id", "group_index"].map(&mut take);
        let [chord, link, link_error] = ["chord", "link", "link_error"].map(&mut take);
        take("parent_id");
        let text = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).map(str::to_owned);
        let (id, group, root) = (text(&id), text(&group), text(&root));
        let reply_to = self.reply_to.clone();
        let whole = Whole {
            id: id.as_deref(),
            group: group.as_deref(),
            index: index.as_ref().and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok()),
            chord: chord.as_ref(),
            root: root.as_deref(),
            reply_to: &reply_to,
        };
        let errbacks: Vec<Value> = listed(link_error.as_ref()).cloned().collect();
        let args = signature.merged_args(args);
        let (mut chain, _) = steps(&args, signature.tasks()?, whole, &errbacks)?;
        if let (Some(last), Some(link)) = (chain.first_mut(), &link) {
            last.extend("link", listed(Some(link)).cloned().collect());
        }
        let Some(first) = chain.pop() else { return Ok(None) };
        let behind = listed(options.get("chain")).cloned().chain(chain.into_iter().map(Signature::into_value));
        options.insert("chain".to_owned(), behind.collect());
        self.apply(first, &[], &options)
    }

    fn group(&mut self, signature: &Signature, args: &[Value], given: &Options) -> Result<Option<Node>, Unfit> {
        let mut options = signature.merged_options(given);
        let id = options.shift_remove("task_id").and_then(|id| id.as_str().map(str::to_owned)).unwrap_or_else(new_id);
        let args = signature.merged_args(args);
        // How many parts the chord waits for was written by whoever applied that chord.
        let tasks = flattened(signature.tasks()?)?;
        if tasks.is_empty() { Ok(None) } else { self.members(&id, tasks, &args, options).map(|(node, _)| Some(node)) }
    }

    /// Calls the members of a group; its result, and how many parts they are for a chord.
    fn members(
        &mut self,
        group: &str,
        mut tasks: Vec<Signature>,
        args: &[Value],
        mut options: Options,
    ) -> Result<(Node, usize), Unfit> {
        options.insert("group_id".to_owned(), group.into());
        let root = options.get("root_id").and_then(Value::as_str).map(str::to_owned);
        let reply_to = self.reply_to.clone();
        let whole = Whole { group: Some(group), root: root.as_deref(), reply_to: &reply_to, ..Whole::default() };
        let nodes = freeze_members(&mut tasks, whole)?;
        let count = tasks.iter().map(parts).sum::<Result<usize, _>>()?;
        for task in tasks {
            self.apply(task, args, &options)?;
        }
        let node = match <[Node; 1]>::try_from(nodes) {
            Ok([sole]) if sole.members.is_some() => sole,
            Ok([sole]) => Node::group(group, vec![sole]),
            Err(nodes) => Node::group(group, nodes),
        };
        Ok((node, count))
    }

    fn chord(&mut self, signature: &Signature, args: &[Value], given: &Options) -> Result<Option<Node>, Unfit> {
        let args = signature.merged_args(args);
        let mut body = signature.body()?;
        let cloned = body.merged_options(given);
        *body.options_mut() = cloned;
        let group = signature.header_id().unwrap_or_else(new_id);
        let mut options = signature.options().cloned().unwrap_or_default();
        options.extend(given.clone());
        let id = options.shift_remove("task_id").and_then(|id| id.as_str().map(str::to_owned));
        let root = body.text("root_id").map(str::to_owned);
        body.options_mut().extend(options.clone());
        let reply_to = self.reply_to.clone();
        let whole = Whole { id: id.as_deref(), root: root.as_deref(), reply_to: &reply_to, ..Whole::default() };
        freeze(&mut body, whole)?;
        options.shift_remove("chain");
        let mut tasks = unrolled(signature.header()?)?;
        if tasks.is_empty() {
            return self.apply(body, &[json!([])], &Options::new());
        }
        let body = body.into_value();
        // Each part carries it.
        let count = tasks.iter().map(parts).sum::<Result<usize, _>>()?.max(tasks.len());
        self.spend(dumps(&body, Dialect::Kombu).len().saturating_mul(count))?;
        let whole = Whole { id: None, group: Some(&group), chord: Some(&body), ..whole };
        let nodes = freeze_members(&mut tasks, whole)?;
        if nodes.iter().any(|node| node.members.is_some()) {
            let document = dumps(&saved(&group, &nodes), Dialect::Kombu);
            self.spend(document.len())?;
            self.writes.push(Write::Shape { group: group.clone(), document });
        }
        options.insert("chord".to_owned(), body);
        let (node, parts) = self.members(&group, tasks, &args, options)?;
        self.writes.push(Write::Size { group, parts });
        Ok(Some(node))
    }

    /// Makes the message of one task.
    fn task(&mut self, signature: &Signature, args: &[Value], given: &Options) -> Result<Node, Unfit> {
        let given: Options = given
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let options = Given(signature.merged_options(&given));
        let (args, kwargs) = (signature.merged_args(args), signature.kwargs());
        let id = options.text("task_id").map_or_else(new_id, str::to_owned);
        let (expires, expiration) = options.expires(self.parent.now);
        let call_options = CallOptions {
            embed: Embed {
                callbacks: options.listed("link"),
                errbacks: options.listed("link_error"),
                chain: options.value("chain"),
                chord: options.value("chord"),
            },
            shadow: options.text("shadow"),
            eta: options.eta(self.parent.now),
            expires,
            expiration,
            group: options.text("group_id"),
            group_index: options.value("group_index").as_i64(),
            retries: options.value("retries").as_u64().unwrap_or(0),
            time_limits: [options.value("time_limit"), options.value("soft_time_limit")],
            root_id: Some(options.text("root_id").unwrap_or(self.parent.root)),
            parent_id: Some(options.text("parent_id").unwrap_or(self.parent.id)),
            argsrepr: options.text("argsrepr"),
            kwargsrepr: options.text("kwargsrepr"),
            ignore_result: options.value("ignore_result") == Value::Bool(true),
            replaced_task_nesting: options.value("replaced_task_nesting").as_u64().unwrap_or(0),
            stamped_headers: options.value("stamped_headers"),
            stamps: options.stamps(),
            headers: options.value("headers").as_object().cloned().unwrap_or_default(),
            priority: options.value("priority").as_i64().unwrap_or(0),
        };
        let queue = self.parent.routes.queue(signature.task(), options.text("queue"));
        let list = celery_list(&queue, call_options.priority);
        let call = Call {
            task: signature.task(),
            args: &args,
            kwargs: &kwargs,
            id: &id,
            queue: &queue,
            origin: &self.origin,
            reply_to: options.text("reply_to").unwrap_or(&self.reply_to),
            delivery_tag: &new_id(),
            options: call_options,
        };
        let element = call.encode();
        self.spend(element.len())?;
        self.writes.push(Write::Message { list, element });
        Ok(Node::task(&id))
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Unfit> {
        self.left = self.left.checked_sub(bytes).ok_or(Unfit::TooLarge)?;
        Ok(())
    }

    /// Everything that was made, in its order.
    pub(super) fn into_writes(self) -> Vec<Write> {
        self.writes
    }
}

/// The members of a group with those of the groups among them.
fn flattened(tasks: Vec<Signature>) -> Result<Vec<Signature>, Malformed> {
    let mut flat = Vec::new();
    for task in tasks {
        match task.kind() {
            Kind::Group => flat.extend(flattened(task.tasks()?)?),
            _ => flat.push(task),
        }
    }
    Ok(flat)
}

/// The options of one call, as Celery reads them.
struct Given(Options);

impl Given {
    fn value(&self, name: &str) -> Value {
        self.0.get(name).cloned().unwrap_or_default()
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// `null`, or a list.
    fn listed(&self, name: &str) -> Value {
        match self.0.get(name) {
            None | Some(Value::Null) => Value::Null,
            some => listed(some).cloned().collect(),
        }
    }

    fn eta(&self, now: Timestamp) -> Option<String> {
        match self.seconds("countdown").filter(|seconds| *seconds != 0.0) {
            Some(seconds) => Some(iso::celery(moment(now, seconds).to_utc())),
            None => self.time("eta"),
        }
    }

    /// The time, and the milliseconds until then.
    fn expires(&self, now: Timestamp) -> (Option<String>, Option<i64>) {
        if let Some(seconds) = self.seconds("expires") {
            let text = iso::celery(moment(now, seconds).to_utc());
            return (Some(text), Some((seconds.max(0.0) * 1000.0) as i64));
        }
        let text = self.time("expires");
        let millis = text.as_deref().and_then(iso::Stamp::parse).and_then(iso::Stamp::unix_millis);
        let left = millis.map(|millis| (millis - i64::try_from(now.as_millis()).unwrap_or(i64::MAX)).max(0));
        (text, left)
    }

    fn seconds(&self, name: &str) -> Option<f64> {
        self.0.get(name).and_then(Value::as_f64)
    }

    /// ISO 8601, as text or as a time.
    fn time(&self, name: &str) -> Option<String> {
        let value = self.0.get(name)?;
        let text = value.as_str().or_else(|| crate::intake::tagged::tagged(value)?.1.as_str());
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn stamps(&self) -> Options {
        let names = self.0.get("stamped_headers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let stamp = |name: &Value| Some((name.as_str()?.to_owned(), self.0.get(name.as_str()?)?.clone()));
        names.iter().filter_map(stamp).collect()
    }
}

/// So many seconds from now on, which may be less than none.
fn moment(now: Timestamp, seconds: f64) -> Timestamp {
    let span = Duration::try_from_secs_f64(seconds.abs()).unwrap_or(Duration::MAX);
    if seconds < 0.0 { now.before(span) } else { now.after(span) }
}

/// Adds to an answer what is written.
pub(super) fn add(answer: &mut Answer, writes: Vec<Write>, desk: &Desk<'_>, said: Said) {
    for write in writes {
        match write {
            Write::Message { list, element } => {
                answer.check(&list, "list");
                said.add(answer, "LPUSH {} {}", &[&list, &element]);
            }
            Write::Size { group, parts } => desk.set(answer, &size_key(&group), parts.to_string().as_bytes(), said),
            Write::Shape { group, document } => desk.set(answer, &group_key(&group), document.as_bytes(), said),
        }
    }
}
