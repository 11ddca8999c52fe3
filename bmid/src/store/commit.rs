//! Making commits durable, many at once: all that waits is written into the log as one frame, with one fdatasync, by the
//! committer's thread or by one that would only wait for it; and the tickets that wait.
//!
//! No ticket may resolve before fdatasync returned. A failed write ends the store: whether what was applied is on disk is
//! not known any more, so nothing further is served.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bmi::model::{Fault, Kind};

use super::log::Writing;
use super::raw;

/// What is called when a commit is durable, or never will be.
pub type OnDurable = Box<dyn FnOnce(Result<(), Fault>) + Send>;
/// What is called once when the store has failed.
pub type OnFailed = Box<dyn Fn(Fault) + Send + Sync>;

/// A frame has at most about so many bytes, if no single commit has more.
const FRAME: usize = 8 << 20;

/// Who would only wait for the committer writes at most so many bytes itself.
const LITTLE: usize = 64 << 10;
/// A disk that takes longer for a commit is left to the committer.
const QUICK: Duration = Duration::from_millis(2);

/// What waits for the committer.
enum Queued {
    /// A commit's bytes.
    Commit(Vec<u8>),
    /// What follows goes into the other file.
    Switch,
}

/// What the committer does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Write these commits, the first of them with that number.
    Frame(u64, Vec<Vec<u8>>),
    /// Go on in the other file.
    Switch,
}

#[derive(Default)]
struct State {
    /// Number of the last commit applied.
    applied: u64,
    /// Number of the last one that is durable.
    durable: u64,
    /// Those between the two that nobody writes yet.
    queue: VecDeque<Queued>,
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
    /// Held by who writes: frames follow one another.
    log: Mutex<Option<Writing>>,
    /// The disk takes its time: nobody but the committer waits for it.
    slow: AtomicBool,
    dead: AtomicBool,
    /// A dump is taken in.
    shut: AtomicBool,
    on_failed: OnFailed,
}

fn being_restored() -> Fault {
    Fault::new(Kind::Busy, "a dump is being restored").fix("ask again when that is done")
}

/// As long as it is there the store is shut.
pub(super) struct Shut<'a>(&'a AtomicBool);

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Commits {
    /// `last` is the number of the last commit there is.
    pub(super) fn new(last: u64, log: Option<Writing>, on_failed: OnFailed) -> Commits {
        Commits {
            state: Mutex::new(State { applied: last, durable: last, ..State::default() }),
            work: Condvar::new(),
            done: Condvar::new(),
            log: Mutex::new(log),
            slow: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            shut: AtomicBool::new(false),
            on_failed,
        }
    }

    /// A panic under this lock cannot leave the state half-changed: nothing that panics runs under it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses while a dump is taken in, and once the store has failed.
    pub(super) fn alive(&self) -> Result<(), Fault> {
        if self.shut.load(Ordering::SeqCst) {
            return Err(being_restored());
        }
        self.not_failed()
    }

    /// Shuts everybody out but the caller, until what is given back is dropped.
    pub(super) fn shut(&self) -> Result<Shut<'_>, Fault> {
        self.not_failed()?;
        match self.shut.swap(true, Ordering::SeqCst) {
            false => Ok(Shut(&self.shut)),
            true => Err(being_restored()),
        }
    }

    /// Refuses once the store has failed.
    pub(super) fn not_failed(&self) -> Result<(), Fault> {
        if !self.dead.load(Ordering::Acquire) {
            return Ok(());
        }
        let fault = self.state().failed.clone();
        Err(fault.unwrap_or_else(|| Fault::new(Kind::Unavailable, "the store has failed")))
    }

    /// One more commit was applied, and these are its bytes. Called in the order of applying.
    pub(super) fn applied(self: &Arc<Self>, bytes: Vec<u8>) -> Ticket {
        let mut state = self.state();
        state.applied += 1;
        state.queue.push_back(Queued::Commit(bytes));
        let seq = state.applied;
        drop(state);
        Ticket { commits: Arc::clone(self), seq, owed: true }
    }

    /// What is applied from now on goes into the other file. Gives the number of the last commit in this one.
    pub(super) fn switch(&self) -> u64 {
        let mut state = self.state();
        state.queue.push_back(Queued::Switch);
        state.applied
    }

    /// Number of the last commit applied.
    pub(super) fn last(&self) -> u64 {
        self.state().applied
    }

    /// A ticket for everything applied so far.
    pub(super) fn settled(self: &Arc<Self>) -> Ticket {
        let seq = self.state().applied;
        self.ticket(seq)
    }

    /// A ticket for a commit and all before it.
    pub(super) fn ticket(self: &Arc<Self>, seq: u64) -> Ticket {
        Ticket { commits: Arc::clone(self), seq, owed: false }
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
        self.work.notify_one();
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

    /// Waits until there is something to write; false: there will be nothing more.
    fn wait(&self) -> bool {
        let mut state = self.state();
        loop {
            if state.failed.is_some() {
                return false;
            }
            if !state.queue.is_empty() {
                return true;
            }
            if state.closing {
                return false;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn durable(&self, count: u64) {
        let mut state = self.state();
        state.durable += count;
        let seq = state.durable;
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
    pub(super) fn run(&self, mut write: impl FnMut(&mut Option<Writing>, Work) -> Result<(), Fault>) {
        while self.wait() {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            // Somebody else may have written it meanwhile.
            let work = take(&mut self.state(), usize::MAX);
            if work.is_some_and(|work| !self.one(&mut log, work, &mut write)) {
                return;
            }
        }
    }

    /// Writes what waits, now and on this thread, if nobody else does, it is little, and the disk is quick.
    fn lead(&self) {
        if self.slow.load(Ordering::Relaxed) {
            return;
        }
        let Ok(mut log) = self.log.try_lock() else { return };
        loop {
            let work = take(&mut self.state(), LITTLE);
            let Some(work) = work else { return };
            let switch = work == Work::Switch;
            if !self.one(&mut log, work, &mut write) || !switch {
                return;
            }
        }
    }

    /// One piece of work; false: it failed, and with it the store.
    fn one<F>(&self, log: &mut Option<Writing>, work: Work, write: &mut F) -> bool
    where
        F: FnMut(&mut Option<Writing>, Work) -> Result<(), Fault>,
    {
        let count = match &work {
            Work::Frame(_, commits) => commits.len() as u64,
            Work::Switch => 0,
        };
        let begun = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| write(log, work)))
            .unwrap_or_else(|_| Err(Fault::internal("the log's writer panicked").trying("make a commit durable")));
        if count > 0 {
            self.slow.store(begun.elapsed() > QUICK, Ordering::Relaxed);
        }
        match result {
            Ok(()) if count == 0 => true,
            Ok(()) => {
                self.durable(count);
                true
            }
            Err(fault) => {
                self.fail(fault);
                false
            }
        }
    }
}

/// Takes what is to be written next; none if more than `limit` bytes wait, or the store has failed.
fn take(state: &mut State, limit: usize) -> Option<Work> {
    let bytes = |q: &Queued| match q {
        Queued::Commit(bytes) => bytes.len(),
        Queued::Switch => 0,
    };
    if state.failed.is_some() || limit < usize::MAX && state.queue.iter().map(bytes).sum::<usize>() > limit {
        return None;
    }
    if matches!(state.queue.front()?, Queued::Switch) {
        state.queue.pop_front();
        return Some(Work::Switch);
    }
    let (mut commits, mut length) = (Vec::new(), 0);
    while length < FRAME && matches!(state.queue.front(), Some(Queued::Commit(_))) {
        if let Some(Queued::Commit(bytes)) = state.queue.pop_front() {
            length += bytes.len();
            commits.push(bytes);
        }
    }
    Some(Work::Frame(state.durable + 1, commits))
}

/// Does the work on the log.
pub(super) fn write(log: &mut Option<Writing>, work: Work) -> Result<(), Fault> {
    let log = log.as_mut().ok_or_else(|| Fault::internal("the store has no log"))?;
    match work {
        Work::Switch => {
            log.switch();
            Ok(())
        }
        Work::Frame(first, commits) => {
            log.append(first, commits).map_err(|e| raw::outside("make a commit durable", &e.into()))
        }
    }
}

/// Stands for a commit that is applied and may not be durable yet. Nothing may be answered before it is.
#[must_use = "nothing may be answered before the commit is durable"]
pub struct Ticket {
    commits: Arc<Commits>,
    seq: u64,
    /// Nobody has seen to it yet that it is written.
    owed: bool,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.see_to_it();
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket({})", self.seq)
    }
}

impl Ticket {
    /// Has the committer write it.
    fn see_to_it(&mut self) {
        if std::mem::take(&mut self.owed) {
            self.commits.work.notify_one();
        }
    }

    /// Makes the commit durable on this thread if that is quick: one write and one fdatasync, instead of two threads being
    /// woken. Says whether it is durable now.
    #[must_use]
    pub fn settle(&mut self) -> bool {
        self.commits.lead();
        let durable = self.is_durable();
        if durable {
            self.owed = false;
        }
        durable
    }

    /// Blocks until the commit is durable, or cannot be any more.
    pub fn wait(mut self) -> Result<(), Fault> {
        self.see_to_it();
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
    pub fn on_durable(mut self, tell: OnDurable) {
        self.see_to_it();
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
