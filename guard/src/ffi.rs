//! Two functions of libc's, which stand in front of it because the dynamic linker looks into what is preloaded first: of a disk that the kernel
//! has mapped, tgtd reads past the page cache, for which some of its memory lies wrong.

#![allow(unsafe_code, reason = "functions with a C library's names, called by C")]

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

use crate::asked::ffi as asked;
use crate::asked::{Disk, Turn};

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

/// As libc's, but memory may lie anywhere, and a block that is to be written many times is written with all of them.
///
/// # Safety
/// As libc's: `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(fd: c_int, from: *const c_void, len: usize, offset: i64) -> isize {
    match u64::try_from(offset).map_or(Turn::Alone, |offset| asked::turn(from, Disk::File(fd), len, offset)) {
        Turn::Alone => {}
        Turn::Done => return len.cast_signed(),
        Turn::Failed(why) => return failed(why),
        Turn::First(bytes) => {
            let how = again(fd, from, len, (offset, bytes));
            asked::went(from, how);
            match how {
                Some(Ok(())) => return len.cast_signed(),
                Some(Err(why)) => return failed(why),
                None => {}
            }
        }
    }
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

fn failed(why: c_int) -> isize {
    // SAFETY: the place of this thread's error number.
    unsafe { *libc::__errno_location() = why };
    -1
}

/// Bytes of one write of many blocks.
const MANY: usize = 1 << 20;

/// Writes one block again and again, from an offset on, until so many bytes are written. Nothing where that is no use: a file's blocks
/// go no farther than to this host's memory.
fn again(fd: c_int, block: *const c_void, len: usize, (offset, bytes): (i64, u64)) -> Option<Result<(), c_int>> {
    // SAFETY: plain data, for which zeros are a value, and a place for it.
    let device = unsafe {
        let mut about: libc::stat = std::mem::zeroed();
        libc::fstat(fd, &raw mut about) == 0 && about.st_mode & libc::S_IFMT == libc::S_IFBLK
    };
    let room = usize::try_from(bytes).ok()?.min(MANY);
    if !device || room < len || !room.is_multiple_of(len) {
        return None;
    }
    let (mut at, end) = (offset, offset.checked_add_unsigned(bytes)?);
    let mut how = Ok(());
    placed(room, |many| {
        for to in (0..room).step_by(len) {
            // SAFETY: the block has `len` bytes by the caller's word, and as many are left of the room from there.
            unsafe { std::ptr::copy_nonoverlapping(block.cast::<u8>(), many.cast::<u8>().add(to), len) };
        }
        while at < end && how.is_ok() {
            let piece = usize::try_from(end - at).unwrap_or(room).min(room);
            // SAFETY: the system call of that name, with what was filled above, and the place of this thread's error number.
            let (done, why) =
                unsafe { (libc::syscall(libc::SYS_pwrite64, fd, many, piece, at), *libc::__errno_location()) };
            match done {
                // After a part that is no whole block the rest would begin in the middle of one.
                1.. if done % len as libc::c_long == 0 => at += done,
                -1 if why == libc::EINTR => {}
                -1 => how = Err(why),
                _ => how = Err(libc::EIO),
            }
        }
        0
    })?;
    Some(how)
}
