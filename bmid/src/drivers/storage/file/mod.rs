//! Datastores in folders: the embedded default.
//!
//! ```text
//! ROOT/.bmid-datastore             the datastore's id and its engine's
//! ROOT/images/<id>.0.raw           a golden image, mode 0400
//! ROOT/images/<id>.0.meta          what its import found out
//! ROOT/volumes/<id>.<gen>.raw      a volume, mode 0600; each with an attribute that says what it is
//! ROOT/snapshots/<id>.0.raw        a snapshot, mode 0400
//! ROOT/staging/<name>/             an unfinished import
//! ROOT.xfs                         with --loop: the XFS that is mounted on ROOT
//! ```
//!
//! It keeps nothing between calls that a restart would miss. It never follows a link inside a root, never touches a root
//! whose id it has not read, and never gives a file its final name before it is whole and durable.

mod convert;
pub(super) mod copy;
mod dir;
pub(super) mod export;
mod facts;
mod ffi;
pub(super) mod import;
mod loopfile;
mod note;
mod place;
pub(super) mod receive;
mod root;
pub(super) mod staging;
pub(super) mod tool;

use std::path::{Path, PathBuf};

use bmi::model::{Kind, Place};
use bmi::step::{Fact, Look, Scope, Seen, StorageStep};

pub use convert::{Convert, Detached, Job, Unit, qemu_name};
pub use staging::collect_staging;

use crate::drivers::{Done, Driver, DriverError, StepCx};

/// Who mounts and who confines.
#[derive(Debug, Clone)]
pub enum Manager {
    /// bmid itself.
    Detached,
    /// systemd: bmid runs as one of its services.
    Systemd(Systemd),
}

impl Manager {
    /// Who converts under it.
    #[must_use]
    pub fn converter(&self) -> Box<dyn Convert> {
        match self {
            Manager::Detached => Box::new(Detached),
            Manager::Systemd(s) => {
                Box::new(Unit { run: s.run.clone(), systemctl: s.systemctl.clone(), journalctl: s.journalctl.clone() })
            }
        }
    }
}

/// How systemd is asked.
#[derive(Debug, Clone)]
pub struct Systemd {
    /// Where units are written.
    pub units: PathBuf,
    /// bmid's run folder; see [`Unit`].
    pub run: PathBuf,
    /// The systemctl to use.
    pub systemctl: PathBuf,
    /// The journalctl to use.
    pub journalctl: PathBuf,
}

impl Systemd {
    /// The system's own, with bmid's run folder.
    #[must_use]
    pub fn new(run: &Path) -> Systemd {
        Systemd {
            units: "/run/systemd/system".into(),
            run: run.to_owned(),
            systemctl: "systemctl".into(),
            journalctl: "journalctl".into(),
        }
    }
}

/// The driver.
pub struct FileStore {
    manager: Manager,
    converter: Box<dyn Convert>,
    known: facts::Known,
}

impl std::fmt::Debug for FileStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileStore").field("manager", &self.manager).finish_non_exhaustive()
    }
}

impl FileStore {
    /// The driver, with mounts and conversion in the given hands.
    #[must_use]
    pub fn new(manager: Manager) -> FileStore {
        let converter = manager.converter();
        FileStore { manager, converter, known: facts::Known::default() }
    }

    /// The same with another converter.
    #[must_use]
    pub fn with_converter(mut self, converter: Box<dyn Convert>) -> FileStore {
        self.converter = converter;
        self
    }
}

impl Driver for FileStore {
    type Step = StorageStep;

    fn apply(&self, step: &StorageStep, cx: &StepCx<'_>) -> Result<Done, DriverError> {
        let (datastore, place) = step.place();
        self.known.saw(datastore, place::folder(place)?);
        match step {
            StorageStep::MakeStore(s) => root::make(s, &self.manager).map(Done::changed),
            StorageStep::OpenStore(s) => root::reopen(s.datastore, &s.place, &self.manager).map(Done::changed),
            StorageStep::UnmakeStore(s) => {
                let done = root::unmake(s, &self.manager).map(Done::changed)?;
                self.known.forget(s.datastore);
                Ok(done)
            }
            StorageStep::Import(s) => import::import(&root::open(datastore, place)?, s, &*self.converter, cx),
            StorageStep::Clone(s) => copy::clone(&root::open(datastore, place)?, s, cx),
            StorageStep::Remove(s) => copy::remove(&root::open(datastore, place)?, &s.what),
            StorageStep::SetNote(s) => note::set(&root::open(datastore, place)?, s),
            StorageStep::AdoptStore(s) => note::adopt(s, &self.manager),
            StorageStep::Export(s) => export::export(&root::open(datastore, place)?, s, cx),
            StorageStep::TakeOver(_) => Err(DriverError::new(Kind::Invalid, step.describe(), "a folder holds no pool")
                .fix("use a datastore of kind rbd")),
        }
    }

    fn observe(&self, scope: &Scope) -> Result<Vec<Seen>, DriverError> {
        let Scope::Datastore { datastore, place } = scope else { return Ok(Vec::new()) };
        self.known.saw(*datastore, place::folder(place)?);
        let root = match root::open(*datastore, place) {
            Ok(root) => root,
            Err(e) if e.kind == Kind::Unavailable => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut seen = vec![Seen::Store(*datastore)];
        let whole = root::backings(&root)?;
        seen.extend(note::bare(&root, &whole)?.into_iter().map(Seen::Bare));
        seen.extend(whole.into_iter().map(Seen::Backing));
        seen.extend(staging::seen(&root)?);
        Ok(seen)
    }

    fn look(&self, look: &Look) -> Option<Result<Fact, DriverError>> {
        match look {
            Look::Datastore(id, key) => Some(self.known.datastore(*id, &key.path).map(Fact::Datastore)),
            Look::Stores(key) => Some(note::stores(&key.path).map(Fact::Stores)),
            Look::Contents(id, key) => {
                let place = Place::Folder { path: key.path.clone(), loop_size: None, thin: false };
                Some(root::open(*id, &place).and_then(|root| note::contents(&root)).map(Fact::Contents))
            }
            Look::Doctor { .. } => Some(Ok(Fact::Findings(self.known.findings(&self.manager)))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
