//! The dumps that are written by themselves: once an hour, a first one as soon as there is something to lose, and a last one
//! when bmid stops. What stands in them is what is left when the store is damaged.
//!
//! A dump is never worth an operation: none waits for one, and a stop waits for one only a short while.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bmi::model::{Fault, Network, Server, ViewExt};

use super::Engine;

/// Dumps kept.
const KEPT: usize = 48;
/// The newest dump is at most so old.
const EVERY: Duration = Duration::from_secs(3_600);
/// After a dump that failed, or while there is nothing to dump, it is looked again so soon.
const AGAIN: Duration = Duration::from_secs(60);

impl Engine {
    /// Writes dumps until bmid stops.
    pub(super) async fn keep_dumps(self: Arc<Engine>) {
        tokio::select! {
            () = self.stopping.cancelled() => return,
            // The first dump of all holds what the first start makes.
            () = self.first_start.cancelled() => {}
        }
        loop {
            let mut pause = self.until_next_dump();
            if pause.is_zero() {
                pause = AGAIN;
                if self.has_something_to_lose() && self.dump_now(None).await.is_ok() {
                    pause = EVERY;
                }
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The last dump before bmid ends, if anything was written since the one before. Given up at `until`.
    pub(super) async fn last_dump(&self, until: Instant) {
        if self.written.load(Ordering::SeqCst) == self.dumped.load(Ordering::SeqCst) || !self.has_something_to_lose() {
            return;
        }
        let deadline = tokio::time::Instant::from_std(until);
        if tokio::time::timeout_at(deadline, self.dump_now(Some(until))).await.is_err() {
            tracing::warn!("the last dump is not waited for; the one before stays the newest");
        }
    }

    /// What keeps dumps from being written, for `status`.
    pub(super) fn dump_problem(&self) -> Option<Fault> {
        self.undumped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An hour after the newest dump, whoever wrote it: a bmid that is restarted more often than once an hour writes
    /// them too. A newest dump from the future says that the clock was wrong, and nothing else.
    fn until_next_dump(&self) -> Duration {
        let age = self.store.last_dump().and_then(|at| SystemTime::now().duration_since(at).ok());
        age.map_or(Duration::ZERO, |age| EVERY.saturating_sub(age))
    }

    /// An empty store may be one that waits for a dump to be restored: its own dumps would push that one out.
    fn has_something_to_lose(&self) -> bool {
        let rows =
            self.store.read(|view| Ok(!view.live::<Server>()?.is_empty() || !view.live::<Network>()?.is_empty()));
        rows.unwrap_or(false) || !self.hub.all().is_empty()
    }

    async fn dump_now(&self, until: Option<Instant>) -> Result<(), Fault> {
        let (store, now) = (self.store.clone(), self.now());
        // What is written meanwhile may be in it or not.
        let written = self.written.load(Ordering::SeqCst);
        let dump = move || store.dump_until(&store.dir().join("dumps"), KEPT, now, until).map(|_| ());
        let done = tokio::task::spawn_blocking(dump).await.map_err(super::lanes::panicked).and_then(|done| done);
        if done.is_ok() {
            self.dumped.store(written, Ordering::SeqCst);
        }
        self.note_dump(done.as_ref().err()).await;
        done
    }

    /// Says it once when dumps begin to fail, and once when they succeed again.
    async fn note_dump(&self, failed: Option<&Fault>) {
        let before = {
            let mut undumped = self.undumped.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *undumped, failed.cloned())
        };
        match (before, failed) {
            (_, Some(fault)) if self.is_stopping() => tracing::warn!("the last dump failed: {fault}"),
            (None, Some(fault)) => {
                tracing::warn!("the hourly dump failed: {fault}");
                self.noticed("dump.failed", fault.to_string()).await;
            }
            (Some(_), Some(fault)) => tracing::warn!("the hourly dump failed again: {fault}"),
            (Some(_), None) => tracing::info!("dumps are written again"),
            (None, None) => {}
        }
    }
}
