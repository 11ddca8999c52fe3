//! Two functions of libc's, which stand in front of it because the dynamic linker looks into what is preloaded first: of a disk that the kernel
//! has mapped, tgtd reads past the page cache, for which some of its memory lies wrong.

#![allow(unsafe_code, reason = "functions with a C library's names, called by C")]

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

/// What direct I/O asks of an address.
const SECTOR: usize = 512;

/// Whether a call failed for where its memory lies and for nothing else that is known.
fn misplaced(done: libc::c_long, at: *const c_void, len: usize) -> bool {
    // SAFETY: the place of this thread's error number.
    let why = unsafe { *libc::__errno_location() };
    done < 0 && why == libc::EINVAL && !at.addr().is_multiple_of(SECTOR) && len != 0 && len.is_multiple_of(SECTOR)
}

/// Does something with memory that lies right; nothing if there is none.
fn placed(len: usize, f: impl FnOnce(*mut c_void) -> libc::c_long) -> Option<libc::c_long> {
    let mut room = null_mut();
    // SAFETY: a place for the address; what is given is freed once below.
    if unsafe { libc::posix_memalign(&mut room, 4_096, len) } != 0 {
        return None;
    }
    let done = f(room);
    // SAFETY: given above; `free` keeps the error number since glibc 2.33, and it is put back for older ones.
    unsafe {
        let why = *libc::__errno_location();
        libc::free(room);
        *libc::__errno_location() = why;
    }
    Some(done)
}

/// As libc's, but memory may lie anywhere: tgtd reads blocks that it compares or combines into memory that direct I/O refuses.
///
/// # Safety
/// As libc's: room for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pread64(fd: c_int, into: *mut c_void, len: usize, offset: i64) -> isize {
    // SAFETY: the system call of that name, with the caller's arguments.
    let read = |to: *mut c_void| unsafe { libc::syscall(libc::SYS_pread64, fd, to, len, offset) };
    let done = read(into);
    if !misplaced(done, into, len) {
        return done as isize;
    }
    let copied = placed(len, |room| {
        let done = read(room);
        if let Ok(n) = usize::try_from(done) {
            // SAFETY: `n` bytes were read into a room of `len`, and the caller has room for `len`.
            unsafe { std::ptr::copy_nonoverlapping(room.cast::<u8>(), into.cast(), n.min(len)) };
        }
        done
    });
    copied.unwrap_or(done) as isize
}

/// As libc's, but memory may lie anywhere.
///
/// # Safety
/// As libc's: `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(fd: c_int, from: *const c_void, len: usize, offset: i64) -> isize {
    // SAFETY: the system call of that name, with the caller's arguments.
    let write = |at: *const c_void| unsafe { libc::syscall(libc::SYS_pwrite64, fd, at, len, offset) };
    let done = write(from);
    if !misplaced(done, from, len) {
        return done as isize;
    }
    let copied = placed(len, |room| {
        // SAFETY: a room of `len` bytes, and the caller has as many.
        unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), room.cast(), len) };
        write(room)
    });
    copied.unwrap_or(done) as isize
}
