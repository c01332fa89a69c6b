//! The wish to stop: set by SIGTERM or SIGINT, or when nobody reads the progress any more; looked at before every packet.

use std::ffi::{c_int, c_void};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::Failure;
use crate::ffi;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From here on the two signals set the wish instead of ending the process.
pub(crate) fn listen() -> io::Result<()> {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        ffi::on_signal(signal, on_signal)?;
    }
    // The limit on file sizes shall be an error like a full disk, not a death that leaves parts behind.
    ffi::on_signal(libc::SIGXFSZ, ignore)
}

pub(crate) fn request() {
    REQUESTED.store(true, Ordering::Relaxed);
}

/// Fails with `cancelled` once the wish was expressed.
pub(crate) fn check() -> Result<(), Failure> {
    match REQUESTED.load(Ordering::Relaxed) {
        true => Err(Failure::cancelled()),
        false => Ok(()),
    }
}

/// An atomic store is all that happens here: that is safe at any point of the program.
extern "C" fn on_signal(_signal: c_int) {
    request();
}

extern "C" fn ignore(_signal: c_int) {}

/// What libav asks while it waits for data, so that a stalled disk cannot hold the process.
pub(crate) extern "C" fn interrupt(_opaque: *mut c_void) -> c_int {
    c_int::from(REQUESTED.load(Ordering::Relaxed))
}
