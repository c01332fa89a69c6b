//! Nodes into values. What a pickle shares is written out each time it is used, within the budget. This recurses, but
//! no deeper than the limit on nesting.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::TimeDelta;
use serde_json::{Value, json};

use super::DecodeError;
use super::node::{Arena, Node, NodeId};
use crate::intake::limits::{Budget, Exceeded, Limits};
use crate::intake::tagged::{self, Tag};

/// The value of `root`.
pub(super) fn convert(arena: &Arena, root: NodeId, limits: &Limits) -> Result<Value, DecodeError> {
    let mut converter = Converter { arena, budget: Budget::new(limits), open: vec![false; arena.len()] };
    converter.value(root, 1)
}

struct Converter<'a> {
    arena: &'a Arena,
    budget: Budget<'a>,
    /// The containers that are being written; to meet one of them again is a cycle.
    open: Vec<bool>,
}

impl Converter<'_> {
    fn value(&mut self, id: NodeId, depth: usize) -> Result<Value, DecodeError> {
        if std::mem::replace(&mut self.open[id.index()], true) {
            return Err(DecodeError::Recursive);
        }
        self.budget.node(depth)?;
        let value = self.node(id, depth)?;
        self.open[id.index()] = false;
        Ok(value)
    }

    fn node(&mut self, id: NodeId, depth: usize) -> Result<Value, DecodeError> {
        Ok(match self.arena.get(id) {
            Node::None => Value::Null,
            Node::Bool(yes) => (*yes).into(),
            Node::Int(int) => (*int).into(),
            Node::BigInt(decimal) => tagged::integer(self.text(decimal)?),
            Node::Float(float) => tagged::float(*float),
            Node::Text(text) => self.text(text)?.into(),
            Node::Points(points) => {
                self.budget.text(points.len().saturating_mul(6))?;
                tagged::text(points)
            }
            Node::Bytes(bytes) => self.base64(Tag::Base64, bytes)?,
            Node::Bytearray(bytes) => self.base64(Tag::Bytearray, bytes)?,
            Node::Tagged(tag, text) => tag.hold(self.text(text)?.into()),
            Node::Uuid(value) => Tag::Uuid.hold(json!({"hex": format!("{value:032x}")})),
            Node::Timedelta(delta) => Tag::Timedelta.hold(seconds(*delta).into()),
            Node::Tuple(items) | Node::List(items) => self.items(items, depth)?,
            Node::Dict(pairs) => self.dict(pairs, depth)?,
            Node::Set(items) => Tag::Set.hold(self.items(items, depth + 1)?),
            Node::Frozenset(items) => Tag::Frozenset.hold(self.items(items, depth + 1)?),
            Node::Around(tag, items) => tag.hold(self.value(*items, depth + 1)?),
            Node::Exception(class, args) => {
                let args = self.value(*args, depth + 2)?;
                Tag::Exception.hold(json!({"class": class, "args": args}))
            }
            Node::Zone(_) => {
                return Err(DecodeError::Arguments { class: "time zone on its own" });
            }
            Node::BlankUuid => return Err(DecodeError::Arguments { class: "UUID" }),
            Node::Class(known) => {
                return Err(DecodeError::ForeignClass(format!("type ({})", known.name())));
            }
        })
    }

    fn items(&mut self, items: &[NodeId], depth: usize) -> Result<Value, DecodeError> {
        let mut values = Vec::new();
        for item in items {
            values.push(self.value(*item, depth + 1)?);
        }
        Ok(values.into())
    }

    /// A dict that ends up tagged nests three levels where an object nests one. Only names with underscores in front can
    /// make an object of text keys look tagged, so all of those are charged as if they did.
    fn dict(&mut self, pairs: &[(NodeId, NodeId)], depth: usize) -> Result<Value, DecodeError> {
        let plain = pairs.iter().all(|(key, _)| self.arena.text(*key).is_some_and(|key| !key.starts_with("__")));
        let inner = depth + if plain { 1 } else { 3 };
        let mut values = Vec::new();
        for (key, value) in pairs {
            values.push((self.value(*key, inner)?, self.value(*value, inner)?));
        }
        Ok(tagged::object(values))
    }

    fn text(&mut self, text: &str) -> Result<String, Exceeded> {
        self.budget.text(text.len())?;
        Ok(text.to_owned())
    }

    fn base64(&mut self, tag: Tag, bytes: &[u8]) -> Result<Value, Exceeded> {
        self.budget.text(bytes.len() / 3 * 4 + 4)?;
        Ok(tag.hold(STANDARD.encode(bytes).into()))
    }
}

/// A time span in seconds, as decimal text without needless zeros.
fn seconds(delta: TimeDelta) -> String {
    let sign = if delta < TimeDelta::zero() { "-" } else { "" };
    let span = delta.abs();
    let text = format!("{sign}{}.{:06}", span.num_seconds(), span.subsec_micros());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
