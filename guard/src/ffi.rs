//! The functions of librbd and librados that tgtd's module would otherwise call itself, and two of libc's. They stand in front of the
//! libraries' because the dynamic linker looks into what is preloaded first.

#![allow(unsafe_code, reason = "functions with a C library's names, called by C")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::transmute;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::shared::{self, Connect, Leave};

type Read = unsafe extern "C" fn(*mut c_void, u64, usize, *mut c_char) -> isize;
type Write = unsafe extern "C" fn(*mut c_void, u64, usize, *const c_char) -> isize;
type Discard = unsafe extern "C" fn(*mut c_void, u64, u64) -> c_int;
type Flush = unsafe extern "C" fn(*mut c_void) -> c_int;
type Create = unsafe extern "C" fn(*mut *mut c_void, *const c_char) -> c_int;
type Create2 = unsafe extern "C" fn(*mut *mut c_void, *const c_char, *const c_char, u64) -> c_int;
type Text = unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int;
type Set = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char) -> c_int;
type Handle = unsafe extern "C" fn(*mut c_void) -> c_int;
type Close = unsafe extern "C" fn(*mut c_void);
type Addresses = unsafe extern "C" fn(*mut c_void, *mut *mut c_char) -> c_int;
type Free = unsafe extern "C" fn(*mut c_char);
type Context = unsafe extern "C" fn(*mut c_void, *const c_char, *mut *mut c_void) -> c_int;

const RBD: &CStr = c"librbd.so.1";
const RADOS: &CStr = c"librados.so.2";

/// What a library has under a name; nothing if it is not loaded, in which case nobody has anything of it.
fn find(library: &CStr, name: &CStr, known: &AtomicPtr<c_void>) -> *mut c_void {
    let found = known.load(Ordering::Acquire);
    if !found.is_null() {
        return found;
    }
    // SAFETY: texts that outlive the calls; a library that is there is only looked up, never loaded or unloaded.
    let found = unsafe {
        let library = libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
        if library.is_null() { null_mut() } else { libc::dlsym(library, name.as_ptr()) }
    };
    known.store(found, Ordering::Release);
    found
}

const MISSING: c_int = -libc::ENOSYS;

/// Calls a library's function of that name and type with these arguments, or answers that it is not there.
macro_rules! real {
    ($library:ident, $name:literal as $type:ty, $($argument:expr),+; else $missing:expr) => {{
        static KNOWN: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
        let found = find($library, $name, &KNOWN);
        if found.is_null() {
            $missing
        } else {
            // SAFETY: the library's function of that name has that type since it exists; the arguments are the caller's.
            unsafe { transmute::<*mut c_void, $type>(found)($($argument),+) }
        }
    }};
}

/// As librbd's, but no bytes are none.
///
/// # Safety
/// As librbd's: an open image, and room for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rbd_read(image: *mut c_void, offset: u64, len: usize, into: *mut c_char) -> isize {
    if len == 0 {
        return 0;
    }
    heard(real!(RBD, c"rbd_read" as Read, image, offset, len, into; else MISSING as isize))
}

/// As librbd's, but no bytes are none.
///
/// # Safety
/// As librbd's: an open image, and `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rbd_write(image: *mut c_void, offset: u64, len: usize, from: *const c_char) -> isize {
    if len == 0 {
        return 0;
    }
    heard(real!(RBD, c"rbd_write" as Write, image, offset, len, from; else MISSING as isize))
}

/// As librbd's, but 0 for success: librbd answers how many bytes it discarded, and tgtd takes any answer but 0 for a failure.
/// In pieces, for librbd refuses more than 2 GiB at once.
///
/// # Safety
/// As librbd's: an open image.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rbd_discard(image: *mut c_void, offset: u64, len: u64) -> c_int {
    let mut done = 0;
    while done < len {
        let piece = (len - done).min(1 << 30);
        let answer = real!(RBD, c"rbd_discard" as Discard, image, offset + done, piece; else MISSING);
        if heard(answer as isize) < 0 {
            return answer;
        }
        done += piece;
    }
    0
}

/// As librbd's.
///
/// # Safety
/// As librbd's: an open image.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rbd_flush(image: *mut c_void) -> c_int {
    let answer = real!(RBD, c"rbd_flush" as Flush, image; else MISSING);
    heard(answer as isize);
    answer
}

/// librbd's answer to I/O. When Ceph has shut this process out (its locks were broken) every further answer is an error, for all
/// disks and for good, and machines would take their disks for broken. A new process is let in, so this one ends: bmid starts and fills another.
fn heard(answer: isize) -> isize {
    if answer == -(libc::ESHUTDOWN as isize) {
        eprintln!("bmid: Ceph has shut this tgtd out (its client is on the blocklist): it ends, to be started anew");
        // SAFETY: ends the process and nothing else; what was acknowledged is with Ceph or the kernel.
        unsafe { libc::_exit(108) }
    }
    answer
}

/// As librados'.
///
/// # Safety
/// As librados': a place for a handle, and a text or none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rados_create(cluster: *mut *mut c_void, user: *const c_char) -> c_int {
    let done = real!(RADOS, c"rados_create" as Create, cluster, user; else MISSING);
    if done == 0 {
        // SAFETY: it was just filled; a text or none.
        let (handle, user) = unsafe { (*cluster as usize, text(user)) };
        shared::table().made(handle, format!("{user:?}"));
    }
    done
}

/// As librados'.
///
/// # Safety
/// As librados': a place for a handle, and texts or none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rados_create2(
    cluster: *mut *mut c_void,
    name: *const c_char,
    user: *const c_char,
    flags: u64,
) -> c_int {
    let done = real!(RADOS, c"rados_create2" as Create2, cluster, name, user, flags; else MISSING);
    if done == 0 {
        // SAFETY: it was just filled; texts or none.
        let (handle, name, user) = unsafe { (*cluster as usize, text(name), text(user)) };
        shared::table().made(handle, format!("{name:?} {user:?} {flags}"));
    }
    done
}

/// As librados'.
///
/// # Safety
/// As librados': a handle, and a text or none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rados_conf_read_file(cluster: *mut c_void, path: *const c_char) -> c_int {
    let done = real!(RADOS, c"rados_conf_read_file" as Text, cluster, path; else MISSING);
    // SAFETY: a text or none.
    let path = unsafe { text(path) };
    let conf = path.filter(|_| done == 0).and_then(|p| std::fs::read(p).ok());
    shared::table().configured(cluster as usize, conf);
    done
}

/// As librados'.
///
/// # Safety
/// As librados': a handle, and texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rados_conf_set(cluster: *mut c_void, key: *const c_char, value: *const c_char) -> c_int {
    shared::table().told(cluster as usize);
    real!(RADOS, c"rados_conf_set" as Set, cluster, key, value; else MISSING)
}

/// As librados', but a LUN goes through the connection of another whose user and configuration are the same.
///
/// # Safety
/// As librados': a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rados_connect(cluster: *mut c_void) -> c_int {
    let mut table = shared::table();
    match table.connect(cluster as usize) {
        Connect::Done => 0,
        Connect::Itself => {
            let done = real!(RADOS, c"rados_connect" as Handle, cluster; else MISSING);
            if done == 0 {
                table.connected(cluster as usize);
                tell(cluster, table.alone(cluster as usize));
            }
            done
        }
    }
}

/// As librados', through the connection that is the handle's.
///
/// # Safety
/// As librados': a handle, a text, and a place for a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rados_ioctx_create(
    cluster: *mut c_void,
    pool: *const c_char,
    context: *mut *mut c_void,
) -> c_int {
    let cluster = shared::table().through(cluster as usize) as *mut c_void;
    real!(RADOS, c"rados_ioctx_create" as Context, cluster, pool, context; else MISSING)
}

/// As librados', but a connection stays while others go through it.
///
/// # Safety
/// As librados': a handle, which is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rados_shutdown(cluster: *mut c_void) {
    let down: Leave = shared::table().leave(cluster as usize);
    for handle in down {
        real!(RADOS, c"rados_shutdown" as Close, handle as *mut c_void; else ());
    }
}

/// Leaves the addresses of a new connection beside tgtd's socket, for bmid: a lock of theirs is not a dead owner's.
fn tell(cluster: *mut c_void, alone: bool) {
    let mut raw: *mut c_char = null_mut();
    let done = real!(RADOS, c"rados_getaddrs" as Addresses, cluster, &mut raw; else MISSING);
    if done != 0 || raw.is_null() {
        return;
    }
    // SAFETY: librados allocated a text for us.
    let addresses = unsafe { text(raw) }.unwrap_or_default();
    real!(RADOS, c"rados_buffer_free" as Free, raw; else ());
    if let Err(e) = shared::tell(&addresses, alone) {
        eprintln!("bmid: the connection {addresses} could not be told: {e}");
    }
}

/// # Safety
/// A text or none.
unsafe fn text(given: *const c_char) -> Option<String> {
    if given.is_null() {
        return None;
    }
    // SAFETY: the caller's word.
    Some(unsafe { CStr::from_ptr(given) }.to_string_lossy().into_owned())
}

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
