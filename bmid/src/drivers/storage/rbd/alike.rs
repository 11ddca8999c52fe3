//! Clones of golden images, each made as librbd made one before it.
//!
//! librbd opens the image that is cloned and the clone for every one of them: some forty requests one after the other, and more processor time than
//! all else that a provision does. What it writes is the same each time but for the id. So it makes the first clone, of every golden
//! image and again each hour; what that came to is read, and the next ones are written into the pool alike: six requests in four turns, the mark
//! the last of them. Where anything is not as it is known here, or does not come to its end, librbd makes the clone.
//!
//! The name comes first, which leads to the rest; its golden image learns of it when header and entry stand. So whatever was cut off is found by its
//! name and removed by librbd, as one of its own.

use bmi::step::Backing;
use nix::errno::Errno;

use super::change::ffi::Change;
use super::disks::{Golden, Parent, Site};
use super::names::encode;
use super::pattern::{Key, Pattern};
use super::pool::{DIRECTORY, dir_entry, header, id_object};

/// In how many turns a clone is made, the mark not counted. The changes of one go out together.
pub(super) const TURNS: usize = 3;

/// An id for an image: as long as librbd's are at most, which data objects' names have room for.
fn fresh() -> Result<String, Errno> {
    let mut random = [0; 7];
    getrandom::fill(&mut random).map_err(|_| Errno::EIO)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Site<'_> {
    /// Makes a clone. Its id; EEXIST if something has its name.
    pub(super) fn make(&self, from: &Backing, parent: &Parent, name: &str) -> Result<String, Errno> {
        let pool = self.pool;
        if let Some(golden) = &parent.at.golden
            && golden.metadata.is_some()
            && let Some(pattern) = pool.recent.pattern(from, &golden.id)
        {
            let id = fresh()?;
            match self.alike(&pattern, golden, (name, &id), TURNS) {
                Err(Errno::EEXIST) => return Err(Errno::EEXIST),
                Ok(()) => return Ok(id),
                Err(e) => {
                    tracing::debug!(name, "librbd makes this clone: {}", e.desc());
                    pool.recent.forget(from, name);
                    pool.discard(name)?;
                }
            }
        }
        pool.io.make_clone(&pool.io, &parent.at.image, &parent.snap, name)?;
        let id = pool.id_of(name)?.ok_or(Errno::ENOENT)?;
        if let Some(golden) = &parent.at.golden {
            self.learn(from, golden, &id);
        }
        Ok(id)
    }

    /// Reads what librbd wrote for a clone. What cannot be read is not learnt from.
    fn learn(&self, from: &Backing, golden: &Golden, id: &str) {
        let (io, place) = (&self.pool.io, &self.pool.place);
        let Some(number) = io.changes().filter(|_| golden.metadata.is_some()) else { return };
        let head = header(id);
        let Ok((keys, false)) = io.keys(&head, "", "") else { return };
        let Ok(spec) = io.exec(&head, c"rbd", "parent_get", &[]) else { return };
        let namespace = place.namespace.as_deref().unwrap_or_default();
        if let Some(pattern) = Pattern::read(id, keys, &spec, number, namespace) {
            self.pool.recent.saw_pattern(*from, pattern);
        }
    }

    /// Makes a clone of this name and id from the pattern of another. EEXIST, and nothing has changed, if something has its name; EBADF, and the
    /// name leads nowhere, if something has its id. After any other failure parts of it may be there. Fewer turns than [`TURNS`] leave what one
    /// leaves that is cut off.
    pub(super) fn alike(
        &self,
        pattern: &Pattern,
        golden: &Golden,
        (name, id): (&str, &str),
        turns: usize,
    ) -> Result<(), Errno> {
        let io = &self.pool.io;
        let number = io.changes().ok_or(Errno::ENOSYS)?;
        let namespace = self.pool.place.namespace.as_deref().unwrap_or_default();
        let keys: Vec<Key> = pattern.keys().iter().chain(golden.metadata.iter().flatten()).cloned().collect();
        let (named, head, map) = (id_object(name), header(id), format!("rbd_object_map.{id}"));
        let call = |method, input| Some((method, input));
        let (parent, child) = (header(&pattern.of), pattern.child(id, number, namespace));
        let named = Change { object: &named, new: true, call: call(c"set_id", encode(id.as_bytes())), keys: &[] };
        let listed = [
            Change { object: &head, new: true, call: call(c"create", pattern.create(id)), keys: &keys },
            Change { object: DIRECTORY, call: call(c"dir_add_image", dir_entry(name, id)), ..Change::default() },
        ];
        let attached = [
            Change { object: &map, call: call(c"object_map_resize", pattern.object_map()), ..Change::default() },
            Change { object: &parent, call: call(c"child_attach", child), ..Change::default() },
        ];
        let [named] = io.change(&[named]);
        named?;
        if turns > 1 {
            self.both(name, id, io.change(&listed))?;
        }
        if turns > 2 {
            let [map, child] = io.change(&attached);
            map.and(child).map_err(taken)?;
        }
        Ok(())
    }

    /// Header and entry, or neither and no name: where something has the id, or an entry was left over, the name must not lead there.
    fn both(&self, name: &str, id: &str, made: [Result<(), Errno>; 2]) -> Result<(), Errno> {
        let pool = self.pool;
        let [head, listed] = made;
        if head.is_err() && listed.is_ok() {
            pool.unlist(name, id)?;
        }
        if head.is_ok() && listed.is_err() {
            pool.io.remove_object(&header(id))?;
        }
        let both = head.and(listed);
        if both.is_err() {
            pool.drop_name(name)?;
        }
        both.map_err(taken)
    }
}

/// What is there behind a name that was free is not in the name's way: librbd will do.
fn taken(e: Errno) -> Errno {
    if e == Errno::EEXIST { Errno::EBADF } else { e }
}
