//! `read` as tgtd calls it for machines' headers: the kernel's, and what was read is looked at. What is known of each connection. For what
//! writes to disks: whose turn it is.

#![allow(unsafe_code, reason = "a function with a C library's name, called by C; a header where C has read it to")]

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Disk, HEAD, Heads, Run, Runs, Turn, answers_less, looked};
use crate::talk::{Load, Talk};

/// What may follow a header and is no data, by a header's word.
const FOLLOWS: usize = 255 * 4;

/// What tgtd's loop knows of connections, and what the header that it read last asks for.
#[derive(Default)]
struct Seen {
    heads: Heads,
    answers: Heads,
    talks: HashMap<c_int, Talk>,
    /// What all of them have together.
    load: Load,
    last: Option<Run>,
    blank: bool,
}

impl Seen {
    /// Something is said on a connection, if it is a machine's.
    fn talk<T>(&mut self, fd: c_int, f: impl FnOnce(&mut Talk, Load) -> T) -> Option<T> {
        let talk = self.talks.get_mut(&fd)?;
        let others = self.load.without(talk.load());
        let done = f(talk, others);
        self.load = others.and(talk.load());
        Some(done)
    }

    /// A connection is no more.
    fn ended(&mut self, fd: c_int) {
        if let Some(talk) = self.talks.remove(&fd) {
            self.load = self.load.without(talk.load()).and(talk.load().lasts());
        }
    }
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
    thread_local!(static IS: Cell<Option<bool>> = const { Cell::new(None) });
    IS.get().unwrap_or_else(|| {
        // SAFETY: plain questions.
        let is = unsafe { libc::gettid() == libc::getpid() };
        IS.set(Some(is));
        is
    })
}

/// A connection was let in, in the loop.
pub(crate) fn begun(fd: c_int) {
    let mut seen = lock(&SEEN);
    let seen = seen.get_or_insert_default();
    seen.ended(fd);
    seen.heads.begun(fd);
    seen.answers.begun(fd);
    seen.talks.entry(fd).or_default();
}

/// The loop has closed a file.
pub(crate) fn ended(fd: c_int) {
    if let Some(seen) = lock(&SEEN).as_mut() {
        seen.ended(fd);
    }
}

/// The loop got a buffer for a machine's data: that of the command whose header it read last, if it is the first since. Whether it must be blank.
pub(crate) fn given(buffer: *const c_void) -> bool {
    let (run, blank) = lock(&SEEN).as_mut().map_or((None, false), |seen| (seen.last.take(), seen.blank));
    if run.is_some() || COUNT.load(Ordering::Acquire) > 0 {
        runs(|r| r.given(buffer.addr(), run));
    }
    blank
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

/// As libc's, but a connection whose machine says what tgtd does not stand has ended.
///
/// # Safety
/// As libc's: room for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn read(fd: c_int, into: *mut c_void, len: usize) -> isize {
    // SAFETY: the system call of that name, with the caller's arguments.
    let done = unsafe { libc::syscall(libc::SYS_read, fd, into, len) as isize };
    if let Some(n) = usize::try_from(done).ok().filter(|n| *n > 0 && len <= FOLLOWS)
        && in_loop()
        && !seen(fd, into, len, n)
    {
        return 0;
    }
    done
}

/// Looks at a header when it is whole: whether the connection goes on.
fn seen(fd: c_int, to: *mut c_void, room: usize, n: usize) -> bool {
    let mut seen = lock(&SEEN);
    let Some(seen) = seen.as_mut() else { return true };
    if let Some(blank) = seen.talk(fd, |talk, _| talk.follows(n)).filter(|n| *n > 0) {
        // SAFETY: of the bytes that were read to there just now.
        unsafe { to.write_bytes(0, blank) };
        return true;
    }
    let Some(at) = seen.heads.whole(fd, to.addr(), room, n) else { return true };
    // SAFETY: this connection's place for headers, all of which was read to there since it was let in; this is the thread that reads
    // and writes it, and it waits for us.
    let head = unsafe { &mut *std::ptr::with_exposed_provenance_mut::<[u8; HEAD]>(at) };
    seen.last = looked(head);
    seen.blank = answers_less(head);
    seen.talk(fd, |talk, others| talk.says(head, others, Instant::now)).unwrap_or(true)
}

/// The loop has written `n` of `room` bytes on a connection.
pub(crate) fn wrote(fd: c_int, from: *const c_void, room: usize, n: usize) {
    let mut seen = lock(&SEEN);
    let Some(seen) = seen.as_mut() else { return };
    if let Some(at) = seen.answers.whole(fd, from.addr(), room, n) {
        // SAFETY: this connection's place for what is said, all of which was written from there; this is the thread that writes it, and it waits for us.
        let head = unsafe { &*std::ptr::with_exposed_provenance::<[u8; HEAD]>(at) };
        seen.talk(fd, |talk, _| talk.heard(head));
    }
}

/// The loop has said all of something on a connection.
pub(crate) fn said(fd: c_int) {
    if let Some(seen) = lock(&SEEN).as_mut() {
        seen.talk(fd, |talk, _| talk.said());
    }
}

/// The loop has nothing more to say on a connection, it says: whether that may be wrong.
pub(crate) fn has_more_to_say(fd: c_int) -> bool {
    lock(&SEEN).as_mut().and_then(|seen| seen.talk(fd, |talk, _| talk.has_more_to_say())).unwrap_or(false)
}
