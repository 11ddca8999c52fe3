//! `read` as tgtd calls it for machines' headers: the kernel's, and what was read is looked at. For what writes: whose turn it is.

#![allow(unsafe_code, reason = "a function with a C library's name, called by C; a header where C has read it to")]

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Disk, HEAD, Heads, Run, Runs, Turn, looked};

/// What tgtd's loop knows of connections, and what the header that it read last asks for.
#[derive(Default)]
struct Seen {
    heads: Heads,
    last: Option<Run>,
}

static SEEN: Mutex<Option<Seen>> = Mutex::new(None);
static RUNS: Mutex<Option<Runs>> = Mutex::new(None);
/// Of runs that are known. Where there is none nobody waits for a lock.
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn runs<T>(f: impl FnOnce(&mut Runs) -> T) -> T {
    let mut runs = lock(&RUNS);
    let runs = runs.get_or_insert_default();
    let done = f(runs);
    COUNT.store(runs.count(), Ordering::Release);
    done
}

/// Whether this is tgtd's loop: all its other threads have nothing to do with connections.
pub(crate) fn in_loop() -> bool {
    // SAFETY: plain questions.
    unsafe { libc::gettid() == libc::getpid() }
}

/// A connection was let in, in the loop.
pub(crate) fn begun(fd: c_int) {
    lock(&SEEN).get_or_insert_default().heads.begun(fd);
}

/// The loop got a buffer for a machine's data: that of the command whose header it read last, if it is the first since.
pub(crate) fn given(buffer: *const c_void) {
    let run = lock(&SEEN).as_mut().and_then(|seen| seen.last.take());
    if run.is_some() || COUNT.load(Ordering::Acquire) > 0 {
        runs(|r| r.given(buffer.addr(), run));
    }
}

/// How a write is to be done.
pub(crate) fn turn(buffer: *const c_void, disk: Disk, len: usize, offset: u64) -> Turn {
    if COUNT.load(Ordering::Acquire) == 0 {
        return Turn::Alone;
    }
    runs(|r| r.turn(buffer.addr(), disk, len, offset))
}

/// How the first of a run went that stood for all of it; nothing if it was written alone.
pub(crate) fn went(buffer: *const c_void, how: Option<Result<(), c_int>>) {
    runs(|r| r.went(buffer.addr(), how));
}

/// As libc's.
///
/// # Safety
/// As libc's: room for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn read(fd: c_int, into: *mut c_void, len: usize) -> isize {
    // SAFETY: the system call of that name, with the caller's arguments.
    let done = unsafe { libc::syscall(libc::SYS_read, fd, into, len) as isize };
    if let Some(n) = usize::try_from(done).ok().filter(|n| *n > 0 && len <= HEAD)
        && in_loop()
    {
        seen(fd, into.addr(), len, n);
    }
    done
}

/// Looks at a header when it is whole.
fn seen(fd: c_int, to: usize, room: usize, n: usize) {
    let mut seen = lock(&SEEN);
    let Some(seen) = seen.as_mut() else { return };
    if let Some(at) = seen.heads.whole(fd, to, room, n) {
        // SAFETY: this connection's place for headers, all of which was read to there since it was let in; this is the thread that
        // reads and writes it, and it waits for us.
        seen.last = looked(unsafe { &mut *std::ptr::with_exposed_provenance_mut::<[u8; HEAD]>(at) });
    }
}
