//! librados and librbd of the host, found when they are first needed: one bmid serves hosts with Ceph and without.
//!
//! The only unsafe code of this driver. What leaves this file is owned, safe, and fails with an [`Errno`]; handles close
//! themselves. It knows nothing of datastores and decides nothing. A library once loaded is never unloaded: its threads
//! live as long as the process.

#![allow(unsafe_code, reason = "C libraries without a safe wrapper, found at run time")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::{Arc, OnceLock};

use libloading::Library;
use nix::errno::Errno;

use super::cluster::ffi::Cluster;

pub(super) type Raw = *mut c_void;
pub(super) type Text = *const c_char;

/// The smallest librbd that is used: Pacific. Its number is 1.16.
const OLDEST: c_int = 16;
/// Layering, exclusive-lock, object-map, fast-diff, deep-flatten.
const FEATURES: u64 = 1 | 4 | 8 | 16 | 32;
const OPTION_FEATURES: c_int = 1;
const OPTION_CLONE_FORMAT: c_int = 12;
pub(super) const SNAP_OF_USER: c_int = 0;
pub(super) const LOCK_EXCLUSIVE: c_int = 0;

/// Why there is no Ceph on this host.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Missing {
    #[error("{0} cannot be loaded: {1}")]
    Library(&'static str, String),
    #[error("{0} of this host lacks {1}: it is older than Pacific (16)")]
    Symbol(&'static str, &'static str),
    #[error("librbd of this host is 1.{0}; Pacific (1.16) is the oldest that bmid uses")]
    Old(c_int),
}

/// Declares a library's functions once: a struct of pointers, filled when the library is loaded.
macro_rules! library {
    ($name:ident in $file:literal { $(fn $f:ident($($t:ty),*) $(-> $r:ty)?;)* }) => {
        pub(super) struct $name { $(pub(super) $f: unsafe extern "C" fn($($t),*) $(-> $r)?,)* }

        impl $name {
            fn load() -> Result<$name, Missing> {
                // SAFETY: loading runs the initialisers of a library of the host's own package, which expect that.
                let lib = unsafe { Library::new($file) }.map_err(|e| Missing::Library($file, e.to_string()))?;
                let lib: &'static Library = Box::leak(Box::new(lib));
                // SAFETY: the types are those of librados.h and librbd.h, unchanged from Pacific on; the library stays.
                Ok($name { $($f: *unsafe { lib.get(concat!(stringify!($f), "\0").as_bytes()) }
                    .map_err(|_| Missing::Symbol($file, stringify!($f)))?,)* })
            }
        }
    };
}

library!(Rados in "librados.so.2" {
    fn rados_create2(*mut Raw, Text, Text, u64) -> c_int;
    fn rados_conf_read_file(Raw, Text) -> c_int;
    fn rados_conf_set(Raw, Text, Text) -> c_int;
    fn rados_connect(Raw) -> c_int;
    fn rados_shutdown(Raw);
    fn rados_getaddrs(Raw, *mut *mut c_char) -> c_int;
    fn rados_get_min_compatible_client(Raw, *mut i8, *mut i8) -> c_int;
    fn rados_mon_command(Raw, *const Text, usize, Text, usize, *mut *mut c_char, *mut usize, *mut *mut c_char, *mut usize) -> c_int;
    fn rados_buffer_free(*mut c_char);
    fn rados_ioctx_create(Raw, Text, *mut Raw) -> c_int;
    fn rados_ioctx_set_namespace(Raw, Text);
    fn rados_ioctx_destroy(Raw);
    fn rados_exec(Raw, Text, Text, Text, Text, usize, *mut c_char, usize) -> c_int;
    fn rados_read(Raw, Text, *mut c_char, usize, u64) -> c_int;
    fn rados_create_write_op() -> Raw;
    fn rados_release_write_op(Raw);
    fn rados_write_op_omap_set(Raw, *const Text, *const Text, *const usize, usize);
    fn rados_write_op_omap_rm_keys(Raw, *const Text, usize);
    fn rados_write_op_operate(Raw, Raw, Text, *mut libc::time_t, c_int) -> c_int;
    fn rados_create_read_op() -> Raw;
    fn rados_release_read_op(Raw);
    fn rados_read_op_omap_get_vals2(Raw, Text, Text, u64, *mut Raw, *mut u8, *mut c_int);
    fn rados_read_op_operate(Raw, Raw, Text, c_int) -> c_int;
    fn rados_omap_get_next(Raw, *mut *mut c_char, *mut *mut c_char, *mut usize) -> c_int;
    fn rados_omap_get_end(Raw);
});

library!(Rbd in "librbd.so.1" {
    fn rbd_version(*mut c_int, *mut c_int, *mut c_int);
    fn rbd_image_options_create(*mut Raw);
    fn rbd_image_options_set_uint64(Raw, c_int, u64) -> c_int;
    fn rbd_image_options_destroy(Raw);
    fn rbd_create4(Raw, Text, u64, Raw) -> c_int;
    fn rbd_clone3(Raw, Text, Text, Raw, Text, Raw) -> c_int;
    fn rbd_remove(Raw, Text) -> c_int;
    fn rbd_rename(Raw, Text, Text) -> c_int;
    fn rbd_list2(Raw, *mut Spec, *mut usize) -> c_int;
    fn rbd_image_spec_list_cleanup(*mut Spec, usize);
    fn rbd_trash_move(Raw, Text, u64) -> c_int;
    fn rbd_trash_list(Raw, *mut Trashed, *mut usize) -> c_int;
    fn rbd_trash_list_cleanup(*mut Trashed, usize);
    fn rbd_trash_remove(Raw, Text, bool) -> c_int;
    fn rbd_open(Raw, Text, *mut Raw, Text) -> c_int;
    fn rbd_open_read_only(Raw, Text, *mut Raw, Text) -> c_int;
    fn rbd_open_by_id(Raw, Text, *mut Raw, Text) -> c_int;
    fn rbd_open_by_id_read_only(Raw, Text, *mut Raw, Text) -> c_int;
    fn rbd_close(Raw) -> c_int;
    fn rbd_get_size(Raw, *mut u64) -> c_int;
    fn rbd_resize(Raw, u64) -> c_int;
    fn rbd_read(Raw, u64, usize, *mut c_char) -> isize;
    fn rbd_write(Raw, u64, usize, Text) -> isize;
    fn rbd_flush(Raw) -> c_int;
    fn rbd_diff_iterate2(Raw, Text, u64, u64, u8, u8, extern "C" fn(u64, usize, c_int, Raw) -> c_int, Raw) -> c_int;
    fn rbd_snap_create(Raw, Text) -> c_int;
    fn rbd_snap_remove(Raw, Text) -> c_int;
    fn rbd_snap_list(Raw, *mut Snap, *mut c_int) -> c_int;
    fn rbd_snap_list_end(*mut Snap);
    fn rbd_snap_get_namespace_type(Raw, u64, *mut c_int) -> c_int;
    fn rbd_flatten(Raw) -> c_int;
    fn rbd_lock_get_owners(Raw, *mut c_int, *mut *mut c_char, *mut usize) -> c_int;
    fn rbd_lock_get_owners_cleanup(*mut *mut c_char, usize);
    fn rbd_lock_break(Raw, c_int, Text) -> c_int;
});

#[repr(C)]
pub(super) struct Spec {
    id: *mut c_char,
    name: *mut c_char,
}

#[repr(C)]
pub(super) struct Trashed {
    id: *mut c_char,
    name: *mut c_char,
    source: c_int,
    deleted: libc::time_t,
    deferred: libc::time_t,
}

#[repr(C)]
pub(super) struct Snap {
    pub(super) id: u64,
    pub(super) size: u64,
    pub(super) name: *const c_char,
}

/// Both libraries.
pub(super) struct Api {
    pub(super) rados: Rados,
    pub(super) rbd: Rbd,
}

/// The host's libraries. Looked for again each time until they are found: they may be installed under a running bmid.
pub(super) fn api() -> Result<&'static Api, Missing> {
    static FOUND: OnceLock<Api> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found);
    }
    let api = Api { rados: Rados::load()?, rbd: Rbd::load()? };
    let (mut major, mut minor, mut extra) = (0, 0, 0);
    // SAFETY: three integers to be filled.
    unsafe { (api.rbd.rbd_version)(&mut major, &mut minor, &mut extra) };
    if (major, minor) < (1, OLDEST) {
        return Err(Missing::Old(minor));
    }
    Ok(FOUND.get_or_init(|| api))
}

pub(super) fn text(s: &str) -> Result<CString, Errno> {
    CString::new(s).map_err(|_| Errno::EINVAL)
}

pub(super) fn check(ret: c_int) -> Result<usize, Errno> {
    usize::try_from(ret).map_err(|_| Errno::from_raw(ret.saturating_neg()))
}

pub(super) fn count(ret: isize) -> Result<usize, Errno> {
    usize::try_from(ret).map_err(|_| Errno::from_raw(c_int::try_from(ret.saturating_neg()).unwrap_or(libc::EIO)))
}

pub(super) fn owned(s: *const c_char) -> String {
    if s.is_null() {
        return String::new();
    }
    // SAFETY: the libraries give texts that end with NUL, and only texts they own until we give them back.
    unsafe { CStr::from_ptr(s) }.to_string_lossy().into_owned()
}

/// Asks with room for ever more until the answer fits; `ask` gets the room and fills it, and says how many there are.
pub(super) fn listed<T, R>(
    mut ask: impl FnMut(*mut T, &mut usize) -> c_int,
    take: impl Fn(&T) -> R,
) -> Result<(Vec<T>, Vec<R>), Errno> {
    let mut room = 256;
    loop {
        let mut list: Vec<T> = Vec::with_capacity(room);
        let mut n = room;
        match check(ask(list.as_mut_ptr(), &mut n)) {
            Err(Errno::ERANGE) => room = n.max(room * 2),
            Err(e) => return Err(e),
            Ok(_) => {
                // SAFETY: the call filled the first `n` places, and `n` is at most the room it was told.
                unsafe { list.set_len(n.min(room)) };
                let taken = list.iter().map(take).collect();
                return Ok((list, taken));
            }
        }
    }
}

/// A pool and a namespace in it.
pub(super) struct Io {
    raw: Raw,
    cluster: Arc<Cluster>,
}

// SAFETY: librados says that an I/O context may be used by many threads, its namespace aside, which is set once below.
unsafe impl Send for Io {}
// SAFETY: as above.
unsafe impl Sync for Io {}

impl Io {
    pub(super) fn open(cluster: &Arc<Cluster>, pool: &str, namespace: &str) -> Result<Io, Errno> {
        let (pool, namespace, mut raw) = (text(pool)?, text(namespace)?, null_mut());
        let api = &cluster.api().rados;
        // SAFETY: a connected handle, a text that outlives the call, a place for the context.
        check(unsafe { (api.rados_ioctx_create)(cluster.raw(), pool.as_ptr(), &mut raw) })?;
        let io = Io { raw, cluster: Arc::clone(cluster) };
        // SAFETY: a context that nobody else has yet.
        unsafe { (api.rados_ioctx_set_namespace)(raw, namespace.as_ptr()) };
        Ok(io)
    }

    pub(super) fn raw(&self) -> Raw {
        self.raw
    }

    fn rados(&self) -> &'static Rados {
        &self.cluster.api().rados
    }

    pub(super) fn rbd(&self) -> &'static Rbd {
        &self.cluster.api().rbd
    }

    /// The options of everything we make. They do not hang on what the host's configuration says.
    fn with_options(&self, of_a_clone: bool, f: impl FnOnce(Raw) -> c_int) -> Result<(), Errno> {
        let mut options = null_mut();
        // SAFETY: a place for the options, which are destroyed below and used by nobody after.
        unsafe {
            (self.rbd().rbd_image_options_create)(&mut options);
            (self.rbd().rbd_image_options_set_uint64)(options, OPTION_FEATURES, FEATURES);
            if of_a_clone {
                (self.rbd().rbd_image_options_set_uint64)(options, OPTION_CLONE_FORMAT, 2);
            }
        }
        let ret = f(options);
        // SAFETY: made above.
        unsafe { (self.rbd().rbd_image_options_destroy)(options) };
        check(ret).map(drop)
    }

    pub(super) fn create(&self, name: &str, size: u64) -> Result<(), Errno> {
        let name = text(name)?;
        // SAFETY: a live context, options and a text that outlives the call.
        self.with_options(false, |options| unsafe { (self.rbd().rbd_create4)(self.raw, name.as_ptr(), size, options) })
    }

    /// A clone of the second kind: its parent's snapshot needs no protection.
    pub(super) fn make_clone(&self, parent: &str, snap: &str, name: &str) -> Result<(), Errno> {
        let (parent, snap, name) = (text(parent)?, text(snap)?, text(name)?);
        self.with_options(true, |options| {
            let (parent, snap, name) = (parent.as_ptr(), snap.as_ptr(), name.as_ptr());
            // SAFETY: a live context twice, options and texts that outlive the call.
            unsafe { (self.rbd().rbd_clone3)(self.raw, parent, snap, self.raw, name, options) }
        })
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), Errno> {
        let name = text(name)?;
        // SAFETY: a live context and a text that outlives the call.
        check(unsafe { (self.rbd().rbd_remove)(self.raw, name.as_ptr()) }).map(drop)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        let (from, to) = (text(from)?, text(to)?);
        // SAFETY: a live context and texts that outlive the call.
        check(unsafe { (self.rbd().rbd_rename)(self.raw, from.as_ptr(), to.as_ptr()) }).map(drop)
    }

    pub(super) fn trash(&self, name: &str) -> Result<(), Errno> {
        let name = text(name)?;
        // SAFETY: a live context and a text that outlives the call.
        check(unsafe { (self.rbd().rbd_trash_move)(self.raw, name.as_ptr(), 0) }).map(drop)
    }

    pub(super) fn trash_remove(&self, id: &str) -> Result<(), Errno> {
        let id = text(id)?;
        // SAFETY: a live context and a text that outlives the call.
        check(unsafe { (self.rbd().rbd_trash_remove)(self.raw, id.as_ptr(), false) }).map(drop)
    }

    /// All images: id and name.
    pub(super) fn list(&self) -> Result<Vec<(String, String)>, Errno> {
        // SAFETY: a live context and as much room as `n` says.
        let ask = |list, n: &mut usize| unsafe { (self.rbd().rbd_list2)(self.raw, list, n) };
        let (mut list, found) = listed(ask, |s: &Spec| (owned(s.id), owned(s.name)))?;
        // SAFETY: gives back what the call above allocated, once.
        unsafe { (self.rbd().rbd_image_spec_list_cleanup)(list.as_mut_ptr(), list.len()) };
        Ok(found)
    }

    /// All that is in the trash: id and the name it had.
    pub(super) fn trashed(&self) -> Result<Vec<(String, String)>, Errno> {
        // SAFETY: a live context and as much room as `n` says.
        let ask = |list, n: &mut usize| unsafe { (self.rbd().rbd_trash_list)(self.raw, list, n) };
        let (mut list, found) = listed(ask, |t: &Trashed| (owned(t.id), owned(t.name)))?;
        // SAFETY: gives back what the call above allocated, once.
        unsafe { (self.rbd().rbd_trash_list_cleanup)(list.as_mut_ptr(), list.len()) };
        Ok(found)
    }

    /// Calls a method of the OSD's class `rbd` on an object.
    pub(super) fn exec(&self, object: &str, method: &str, input: &[u8]) -> Result<Vec<u8>, Errno> {
        let (object, method, mut out) = (text(object)?, text(method)?, vec![0u8; 16 << 10]);
        let (from, into) = (input.as_ptr().cast(), out.as_mut_ptr().cast());
        // SAFETY: a live context, texts and buffers of the lengths told, all outliving the call.
        let n = check(unsafe {
            (self.rados().rados_exec)(
                self.raw,
                object.as_ptr(),
                c"rbd".as_ptr(),
                method.as_ptr(),
                from,
                input.len(),
                into,
                out.len(),
            )
        })?;
        out.truncate(n);
        Ok(out)
    }

    /// The beginning of an object.
    pub(super) fn read(&self, object: &str) -> Result<Vec<u8>, Errno> {
        let (object, mut out) = (text(object)?, vec![0u8; 4 << 10]);
        // SAFETY: a live context and a buffer of the length told.
        let n = check(unsafe {
            (self.rados().rados_read)(self.raw, object.as_ptr(), out.as_mut_ptr().cast(), out.len(), 0)
        })?;
        out.truncate(n);
        Ok(out)
    }

    /// Sets a key of an object's map; the object is made if it is not there.
    pub(super) fn set_key(&self, object: &str, key: &str, value: &[u8]) -> Result<(), Errno> {
        let (object, key) = (text(object)?, text(key)?);
        let (keys, values, lens) = ([key.as_ptr()], [value.as_ptr().cast()], [value.len()]);
        // SAFETY: the operation copies what it is given, is carried out once and released once.
        check(unsafe {
            let op = (self.rados().rados_create_write_op)();
            (self.rados().rados_write_op_omap_set)(op, keys.as_ptr(), values.as_ptr(), lens.as_ptr(), 1);
            let ret = (self.rados().rados_write_op_operate)(op, self.raw, object.as_ptr(), null_mut(), 0);
            (self.rados().rados_release_write_op)(op);
            ret
        })
        .map(drop)
    }

    /// Removes a key of an object's map.
    pub(super) fn remove_key(&self, object: &str, key: &str) -> Result<(), Errno> {
        let (object, key) = (text(object)?, text(key)?);
        let keys = [key.as_ptr()];
        // SAFETY: as in `set_key`.
        check(unsafe {
            let op = (self.rados().rados_create_write_op)();
            (self.rados().rados_write_op_omap_rm_keys)(op, keys.as_ptr(), 1);
            let ret = (self.rados().rados_write_op_operate)(op, self.raw, object.as_ptr(), null_mut(), 0);
            (self.rados().rados_release_write_op)(op);
            ret
        })
        .map(drop)
    }

    /// The keys of an object's map that begin with `prefix`, with their values, behind `after`; and whether there are more.
    #[allow(clippy::type_complexity, reason = "a list and a flag")]
    pub(super) fn keys(
        &self,
        object: &str,
        prefix: &str,
        after: &str,
    ) -> Result<(Vec<(String, Vec<u8>)>, bool), Errno> {
        let (object, prefix, after) = (text(object)?, text(prefix)?, text(after)?);
        let (api, mut found) = (self.rados(), Vec::new());
        let (mut iter, mut more, mut status) = (null_mut(), 0, 0);
        // SAFETY: the operation fills the three places above, is carried out once and released once.
        check(unsafe {
            let op = (api.rados_create_read_op)();
            (api.rados_read_op_omap_get_vals2)(
                op,
                after.as_ptr(),
                prefix.as_ptr(),
                512,
                &mut iter,
                &mut more,
                &mut status,
            );
            let ret = (api.rados_read_op_operate)(op, self.raw, object.as_ptr(), 0);
            (api.rados_release_read_op)(op);
            ret
        })?;
        check(status)?;
        loop {
            let (mut key, mut value, mut len) = (null_mut(), null_mut(), 0);
            // SAFETY: a live iterator and places to fill.
            check(unsafe { (api.rados_omap_get_next)(iter, &mut key, &mut value, &mut len) })?;
            if key.is_null() {
                break;
            }
            // SAFETY: the iterator owns so many bytes until it ends below; an empty value may have no place.
            let bytes = if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(value.cast::<u8>(), len) } };
            found.push((owned(key), bytes.to_vec()));
        }
        // SAFETY: made above, ended once.
        unsafe { (api.rados_omap_get_end)(iter) };
        Ok((found, more != 0))
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // SAFETY: the context's one owner ends; images hold an `Arc` of it.
        unsafe { (self.rados().rados_ioctx_destroy)(self.raw) };
    }
}
