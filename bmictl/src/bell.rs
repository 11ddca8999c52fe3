//! Ctrl-C while the daemon works: the first rings a bell that the wait for an answer hears, the second ends bmictl at once.
//!
//! Only set while an operation is waited for: at a prompt or while reading a file, signals do what they always do.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::libc::{SIGHUP, SIGINT, SIGTERM};

/// Rings when a signal asks bmictl to end.
pub(crate) struct Bell {
    rings: UnixStream,
    signal: Arc<AtomicUsize>,
}

impl Bell {
    /// Takes the signals over until the process ends.
    pub(crate) fn set() -> io::Result<Bell> {
        let (rings, rung) = UnixStream::pair()?;
        let signal = Arc::new(AtomicUsize::new(0));
        let again = Arc::new(AtomicBool::new(false));
        for number in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: only the second signal finds `again` set.
            signal_hook::flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&again))?;
            signal_hook::flag::register(number, Arc::clone(&again))?;
            signal_hook::flag::register_usize(number, Arc::clone(&signal), usize::try_from(number).unwrap_or(2))?;
            signal_hook::low_level::pipe::register(number, rung.try_clone()?)?;
        }
        Ok(Bell { rings, signal })
    }

    /// What to poll for reading.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.rings.as_fd()
    }

    /// The exit code the signal that came stands for: 130 for Ctrl-C.
    pub(crate) fn exit_code(&self) -> u8 {
        u8::try_from(128 + self.signal.load(Ordering::SeqCst)).unwrap_or(130)
    }
}
