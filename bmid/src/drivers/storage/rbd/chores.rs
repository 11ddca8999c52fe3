//! What is done in the background in a pool: purging the trash, flattening what stands too deep, and removing unfinished imports
//! that nobody came for.
//!
//! One thread a datastore, one thing at a time: that is the limit. It finds its work in the pool, so a restart forgets nothing;
//! it touches only what carries our prefix, and ends with the pool's connection.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bmi::model::Id;
use nix::errno::Errno;

use super::image::ffi::Which;
use super::pool::{Pool, absent};
use super::{import, names, trash};
use crate::drivers::DriverError;

/// How long what has to wait is left alone.
const PAUSE: Duration = Duration::from_secs(20);
/// How often, and with what pause, the trash of a datastore that was given up is looked at.
const TRIES: u32 = 60;
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// How long an unfinished import is kept, in seconds.
const KEPT: u64 = 7 * 24 * 3_600;

/// The bell of one datastore's background.
#[derive(Debug, Clone)]
pub(super) struct Chores(SyncSender<()>);

impl Chores {
    /// Starts with a look at what an earlier bmid left.
    pub(super) fn start(pool: &Arc<Pool>, datastore: Id) -> Result<Chores, DriverError> {
        let (bell, rung) = sync_channel(1);
        let pool = Arc::downgrade(pool);
        std::thread::Builder::new()
            .name("bmid-ceph-bg".to_owned())
            .spawn(move || work(&pool, datastore, &rung))
            .map_err(|e| DriverError::io("start the background of a pool", e))?;
        Ok(Chores(bell))
    }

    /// There is something to do.
    pub(super) fn ring(&self) {
        // Full: it is told already.
        let _ = self.0.try_send(());
    }
}

/// Empties the trash behind a datastore that was given up. A watch of a client that died, or a child that is going itself, holds
/// an image for up to half a minute; what somebody else's image needs stays in the trash, where `rbd trash ls` shows it.
pub(super) fn clear_up(pool: Arc<Pool>) {
    let clear = move || {
        for _ in 0..TRIES {
            if !trash::purge(&pool, |name| names::read(&pool.place.prefix(), name).is_some()) {
                return;
            }
            std::thread::sleep(TRY_AGAIN);
        }
    };
    // Without the thread it stays in the trash; nothing of it is in use.
    let _ = std::thread::Builder::new().name("bmid-ceph-end".to_owned()).spawn(clear);
}

fn work(pool: &Weak<Pool>, datastore: Id, rung: &Receiver<()>) {
    loop {
        let Some(held) = pool.upgrade() else { return };
        let left = sweep(&held, datastore);
        drop(held);
        let next =
            if left { rung.recv_timeout(PAUSE) } else { rung.recv().map_err(|_| RecvTimeoutError::Disconnected) };
        if matches!(next, Err(RecvTimeoutError::Disconnected)) {
            return;
        }
    }
}

/// Does what can be done now. True: something has to wait.
fn sweep(pool: &Arc<Pool>, datastore: Id) -> bool {
    let flat = format!("flat.{datastore}.");
    let mut left = match pool.entries::<String>(&flat) {
        Ok(found) => found.iter().map(|(key, _)| flatten(pool, key, &key[flat.len()..])).fold(false, |a, b| a | b),
        Err(_) => true,
    };
    forget_imports(pool, datastore);
    left |= trash::purge(pool, |name| names::read(&pool.place.prefix(), name).is_some());
    left
}

/// Removes what was staged and not touched for a week. What fails is tried with the next sweep.
fn forget_imports(pool: &Pool, datastore: Id) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let key = format!("stage.{datastore}.");
    for (at, stage) in pool.entries::<import::Stage>(&key).unwrap_or_default() {
        if stage.touched.saturating_add(KEPT) <= now && import::discard(pool, &at[key.len()..]).is_ok() {
            // An entry that stays is removed by the next sweep, or taken over by the same import.
            let _ = pool.remove_entry(&at);
        }
    }
}

/// Flattens one image; true: it has to wait. Its users go on meanwhile.
fn flatten(pool: &Pool, key: &str, id: &str) -> bool {
    let flat = match absent(pool.open(Which::Id(id))) {
        // EINVAL: it has no parent, an earlier try came so far.
        Ok(Some(image)) => match image.flatten() {
            Ok(()) | Err(Errno::EINVAL) => true,
            Err(e) => {
                tracing::warn!(image = id, error = %e, "an image is not flattened yet");
                false
            }
        },
        Ok(None) => true,
        Err(_) => false,
    };
    if flat {
        // Told too much, a depth only has one more image flattened.
        let _ = pool.change_mark(id, |mark| std::mem::replace(&mut mark.depth, 0) != 0);
    }
    !(flat && pool.remove_entry(key).is_ok())
}
