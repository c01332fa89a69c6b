//! The pickle machine: one loop over the opcodes of protocols 0 to 5, a stack, a memo and an arena.

use std::collections::HashMap;

use serde_json::Value;

use super::DecodeError;
use super::construct::{build, construct};
use super::convert::convert;
use super::cursor::Cursor;
use super::globals::Known;
use super::node::{Arena, Node, NodeId};
use super::text::{surrogates_read, unescape};
use crate::intake::bigint;
use crate::intake::limits::{Exceeded, Limits};

/// The value of a pickle; what follows its end is ignored, as Python does.
pub(crate) fn decode(pickle: &[u8], limits: &Limits) -> Result<Value, DecodeError> {
    limits.admit(pickle)?;
    let mut machine = Machine {
        cursor: Cursor::new(pickle),
        arena: Arena::new(limits),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        limits,
    };
    let root = machine.run()?;
    convert(&machine.arena, root, limits)
}

struct Machine<'a> {
    cursor: Cursor<'a>,
    arena: Arena,
    stack: Vec<NodeId>,
    /// Stack heights at each open mark; nothing below the last one may be popped.
    marks: Vec<usize>,
    memo: HashMap<u32, NodeId>,
    limits: &'a Limits,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<NodeId, DecodeError> {
        loop {
            let at = self.cursor.at();
            let opcode = self.cursor.byte()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode, at)?;
        }
    }

    fn step(&mut self, opcode: u8, at: usize) -> Result<(), DecodeError> {
        match opcode {
            // Framing.
            0x80 => self.protocol(),
            0x95 => self.cursor.frame(),
            // Scalars.
            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'K' => {
                let int = self.cursor.byte()?;
                self.push(Node::Int(int.into()))
            }
            b'M' => {
                let int = u16::from_le_bytes(self.cursor.array()?);
                self.push(Node::Int(int.into()))
            }
            b'J' => {
                let int = i32::from_le_bytes(self.cursor.array()?);
                self.push(Node::Int(int.into()))
            }
            0x8a => {
                let bytes = self.cursor.counted8()?;
                self.long(bytes)
            }
            0x8b => {
                let bytes = self.cursor.counted32()?;
                self.long(bytes)
            }
            b'I' => self.int_line(),
            b'L' => self.long_line(),
            b'G' => {
                let float = f64::from_be_bytes(self.cursor.array()?);
                self.push(Node::Float(float))
            }
            b'F' => self.float_line(),
            // Text and bytes.
            0x8c => {
                let bytes = self.cursor.counted8()?;
                self.text(bytes)
            }
            b'X' => {
                let bytes = self.cursor.counted32()?;
                self.text(bytes)
            }
            0x8d => {
                let bytes = self.cursor.counted64()?;
                self.text(bytes)
            }
            b'V' => self.text_line(),
            b'C' => {
                let bytes = self.cursor.counted8()?.to_vec();
                self.push(Node::Bytes(bytes))
            }
            b'B' => {
                let bytes = self.cursor.counted32()?.to_vec();
                self.push(Node::Bytes(bytes))
            }
            0x8e => {
                let bytes = self.cursor.counted64()?.to_vec();
                self.push(Node::Bytes(bytes))
            }
            0x96 => {
                let bytes = self.cursor.counted64()?.to_vec();
                self.push(Node::Bytearray(bytes))
            }
            // Containers.
            b'(' => self.mark(),
            b')' => self.push(Node::Tuple(Vec::new())),
            0x85 => self.tuple(1),
            0x86 => self.tuple(2),
            0x87 => self.tuple(3),
            b't' => {
                let items = self.pop_mark()?;
                self.push(Node::Tuple(items))
            }
            b']' => self.push(Node::List(Vec::new())),
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Node::List(items))
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(items)
            }
            b'}' => self.push(Node::Dict(Vec::new())),
            b'd' => {
                let pairs = self.pop_mark().and_then(|items| self.pairs(&items))?;
                self.push(Node::Dict(pairs))
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)
            }
            0x8f => self.push(Node::Set(Vec::new())),
            0x90 => self.add_items(),
            0x91 => {
                let items = self.pop_mark()?;
                self.push(Node::Frozenset(items))
            }
            // Stack and memo.
            b'0' => self.drop_top(),
            b'1' => self.pop_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.push_id(top)
            }
            b'p' => {
                let index = self.memo_line()?;
                self.memoize(index)
            }
            b'q' => {
                let index = self.cursor.byte()?;
                self.memoize(index.into())
            }
            b'r' => {
                let index = self.cursor.u32()?;
                self.memoize(index)
            }
            0x94 => {
                let index = u32::try_from(self.memo.len()).map_err(|_| Exceeded::Nodes(self.limits.nodes))?;
                self.memoize(index)
            }
            b'g' => {
                let index = self.memo_line()?;
                self.recall(index)
            }
            b'h' => {
                let index = self.cursor.byte()?;
                self.recall(index.into())
            }
            b'j' => {
                let index = self.cursor.u32()?;
                self.recall(index)
            }
            // Classes.
            b'c' => {
                let module = self.cursor.text_line()?;
                let name = self.cursor.text_line()?;
                self.class(module, name)
            }
            0x93 => self.stack_global(),
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                self.call(arguments)
            }
            0x92 => self.new_object_ex(),
            b'b' => {
                let state = self.pop()?;
                let object = self.top()?;
                build(&mut self.arena, object, state)
            }
            _ => Err(unsupported(opcode, at)),
        }
    }

    fn protocol(&mut self) -> Result<(), DecodeError> {
        match self.cursor.byte()? {
            0..=5 => Ok(()),
            other => Err(DecodeError::Protocol(other)),
        }
    }

    fn push(&mut self, node: Node) -> Result<(), DecodeError> {
        let id = self.arena.push(node)?;
        self.push_id(id)
    }

    fn push_id(&mut self, id: NodeId) -> Result<(), DecodeError> {
        self.room()?;
        self.stack.push(id);
        Ok(())
    }

    fn mark(&mut self) -> Result<(), DecodeError> {
        self.room()?;
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// References and marks cost no node, so there is a bound for them too.
    fn room(&self) -> Result<(), Exceeded> {
        let full = self.stack.len() + self.marks.len() >= self.limits.nodes.saturating_mul(2);
        if full { Err(Exceeded::Nodes(self.limits.nodes)) } else { Ok(()) }
    }

    fn fence(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<NodeId, DecodeError> {
        let above = self.stack.len() > self.fence();
        self.stack.last().copied().filter(|_| above).ok_or_else(|| self.cursor.malformed("the stack is empty"))
    }

    fn pop(&mut self) -> Result<NodeId, DecodeError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_mark(&mut self) -> Result<Vec<NodeId>, DecodeError> {
        let height = self.marks.pop().ok_or_else(|| self.cursor.malformed("there is no mark"))?;
        Ok(self.stack.split_off(height))
    }

    /// POP removes a mark if that is what is on top.
    fn drop_top(&mut self) -> Result<(), DecodeError> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn tuple(&mut self, length: usize) -> Result<(), DecodeError> {
        let start = self.stack.len().checked_sub(length).filter(|start| *start >= self.fence());
        let start = start.ok_or_else(|| self.cursor.malformed("the stack is empty"))?;
        let items = self.stack.split_off(start);
        self.push(Node::Tuple(items))
    }

    fn append(&mut self, items: Vec<NodeId>) -> Result<(), DecodeError> {
        let list = self.top()?;
        match self.arena.get_mut(list) {
            Node::List(list) => list.extend(items),
            _ => {
                return Err(self.cursor.malformed("items are appended to what is not a list"));
            }
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[NodeId]) -> Result<(), DecodeError> {
        let pairs = self.pairs(items)?;
        let dict = self.top()?;
        match self.arena.get_mut(dict) {
            Node::Dict(dict) => dict.extend(pairs),
            _ => return Err(self.cursor.malformed("items are set in what is not a dict")),
        }
        Ok(())
    }

    fn pairs(&self, items: &[NodeId]) -> Result<Vec<(NodeId, NodeId)>, DecodeError> {
        if items.len() % 2 == 1 {
            return Err(self.cursor.malformed("a key has no value"));
        }
        Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    fn add_items(&mut self) -> Result<(), DecodeError> {
        let items = self.pop_mark()?;
        let set = self.top()?;
        match self.arena.get_mut(set) {
            Node::Set(set) => set.extend(items),
            _ => {
                return Err(self.cursor.malformed("items are added to what is not a set"));
            }
        }
        Ok(())
    }

    fn memoize(&mut self, index: u32) -> Result<(), DecodeError> {
        if self.memo.len() >= self.limits.nodes.saturating_mul(2) {
            return Err(Exceeded::Nodes(self.limits.nodes).into());
        }
        self.memo.insert(index, self.top()?);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), DecodeError> {
        let id = self.memo.get(&index).copied();
        self.push_id(id.ok_or_else(|| self.cursor.malformed("the memo has no such entry"))?)
    }

    fn memo_line(&mut self) -> Result<u32, DecodeError> {
        let at = self.cursor.at();
        let line = self.cursor.text_line()?;
        line.parse().map_err(|_| DecodeError::Malformed { what: "a memo index is not a number", at })
    }

    fn long(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let decimal = bigint::to_decimal(bytes).ok_or(DecodeError::LongInteger)?;
        self.integer(decimal)
    }

    fn integer(&mut self, decimal: String) -> Result<(), DecodeError> {
        self.push(decimal.parse().map_or(Node::BigInt(decimal), Node::Int))
    }

    /// `I01` and `I00` are how protocol 0 writes true and false.
    fn int_line(&mut self) -> Result<(), DecodeError> {
        let at = self.cursor.at();
        match self.cursor.text_line()? {
            "01" => self.push(Node::Bool(true)),
            "00" => self.push(Node::Bool(false)),
            digits => self.decimal(digits, at),
        }
    }

    fn long_line(&mut self) -> Result<(), DecodeError> {
        let at = self.cursor.at();
        let line = self.cursor.text_line()?;
        self.decimal(line.strip_suffix('L').unwrap_or(line), at)
    }

    fn decimal(&mut self, digits: &str, at: usize) -> Result<(), DecodeError> {
        let count = digits.strip_prefix('-').unwrap_or(digits);
        if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(DecodeError::Malformed { what: "an integer is not a number", at });
        }
        if count.len() > bigint::MAX_DIGITS {
            return Err(DecodeError::LongInteger);
        }
        self.integer(digits.to_owned())
    }

    fn float_line(&mut self) -> Result<(), DecodeError> {
        let at = self.cursor.at();
        let line = self.cursor.text_line()?;
        let float = line.parse().map_err(|_| DecodeError::Malformed { what: "a float is not a number", at })?;
        self.push(Node::Float(float))
    }

    fn text(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return self.push(Node::Text(text.to_owned()));
        }
        let points = surrogates_read(bytes).ok_or_else(|| self.cursor.malformed("a string is not text"))?;
        self.push(Node::Points(points))
    }

    /// Protocol 0 writes text as latin-1 with `\uXXXX` and `\UXXXXXXXX`.
    fn text_line(&mut self) -> Result<(), DecodeError> {
        let line = self.cursor.line()?;
        let points = unescape(line).ok_or_else(|| self.cursor.malformed("a string is not text"))?;
        let text = points.iter().map(|point| char::from_u32(*point)).collect::<Option<String>>();
        self.push(text.map_or(Node::Points(points), Node::Text))
    }

    fn class(&mut self, module: &str, name: &str) -> Result<(), DecodeError> {
        let known = Known::named(module, name)?;
        self.push(Node::Class(known))
    }

    fn stack_global(&mut self) -> Result<(), DecodeError> {
        let name = self.pop()?;
        let module = self.pop()?;
        let (Some(module), Some(name)) = (self.arena.text(module), self.arena.text(name)) else {
            return Err(self.cursor.malformed("a class is not named by text"));
        };
        let known = Known::named(module, name)?;
        self.push(Node::Class(known))
    }

    /// REDUCE and NEWOBJ: for the known classes both mean "one of these, from these arguments".
    fn call(&mut self, arguments: NodeId) -> Result<(), DecodeError> {
        let callable = self.pop()?;
        let Node::Class(known) = *self.arena.get(callable) else {
            return Err(self.cursor.malformed("what is called is not a class"));
        };
        if self.arena.tuple(arguments).is_none() {
            return Err(self.cursor.malformed("the arguments are not a tuple"));
        }
        let node = construct(&self.arena, known, arguments)?;
        self.push(node)
    }

    fn new_object_ex(&mut self) -> Result<(), DecodeError> {
        let keywords = self.pop()?;
        let arguments = self.pop()?;
        match self.arena.get(keywords) {
            Node::Dict(pairs) if pairs.is_empty() => self.call(arguments),
            _ => Err(self.cursor.malformed("a class is called with keywords")),
        }
    }
}

fn unsupported(opcode: u8, at: usize) -> DecodeError {
    let what = match opcode {
        b'P' | b'Q' => "a persistent reference",
        b'i' | b'o' => "an instance of a Python 2 class",
        b'S' | b'T' | b'U' => "a string of Python 2",
        0x82..=0x84 => "an entry of the extension registry",
        0x97 | 0x98 => "a buffer outside of the pickle",
        _ => {
            return DecodeError::Malformed { what: "an unknown opcode", at };
        }
    };
    DecodeError::Unsupported { what, opcode, at }
}
