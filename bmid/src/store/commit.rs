//! Making commits durable, many at once: one thread that flushes sled and then calls fdatasync on sled's data file, and the
//! tickets that wait for it.
//!
//! sled's flush alone does not survive power loss (it uses sync_file_range); no ticket may resolve before fdatasync returned.
//! A failed flush ends the store: whether what was applied is on disk is not known any more, so nothing further is served.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bmi::model::{Fault, Kind};

use super::raw;

/// What is called when a commit is durable, or never will be.
pub type OnDurable = Box<dyn FnOnce(Result<(), Fault>) + Send>;
/// What is called once when the store has failed.
pub type OnFailed = Box<dyn Fn(Fault) + Send + Sync>;

#[derive(Default)]
struct State {
    /// How many commits were applied.
    applied: u64,
    /// How many of them are durable.
    durable: u64,
    failed: Option<Fault>,
    closing: bool,
    waiting: Vec<(u64, OnDurable)>,
}

/// What the writer, the committer and all tickets share.
pub(super) struct Commits {
    state: Mutex<State>,
    /// Wakes the committer.
    work: Condvar,
    /// Wakes waiting tickets.
    done: Condvar,
    dead: AtomicBool,
    on_failed: OnFailed,
}

impl Commits {
    pub(super) fn new(on_failed: OnFailed) -> Commits {
        Commits {
            state: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            dead: AtomicBool::new(false),
            on_failed,
        }
    }

    /// A panic under this lock cannot leave the state half-changed: nothing that panics runs under it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses once the store has failed.
    pub(super) fn alive(&self) -> Result<(), Fault> {
        if !self.dead.load(Ordering::Acquire) {
            return Ok(());
        }
        let fault = self.state().failed.clone();
        Err(fault.unwrap_or_else(|| Fault::new(Kind::Unavailable, "the store has failed")))
    }

    /// One more commit was applied to the tree.
    pub(super) fn applied(self: &Arc<Self>) -> Ticket {
        let mut state = self.state();
        state.applied += 1;
        let seq = state.applied;
        drop(state);
        self.work.notify_one();
        Ticket { commits: Arc::clone(self), seq }
    }

    /// A ticket for everything applied so far.
    pub(super) fn settled(self: &Arc<Self>) -> Ticket {
        let seq = self.state().applied;
        Ticket { commits: Arc::clone(self), seq }
    }

    /// The store ends here.
    pub(super) fn fail(&self, fault: Fault) {
        let mut state = self.state();
        if state.failed.is_some() {
            return;
        }
        state.failed = Some(fault.clone());
        self.dead.store(true, Ordering::Release);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.done.notify_all();
        for (_, tell) in waiting {
            tell(Err(fault.clone()));
        }
        (self.on_failed)(fault);
    }

    /// Has the committer make the rest durable and end.
    pub(super) fn close(&self) {
        self.state().closing = true;
        self.work.notify_one();
    }

    fn next(&self) -> Option<u64> {
        let mut state = self.state();
        loop {
            if state.failed.is_some() {
                return None;
            }
            if state.applied > state.durable {
                return Some(state.applied);
            }
            if state.closing {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn durable(&self, seq: u64) {
        let mut state = self.state();
        state.durable = seq;
        let (told, waiting) = std::mem::take(&mut state.waiting).into_iter().partition(|(s, _)| *s <= seq);
        state.waiting = waiting;
        drop(state);
        self.done.notify_all();
        let told: Vec<(u64, OnDurable)> = told;
        for (_, tell) in told {
            tell(Ok(()));
        }
    }

    /// The committer's thread: until closed or failed, everything applied becomes durable, all that waits at once.
    pub(super) fn run(&self, mut sync: impl FnMut() -> Result<(), Fault>) {
        while let Some(seq) = self.next() {
            // sled may panic on a broken disk; that is a failed flush like any other.
            let result = catch_unwind(AssertUnwindSafe(&mut sync)).unwrap_or_else(|_| {
                Err(Fault::internal("sled panicked while flushing").trying("make a commit durable"))
            });
            match result {
                Ok(()) => self.durable(seq),
                Err(fault) => return self.fail(fault),
            }
        }
    }
}

/// Flushes sled, then the file under it.
pub(super) fn sync(db: &sled::Db, file: &File) -> Result<(), Fault> {
    db.flush().map_err(|e| raw::outside("make a commit durable", &e))?;
    file.sync_data().map_err(|e| raw::outside("make a commit durable", &sled::Error::Io(e)))
}

/// Stands for a commit that is applied and may not be durable yet. Nothing may be answered before it is.
#[must_use = "nothing may be answered before the commit is durable"]
pub struct Ticket {
    commits: Arc<Commits>,
    seq: u64,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket({})", self.seq)
    }
}

impl Ticket {
    /// Blocks until the commit is durable, or cannot be any more.
    pub fn wait(self) -> Result<(), Fault> {
        let mut state = self.commits.state();
        loop {
            if state.durable >= self.seq {
                return Ok(());
            }
            if let Some(fault) = &state.failed {
                return Err(fault.clone());
            }
            state = self.commits.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether the commit is durable now.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.commits.state().durable >= self.seq
    }

    /// Calls `tell` when the commit is durable, or cannot be any more: on the committer's thread, or at once on this one.
    /// It must be short and must not call the store.
    pub fn on_durable(self, tell: OnDurable) {
        let mut state = self.commits.state();
        let now = if state.durable >= self.seq { Some(Ok(())) } else { state.failed.clone().map(Err) };
        match now {
            Some(result) => {
                drop(state);
                tell(result);
            }
            None => state.waiting.push((self.seq, tell)),
        }
    }
}
