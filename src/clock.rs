//! The only source of wall time. Everything else receives `now` as a value, so it can be tested with any.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::job::Timestamp;

/// The current instant. A clock set before 1970 reads as the epoch.
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
