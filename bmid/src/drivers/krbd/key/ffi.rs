//! A key in the kernel's keyring of this thread, for as long as one request needs it: unsafe code of this module, because no safe
//! library speaks to keyrings.
//!
//! What stands there is read by nobody: the kernel's type for Ceph's keys has no way to read one. It must never outlive the
//! request, and never stand in a keyring that others search.

#![allow(unsafe_code, reason = "add_key and keyctl have no safe wrapper here")]

use std::ffi::{CStr, c_long};

use nix::errno::Errno;

/// Searched by this thread's requests alone; gone with the thread.
const OF_THREAD: c_long = -1;
const INVALIDATE: c_long = 21;

/// A key that the kernel knows until this value goes.
#[derive(Debug)]
pub(in super::super) struct Held(c_long);

impl Held {
    /// Gives the kernel a key of Ceph's under a name.
    pub(in super::super) fn add(name: &CStr, key: &[u8]) -> Result<Held, Errno> {
        let (kind, name) = (c"ceph".as_ptr(), name.as_ptr());
        // SAFETY: two texts and a buffer of the length told, all outliving the call, which copies them.
        let id = unsafe { libc::syscall(libc::SYS_add_key, kind, name, key.as_ptr(), key.len(), OF_THREAD) };
        Errno::result(id).map(Held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: numbers alone; a key that is gone already is an error that says nothing.
        unsafe { libc::syscall(libc::SYS_keyctl, INVALIDATE, self.0) };
    }
}
