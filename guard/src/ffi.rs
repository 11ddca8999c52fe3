//! The two functions of librbd that tgtd's module would otherwise call itself. They stand in front of librbd's because the
//! dynamic linker looks into what is preloaded first.

#![allow(unsafe_code, reason = "functions with a C library's names, called by C")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::transmute;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

type Read = unsafe extern "C" fn(*mut c_void, u64, usize, *mut c_char) -> isize;
type Write = unsafe extern "C" fn(*mut c_void, u64, usize, *const c_char) -> isize;

/// What librbd has under a name; nothing if it is not loaded, in which case nobody has an image to read from.
fn librbd(name: &CStr, known: &AtomicPtr<c_void>) -> *mut c_void {
    let found = known.load(Ordering::Acquire);
    if !found.is_null() {
        return found;
    }
    // SAFETY: texts that outlive the calls; a library that is there is only looked up, never loaded or unloaded.
    let found = unsafe {
        let library = libc::dlopen(c"librbd.so.1".as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
        if library.is_null() { null_mut() } else { libc::dlsym(library, name.as_ptr()) }
    };
    known.store(found, Ordering::Release);
    found
}

const MISSING: isize = -(libc::ENOSYS as c_int as isize);

/// As librbd's, but no bytes are none.
///
/// # Safety
/// As librbd's: an open image, and room for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rbd_read(image: *mut c_void, offset: u64, len: usize, into: *mut c_char) -> isize {
    static KNOWN: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
    if len == 0 {
        return 0;
    }
    let found = librbd(c"rbd_read", &KNOWN);
    if found.is_null() {
        return MISSING;
    }
    // SAFETY: librbd's function of that name has that type since it exists; the arguments are the caller's.
    unsafe { transmute::<*mut c_void, Read>(found)(image, offset, len, into) }
}

/// As librbd's, but no bytes are none.
///
/// # Safety
/// As librbd's: an open image, and `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rbd_write(image: *mut c_void, offset: u64, len: usize, from: *const c_char) -> isize {
    static KNOWN: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
    if len == 0 {
        return 0;
    }
    let found = librbd(c"rbd_write", &KNOWN);
    if found.is_null() {
        return MISSING;
    }
    // SAFETY: librbd's function of that name has that type since it exists; the arguments are the caller's.
    unsafe { transmute::<*mut c_void, Write>(found)(image, offset, len, from) }
}
