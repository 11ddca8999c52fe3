//! Datastores in pools of a Ceph cluster.
//!
//! ```text
//! PREFIX.i.<id>.0@base     a golden image and the snapshot that disks are cloned from
//! PREFIX.v.<id>.<gen>      a volume: a clone (format 2)
//!   @bmi.<id>.0            a snapshot of it
//! PREFIX.h.<id>.<gen>      a removed volume that snapshots still need
//! anything@anything        a golden image that was taken over in place: the register says so, and it carries our mark
//! PREFIX.n.<digest>        an unfinished import
//! PREFIX.g.<RBD's id>      what waits for its end, where librbd knows no trash
//! bmid.register            object with a map: datastores, snapshots, unfinished imports, chores
//! ```
//!
//! librados and librbd are loaded when a pool is first used; a host without them serves everything else. It keeps nothing
//! between calls that a restart would miss: connections, and what runs. It never touches what its names and marks do not say
//! is its own.

/// Changes of objects.
mod change {
    pub(super) mod ffi;
}
mod alike;
mod chores;
/// Connections.
mod cluster {
    pub(super) mod ffi;
}
mod disks;
mod export;
mod ffi;
mod found;
/// Open images.
mod image {
    pub(super) mod ffi;
}
mod import;
/// The libraries of the host.
mod library {
    pub(super) mod ffi;
}
mod local;
mod names;
mod pattern;
mod pool;
mod reach;
mod receive;
mod recent;
mod store;
mod survey;
mod takeover;
mod trash;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bmi::model::{Fault, Id, Kind, Place, RbdPlace};
use bmi::step::{Fact, Finding, Look, Scope, Seen, Severity, StorageStep};

use self::chores::Chores;
use self::library::ffi::{Api, Missing};
use self::pool::Pool;
use super::file::Convert;
use crate::drivers::krbd::{Disk, Krbd, Reach};
use crate::drivers::{Done, Driver, DriverError, Pools, StepCx};

/// How long a question may take; one for everything in a pool may take longer.
const PATIENCE: Duration = Duration::from_secs(7);

/// How long a step goes on by itself while no monitor answers, before it fails: what was begun before a restart, or while monitors elect
/// one of theirs, is not to be undone because of that.
const WAITS: Duration = Duration::from_secs(30);

/// Steps that can be begun anew as they are, and that operations stand on. Whoever makes a datastore, and reconcile, is told at once.
fn waits(step: &StorageStep) -> bool {
    matches!(step, StorageStep::Clone(_) | StorageStep::Remove(_) | StorageStep::SetNote(_))
}

/// A pool that is connected, and the background of its datastore.
#[derive(Debug, Clone)]
struct Connected {
    pool: Arc<Pool>,
    chores: Chores,
}

/// The driver.
pub struct RbdStore {
    /// Where conversions are made: files of this host.
    scratch: PathBuf,
    converter: Box<dyn Convert>,
    connected: Mutex<HashMap<Id, Connected>>,
    /// Which datastores were asked about: what the doctor looks at.
    known: Mutex<BTreeMap<Id, RbdPlace>>,
    running: import::Running,
    /// Where Ceph's libraries come from.
    api: fn() -> Result<&'static Api, Missing>,
    kernel: Arc<Krbd>,
}

impl std::fmt::Debug for RbdStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RbdStore").field("scratch", &self.scratch).finish_non_exhaustive()
    }
}

impl RbdStore {
    /// The driver; conversions are made in `scratch`.
    #[must_use]
    pub fn new(scratch: PathBuf, converter: Box<dyn Convert>) -> RbdStore {
        let (connected, known, running) = Default::default();
        let kernel = Arc::new(Krbd::direct());
        RbdStore { scratch, converter, connected, known, running, api: library::ffi::api, kernel }
    }

    /// The same, with the kernel's client that targets use, too.
    pub(crate) fn with_kernel(self, kernel: Arc<Krbd>) -> RbdStore {
        RbdStore { kernel, ..self }
    }

    fn connect(&self, datastore: Id, place: &RbdPlace) -> Result<Connected, DriverError> {
        let held = |f: &mut dyn FnMut(&mut HashMap<Id, Connected>)| {
            f(&mut self.connected.lock().unwrap_or_else(PoisonError::into_inner));
        };
        let mut found = None;
        held(&mut |all| found = all.get(&datastore).filter(|c| c.pool.place == *place).cloned());
        if let Some(found) = found {
            return Ok(found);
        }
        // Not under the lock: another pool's users do not wait for this one.
        let pool = Arc::new(Pool::connect(place, &self.api)?);
        let made = Connected { chores: Chores::start(&pool, datastore)?, pool };
        held(&mut |all| {
            found = Some(all.entry(datastore).and_modify(|c| renew(c, &made)).or_insert_with(|| made.clone()).clone())
        });
        Ok(found.unwrap_or(made))
    }

    /// Forgets a connection that no longer serves; the next step makes another.
    fn heed<T>(&self, datastore: Id, result: Result<T, DriverError>) -> Result<T, DriverError> {
        if result.as_ref().is_err_and(Pool::is_lost) {
            self.connected.lock().unwrap_or_else(PoisonError::into_inner).remove(&datastore);
        }
        result
    }

    fn run(&self, step: &StorageStep, place: &RbdPlace, cx: &StepCx<'_>) -> Result<Done, DriverError> {
        let (datastore, _) = step.place();
        if let StorageStep::AdoptStore(s) = step {
            // Another's datastore gets no background of ours before it is ours.
            return found::adopt(&Pool::connect(place, &self.api)?, s);
        }
        let Connected { pool, chores } = self.connect(datastore, place)?;
        let done = match step {
            StorageStep::MakeStore(s) => Done::changed(store::make(&pool, s, &self.kernel)?),
            StorageStep::UnmakeStore(s) => {
                let done = store::unmake(&pool, s, &self.kernel).map(Done::changed)?;
                self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&datastore);
                self.connected.lock().unwrap_or_else(PoisonError::into_inner).remove(&datastore);
                chores::clear_up(pool);
                return Ok(done);
            }
            StorageStep::OpenStore(_) => store::open(&pool, datastore).map(|_| Done::ALREADY)?,
            StorageStep::Import(s) => {
                let by = (&*self.converter, &*self.scratch, &self.running);
                import::import(&store::open(&pool, datastore)?, s, by, cx)?
            }
            StorageStep::TakeOver(s) => takeover::take_over(&store::open(&pool, datastore)?, s, &self.running, cx)?,
            StorageStep::Clone(s) => {
                let (done, chore) = store::known(&pool, datastore)?.clone(s)?;
                if chore {
                    chores.ring();
                }
                return Ok(done);
            }
            StorageStep::SetNote(s) => return found::set(&store::known(&pool, datastore)?, s),
            // Done above.
            StorageStep::AdoptStore(_) => Done::ALREADY,
            StorageStep::Remove(s) => {
                let site = store::known(&pool, datastore)?;
                reach::let_go(&site, &s.what, &self.kernel)?;
                site.remove(&s.what)?
            }
            StorageStep::Export(s) => {
                return export::export(&store::open(&pool, datastore)?, s, &self.scratch, cx);
            }
        };
        chores.ring();
        Ok(done)
    }

    /// Asks about a disk, for a few seconds at most.
    fn ask_of<T: Send + 'static>(
        &self,
        place: &RbdPlace,
        image: &str,
        f: impl FnOnce(&Pool, &str, &str) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let tried = format!("reach disk {image} in pool {}", place.spec());
        let answer = self.connect(place.datastore, place).and_then(|c| {
            let (name, told) = (image.to_owned(), tried.clone());
            c.pool.ask(&tried, PATIENCE, move |pool| f(pool, &name, &told))
        });
        self.heed(place.datastore, answer)
    }

    fn facts(&self, datastore: Id, place: &RbdPlace) -> Result<Fact, DriverError> {
        let asked = self.connect(datastore, place).and_then(|c| {
            c.pool.ask(&format!("look at pool {}", place.spec()), PATIENCE, move |pool| store::facts(pool, datastore))
        });
        match self.heed(datastore, asked) {
            Ok(facts) => Ok(Fact::Datastore(facts)),
            Err(e) if e.kind == Kind::Unavailable => Ok(Fact::Datastore(store::unreachable(place, &e))),
            Err(e) => Err(e),
        }
    }

    /// Over a connection of its own: a pool that is only looked at gets no background.
    fn stores(&self, place: &RbdPlace) -> Result<Fact, DriverError> {
        let tried = format!("look which datastores are in pool {}", place.spec());
        let pool = Arc::new(Pool::connect(place, &self.api)?);
        pool.ask(&tried, PATIENCE, found::stores).map(Fact::Stores)
    }

    fn contents(&self, datastore: Id, place: &RbdPlace) -> Result<Fact, DriverError> {
        let tried = format!("look through pool {}", place.spec());
        let asked = self.connect(datastore, place).and_then(|c| {
            c.pool.ask(&tried, 4 * PATIENCE, move |pool| found::contents(&store::open(pool, datastore)?))
        });
        self.heed(datastore, asked).map(Fact::Contents)
    }

    fn saw(&self, datastore: Id, place: &RbdPlace) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(datastore, place.clone());
    }

    fn findings(&self) -> Vec<Finding> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lacks = if known.is_empty() { None } else { self.lacks() };
        lacks.into_iter().chain(known.into_iter().map(|(datastore, place)| self.finding(datastore, &place))).collect()
    }

    /// What the host's libraries lack, where they are used.
    fn lacks(&self) -> Option<Finding> {
        let lacks = &(self.api)().ok()?.lacks;
        let told: Vec<String> = lacks.iter().map(|(symbol, off)| format!("{symbol} ({off})")).collect();
        (!told.is_empty()).then(|| Finding {
            check: "Ceph's libraries".to_owned(),
            severity: Severity::Warning,
            found: format!("they lack {}", told.join("; ")),
            fix: "install librbd1 and librados2 of Pacific (16) or later, then restart bmid".to_owned(),
        })
    }

    fn finding(&self, datastore: Id, place: &RbdPlace) -> Finding {
        let check = format!("datastore in pool {}", place.spec());
        let told = |severity, found: String, fix: &str| Finding { check, severity, found, fix: fix.to_owned() };
        // Asked first: what it cannot do to connect says better what to do.
        if let Err(e) = self.connect(datastore, place) {
            return told(Severity::Error, e.why, &e.fix);
        }
        match self.facts(datastore, place) {
            Ok(Fact::Datastore(facts)) => match facts.problem {
                Some(problem) if let Some(fix) = facts.full => told(Severity::Error, problem, &fix),
                Some(problem) if facts.available => told(Severity::Warning, problem, ""),
                Some(problem) => told(Severity::Error, problem, "`bmictl reconcile` looks again when that is repaired"),
                None if let Some(lacking) = place.by_kernel().then(|| self.kernel.lacking("")).flatten() => {
                    told(Severity::Error, format!("its disks cannot be mapped: {}", lacking.why), &lacking.fix)
                }
                None if facts.free.0 < facts.total.0 / 10 => told(
                    Severity::Warning,
                    format!("{} of {} are free", facts.free, facts.total),
                    "add OSDs or remove disks; a full pool stops the writes of running machines",
                ),
                None => told(Severity::Ok, format!("{} free, clones share bytes", facts.free), ""),
            },
            Ok(_) => told(Severity::Error, "the pool gave no answer".to_owned(), ""),
            Err(e) => told(Severity::Error, e.why.clone(), &e.fix),
        }
    }
}

/// Two that connected at once keep one connection; a changed place has its own.
fn renew(old: &mut Connected, new: &Connected) {
    if old.pool.place != new.pool.place {
        *old = new.clone();
    }
}

impl Pools for RbdStore {
    fn ready(&self, place: &RbdPlace, image: &str, alive: &dyn Fn() -> Vec<String>) -> Result<u64, DriverError> {
        if let Some(size) = self.connect(place.datastore, place)?.pool.recent.take_made(image) {
            return Ok(size);
        }
        let disk = self.ask_of(place, image, disks::there)?;
        let size = disk.size;
        if disk.locked {
            let alive = alive();
            self.ask_of(place, image, move |pool, _, tried| disks::unlock(pool, &disk, &alive, tried))?;
        }
        Ok(size)
    }

    fn reach(&self, place: &RbdPlace, image: &str) -> Result<Reach, DriverError> {
        self.ask_of(place, image, reach::reach)
    }

    fn disk(&self, place: &RbdPlace, image: &str) -> Result<Disk, DriverError> {
        self.ask_of(place, image, reach::disk)
    }
}

impl Driver for RbdStore {
    type Step = StorageStep;

    fn apply(&self, step: &StorageStep, cx: &StepCx<'_>) -> Result<Done, DriverError> {
        let (datastore, place) = step.place();
        let Place::Rbd(place) = place else {
            return Err(DriverError::new(Kind::Internal, step.describe(), "that datastore is not in a pool"));
        };
        self.saw(datastore, place);
        let begun = Instant::now();
        loop {
            let done = self.heed(datastore, self.run(step, place, cx));
            let silent = done.as_ref().is_err_and(Pool::is_silent);
            if !silent || !waits(step) || begun.elapsed() >= WAITS || (cx.cancelled)() {
                return done;
            }
        }
    }

    fn observe(&self, scope: &Scope) -> Result<Vec<Seen>, DriverError> {
        let Scope::Datastore { datastore, place: Place::Rbd(place) } = scope else { return Ok(Vec::new()) };
        let datastore = *datastore;
        self.saw(datastore, place);
        let seen = self.connect(datastore, place).and_then(|c| {
            let tried = format!("look into pool {}", place.spec());
            c.pool.ask(&tried, 4 * PATIENCE, move |pool| store::observe(&store::open(pool, datastore)?))
        });
        match self.heed(datastore, seen) {
            Err(e) if e.kind == Kind::Unavailable => Ok(Vec::new()),
            other => other,
        }
    }

    fn look(&self, look: &Look) -> Option<Result<Fact, DriverError>> {
        match look {
            Look::Datastore(id, key) => key.rbd.as_ref().map(|place| self.facts(*id, place)),
            Look::RbdClient => Some(Ok(Fact::RbdClient(self.kernel.lacking("map disks").map(Fault::from)))),
            Look::Stores(key) => key.rbd.as_ref().map(|place| self.stores(place)),
            Look::Contents(id, key) => key.rbd.as_ref().map(|place| self.contents(*id, place)),
            Look::Doctor { .. } => Some(Ok(Fact::Findings(self.findings()))),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
