//! Getting into sled what the log holds, off the way of any answer: when the log's file is full, when nothing was committed
//! for a moment, and when the store is closed.
//!
//! sled is fed in small pieces, each durable before the next, and told last how far it now is. Until then what it is fed is
//! hidden by the same values ahead of it, and the log's file keeps them: a crash at any point feeds it again.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bmi::model::Fault;
use sled::IVec;

use super::ffi::give_back_memory;
use super::log::{Changes, Files, Space};
use super::{Core, raw, tables};

/// So many bytes of keys and values go into sled at once. sled keeps copies of all pages that a batch touches until it is
/// through, and relies for its order on disks that keep theirs between two fdatasyncs: both want it small.
const PIECE: usize = 256 << 10;
/// So many keys at once.
const KEYS: usize = 1_024;
/// After so long without a commit what is ahead goes into sled.
const IDLE: Duration = Duration::from_secs(1);

/// From so many keys on, what they took of memory is given back to the system: the allocator would keep it for good.
pub(super) const LARGE: usize = 8_000;

/// What the feeder has to do, and whether it is done.
#[derive(Default)]
pub(super) struct Feeder {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// A turn whose last commit this is, and the file it left.
    turn: Option<(u64, usize)>,
    /// A commit came that is ahead of sled.
    ahead: bool,
    closing: bool,
    ended: bool,
}

enum Next {
    Turn(u64, usize),
    Idle,
    Close,
}

impl Feeder {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The other file is free: there may be a turn.
    pub(super) fn is_free(&self) -> bool {
        self.state().turn.is_none()
    }

    /// A turn was made.
    pub(super) fn turn(&self, last: u64, left: usize) {
        let mut state = self.state();
        state.turn = Some((last, left));
        state.ahead = false;
        drop(state);
        self.changed.notify_all();
    }

    /// The first commit since the last turn came.
    pub(super) fn is_ahead(&self) {
        self.state().ahead = true;
        self.changed.notify_all();
    }

    /// Waits until the other file is free, or will never be.
    pub(super) fn wait_free(&self) {
        let state = self.state();
        let _free = self.changed.wait_while(state, |s| s.turn.is_some() && !s.ended);
    }

    /// Has the feeder bring everything into sled and end.
    pub(super) fn close(&self) {
        self.state().closing = true;
        self.changed.notify_all();
    }

    fn done(&self) {
        self.state().turn = None;
        self.changed.notify_all();
    }

    fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }

    fn next(&self, last_seen: &mut u64, applied: impl Fn() -> u64) -> Next {
        let mut state = self.state();
        loop {
            if let Some((last, left)) = state.turn {
                return Next::Turn(last, left);
            }
            if state.closing {
                return Next::Close;
            }
            if !state.ahead {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (again, waited) = self.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = again;
            if waited.timed_out() {
                let now = applied();
                if *last_seen == now {
                    return Next::Idle;
                }
                *last_seen = now;
            }
        }
    }
}

impl Core {
    /// What is ahead becomes what is fed; commits go to the other file, which must be free. The caller is the one writer.
    pub(super) fn turn(&self, space: &mut Space) {
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        gate.old = Arc::new(std::mem::take(&mut gate.young));
        drop(gate);
        let last = self.commits.switch();
        self.feeder.turn(last, space.switch());
    }

    /// The feeder's thread.
    pub(super) fn feed(&self, data: &File, files: &Files) {
        let mut last_seen = 0;
        loop {
            let next = self.feeder.next(&mut last_seen, || self.commits.last());
            let fed = match next {
                Next::Turn(last, left) => self.feed_turn(data, files, last, left),
                // What little room there is stays for those who need it; the log keeps everything.
                Next::Idle if self.reserve.is_low() => Ok(()),
                Next::Idle => {
                    self.turn_if_ahead();
                    Ok(())
                }
                Next::Close if self.reserve.is_low() || !self.turn_if_ahead() => break,
                Next::Close => Ok(()),
            };
            if fed.is_err() {
                break;
            }
        }
        self.feeder.end();
        // The committer was needed until now.
        self.commits.close();
    }

    /// Has what is ahead brought into sled, and waits for it.
    pub(super) fn catch_up(&self) {
        self.feeder.wait_free();
        self.turn_if_ahead();
        self.feeder.wait_free();
    }

    /// Makes a turn if there is something to bring and the other file is free; says whether it did.
    pub(super) fn turn_if_ahead(&self) -> bool {
        let mut space = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = !self.gate.read().unwrap_or_else(PoisonError::into_inner).young.is_empty();
        let turns = ahead && self.commits.not_failed().is_ok() && self.feeder.is_free();
        if turns {
            self.turn(&mut space);
        }
        turns
    }

    fn feed_turn(&self, data: &File, files: &Files, last: u64, left: usize) -> Result<(), Fault> {
        // sled must not have what the log may lose.
        self.commits.ticket(last).wait()?;
        self.reserve.release_if_low();
        let old = Arc::clone(&self.gate.read().unwrap_or_else(PoisonError::into_inner).old);
        let fed = catch_unwind(AssertUnwindSafe(|| {
            feed(&self.db, data, &old, last, |batch| {
                let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
                self.db.apply_batch(batch)
            })
        }));
        let fed = fed.unwrap_or_else(|_| Err(Fault::internal("sled panicked").trying("bring commits into the store")));
        if let Err(fault) = fed {
            self.reserve.release();
            self.commits.fail(fault.clone());
            return Err(fault);
        }
        let large = old.len() > LARGE;
        drop(old);
        let gone = std::mem::take(&mut self.gate.write().unwrap_or_else(PoisonError::into_inner).old);
        drop(gone);
        if large {
            give_back_memory();
        }
        // A file that stays large is only large.
        let _ = files.shrink(left);
        self.feeder.done();
        Ok(())
    }
}

/// Gets changes into sled, durable, and then how far it is by them.
pub(super) fn feed(
    db: &sled::Db,
    data: &File,
    changes: &Changes,
    last: u64,
    apply: impl Fn(sled::Batch) -> sled::Result<()>,
) -> Result<(), Fault> {
    let failed = |e: sled::Error| raw::outside("bring commits into the store", &e);
    let settle = |batch| {
        apply(batch).and_then(|()| db.flush()).map_err(failed)?;
        // sled's flush alone does not survive power loss (it uses sync_file_range).
        data.sync_data().map_err(|e| failed(sled::Error::Io(e)))
    };
    let (mut batch, mut keys, mut bytes) = (sled::Batch::default(), 0, 0);
    for (key, value) in changes {
        match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        }
        keys += 1;
        bytes += key.len() + value.as_ref().map_or(0, |v| v.len());
        if keys >= KEYS || bytes >= PIECE {
            settle(std::mem::take(&mut batch))?;
            (keys, bytes) = (0, 0);
        }
    }
    // A piece of its own would cost another round; in the last one it is as atomic.
    batch.insert(&[tables::REACHED], reached(last));
    settle(batch)
}

/// The row that says how far sled is.
pub(super) fn reached(last: u64) -> IVec {
    let mut row = [tables::REACHED_VERSION; 9];
    row[1..].copy_from_slice(&last.to_be_bytes());
    IVec::from(&row)
}

/// How far the row says sled is.
pub(super) fn read_reached(row: &[u8]) -> Option<u64> {
    let (version, number) = row.split_first()?;
    (*version == tables::REACHED_VERSION).then_some(())?;
    Some(u64::from_be_bytes(number.try_into().ok()?))
}
