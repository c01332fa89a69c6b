//! Waiting for a condition, with a deadline that a busy machine still meets.

use std::fmt::Display;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);

/// Asks again and again until `ready` gives something; panics with `what` when it never does.
#[track_caller]
pub(crate) fn until<T>(what: impl Display, ready: impl FnMut() -> Option<T>) -> T {
    until_within(DEADLINE, what, ready)
}

#[track_caller]
pub(crate) fn until_within<T>(limit: Duration, what: impl Display, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
