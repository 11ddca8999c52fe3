//! Who notices at once that a worker has died. Waits on the kernel's handles of the processes that were found; tells each
//! death once. Never starts or stops anything, and never tells of an end that was asked for.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmi::model::Id;
use bmi::step::WorkerKind;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Workers;
use crate::drivers::host::Process;

/// Who notices that workers die.
pub trait Watch: Send + Sync {
    /// Waits until a worker has ended that was found running and was not told to end, for at most `limit`. Each is told once.
    /// One that ended before it was ever looked at is told, too, if it left its mark.
    fn died(&self, limit: Duration) -> Vec<Death>;
}

/// A worker's end that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// Whose it was.
    pub network: Id,
    /// Which program.
    pub kind: WorkerKind,
    /// The number the process had.
    pub pid: u32,
    /// It ended while no bmid looked.
    pub unseen: bool,
}

/// What this bmid remembers of a worker: nothing that it could not find out again.
#[derive(Default)]
pub(super) struct Known {
    /// The process, alive or not told to be dead yet.
    pub(super) process: Option<Arc<Process>>,
    /// Processes seen so far.
    pub(super) seen: u32,
    /// One that had ended before it was looked at.
    pub(super) lost: Option<u32>,
    /// It was told to end.
    pub(super) ending: bool,
}

impl Workers {
    fn ended(&self) -> Vec<Death> {
        self.known(|all| {
            let mut dead = Vec::new();
            for (&(network, kind), known) in all.iter_mut() {
                if let Some(pid) = known.lost.take() {
                    dead.push(Death { network, kind, pid, unseen: true });
                }
                if let Some(gone) = known.process.take_if(|p| !p.alive()) {
                    dead.push(Death { network, kind, pid: gone.pid, unseen: false });
                }
            }
            dead
        })
    }

    /// Waits for the end of any of the processes, for news that there is another one, or for the time.
    fn wait(&self, limit: Duration) {
        let processes: Vec<Arc<Process>> = self.known(|all| all.values().filter_map(|k| k.process.clone()).collect());
        let news = self.inner.news.as_ref();
        let handles: Vec<BorrowedFd<'_>> = processes.iter().map(|p| p.handle()).chain(news.map(AsFd::as_fd)).collect();
        let mut waiting: Vec<PollFd<'_>> = handles.into_iter().map(|h| PollFd::new(h, PollFlags::POLLIN)).collect();
        let limit = PollTimeout::try_from(limit.as_millis()).unwrap_or(PollTimeout::MAX);
        // Interrupted or failed: whoever waits looks again.
        if poll(&mut waiting, limit).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        // Empty unless there was news; it never blocks.
        let _ = news.map(nix::sys::eventfd::EventFd::read);
    }
}

impl Watch for Workers {
    fn died(&self, limit: Duration) -> Vec<Death> {
        let end = Instant::now() + limit;
        loop {
            let dead = self.ended();
            let left = end.saturating_duration_since(Instant::now());
            if !dead.is_empty() || left.is_zero() {
                return dead;
            }
            self.wait(left);
        }
    }
}
