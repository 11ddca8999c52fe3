//! Takes over what another made in a pool: by a clone, or in place.
//!
//! The register is told before anything is changed, so that whatever end it comes to, it goes on or is taken back. What it
//! takes over is never written to and never removed; a snapshot is made of it where none was named, and taken away again as
//! soon as the clone stands, or with the golden image.

use std::sync::Arc;

use bmi::model::{Bytes, Format, Id, Kind, RbdPlace, RbdSource};
use bmi::step::{Backing, BackingKind, Imported, TakeOver};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::disks::Site;
use super::ffi::Io;
use super::found;
use super::image::ffi::{Image, Which};
use super::import::Running;
use super::local::each;
use super::names::{self, BASE, Mark};
use super::pool::{Pool, absent, failed};
use super::survey::caps;
use crate::drivers::storage::file::copy::{CHUNK, cancelled};
use crate::drivers::storage::file::staging::Arrived;
use crate::drivers::storage::probe;
use crate::drivers::storage::stream::{SECTOR, Sums};
use crate::drivers::{Done, DriverError, StepCx};

/// Features of images.
const LAYERING: u64 = 1;
const JOURNALING: u64 = 1 << 6;
const MIGRATING: u64 = 1 << 9;
const NON_PRIMARY: u64 = 1 << 10;
const DIRTY_CACHE: u64 = 1 << 11;
/// Those and: striping, exclusive-lock, object-map, fast-diff, deep-flatten, data-pool, operations.
const KNOWN: u64 = (1 << 12) - 1;

/// What the register says of a taking over: until it is done, and of an image in place as long as there is that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    source: RbdSource,
    /// RBD's id of what is taken over; it keeps that under every name.
    pub(super) id: String,
    /// The snapshot whose bytes are taken.
    pub(super) snap: String,
    /// bmid made that snapshot.
    ours: bool,
    pub(super) in_place: bool,
    /// RBD's id of the clone, once that is made.
    clone: Option<String>,
}

/// The key of the register for it.
pub(super) fn key(datastore: Id, image: Id) -> String {
    format!("from.{datastore}.{image}")
}

/// The image of a key.
pub(super) fn image_of(key: &str) -> Option<Id> {
    key.rsplit_once('.')?.1.parse().ok()
}

struct Work<'a> {
    site: &'a Site<'a>,
    s: &'a TakeOver,
    cx: &'a StepCx<'a>,
    tried: String,
    what: Backing,
    key: String,
    /// Where what is taken over lies.
    there: Pool,
}

/// The pool and namespace that a source names, over the same connection.
fn elsewhere(pool: &Pool, source: &RbdSource) -> Result<Pool, Errno> {
    let namespace = source.namespace.as_deref().unwrap_or_default();
    let here = source.pool == pool.place.pool && source.namespace == pool.place.namespace;
    let io = if here { Arc::clone(&pool.io) } else { Arc::new(Io::open(&pool.cluster, &source.pool, namespace)?) };
    let place = RbdPlace { pool: source.pool.clone(), namespace: source.namespace.clone(), ..pool.place.clone() };
    let (asking, marks, recent) = Default::default();
    Ok(Pool { io, cluster: Arc::clone(&pool.cluster), place, asking, marks, recent })
}

/// Carries out a [`TakeOver`].
pub(super) fn take_over(
    site: &Site<'_>,
    s: &TakeOver,
    running: &Running,
    cx: &StepCx<'_>,
) -> Result<Done, DriverError> {
    let (tried, what) = (format!("take over {} as image {}", s.from, s.image), Backing::image(s.image));
    let key = key(s.datastore, s.image);
    if let Some((_, mark)) = site.whole(&what, &tried, false)? {
        let imported = mark.imported.filter(|i| i.image == s.image).ok_or_else(|| {
            DriverError::new(Kind::Conflict, tried.as_str(), "a disk of that id is there, and it was not taken over")
                .fix("remove that image first")
        })?;
        if !s.in_place {
            site.pool.remove_entry(&key).map_err(|e| failed(&tried, e))?;
        }
        return Ok(Done { changed: false, imported: Some(imported) });
    }
    let _held = running.hold(&format!("{} of {}", s.from, site.pool.place.conf), &tried)?;
    let there = elsewhere(site.pool, &s.from).map_err(|e| match e {
        Errno::ENOENT => no_such(&tried, &s.from),
        e => failed(&tried, e),
    })?;
    let work = Work { site, s, cx, tried, what, key, there };
    let imported = match work.begun()? {
        taken if s.in_place => work.in_place(&taken)?,
        taken => work.by_clone(taken)?,
    };
    Ok(Done { changed: true, imported: Some(imported) })
}

fn no_such(tried: &str, source: &RbdSource) -> DriverError {
    let spec = source.namespace.as_ref().map_or(source.pool.clone(), |n| format!("{}/{n}", source.pool));
    DriverError::new(Kind::NotFound, tried, format!("there is no {source}"))
        .fix(format!("`rbd ls {spec}` and `rbd snap ls {spec}/{}` show what is there", source.image))
}

impl Work<'_> {
    fn fail(&self, e: Errno) -> DriverError {
        match e {
            // Most likely what lies in the other pool.
            Errno::EACCES | Errno::EPERM => {
                let from = &self.s.from;
                let other = (from.pool.as_str(), from.namespace.as_deref());
                failed(&self.tried, e).fix(caps(&self.site.pool.place, Some(other)))
            }
            e => failed(&self.tried, e),
        }
    }

    fn no(&self, kind: Kind, why: impl Into<String>, fix: impl Into<String>) -> DriverError {
        DriverError::new(kind, self.tried.as_str(), why).fix(fix)
    }

    /// What an earlier try noted, or a look at what is there and a note of it.
    fn begun(&self) -> Result<Taken, DriverError> {
        let noted: Option<Taken> = self.site.pool.entry(&self.key).map_err(|e| self.fail(e))?;
        if let Some(taken) = noted.filter(|t| t.source == self.s.from && t.in_place == self.s.in_place) {
            return Ok(taken);
        }
        let id = self.looked_at()?;
        let named = self.s.from.snap.clone();
        let taken = Taken {
            source: self.s.from.clone(),
            id,
            ours: named.is_none(),
            snap: named.unwrap_or_else(|| format!("bmid.{}", self.s.image)),
            in_place: self.s.in_place,
            clone: None,
        };
        self.site.pool.set_entry(&self.key, &taken).map_err(|e| self.fail(e))?;
        self.go_on()?;
        Ok(taken)
    }

    /// Between any two changes it may be cancelled; what it did is undone or gone on with.
    fn go_on(&self) -> Result<(), DriverError> {
        if (self.cx.cancelled)() { Err(cancelled(&self.tried)) } else { Ok(()) }
    }

    /// RBD's id of the source, if it may be taken over.
    fn looked_at(&self) -> Result<String, DriverError> {
        let (fail, from) = (|e| self.fail(e), &self.s.from);
        let Some(id) = self.there.id_of(&from.image).map_err(fail)? else {
            let old = absent(self.there.io.read(&format!("{}.rbd", from.image))).map_err(fail)?.is_some();
            return Err(if old {
                self.no(
                    Kind::Invalid,
                    format!("{from} is an image of RBD's old format 1"),
                    "`rbd migration prepare` makes one of format 2 of it; see Ceph's pages on live migration",
                )
            } else {
                no_such(&self.tried, from)
            });
        };
        if names::any(&from.image) || self.there.mark(&id).map_err(fail)?.is_some() {
            return Err(self.no(
                Kind::Conflict,
                format!("{from} is bmid's own already"),
                "`bmictl image copy` makes another golden image of one, `bmictl image create` one of a node's disk",
            ));
        }
        let image = absent(self.there.open_read(Which::Name(&from.image), from.snap.as_deref())).map_err(fail)?;
        let image = image.ok_or_else(|| no_such(&self.tried, from))?;
        self.may_be_read(&image)?;
        self.is_a_disk(&image)?;
        if self.s.in_place {
            self.is_idle(&image)?;
        }
        Ok(id)
    }

    fn may_be_read(&self, image: &Image) -> Result<(), DriverError> {
        let bits = image.features().map_err(|e| self.fail(e))?;
        // Our snapshot, or our mark, would be another site's business.
        let changed = self.s.in_place || self.s.from.snap.is_none();
        let refusal = if bits & LAYERING == 0 {
            Some((
                "it was made without the feature `layering`, and cannot be cloned",
                "`rbd export` it and import the file",
            ))
        } else if bits & MIGRATING != 0 {
            Some(("it is being migrated", "wait for `rbd migration commit`"))
        } else if bits & DIRTY_CACHE != 0 {
            Some((
                "a client's write-back cache holds some of its bytes",
                "close it there, so that the cache is written back",
            ))
        } else if bits & !KNOWN != 0 {
            Some((
                "it has features that this release does not know",
                "`rbd info` names them; take off what is not needed",
            ))
        } else if changed && bits & NON_PRIMARY != 0 {
            Some(("it is the mirror of another cluster's image", "take a snapshot of it over: POOL/IMAGE@SNAPSHOT"))
        } else if changed && bits & JOURNALING != 0 {
            Some((
                "it is journaled for a mirror, and bmid's snapshot would go there, too",
                "take a snapshot of it over, by a clone: POOL/IMAGE@SNAPSHOT",
            ))
        } else {
            None
        };
        refusal.map_or(Ok(()), |(why, fix)| Err(self.no(Kind::Invalid, format!("{}: {why}", self.s.from), fix)))
    }

    /// Whether its bytes can be a machine's disk; how many there are.
    fn is_a_disk(&self, image: &Image) -> Result<u64, DriverError> {
        let (s, fail) = (self.s, |e| self.fail(e));
        let size = image.size().map_err(fail)?;
        if size == 0 || size % SECTOR != 0 {
            let why = format!("{} has {size} bytes, and a disk is whole sectors", s.from);
            return Err(self.no(Kind::Invalid, why, "`rbd resize` gives it another size"));
        }
        if size > s.max_size.0 {
            let why = format!(
                "{} has {size} bytes; a disk of at most {} ({}) is taken here",
                s.from, s.max_size.0, s.max_size
            );
            return Err(self.no(Kind::Limit, why, "raise `max_image` in the configuration if the size is meant"));
        }
        if s.size.is_some_and(|said| said.0 != size) {
            return Err(self.no(
                Kind::Corrupt,
                format!("{} has {size} bytes, and another size was said", s.from),
                "look at `rbd info`",
            ));
        }
        let mut head = vec![0; 4 << 10];
        let read = image.read(0, &mut head).map_err(fail)?;
        head.truncate(read);
        if head.starts_with(b"LUKS\xba\xbe") || head.starts_with(b"RBDL\xba\xbe") {
            let why = format!("{} is encrypted as a whole; no machine could boot from it", s.from);
            return Err(self.no(Kind::Invalid, why, "`rbd export` it with its passphrase and import the file"));
        }
        match probe::magic(&head) {
            Some(found) => Err(self.no(
                Kind::Invalid,
                format!("{} holds a {found} file and not a disk", s.from),
                format!("`rbd export {} - | bmictl image import - --name NAME --format {found}`", s.from),
            )),
            None => Ok(size),
        }
    }

    /// Whether nobody has it open to write.
    fn is_idle(&self, image: &Image) -> Result<(), DriverError> {
        let watchers = image.watchers().map_err(|e| self.fail(e))?;
        let Some(first) = watchers.first() else { return Ok(()) };
        Err(self.no(
            Kind::Busy,
            format!("{} is open: {} clients, the first is {first}", self.s.from, watchers.len()),
            "end who uses it (`rbd status` shows them), or leave --in-place out: then a snapshot of it is cloned",
        ))
    }

    /// The snapshot is there.
    fn snapped(&self, taken: &Taken) -> Result<(), DriverError> {
        if !taken.ours {
            return Ok(());
        }
        let image = absent(self.there.open(Which::Id(&taken.id))).map_err(|e| self.fail(e))?;
        match image.ok_or_else(|| no_such(&self.tried, &self.s.from))?.snap(&taken.snap) {
            Ok(()) | Err(Errno::EEXIST) => self.go_on(),
            Err(e) => Err(self.fail(e)),
        }
    }

    fn in_place(&self, taken: &Taken) -> Result<Imported, DriverError> {
        self.snapped(taken)?;
        let image = absent(self.there.open_read(Which::Id(&taken.id), Some(&taken.snap))).map_err(|e| self.fail(e))?;
        let imported = self.sum(&image.ok_or_else(|| no_such(&self.tried, &self.s.from))?)?;
        self.mark(&taken.id, &imported, 0, Some(taken.snap.clone()))?;
        Ok(imported)
    }

    fn by_clone(&self, mut taken: Taken) -> Result<Imported, DriverError> {
        let (pool, name, fail) = (self.site.pool, self.site.name(&self.what), |e| self.fail(e));
        let there = pool.id_of(&name).map_err(fail)?;
        let id = match there.filter(|id| taken.clone.as_ref() == Some(id)) {
            Some(id) => id,
            None => {
                self.site.pool.discard(&name).map_err(fail)?;
                self.snapped(&taken)?;
                let from = self.there.name_of(&taken.id).map_err(fail)?;
                let from = from.ok_or_else(|| no_such(&self.tried, &self.s.from))?;
                pool.io.make_clone(&self.there.io, &from, &taken.snap, &name).map_err(|e| match e {
                    Errno::ENOENT => no_such(&self.tried, &self.s.from),
                    e => fail(e),
                })?;
                self.go_on()?;
                pool.open(Which::Name(&name)).and_then(|image| image.snap(BASE)).map_err(fail)?;
                let id = pool.id_of(&name).map_err(fail)?.ok_or_else(|| fail(Errno::ENOENT))?;
                taken.clone = Some(id.clone());
                self.go_on()?;
                pool.set_entry(&self.key, &taken).map_err(fail)?;
                self.go_on()?;
                id
            }
        };
        // The clone keeps what it needs of it.
        unsnap(&self.there, &taken).map_err(fail)?;
        self.go_on()?;
        let image = pool.open_read(Which::Id(&id), Some(BASE)).map_err(fail)?;
        let imported = self.sum(&image)?;
        drop(image);
        pool.set_entry(&self.site.flat_key(&id), &name).map_err(fail)?;
        self.go_on()?;
        self.mark(&id, &imported, 1, None)?;
        self.go_on()?;
        pool.remove_entry(&self.key).map_err(fail)?;
        Ok(imported)
    }

    fn mark(&self, id: &str, imported: &Imported, depth: u32, in_place: Option<String>) -> Result<(), DriverError> {
        let note = found::written(self.s.note.as_ref().map(|n| imported.told_in(n)).as_ref());
        let mark = Mark { imported: Some(imported.clone()), in_place, note, ..self.site.mark(&self.what, depth) };
        self.site.pool.set_mark(id, &mark).map_err(|e| self.fail(e))
    }

    /// Reads all of it. What is not stored is zeros and not read.
    fn sum(&self, image: &Image) -> Result<Imported, DriverError> {
        let (size, zeros) = (self.is_a_disk(image)?, vec![0; CHUNK]);
        let (mut sums, mut at) = (Sums::new(), 0);
        let fill = |sums: &mut Sums, at: &mut u64, until: u64| {
            while *at < until {
                if (self.cx.cancelled)() {
                    return Err(cancelled(&self.tried));
                }
                let n = CHUNK.min(usize::try_from(until - *at).unwrap_or(CHUNK));
                sums.take(&zeros[..n]);
                *at += n as u64;
                (self.cx.progress)(*at, Some(size));
            }
            Ok(())
        };
        each(image, size, self.cx, &self.tried, &mut |offset, bytes| {
            fill(&mut sums, &mut at, offset)?;
            sums.take(bytes);
            at += bytes.len() as u64;
            Ok(())
        })?;
        fill(&mut sums, &mut at, size)?;
        let Arrived { md5, sha256, disk_sha256: raw_sha256, .. } = sums.end();
        match &self.s.sha256 {
            Some(said) if !said.eq_ignore_ascii_case(&sha256) => {
                let why = format!("{} is said to have the SHA-256 {said}, and it has {sha256}", self.s.from);
                Err(self.no(Kind::Corrupt, why, "look whether it is the right image"))
            }
            _ => Ok(Imported {
                image: self.s.image,
                source_format: Format::Raw,
                size_bytes: Bytes(size),
                md5,
                sha256,
                raw_sha256,
            }),
        }
    }
}

/// Takes our snapshot of another's image away; while a clone needs it, it waits in the image's trash and goes with that.
fn unsnap(there: &Pool, taken: &Taken) -> Result<(), Errno> {
    if taken.ours
        && let Some(image) = absent(there.open(Which::Id(&taken.id)))?
    {
        absent(image.unsnap(&taken.snap))?;
    }
    Ok(())
}

impl Site<'_> {
    /// What the register says of an image that was or is being taken over.
    pub(super) fn taken(&self, what: &Backing, tried: &str) -> Result<Option<Taken>, DriverError> {
        if what.kind != BackingKind::Image {
            return Ok(None);
        }
        self.pool.entry(&key(self.datastore, what.id)).map_err(|e| failed(tried, e))
    }

    /// Leaves what was taken over as it was, and forgets it. True: it was in place, and nothing else is to be removed.
    pub(super) fn give_back(&self, what: &Backing, tried: &str) -> Result<bool, DriverError> {
        let Some(taken) = self.taken(what, tried)? else { return Ok(false) };
        let fail = |e| failed(tried, e);
        if taken.in_place && self.pool.mark(&taken.id).map_err(fail)?.is_some_and(|m| m.backing() == *what) {
            self.pool.unmark(&taken.id).map_err(fail)?;
        }
        // A pool that is gone holds no snapshot.
        if let Some(there) = absent(elsewhere(self.pool, &taken.source)).map_err(fail)? {
            unsnap(&there, &taken).map_err(fail)?;
        }
        self.pool.remove_entry(&key(self.datastore, what.id)).map_err(fail)?;
        Ok(taken.in_place)
    }
}
