//! Who notices at once that a worker has died. Waits on the kernel's handles of the processes that were found; tells each
//! death once. Never starts or stops anything, and never tells of an end that was asked for.

use std::os::fd::AsFd;
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
    /// Who of those that are gone was known, with those that were lost before.
    fn told(&self, gone: &[Arc<Process>]) -> Vec<Death> {
        self.known(|all| {
            let mut dead = Vec::new();
            for (&(network, kind), known) in all.iter_mut() {
                if let Some(pid) = known.lost.take() {
                    dead.push(Death { network, kind, pid, unseen: true });
                }
                if let Some(gone) = known.process.take_if(|p| gone.iter().any(|g| Arc::ptr_eq(g, p))) {
                    dead.push(Death { network, kind, pid: gone.pid, unseen: false });
                }
            }
            dead
        })
    }

    /// Waits for the end of any of the processes, for news that there is another one, or for the time; who has ended. One question for
    /// all of them: with hundreds of networks each start of a worker would else ask of hundreds.
    fn wait(&self, limit: Duration) -> Vec<Arc<Process>> {
        let mut processes: Vec<Arc<Process>> =
            self.known(|all| all.values().filter_map(|k| k.process.clone()).collect());
        let news = self.inner.news.as_ref();
        let handles = processes.iter().map(|p| p.handle()).chain(news.map(AsFd::as_fd));
        let mut waiting: Vec<PollFd<'_>> = handles.map(|h| PollFd::new(h, PollFlags::POLLIN)).collect();
        let limit = PollTimeout::try_from(limit.as_millis()).unwrap_or(PollTimeout::MAX);
        // Interrupted or failed: whoever waits looks again.
        let answered = poll(&mut waiting, limit).inspect_err(|_| std::thread::sleep(Duration::from_millis(10)));
        // Empty unless there was news; it never blocks.
        let _ = news.map(nix::sys::eventfd::EventFd::read);
        let mut ended =
            waiting.iter().map(|w| answered.is_ok() && w.any() == Some(true)).collect::<Vec<_>>().into_iter();
        processes.retain(|_| ended.next() == Some(true));
        processes
    }
}

impl Watch for Workers {
    fn died(&self, limit: Duration) -> Vec<Death> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let dead = self.told(&self.wait(left));
            if !dead.is_empty() || left.is_zero() {
                return dead;
            }
        }
    }
}
