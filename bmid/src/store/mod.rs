//! The store: what bmid has promised, on disk. sled under typed records, with indexes and usage in the same write.
//!
//! One writer at a time puts a batch of changes together and applies it whole; a committer makes all waiting ones durable at
//! once, in a log of our own. sled gets them later, off the way of any answer (feed.rs); until then they lie ahead of it in
//! memory, and every look lays them over it. Readers hold the shared side of a gate that whoever changes either holds
//! alone, because sled's scans see half a batch otherwise. The store knows records and nothing of operations or drivers,
//! and it never acts on the world.

mod ahead;
mod check;
mod codec;
mod commit;
mod dump;
mod feed;
mod ffi;
mod journal;
pub(crate) mod lock;
mod log;
mod migrations;
mod open;
mod raw;
mod recover;
mod reserve;
mod restore;
mod tables;
mod tx;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;

use bmi::model::{Fault, Kind, Meta, View};

pub use check::UsageDrift;
pub use codec::{DecodeError, recode_row};
pub use commit::{OnDurable, OnFailed, Ticket};
pub(crate) use ffi::{give_back_memory, keep_memory_together};
pub use journal::{EventFilter, Purged};
pub use log::{BadLog, LOG_BYTES, read_log, recode_log};
pub use open::{OpenError, Opened, Options};
pub use tables::SCHEMA;
pub use tx::Tx;

use ahead::Ahead;
use commit::Commits;
use log::{Changes, Space};
use open::Broken;
use raw::{Live, Rows};
use reserve::{Reserve, Room};

/// A file of the log longer than this waits for the other one, which is being brought into sled.
const LONG: u64 = 32 << 20;

/// The store. Cheap to clone; the last one dropped brings everything into sled and lets go of the folder.
///
/// Never call the store from inside a closure given to [`Store::read`] or [`Store::write`]: it would wait for itself.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    meta: RwLock<Arc<Meta>>,
    core: Arc<Core>,
    /// The committer, and the feeder.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Who writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Not while a dump is taken in.
    Anybody,
    /// Who takes it in.
    Restore,
}

/// What the store and its threads share.
struct Core {
    db: sled::Db,
    /// Held while a batch is put together: there is one writer. Inside: the room it has in the log.
    writer: Mutex<Space>,
    /// Readers share it; whoever changes what is ahead of sled, or sled, has it alone.
    gate: RwLock<Ahead>,
    commits: Arc<Commits>,
    feeder: feed::Feeder,
    reserve: Reserve,
    // Last, so that it is let go of last.
    _lock: lock::Lock,
}

impl Store {
    /// Opens the store in `dir`, making it where there is none. Refused while another process holds it.
    pub fn open(dir: &Path, options: Options) -> Result<Opened, OpenError> {
        open::open(dir, options, Broken::Moved)
    }

    /// The same for somebody who only looks: a store that does not open is left where it is.
    pub fn open_to_look(dir: &Path, options: Options) -> Result<Opened, OpenError> {
        open::open(dir, options, Broken::Left)
    }

    /// Stores of a state folder that did not open and were moved aside, newest last, and its newest dump.
    #[must_use]
    pub fn beside(dir: &Path) -> (Vec<PathBuf>, Option<PathBuf>) {
        (open::aside(dir), open::newest_dump(dir))
    }

    /// A consistent look at all rows. The rows seen may not be durable yet; see [`Store::settled`].
    pub fn read<T>(&self, f: impl FnOnce(&dyn View) -> Result<T, Fault>) -> Result<T, Fault> {
        self.inner.core.commits.alive()?;
        let meta = self.inner.meta();
        let ahead = self.inner.core.look();
        f(&Rows { raw: Live::new(&self.inner.core.db, &ahead), meta: &meta })
    }

    /// Puts changes together and applies them as one, or nothing on `Err`. The ticket tells when they are durable; if `f`
    /// changed nothing it tells when everything that `f` may have read is.
    pub fn write<T>(&self, f: impl FnOnce(&mut Tx<'_>) -> Result<T, Fault>) -> Result<(T, Ticket), Fault> {
        self.inner.core.commits.alive()?;
        self.inner.transact(Who::Anybody, f)
    }

    /// A ticket for everything applied so far: wait for it before answering with rows that another writer has just put.
    pub fn settled(&self) -> Ticket {
        self.inner.core.commits.settled()
    }

    /// Ends it as a failed flush does: nothing is served from it any more. For simulated failures.
    pub(crate) fn fail(&self, fault: Fault) {
        self.inner.core.commits.fail(fault);
    }

    /// The store's own record.
    pub fn meta(&self) -> Arc<Meta> {
        self.inner.meta()
    }

    /// The state folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Whether the reserve file against a full disk is in place.
    #[must_use]
    pub fn reserve_present(&self) -> bool {
        self.inner.core.reserve.present()
    }

    /// Makes the reserve file again if it is missing and there is room for it; says whether it is in place now.
    pub fn remake_reserve(&self) -> Result<bool, Fault> {
        self.inner.core.reserve.remake()
    }

    fn put_meta(&self, meta: Meta) -> Result<(), Fault> {
        let ((), ticket) = self.write(|tx| tx.put_stored(vec![tables::META], &meta))?;
        ticket.wait()?;
        *self.inner.meta.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(meta);
        Ok(())
    }

    /// A look for the store's own readers.
    fn look<T>(&self, f: impl FnOnce(&Live<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        self.inner.core.commits.alive()?;
        let ahead = self.inner.core.look();
        f(&Live::new(&self.inner.core.db, &ahead))
    }
}

impl Inner {
    fn meta(&self) -> Arc<Meta> {
        Arc::clone(&self.meta.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until those are out who began to read before now.
    fn wait_for_readers(&self) {
        drop(self.core.gate.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// A transaction.
    fn transact<T>(&self, who: Who, f: impl FnOnce(&mut Tx<'_>) -> Result<T, Fault>) -> Result<(T, Ticket), Fault> {
        let mut space = self.core.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if who == Who::Anybody {
            // A restore may have begun while we waited.
            self.core.commits.alive()?;
        }
        let meta = self.meta();
        let ahead = self.core.look();
        let mut tx = Tx::new(Live::new(&self.core.db, &ahead), &meta);
        let out = f(&mut tx)?;
        let (changes, ends) = tx.into_changes();
        drop(ahead);
        let ticket = self.apply(&mut space, changes, ends)?;
        Ok((out, ticket))
    }

    /// Applies changes; the caller is the one writer. Refused before anything has changed where there is no room.
    fn apply(&self, space: &mut Space, changes: Changes, ends: bool) -> Result<Ticket, Fault> {
        let core = &self.core;
        core.commits.not_failed()?;
        if changes.is_empty() {
            return Ok(core.commits.settled());
        }
        match core.reserve.room(ends) {
            Room::Enough => {}
            Room::Full => return Err(full(&self.dir)),
        }
        let need = log::room_for(&changes);
        core.make_room(space, need, ends).map_err(|e| match raw::is_full(&e) {
            true => full(&self.dir),
            false => raw::outside("make room in the log", &e.into()),
        })?;
        let bytes = log::encode(&changes);
        let mut gate = core.gate.write().unwrap_or_else(PoisonError::into_inner);
        let first = gate.young.is_empty();
        gate.put(changes);
        drop(gate);
        if first {
            core.feeder.is_ahead();
        }
        Ok(core.commits.applied(bytes))
    }
}

impl Core {
    fn look(&self) -> RwLockReadGuard<'_, Ahead> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Speaks for room in the log: in this file, else in the other one, else this one grows.
    fn make_room(&self, space: &mut Space, need: u64, ends: bool) -> std::io::Result<()> {
        if space.filled() > LONG {
            self.feeder.wait_free();
        }
        if !space.fits(need) && !self.look().young.is_empty() && self.feeder.is_free() {
            self.turn(space);
        }
        match space.take(need) {
            Err(e) if ends && raw::is_full(&e) && self.reserve.release() => space.take(need),
            done => done,
        }
    }
}

fn full(dir: &Path) -> Fault {
    Fault::new(Kind::Full, "the file system of the state folder is full")
        .trying(format!("write to the store in {}", dir.display()))
        .fix("make room there and try again; running operations go on to their end")
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.core.feeder.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // Dropped by a thread of its own (in what it tells a waiting one) the store cannot wait for them: they hold what
        // they need, the folder's lock too, until they have ended.
        if threads.iter().all(|t| t.thread().id() != std::thread::current().id()) {
            for thread in threads {
                // One that panicked has nothing left to say here.
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests;
