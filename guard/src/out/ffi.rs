//! `write`, `epoll_ctl` and `epoll_wait` as tgtd calls them for machines: the kernel's, with what there is no room for kept between them.

#![allow(unsafe_code, reason = "functions with a C library's names, called by C")]

use std::ffi::{c_int, c_void};
use std::sync::{Mutex, PoisonError};

use super::{Lines, OUT, Sent, most};
use crate::asked::HEAD;
use crate::asked::ffi as asked;
use crate::door::ffi::host;

/// Of tgtd's loop alone; never waited for.
static LINES: Mutex<Option<Lines>> = Mutex::new(None);

fn lines<T>(f: impl FnOnce(&mut Lines) -> T) -> Option<T> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(f)
}

/// A connection was let in, in the loop. What bmid is told goes as tgtd sends it: it comes again by itself for what there is no room for.
pub(crate) fn begun(fd: c_int, machines: bool) {
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let lines = lines.get_or_insert_default();
    if machines {
        lines.begun(fd);
    } else {
        lines.ended(fd);
    }
}

fn error() -> c_int {
    // SAFETY: the place of this thread's error number.
    unsafe { *libc::__errno_location() }
}

/// As libc's, but what a machine's connection has no room for is kept, and counts as written.
///
/// # Safety
/// As libc's: `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, from: *const c_void, len: usize) -> isize {
    // SAFETY: the system call of that name, with the caller's arguments.
    let wrote = || unsafe { libc::syscall(libc::SYS_write, fd, from, len) as isize };
    if len == 0 || !asked::in_loop() {
        return wrote();
    }
    let keeps = lines(|l| l.keeps(fd)).flatten();
    let done = if keeps == Some(true) { 0 } else { wrote() };
    let done = match usize::try_from(done) {
        Ok(n) if n == len || keeps.is_none() => n,
        Err(_) if keeps.is_none() || !matches!(error(), libc::EAGAIN) => return done,
        n => {
            let n = n.unwrap_or(0);
            // SAFETY: the caller's bytes, of which so many were written.
            let rest = unsafe { std::slice::from_raw_parts(from.cast::<u8>().add(n), len - n) };
            if lines(|l| l.keep(fd, rest, most(host()))) != Some(true) {
                // SAFETY: the place of this thread's error number.
                unsafe { *libc::__errno_location() = libc::ECONNRESET };
                return -1;
            }
            len
        }
    };
    if len <= HEAD {
        asked::wrote(fd, from, len, done);
    }
    done.cast_signed()
}

/// Sends what was kept, without tgtd.
fn sends(fd: c_int, bytes: &[u8]) -> Sent {
    // SAFETY: the system call of that name, with bytes that are there.
    let done = unsafe { libc::syscall(libc::SYS_write, fd, bytes.as_ptr(), bytes.len()) };
    match usize::try_from(done) {
        Ok(n) => Sent::Some(n),
        Err(_) if matches!(error(), libc::EAGAIN | libc::EINTR) => Sent::None,
        Err(_) => Sent::Failed,
    }
}

/// As libc's, but on a connection for which something is kept room is waited for, whatever tgtd waits for; and once more where it may have forgotten an answer.
///
/// # Safety
/// As libc's: an event, or null where none is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_ctl(on: c_int, what: c_int, fd: c_int, event: *mut libc::epoll_event) -> c_int {
    let mut event = event;
    // SAFETY: null, or the caller's event, which is read as it may lie anywhere.
    let mut wanted = (!event.is_null()).then(|| unsafe { event.read_unaligned() });
    if asked::in_loop() {
        match (what, wanted.as_mut()) {
            (libc::EPOLL_CTL_DEL, _) => {
                if let Some(Some(line)) = lines(|l| l.ended(fd)) {
                    // It goes as far as there is room.
                    let _ = (line.left() > 0).then(|| sends(fd, &line.rest[line.sent..]));
                }
            }
            (_, Some(wanted)) => {
                if wanted.events & OUT == 0 && asked::has_more_to_say(fd) {
                    wanted.events |= OUT;
                }
                wanted.events = lines(|l| l.waits(fd, wanted.events, wanted.u64)).unwrap_or(wanted.events);
                event = &raw mut *wanted;
            }
            _ => {}
        }
    }
    // SAFETY: the system call of that name, with the caller's arguments or an event of ours.
    unsafe { libc::syscall(libc::SYS_epoll_ctl, on, what, fd, event) as c_int }
}

/// As libc's, but what was kept is sent first where there is room, and tgtd hears of that room when nothing is kept any more.
///
/// # Safety
/// As libc's: room for `most` events.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_wait(on: c_int, events: *mut libc::epoll_event, most: c_int, timeout: c_int) -> c_int {
    // SAFETY: the system call of that name, with the caller's arguments.
    let found = unsafe { libc::syscall(libc::SYS_epoll_wait, on, events, most, timeout) as c_int };
    let Some(n) = usize::try_from(found).ok().filter(|n| *n > 0) else { return found };
    if !asked::in_loop() {
        return found;
    }
    let left = lines(|lines| {
        let mut left = 0;
        for at in 0..n {
            // SAFETY: as many events as the kernel has said there are.
            let mut event = unsafe { events.add(at).read_unaligned() };
            let (heard, waits) = lines.event(event.events, event.u64, sends);
            if let Some((fd, wants)) = waits {
                let mut event = libc::epoll_event { events: wants, u64: event.u64 };
                // SAFETY: the system call of that name, with an event of ours.
                unsafe { libc::syscall(libc::SYS_epoll_ctl, on, libc::EPOLL_CTL_MOD, fd, &raw mut event) };
            }
            if heard != 0 {
                event.events = heard;
                // SAFETY: one of those places, or one before it.
                unsafe { events.add(left).write_unaligned(event) };
                left += 1;
            }
        }
        left
    });
    left.and_then(|left| c_int::try_from(left).ok()).unwrap_or(found)
}
