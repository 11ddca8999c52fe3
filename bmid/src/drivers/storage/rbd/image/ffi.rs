//! An open RBD image: the other half of this driver's unsafe code, beside `rbd/ffi.rs`, whose rules hold here too.

#![allow(unsafe_code, reason = "a C library without a safe wrapper, found at run time")]

use std::ffi::{c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::Arc;

use nix::errno::Errno;

use super::super::ffi::Io;
use super::super::library::ffi::{
    LOCK_EXCLUSIVE, Raw, Rbd, SNAP_OF_USER, Snap, Text, Watcher, check, count, listed, owned, text,
};

/// Which image: by its name, or by the id that it keeps when it is renamed or put into the trash.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Which<'a> {
    Name(&'a str),
    Id(&'a str),
}

/// A run of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Extent {
    pub(in super::super) offset: u64,
    pub(in super::super) len: u64,
}

/// An open image.
pub(in super::super) struct Image {
    raw: Raw,
    io: Arc<Io>,
}

// SAFETY: librbd says that an open image may be used by many threads.
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

impl Image {
    /// Opens it to be changed.
    pub(in super::super) fn open(io: &Arc<Io>, which: Which<'_>) -> Result<Image, Errno> {
        let open = |name: Text, image: *mut Raw| match which {
            // SAFETY: a live context, a text that outlives the call, a place for the image; no snapshot.
            Which::Name(_) => unsafe { (io.rbd().rbd_open)(io.raw(), name, image, null()) },
            // SAFETY: as above.
            Which::Id(_) => unsafe { (io.rbd().rbd_open_by_id)(io.raw(), name, image, null()) },
        };
        Image::opened(io, which, open)
    }

    /// Opens it, or a snapshot of it, to be read: no lock is taken and nobody is told.
    pub(in super::super) fn open_read(io: &Arc<Io>, which: Which<'_>, snap: Option<&str>) -> Result<Image, Errno> {
        let snap = snap.map(text).transpose()?;
        let snap = snap.as_ref().map_or(null(), |s| s.as_ptr());
        let open = |name: Text, image: *mut Raw| match which {
            // SAFETY: a live context, texts that outlive the call, a place for the image.
            Which::Name(_) => unsafe { (io.rbd().rbd_open_read_only)(io.raw(), name, image, snap) },
            // SAFETY: as above.
            Which::Id(_) => unsafe { (io.rbd().rbd_open_by_id_read_only)(io.raw(), name, image, snap) },
        };
        Image::opened(io, which, open)
    }

    fn opened(io: &Arc<Io>, which: Which<'_>, open: impl FnOnce(Text, *mut Raw) -> c_int) -> Result<Image, Errno> {
        let (Which::Name(name) | Which::Id(name)) = which;
        let (name, mut raw) = (text(name)?, null_mut());
        check(open(name.as_ptr(), &mut raw))?;
        Ok(Image { raw, io: Arc::clone(io) })
    }

    fn rbd(&self) -> &'static Rbd {
        self.io.rbd()
    }

    pub(in super::super) fn size(&self) -> Result<u64, Errno> {
        let mut size = 0;
        // SAFETY: an open image and a place to fill.
        check(unsafe { (self.rbd().rbd_get_size)(self.raw, &mut size) }).map(|_| size)
    }

    pub(in super::super) fn resize(&self, size: u64) -> Result<(), Errno> {
        // SAFETY: an open image.
        check(unsafe { (self.rbd().rbd_resize)(self.raw, size) }).map(drop)
    }

    /// Fills `buf` from `offset` on; less only at the image's end.
    pub(in super::super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while done < buf.len() {
            let rest = &mut buf[done..];
            let (at, into) = (offset + done as u64, rest.as_mut_ptr().cast());
            // SAFETY: an open image and a buffer of the length told.
            match count(unsafe { (self.rbd().rbd_read)(self.raw, at, rest.len(), into) })? {
                0 => break,
                n => done += n,
            }
        }
        Ok(done)
    }

    /// Writes all of `bytes`, which the image has room for.
    pub(in super::super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            let (at, from) = (offset + done as u64, rest.as_ptr().cast());
            // SAFETY: an open image and a buffer of the length told.
            match count(unsafe { (self.rbd().rbd_write)(self.raw, at, rest.len(), from) })? {
                0 => return Err(Errno::EIO),
                n => done += n,
            }
        }
        Ok(())
    }

    /// What was written is in the cluster.
    pub(in super::super) fn flush(&self) -> Result<(), Errno> {
        // SAFETY: an open image.
        check(unsafe { (self.rbd().rbd_flush)(self.raw) }).map(drop)
    }

    /// The runs that may hold bytes, its parent's included, in order. Everything else is zeros.
    pub(in super::super) fn stored(&self) -> Result<Vec<Extent>, Errno> {
        extern "C" fn take(offset: u64, len: usize, stored: c_int, into: *mut c_void) -> c_int {
            // SAFETY: the pointer given below, which nobody else uses while the call runs.
            let into = unsafe { &mut *into.cast::<Vec<Extent>>() };
            if stored != 0 {
                into.push(Extent { offset, len: len as u64 });
            }
            0
        }
        let (size, mut found) = (self.size()?, Vec::<Extent>::new());
        let Some(iterate) = self.rbd().rbd_diff_iterate2 else { return Ok(vec![Extent { offset: 0, len: size }]) };
        let into = (&raw mut found).cast();
        // SAFETY: an open image; the callback and what it fills outlive the call; no snapshot to compare with.
        check(unsafe { iterate(self.raw, null(), 0, size, 1, 0, take, into) })?;
        found.sort_by_key(|e| e.offset);
        Ok(found)
    }

    pub(in super::super) fn snap(&self, name: &str) -> Result<(), Errno> {
        let name = text(name)?;
        // SAFETY: an open image and a text that outlives the call.
        check(unsafe { (self.rbd().rbd_snap_create)(self.raw, name.as_ptr()) }).map(drop)
    }

    pub(in super::super) fn unsnap(&self, name: &str) -> Result<(), Errno> {
        let name = text(name)?;
        // SAFETY: an open image and a text that outlives the call.
        check(unsafe { (self.rbd().rbd_snap_remove)(self.raw, name.as_ptr()) }).map(drop)
    }

    /// Removes a snapshot that has no name any more and waited for its children. `EBUSY` while there are some, and where the
    /// host's librbd cannot.
    pub(in super::super) fn unsnap_by_id(&self, snap: u64) -> Result<(), Errno> {
        let Some(remove) = self.rbd().rbd_snap_remove_by_id else { return Err(Errno::EBUSY) };
        // SAFETY: an open image; a number that no longer is one is answered with ENOENT.
        check(unsafe { remove(self.raw, snap) }).map(drop)
    }

    /// The names of its snapshots; not those that only wait for their last child.
    pub(in super::super) fn snaps(&self) -> Result<Vec<String>, Errno> {
        let mut most = 0;
        let ask = |list: *mut Snap, n: &mut usize| {
            most = c_int::try_from(*n).unwrap_or(c_int::MAX);
            // SAFETY: an open image and as much room as `most` says.
            let ret = unsafe { (self.rbd().rbd_snap_list)(self.raw, list, &mut most) };
            *n = usize::try_from(if ret < 0 { most } else { ret }).unwrap_or(0);
            ret
        };
        let (mut list, found) = listed(ask, |s: &Snap| (s.id, owned(s.name)))?;
        if !list.is_empty() {
            // The list ends with one without a name.
            list.push(Snap { id: 0, size: 0, name: null() });
            // SAFETY: gives back the names that the call above allocated, once.
            unsafe { (self.rbd().rbd_snap_list_end)(list.as_mut_ptr()) };
        }
        let Some(kind_of) = self.rbd().rbd_snap_get_namespace_type else {
            return Ok(found.into_iter().map(|(_, name)| name).collect());
        };
        let mut names = Vec::new();
        for (id, name) in found {
            let mut kind = 0;
            // SAFETY: an open image and a place to fill.
            match check(unsafe { kind_of(self.raw, id, &mut kind) }) {
                Ok(_) if kind == SNAP_OF_USER => names.push(name),
                // One that went meanwhile is none.
                Ok(_) | Err(Errno::ENOENT) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(names)
    }

    /// Copies what is its parent's, so that it has none any more. Takes as long as that is large.
    pub(in super::super) fn flatten(&self) -> Result<(), Errno> {
        let flatten = self.rbd().rbd_flatten.ok_or(Errno::ENOSYS)?;
        // SAFETY: an open image.
        check(unsafe { flatten(self.raw) }).map(drop)
    }

    /// Its features, as bits.
    pub(in super::super) fn features(&self) -> Result<u64, Errno> {
        let (get, mut bits) = (self.rbd().rbd_get_features.ok_or(Errno::ENOSYS)?, 0);
        // SAFETY: an open image and a place to fill.
        check(unsafe { get(self.raw, &mut bits) }).map(|_| bits)
    }

    /// Who has it open to change it: addresses of clients.
    pub(in super::super) fn watchers(&self) -> Result<Vec<String>, Errno> {
        let (ask, give_back) = (self.rbd().rbd_watchers_list, self.rbd().rbd_watchers_list_cleanup);
        let (ask, give_back) = ask.zip(give_back).ok_or(Errno::ENOSYS)?;
        // SAFETY: an open image and as much room as `n` says.
        let fill = |list, n: &mut usize| unsafe { ask(self.raw, list, n) };
        let (mut list, found) = listed(fill, |w: &Watcher| owned(w.address))?;
        // SAFETY: gives back what the call above allocated, once.
        unsafe { give_back(list.as_mut_ptr(), list.len()) };
        Ok(found)
    }

    /// Who holds its lock: addresses of clients.
    pub(in super::super) fn owners(&self) -> Result<Vec<String>, Errno> {
        let (mut mode, mut owners, mut n) = (0, [null_mut(); 8], 8);
        let (ask, give_back) = (self.rbd().rbd_lock_get_owners, self.rbd().rbd_lock_get_owners_cleanup);
        let (ask, give_back) = ask.zip(give_back).ok_or(Errno::ENOSYS)?;
        // SAFETY: an open image and room for eight owners.
        match check(unsafe { ask(self.raw, &mut mode, owners.as_mut_ptr(), &mut n) }) {
            Ok(_) => {}
            Err(Errno::ENOENT) => return Ok(Vec::new()),
            Err(e) => return Err(e),
        }
        let found = owners.iter().take(n).map(|o| owned(*o)).filter(|o| !o.is_empty()).collect();
        // SAFETY: gives back what the call above allocated, once.
        unsafe { give_back(owners.as_mut_ptr(), n) };
        Ok(found)
    }

    /// Breaks a lock: its owner can write no more, in this pool or any other.
    pub(in super::super) fn break_lock(&self, owner: &str) -> Result<(), Errno> {
        let (owner, break_it) = (text(owner)?, self.rbd().rbd_lock_break.ok_or(Errno::ENOSYS)?);
        // SAFETY: an open image and a text that outlives the call.
        match check(unsafe { break_it(self.raw, LOCK_EXCLUSIVE, owner.as_ptr()) }) {
            // It let go by itself, or another holds it now.
            Ok(_) | Err(Errno::ENOENT | Errno::EBUSY) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: its one owner ends. A close that fails loses nothing: what must be kept was flushed and told before.
        unsafe { (self.rbd().rbd_close)(self.raw) };
    }
}
