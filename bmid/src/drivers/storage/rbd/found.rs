//! What stands in a pool and what is written beside it: for who looks for orphans, and for who rebuilds records.
//!
//! Notes stand in an image's mark, those of snapshots in the register. A note that cannot be read is none and never makes its
//! image unreadable. Of others' things only their number and whose they are is told; they are never touched.

use std::collections::{BTreeMap, BTreeSet};

use bmi::model::{Bytes, Id, Kind, Note};
use bmi::step::{AdoptStore, Backing, BackingKind, Contents, Seen, SetNote, StoreFound, Thing};
use nix::errno::Errno;

use super::disks::{Site, SnapEntry};
use super::image::ffi::Which;
use super::names::{self, Named};
use super::pool::{Pool, absent, failed, store_key};
use super::store::{self, StoreEntry};
use super::takeover::{self, Taken};
use crate::drivers::{Done, DriverError};

/// A note as it stands in a mark.
pub(super) fn written(note: Option<&Note>) -> Option<serde_json::Value> {
    note.and_then(|n| serde_json::to_value(n).ok())
}

/// A note out of a mark.
fn read(note: Option<serde_json::Value>) -> Option<Note> {
    note.and_then(|n| serde_json::from_value(n).ok())
}

/// Carries out a [`SetNote`].
pub(super) fn set(site: &Site<'_>, s: &SetNote) -> Result<Done, DriverError> {
    let tried = format!("note beside {} {} what it is", s.what.folder(), s.what.name());
    let (pool, fail, to) = (site.pool, |e| failed(&tried, e), written(Some(&s.to)));
    if s.what.kind == BackingKind::Snapshot {
        let Some(entry) = site.snap_entry(&s.what, &tried)? else { return Ok(Done::ALREADY) };
        if entry.note == to {
            return Ok(Done::ALREADY);
        }
        pool.set_entry(&site.snap_key(&s.what), &SnapEntry { note: to, ..entry }).map_err(fail)?;
        return Ok(Done::CHANGED);
    }
    let Some((id, _)) = site.whole(&s.what, &tried, false)? else { return Ok(Done::ALREADY) };
    let changed = pool.change_mark(&id, |mark| {
        let changed = mark.note != to;
        mark.note = to.clone();
        changed
    });
    changed.map(Done::changed).map_err(fail)
}

/// Carries out an [`AdoptStore`].
pub(super) fn adopt(pool: &Pool, s: &AdoptStore) -> Result<Done, DriverError> {
    let tried = format!("take datastore {} over in pool {}", s.datastore, pool.place.spec());
    let key = store_key(s.datastore);
    let found: Option<StoreEntry> = pool.entry(&key).map_err(|e| failed(&tried, e))?;
    match found {
        Some(entry) if entry.engine == s.to => Ok(Done::ALREADY),
        Some(entry) if entry.engine == s.from => {
            pool.set_entry(&key, &StoreEntry { engine: s.to, ..entry }).map_err(|e| failed(&tried, e))?;
            Ok(Done::CHANGED)
        }
        Some(entry) => Err(DriverError::new(Kind::Conflict, tried, format!("it is that of engine {}", entry.engine))
            .fix("`--adopt` without an id lists whose it is")),
        None => Err(DriverError::new(Kind::Unavailable, tried, "the pool does not hold the datastore's id")
            .fix("`--adopt` without an id lists what is there")),
    }
}

/// The datastore of a name of ours or of another engine's: its id.
fn datastore_of(name: &str) -> Option<Id> {
    let hex = name.strip_prefix("bmi.")?.get(..32)?;
    let part = |a: usize, b: usize| hex.get(a..b);
    format!("{}-{}-{}-{}-{}", part(0, 8)?, part(8, 12)?, part(12, 16)?, part(16, 20)?, part(20, 32)?).parse().ok()
}

/// Which datastores stand in the pool, whoever made them.
pub(super) fn stores(pool: &Pool) -> Result<Vec<StoreFound>, DriverError> {
    let tried = format!("look which datastores are in pool {}", pool.place.spec());
    let mut things: BTreeMap<Id, u64> = BTreeMap::new();
    for (_, name) in pool.io.list().map_err(|e| failed(&tried, e))? {
        if let Some(datastore) = datastore_of(&name) {
            *things.entry(datastore).or_default() += 1;
        }
    }
    let entries = pool.entries::<StoreEntry>("store.").map_err(|e| failed(&tried, e))?;
    let found = |(_, entry): (String, StoreEntry)| StoreFound {
        datastore: entry.datastore,
        engine: entry.engine,
        note: entry.note.and_then(|n| serde_json::from_value(n).ok()),
        things: Some(things.get(&entry.datastore).copied().unwrap_or(0)),
    };
    Ok(entries.into_iter().map(found).collect())
}

/// All that stands in a datastore's pool.
pub(super) fn contents(site: &Site<'_>) -> Result<Contents, DriverError> {
    let pool = site.pool;
    let tried = format!("look through pool {}", pool.place.spec());
    let fail = |e| failed(&tried, e);
    let mut all = Contents::default();
    for seen in store::observe(site)? {
        match seen {
            Seen::Backing(what) => all.things.extend(thing(site, what).map_err(fail)?),
            Seen::Staging(name, touched) => all.staging.push((name, touched)),
            _ => {}
        }
    }
    let whole: BTreeSet<Backing> = all.things.iter().map(|t| t.what).collect();
    let prefix = pool.place.prefix();
    for (_, name) in pool.io.list().map_err(fail)? {
        match names::read(&prefix, &name) {
            Some(Named::Whole(what)) if !whole.contains(&what) => all.half_made.push(what),
            Some(Named::Hidden) => all.hidden += 1,
            None if datastore_of(&name).is_none() => all.foreign += 1,
            _ => {}
        }
    }
    let ours = |(_, name): &(String, String)| names::read(&prefix, name).is_some();
    all.trash = pool.trashed().map_err(fail)?.iter().filter(|t| ours(t)).count() as u64;
    all.others = stores(pool)?.into_iter().filter(|s| s.datastore != site.datastore).collect();
    Ok(all)
}

/// What is known of one; none if it went away meanwhile.
fn thing(site: &Site<'_>, what: Backing) -> Result<Option<Thing>, Errno> {
    if what.kind == BackingKind::Snapshot {
        let Some(entry) = site.pool.entry::<SnapEntry>(&site.snap_key(&what))? else { return Ok(None) };
        let snap = names::snap(&what);
        let size = match absent(site.pool.open_read(Which::Id(&entry.image), Some(&snap)))? {
            Some(image) => Some(Bytes(image.size()?)),
            None => return Ok(None),
        };
        let (note, of) = (read(entry.note), Some(entry.volume.id));
        return Ok(Some(Thing { what, size, note, imported: None, of }));
    }
    let id = match site.pool.id_of(&site.name(&what))? {
        Some(id) => id,
        // Under another's name, if it was taken over in place.
        None => match site.pool.entry::<Taken>(&takeover::key(site.datastore, what.id))?.filter(|t| t.in_place) {
            Some(taken) => taken.id,
            None => return Ok(None),
        },
    };
    let Some(mark) = site.pool.mark(&id)? else { return Ok(None) };
    let size = absent(site.pool.size(&id))?.map(Bytes);
    Ok(Some(Thing { what, size, note: read(mark.note), imported: mark.imported, of: None }))
}
