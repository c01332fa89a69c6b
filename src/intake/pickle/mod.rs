//! Python's pickle as data. The decoder runs the pickle machine over an arena of plain nodes and knows a closed list of
//! standard classes ([`globals`]); whatever else a pickle names is refused, and nothing is ever called or imported.
//! What comes out, and what goes back in, is the value model of [`crate::intake::tagged`].

mod construct;
mod convert;
mod cpython;
mod cursor;
mod decode;
mod encode;
mod globals;
mod node;
mod text;

use thiserror::Error;

use crate::intake::limits::Exceeded;

pub(crate) use cpython::dumps_call;
pub(crate) use decode::decode;
pub(crate) use encode::encode;

/// Why a pickle is not data that can be used. Offsets count bytes of the pickle.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum DecodeError {
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    #[error("it holds an object of class {0}, which cannot be run outside Python; pass plain data instead")]
    ForeignClass(String),
    #[error("it holds a {class} in a form that Python does not write")]
    Arguments { class: &'static str },
    #[error("it holds an integer of more than 4300 digits, which Python itself refuses to print")]
    LongInteger,
    #[error("it contains itself, which JSON cannot hold")]
    Recursive,
    #[error("it uses pickle protocol {0}; protocols 0 to 5 are known")]
    Protocol(u8),
    #[error("it uses {what} (opcode {opcode:#04x} at byte {at}), which plain data does not need")]
    Unsupported { what: &'static str, opcode: u8, at: usize },
    #[error("it is not a pickle: {what} at byte {at}")]
    Malformed { what: &'static str, at: usize },
}

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod tests;
