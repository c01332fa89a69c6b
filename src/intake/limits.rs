//! What one foreign message may cost us. Both decoders, pickle and JSON, spend from the same budget while they build
//! values, so a small message that unfolds into a large one is refused before the memory is taken.

use thiserror::Error;

/// Bounds of one payload. The defaults hold any job a web application sends and little else.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Bytes of the payload, after base64 and compression.
    pub(crate) input: usize,
    /// Values it may hold, each reference to a shared one counted.
    pub(crate) nodes: usize,
    /// Bytes of text in those values, counted the same way.
    pub(crate) text: usize,
    /// How deep arrays and objects may nest. `serde_json` reads back at most 127 levels, and a record adds some of its own.
    pub(crate) depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { input: 16 << 20, nodes: 500_000, text: 32 << 20, depth: 100 }
    }
}

/// The bound that a payload broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Exceeded {
    #[error("it is larger than {0} bytes; pass a reference to the data, not the data")]
    Input(usize),
    #[error("it holds more than {0} values; send several smaller jobs")]
    Nodes(usize),
    #[error("its strings unfold to more than {0} bytes; pass a reference to the data, not the data")]
    Text(usize),
    #[error("it nests deeper than {0} levels; send a flatter value")]
    Depth(usize),
}

impl Limits {
    /// Refuses an oversized payload before anything is read.
    pub(crate) fn admit(&self, payload: &[u8]) -> Result<(), Exceeded> {
        if payload.len() > self.input { Err(Exceeded::Input(self.input)) } else { Ok(()) }
    }
}

/// What is left of the limits while one payload is turned into values.
#[derive(Debug)]
pub(crate) struct Budget<'a> {
    limits: &'a Limits,
    nodes: usize,
    text: usize,
}

impl<'a> Budget<'a> {
    pub(crate) fn new(limits: &'a Limits) -> Self {
        Self { limits, nodes: limits.nodes, text: limits.text }
    }

    /// Pays for one more value at `depth`; the outermost value is at depth 1.
    pub(crate) fn node(&mut self, depth: usize) -> Result<(), Exceeded> {
        if depth > self.limits.depth {
            return Err(Exceeded::Depth(self.limits.depth));
        }
        self.nodes = self.nodes.checked_sub(1).ok_or(Exceeded::Nodes(self.limits.nodes))?;
        Ok(())
    }

    /// Pays for `bytes` of text.
    pub(crate) fn text(&mut self, bytes: usize) -> Result<(), Exceeded> {
        self.text = self.text.checked_sub(bytes).ok_or(Exceeded::Text(self.limits.text))?;
        Ok(())
    }
}
