//! Clones of golden images, each made as librbd made one before it.
//!
//! librbd opens the image that is cloned and the clone for every one of them: some forty requests one after the other, and more processor time than
//! all else that a provision does. What it writes is the same each time but for the id. So it makes the first clone of every golden
//! image, and one again after a while; what that came to is read, and the next ones are written into the pool alike: six requests in four
//! turns, the mark last, and a question beside the first. Where anything is not as it is known here, or does not come to its end, librbd makes
//! the clone.
//!
//! The directory comes first, as with librbd: whatever was cut off is listed, and removed by librbd as one of its own. Its golden image learns of a clone
//! when that has all it needs to be found and removed.

use std::sync::Arc;

use bmi::step::Backing;
use nix::errno::Errno;

use super::change::ffi::Change;
use super::disks::{Golden, Parent, Site};
use super::names::encode;
use super::pattern::{Key, Pattern};
use super::pool::{DIRECTORY, Pool, absent, dir_entry, header, id_object, object_map};

/// The releases of librbd (Pacific to Tentacle) that are taken to write for a clone what is written here and no other object. What a header holds is
/// read each time; of a later one nobody has looked what it writes beside.
const KNOWN: std::ops::RangeInclusive<i32> = 16..=20;

/// An id for an image: as long as librbd's are at most, which data objects' names have room for.
fn fresh() -> Result<String, Errno> {
    let mut random = [0; 7];
    getrandom::fill(&mut random).map_err(|_| Errno::EIO)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A clone without its mark.
pub(super) struct Made {
    /// RBD's.
    pub(super) id: String,
    /// It was made from this.
    pub(super) alike: Option<Arc<Pattern>>,
}

impl Site<'_> {
    /// Makes a clone; `alike` as librbd made another, if that is known. EEXIST: something is in its way, be it what such a try has left.
    pub(super) fn make(&self, from: &Backing, parent: &Parent, name: &str, alike: bool) -> Result<Made, Errno> {
        let (pool, recent, golden) = (self.pool, &self.pool.recent, parent.at.golden.as_deref());
        if alike
            && let Some(golden) = golden
            && let Some(Some(pattern)) = recent.pattern(from, &golden.id)
        {
            let id = fresh()?;
            let made = Making::new(pool, &pattern, name, &id).and_then(|making| making.all(golden));
            return match made {
                Ok(()) => Ok(Made { id, alike: Some(pattern) }),
                // Nobody can make one now.
                Err(e @ (Errno::ETIMEDOUT | Errno::ESHUTDOWN | Errno::ENOTCONN)) => Err(e),
                Err(Errno::EEXIST) => Err(Errno::EEXIST),
                Err(e) => {
                    tracing::warn!(name, image = parent.at.image, error = %e, "librbd makes the next clones");
                    recent.saw_pattern(*from, None);
                    Err(Errno::EEXIST)
                }
            };
        }
        pool.io.make_clone(&pool.io, &parent.at.image, &parent.snap, name)?;
        let id = pool.id_of(name)?.ok_or(Errno::ENOENT)?;
        if golden.is_some_and(|g| recent.pattern(from, &g.id).is_none()) {
            let pattern = self.learnt(&id);
            if pattern.is_none() {
                tracing::info!(image = parent.at.image, "librbd makes all clones: what it wrote could not be read");
            }
            recent.saw_pattern(*from, pattern);
        }
        Ok(Made { id, alike: None })
    }

    /// Reads what librbd wrote for a clone.
    fn learnt(&self, id: &str) -> Option<Pattern> {
        let (io, head) = (&self.pool.io, header(id));
        let pool_id = io.id().filter(|_| io.changes() && KNOWN.contains(&io.release()))?;
        let (keys, more) = io.keys(&head, "", "").ok()?;
        let spec = io.exec(&head, c"rbd", "parent_get", &[]).ok().filter(|_| !more)?;
        Pattern::read(id, keys, &spec, pool_id, self.pool.namespace())
    }
}

/// A clone that is made from the pattern of another, under a name and an id.
pub(super) struct Making<'a> {
    pool: &'a Pool,
    pattern: &'a Pattern,
    name: &'a str,
    id: &'a str,
    pool_id: i64,
}

impl<'a> Making<'a> {
    /// ENOSYS: librados cannot do it.
    pub(super) fn new(pool: &'a Pool, pattern: &'a Pattern, name: &'a str, id: &'a str) -> Result<Making<'a>, Errno> {
        Ok(Making { pool, pattern, name, id, pool_id: pool.io.id().ok_or(Errno::ENOSYS)? })
    }

    /// What the golden image's list of children says of it, as the class takes it.
    fn child(&self) -> Vec<u8> {
        self.pattern.child(self.id, self.pool_id, self.pool.namespace())
    }

    /// All but the mark.
    fn all(&self, golden: &Golden) -> Result<(), Errno> {
        // Somebody has changed it, which nobody may.
        if golden.size != self.pattern.size {
            return Err(Errno::ESTALE);
        }
        let metadata = self.enter()?;
        self.write(&metadata)?;
        self.attach()
    }

    /// The first turn: an entry in the directory, which a name and an id have once. What the golden image's owner set on it (`rbd image-meta`), of
    /// which its clones get a copy, is read meanwhile. EEXIST: the name is taken; EBADF: the id.
    pub(super) fn enter(&self) -> Result<Vec<Key>, Errno> {
        let entered = Change::of(DIRECTORY);
        // A namespace that is being removed takes no more images. Ready is 0.
        let entered =
            if self.pool.namespace().is_empty() { entered } else { entered.call(c"dir_state_assert", vec![0]) };
        let entered = self.pool.io.begin(&entered.call(c"dir_add_image", dir_entry(self.name, self.id)))?;
        let metadata = self.pool.metadata(&self.pattern.of);
        entered.result()?;
        metadata.or_else(|e| self.pool.unlist(self.name, self.id).and(Err(e)))
    }

    /// The second turn: what the name leads to, and the header. If one of them was there already (EEXIST), nothing of it is left.
    pub(super) fn write(&self, metadata: &[Key]) -> Result<(), Errno> {
        let (io, named, head) = (&self.pool.io, id_object(self.name), header(self.id));
        let name = io.begin(&Change::new(&named).call(c"set_id", encode(self.id.as_bytes())))?;
        let keys = self.pattern.keys().iter().chain(metadata);
        let written = io.begin(&Change::new(&head).call(c"create", self.pattern.create(self.id)).keys(keys));
        let written = written.and_then(|header| header.result());
        match (name.result(), written) {
            (Ok(()), Ok(())) => Ok(()),
            (Err(Errno::EEXIST), Ok(())) => io.remove_object(&head).and_then(|()| self.leave()),
            (Ok(()), Err(Errno::EEXIST)) => io.remove_object(&named).and_then(|()| self.leave()),
            (Err(Errno::EEXIST), Err(Errno::EEXIST)) => self.leave(),
            // What may yet come about is listed.
            (name, written) => name.and(written),
        }
    }

    /// Takes the entry back.
    fn leave(&self) -> Result<(), Errno> {
        self.pool.unlist(self.name, self.id).and(Err(Errno::EEXIST))
    }

    /// The third turn: its object map, and its line among its parent's children. ENOENT: the golden image is no longer there.
    pub(super) fn attach(&self) -> Result<(), Errno> {
        let (io, parent, map) = (&self.pool.io, header(&self.pattern.of), object_map(self.id));
        let mapped = io.begin(&Change::of(&map).call(c"object_map_resize", self.pattern.object_map()))?;
        let attached = io.begin(&Change::there(&parent).call(c"child_attach", self.child()))?;
        mapped.result().and(attached.result())
    }

    /// Takes the third turn back.
    fn detach(&self) -> Result<(), Errno> {
        let (io, parent, map) = (&self.pool.io, header(&self.pattern.of), object_map(self.id));
        let detached = absent(io.exec(&parent, c"rbd", "child_detach", &self.child()));
        detached.and(absent(io.remove_object(&map))).map(drop)
    }
}

impl Made {
    /// Its mark could not be written. Where that is because somebody has removed it meanwhile, its golden image must not wait for it for ever.
    pub(super) fn unmarked(&self, pool: &Pool, e: Errno) {
        let Some(pattern) = self.alike.as_deref().filter(|_| e == Errno::ENOENT) else { return };
        let left = Making::new(pool, pattern, "", &self.id).and_then(|making| making.detach());
        if let Err(e) = left {
            tracing::warn!(id = self.id, image = pattern.of, error = %e, "a clone that is gone stays among an image's children");
        }
    }
}
