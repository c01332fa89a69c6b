//! Giving ids to the parts of a canvas before they are published, as Celery's `freeze` does: what waits for a part must
//! know its id, and what has an id keeps it.

use serde_json::{Value, json};
use uuid::Uuid;

use super::node::Node;
use super::signature::{Kind, Malformed, Signature, listed};

/// What a part is told of the whole. What is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Whole<'a> {
    /// The id it gets if it has none.
    pub(super) id: Option<&'a str>,
    pub(super) group: Option<&'a str>,
    pub(super) index: Option<usize>,
    /// What waits for it and for others.
    pub(super) chord: Option<&'a Value>,
    pub(super) root: Option<&'a str>,
    pub(super) reply_to: &'a str,
}

/// Earlier results that a later one names: `parent` of `parent`, and so on. Each is a level of JSON, and Python reads
/// less than a thousand.
const PARENTS: usize = 64;

/// Gives it ids; the result that a client would hold of it.
pub(super) fn freeze(signature: &mut Signature, whole: Whole<'_>) -> Result<Node, Malformed> {
    match signature.kind() {
        Kind::Task => Ok(freeze_task(signature, whole)),
        Kind::Chain => {
            let (mut steps, node) = steps(signature.args(), signature.tasks()?, whole, &[])?;
            steps.reverse();
            signature.set_tasks(steps);
            Ok(node.unwrap_or_else(|| Node::group(&new_id(), Vec::new())))
        }
        Kind::Group => freeze_group(signature, whole),
        Kind::Chord => freeze_chord(signature, whole),
    }
}

fn freeze_task(signature: &mut Signature, whole: Whole<'_>) -> Node {
    let id = signature.text("task_id").or(whole.id).map_or_else(new_id, str::to_owned);
    let has_group = signature.option("group_id").is_some();
    let reply_to = signature.text("reply_to").unwrap_or(whole.reply_to).to_owned();
    let options = signature.options_mut();
    let told = [
        ("task_id", Some(id.as_str().into())),
        ("root_id", whole.root.map(Value::from)),
        ("reply_to", Some(reply_to.into())),
        ("group_id", whole.group.filter(|_| !has_group).map(Value::from)),
        ("chord", whole.chord.cloned()),
        ("group_index", whole.index.map(Value::from)),
    ];
    for (name, value) in told {
        if let Some(value) = value {
            options.insert(name.to_owned(), value);
        }
    }
    Node::task(&id)
}

fn freeze_group(signature: &mut Signature, whole: Whole<'_>) -> Result<Node, Malformed> {
    let id = signature.text("task_id").or(whole.group).map_or_else(new_id, str::to_owned);
    let mut tasks = unrolled(signature.tasks()?)?;
    let nodes = freeze_members(&mut tasks, Whole { id: None, index: None, ..whole })?;
    signature.set_tasks(tasks);
    let options = signature.options_mut();
    options.insert("task_id".to_owned(), id.as_str().into());
    if let Some(group) = whole.group {
        options.insert("group_id".to_owned(), group.into());
    }
    if let Some(chord) = whole.chord {
        options.insert("chord".to_owned(), chord.clone());
    }
    if let Some(index) = whole.index {
        options.insert("group_index".to_owned(), index.into());
    }
    options.entry("root_id").or_insert_with(|| whole.root.into());
    options.entry("parent_id").or_insert(Value::Null);
    Ok(Node::group(&id, nodes))
}

/// Gives ids to the members of one group.
pub(super) fn freeze_members(tasks: &mut [Signature], whole: Whole<'_>) -> Result<Vec<Node>, Malformed> {
    tasks.iter_mut().enumerate().map(|(index, task)| freeze(task, Whole { index: Some(index), ..whole })).collect()
}

fn freeze_chord(signature: &mut Signature, whole: Whole<'_>) -> Result<Node, Malformed> {
    let group = signature.header_id().unwrap_or_else(new_id);
    let mut body = signature.body()?;
    let mut node = freeze(&mut body, whole)?;
    let body = body.into_value();
    let mut header = Signature::group(signature.header()?);
    header.options_mut().insert("task_id".to_owned(), group.as_str().into());
    let inner = Whole { chord: Some(&body), root: whole.root, reply_to: whole.reply_to, ..Whole::default() };
    node.follow(freeze_group(&mut header, inner)?);
    signature.set_kwarg("header", header.into_value());
    signature.set_kwarg("body", body);
    signature.options_mut().insert("task_id".to_owned(), group.into());
    Ok(node)
}

/// The members of a group with those of the groups among them. Celery puts the members of such an inner group in front of
/// what is left, one after another, and so into reverse order.
pub(super) fn unrolled(tasks: Vec<Signature>) -> Result<Vec<Signature>, Malformed> {
    let mut stack: Vec<Signature> = tasks.into_iter().rev().collect();
    let mut flat = Vec::new();
    while let Some(task) = stack.pop() {
        if task.kind() == Kind::Group {
            stack.extend(task.tasks()?);
        } else {
            flat.push(task);
        }
    }
    Ok(flat)
}

/// The steps of a chain, the last one first: chains in it spliced, a group that something follows made a chord. `whole`
/// concerns the last step. Says what a client holds of that one, with what came before it.
pub(super) fn steps(
    args: &[Value],
    tasks: Vec<Signature>,
    whole: Whole<'_>,
    errbacks: &[Value],
) -> Result<(Vec<Signature>, Option<Node>), Malformed> {
    let mut left = tasks;
    let (mut steps, mut nodes): (Vec<Signature>, Vec<Node>) = (Vec::new(), Vec::new());
    let mut is_last = true;
    while let Some(task) = left.pop() {
        let mut task = sole_member(task)?;
        if left.is_empty() {
            let args = task.merged_args(args);
            task.set_args(args);
        }
        if task.kind() == Kind::Chain {
            left.extend(task.tasks()?);
            continue;
        }
        if task.kind() == Kind::Group
            && let Some(body) = steps.pop()
        {
            nodes.pop();
            let args = task.args().to_vec();
            task = Signature::chord(task, body);
            task.set_args(args);
        }
        let here =
            if is_last { whole } else { Whole { root: whole.root, reply_to: whole.reply_to, ..Whole::default() } };
        nodes.push(freeze(&mut task, here)?);
        is_last = false;
        if !errbacks.is_empty() {
            task.extend("link_error", errbacks.to_vec());
        }
        steps.push(task);
    }
    let followed = nodes.into_iter().take(PARENTS).rev().reduce(|earlier, mut later| {
        later.follow(earlier);
        later
    });
    Ok((steps, followed))
}

/// A group of one is that one.
fn sole_member(task: Signature) -> Result<Signature, Malformed> {
    if task.kind() != Kind::Group {
        return Ok(task);
    }
    let mut tasks = task.tasks()?;
    match tasks.len() {
        1 => Ok(tasks.remove(0)),
        _ => Ok(task),
    }
}

/// How many parts a chord has to wait for, if this is in its header.
pub(super) fn parts(signature: &Signature) -> Result<usize, Malformed> {
    match signature.kind() {
        Kind::Task => Ok(1),
        Kind::Group => signature.tasks()?.iter().map(parts).sum(),
        Kind::Chord => parts(&signature.body()?),
        // Only its end tells the chord.
        Kind::Chain => {
            for task in signature.tasks()?.iter().rev() {
                let count = parts(task)?;
                if count > 0 {
                    return Ok(count);
                }
            }
            Ok(0)
        }
    }
}

/// The tasks that somebody may wait for, and that fail with the whole of it.
pub(super) fn waited_for(signature: &Signature, out: &mut Vec<Signature>) -> Result<(), Malformed> {
    match signature.kind() {
        Kind::Task => out.push(signature.clone()),
        Kind::Chain | Kind::Group => signature.tasks()?.iter().try_for_each(|task| waited_for(task, out))?,
        Kind::Chord => {
            let before = out.len();
            signature.header()?.iter().try_for_each(|task| waited_for(task, out))?;
            // Their chord fails with them and needs not be told.
            for task in &mut out[before..] {
                task.options_mut().shift_remove("chord");
            }
            waited_for(&signature.body()?, out)?;
        }
    }
    Ok(())
}

/// The errbacks of a signature; of a chain those of its first step, to which Celery gives them.
pub(super) fn errbacks(signature: &Signature) -> Result<Vec<Value>, Malformed> {
    let own: Vec<Value> = listed(signature.option("link_error")).cloned().collect();
    if !own.is_empty() || signature.kind() != Kind::Chain {
        return Ok(own);
    }
    signature.tasks()?.first().map_or(Ok(Vec::new()), errbacks)
}

pub(super) fn new_id() -> String {
    Uuid::new_v4().to_string()
}

/// A group as clients save it, for `GroupResult.restore`.
pub(super) fn saved(id: &str, nodes: &[Node]) -> Value {
    json!({"result": Node::group(id, nodes.to_vec()).to_value()})
}
