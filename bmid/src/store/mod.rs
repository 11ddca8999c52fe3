//! The store: what bmid has promised, on disk. sled under typed records, with indexes and usage in the same write.
//!
//! One writer at a time puts a batch together and applies it whole; a committer makes all waiting batches durable at once.
//! Readers hold the shared side of a gate that the writer holds while it applies, because sled's scans see half a batch
//! otherwise. The store knows records and nothing of operations or drivers, and it never acts on the world.

mod check;
mod codec;
mod commit;
mod dump;
mod journal;
pub(crate) mod lock;
mod migrations;
mod open;
mod raw;
mod reserve;
mod tables;
mod tx;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use bmi::model::{Fault, Kind, Meta, View};

pub use check::UsageDrift;
pub use codec::{DecodeError, recode_row};
pub use commit::{OnDurable, OnFailed, Ticket};
pub use journal::{EventFilter, Purged};
pub use open::{OpenError, Opened, Options};
pub use tables::SCHEMA;
pub use tx::Tx;

use commit::Commits;
use raw::{Live, Rows};
use reserve::{Reserve, Room};

/// The store. Cheap to clone; the last one dropped makes everything durable and lets go of the folder.
///
/// Never call the store from inside a closure given to [`Store::read`] or [`Store::write`]: it would wait for itself.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    db: sled::Db,
    /// Held while a batch is put together: there is one writer.
    writer: Mutex<()>,
    /// Readers share it, the writer has it while it applies.
    gate: RwLock<()>,
    meta: RwLock<Arc<Meta>>,
    commits: Arc<Commits>,
    reserve: Arc<Reserve>,
    committer: Mutex<Option<JoinHandle<()>>>,
    // Last, so that it is let go of last.
    _lock: lock::Lock,
}

impl Store {
    /// Opens the store in `dir`, making it where there is none. Refused while another process holds it.
    pub fn open(dir: &Path, options: Options) -> Result<Opened, OpenError> {
        open::open(dir, options)
    }

    /// A consistent look at all rows. The rows seen may not be durable yet; see [`Store::settled`].
    pub fn read<T>(&self, f: impl FnOnce(&dyn View) -> Result<T, Fault>) -> Result<T, Fault> {
        self.inner.commits.alive()?;
        let meta = self.inner.meta();
        let _shared = self.inner.gate.read().unwrap_or_else(PoisonError::into_inner);
        f(&Rows { raw: Live(&self.inner.db), meta: &meta })
    }

    /// Puts changes together and applies them as one, or nothing on `Err`. The ticket tells when they are durable; if `f`
    /// changed nothing it tells when everything that `f` may have read is.
    pub fn write<T>(&self, f: impl FnOnce(&mut Tx<'_>) -> Result<T, Fault>) -> Result<(T, Ticket), Fault> {
        self.inner.commits.alive()?;
        let _writer = self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let meta = self.inner.meta();
        let mut tx = Tx::new(&self.inner.db, &meta);
        let out = f(&mut tx)?;
        let ticket = self.inner.apply(tx)?;
        Ok((out, ticket))
    }

    /// A ticket for everything applied so far: wait for it before answering with rows that another writer has just put.
    pub fn settled(&self) -> Ticket {
        self.inner.commits.settled()
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
        self.inner.reserve.present()
    }

    /// Makes the reserve file again if it is missing and there is room for it; says whether it is in place now.
    pub fn remake_reserve(&self) -> Result<bool, Fault> {
        self.inner.reserve.remake()
    }

    fn put_meta(&self, meta: Meta) -> Result<(), Fault> {
        let ((), ticket) = self.write(|tx| tx.put_stored(vec![tables::META], &meta))?;
        ticket.wait()?;
        *self.inner.meta.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(meta);
        Ok(())
    }

    /// A look for the store's own readers.
    fn look<T>(&self, f: impl FnOnce(&Live<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        self.inner.commits.alive()?;
        let _shared = self.inner.gate.read().unwrap_or_else(PoisonError::into_inner);
        f(&Live(&self.inner.db))
    }
}

impl Inner {
    fn meta(&self) -> Arc<Meta> {
        Arc::clone(&self.meta.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Applies a transaction; the caller is the one writer.
    fn apply(&self, tx: Tx<'_>) -> Result<Ticket, Fault> {
        self.commits.alive()?;
        let ends = tx.ends_something();
        let Some(batch) = tx.into_batch() else { return Ok(self.commits.settled()) };
        match self.reserve.room(ends) {
            Room::Enough => {}
            Room::Full => return Err(full(&self.dir)),
        }
        let gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let done = catch_unwind(AssertUnwindSafe(|| self.db.apply_batch(batch)));
        drop(gate);
        let fault = match done {
            Ok(Ok(())) => return Ok(self.commits.applied()),
            Ok(Err(e)) => raw::outside("apply a change to the store", &e),
            Err(_) => Fault::internal("sled panicked").trying("apply a change to the store"),
        };
        // Half of it may stand in memory: nothing further may be served from it.
        self.reserve.release();
        self.commits.fail(fault.clone());
        Err(fault)
    }
}

fn full(dir: &Path) -> Fault {
    Fault::new(Kind::Full, "the file system of the state folder is full")
        .trying(format!("write to the store in {}", dir.display()))
        .fix("make room there and try again; running operations go on to their end")
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.commits.close();
        let thread = self.committer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // A committer that panicked has nothing left to say here.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
