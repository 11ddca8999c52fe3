//! `setsockopt` and `close` as tgtd calls them for machines: the kernel's, and they tell when something is said and when a connection is no more. `lseek64`, which is asked of disks.

#![allow(unsafe_code, reason = "functions with a C library's names, called by C")]

use std::ffi::{c_int, c_void};

use super::no_disk;
use crate::asked::ffi as asked;

/// As libc's. tgtd has a connection's packets held back while it writes one, and lets go of them after that.
///
/// # Safety
/// As libc's: `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: libc::socklen_t,
) -> c_int {
    // SAFETY: the system call of that name, with the caller's arguments.
    let done = unsafe { libc::syscall(libc::SYS_setsockopt, fd, level, name, value, len) as c_int };
    if (level, name) == (libc::IPPROTO_TCP, libc::TCP_CORK) && asked::in_loop() {
        // SAFETY: as many bytes as the caller says, and as many as are read here.
        let lets_go = len as usize >= size_of::<c_int>() && unsafe { value.cast::<c_int>().read_unaligned() } == 0;
        if lets_go {
            asked::said(fd);
        }
    }
    done
}

/// As libc's, but what is no disk has no holes.
///
/// # Safety
/// As libc's, which takes anything.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lseek64(fd: c_int, offset: i64, whence: c_int) -> i64 {
    if no_disk(fd, whence) {
        // SAFETY: the place of this thread's error number.
        unsafe { *libc::__errno_location() = libc::ENXIO };
        return -1;
    }
    // SAFETY: the system call of that name, with the caller's arguments.
    unsafe { libc::syscall(libc::SYS_lseek, fd, offset, whence) }
}

/// As libc's.
///
/// # Safety
/// As libc's, which takes anything.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    if asked::in_loop() {
        asked::ended(fd);
    }
    // SAFETY: the system call of that name, with the caller's argument.
    unsafe { libc::syscall(libc::SYS_close, fd) as c_int }
}
