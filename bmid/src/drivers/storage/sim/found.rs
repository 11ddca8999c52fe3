//! What stands in the simulated datastores and what is written beside it, for who rebuilds records.

use bmi::model::{Bytes, Id, Kind, Place};
use bmi::step::look::PlaceKey;
use bmi::step::{self, BackingKind, Contents, Fact, StoreFound, Thing};

use super::{Disk, SimStore, Store, Waiting, key};
use crate::drivers::sim::World;
use crate::drivers::{Done, DriverError};

/// The place behind a key.
pub(super) fn place(at: &PlaceKey) -> Place {
    match &at.rbd {
        Some(pool) => Place::Rbd(pool.clone()),
        None => Place::Folder { path: at.path.clone(), loop_size: None, thin: false },
    }
}

impl SimStore {
    /// Carries out a [`step::SetNote`].
    pub(super) fn set_note(&self, w: &World, s: &step::SetNote) -> Result<Done, DriverError> {
        let name = key(s.datastore, &s.what);
        let Some(disk) = w.get::<Disk>("disk", &name)? else { return Ok(Done::ALREADY) };
        w.put("disk", &name, &Disk { note: Some(s.to.clone()), ..disk }).map(Done::changed)
    }

    /// Carries out a [`step::AdoptStore`].
    pub(super) fn adopt(&self, w: &World, s: &step::AdoptStore) -> Result<Done, DriverError> {
        let store = self.store(w, s.datastore, &s.place)?;
        if store.engine != s.to && store.engine != s.from {
            let why = format!("it is that of engine {}", store.engine);
            let tried = format!("take datastore {} over", s.datastore);
            return Err(
                DriverError::new(Kind::Conflict, tried, why).fix("look whose it is: `--adopt` alone lists them")
            );
        }
        w.put("store", &s.datastore.to_string(), &Store { engine: s.to, ..store }).map(Done::changed)
    }

    /// Answers [`step::Look::Stores`].
    pub(super) fn stores(&self, path: &str) -> Result<Fact, DriverError> {
        let w = self.world()?;
        self.at(&w, path).map(Fact::Stores)
    }

    fn at(&self, w: &World, path: &str) -> Result<Vec<StoreFound>, DriverError> {
        let mut found = Vec::new();
        for (_, store) in w.list::<Store>("store")?.into_iter().filter(|(_, s)| s.path == path) {
            found.push(StoreFound {
                datastore: store.datastore,
                engine: store.engine,
                things: Some(self.disks(w, store.datastore)?.len() as u64),
                note: Some(store.note),
            });
        }
        Ok(found)
    }

    /// Answers [`step::Look::Contents`].
    pub(super) fn contents(&self, datastore: Id, at: &PlaceKey) -> Result<Fact, DriverError> {
        let w = self.world()?;
        self.store(&w, datastore, &place(at))?;
        let thing = |d: Disk| Thing {
            of: d.from.filter(|_| d.backing.kind == BackingKind::Snapshot).map(|from| from.id),
            what: d.backing,
            size: Some(Bytes(d.size)),
            note: d.note,
            imported: d.imported,
        };
        let waiting = w.list::<Waiting>("staging")?.into_iter().map(|(_, s)| s).filter(|s| s.datastore == datastore);
        let others = self.at(&w, &at.path)?.into_iter().filter(|s| s.datastore != datastore).collect();
        Ok(Fact::Contents(Contents {
            things: self.disks(&w, datastore)?.into_iter().map(thing).collect(),
            staging: waiting.map(|s| (s.name, s.changed)).collect(),
            others,
            ..Contents::default()
        }))
    }
}
