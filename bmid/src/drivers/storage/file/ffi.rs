//! The one system call that no crate here wraps: FICLONE. Nothing else may be added without a reason.
#![allow(unsafe_code, reason = "nix has no FICLONE; an ioctl cannot be called without unsafe")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Makes `to` share all bytes of `from` (copy on write). Fails where the file system cannot.
pub(super) fn reflink(from: &File, to: &File) -> io::Result<()> {
    // SAFETY: FICLONE takes a descriptor number by value and touches no memory of ours; both descriptors are open, because
    // the references live through the call.
    let done = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE as _, from.as_raw_fd()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
