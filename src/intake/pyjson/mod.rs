//! JSON as Python's `json` module reads and writes it, which is not quite JSON: `NaN` and `Infinity` are bare, integers
//! have any length, and a string may hold lone surrogates. What a [`serde_json::Value`] cannot hold is tagged.

mod read;
mod write;

pub(crate) use read::{ReadError, loads};
pub(crate) use write::dumps;

/// Which objects mean something other than themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `json.dumps` and `json.loads` alone, as RQ's JSON serializer uses them.
    Plain,
    /// kombu's, which Celery uses: dates, decimals, UUIDs and bytes are tagged objects.
    Kombu,
}

#[cfg(test)]
mod tests;
