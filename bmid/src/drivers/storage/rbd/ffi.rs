//! A pool of a cluster: one of the two main pieces of this driver's unsafe code (the other is an open image).
//!
//! What leaves this file is owned, safe, and fails with an [`Errno`]; handles close themselves. It knows nothing of datastores
//! and decides nothing.

#![allow(unsafe_code, reason = "C libraries without a safe wrapper, found at run time")]

use std::ffi::c_int;
use std::ptr::null_mut;
use std::sync::Arc;

use nix::errno::Errno;

use super::cluster::ffi::Cluster;
use super::library::ffi::{Rados, Raw, Rbd, Spec, Trashed, check, listed, owned, text};

/// Layering, exclusive-lock, object-map, fast-diff, deep-flatten.
pub(super) const FEATURES: u64 = 1 | 4 | 8 | 16 | 32;
const OPTION_FEATURES: c_int = 1;
const OPTION_CLONE_FORMAT: c_int = 12;

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
        if !namespace.is_empty() {
            let set = api.rados_ioctx_set_namespace.ok_or(Errno::ENOSYS)?;
            // SAFETY: a context that nobody else has yet.
            unsafe { set(raw, namespace.as_ptr()) };
        }
        Ok(io)
    }

    pub(super) fn raw(&self) -> Raw {
        self.raw
    }

    pub(super) fn rados(&self) -> &'static Rados {
        &self.cluster.api().rados
    }

    /// librbd's release: 16 is Pacific.
    pub(super) fn release(&self) -> c_int {
        self.cluster.api().release
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

    /// A clone of the second kind, of an image that may lie elsewhere: its parent's snapshot needs no protection.
    pub(super) fn make_clone(&self, from: &Io, parent: &str, snap: &str, name: &str) -> Result<(), Errno> {
        let (parent, snap, name) = (text(parent)?, text(snap)?, text(name)?);
        self.with_options(true, |options| {
            let (parent, snap, name) = (parent.as_ptr(), snap.as_ptr(), name.as_ptr());
            // SAFETY: two live contexts, options and texts that outlive the call.
            unsafe { (self.rbd().rbd_clone3)(from.raw, parent, snap, self.raw, name, options) }
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
        let (name, put) = (text(name)?, self.rbd().rbd_trash_move.ok_or(Errno::ENOSYS)?);
        // SAFETY: a live context and a text that outlives the call.
        check(unsafe { put(self.raw, name.as_ptr(), 0) }).map(drop)
    }

    pub(super) fn trash_remove(&self, id: &str) -> Result<(), Errno> {
        let (id, remove) = (text(id)?, self.rbd().rbd_trash_remove.ok_or(Errno::ENOSYS)?);
        // SAFETY: a live context and a text that outlives the call.
        check(unsafe { remove(self.raw, id.as_ptr(), false) }).map(drop)
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
        let both = self.rbd().rbd_trash_list.zip(self.rbd().rbd_trash_list_cleanup);
        let (list_all, give_back) = both.ok_or(Errno::ENOSYS)?;
        // SAFETY: a live context and as much room as `n` says.
        let ask = |list, n: &mut usize| unsafe { list_all(self.raw, list, n) };
        let (mut list, found) = listed(ask, |t: &Trashed| (owned(t.id), owned(t.name)))?;
        // SAFETY: gives back what the call above allocated, once.
        unsafe { give_back(list.as_mut_ptr(), list.len()) };
        Ok(found)
    }

    /// Calls a method of one of the OSD's classes on an object.
    pub(super) fn exec(
        &self,
        object: &str,
        class: &std::ffi::CStr,
        method: &str,
        input: &[u8],
    ) -> Result<Vec<u8>, Errno> {
        let (object, method, mut out) = (text(object)?, text(method)?, vec![0u8; 16 << 10]);
        let (from, into) = (input.as_ptr().cast(), out.as_mut_ptr().cast());
        // SAFETY: a live context, texts and buffers of the lengths told, all outliving the call.
        let n = check(unsafe {
            (self.rados().rados_exec)(
                self.raw,
                object.as_ptr(),
                class.as_ptr(),
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

    /// Removes an object.
    pub(super) fn remove_object(&self, object: &str) -> Result<(), Errno> {
        let object = text(object)?;
        // SAFETY: a live context and a text that outlives the call.
        check(unsafe { (self.rados().rados_remove)(self.raw, object.as_ptr()) }).map(drop)
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
