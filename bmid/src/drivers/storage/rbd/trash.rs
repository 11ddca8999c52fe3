//! The end of what was put into the trash: removed for good once nothing needs it any more.
//!
//! Must never wait for ever: librbd does when somebody else removes the image that it is about to remove (an operator's `rbd trash purge`,
//! the manager's schedule), since it then waits for the lock of an image that is gone. So one image is removed by one thread of this process
//! at a time, and whoever waits for it looks now and then whether it is still there.

use std::collections::BTreeSet;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use super::image::ffi::Which;
use super::pool::{Pool, absent};

/// How often it is looked whether what is being removed is still there.
const LOOK: Duration = Duration::from_secs(2);
/// librbd takes the image off the list last of all and returns: so many looks without it, and it does not.
const LOOKS: u32 = 2;

/// Removes from the trash what nobody needs any more, out of those whose name is `ours`. True: something has to wait, for its
/// children or for Ceph, or is being removed already.
pub(super) fn purge(pool: &Arc<Pool>, ours: impl Fn(&str) -> bool) -> bool {
    let Ok(trashed) = pool.trashed() else { return true };
    let mut left = false;
    for (id, _) in trashed.into_iter().filter(|(_, name)| ours(name)) {
        left |= end(pool, &id).is_err();
    }
    left
}

/// Removes one, unless another thread does.
fn end(pool: &Arc<Pool>, id: &str) -> Result<(), Errno> {
    let alone = Alone::with(pool, id).ok_or(Errno::EBUSY)?;
    let (its, of) = (Arc::clone(pool), id.to_owned());
    gone_when(pool, id, move || {
        let done = emptied(&its, &of);
        drop(alone);
        done
    })
}

/// Removes an image in a thread of its own: what that says, or that the image is gone though it says nothing.
pub(super) fn gone_when(
    pool: &Pool,
    id: &str,
    remove: impl FnOnce() -> Result<(), Errno> + Send + 'static,
) -> Result<(), Errno> {
    let (tell, told) = channel();
    let run = move || {
        // Whoever waited may have gone.
        let _ = tell.send(remove());
    };
    std::thread::Builder::new().name("bmid-ceph-rm".to_owned()).spawn(run).map_err(|_| Errno::EAGAIN)?;
    let mut missed = 0;
    while missed < LOOKS {
        match told.recv_timeout(LOOK) {
            Ok(done) => return done,
            Err(RecvTimeoutError::Disconnected) => return Err(Errno::EIO),
            Err(RecvTimeoutError::Timeout) => {}
        }
        missed = if pool.is_trashed(id) == Ok(false) { missed + 1 } else { 0 };
    }
    tracing::warn!(image = id, pool = pool.place.spec(), "somebody else has removed it, and librbd waits for its lock");
    Ok(())
}

fn emptied(pool: &Pool, id: &str) -> Result<(), Errno> {
    if !pool.snap_ids(id).unwrap_or_default().is_empty() {
        let image = pool.open(Which::Id(id))?;
        for snap in image.snaps()? {
            absent(image.unsnap(&snap))?;
        }
        // What its last child should have taken along, and a client died in between: its children alone keep one.
        for snap in pool.snap_ids(id)? {
            absent(image.unsnap_by_id(snap))?;
        }
    }
    absent(pool.trash_remove(id)).map(drop)
}

/// The images that are being removed.
static ENDING: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Nobody else in this process removes that image.
pub(super) struct Alone(String);

impl Alone {
    /// None while somebody does.
    pub(super) fn with(pool: &Pool, id: &str) -> Option<Alone> {
        // Two clusters may have images of one id: the one waits for the other.
        let image = format!("{}/{id}", pool.place.spec());
        let mut ending = ENDING.lock().unwrap_or_else(PoisonError::into_inner);
        // Not made before it is known: what is made here is taken off the list when it goes.
        ending.insert(image.clone()).then(|| Alone(image))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        ENDING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}
