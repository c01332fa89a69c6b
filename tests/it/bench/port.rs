//! Ports for servers that are stopped and started again on the same one.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which the kernel takes the ports of outgoing connections (32768 on Linux): while a server is
/// down, nobody else gets its port by chance.
const FIRST: u16 = 14_000;
const LAST: u16 = 31_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens on, and that no other test of this program was given.
pub(crate) fn free_port() -> u16 {
    // Two test programs at the same time begin at different places.
    let start = std::process::id() % u32::from(LAST - FIRST);
    loop {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + u16::try_from((start + step * 7) % u32::from(LAST - FIRST)).expect("below LAST");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
