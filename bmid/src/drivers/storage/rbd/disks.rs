//! Disks in a pool: clones, snapshots, and what becomes of those that go.
//!
//! A clone is whole when it carries its mark; one without it, or with its parent's, was cut off and is made anew. A snapshot is an RBD snapshot of
//! its volume; the register says of which. A removed volume goes to the trash at once and is purged later; while snapshots
//! of it live it is only renamed. So nothing that the user may delete is ever held by what was made from it.

use std::sync::Arc;

use bmi::model::{Id, Kind};
use bmi::step::{self, Backing, BackingKind};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::alike::Made;
use super::found;
use super::image::ffi::{Image, Which};
use super::names::{self, BASE, Mark, same_client};
use super::pool::{Pool, absent, failed};
use crate::drivers::{Done, DriverError};

/// How often what is in a clone's way is looked at, and its image looked for anew.
const TRIES: u32 = 3;

/// A clone with more parents above it is flattened in the background.
const SHALLOW: u32 = 4;
/// None is made with more above it: the kernel's client maps no longer chain (`RBD_MAX_PARENT_CHAIN_LEN`), and every read of a block that was never written
/// goes through all of them. Rollbacks that outrun the flattening come this far.
const DEEPEST: u32 = 16;

/// A datastore in its pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) pool: &'a Pool,
    pub(super) datastore: Id,
    pub(super) engine: Id,
}

/// What the register says of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SnapEntry {
    /// Of which volume.
    pub(super) volume: Backing,
    /// The RBD image's id, which it keeps under every name.
    pub(super) image: String,
    /// It is there.
    pub(super) done: bool,
    /// What its records say.
    pub(super) note: Option<serde_json::Value>,
}

/// Where a backing's bytes are.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) image: String,
    pub(super) snap: Option<String>,
    pub(super) depth: u32,
    /// It is a golden image under a name of ours, which never changes.
    pub(super) golden: Option<Arc<Golden>>,
}

/// What is known of a golden image of ours.
#[derive(Debug)]
pub(super) struct Golden {
    /// RBD's.
    pub(super) id: String,
    /// Its own, in bytes, and that of its snapshot and clones unless somebody has changed it.
    pub(super) size: u64,
}

/// A clone without its mark.
struct Bare {
    made: Made,
    parent: Parent,
    /// Something had to go for it.
    discarded: bool,
}

/// Where a clone's bytes come from.
pub(super) struct Parent {
    pub(super) at: Source,
    pub(super) snap: String,
    /// The open volume that `snap` was made on for this clone alone.
    passing: Option<Image>,
}

impl Site<'_> {
    pub(super) fn name(&self, what: &Backing) -> String {
        what.rbd_name(&self.pool.place.prefix())
    }

    fn hidden(&self, what: &Backing) -> String {
        names::hidden(&self.pool.place.prefix(), what)
    }

    pub(super) fn snap_key(&self, what: &Backing) -> String {
        format!("snap.{}.{}", self.datastore, what.name())
    }

    pub(super) fn flat_key(&self, image: &str) -> String {
        format!("flat.{}.{image}", self.datastore)
    }

    pub(super) fn mark(&self, what: &Backing, depth: u32) -> Mark {
        let Backing { kind, id, generation } = *what;
        let (engine, datastore) = (self.engine, self.datastore);
        let rbd = String::new();
        Mark { engine, datastore, kind, id, generation, rbd, depth, imported: None, in_place: None, note: None }
    }

    /// The whole image of that name: its id and mark. One that was cut off is none, and gone afterwards if `clear`.
    pub(super) fn whole(
        &self,
        what: &Backing,
        tried: &str,
        clear: bool,
    ) -> Result<Option<(String, Mark)>, DriverError> {
        let (name, fail) = (self.name(what), |e| failed(tried, e));
        let Some(id) = self.pool.id_of(&name).map_err(fail)? else {
            // Under another's name, if it was taken over in place.
            let Some(taken) = self.taken(what, tried)?.filter(|t| t.in_place) else { return Ok(None) };
            let mark = self.pool.mark(&taken.id).map_err(fail)?;
            return Ok(mark.filter(|m| m.datastore == self.datastore && m.backing() == *what).map(|m| (taken.id, m)));
        };
        match self.pool.mark(&id).map_err(fail)? {
            Some(mark) if mark.datastore == self.datastore && mark.backing() == *what => {
                if self.pool.is_listed(&id, &name).map_err(fail)? {
                    return Ok(Some((id, mark)));
                }
                // A renaming was cut off: it has another name, as which it is not yet, or no longer, this one.
                if clear {
                    self.pool.drop_name(&name).map_err(fail)?;
                }
                Ok(None)
            }
            Some(mark) => {
                let why = format!("image {name} carries the mark of {} of datastore {}", mark.id, mark.datastore);
                Err(DriverError::new(Kind::Conflict, tried, why).fix("it is not touched; look at who renamed it"))
            }
            None => {
                if clear {
                    self.pool.discard(&name).map_err(fail)?;
                }
                Ok(None)
            }
        }
    }

    /// What the register says of a snapshot.
    pub(super) fn snap_entry(&self, what: &Backing, tried: &str) -> Result<Option<SnapEntry>, DriverError> {
        self.pool.entry(&self.snap_key(what)).map_err(|e| failed(tried, e))
    }

    /// Under which name and RBD snapshot a backing's bytes are read; no snapshot for a volume.
    pub(super) fn source(&self, what: &Backing, tried: &str) -> Result<Option<Source>, DriverError> {
        let fail = |e| failed(tried, e);
        if what.kind != BackingKind::Snapshot {
            let Some((id, mark)) = self.whole(what, tried, false)? else { return Ok(None) };
            let (own, depth) = (self.name(what), mark.depth);
            let snap = (what.kind == BackingKind::Image).then(|| BASE.to_owned());
            if mark.in_place.is_none() {
                // A golden image never changes; a volume's size is asked for when it is cloned.
                let golden = snap.as_ref().map(|_| self.golden(id)).transpose().map_err(fail)?;
                return Ok(Some(Source { image: own, snap, depth, golden }));
            }
            let (snap, image) = (mark.in_place, self.pool.name_of(&id).map_err(fail)?);
            return Ok(image.map(|image| Source { image, snap, depth, golden: None }));
        }
        let Some(entry) = self.snap_entry(what, tried)?.filter(|e| e.done) else { return Ok(None) };
        // The volume's own name, or that of a removed one.
        let Some(image) = self.pool.name_of(&entry.image).map_err(fail)? else { return Ok(None) };
        let depth = self.pool.mark(&entry.image).map_err(fail)?.map_or(0, |m| m.depth);
        Ok(Some(Source { image, snap: Some(names::snap(what)), depth, golden: None }))
    }

    fn golden(&self, id: String) -> Result<Arc<Golden>, Errno> {
        Ok(Arc::new(Golden { size: self.pool.size(&id)?, id }))
    }

    fn parent(&self, s: &step::Clone, tried: &str) -> Result<Parent, DriverError> {
        let gone = || {
            DriverError::new(Kind::Outside, tried, "the disk to copy is not there")
                .fix("`bmictl reconcile --check` shows what else is missing")
        };
        let recent = &self.pool.recent;
        let source = match recent.source(&s.from) {
            Some(source) if source.depth < DEEPEST => source,
            _ => {
                let source = self.source(&s.from, tried)?.ok_or_else(gone)?;
                recent.saw_source(s.from, &source);
                source
            }
        };
        if source.depth >= DEEPEST {
            return Err(too_deep(&source, tried));
        }
        if let Some(snap) = source.snap.clone() {
            return Ok(Parent { at: source, snap, passing: None });
        }
        let snap = names::through(&s.to);
        let volume = self.pool.open(Which::Name(&source.image)).map_err(|e| failed(tried, e))?;
        snap_anew(&volume, &snap).map_err(|e| failed(tried, e))?;
        Ok(Parent { at: source, snap, passing: Some(volume) })
    }

    /// Carries out a [`step::Clone`]. True in the second: there is work for the background.
    pub(super) fn clone(&self, s: &step::Clone) -> Result<(Done, bool), DriverError> {
        let tried = format!("clone {} {} from {} {}", s.to.folder(), s.to.name(), s.from.folder(), s.from.name());
        if s.to.kind == BackingKind::Snapshot {
            return Ok((self.tag(s, &tried)?, false));
        }
        // A new disk of a golden image is not looked for first: Ceph refuses a second one of that name.
        let ordinary = (s.from.kind, s.to.kind) == (BackingKind::Image, BackingKind::Volume);
        if !ordinary && self.whole(&s.to, &tried, true)?.is_some() {
            return Ok((Done::ALREADY, false));
        }
        let (name, fail) = (self.name(&s.to), |e| failed(&tried, e));
        let Some(Bare { made, parent, discarded }) = self.bare(s, &name, &tried)? else {
            return Ok((Done::ALREADY, false));
        };
        self.snaps_behind(s, &parent, &name).map_err(fail)?;
        let depth = parent.at.depth + 1;
        let deep = s.to.kind == BackingKind::Image || depth > SHALLOW;
        if deep {
            self.pool.set_entry(&self.flat_key(&made.id), &name).map_err(fail)?;
        }
        let mark = Mark { note: found::written(s.note.as_ref()), ..self.mark(&s.to, depth) };
        self.pool.set_mark(&made.id, &mark).inspect_err(|e| made.unmarked(self.pool, *e)).map_err(fail)?;
        if let Some(golden) = parent.at.golden.filter(|_| ordinary) {
            self.pool.recent.made(&name, golden.size);
        }
        Ok((Done::CHANGED, deep || discarded))
    }

    /// Makes a clone that has no mark yet, past what is in its way. None: it is there already, and whole.
    fn bare(&self, s: &step::Clone, name: &str, tried: &str) -> Result<Option<Bare>, DriverError> {
        let fail = |e| failed(tried, e);
        let (mut parent, mut discarded) = (self.parent(s, tried)?, false);
        // As librbd made another; a second try is librbd's, whatever was in the way of the first.
        let mut alike = (s.from.kind, s.to.kind) == (BackingKind::Image, BackingKind::Volume);
        let mut tries = 0..TRIES;
        let made = loop {
            let made = self.make(&s.from, &parent, name, alike);
            alike = false;
            match made {
                Err(Errno::EEXIST) if tries.next().is_some() => {
                    if self.whole(&s.to, tried, true)?.is_some() {
                        return Ok(None);
                    }
                    // One whose maker died may be listed and lead nowhere yet.
                    discarded |= self.pool.discard(name).map_err(fail)?;
                }
                // It is not where it was a while ago.
                Err(Errno::ENOENT) if s.from.kind == BackingKind::Image && tries.next().is_some() => {
                    self.pool.recent.forget(&s.from, name);
                    parent = self.parent(s, tried)?;
                }
                made => break made,
            }
        };
        if let (Err(_), Some(volume)) = (&made, &parent.passing) {
            // The clone's failure is the one that tells the matter.
            let _ = volume.unsnap(&parent.snap);
        }
        Ok(Some(Bare { made: made.map_err(fail)?, parent, discarded }))
    }

    /// Behind a clone: takes away the snapshot that was made for it alone, and makes that of a golden image. Each waits some 50 ms
    /// for the monitors, so they wait together.
    fn snaps_behind(&self, s: &step::Clone, parent: &Parent, name: &str) -> Result<(), Errno> {
        // The clone keeps what it needs of it.
        let unsnap = |volume: &Image| absent(volume.unsnap(&parent.snap)).map(drop);
        let base = || self.pool.open(Which::Name(name)).and_then(|image| image.snap(BASE));
        match (&parent.passing, s.to.kind) {
            (Some(volume), BackingKind::Image) => std::thread::scope(|scope| {
                let based = scope.spawn(base);
                let unsnapped = unsnap(volume);
                let based = based.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                unsnapped.and(based)
            }),
            (None, BackingKind::Image) => base(),
            (Some(volume), _) => unsnap(volume),
            (None, _) => Ok(()),
        }
    }

    /// Makes a snapshot of a volume.
    fn tag(&self, s: &step::Clone, tried: &str) -> Result<Done, DriverError> {
        let (key, fail) = (self.snap_key(&s.to), |e| failed(tried, e));
        let begun = self.snap_entry(&s.to, tried)?;
        if begun.as_ref().is_some_and(|e| e.done) {
            return Ok(Done::ALREADY);
        }
        if s.from.kind != BackingKind::Volume {
            let why = "in a pool, snapshots are made of volumes alone";
            return Err(DriverError::new(Kind::Invalid, tried, why).fix("this is a defect of bmid; please report it"));
        }
        let Some((id, _)) = self.whole(&s.from, tried, false)? else {
            return Err(DriverError::new(Kind::Outside, tried, "the disk to copy is not there")
                .fix("`bmictl reconcile --check` shows what else is missing"));
        };
        let entry = SnapEntry { volume: s.from, image: id, done: false, note: found::written(s.note.as_ref()) };
        self.pool.set_entry(&key, &entry).map_err(fail)?;
        let volume = self.pool.open(Which::Id(&entry.image)).map_err(fail)?;
        snap_anew(&volume, &names::snap(&s.to)).map_err(fail)?;
        self.pool.set_entry(&key, &SnapEntry { done: true, ..entry }).map_err(fail)?;
        Ok(Done::CHANGED)
    }

    /// Carries out a [`step::Remove`]. What went lies in the trash.
    pub(super) fn remove(&self, what: &Backing) -> Result<Done, DriverError> {
        let tried = format!("remove {} {}", what.folder(), what.name());
        self.pool.recent.forget(what, &self.name(what));
        if what.kind == BackingKind::Snapshot {
            return self.untag(what, &tried);
        }
        if what.kind == BackingKind::Image && self.give_back(what, &tried)? {
            return Ok(Done::CHANGED);
        }
        let (name, fail) = (self.name(what), |e| failed(&tried, e));
        let Some((id, _)) = self.whole(what, &tried, false)? else {
            // Half-made, or nothing.
            return self.pool.discard(&name).map(Done::changed).map_err(fail);
        };
        if what.kind == BackingKind::Volume && self.tagged(&id, &tried)? {
            self.pool.rename(&name, &self.hidden(what)).map_err(fail)?;
        } else {
            self.pool.trash(&name).map_err(fail)?;
        }
        Ok(Done::CHANGED)
    }

    /// Whether a volume has snapshots of ours.
    fn tagged(&self, id: &str, tried: &str) -> Result<bool, DriverError> {
        let fail = |e| failed(tried, e);
        if self.pool.snap_ids(id).map_err(fail)?.is_empty() {
            return Ok(false);
        }
        let found = self.pool.open_read(Which::Id(id), None).and_then(|image| image.snaps()).map_err(fail)?;
        Ok(found.iter().any(|s| s.starts_with("bmi.") && !s.starts_with("bmi.to.")))
    }

    fn untag(&self, what: &Backing, tried: &str) -> Result<Done, DriverError> {
        let fail = |e| failed(tried, e);
        let Some(entry) = self.snap_entry(what, tried)? else { return Ok(Done::ALREADY) };
        if let Some(volume) = absent(self.pool.open(Which::Id(&entry.image))).map_err(fail)? {
            absent(volume.unsnap(&names::snap(what))).map_err(fail)?;
        }
        let hidden = self.hidden(&entry.volume);
        if self.pool.is_listed(&entry.image, &hidden).map_err(fail)? && !self.tagged(&entry.image, tried)? {
            absent(self.pool.trash(&hidden)).map_err(fail)?;
        }
        self.pool.remove_entry(&self.snap_key(what)).map_err(fail)?;
        Ok(Done::CHANGED)
    }
}

/// Makes a snapshot, in place of one that an earlier try left: the bytes may have changed since, and one whose removal was cut off has
/// lost its object map, so that nothing can be cloned from it.
fn snap_anew(volume: &Image, name: &str) -> Result<(), Errno> {
    match volume.snap(name) {
        Err(Errno::EEXIST) => {
            absent(volume.unsnap(name))?;
            volume.snap(name)
        }
        made => made,
    }
}

/// A disk that is there.
pub(super) struct There {
    id: String,
    /// In bytes.
    pub(super) size: u64,
    /// Somebody holds its lock, or died holding it.
    pub(super) locked: bool,
}

fn gone(tried: &str) -> DriverError {
    DriverError::new(Kind::Unavailable, tried, "the image is not there")
        .fix("`bmictl datastore show` says whether its datastore is there")
}

fn too_deep(source: &Source, tried: &str) -> DriverError {
    let why = format!(
        "{} images stand above {} already, and the kernel's client follows {DEEPEST}",
        source.depth, source.image
    );
    DriverError::new(Kind::Busy, tried, why).fix(
        "bmid is flattening what it made of them, in the background: try again in a while. An image that it did not make is flattened by `rbd flatten`",
    )
}

/// Whether a disk is there and Ceph answers for it.
pub(super) fn there(pool: &Pool, name: &str, tried: &str) -> Result<There, DriverError> {
    let (fail, gone) = (|e| failed(tried, e), || gone(tried));
    let id = pool.id_of(name).map_err(fail)?.ok_or_else(gone)?;
    let size = absent(pool.size(&id)).map_err(fail)?.ok_or_else(gone)?;
    let locked = absent(pool.is_locked(&id)).map_err(fail)?.ok_or_else(gone)?;
    Ok(There { id, size, locked })
}

/// Breaks the lock of an owner that died. Without that the first write would wait half a minute for the owner to be given up.
pub(super) fn unlock(pool: &Pool, disk: &There, alive: &[String], tried: &str) -> Result<(), DriverError> {
    let fail = |e| failed(tried, e);
    // Opened to be changed: librbd tells nobody else about locks. It takes none by that.
    let image = absent(pool.open(Which::Id(&disk.id))).map_err(fail)?.ok_or_else(|| gone(tried))?;
    for owner in image.owners().map_err(fail)? {
        // Work in the background holds a lock of ours, and lets go by itself; so does a tgtd that lives, when it is asked.
        let lives = alive.iter().any(|a| same_client(a, &owner)) || pool.cluster.is_own(&owner).map_err(fail)?;
        if !lives {
            image.break_lock(&owner).map_err(fail)?;
        }
    }
    Ok(())
}
