//! Changes of objects, several under way at once: unsafe code of this driver's, beside `rbd/ffi.rs`, whose rules hold here too.

#![allow(unsafe_code, reason = "a C library without a safe wrapper, found at run time")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::{null, null_mut};

use nix::errno::Errno;

use super::super::ffi::Io;
use super::super::library::ffi::{Rados, Raw, Text, check, text};

/// `LIBRADOS_CREATE_EXCLUSIVE`.
const EXCLUSIVE: c_int = 1;

/// What is done to one object: all of it or nothing, and answered when it lasts.
#[derive(Debug, Default)]
pub(in super::super) struct Change<'a> {
    pub(in super::super) object: &'a str,
    /// It must not be there yet.
    pub(in super::super) new: bool,
    /// A method of the class `rbd`, with its input.
    pub(in super::super) call: Option<(&'static CStr, Vec<u8>)>,
    /// Keys of the object's map, set behind the method.
    pub(in super::super) keys: &'a [(String, Vec<u8>)],
}

/// The functions that only this file needs. Where one is absent, all are.
#[derive(Clone, Copy)]
struct Functions {
    create: unsafe extern "C" fn(Raw, c_int, Text),
    exec: unsafe extern "C" fn(Raw, Text, Text, Text, usize, *mut c_int),
    begin: unsafe extern "C" fn(Raw, Raw, *mut Raw) -> c_int,
    operate: unsafe extern "C" fn(Raw, Raw, Raw, Text, *mut libc::time_t, c_int) -> c_int,
    wait: unsafe extern "C" fn(Raw) -> c_int,
    result: unsafe extern "C" fn(Raw) -> c_int,
    release: unsafe extern "C" fn(Raw),
}

fn functions(api: &Rados) -> Option<Functions> {
    Some(Functions {
        create: api.rados_write_op_create?,
        exec: api.rados_write_op_exec?,
        begin: api.rados_aio_create_completion2?,
        operate: api.rados_aio_write_op_operate?,
        wait: api.rados_aio_wait_for_complete?,
        result: api.rados_aio_get_return_value?,
        release: api.rados_aio_release?,
    })
}

/// A change that is under way. It is waited for when it goes, since what it was given must live as long.
struct UnderWay {
    f: Functions,
    completion: Raw,
    /// Read by librados until it has answered.
    _object: CString,
}

impl UnderWay {
    fn result(&self) -> Result<(), Errno> {
        // SAFETY: a completion that lives until this ends; waiting may be done by several.
        check(unsafe {
            (self.f.wait)(self.completion);
            (self.f.result)(self.completion)
        })
        .map(drop)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        // SAFETY: made in `begin`, given back once; nobody waits for it any more.
        unsafe {
            (self.f.wait)(self.completion);
            (self.f.release)(self.completion);
        }
    }
}

impl Io {
    /// Whether the host's librados can do what [`Io::change`] needs; and the pool's number.
    pub(in super::super) fn changes(&self) -> Option<i64> {
        let id = self.rados().rados_ioctx_get_id.filter(|_| functions(self.rados()).is_some())?;
        // SAFETY: a live context.
        Some(unsafe { id(self.raw()) })
    }

    /// Carries out several changes at once. All have been answered when this returns, each with what came of it.
    pub(in super::super) fn change<const N: usize>(&self, all: &[Change<'_>; N]) -> [Result<(), Errno>; N] {
        let Some(f) = functions(self.rados()) else { return [Err(Errno::ENOSYS); N] };
        // The second waits for what the first has begun: nothing goes on behind the caller's back.
        all.each_ref().map(|one| self.begin(f, one)).map(|one| one.and_then(|under_way| under_way.result()))
    }

    fn begin(&self, f: Functions, change: &Change<'_>) -> Result<UnderWay, Errno> {
        let object = text(change.object)?;
        let keys = change.keys.iter().map(|(key, _)| text(key)).collect::<Result<Vec<_>, _>>()?;
        let keys: Vec<Text> = keys.iter().map(|key| key.as_ptr()).collect();
        let values: Vec<Text> = change.keys.iter().map(|(_, value)| value.as_ptr().cast::<c_char>()).collect();
        let lens: Vec<usize> = change.keys.iter().map(|(_, value)| value.len()).collect();
        let mut completion = null_mut();
        // SAFETY: a place for the completion; no callback and nothing for one.
        check(unsafe { (f.begin)(null_mut(), null_mut(), &mut completion) })?;
        // SAFETY: the operation copies what it is given; it is handed over once and released once, which librados allows as soon as it is
        // under way. The object's name lives with the completion.
        let ret = unsafe {
            let op = (self.rados().rados_create_write_op)();
            if change.new {
                (f.create)(op, EXCLUSIVE, null());
            }
            if let Some((method, input)) = &change.call {
                (f.exec)(op, c"rbd".as_ptr(), method.as_ptr(), input.as_ptr().cast(), input.len(), null_mut());
            }
            if !keys.is_empty() {
                (self.rados().rados_write_op_omap_set)(op, keys.as_ptr(), values.as_ptr(), lens.as_ptr(), keys.len());
            }
            let ret = (f.operate)(op, self.raw(), completion, object.as_ptr(), null_mut(), 0);
            (self.rados().rados_release_write_op)(op);
            ret
        };
        if let Err(e) = check(ret) {
            // SAFETY: it was not handed over: nothing will ever complete it.
            unsafe { (f.release)(completion) };
            return Err(e);
        }
        Ok(UnderWay { f, completion, _object: object })
    }
}
