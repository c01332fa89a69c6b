//! The foreign edge. What is here so far is pure: bytes of Celery and RQ become values, values become the bytes their
//! clients read back. Nothing here knows Redis, a runtime or the time; the pump and the replies build on it.

pub(crate) mod celery;
pub(crate) mod rq;

mod bigint;
mod inflate;
pub(crate) mod iso;
pub(crate) mod limits;
mod pickle;
mod pyjson;
pub(crate) mod pyrepr;
pub(crate) mod tagged;

#[cfg(test)]
mod python;
