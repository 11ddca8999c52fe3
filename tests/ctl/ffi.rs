//! Descriptors out of a received message. The only place here with `unsafe`.
#![allow(unsafe_code, reason = "a received descriptor is a bare number until somebody owns it")]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes a descriptor that this process has just received.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel made this descriptor for the message just read, and nobody else in this process knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
