//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// Asks again until `ready` gives something; panics with `what` after ten seconds.
pub(crate) async fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited ten seconds for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
