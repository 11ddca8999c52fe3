//! One bmid a folder (of state, or of what its workers run from): a lock file with the holder's process id in it.
//!
//! The kernel drops the lock when the holder dies, however it dies; the number in the file is for the message alone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The lock; dropped, it is free.
pub(crate) struct Lock {
    held: Flock<File>,
}

/// Why there is no lock.
pub(crate) enum NoLock {
    /// The process of that id holds it; 0 if it did not say.
    Held(u32),
    /// The file cannot be opened or locked.
    Io(io::Error),
}

/// Takes the lock of a folder.
pub(crate) fn take(dir: &Path) -> Result<Lock, NoLock> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(NoLock::Io)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => Ok(Lock { held }),
        Err((file, Errno::EWOULDBLOCK)) => Err(NoLock::Held(read_pid(&file))),
        Err((_, e)) => Err(NoLock::Io(e.into())),
    }
}

impl Lock {
    /// Writes our process id into the file. A disk too full for these eleven bytes must not keep us from starting, so
    /// that is no failure.
    pub(crate) fn sign(&self) {
        // Always equally long: it overwrites what a predecessor wrote, without a moment of an empty file.
        let _ = self.held.write_all_at(format!("{:10}\n", std::process::id()).as_bytes(), 0);
    }
}

fn read_pid(file: &File) -> u32 {
    let mut text = [0u8; 11];
    let n = file.read_at(&mut text, 0).unwrap_or(0);
    std::str::from_utf8(&text[..n]).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
}
