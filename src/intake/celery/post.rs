//! What a worker sends to clients, events and replies, in kombu's envelope; and the logical clock that they carry.

use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::intake::pyjson::{Dialect, dumps};

/// Lamport's clock: later than whatever was heard before.
#[derive(Debug, Default)]
pub(super) struct Lamport(AtomicU64);

/// A value beyond this is not believed: a client that counts nonsense must not stop the clock.
const LAST: u64 = 1 << 62;

impl Lamport {
    pub(super) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The time of something that is said now.
    pub(super) fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Somebody has said something at this time.
    pub(super) fn hear(&self, theirs: u64) {
        if theirs < LAST {
            self.0.fetch_max(theirs, Ordering::Relaxed);
            self.tick();
        }
    }
}

/// An envelope around a body that is JSON already.
pub(super) fn envelope(body: &str, headers: &Value, exchange: &str, routing_key: &str) -> String {
    let envelope = json!({
        "body": STANDARD.encode(body),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "delivery_mode": 1,
            "delivery_info": {"exchange": exchange, "routing_key": routing_key},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": uuid::Uuid::new_v4().to_string(),
        },
    });
    dumps(&envelope, Dialect::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_later_than_what_was_heard() {
        let clock = Lamport::default();
        assert_eq!(clock.tick(), 1);
        clock.hear(41);
        assert_eq!((clock.now(), clock.tick()), (42, 43));
        clock.hear(7);
        clock.hear(u64::MAX);
        assert_eq!(clock.now(), 44);
    }
}
