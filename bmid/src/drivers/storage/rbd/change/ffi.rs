//! Changes of objects, several under way at once: unsafe code of this driver's, beside `rbd/ffi.rs`, whose rules hold here too.

#![allow(unsafe_code, reason = "a C library without a safe wrapper, found at run time")]

use std::ffi::{CStr, c_char, c_int};
use std::ptr::{null, null_mut};

use nix::errno::Errno;

use super::super::ffi::Io;
use super::super::library::ffi::{Rados, Raw, Text, check, text};

/// `LIBRADOS_CREATE_EXCLUSIVE`.
const EXCLUSIVE: c_int = 1;

/// What has to be so of an object, or nothing is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// EEXIST else.
    New,
    /// ENOENT else.
    There,
}

/// What is done to one object: all of it or nothing, and answered when it lasts.
#[derive(Debug)]
pub(in super::super) struct Change<'a> {
    object: &'a str,
    state: Option<State>,
    /// Methods of the class `rbd`, with their input. None sees what those before it have changed.
    calls: Vec<(&'static CStr, Vec<u8>)>,
    /// Keys of the object's map, set behind the methods.
    keys: Vec<&'a (String, Vec<u8>)>,
}

impl<'a> Change<'a> {
    /// Of this object, which is made if it is not there.
    pub(in super::super) fn of(object: &'a str) -> Change<'a> {
        Change { object, state: None, calls: Vec::new(), keys: Vec::new() }
    }

    /// Of this object, which is made; it must not be there yet.
    pub(in super::super) fn new(object: &'a str) -> Change<'a> {
        Change { state: Some(State::New), ..Change::of(object) }
    }

    /// Of this object, which must be there.
    pub(in super::super) fn there(object: &'a str) -> Change<'a> {
        Change { state: Some(State::There), ..Change::of(object) }
    }

    pub(in super::super) fn call(mut self, method: &'static CStr, input: Vec<u8>) -> Change<'a> {
        self.calls.push((method, input));
        self
    }

    pub(in super::super) fn keys(mut self, keys: impl IntoIterator<Item = &'a (String, Vec<u8>)>) -> Change<'a> {
        self.keys.extend(keys);
        self
    }
}

/// The functions that only this file needs. Where one is absent, all are.
#[derive(Clone, Copy)]
struct Functions {
    create: unsafe extern "C" fn(Raw, c_int, Text),
    exists: unsafe extern "C" fn(Raw),
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
        exists: api.rados_write_op_assert_exists?,
        exec: api.rados_write_op_exec?,
        begin: api.rados_aio_create_completion2?,
        operate: api.rados_aio_write_op_operate?,
        wait: api.rados_aio_wait_for_complete?,
        result: api.rados_aio_get_return_value?,
        release: api.rados_aio_release?,
    })
}

/// A change that is under way. It is waited for when it goes: nothing goes on behind the caller's back.
pub(in super::super) struct UnderWay<'a> {
    f: Functions,
    completion: Raw,
    /// It must live as long.
    _io: &'a Io,
}

impl UnderWay<'_> {
    /// What came of it, when it was answered.
    pub(in super::super) fn result(&self) -> Result<(), Errno> {
        // SAFETY: a completion that lives until this ends.
        check(unsafe {
            (self.f.wait)(self.completion);
            (self.f.result)(self.completion)
        })
        .map(drop)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        // SAFETY: made in `begin`, given back once; nobody waits for it any more.
        unsafe {
            (self.f.wait)(self.completion);
            (self.f.release)(self.completion);
        }
    }
}

impl Io {
    /// Whether the host's librados can do what [`Io::begin`] needs.
    pub(in super::super) fn changes(&self) -> bool {
        functions(self.rados()).is_some()
    }

    /// The pool's number. None: this librados does not tell.
    pub(in super::super) fn id(&self) -> Option<i64> {
        // SAFETY: a live context.
        self.rados().rados_ioctx_get_id.map(|id| unsafe { id(self.raw()) })
    }

    /// Begins a change; EROFS and the like at once.
    pub(in super::super) fn begin(&self, change: &Change<'_>) -> Result<UnderWay<'_>, Errno> {
        let f = functions(self.rados()).ok_or(Errno::ENOSYS)?;
        let object = text(change.object)?;
        let keys = change.keys.iter().map(|(key, _)| text(key)).collect::<Result<Vec<_>, _>>()?;
        let keys: Vec<Text> = keys.iter().map(|key| key.as_ptr()).collect();
        let values: Vec<Text> = change.keys.iter().map(|(_, value)| value.as_ptr().cast::<c_char>()).collect();
        let lens: Vec<usize> = change.keys.iter().map(|(_, value)| value.len()).collect();
        let mut completion = null_mut();
        // SAFETY: a place for the completion; no callback and nothing for one.
        check(unsafe { (f.begin)(null_mut(), null_mut(), &mut completion) })?;
        // SAFETY: operation and call copy what they are given; it is handed over once, which moves out of it what is to be done, and released once.
        let ret = unsafe {
            let op = (self.rados().rados_create_write_op)();
            match change.state {
                Some(State::New) => (f.create)(op, EXCLUSIVE, null()),
                Some(State::There) => (f.exists)(op),
                None => {}
            }
            for (method, input) in &change.calls {
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
        Ok(UnderWay { f, completion, _io: self })
    }
}
