//! The functions of librbd and librados that tgtd's module calls, and the libraries' own behind them. They stand in front of the
//! libraries' because the dynamic linker looks into what is preloaded first. What the module holds for a handle is ours.

#![allow(unsafe_code, reason = "functions with a C library's names, called by C; a C library's functions")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::transmute;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::asked::ffi as asked;
use crate::asked::{Disk, Turn};

use super::{Cluster, Connections, Context, Handle, Image, Library, Opened, Word, told};

type Raw = *mut c_void;
type Text = *const c_char;

const RBD: &CStr = c"librbd.so.1";
const RADOS: &CStr = c"librados.so.2";
const MISSING: c_int = -libc::ENOSYS;

/// What a library has under a name; nothing if it is not loaded, in which case nobody has anything of it.
fn find(library: &CStr, name: &CStr, known: &AtomicPtr<c_void>) -> Raw {
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

/// Calls a library's function of that name and type with these arguments, or answers that it is not there.
macro_rules! real {
    ($library:ident, $name:literal as fn($($type:ty),+) -> $answer:ty, $($argument:expr),+; else $missing:expr) => {{
        static KNOWN: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
        let found = find($library, $name, &KNOWN);
        if found.is_null() {
            $missing
        } else {
            // SAFETY: the library's function of that name has that type since it exists; the arguments are the caller's.
            unsafe { transmute::<Raw, unsafe extern "C" fn($($type),+) -> $answer>(found)($($argument),+) }
        }
    }};
}

fn raw(handle: Handle) -> Raw {
    handle.0 as Raw
}

fn text(given: Option<&CStr>) -> Text {
    given.map_or(null(), CStr::as_ptr)
}

fn checked(answer: c_int) -> Result<c_int, c_int> {
    if answer < 0 { Err(answer) } else { Ok(answer) }
}

/// The libraries that tgtd's module has brought with it.
struct Real;

/// Connections that are made.
static CONNECTED: Mutex<usize> = Mutex::new(0);
static ALL: Connections = Connections::new();

impl Library for Real {
    fn connect(&self, words: &[Word]) -> Result<Handle, c_int> {
        let mut made: Raw = null_mut();
        let cluster = &raw mut made;
        let done = words.iter().try_fold((), |(), word| say(cluster, word));
        let done = done.and_then(|()| {
            checked(real!(RADOS, c"rados_connect" as fn(Raw) -> c_int, made; else MISSING))?;
            Ok(Handle(made as usize))
        });
        match done {
            Ok(_) => tell(made),
            Err(_) if made.is_null() => {}
            Err(_) => real!(RADOS, c"rados_shutdown" as fn(Raw) -> (), made; else ()),
        }
        heard(done)
    }

    fn disconnect(&self, cluster: Handle) {
        real!(RADOS, c"rados_shutdown" as fn(Raw) -> (), raw(cluster); else ());
        *CONNECTED.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }

    fn open(&self, cluster: Handle, pool: &CStr, name: &CStr, snap: Option<&CStr>) -> Result<Opened, c_int> {
        let (mut context, mut image): (Raw, Raw) = (null_mut(), null_mut());
        let done = real!(RADOS, c"rados_ioctx_create" as fn(Raw, Text, *mut Raw) -> c_int,
            raw(cluster), pool.as_ptr(), &raw mut context; else MISSING);
        heard(checked(done))?;
        let done = real!(RBD, c"rbd_open" as fn(Raw, Text, *mut Raw, Text) -> c_int,
            context, name.as_ptr(), &raw mut image, text(snap); else MISSING);
        let opened = Opened { context: Handle(context as usize), image: Handle(image as usize) };
        heard(checked(done)).map(|_| opened).inspect_err(|_| leave(opened.context))
    }

    fn close(&self, opened: Opened) -> c_int {
        let done = real!(RBD, c"rbd_close" as fn(Raw) -> c_int, raw(opened.image); else MISSING);
        leave(opened.context);
        done
    }
}

fn leave(context: Handle) {
    real!(RADOS, c"rados_ioctx_destroy" as fn(Raw) -> (), raw(context); else ());
}

/// Says to librados what the module has said.
fn say(cluster: *mut Raw, word: &Word) -> Result<(), c_int> {
    // SAFETY: a place of the caller's, filled by the first word.
    let there = unsafe { *cluster };
    let done = match word {
        Word::User(user) => {
            let user = text(user.as_deref());
            real!(RADOS, c"rados_create" as fn(*mut Raw, Text) -> c_int, cluster, user; else MISSING)
        }
        Word::Name { cluster: name, user, flags } => {
            let (name, user) = (text(name.as_deref()), text(user.as_deref()));
            real!(RADOS, c"rados_create2" as fn(*mut Raw, Text, Text, u64) -> c_int, cluster, name, user, *flags; else MISSING)
        }
        Word::Environment(name) => {
            let name = text(name.as_deref());
            real!(RADOS, c"rados_conf_parse_env" as fn(Raw, Text) -> c_int, there, name; else MISSING)
        }
        Word::File(path, _) => {
            let path = text(path.as_deref());
            real!(RADOS, c"rados_conf_read_file" as fn(Raw, Text) -> c_int, there, path; else MISSING)
        }
        Word::Set(key, value) => {
            let (key, value) = (key.as_ptr(), value.as_ptr());
            real!(RADOS, c"rados_conf_set" as fn(Raw, Text, Text) -> c_int, there, key, value; else MISSING)
        }
    };
    checked(done).map(drop)
}

/// Leaves the addresses of a new connection beside tgtd's socket, for bmid.
fn tell(cluster: Raw) {
    let mut connected = CONNECTED.lock().unwrap_or_else(PoisonError::into_inner);
    let alone = *connected == 0;
    *connected += 1;
    let mut given: *mut c_char = null_mut();
    let done =
        real!(RADOS, c"rados_getaddrs" as fn(Raw, *mut *mut c_char) -> c_int, cluster, &raw mut given; else MISSING);
    // SAFETY: librados allocated a text for us, or nothing.
    let Some(addresses) = (unsafe { owned(given) }).filter(|_| done == 0) else { return };
    real!(RADOS, c"rados_buffer_free" as fn(*mut c_char) -> (), given; else ());
    if let Err(e) = told::tell(&addresses.to_string_lossy(), alone) {
        eprintln!("bmid: the connection {addresses:?} could not be told: {e}");
    }
}

/// Ceph's answer. When it has shut this process out (its locks were broken) every further answer is an error, for all
/// disks and for good, and machines would take their disks for broken. A new process is let in, so this one ends: bmid starts and fills another.
fn heard<T>(answer: Result<T, c_int>) -> Result<T, c_int> {
    if matches!(answer, Err(e) if e == -libc::ESHUTDOWN) {
        eprintln!("bmid: Ceph has shut this tgtd out (its client is on the blocklist): it ends, to be started anew");
        // SAFETY: ends the process and nothing else; what was acknowledged is with Ceph or the kernel.
        unsafe { libc::_exit(108) }
    }
    answer
}

/// # Safety
/// A text or none.
unsafe fn owned(given: Text) -> Option<CString> {
    // SAFETY: the caller's word.
    (!given.is_null()).then(|| unsafe { CStr::from_ptr(given) }.to_owned())
}

/// Hands the module something of ours to hold.
///
/// # Safety
/// A place for a handle.
unsafe fn give<T>(what: T, into: *mut Raw) -> c_int {
    // SAFETY: the caller's word; it comes back in one of `borrow` and `take`.
    unsafe { *into = Box::into_raw(Box::new(what)).cast() };
    0
}

/// # Safety
/// What `give` has given, of that type, and not taken back.
unsafe fn borrow<'a, T>(held: Raw) -> &'a T {
    // SAFETY: the caller's word.
    unsafe { &*held.cast::<T>() }
}

/// # Safety
/// As `borrow`, and it is not used again.
unsafe fn take<T>(held: Raw) -> T {
    // SAFETY: the caller's word.
    *unsafe { Box::from_raw(held.cast::<T>()) }
}

/// As librados'.
///
/// # Safety
/// As librados': a place for a handle, and a text or none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rados_create(cluster: *mut Raw, user: Text) -> c_int {
    // SAFETY: as the caller's.
    unsafe { give(Cluster::new(Word::User(owned(user))), cluster) }
}

/// As librados'.
///
/// # Safety
/// As librados': a place for a handle, and texts or none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rados_create2(cluster: *mut Raw, name: Text, user: Text, flags: u64) -> c_int {
    // SAFETY: as the caller's.
    unsafe { give(Cluster::new(Word::Name { cluster: owned(name), user: owned(user), flags }), cluster) }
}

/// As librados', when it is connected.
///
/// # Safety
/// As librados': a handle, and a text or none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rados_conf_parse_env(cluster: Raw, name: Text) -> c_int {
    // SAFETY: as the caller's.
    unsafe { borrow::<Cluster>(cluster).say(Word::Environment(owned(name))) };
    0
}

/// As librados', when it is connected; a file that is not there is told at once.
///
/// # Safety
/// As librados': a handle, and a text or none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rados_conf_read_file(cluster: Raw, path: Text) -> c_int {
    // SAFETY: as the caller's.
    let (cluster, path) = unsafe { (borrow::<Cluster>(cluster), owned(path)) };
    let text = match path.as_deref().map(|p| std::fs::read(&*p.to_string_lossy())) {
        None => Vec::new(),
        Some(Ok(text)) => text,
        Some(Err(e)) => return -e.raw_os_error().unwrap_or(libc::EIO),
    };
    cluster.say(Word::File(path, text));
    0
}

/// As librados', when it is connected.
///
/// # Safety
/// As librados': a handle, and texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rados_conf_set(cluster: Raw, key: Text, value: Text) -> c_int {
    // SAFETY: as the caller's.
    let (cluster, key, value) = unsafe { (borrow::<Cluster>(cluster), owned(key), owned(value)) };
    let (Some(key), Some(value)) = (key, value) else { return -libc::EINVAL };
    cluster.say(Word::Set(key, value));
    0
}

/// Nothing yet: it is connected when a disk is opened.
///
/// # Safety
/// As librados': a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rados_connect(cluster: Raw) -> c_int {
    // SAFETY: as the caller's.
    unsafe { borrow::<Cluster>(cluster) }.join(&Real, &ALL);
    0
}

/// As librados', when a disk is opened.
///
/// # Safety
/// As librados': a handle, a text, and a place for a context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rados_ioctx_create(cluster: Raw, pool: Text, context: *mut Raw) -> c_int {
    // SAFETY: as the caller's.
    let (cluster, pool) = unsafe { (borrow::<Cluster>(cluster), owned(pool)) };
    let Some(pool) = pool else { return -libc::EINVAL };
    let connection = cluster.join(&Real, &ALL);
    // SAFETY: as the caller's.
    unsafe { give(Context { connection, pool }, context) }
}

/// As librados'.
///
/// # Safety
/// As librados': a context, which is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rados_ioctx_destroy(context: Raw) {
    // SAFETY: as the caller's.
    drop(unsafe { take::<Context>(context) });
}

/// As librados', but a connection stays while others go through it.
///
/// # Safety
/// As librados': a handle, which is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rados_shutdown(cluster: Raw) {
    // SAFETY: as the caller's.
    drop(unsafe { take::<Cluster>(cluster) });
}

/// As librbd's; a disk whose size bmid has told is opened when it is needed.
///
/// # Safety
/// As librbd's: a context, texts (of the last or none), and a place for an image.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rbd_open(context: Raw, name: Text, image: *mut Raw, snap: Text) -> c_int {
    // SAFETY: as the caller's.
    let (context, name, snap) = unsafe { (borrow::<Context>(context), owned(name), owned(snap)) };
    let Some(name) = name else { return -libc::EINVAL };
    let size = told::size_of(&context.pool.to_string_lossy(), &name.to_string_lossy());
    match Image::new(context, name, snap, size) {
        // SAFETY: as the caller's.
        Ok(new) => unsafe { give(new, image) },
        Err(why) => why,
    }
}

/// As librbd's.
///
/// # Safety
/// As librbd's: an open image, which is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rbd_close(image: Raw) -> c_int {
    // SAFETY: as the caller's.
    unsafe { take::<Image>(image) }.close()
}

/// librbd's `rbd_image_info_t`, which has not changed since it exists.
#[repr(C)]
struct Info {
    size: u64,
    object_size: u64,
    objects: u64,
    order: c_int,
    prefix: [c_char; 24],
    parent_pool: i64,
    parent_name: [c_char; 96],
}

/// The order of librbd's objects, unless told otherwise. tgtd makes of it a block size that bmid corrects.
const ORDER: u32 = 22;

/// As librbd's. Of a disk that is not open yet, its size.
///
/// # Safety
/// As librbd's: an open image, and room for `len` bytes of information.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rbd_stat(image: Raw, into: Raw, len: usize) -> c_int {
    // SAFETY: as the caller's.
    let image = unsafe { borrow::<Image>(image) };
    let Some(size) = image.size.filter(|_| image.open().is_none() && len >= size_of::<Info>()) else {
        return match image.handle() {
            Ok(image) => real!(RBD, c"rbd_stat" as fn(Raw, Raw, usize) -> c_int, raw(image), into, len; else MISSING),
            Err(why) => why,
        };
    };
    let object_size = 1 << ORDER;
    let info = Info {
        size,
        object_size,
        objects: size.div_ceil(object_size),
        order: ORDER.cast_signed(),
        prefix: [0; 24],
        parent_pool: -1,
        parent_name: [0; 96],
    };
    // SAFETY: room for that much, by the caller's word and by the length above; no place of it need lie in any way.
    unsafe { into.cast::<Info>().write_unaligned(info) };
    0
}

/// As librbd's, but no bytes are none: librbd ends the process on that, and any machine may ask for it.
///
/// # Safety
/// As librbd's: an open image, and room for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rbd_read(image: Raw, offset: u64, len: usize, into: *mut c_char) -> isize {
    // SAFETY: as the caller's.
    let image = unsafe { borrow::<Image>(image) };
    let read = |image: Handle| real!(RBD, c"rbd_read" as fn(Raw, u64, usize, *mut c_char) -> isize, raw(image), offset, len, into; else MISSING as isize);
    if len == 0 { 0 } else { moved(image.handle(), read) }
}

/// As librbd's, but no bytes are none, and a block that is to be written many times is written with all of them.
///
/// # Safety
/// As librbd's: an open image, and `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rbd_write(image: Raw, offset: u64, len: usize, from: Text) -> isize {
    // SAFETY: as the caller's.
    let image = unsafe { borrow::<Image>(image) };
    let write = |image: Handle| real!(RBD, c"rbd_write" as fn(Raw, u64, usize, Text) -> isize, raw(image), offset, len, from; else MISSING as isize);
    match asked::turn(from.cast(), Disk::Image(std::ptr::from_ref(image).addr()), len, offset) {
        Turn::Alone if len == 0 => 0,
        Turn::Alone => moved(image.handle(), write),
        Turn::Done => len.cast_signed(),
        Turn::Failed(why) => why as isize,
        Turn::First(bytes) => {
            // SAFETY: `len` bytes, by the caller's word.
            let how = unsafe { again(image, from, len, (offset, bytes)) };
            asked::went(from.cast(), how);
            match how {
                Some(Ok(())) => len.cast_signed(),
                Some(Err(why)) => why as isize,
                None => moved(image.handle(), write),
            }
        }
    }
}

/// Writes one block again and again, from an offset on, until so many bytes are written. Ceph does it by itself, an object at a
/// time; zeros take no room there. In pieces, for librbd refuses more than 2 GiB at once. Nothing if librbd cannot, and of a disk that ends
/// before: there librbd would write less without a word of it.
///
/// # Safety
/// A block of `len` bytes.
unsafe fn again(image: &Image, block: Text, len: usize, (offset, bytes): (u64, u64)) -> Option<Result<(), c_int>> {
    let (mut done, mut size) = (0, 0u64);
    let ask = |image: Handle| real!(RBD, c"rbd_get_size" as fn(Raw, *mut u64) -> c_int, raw(image), &raw mut size; else MISSING);
    if image.handle().map(ask) != Ok(0) || offset + bytes > size {
        return None;
    }
    while done < bytes {
        let (at, piece) = (offset + done, (bytes - done).min(1 << 30));
        let much = usize::try_from(piece).ok()?;
        let write = |image: Handle| {
            real!(RBD, c"rbd_writesame" as fn(Raw, u64, usize, Text, usize, c_int) -> isize,
            raw(image), at, much, block, len, 0; else MISSING as isize)
        };
        match moved(image.handle(), write) {
            why if why == MISSING as isize && done == 0 => return None,
            why @ ..0 => return Some(Err(why as c_int)),
            // Where zeros are given back instead of written the answer is 0 by some versions.
            some if some != 0 && some != much.cast_signed() => return Some(Err(-libc::EIO)),
            _ => done += piece,
        }
    }
    Some(Ok(()))
}

/// How much was moved, or why nothing was.
fn moved(image: Result<Handle, c_int>, how: impl FnOnce(Handle) -> isize) -> isize {
    match image {
        Err(why) => why as isize,
        Ok(image) => {
            let done = how(image);
            // No error is so large that it does not fit.
            let _ = heard(checked(done.min(0) as c_int));
            done
        }
    }
}

/// As librbd's, but 0 for success: librbd answers how many bytes it discarded, and tgtd takes any answer but 0 for a failure.
/// In pieces, for librbd refuses more than 2 GiB at once.
///
/// # Safety
/// As librbd's: an open image.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rbd_discard(image: Raw, offset: u64, len: u64) -> c_int {
    // SAFETY: as the caller's.
    let image = match unsafe { borrow::<Image>(image) }.handle() {
        Ok(image) => raw(image),
        Err(why) => return why,
    };
    let mut done = 0;
    while done < len {
        let piece = (len - done).min(1 << 30);
        let answer =
            real!(RBD, c"rbd_discard" as fn(Raw, u64, u64) -> c_int, image, offset + done, piece; else MISSING);
        if let Err(why) = heard(checked(answer)) {
            return why;
        }
        done += piece;
    }
    0
}

/// As librbd's. Of a disk that was never opened nothing is on its way.
///
/// # Safety
/// As librbd's: an open image.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rbd_flush(image: Raw) -> c_int {
    // SAFETY: as the caller's.
    let Some(image) = unsafe { borrow::<Image>(image) }.open() else { return 0 };
    let answer = real!(RBD, c"rbd_flush" as fn(Raw) -> c_int, raw(image); else MISSING);
    heard(checked(answer)).unwrap_or_else(|why| why)
}
