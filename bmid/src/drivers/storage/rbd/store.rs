//! A datastore in a pool: made, found again, looked at, taken away.
//!
//! The register holds its id and its engine's. Unless that is read and matches, nothing is planned, written or believed gone:
//! a pool of another cluster looks exactly like an empty one.

use std::sync::Arc;

use bmi::model::{Bytes, Id, Kind, RbdPlace};
use bmi::step::{Backing, DatastoreFacts, MakeStore, Seen, UnmakeStore};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::disks::{Site, SnapEntry};
use super::image::ffi::Which;
use super::import::Stage;
use super::names::{self, Named};
use super::pool::{Pool, absent, failed, store_key};
use super::reach;
use super::survey;
use super::takeover::{self, Taken};
use super::trash;
use crate::drivers::DriverError;
use crate::drivers::krbd::Krbd;

/// What the register says of a datastore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoreEntry {
    pub(super) datastore: Id,
    pub(super) engine: Id,
    /// What it says of itself.
    pub(super) note: Option<serde_json::Value>,
}

/// The datastore in its pool, where this connection has found it a moment ago: a connection stays one to the same cluster.
pub(super) fn known<'a>(pool: &'a Pool, datastore: Id) -> Result<Site<'a>, DriverError> {
    match pool.recent.engine() {
        Some(engine) => Ok(Site { pool, datastore, engine }),
        None => open(pool, datastore),
    }
}

/// The datastore in its pool, or why it is not available.
pub(super) fn open<'a>(pool: &'a Pool, datastore: Id) -> Result<Site<'a>, DriverError> {
    let tried = format!("use datastore {datastore} in pool {}", pool.place.spec());
    let found: Option<StoreEntry> = pool.entry(&store_key(datastore)).map_err(|e| failed(&tried, e))?;
    match found {
        Some(entry) => {
            pool.recent.saw_engine(entry.engine);
            Ok(Site { pool, datastore, engine: entry.engine })
        }
        None => {
            pool.recent.forget_all();
            Err(DriverError::new(Kind::Unavailable, tried, "the pool does not hold the datastore's id")
                .fix("look whether the configuration names the right cluster; `bmictl reconcile` looks again"))
        }
    }
}

/// Makes it, or says whose it is. True: something was made.
pub(super) fn make(pool: &Arc<Pool>, s: &MakeStore, kernel: &Krbd) -> Result<bool, DriverError> {
    let tried = format!("make a datastore in pool {}", pool.place.spec());
    let fail = |e| failed(&tried, e);
    let conflict = |entry: &StoreEntry| {
        let why = format!("it is that of datastore {} of engine {}", entry.datastore, entry.engine);
        Err(DriverError::new(Kind::Conflict, tried.as_str(), why).fix("choose another pool or namespace"))
    };
    let survey = survey::ask(pool, &tried)?;
    survey.fits(&pool.place, &tried)?;
    for (_, entry) in pool.entries::<StoreEntry>("store.").map_err(fail)? {
        match (entry.datastore == s.datastore, entry.engine == s.engine) {
            (true, true) => return Ok(false),
            (false, false) => {}
            _ => return conflict(&entry),
        }
    }
    survey.has_room(&pool.place, &tried)?;
    survey.try_out(pool, &tried)?;
    if pool.place.by_kernel() {
        reach::try_out(pool, kernel, &tried)?;
    }
    let note = serde_json::to_value(&s.note).ok();
    let entry = StoreEntry { datastore: s.datastore, engine: s.engine, note };
    pool.set_entry(&store_key(s.datastore), &entry).map_err(fail)?;
    Ok(true)
}

/// Takes it away if it is empty. True: something went.
pub(super) fn unmake(pool: &Arc<Pool>, s: &UnmakeStore, kernel: &Krbd) -> Result<bool, DriverError> {
    let tried = format!("take datastore {} away from pool {}", s.datastore, pool.place.spec());
    let fail = |e| failed(&tried, e);
    if pool.entry::<StoreEntry>(&store_key(s.datastore)).map_err(fail)?.is_none() {
        // It was never whole: what it was tried with may be there.
        survey::clear(pool);
        reach::clear(pool, kernel);
        return Ok(false);
    }
    let site = open(pool, s.datastore)?;
    let held = observe(&site)?;
    let disks: Vec<&Seen> = held.iter().filter(|s| matches!(s, Seen::Backing(_))).collect();
    if let Some(Seen::Backing(first)) = disks.first() {
        let why = format!("{} disks are in it, the first is {}/{}", disks.len(), first.folder(), first.name());
        return Err(DriverError::new(Kind::Conflict, tried, why).fix("remove its images, volumes and snapshots first"));
    }
    for (_, name) in pool.io.list().map_err(fail)? {
        if names::read(&pool.place.prefix(), &name).is_some_and(|n| n != Named::Gone) {
            absent(pool.trash(&name)).map_err(fail)?;
        }
    }
    trash::purge(pool, |name| names::read(&pool.place.prefix(), name).is_some());
    for kind in ["stage", "flat", "snap", "from"] {
        for (key, _) in pool.entries::<serde_json::Value>(&format!("{kind}.{}.", s.datastore)).map_err(fail)? {
            pool.remove_entry(&key).map_err(fail)?;
        }
    }
    pool.recent.forget_all();
    pool.remove_entry(&store_key(s.datastore)).map_err(fail)?;
    Ok(true)
}

/// Everything whole in it, and what waits.
pub(super) fn observe(site: &Site<'_>) -> Result<Vec<Seen>, DriverError> {
    let tried = format!("list datastore {} in pool {}", site.datastore, site.pool.place.spec());
    let fail = |e| failed(&tried, e);
    let (pool, prefix) = (site.pool, &site.pool.place.prefix());
    let mut seen = vec![Seen::Store(site.datastore)];
    for (id, name) in pool.io.list().map_err(fail)? {
        if let Some(Named::Whole(what)) = names::read(prefix, &name) {
            marked(site, &id, what, &mut seen).map_err(fail)?;
        }
    }
    for (key, taken) in pool.entries::<Taken>(&format!("from.{}.", site.datastore)).map_err(fail)? {
        let Some(what) = takeover::image_of(&key).map(Backing::image).filter(|_| taken.in_place) else { continue };
        marked(site, &taken.id, what, &mut seen).map_err(fail)?;
    }
    // An image with many snapshots is opened once.
    let mut known: Option<(String, Vec<String>)> = None;
    let mut snaps = pool.entries::<SnapEntry>(&format!("snap.{}.", site.datastore)).map_err(fail)?;
    snaps.sort_by(|a, b| a.1.image.cmp(&b.1.image));
    for (key, entry) in snaps.into_iter().filter(|(_, e)| e.done) {
        let Some(what) = snapshot_of(&key) else { continue };
        if known.as_ref().is_none_or(|(image, _)| *image != entry.image) {
            let opened = absent(pool.open_read(Which::Id(&entry.image), None)).map_err(fail)?;
            let names = opened.map(|image| image.snaps()).transpose().map_err(fail)?.unwrap_or_default();
            known = Some((entry.image.clone(), names));
        }
        if known.as_ref().is_some_and(|(_, names)| names.contains(&names::snap(&what))) {
            seen.push(Seen::Backing(what));
            seen.extend(entry.note.is_none().then_some(Seen::Bare(what)));
        }
    }
    let stages = pool.entries::<Stage>(&format!("stage.{}.", site.datastore)).map_err(fail)?;
    let begin = format!("stage.{}.", site.datastore).len();
    seen.extend(stages.into_iter().map(|(key, s)| Seen::Staging(key[begin..].to_owned(), s.touched)));
    Ok(seen)
}

/// What an image is by its mark, if that is of this backing.
fn marked(site: &Site<'_>, id: &str, what: Backing, seen: &mut Vec<Seen>) -> Result<(), Errno> {
    let mark = site.pool.mark(id)?.filter(|m| m.datastore == site.datastore && m.backing() == what);
    if let Some(mark) = mark {
        seen.push(Seen::Backing(what));
        seen.extend(mark.note.is_none().then_some(Seen::Bare(what)));
    }
    Ok(())
}

/// The snapshot that a key of the register is about.
fn snapshot_of(key: &str) -> Option<bmi::step::Backing> {
    let (rest, _generation) = key.rsplit_once('.')?;
    let (_, id) = rest.rsplit_once('.')?;
    id.parse().ok().map(bmi::step::Backing::snapshot)
}

/// What `ceph df` says of a pool.
#[derive(Debug, Deserialize)]
struct Df {
    pools: Vec<DfPool>,
}

#[derive(Debug, Deserialize)]
struct DfPool {
    name: String,
    stats: DfStats,
}

#[derive(Debug, Deserialize)]
struct DfStats {
    #[serde(default)]
    stored: u64,
    max_avail: u64,
    #[serde(default)]
    quota_objects: u64,
    #[serde(default)]
    quota_bytes: u64,
}

impl DfStats {
    /// Whether it is worth asking if anything can be written: a quota is set, or less than a quarter is free.
    fn may_be_full(&self) -> bool {
        self.quota_objects > 0
            || self.quota_bytes > 0
            || self.max_avail < self.stored.saturating_add(self.max_avail) / 4
    }
}

/// What it can and has.
pub(super) fn facts(pool: &Pool, datastore: Id) -> Result<DatastoreFacts, DriverError> {
    let tried = format!("look at pool {}", pool.place.spec());
    let problem = match open(pool, datastore) {
        Ok(_) => None,
        Err(e) if e.kind == Kind::Unavailable => Some(e.why),
        Err(e) => return Err(e),
    };
    let answer =
        pool.cluster.ask(r#"{"prefix":"df","detail":"detail","format":"json"}"#).map_err(|e| failed(&tried, e))?;
    let df: Df = serde_json::from_slice(&answer).map_err(|e| {
        DriverError::new(Kind::Outside, tried.as_str(), format!("the answer to `ceph df` is not understood: {e}"))
    })?;
    let stats = df.pools.into_iter().find(|p| p.name == pool.place.pool).map(|p| p.stats);
    let tight = match stats.as_ref().filter(|s| s.may_be_full()) {
        Some(_) => survey::ask(pool, &tried)?.tight(&pool.place, &tried),
        None => None,
    };
    let (stored, free) = stats.map_or((0, 0), |s| (s.stored, s.max_avail));
    Ok(DatastoreFacts {
        available: problem.is_none(),
        full: tight.as_ref().filter(|t| t.kind == Kind::Full).map(|t| t.fix.clone()),
        problem: problem
            .or_else(|| tight.map(|t| if t.kind == Kind::Full { t.why } else { format!("{}: {}", t.why, t.fix) })),
        reflink: true,
        total: Bytes(stored.saturating_add(free)),
        free: Bytes(free),
        filesystem: "rbd".to_owned(),
    })
}

/// What is told of a pool that cannot be reached.
pub(super) fn unreachable(place: &RbdPlace, e: &DriverError) -> DatastoreFacts {
    DatastoreFacts {
        available: false,
        problem: Some(format!("pool {}: {}", place.spec(), e.why)),
        reflink: true,
        total: Bytes(0),
        free: Bytes(0),
        filesystem: "rbd".to_owned(),
        full: None,
    }
}
